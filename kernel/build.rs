//! Hands the linker script to the linker when the kernel is built for the bare machine.

fn main() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../linker/kernel.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
        // A position-independent image; relocations may touch read-only sections, entry.S applies them before
        // they become read-only.
        for argument in ["-pie", "--no-dynamic-linker", "-z", "notext", "-z", "norelro", "--hash-style=gnu"] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}
