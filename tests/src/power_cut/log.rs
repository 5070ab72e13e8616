//! The log that QEMU's `blklogwrites` filter keeps of all that reaches a disk, in the form of Linux's dm-log-writes: a head, then an entry
//! for each write, discard and flush, in the order in which the disk completed them.
//!
//! An entry is one sector that says what was done, followed by the data of a write. QEMU logs a request after the disk has carried it out
//! and before the guest hears of it: a flush that is in the log is complete, and one that is not in the log was not answered.

use anyhow::{Result, bail};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

#[cfg(test)]
use zerocopy::IntoBytes;

const MAGIC: u64 = 0x6a_7366_7773_6872;
const VERSION: u64 = 1;

const FLUSH: u64 = 1 << 0;
const DISCARD: u64 = 1 << 2;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[cfg_attr(test, derive(IntoBytes))]
#[repr(C)]
struct Head {
    magic: U64,
    version: U64,
    entries: U64,
    sector_bytes: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[cfg_attr(test, derive(IntoBytes))]
#[repr(C)]
struct EntryHead {
    sector: U64,
    sectors: U64,
    flags: U64,
    data_bytes: U64,
}

/// What the disk was made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'log> {
    /// `data` was written from byte `at` on.
    Write {
        /// Where on the disk.
        at: usize,
        /// What.
        data: &'log [u8],
    },
    /// These bytes were given up, and read as zeroes.
    Discard {
        /// Where on the disk.
        at: usize,
        /// How many.
        bytes: usize,
    },
    /// All that the log holds before this was made to last.
    Flush,
}

/// One request that the disk completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'log> {
    /// What it did.
    pub action: Action<'log>,
    /// The length of the log once it holds this entry.
    pub end: usize,
}

/// Reads a log. After a power cut its last entries may be torn: it ends at the first that is not whole.
///
/// The head says how many entries there were at some flush, not how many there are: it is only held against what was found.
pub fn read(log: &[u8]) -> Result<Vec<Entry<'_>>> {
    let Ok((head, _)) = Head::ref_from_prefix(log) else {
        // QEMU writes the head at the first flush.
        return Ok(Vec::new());
    };
    if head.magic == 0 {
        return Ok(Vec::new());
    }
    if head.magic != MAGIC || head.version != VERSION {
        bail!("this is no log of writes, or one of a version that is not known: see power_cut/log.rs");
    }
    let sector_bytes = usize::try_from(head.sector_bytes.get())?;
    if sector_bytes < size_of::<EntryHead>() {
        bail!("the log's sectors of {sector_bytes} bytes cannot hold an entry's head");
    }
    let mut entries = Vec::new();
    let mut at = sector_bytes;
    while let Some(entry) = entry(log, at, sector_bytes) {
        at = entry.end;
        entries.push(entry);
    }
    if (entries.len() as u64) < head.entries.get() {
        bail!(
            "the log says that it has {} entries, and {} can be read: it was torn before its end, and tells nothing",
            head.entries,
            entries.len()
        );
    }
    Ok(entries)
}

/// The entry at byte `at` of the log, when it is whole.
fn entry(log: &[u8], at: usize, sector_bytes: usize) -> Option<Entry<'_>> {
    let (head, _) = EntryHead::ref_from_prefix(log.get(at..)?).ok()?;
    let start = usize::try_from(head.sector.get()).ok()?.checked_mul(sector_bytes)?;
    let bytes = usize::try_from(head.sectors.get()).ok()?.checked_mul(sector_bytes)?;
    let data = at.checked_add(sector_bytes)?;
    let (action, end) = match (head.flags.get(), bytes) {
        (FLUSH, 0) => (Action::Flush, data),
        (DISCARD, 1..) => (Action::Discard { at: start, bytes }, data),
        (0, 1..) => {
            let end = data.checked_add(bytes)?;
            (Action::Write { at: start, data: log.get(data..end)? }, end)
        }
        _ => return None,
    };
    (end <= log.len()).then_some(Entry { action, end })
}

