//! The arm64 packages that Dom0 and the guests are made of. Nothing of them is run here: they are only unpacked.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::apt::{Apt, SUITE};
use crate::cache::Cache;

/// Kernels by the metapackage that names the present one: small and fast to boot, and the usual one.
const KERNELS: [&str; 2] = ["linux-image-cloud-arm64", "linux-image-arm64"];

const PACKAGES: &[&str] = &[
    // Xen's tools.
    "xen-utils-4.20",
    "xen-utils-common",
    "xenstore-utils",
    "libxenmisc4.20",
    "libxenstore4",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxentoolcore1",
    "libxentoollog1",
    // What they are linked with.
    "libatomic1",
    "libbz2-1.0",
    "libc6",
    "libfdt1",
    "libgcc-s1",
    "liblzma5",
    "liblzo2-2",
    "libncurses6",
    "libnl-3-200",
    "libnl-route-3-200",
    "libtinfo6",
    "libuuid1",
    "libyajl2",
    "libzstd1",
    "zlib1g",
    // Shells and file systems; perl-base is here for its many small files.
    "bash",
    "busybox-static",
    "e2fsprogs",
    "libblkid1",
    "libcom-err2",
    "libext2fs2t64",
    "libmount1",
    "libpcre2-8-0",
    "libselinux1",
    "libss2",
    "perl-base",
    "util-linux",
    // Networks.
    "ethtool",
    "iperf3",
    "libiperf0",
    "libmnl0",
    "libsctp1",
    "libssl3t64",
];

/// The folder with all of them unpacked.
pub fn unpacked(cache: &Cache) -> Result<PathBuf> {
    let names = [PACKAGES, &KERNELS].concat().join(" ");
    let entry = cache.entry(
        "packages",
        "fetching arm64 packages",
        &[SUITE.as_bytes(), names.as_bytes()],
        |work| {
            let apt = Apt::open(cache)?;
            let mut packages: Vec<String> = PACKAGES.iter().map(|name| format!("{name}:arm64")).collect();
            for kernel in KERNELS {
                packages.push(format!("{}:arm64", apt.first_dependency(&format!("{kernel}:arm64"))?));
            }
            apt.unpack(SUITE, &packages, &root(work))
        },
    )?;
    Ok(root(&entry))
}

fn root(entry: &Path) -> PathBuf {
    entry.join("root")
}
