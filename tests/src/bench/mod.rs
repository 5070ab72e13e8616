//! What the benchmarks have in common: their run in the lab, the records that come back, and the tables made of them.

pub mod mapping;
pub mod net;
mod plot;
mod records;
mod table;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bed::{Ending, Job, Lab};
use crate::setup::xen::{self, Flavour};
use crate::{image, setup, tool};
pub use records::Records;
pub use table::{Table, number};

/// One run takes one to three minutes.
const TIME_LIMIT: Duration = Duration::from_secs(1200);

/// A benchmark's run: what it measured, and how it was.
pub struct Measured {
    /// What the script and the guests wrote down.
    pub records: Records,
    lab: Lab,
    folder: PathBuf,
    image_bytes: u64,
    commit: String,
}

/// A machine with the release Xen on which time is counted in instructions.
pub fn deterministic(name: &str, cpu: &str, xen_arguments: Vec<String>) -> Lab {
    Lab {
        name: format!("bench-{name}"),
        xen: Flavour::Release,
        cpu: cpu.to_owned(),
        deterministic: true,
        xen_arguments,
        ..Lab::default()
    }
}

/// Boots `lab`, and runs the script `tests/bench/NAME.sh`, for which the programs of the packages `domains` are images in `/bed`.
pub fn measure(name: &str, lab: Lab, environment: &[(&str, String)], domains: &[&str]) -> Result<Measured> {
    let workspace = image::workspace()?;
    let parts = setup::everything(&workspace)?;
    let commit = commit();
    let image = image::build()?;
    let mut bed_files = image::bed_files(&workspace)?;
    bed_files.push(image.flat.clone());
    for domain in domains {
        bed_files.push(image::build_domain(domain, domain)?.flat);
    }
    let image_bytes = fs::metadata(&image.flat)?.len();
    let files = tools::files(&workspace)?;
    let job = Job {
        script: files.join(format!("{name}.sh")),
        files: Some(files),
        bed_files,
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        time_limit: TIME_LIMIT,
    };
    let mut records = Records::default();
    let outcome = lab.run(&parts, &workspace, &job, |line| records.take(line))?;
    if outcome.ending != Ending::Exit(0) {
        for line in records.other_lines() {
            println!("{line}");
        }
        bail!(
            "the benchmark did not come to its end ({:?}): {}, {}",
            outcome.ending,
            outcome.log.display(),
            outcome.results.join("console").display()
        );
    }
    let folder = outcome.results.parent().context("the results are nowhere")?.to_owned();
    Ok(Measured { records, lab, folder, image_bytes, commit })
}

impl Measured {
    /// Prints `text` with the configuration under it, and keeps it in the run's folder.
    pub fn publish(&self, text: &str, guest: &str) -> Result<()> {
        let text = format!("{text}\n{}{guest}\n", self.configuration());
        print!("\n{text}");
        let table = self.folder.join("table.txt");
        fs::write(&table, &text).with_context(|| format!("cannot write {}", table.display()))?;
        let records = self.folder.join("records.txt");
        fs::write(&records, self.records.text())
            .with_context(|| format!("cannot write {}", records.display()))?;
        println!("kept in {}", self.folder.display());
        Ok(())
    }

    /// Keeps a picture in the run's folder, and returns where.
    pub fn keep_picture(&self, name: &str, svg: &str) -> Result<PathBuf> {
        let picture = self.folder.join(name);
        fs::write(&picture, svg).with_context(|| format!("cannot write {}", picture.display()))?;
        Ok(picture)
    }

    fn configuration(&self) -> String {
        let lab = &self.lab;
        let time = if lab.deterministic {
            "virtual: one ns is one instruction of the whole machine (QEMU -icount shift=0,sleep=off)"
        } else {
            "the host's: no times are told"
        };
        format!(
            "\
time     {time}
machine  {}, virt, {}, GICv{}, 1 processor, {} of memory
Xen      {} ({}), IOREQ and FLASK, enforcing{}; Dom0: Debian's cloud kernel, {}, 1 vCPU
driver   driver-domain.img {} KiB, commit {}
",
            qemu_version(),
            lab.cpu,
            lab.gic,
            lab.memory,
            xen::RELEASE,
            lab.xen.name(),
            lab.xen_arguments.iter().map(|argument| format!(", {argument}")).collect::<String>(),
            lab.dom0_memory,
            self.image_bytes / 1024,
            self.commit,
        )
    }
}

fn qemu_version() -> String {
    let text = tool::text(Command::new("qemu-system-aarch64").arg("--version")).unwrap_or_default();
    let version = text.lines().next().and_then(|line| line.split(" version ").nth(1)).unwrap_or("unknown");
    format!("QEMU {}", version.split(' ').next().unwrap_or(version))
}

fn commit() -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    tool::text(Command::new("git").current_dir(own).args(["describe", "--always", "--dirty"]))
        .unwrap_or_else(|_| "unknown".into())
}
