//! A disk as it is after a power cut at the worst moment: all that was flushed before it, and nothing else.

use std::ops::Range;

use anyhow::{Context, Result};

use super::log::{Action, Entry};

/// A disk that is brought forward along its log.
pub struct Replay<'log> {
    image: Vec<u8>,
    left: &'log [Entry<'log>],
}

impl<'log> Replay<'log> {
    /// The disk `image` before the first of `entries`.
    pub fn new(image: Vec<u8>, entries: &'log [Entry<'log>]) -> Self {
        Self { image, left: entries }
    }

    /// Goes on to the last flush that was complete when the log had `log_bytes`: what came after it may be lost.
    pub fn advance_to_last_flush(&mut self, log_bytes: usize) -> Result<()> {
        let complete = self.left.partition_point(|entry| entry.end <= log_bytes);
        let flush = self.left[..complete].iter().rposition(|entry| entry.action == Action::Flush);
        let (entries, left) = self.left.split_at(flush.map_or(0, |last| last + 1));
        self.left = left;
        entries.iter().try_for_each(|entry| self.carry_out(entry.action))
    }

    /// The bytes of `range`, when the disk has them.
    pub fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        self.image.get(range)
    }

    fn carry_out(&mut self, action: Action) -> Result<()> {
        let (at, length) = match action {
            Action::Write { at, data } => (at, data.len()),
            Action::Discard { at, bytes } => (at, bytes),
            Action::Flush => return Ok(()),
        };
        let place = at
            .checked_add(length)
            .and_then(|end| self.image.get_mut(at..end))
            .with_context(|| format!("the log has {length} bytes at {at}, behind the disk's end"))?;
        match action {
            Action::Write { data, .. } => place.copy_from_slice(data),
            Action::Discard { .. } | Action::Flush => place.fill(0),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::log::writer::{SECTOR_BYTES, write};
    use super::super::log::{Action, read};
    use super::Replay;

    const SECTORS: usize = 16;

    /// What a disk is made to do: a kind, a place and a length in sectors, and what is written.
    type Step = (u8, usize, usize, u8);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        proptest::collection::vec((0..4_u8, 0..SECTORS, 1..=4_usize, any::<u8>()), 0..40)
    }

    /// The data of each step.
    fn contents(steps: &[Step]) -> Vec<Vec<u8>> {
        steps
            .iter()
            .map(|(_, at, length, fill)| vec![*fill; (*length).min(SECTORS - at) * SECTOR_BYTES])
            .collect()
    }

    fn actions<'data>(steps: &[Step], contents: &'data [Vec<u8>]) -> Vec<Action<'data>> {
        let action = |((kind, at, ..), data): (&Step, &'data Vec<u8>)| match kind {
            0 => Action::Flush,
            1 => Action::Discard { at: at * SECTOR_BYTES, bytes: data.len() },
            _ => Action::Write { at: at * SECTOR_BYTES, data },
        };
        steps.iter().zip(contents).map(action).collect()
    }

    /// The disk itself.
    fn disk_after(actions: &[Action]) -> Vec<u8> {
        let mut disk = vec![0; SECTORS * SECTOR_BYTES];
        for action in actions {
            match *action {
                Action::Write { at, data } => disk[at..at + data.len()].copy_from_slice(data),
                Action::Discard { at, bytes } => disk[at..at + bytes].fill(0),
                Action::Flush => {}
            }
        }
        disk
    }

    fn fresh() -> Vec<u8> {
        vec![0; SECTORS * SECTOR_BYTES]
    }

    proptest! {
        #[test]
        fn the_whole_log_makes_the_disk(steps in steps()) {
            let contents = contents(&steps);
            let mut actions = actions(&steps, &contents);
            actions.push(Action::Flush);
            let log = write(&actions);
            let entries = read(&log).unwrap();
            let mut replay = Replay::new(fresh(), &entries);
            replay.advance_to_last_flush(log.len()).unwrap();
            prop_assert_eq!(replay.image, disk_after(&actions));
        }

        #[test]
        fn a_log_cut_anywhere_makes_the_disk_of_its_last_flush(steps in steps(), cut in any::<prop::sample::Index>()) {
            let contents = contents(&steps);
            let mut actions = actions(&steps, &contents);
            actions.push(Action::Flush);
            let log = write(&actions);
            let cut = cut.index(log.len() + 1);
            let entries = read(&log).unwrap();
            let mut replay = Replay::new(fresh(), &entries);
            // In two steps it must come to the same.
            replay.advance_to_last_flush(cut / 2).unwrap();
            replay.advance_to_last_flush(cut).unwrap();
            let complete = entries.iter().filter(|entry| entry.end <= cut).count();
            let flushed = actions[..complete].iter().rposition(|action| *action == Action::Flush);
            prop_assert_eq!(replay.image, disk_after(&actions[..flushed.map_or(0, |last| last + 1)]));
        }
    }

    #[test]
    fn a_write_behind_the_end_is_an_error() {
        let data = [1; 2 * SECTOR_BYTES];
        let log = write(&[Action::Write { at: (SECTORS - 1) * SECTOR_BYTES, data: &data }, Action::Flush]);
        let entries = read(&log).unwrap();
        assert!(Replay::new(fresh(), &entries).advance_to_last_flush(log.len()).is_err());
    }
}
