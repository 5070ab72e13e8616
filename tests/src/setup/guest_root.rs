//! Guests: both of Debian's arm64 kernels and the one that grants its pages, each with a root that runs one job and ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::arm64_program;
use super::kernel_modules::Kernel;
use super::root_tree::RootTree;
use crate::cache::Cache;

/// The name of each of Debian's kernels in the bed, and how the name of its release ends.
const FLAVOURS: [(&str, &str); 2] = [("cloud", "-cloud-arm64"), ("generic", "-arm64")];

/// The name of the other kernel.
const GRANTS: &str = "grants";

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
/// Loaded at the start by a guest that has a NIC.
const NET_MODULES: &[&str] = &["virtio_net", "8021q"];
/// For jobs that ask for them, to compare with: Xen's own frontends, and a disk in the guest's own RAM.
const MORE_MODULES: &[&str] = &["xen-blkfront", "xen-netfront", "brd"];

/// What goes on top of a root for jobs that measure networks: too large for the roots of all.
const NET_LAYER: &[&str] = &["usr/bin/iperf3", "usr/sbin/ethtool"];

/// A folder with `guest-FLAVOUR.kernel` and `guest-FLAVOUR.root` for each flavour, and `layer-net.root`, which goes behind any of the roots.
pub fn build(cache: &Cache, workspace: &Path, packages: &Path, granting_kernel: &Path) -> Result<PathBuf> {
    let files = workspace.join("tests/guest");
    let read = |name: &str| {
        fs::read(files.join(name)).with_context(|| format!("cannot read {}", files.join(name).display()))
    };
    let (init, pattern) = (read("init")?, read("pattern.c")?);
    let (net, udhcpc) = (read("net.sh")?, read("udhcpc.sh")?);
    let inputs = [
        include_bytes!("guest_root.rs").as_slice(),
        &init,
        &pattern,
        &net,
        &udhcpc,
        packages.as_os_str().as_encoded_bytes(),
        granting_kernel.as_os_str().as_encoded_bytes(),
    ];
    cache.entry("guests", "making the guests' roots", &inputs, |work| {
        let pattern = arm64_program::compile(&files.join("pattern.c"), None, work)?;
        let write = |name: &str, mut tree: RootTree, image: &Path| -> Result<()> {
            PROGRAMS.iter().try_for_each(|program| tree.program(program))?;
            tree.file("usr/bin/pattern", pattern.clone(), 0o755);
            tree.folder("mnt");
            // e2fsck and mke2fs look for it.
            tree.link("etc/mtab", "/proc/mounts");
            tree.file("init", init.clone(), 0o755);
            tree.file("net.sh", net.clone(), 0o644);
            tree.file("etc/udhcpc/default.script", udhcpc.clone(), 0o755);
            tree.write(&work.join(format!("guest-{name}.root")))?;
            fs::copy(image, work.join(format!("guest-{name}.kernel")))
                .context("cannot copy a guest's kernel")?;
            Ok(())
        };
        for (name, ending) in FLAVOURS {
            let kernel = Kernel::find(packages, ending)?;
            let mut tree = RootTree::new(packages);
            kernel.add_modules(&mut tree, "modules", MODULES)?;
            kernel.add_modules(&mut tree, "modules/net", NET_MODULES)?;
            kernel.add_modules(&mut tree, "modules/more", MORE_MODULES)?;
            write(name, tree, &kernel.image)?;
        }
        // All that it needs is built in.
        write(GRANTS, RootTree::new(packages), granting_kernel)?;
        let mut layer = RootTree::new(packages);
        NET_LAYER.iter().try_for_each(|program| layer.program(program))?;
        // iperf3's threads want it when they end.
        layer.library("libgcc_s.so.1")?;
        layer.write(&work.join("layer-net.root"))
    })
}