/// Writes logs as QEMU does, for tests.
#[cfg(test)]
pub mod writer {
    use super::{Action, DISCARD, EntryHead, FLUSH, Head, IntoBytes, MAGIC, VERSION};

    /// The sectors of such logs.
    pub const SECTOR_BYTES: usize = 512;

    /// The log of `actions`.
    pub fn write(actions: &[Action]) -> Vec<u8> {
        let flushed = actions.iter().rposition(|action| *action == Action::Flush).map_or(0, |last| last + 1);
        let mut log = Vec::new();
        if flushed > 0 {
            let head = Head {
                magic: MAGIC.into(),
                version: VERSION.into(),
                entries: (flushed as u64).into(),
                sector_bytes: u32::try_from(SECTOR_BYTES).unwrap().into(),
            };
            log.extend_from_slice(head.as_bytes());
        }
        log.resize(SECTOR_BYTES, 0);
        for action in actions {
            let (at, bytes, flags, data) = match *action {
                Action::Write { at, data } => (at, data.len(), 0, data),
                Action::Discard { at, bytes } => (at, bytes, DISCARD, [].as_slice()),
                Action::Flush => (0, 0, FLUSH, [].as_slice()),
            };
            let head = EntryHead {
                sector: ((at / SECTOR_BYTES) as u64).into(),
                sectors: ((bytes / SECTOR_BYTES) as u64).into(),
                flags: flags.into(),
                data_bytes: 0.into(),
            };
            log.extend_from_slice(head.as_bytes());
            log.resize(log.len().next_multiple_of(SECTOR_BYTES), 0);
            log.extend_from_slice(data);
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::writer::{SECTOR_BYTES, write};
    use super::{Action, read};

    const DATA: [u8; SECTOR_BYTES] = [0xaa; SECTOR_BYTES];

    #[test]
    fn what_qemu_wrote_is_read() {
        // The heads as QEMU 7.2 wrote them for: write 1 sector at sector 2, discard 8 at 128, flush.
        let mut log = vec![0; 5 * 512];
        log[..0x14].copy_from_slice(b"rhswfsj\0\x01\0\0\0\0\0\0\0\x03\0\0\0");
        log[0x19] = 2;
        log[0x200] = 2;
        log[0x208] = 1;
        log[0x400..0x600].copy_from_slice(&DATA);
        log[0x600] = 128;
        log[0x608] = 8;
        log[0x610] = 4;
        log[0x810] = 1;
        let actions: Vec<Action> = read(&log).unwrap().iter().map(|entry| entry.action).collect();
        let expected = [
            Action::Write { at: 1024, data: &DATA },
            Action::Discard { at: 65536, bytes: 4096 },
            Action::Flush,
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_log_without_any_flush_has_no_head_and_is_empty() {
        assert_eq!(read(&[]).unwrap(), []);
        assert_eq!(read(&write(&[Action::Write { at: 0, data: &DATA }])).unwrap(), []);
    }

    #[test]
    fn entries_behind_the_last_flush_are_read_until_the_torn_one() {
        let actions =
            [Action::Flush, Action::Write { at: 0, data: &DATA }, Action::Write { at: 512, data: &DATA }];
        let log = write(&actions);
        assert_eq!(read(&log).unwrap().len(), 3);
        assert_eq!(read(&log[..log.len() - 1]).unwrap().len(), 2);
        assert_eq!(read(&log[..log.len() - 513]).unwrap().len(), 2);
        assert_eq!(read(&log[..log.len() - 1025]).unwrap().len(), 1);
    }

    #[test]
    fn a_log_that_is_torn_before_a_counted_entry_tells_nothing() {
        let log = write(&[Action::Write { at: 0, data: &DATA }, Action::Flush]);
        assert!(read(&log[..log.len() - 1]).is_err());
    }

    #[test]
    fn another_file_is_no_log() {
        assert!(read(&[1; 4096]).is_err());
    }
}
