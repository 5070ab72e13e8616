//! The program of `tests/linux_backend`: the device models as a process of Linux in Dom0.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{image, setup, tool};

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
