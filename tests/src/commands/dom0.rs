//! `cargo xtask dom0`: the lab at hand, for one script or a shell.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bed::{Content, Ending, Job, Lab, Network, PhysicalDisk, PhysicalNic};
use crate::host::Service;
use crate::setup::xen::Flavour;
use crate::{image, setup};

/// The machine and the script.
#[derive(Args)]
pub struct Options {
    /// The script to run in Dom0 with bash; `tests/dom0/bed.sh` has functions for it
    #[arg(long, required_unless_present = "shell")]
    script: Option<PathBuf>,
    /// A folder that the script finds as /files
    #[arg(long)]
    files: Option<PathBuf>,
    /// Where to put what the script leaves in $OUT
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seconds that the script may run
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// A variable for the script, NAME=VALUE
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// A shell of Dom0 on this terminal, instead of a script
    #[arg(long, conflicts_with_all = ["script", "out"])]
    shell: bool,
    /// Do not build the driver domain; /bed has no driver-domain.img
    #[arg(long)]
    without_image: bool,
    #[command(flatten)]
    machine: Machine,
}

/// The machine, as options.
#[derive(Args)]
pub struct Machine {
    /// Names the folder of the logs, target/bed/NAME [default: the script's name]
    #[arg(long)]
    name: Option<String>,
    /// Xen with assertions, or as it is deployed
    #[arg(long, value_enum, default_value_t = Flavour::Debug)]
    xen: Flavour,
    /// The machine's memory
    #[arg(long, default_value = "4G")]
    memory: String,
    /// Dom0's memory
    #[arg(long, default_value = "768M")]
    dom0_memory: String,
    /// The interrupt controller's version
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    gic: u8,
    /// The processor's model
    #[arg(long, default_value = "cortex-a57")]
    cpu: String,
    /// How many processors
    #[arg(long, default_value_t = 1)]
    processors: u32,
    /// Count time in instructions, so that two runs agree
    #[arg(long)]
    icount: bool,
    /// Keep the virtio transports 0 to 7 from Dom0, to be passed through
    #[arg(long)]
    passthrough: bool,
    /// A physical disk for the driver domain: its image and options of QEMU's device; the first is blk0. Repeat it for more disks
    #[arg(long = "disk", value_name = "FILE[,OPTION=VALUE]...")]
    disks: Vec<String>,
    /// A physical NIC for the driver domain, behind the disks, in QEMU's user network; with options of QEMU's device
    #[arg(long = "nic", value_name = "OPTION=VALUE,...", num_args = 0..=1, default_missing_value = "")]
    nics: Vec<String>,
    /// A server on the host while the script runs, at 10.0.2.2 for guests: http, iperf3, qemu-nbd 64M, nbd-server 64M
    #[arg(long = "service")]
    services: Vec<Service>,
    /// A block node of QEMU, such as a filter: one named diskN stands before disk N, whose file then is the node imageN
    #[arg(long = "block-node", value_name = "OPTIONS OF -blockdev")]
    block_nodes: Vec<String>,
    /// More of Xen's command line
    #[arg(long = "xen-arg", allow_hyphen_values = true)]
    xen_arguments: Vec<String>,
    /// More of QEMU's command line
    #[arg(long = "qemu-arg", allow_hyphen_values = true)]
    qemu_arguments: Vec<String>,
}

impl Machine {
    fn lab(&self, name: &str) -> Lab {
        let disks = (0..).zip(&self.disks).map(|(transport, text)| {
            let (file, options) = text.split_once(',').unwrap_or((text, ""));
            PhysicalDisk { transport, content: Content::File(file.into()), options: options.into() }
        });
        Lab {
            name: self.name.clone().unwrap_or_else(|| name.to_owned()),
            xen: self.xen,
            memory: self.memory.clone(),
            dom0_memory: self.dom0_memory.clone(),
            gic: self.gic,
            cpu: self.cpu.clone(),
            processors: self.processors,
            deterministic: self.icount,
            passthrough: self.passthrough,
            disks: disks.collect(),
            nics: self
                .nics
                .iter()
                .map(|options| PhysicalNic { options: options.clone(), network: Network::User })
                .collect(),
            services: self.services.clone(),
            block_nodes: self.block_nodes.clone(),
            empty_files: Vec::new(),
            xen_arguments: self.xen_arguments.clone(),
            qemu_arguments: self.qemu_arguments.clone(),
        }
    }
}

/// Boots, runs, and ends as the script did.
pub fn run(options: &Options) -> Result<ExitCode> {
    let workspace = image::workspace()?;
    let parts = setup::everything(&workspace)?;
    let mut bed_files = image::bed_files(&workspace)?;
    if !options.without_image {
        bed_files.push(image::build()?.flat);
    }
    let environment = options
        .environment
        .iter()
        .map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    let job = Job {
        script: options.script.clone().unwrap_or_default(),
        files: options.files.clone(),
        bed_files,
        environment: environment.collect::<Option<_>>().context("--env takes NAME=VALUE")?,
        time_limit: Duration::from_secs(options.timeout),
    };
    let name = options
        .script
        .as_deref()
        .and_then(|script| script.file_stem())
        .map_or_else(|| "shell".into(), |name| name.to_string_lossy());
    let lab = options.machine.lab(&name);
    if options.shell {
        lab.shell(&parts, &workspace, &job)?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = lab.run(&parts, &workspace, &job, |line| println!("{line}"))?;
    if let Some(out) = &options.out {
        image::copy_folder(&outcome.results, out)?;
    }
    eprintln!(
        "Dom0 was up in {:.1} s, the script took {:.1} s; log: {}, results: {}",
        outcome.boot_time.as_secs_f32(),
        outcome.script_time.as_secs_f32(),
        outcome.log.display(),
        outcome.results.display()
    );
    match outcome.ending {
        Ending::Exit(status) => Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)),
        Ending::TimedOut => bail!("the script did not end within {} s (--timeout)", options.timeout),
        Ending::NoBoot => bail!("Dom0 did not come up: the log above says how far it got"),
        Ending::MachineStopped | Ending::PowerCut => {
            bail!("the machine stopped under the script: the log above says why")
        }
    }
}
