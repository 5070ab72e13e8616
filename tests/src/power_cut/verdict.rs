//! Whether all that guests were told is safe would have survived a power cut: not one at the end of the run only, but one right after
//! each report.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};

use super::file_system;
use super::log::Entry;
use super::replay::Replay;
use super::report::{Record, Report};
use super::sha256;

/// At how many moments of a run the file system is checked.
const FILE_SYSTEM_CHECKS: usize = 4;

/// Where on the disk the guests' volumes are.
#[derive(Clone, Debug)]
pub struct Volumes {
    /// The one with records of bytes.
    pub bytes: Range<usize>,
    /// The one with a file system.
    pub files: Range<usize>,
}

/// Replays the log `entries` onto `image`, stops at each of `reports`, and names what was lost, in a sentence each. `work` is a folder for
/// copies of the file system.
pub fn judge(
    image: Vec<u8>,
    entries: &[Entry],
    reports: &[Report],
    volumes: &Volumes,
    work: &Path,
) -> Result<Vec<String>> {
    let mut replay = Replay::new(image, entries);
    let mut files = Vec::new();
    let mut lost = Vec::new();
    let files_in_all = reports.iter().filter(|report| matches!(report.record, Record::File { .. })).count();
    let interval = files_in_all.div_ceil(FILE_SYSTEM_CHECKS).max(1);
    for (number, report) in reports.iter().enumerate() {
        replay.advance_to_last_flush(report.log_bytes)?;
        let moment = format!("report {} of {}", number + 1, reports.len());
        match &report.record {
            Record::Bytes { at, length, sum } => {
                let start = volumes.bytes.start + at;
                let bytes = replay.bytes(start..start + length);
                let bytes = bytes.context("a record lies behind the disk's end")?;
                if sha256(bytes) != *sum {
                    lost.push(format!("{moment}: the {length} bytes at {at} were not on the disk"));
                }
            }
            Record::File { name, sum } => {
                files.push((name.as_str(), sum.as_str()));
                if files.len().is_multiple_of(interval) || files.len() == files_in_all {
                    let volume = replay.bytes(volumes.files.clone());
                    let volume = volume.context("the file system lies behind the disk's end")?;
                    let complaints = file_system::check(volume, &files, work)?;
                    lost.extend(complaints.iter().map(|complaint| format!("{moment}: {complaint}")));
                }
            }
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::super::log::writer::{SECTOR_BYTES, write};
    use super::super::log::{Action, read};
    use super::super::report::{Record, Report};
    use super::{Path, Volumes, judge, sha256};

    const RECORD: [u8; SECTOR_BYTES] = [0x5a; SECTOR_BYTES];

    /// The verdict on one record, written to the second sector of a volume that starts at the disk's second, that was reported when the
    /// log had `reported_at` of `actions`.
    fn verdict(actions: &[Action], reported_at: usize) -> Vec<String> {
        let log = write(actions);
        let entries = read(&log).unwrap();
        let report = Report {
            record: Record::Bytes { at: SECTOR_BYTES, length: SECTOR_BYTES, sum: sha256(&RECORD) },
            log_bytes: reported_at.checked_sub(1).map_or(0, |last| entries[last].end),
        };
        let volumes = Volumes { bytes: SECTOR_BYTES..4 * SECTOR_BYTES, files: 0..0 };
        judge(vec![0; 4 * SECTOR_BYTES], &entries, &[report], &volumes, Path::new("")).unwrap()
    }

    const WRITTEN: Action = Action::Write { at: 2 * SECTOR_BYTES, data: &RECORD };

    #[test]
    fn a_record_that_was_flushed_and_then_reported_holds() {
        assert!(verdict(&[WRITTEN, Action::Flush], 2).is_empty());
        assert!(verdict(&[Action::Flush, WRITTEN, Action::Flush, Action::Flush], 4).is_empty());
    }

    #[test]
    fn a_disk_without_any_flush_loses_all() {
        let log = write(&[WRITTEN]);
        assert!(read(&log).unwrap().is_empty());
        assert_eq!(verdict(&[], 0).len(), 1);
    }

    #[test]
    fn a_record_after_the_last_flush_is_lost() {
        assert_eq!(verdict(&[Action::Flush, WRITTEN, Action::Flush], 2).len(), 1);
    }

    #[test]
    fn a_flush_that_overtakes_its_write_saves_nothing() {
        assert_eq!(verdict(&[Action::Flush, WRITTEN], 1).len(), 1);
    }

    #[test]
    fn a_flush_after_the_report_comes_too_late() {
        assert_eq!(verdict(&[WRITTEN, Action::Flush], 1).len(), 1);
    }

    #[test]
    fn a_record_in_another_place_is_lost() {
        assert_eq!(verdict(&[Action::Write { at: 0, data: &RECORD }, Action::Flush], 2).len(), 1);
    }
}
