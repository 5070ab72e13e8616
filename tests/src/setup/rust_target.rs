//! The Rust target of the unikernel, on a machine whose toolchain came without it.
//!
//! Where rustup may fetch, `rust-toolchain.toml` is all that is needed and this finds the target in place. Elsewhere its three
//! libraries are built once, from the sources of the very release that `rustc` is, and put where rustup would have put them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::{Apt, BACKPORTS};
use crate::cache::Cache;
use crate::{image, progress, tool};

/// The unikernel's target: no floating point, so an interrupt saves few registers.
pub const TARGET: &str = "aarch64-unknown-none-softfloat";

/// The libraries that a `no_std` program with a heap links.
const LIBRARIES: [&str; 3] = ["libcore-", "liballoc-", "libcompiler_builtins-"];

const WRAPPER_MANIFEST: &str = r#"[package]
name = "target-libraries"
version = "0.0.0"
edition = "2024"

[lib]
path = "lib.rs"

[dependencies]
alloc = { path = "LIBRARY/alloc", features = ["compiler-builtins-mem"] }

[profile.release.package.compiler_builtins]
codegen-units = 10000
debug-assertions = false
overflow-checks = false
"#;

/// Makes sure that the target's libraries are in the sysroot.
pub fn ensure(cache: &Cache) -> Result<()> {
    let libraries = PathBuf::from(tool::text(Command::new("rustc").args([
        "--print",
        "target-libdir",
        "--target",
        TARGET,
    ]))?);
    if is_complete(&libraries) {
        return Ok(());
    }
    let _lock = cache.lock("rust-target")?;
    if is_complete(&libraries) {
        return Ok(());
    }
    let title = format!("building the Rust libraries for {TARGET}");
    progress::step(&title, || build_into(cache, &libraries))
        .with_context(|| format!("the Rust target could not be built here; a rustup with network brings it: rustup target add {TARGET}"))?;
    // What was compiled against libraries that were here before does not go with these, and cargo cannot tell.
    let stale = image::workspace()?.join("target").join(TARGET);
    if stale.exists() {
        fs::remove_dir_all(&stale).with_context(|| format!("cannot remove {}", stale.display()))?;
    }
    Ok(())
}

fn is_complete(libraries: &Path) -> bool {
    let names: Vec<String> = fs::read_dir(libraries)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    LIBRARIES
        .iter()
        .all(|library| names.iter().any(|name| name.starts_with(library) && name.ends_with(".rlib")))
}

fn build_into(cache: &Cache, libraries: &Path) -> Result<()> {
    let work = cache.root().join("rust-target");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    let source = library_source(cache, &work)?;
    // Outside of `library/`: a build inside that workspace would want the network for crates that are not needed here.
    let wrapper = work.join("wrapper");
    fs::create_dir_all(&wrapper)?;
    fs::write(wrapper.join("lib.rs"), "#![no_std]\n")?;
    fs::write(
        wrapper.join("Cargo.toml"),
        WRAPPER_MANIFEST.replace("LIBRARY", &source.display().to_string()),
    )?;
    let target = work.join("target");
    let mut build = Command::new("cargo");
    build.current_dir(&wrapper).args(["build", "--release", "--offline", "--target", TARGET, "-p", "alloc"]);
    build
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-Zforce-unstable-if-unmarked -Cembed-bitcode=yes");
    // A toolchain file above the cache, or the caller's workspace, has no say in this build.
    build.env("RUSTUP_TOOLCHAIN", toolchain()?);
    tool::run(&mut build)?;
    fs::create_dir_all(libraries)?;
    let built = target.join(TARGET).join("release/deps");
    for entry in fs::read_dir(&built)? {
        let file = entry?.path();
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".rlib") && LIBRARIES.iter().any(|library| name.starts_with(library)) {
            let part = libraries.join(format!(".{name}.part"));
            fs::copy(&file, &part).with_context(|| {
                format!("cannot write to {}: is the toolchain yours to change?", libraries.display())
            })?;
            fs::rename(&part, libraries.join(&name))?;
        }
    }
    if !is_complete(libraries) {
        bail!("the build ended well, but {} does not hold {LIBRARIES:?}", built.display());
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// The sources of core and alloc: of the toolchain, else Debian's package of the same release.
fn library_source(cache: &Cache, work: &Path) -> Result<PathBuf> {
    let own = PathBuf::from(tool::text(Command::new("rustc").args(["--print", "sysroot"]))?)
        .join("lib/rustlib/src/rust/library");
    if own.join("alloc/Cargo.toml").exists() {
        return Ok(own);
    }
    let release = release()?;
    let apt = Apt::open(cache)?;
    let version = apt
        .version("rust-src", &release)?
        .with_context(|| format!("Debian's {BACKPORTS} has no rust-src of release {release}"))?;
    let root = work.join("source");
    fs::create_dir_all(&root)?;
    apt.unpack(BACKPORTS, &[format!("rust-src={version}")], &root)?;
    let library = root.join(format!("usr/src/rustc-{release}/library"));
    if !library.join("alloc/Cargo.toml").exists() {
        bail!(
            "Debian's rust-src {version} has no library/alloc where it is looked for ({})",
            library.display()
        );
    }
    Ok(library)
}

fn release() -> Result<String> {
    let text = tool::text(Command::new("rustc").arg("--version"))?;
    text.split_whitespace()
        .nth(1)
        .map(str::to_owned)
        .with_context(|| format!("rustc names its version in a form that is not known: {text}"))
}

/// The toolchain in use, by the path of its sysroot, so that no other folder's file chooses another.
fn toolchain() -> Result<String> {
    tool::text(Command::new("rustc").args(["--print", "sysroot"]))
}
