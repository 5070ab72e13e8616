//! A benchmark's run in the lab, and what is kept of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Benchmark, Records, Report, tools};
use crate::bed::{Ending, Job, Lab};
use crate::setup::xen::{self, Flavour};
use crate::{image, setup, tool};

/// One run takes one to ten minutes.
const TIME_LIMIT: Duration = Duration::from_secs(1200);

/// What a user may choose.
pub struct Options {
    /// The processor's model.
    pub cpu: String,
    /// More of Xen's command line.
    pub xen_arguments: Vec<String>,
    /// How many runs, to see how far they are apart.
    pub repeat: u32,
}

/// What a run measured, and how it was.
struct Measured {
    records: Records,
    lab: Lab,
    folder: PathBuf,
    image_bytes: u64,
    commit: String,
}

/// Runs a benchmark, prints its report, and keeps that in the run's folder.
pub fn run(benchmark: &dyn Benchmark, options: &Options) -> Result<Report> {
    let mut reports = Vec::new();
    let mut records = String::new();
    let measured = loop {
        let measured = measure(benchmark, options)?;
        reports.push(benchmark.report(&measured.records)?);
        records += &measured.records.text();
        if reports.len() >= options.repeat as usize {
            break measured;
        }
    };
    let report = Report::of_runs(reports)?;
    let text = report.text(&measured.configuration());
    print!("\n{text}");
    measured.keep("table.txt", &text)?;
    measured.keep("records.txt", &records)?;
    let json = report.json(benchmark.name(), &measured.configuration_json(options.repeat));
    measured.keep("results.json", &format!("{json:#}\n"))?;
    for picture in report.pictures() {
        measured.keep(picture.name, &picture.svg)?;
    }
    println!("kept in {}", measured.folder.display());
    Ok(report)
}

fn measure(benchmark: &dyn Benchmark, options: &Options) -> Result<Measured> {
    let name = benchmark.name();
    benchmark.prepare()?;
    let lab = benchmark.lab(Lab {
        name: format!("bench-{name}"),
        xen: Flavour::Release,
        cpu: options.cpu.clone(),
        deterministic: true,
        xen_arguments: options.xen_arguments.clone(),
        ..Lab::default()
    });
    let workspace = image::workspace()?;
    let parts = setup::everything(&workspace)?;
    let commit = commit();
    let image = image::build()?;
    let mut bed_files = image::bed_files(&workspace)?;
    bed_files.push(image.flat.clone());
    for domain in benchmark.domains() {
        bed_files.push(image::build_domain(domain, domain)?.flat);
    }
    bed_files.extend(benchmark.bed_files()?);
    let image_bytes = fs::metadata(&image.flat)?.len();
    let files = tools::files(&workspace)?;
    let environment = benchmark.environment().into_iter();
    let job = Job {
        script: files.join(format!("{name}.sh")),
        files: Some(files),
        bed_files,
        environment: environment.map(|(name, value)| (name.to_owned(), value)).collect(),
        time_limit: TIME_LIMIT,
    };
    let mut records = Records::default();
    let outcome = lab.run(&parts, &workspace, &job, |line| records.take(line))?;
    if outcome.ending != Ending::Exit(0) {
        print!("{}", records.text());
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
    fn keep(&self, name: &str, content: &str) -> Result<()> {
        let file = self.folder.join(name);
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))
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

    fn configuration_json(&self, runs: u32) -> Value {
        let lab = &self.lab;
        json!({
            "virtual_time": lab.deterministic,
            "qemu": qemu_version(),
            "cpu": lab.cpu,
            "gic": lab.gic,
            "memory": lab.memory,
            "xen": format!("{} {}", xen::RELEASE, lab.xen.name()),
            "xen_arguments": lab.xen_arguments,
            "dom0_memory": lab.dom0_memory,
            "commit": self.commit,
            "image_bytes": self.image_bytes,
            "runs": runs,
        })
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
