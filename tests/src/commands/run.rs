//! `cargo xtask run`: the project's main job, once, from nothing to nothing.
//!
//! A driver domain serves a partition of a physical disk to a stock guest; the guest verifies and changes it; both domains go, and nothing
//! is left but what was written: the host looks for itself.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::bed::{Content, Ending, Job, Lab, PhysicalDisk};
use crate::host_checks::{self, Evidence};
use crate::{image, setup};

const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Runs the job; succeeds only if all of it held.
pub fn run(shell: bool) -> Result<ExitCode> {
    let workspace = image::workspace()?;
    let parts = setup::everything(&workspace)?;
    let image = image::build()?;
    let mut bed_files = image::bed_files(&workspace)?;
    bed_files.push(image.flat.clone());
    bed_files.push(workspace.join("tests/guest/verify-volume.sh"));
    let script = workspace.join("tests/dom0/main-job.sh");
    let mut job = Job { script, bed_files, time_limit: TIME_LIMIT, ..Job::default() };
    let disk = PhysicalDisk { transport: 0, content: Content::Debian, options: String::new() };
    let lab = Lab { name: "run".into(), disks: vec![disk], ..Lab::default() };
    if shell {
        job.script = Default::default();
        bed_hint();
        lab.shell(&parts, &workspace, &job)?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = lab.run(&parts, &workspace, &job, |line| println!("{line}"))?;
    let mut held = outcome.ending == Ending::Exit(0);
    println!(
        "\n{:<34} {}",
        "image of the driver domain",
        format_args!("{} KiB", fs::metadata(&image.flat)?.len() / 1024)
    );
    println!("{:<34} {:.1} s", "Xen and Dom0 up after", outcome.boot_time.as_secs_f32());
    let table = fs::read_to_string(outcome.results.join("table")).unwrap_or_default();
    for (name, value) in table.lines().filter_map(|line| line.split_once('\t')) {
        println!("{name:<34} {value}");
    }
    if held {
        let evidence = Evidence { lab: &lab, outcome: &outcome, results: &outcome.results, parts: &parts };
        match host_checks::data(&evidence) {
            Ok(lines) => lines.iter().for_each(|line| println!("{:<34} {line}", "the host finds")),
            Err(error) => {
                held = false;
                println!("{:<34} {error:#}", "the host finds");
            }
        }
    }
    if held {
        println!("{:<34} all held", "result");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<34} FAILED ({:?})", "result", outcome.ending);
    println!(
        "the machine's console: {}\nthe domains' consoles:  {}",
        outcome.log.display(),
        outcome.results.join("console").display()
    );
    Ok(ExitCode::FAILURE)
}

fn bed_hint() {
    println!(
        "In Dom0:  bash /bed/main-job.sh, or by hand:  start_driver_domain; make_guest g cloud /bed/verify-volume.sh \"$(guest_disk blk0:label=data)\""
    );
}
