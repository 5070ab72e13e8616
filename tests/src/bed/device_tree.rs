//! The device tree that Xen boots with: QEMU's own, and what Xen, Dom0 and the policy are told on top of it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tool;

/// A file that QEMU puts into memory for Xen.
pub struct Module<'a> {
    /// The file.
    pub file: &'a Path,
    /// Where in memory it lies.
    pub address: u64,
    /// What it is, in Xen's words.
    pub compatible: &'static str,
}

/// What the device tree says beside QEMU's own.
pub struct Boot<'a> {
    /// Xen's command line.
    pub xen_arguments: String,
    /// Dom0's command line.
    pub dom0_arguments: String,
    /// Dom0's kernel, its root and the policy.
    pub modules: &'a [Module<'a>],
    /// Marks the virtio transports 0 to 7 (one page of registers) as not Dom0's but to be passed through.
    pub passthrough: bool,
}

/// Turns the tree in `dumped` into the one to boot with, in `result`.
pub fn write(dumped: &Path, boot: &Boot, result: &Path) -> Result<()> {
    let mut source = tool::text(Command::new("dtc").args(["-q", "-I", "dtb", "-O", "dts"]).arg(dumped))?;
    source.push_str("\n/ {\n\tchosen {\n\t\t#address-cells = <2>;\n\t\t#size-cells = <2>;\n");
    writeln!(
        source,
        "\t\txen,xen-bootargs = \"{}\";\n\t\txen,dom0-bootargs = \"{}\";",
        boot.xen_arguments, boot.dom0_arguments
    )?;
    for module in boot.modules {
        let size = fs::metadata(module.file)
            .with_context(|| format!("cannot read {}", module.file.display()))?
            .len();
        let address = module.address;
        writeln!(
            source,
            "\t\tmodule@{address:x} {{ compatible = \"{}\", \"multiboot,module\"; reg = <0 {address:#x} 0 {size:#x}>; }};",
            module.compatible
        )?;
    }
    source.push_str("\t};\n");
    if boot.passthrough {
        for transport in 0..8 {
            writeln!(source, "\tvirtio_mmio@{:x} {{ xen,passthrough; }};", 0xa00_0000 + transport * 0x200)?;
        }
    }
    source.push_str("};\n");
    let text = result.with_extension("dts");
    fs::write(&text, source).with_context(|| format!("cannot write {}", text.display()))?;
    tool::run(Command::new("dtc").args(["-q", "-I", "dts", "-O", "dtb", "-o"]).arg(result).arg(&text))
}
