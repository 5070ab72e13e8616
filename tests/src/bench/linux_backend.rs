//! The program of `tests/linux_backend`: the device models as a process of Linux in Dom0.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::disk::cost;
use super::{Records, Table, number};
use crate::{image, setup, tool};

/// What is measured of it: each of its requests takes the machine long.
pub const CASES: [(&str, &str); 5] = [
    ("4 KiB random read, depth 1", "read-4k-1"),
    ("  depth 16, submitted singly", "read-4k-16-single"),
    ("  depth 32, submitted together", "read-4k-32-batched"),
    ("64 KiB sequential read, depth 1", "read-64k-1"),
    ("1 MiB sequential read, depth 1", "read-1m-1"),
];

/// How that was.
pub const REMARK: &str = "process  our device model in a process of Linux in Dom0 (tests/linux_backend), by libxendevicemodel and \
     libxenforeignmemory, on brd by preadv and pwritev; it stands in for virtio backends in user space; all mapped: the guest's memory, before it \
     starts; mapped each: the buffers of each request, unmapped after it, a descriptor at a time; one round";

/// What of Xen's tools it is linked with.
const LIBRARIES: [&str; 4] =
    ["libxendevicemodel.so.1", "libxenevtchn.so.1", "libxenforeignmemory.so.1", "libxenstore.so.4"];

/// Builds the program, with the libraries that Dom0 has.
pub fn build() -> Result<PathBuf> {
    let (source, libraries) = setup::xen_libraries()?;
    let models = image::build_library("linux_backend")?;
    let program = models.with_file_name("linux-backend");
    // Xen's headers expect to be found as <xen/…>.
    let headers = models.with_file_name("linux-backend-headers");
    if headers.exists() {
        fs::remove_dir_all(&headers)?;
    }
    fs::create_dir_all(&headers).with_context(|| format!("cannot make {}", headers.display()))?;
    symlink(source.join("xen/include/public"), headers.join("xen"))?;
    let mut compiler = Command::new("aarch64-linux-gnu-gcc");
    compiler.args(["-no-pie", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-D__XEN_TOOLS__=1", "-o"]);
    compiler.arg(&program).arg("-isystem").arg(&headers).arg("-isystem").arg(source.join("tools/include"));
    compiler.arg(image::workspace()?.join("tests/linux_backend/main.c"));
    // The C library comes first: what it has in common with the models' own, as memcpy, is to be the one that Linux' programs use. It is
    // older than Dom0's, of which Xen's libraries may ask for more.
    compiler.arg("-lc").arg(models).arg("-Wl,--allow-shlib-undefined");
    compiler.args(LIBRARIES.map(|library| libraries.join(library)));
    tool::run(&mut compiler)?;
    Ok(program)
}

/// Its requests beside ours.
pub fn table(records: &Records) -> Result<Table> {
    let mut table = Table::new(&[
        "one request, virtual µs",
        "ours",
        "all mapped",
        "guest",
        "Dom0",
        "mapped each",
        "guest",
        "Dom0",
        "ours/all mapped",
        "ours/mapped each",
    ]);
    for (title, name) in CASES {
        let ours = cost(records, "ours", name, "driver-domain")?.all;
        let all = cost(records, "linux-all", name, "0")?;
        let each = cost(records, "linux-each", name, "0")?;
        let times = [&[ours][..], &all.parts(), &each.parts()].concat();
        let times = times.into_iter().map(|value| number(value, 1));
        table.row(title, times.chain([ours / all.all, ours / each.all].map(|value| number(value, 2))));
    }
    Ok(table)
}
