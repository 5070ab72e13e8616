//! Pulling the plug: a boot test with `power-cuts:` in its head is a machine that is stopped dead in the middle of its guests' writes.
//!
//! What QEMU wrote is then still in the host's memory, whether it was flushed or not. So the host does not look at the disk: it replays
//! the log of all that reached the disk, up to the last flush before a guest said that a record is safe, and must find the record.

mod file_system;
mod log;
mod moment;
mod replay;
mod report;
mod verdict;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::bed::partitions::Partition;
use crate::bed::{Content, Ending, Job, Lab, Outcome};
use crate::setup::Parts;
use moment::Moment;
use report::{Record, Report};
use verdict::Volumes;

/// The log of the disk, in a run's folder.
const LOG: &str = "disk0.log";
/// How many of a cut's losses are shown.
const SHOWN_LOSSES: usize = 8;
const SECTOR_BYTES: u64 = 512;

/// A machine whose power is cut.
pub struct PowerCuts<'a> {
    /// The machine; its first disk has one partition for each of the two guests.
    pub lab: &'a Lab,
    /// What Dom0 does: it has guests write, and prints their consoles.
    pub job: &'a Job,
    /// How often.
    pub count: u32,
}

/// What the block nodes of a logged disk are.
pub fn log_writes(lab: &mut Lab) {
    lab.empty_files.push(LOG.into());
    lab.block_nodes.push(format!(
        "driver=blklogwrites,node-name=disk0,file=image0,discard=unmap,log-sector-size={SECTOR_BYTES},log.driver=file,\
         log.filename={{folder}}/{LOG},log.cache.no-flush=on"
    ));
}

impl PowerCuts<'_> {
    /// Cuts the power as often as asked, telling of each; whether all records survived. It ends with the first cut that loses one.
    pub fn run(&self, parts: &Parts, workspace: &Path) -> Result<bool> {
        let mut kinds = [0, 0];
        for number in 1..=self.count {
            let moment = Moment::of(number);
            println!("power cut {number} of {}: {moment}", self.count);
            let mut reports = Vec::new();
            let outcome = self.lab.run_until_cut(parts, workspace, self.job, |folder, line| {
                if let Some(record) = Record::read(line) {
                    reports.push(Report { record, log_bytes: length(&folder.join(LOG)) });
                } else {
                    println!("    {line}");
                }
                (reports.len() >= moment.reports).then_some(moment.delay)
            })?;
            if outcome.ending != Ending::PowerCut {
                println!(
                    "    the machine ended by itself ({:?}); its console: {}",
                    outcome.ending,
                    outcome.log.display()
                );
                return Ok(false);
            }
            for report in &reports {
                kinds[usize::from(matches!(report.record, Record::File { .. }))] += 1;
            }
            if !self.check(parts, &outcome, &reports)? {
                println!(
                    "    the disk's log, for a closer look: {}",
                    outcome.log.with_file_name(LOG).display()
                );
                return Ok(false);
            }
        }
        println!("    in all {} records of bytes and {} files", kinds[0], kinds[1]);
        if kinds.contains(&0) {
            bail!("one of the guests reported nothing: cut later (power_cut/moment.rs)");
        }
        Ok(true)
    }

    /// Whether all `reports` hold on the disk that the power cut left; what does not is told.
    fn check(&self, parts: &Parts, outcome: &Outcome, reports: &[Report]) -> Result<bool> {
        let folder = outcome.log.parent().context("the run has no folder")?;
        let work = folder.join("replay");
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let disk = self.lab.disks.first().context("the test has no disk: add one to its head")?;
        let Content::Partitioned(_, [bytes, files]) = &disk.content else {
            bail!("the test's first disk needs two partitions");
        };
        let image: PathBuf = disk.make_image(&work, parts)?;
        let log = fs::read(folder.join(LOG)).context("there is no log of the disk")?;
        let entries = log::read(&log)?;
        let volumes = Volumes { bytes: place(bytes)?, files: place(files)? };
        let lost = verdict::judge(fs::read(&image)?, &entries, reports, &volumes, &work)?;
        let flushes = entries.iter().filter(|entry| entry.action == log::Action::Flush).count();
        println!(
            "    {} records were reported, {} complaints; the disk was flushed {flushes} times in {} requests",
            reports.len(),
            lost.len(),
            entries.len()
        );
        for sentence in lost.iter().take(SHOWN_LOSSES) {
            println!("    {sentence}");
        }
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
        Ok(lost.is_empty())
    }
}

fn place(partition: &Partition) -> Result<Range<usize>> {
    let byte = |sector: u64| usize::try_from(sector * SECTOR_BYTES).context("a partition is too large");
    Ok(byte(partition.start)?..byte(partition.start + partition.sectors)?)
}

/// How long the log is; it is there from the start.
fn length(log: &Path) -> usize {
    fs::metadata(log).ok().and_then(|facts| usize::try_from(facts.len()).ok()).unwrap_or_default()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
