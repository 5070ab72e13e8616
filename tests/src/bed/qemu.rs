//! The emulated machine: what QEMU is told.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::device_tree::{self, Boot, Module};
use super::lab::Lab;
use super::physical_disk::PhysicalDisk;
use crate::host::Host;
use crate::setup::Parts;
use crate::tool;

/// Where the boot's files lie in the machine's memory, which starts at 0x4000_0000. Xen itself is loaded by QEMU at its start.
const KERNEL_ADDRESS: u64 = 0x5000_0000;
const ROOT_ADDRESS: u64 = 0x5800_0000;
const POLICY_ADDRESS: u64 = 0x5f00_0000;

/// The last transports of the machine: their page of registers stays Dom0's when the first ones are passed through, with the physical disks.
const FIRST_OWN_TRANSPORT: u32 = 27;

/// Who is at the other end of Dom0's console.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// Nobody: it goes to the log, and the script speaks over a port of its own, on our pipes.
    Log,
    /// The terminal.
    Terminal,
}

/// Starts the machine of `lab` beside `host`, with Dom0's `disks` (name and image) and the images of the physical disks, its files and logs in `folder`.
pub fn start(
    lab: &Lab,
    parts: &Parts,
    folder: &Path,
    disks: &[(&str, PathBuf)],
    disk_images: &[PathBuf],
    host: &Host,
    console: Console,
) -> Result<Child> {
    let tree = folder.join("boot.dtb");
    make_device_tree(lab, parts, folder, &tree)?;
    let log = folder.join("serial.log");
    // The machine ends with us, however we end.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-aarch64"]).args(machine(lab));
    command
        .args(["-display", "none", "-no-reboot", "-kernel"])
        .arg(parts.xen(lab.xen))
        .arg("-dtb")
        .arg(&tree);
    for module in modules(parts) {
        command.arg("-device").arg(format!(
            "loader,file={},addr={:#x},force-raw=on",
            module.file.display(),
            module.address
        ));
    }
    for (transport, (name, image)) in (FIRST_OWN_TRANSPORT + 1..).zip(disks) {
        // All runs share the bed's own disk, also at the same time.
        let access = if *image == parts.bed_disk { "on" } else { "off" };
        command.arg("-drive").arg(format!(
            "if=none,id={name},format=raw,cache=unsafe,discard=unmap,readonly={access},file={}",
            image.display()
        ));
        command
            .arg("-device")
            .arg(format!("virtio-blk-device,drive={name},serial={name},bus=virtio-mmio-bus.{transport}"));
    }
    let own_nodes: Vec<String> =
        lab.block_nodes.iter().map(|node| node.replace("{folder}", &folder.to_string_lossy())).collect();
    for (disk, image) in lab.disks.iter().zip(disk_images) {
        command.args(disk.node(image, &own_nodes));
    }
    command.args(own_nodes.iter().flat_map(|node| ["-blockdev", node]));
    command.args(lab.disks.iter().flat_map(PhysicalDisk::device));
    let first_free = lab.disks.iter().map(|disk| disk.transport + 1).max().unwrap_or(0);
    for (number, (transport, nic)) in (first_free..).zip(&lab.nics).enumerate() {
        // One port of the host leads to one NIC.
        let endpoint_port = host.endpoint_port().filter(|_| number == 0);
        command.args(nic.arguments(number, transport, endpoint_port));
    }
    match console {
        Console::Log => {
            command.arg("-chardev").arg(format!("file,id=console,path={}", log.display()));
            command.args(["-chardev", "stdio,id=port,signal=off", "-monitor", "none"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        }
        Console::Terminal => {
            command
                .arg("-chardev")
                .arg(format!("stdio,id=console,mux=on,signal=off,logfile={}", log.display()));
            command.args(["-mon", "chardev=console", "-chardev", "null,id=port"]);
        }
    }
    command
        .args(["-serial", "chardev:console", "-device"])
        .arg(format!("virtio-serial-device,bus=virtio-mmio-bus.{FIRST_OWN_TRANSPORT}"));
    command.args(["-device", "virtserialport,chardev=port,nr=1,name=script"]).args(&lab.qemu_arguments);
    let errors = File::create(folder.join("qemu.log")).context("cannot write QEMU's log")?;
    command.stderr(errors).spawn().context("QEMU cannot be started: run `cargo xtask setup`")
}

/// The machine without its disks: the part that its device tree depends on.
fn machine(lab: &Lab) -> Vec<String> {
    let mut arguments = vec![
        "-M".into(),
        format!("virt,virtualization=on,gic-version={}", lab.gic),
        "-m".into(),
        lab.memory.clone(),
    ];
    arguments.extend(["-cpu".into(), lab.cpu.clone(), "-smp".into(), lab.cpus().to_string()]);
    let threads = if lab.cpus() > 1 { "multi" } else { "single" };
    arguments.extend(["-accel".into(), format!("tcg,thread={threads}")]);
    if lab.deterministic {
        arguments.extend(["-icount".into(), "shift=0,sleep=off".into()]);
    }
    arguments.extend(["-nic", "none", "-global", "virtio-mmio.force-legacy=false"].map(str::to_owned));
    arguments
}

fn make_device_tree(lab: &Lab, parts: &Parts, folder: &Path, tree: &Path) -> Result<()> {
    let dumped = folder.join("qemu.dtb");
    let mut dump = Command::new("qemu-system-aarch64");
    dump.args(machine(lab)).args(["-display", "none", "-M"]).arg(format!("dumpdtb={}", dumped.display()));
    tool::run(&mut dump)?;
    let cpus = lab.cpus();
    let mut xen_arguments = format!(
        "console=dtuart dtuart=/pl011@9000000 dom0_mem={} dom0_max_vcpus={cpus} bootscrub=0 xsm=flask flask=enforcing",
        lab.dom0_memory
    );
    for argument in &lab.xen_arguments {
        xen_arguments.push(' ');
        xen_arguments.push_str(argument);
    }
    let boot = Boot {
        xen_arguments,
        dom0_arguments: "console=hvc0 clk_ignore_unused rdinit=/init quiet panic=5".into(),
        modules: &modules(parts),
        passthrough: lab.has_passthrough(),
    };
    device_tree::write(&dumped, &boot, tree)
}

fn modules(parts: &Parts) -> [Module<'_>; 3] {
    [
        Module { file: &parts.dom0_kernel, address: KERNEL_ADDRESS, compatible: "multiboot,kernel" },
        Module { file: &parts.dom0_root, address: ROOT_ADDRESS, compatible: "multiboot,ramdisk" },
        Module { file: &parts.policy, address: POLICY_ADDRESS, compatible: "xen,xsm-policy" },
    ]
}
