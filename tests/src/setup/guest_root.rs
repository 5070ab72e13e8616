//! Stock guests: both of Debian's arm64 kernels, and a root that runs one job and ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::arm64_program;
use super::kernel_modules::Kernel;
use super::root_tree::RootTree;
use crate::cache::Cache;

/// A guest kernel's name in the bed, and how the name of its release ends.
const FLAVOURS: [(&str, &str); 2] = [("cloud", "-cloud-arm64"), ("generic", "-arm64")];

const PROGRAMS: &[&str] = &[
    "usr/bin/bash",
    "usr/bin/busybox",
    "usr/bin/fallocate",
    "usr/sbin/blkdiscard",
    "usr/sbin/e2fsck",
    "usr/sbin/fstrim",
    "usr/sbin/mke2fs",
];

/// Loaded at the start.
const MODULES: &[&str] = &["virtio_mmio", "virtio_blk", "ext4", "crc32c-generic"];
/// For jobs that ask for them: Xen's own frontends, to compare with.
const MORE_MODULES: &[&str] = &["xen-blkfront"];

/// A folder with `guest-FLAVOUR.kernel` and `guest-FLAVOUR.root` for each flavour.
pub fn build(cache: &Cache, workspace: &Path, packages: &Path) -> Result<PathBuf> {
    let files = workspace.join("tests/guest");
    let read = |name: &str| {
        fs::read(files.join(name)).with_context(|| format!("cannot read {}", files.join(name).display()))
    };
    let (init, pattern) = (read("init")?, read("pattern.c")?);
    let inputs = [
        include_bytes!("guest_root.rs").as_slice(),
        &init,
        &pattern,
        packages.as_os_str().as_encoded_bytes(),
    ];
    cache.entry("guests", "making the guests' roots", &inputs, |work| {
        let pattern = arm64_program::compile(&files.join("pattern.c"), None, work)?;
        for (name, ending) in FLAVOURS {
            let kernel = Kernel::find(packages, ending)?;
            let mut tree = RootTree::new(packages);
            PROGRAMS.iter().try_for_each(|program| tree.program(program))?;
            kernel.add_modules(&mut tree, "modules", MODULES)?;
            kernel.add_modules(&mut tree, "modules/more", MORE_MODULES)?;
            tree.file("usr/bin/pattern", pattern.clone(), 0o755);
            tree.folder("mnt");
            // e2fsck and mke2fs look for it.
            tree.link("etc/mtab", "/proc/mounts");
            tree.file("init", init.clone(), 0o755);
            tree.write(&work.join(format!("guest-{name}.root")))?;
            fs::copy(&kernel.image, work.join(format!("guest-{name}.kernel")))
                .context("cannot copy a guest's kernel")?;
        }
        Ok(())
    })
}
