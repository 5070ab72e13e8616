//! Dom0: Debian's cloud kernel and a root of the real `xl`, its daemons, bash and busybox.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::arm64_program;
use super::kernel_modules::Kernel;
use super::root_tree::RootTree;
use super::xen;
use crate::cache::Cache;

const PROGRAMS: &[&str] = &[
    "usr/bin/bash",
    "usr/bin/busybox",
    "usr/bin/xenstore-chmod",
    "usr/bin/xenstore-exists",
    "usr/bin/xenstore-list",
    "usr/bin/xenstore-ls",
    "usr/bin/xenstore-read",
    "usr/bin/xenstore-rm",
    "usr/bin/xenstore-watch",
    "usr/bin/xenstore-write",
    "usr/sbin/e2fsck",
    "usr/sbin/mke2fs",
    "usr/lib/xen-4.20/bin/xenconsole",
];

/// Programs that the packages keep away from the search path.
const XEN_PROGRAMS: &[&str] =
    &["flask-getenforce", "xen-init-dom0", "xenconsoled", "xenctx", "xenperf", "xenstored", "xl"];

/// Loaded at boot.
const MODULES: &[&str] = &[
    "xen-privcmd",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xenfs",
    "virtio_mmio",
    "virtio_blk",
    "ext4",
];
/// For scripts that ask for them: Linux's own backends, to compare with.
const MORE_MODULES: &[&str] = &["xen-blkback", "xen-netback", "loop", "brd", "virtio_net", "tun", "bridge"];

/// A folder with Dom0's `Image` and `root.cpio`.
pub fn build(cache: &Cache, workspace: &Path, packages: &Path) -> Result<PathBuf> {
    let files = workspace.join("tests/dom0");
    let read = |name: &str| {
        fs::read(files.join(name)).with_context(|| format!("cannot read {}", files.join(name).display()))
    };
    let (init, facts) = (read("init")?, read("xen-facts.c")?);
    let source = xen::source(cache)?;
    let inputs = [
        include_bytes!("dom0_root.rs").as_slice(),
        &init,
        &facts,
        packages.as_os_str().as_encoded_bytes(),
        source.as_os_str().as_encoded_bytes(),
    ];
    cache.entry("dom0", "making Dom0's root", &inputs, |work| {
        let kernel = Kernel::find(packages, "-cloud-arm64")?;
        let mut tree = RootTree::new(packages);
        PROGRAMS.iter().try_for_each(|program| tree.program(program))?;
        for program in XEN_PROGRAMS {
            tree.program_as(&format!("usr/lib/xen-4.20/bin/{program}"), &format!("usr/sbin/{program}"))?;
        }
        // The C library loads it by name when a thread is ended.
        tree.library("libgcc_s.so.1")?;
        kernel.add_modules(&mut tree, "modules/boot", MODULES)?;
        kernel.add_modules(&mut tree, "modules/more", MORE_MODULES)?;
        tree.file("usr/bin/xen-facts", compile(&files.join("xen-facts.c"), &source, work)?, 0o755);
        tree.file("etc/xen/xl.conf", "", 0o644);
        tree.folder("var/log/xen/console");
        tree.folder("var/lib/xen");
        tree.file("init", init.clone(), 0o755);
        tree.write(&work.join("root.cpio"))?;
        fs::copy(&kernel.image, work.join("Image")).context("cannot copy Dom0's kernel")?;
        Ok(())
    })
}

/// Compiles a program of ours for Dom0 against Xen's public headers.
fn compile(program: &Path, source: &Path, work: &Path) -> Result<Vec<u8>> {
    // Xen's headers expect to be found as <xen/…>.
    let headers = work.join("headers");
    fs::create_dir_all(&headers)?;
    std::os::unix::fs::symlink(source.join("xen/include/public"), headers.join("xen"))?;
    let content = arm64_program::compile(program, Some(&headers), work)?;
    fs::remove_dir_all(&headers)?;
    Ok(content)
}
