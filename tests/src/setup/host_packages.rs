//! The programs of the host that the bed stands on: installed when we may, else named in one line.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{progress, tool};

/// A program that is needed, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 26] = [
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("gcc", "gcc"),
    ("make", "make"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("m4", "m4"),
    ("checkpolicy", "checkpolicy"),
    ("python3", "python3-minimal"),
    ("dtc", "device-tree-compiler"),
    ("mke2fs", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("sgdisk", "gdisk"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("setpriv", "util-linux"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("perl", "perl"),
    ("ld.bfd", "binutils"),
    ("qemu-nbd", "qemu-utils"),
    ("nbd-server", "nbd-server"),
    ("iperf3", "iperf3"),
    ("curl", "curl"),
    ("timeout", "coreutils"),
];

/// Headers for the small static arm64 programs that Dom0 runs.
const ARM64_HEADERS: (&str, &str) = ("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross");

/// Makes sure that every program is there.
pub fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("sudo apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        bail!("programs are missing on this machine. Please run:\n  {by_hand}");
    }
    progress::step(&format!("installing {}", missing.join(" ")), || {
        tool::run(Command::new("apt-get").args(["update", "-qq"]))?;
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args([
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
        ]);
        tool::run(install.args(&missing))
    })
    .with_context(|| format!("apt could not install what is missing; please try it by hand:\n  {by_hand}"))
}

fn missing() -> Vec<&'static str> {
    let programs =
        PROGRAMS.iter().filter(|(program, _)| tool::find(program).is_none()).map(|(_, package)| *package);
    let (header, package) = ARM64_HEADERS;
    let headers = (!std::path::Path::new(header).exists()).then_some(package);
    programs.chain(headers).collect()
}

fn is_root() -> bool {
    tool::text(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}
