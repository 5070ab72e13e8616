//! `cargo xtask check`: all that can be judged without running anything on Xen or the host's tests.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::setup::TARGET;
use crate::{image, setup, tool};

/// The only places of the unikernel that may hold unsafe code: folders end with a slash. Everything else must do without; the tests'
/// package forbids it, and hosted tests (which play Xen and guests) are not part of the image.
const UNSAFE_MAY_BE_IN: &[&str] = &[
    "boot/src/",
    "drivers/src/hardware/",
    "drivers/src/sys.rs",
    "kernel/src/abi/",
    "kernel/src/arch/",
    "kernel/src/bare.rs",
    "kernel/src/bring_up.rs",
    "kernel/src/devices/transport.rs",
    // Tests in which a kernel ends, as a thread that never comes back.
    "kernel/src/guest/lives_bed.rs",
    "kernel/src/logger.rs",
    "kernel/src/mm/",
    "kernel/src/restart/",
    "kernel/src/xen/",
    // Domains that are no part of the unikernel, but run without an operating system, too.
    "tests/guests/by_hand/src/",
    "tests/guests/hostile/src/access.rs",
    "tests/guests/hostile/src/bare.rs",
    "tests/guests/hostile/src/second.rs",
    "tests/guests/mapping/src/bare.rs",
    "tests/guests/mapping/src/target.rs",
    "tests/guests/mapping/src/ways/",
    "tests/guests/rogue/src/bare.rs",
    // What is beside C in a process of Linux.
    "tests/linux_backend/src/",
];

/// The packages that are built for the target without an operating system: the unikernel's, test domains that stand on them, and
/// device models for a process of Linux.
const KERNEL_PACKAGES: [&str; 16] = [
    "-p",
    "boot",
    "-p",
    "by_hand",
    "-p",
    "drivers",
    "-p",
    "hostile",
    "-p",
    "kernel",
    "-p",
    "linux_backend",
    "-p",
    "mapping",
    "-p",
    "rogue",
];

/// Runs every check, and fails when one does.
pub fn run() -> Result<ExitCode> {
    setup::toolchain()?;
    let workspace = image::workspace()?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&workspace).args(arguments);
        cargo
    };
    let mut target = cargo(&["clippy", "--quiet", "--target", TARGET]);
    target.args(KERNEL_PACKAGES).args(["--", "-D", "warnings"]);
    // The unikernel's for its own target: half of its modules are not there on the host.
    let mut documents = cargo(&["doc", "--quiet", "--no-deps", "--target", TARGET]);
    documents.args(KERNEL_PACKAGES).env("RUSTDOCFLAGS", "-D warnings");
    let mut own_documents = cargo(&["doc", "--quiet", "--no-deps", "-p", "tests"]);
    own_documents.env("RUSTDOCFLAGS", "-D warnings");
    let mut checks: Vec<(&str, Command)> = vec![
        ("formatting", cargo(&["fmt", "--all", "--check"])),
        (
            "lints, host",
            cargo(&[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--features",
                "drivers/fakes",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        ("lints, unikernel", target),
        ("documentation, unikernel", documents),
        ("documentation, tests", own_documents),
    ];
    if tool::find("cargo-deny").is_some() {
        checks.push((
            "licences and sources",
            cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]),
        ));
    } else {
        println!("check licences and sources ... skipped: cargo-deny is not installed");
    }
    let mut failed = 0;
    for (name, mut command) in checks {
        failed += usize::from(!report(name, || tool::succeeds(&mut command))?);
    }
    failed += usize::from(!report("places of unsafe code", || unsafe_is_in_its_places(&workspace))?);
    println!("{failed} checks failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(name: &str, check: impl FnOnce() -> Result<bool>) -> Result<bool> {
    let start = Instant::now();
    let holds = check()?;
    println!(
        "check {name} ... {} ({:.1} s)",
        if holds { "ok" } else { "FAILED" },
        start.elapsed().as_secs_f32()
    );
    Ok(holds)
}

fn unsafe_is_in_its_places(workspace: &Path) -> Result<bool> {
    let listing = tool::text(Command::new("git").current_dir(workspace).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "boot/src/*.rs",
        "drivers/src/*.rs",
        "kernel/src/*.rs",
        "tests/guests/*.rs",
        "tests/linux_backend/*.rs",
    ]))?;
    let mut holds = true;
    for file in listing.lines().filter(|file| !UNSAFE_MAY_BE_IN.iter().any(|place| file.starts_with(place))) {
        let path = workspace.join(file);
        if !path.exists() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
        for (number, _) in text.lines().enumerate().filter(|(_, line)| has_unsafe(line)) {
            println!("{file}:{}: unsafe code; it may be in {UNSAFE_MAY_BE_IN:?} only", number + 1);
            holds = false;
        }
    }
    Ok(holds)
}

/// Whether a line of code, without its comment and its strings, has the word `unsafe`.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let outside_of_strings = code.split('"').step_by(2);
    let mut words = outside_of_strings
        .flat_map(|part| part.split(|letter: char| !letter.is_alphanumeric() && letter != '_'));
    words.any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::has_unsafe;

    #[test]
    fn unsafe_is_seen_in_code_alone() {
        assert!(has_unsafe("    let value = unsafe { read() };"));
        assert!(has_unsafe("unsafe extern \"C\" {"));
        assert!(!has_unsafe("//! no unsafe code here"));
        assert!(!has_unsafe("#![deny(unsafe_code)]"));
        assert!(!has_unsafe("let text = \"unsafe\";"));
    }
}
