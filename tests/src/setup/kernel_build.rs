//! Building a kernel for arm64 out of a source tree with Kconfig, as Xen's and Linux' are.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tool;

/// A tree of sources that may be written to.
pub struct KernelBuild<'a> {
    /// Whose it is, for sentences.
    pub name: &'static str,
    /// Where its Makefile and its `.config` are.
    pub folder: &'a Path,
    /// The variable by which its Makefile learns the architecture.
    pub architecture: &'static str,
}

impl KernelBuild<'_> {
    /// Runs make.
    pub fn make(&self, arguments: &[&str]) -> Result<()> {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(self.folder)
            .arg(format!("{}=arm64", self.architecture))
            .arg("CROSS_COMPILE=aarch64-linux-gnu-")
            .args(arguments);
        // What an outer make or a shell left in the environment is not for this build.
        tool::run(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"))
    }

    /// Runs make with a job for each processor.
    pub fn make_in_parallel(&self, arguments: &[&str]) -> Result<()> {
        let jobs = format!("-j{}", std::thread::available_parallelism().map_or(2, usize::from));
        self.make(&[&[jobs.as_str()], arguments].concat())
    }

    /// Checks that the configuration holds each option of `wanted`. One that was dropped in silence, for something that it depends on,
    /// would show up much later, as a feature that is not there.
    pub fn check(&self, wanted: &str) -> Result<()> {
        let made = fs::read_to_string(self.folder.join(".config")).context("make left no .config")?;
        match missing_option(wanted, &made) {
            Some(line) => bail!("the configuration of {} does not take `{line}`", self.name),
            None => Ok(()),
        }
    }
}

/// The first option of `wanted`, in the form of a `.config`, that is not so in `made`.
fn missing_option<'a>(wanted: &'a str, made: &str) -> Option<&'a str> {
    let is_option = |line: &&str| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_");
    wanted.lines().filter(is_option).find(|option| !made.lines().any(|line| line == *option))
}

#[cfg(test)]
mod tests {
    use super::missing_option;

    #[test]
    fn an_option_that_was_dropped_is_found() {
        let made = "# made by make\nCONFIG_XEN=y\n# CONFIG_EFI is not set\n";
        assert_eq!(missing_option("# prose\n\nCONFIG_XEN=y\n# CONFIG_EFI is not set\n", made), None);
        assert_eq!(missing_option("CONFIG_XEN=y\nCONFIG_XEN_VIRTIO=y\n", made), Some("CONFIG_XEN_VIRTIO=y"));
        assert_eq!(missing_option("# CONFIG_XEN is not set\n", made), Some("# CONFIG_XEN is not set"));
    }
}
