//! Small static programs of ours in C, for Dom0 and guests.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::tool;

/// Compiles `source`, with the headers in `headers` if it needs some; gives the program.
pub fn compile(source: &Path, headers: Option<&Path>, work: &Path) -> Result<Vec<u8>> {
    let result = work.join("program");
    let mut compiler = Command::new("aarch64-linux-gnu-gcc");
    compiler.args(["-static", "-O2", "-Wall", "-Werror", "-s"]);
    if let Some(headers) = headers {
        compiler.arg("-I").arg(headers);
    }
    tool::run(compiler.arg("-o").arg(&result).arg(source))?;
    let content = fs::read(&result)?;
    fs::remove_file(&result)?;
    Ok(content)
}
