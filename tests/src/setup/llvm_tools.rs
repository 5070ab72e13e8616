//! The tools of LLVM that read what an instrumented program has counted. They must be of the release that rustc is built with, or a
//! newer one: the toolchain's own component, or Debian's for this host, unpacked beside the others.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::tool;

/// Where the tools are.
pub struct LlvmTools {
    folder: PathBuf,
    libraries: Option<PathBuf>,
}

impl LlvmTools {
    /// Finds them, or fetches them by the host's own apt, which does not need to be root for that.
    pub fn find(cache: &Cache) -> Result<Self> {
        let sysroot = tool::text(Command::new("rustc").args(["--print", "sysroot"]))?;
        let target = tool::text(Command::new("rustc").args(["--print", "host-tuple"]))?;
        let component = Path::new(&sysroot).join("lib/rustlib").join(target).join("bin");
        if component.join("llvm-cov").exists() {
            return Ok(Self { folder: component, libraries: None });
        }
        let release = release()?;
        let entry = cache.entry("llvm-tools", "fetching LLVM's tools", &[release.as_bytes()], |work| {
            let packages = [format!("llvm-{release}"), format!("libllvm{release}")];
            tool::run(Command::new("apt-get").arg("download").args(packages).current_dir(work)).with_context(
                || format!("this host's apt has no llvm-{release}: `rustup component add llvm-tools` does as well"),
            )?;
            for file in std::fs::read_dir(work)? {
                let file = file?.path();
                tool::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(work.join("root")))?;
                std::fs::remove_file(file)?;
            }
            Ok(())
        })?;
        let root = entry.join("root/usr/lib");
        let libraries = root.join(format!("{}-linux-gnu", std::env::consts::ARCH));
        Ok(Self { folder: root.join(format!("llvm-{release}/bin")), libraries: Some(libraries) })
    }

    /// One of them.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// The release of LLVM that rustc is built with.
fn release() -> Result<String> {
    let version = tool::text(Command::new("rustc").arg("-vV"))?;
    let release = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let release = release.and_then(|release| release.split('.').next());
    release.map(str::to_owned).context("rustc does not tell its version of LLVM")
}
