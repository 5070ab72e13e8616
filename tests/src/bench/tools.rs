//! What the benchmarks' scripts find in `/files`: `tests/bench`, with its C programs compiled for guests in `guest/`, and the guests
//! of `tests/guests`, as `NAME.img`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::tool;

/// The folder for [`crate::bed::Job::files`].
pub fn files(workspace: &Path) -> Result<PathBuf> {
    let mut sources = Vec::new();
    for folder in ["tests/bench", "tests/guests"].map(|name| workspace.join(name)) {
        for entry in fs::read_dir(&folder).with_context(|| format!("{} is missing", folder.display()))? {
            let entry = entry?;
            // A folder is a package of ours: cargo's business.
            if entry.file_type()?.is_file() {
                sources.push(entry.path());
            }
        }
    }
    sources.sort();
    let mut inputs = vec![include_bytes!("tools.rs").to_vec()];
    for source in &sources {
        inputs.push(source.as_os_str().as_encoded_bytes().to_vec());
        inputs.push(fs::read(source).with_context(|| format!("cannot read {}", source.display()))?);
    }
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    Cache::open()?.entry("bench", "compiling the benchmarks' programs", &inputs, |work| {
        let programs = work.join("guest");
        fs::create_dir_all(&programs)?;
        for source in &sources {
            match source.extension().and_then(OsStr::to_str) {
                Some("c") => compile(source, &programs)?,
                Some("S") => assemble(source, work)?,
                _ => {
                    let name = source.file_name().context("a source without a name")?;
                    fs::copy(source, work.join(name))?;
                }
            }
        }
        Ok(())
    })
}

/// Compiles a small static program; it is named after its source.
fn compile(source: &Path, folder: &Path) -> Result<()> {
    let name = source.file_stem().context("a source without a name")?;
    let mut compiler = Command::new("aarch64-linux-gnu-gcc");
    compiler.args(["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-o"]);
    tool::run(compiler.arg(folder.join(name)).arg(source))
}

/// Makes a guest's image, which is one section that runs at any address: there is nothing to link.
fn assemble(source: &Path, folder: &Path) -> Result<()> {
    let name = source.file_stem().context("a source without a name")?;
    let object = folder.join(name).with_extension("o");
    let mut compiler = Command::new("aarch64-linux-gnu-gcc");
    tool::run(compiler.args(["-Wall", "-Werror", "-c", "-o"]).arg(&object).arg(source))?;
    let mut objcopy = Command::new("aarch64-linux-gnu-objcopy");
    objcopy.args(["-O", "binary", "--only-section=.text"]).arg(&object).arg(object.with_extension("img"));
    tool::run(&mut objcopy)?;
    fs::remove_file(object).context("an object file cannot be removed")
}
