//! All that a test bed needs, made once and kept in the cache; each step finds out itself that it has nothing to do.

mod apt;
mod arm64_program;
mod bed_disk;
mod cargo_fuzz;
mod data_image;
pub mod debian_disk;
mod debian_root;
mod dom0_root;
mod granting_kernel;
mod guest_root;
mod host_packages;
mod kernel_build;
mod kernel_modules;
mod llvm_tools;
mod packages;
mod policy;
mod promtool;
mod root_tree;
mod rust_target;
pub mod xen;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cache::Cache;
pub use cargo_fuzz::build as cargo_fuzz;
pub use llvm_tools::LlvmTools;
pub use rust_target::TARGET;
use xen::Flavour;

/// The made parts of the bed, by their paths.
pub struct Parts {
    /// Xen with assertions.
    pub xen_debug: PathBuf,
    /// Xen as it is deployed.
    pub xen_release: PathBuf,
    /// The compiled FLASK policy.
    pub policy: PathBuf,
    /// Dom0's Linux.
    pub dom0_kernel: PathBuf,
    /// Dom0's root with the real `xl`.
    pub dom0_root: PathBuf,
    /// A file system with the guests' kernels and roots and the data image; `/bed` in Dom0.
    pub bed_disk: PathBuf,
    /// A physical disk with a Debian that boots and the data image.
    pub debian_disk: PathBuf,
    /// The host's own `promtool`.
    pub promtool: PathBuf,
}

impl Parts {
    /// The Xen of `flavour`.
    pub fn xen(&self, flavour: Flavour) -> &Path {
        match flavour {
            Flavour::Debug => &self.xen_debug,
            Flavour::Release => &self.xen_release,
        }
    }
}

/// What a build of the driver domain needs: the host's programs and the Rust target.
pub fn toolchain() -> Result<()> {
    host_packages::ensure()?;
    rust_target::ensure(&Cache::open()?)
}

/// The unpacked source of Xen, and the folder of the libraries that Dom0's programs are linked with.
pub fn xen_libraries() -> Result<(PathBuf, PathBuf)> {
    let cache = Cache::open()?;
    Ok((xen::source(&cache)?, packages::unpacked(&cache)?.join(root_tree::LIBRARIES)))
}

/// Makes all that is missing.
pub fn everything(workspace: &Path) -> Result<Parts> {
    host_packages::ensure()?;
    let cache = Cache::open()?;
    rust_target::ensure(&cache)?;
    let xen_debug = xen::build(&cache, Flavour::Debug)?;
    let xen_release = xen::build(&cache, Flavour::Release)?;
    let policy = policy::build(&cache, workspace)?;
    let packages = packages::unpacked(&cache)?;
    let dom0 = dom0_root::build(&cache, workspace, &packages)?;
    let granting_kernel = granting_kernel::build(&cache, workspace)?;
    let guests = guest_root::build(&cache, workspace, &packages, &granting_kernel)?;
    let data_image = data_image::build(&cache, &packages)?;
    let bed_disk = bed_disk::build(&cache, &guests, &data_image)?;
    let debian_disk = debian_disk::build(&cache, workspace, &data_image)?;
    let promtool = promtool::unpacked(&cache)?;
    Ok(Parts {
        xen_debug,
        xen_release,
        policy,
        dom0_kernel: dom0.join("Image"),
        dom0_root: dom0.join("root.cpio"),
        bed_disk,
        debian_disk,
        promtool,
    })
}
