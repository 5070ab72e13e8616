//! Hands the linker script to the linker when an image is built for the bare machine.

use std::path::Path;

fn main() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = package.ancestors().map(|folder| folder.join("linker/kernel.ld"));
    let script =
        scripts.into_iter().find(|script| script.exists()).expect("the linker script is above the package");
    println!("cargo::rerun-if-changed={}", script.display());
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
        // A position-independent image; relocations may touch read-only sections, entry.S applies them before
        // they become read-only.
        for argument in ["-pie", "--no-dynamic-linker", "-z", "notext", "-z", "norelro", "--hash-style=gnu"] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
        // A bit for each relocation instead of 24 bytes.
        println!("cargo::rustc-link-arg-bins=--pack-dyn-relocs=relr");
    }
}
