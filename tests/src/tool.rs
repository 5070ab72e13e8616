//! Runs the programs of the host, so that a failure says which one, with what, and what it wrote.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How many of a failed program's last lines are shown.
const SHOWN_LINES: usize = 25;

/// Runs `command` quietly; on failure the error holds the end of what it wrote.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Runs `command` and gives back its standard output.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = start(command)?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        bail!("`{}` failed ({}):\n{}", line(command), output.status, last_lines(&text));
    }
    Ok(output.stdout)
}

/// As [`output`], as text without the white space at its ends.
pub fn text(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    Ok(String::from_utf8_lossy(&output).trim().to_owned())
}

/// Runs `command` with the terminal as its own; tells whether it succeeded.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| cannot_start(command))?;
    Ok(status.success())
}

/// The path of `program`, when it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Where programs are looked for: those of the system are not on every user's path.
fn search_path() -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::join_paths(std::env::split_paths(&own).chain(system)).unwrap_or(own)
}

fn start(command: &mut Command) -> Result<Output> {
    command.env("PATH", search_path()).stdin(Stdio::null()).output().with_context(|| cannot_start(command))
}

fn cannot_start(command: &Command) -> String {
    format!(
        "`{}` cannot be started; is it installed? `cargo xtask setup` names what is missing",
        line(command)
    )
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
