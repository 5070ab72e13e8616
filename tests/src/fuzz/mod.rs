//! The fuzzer: libFuzzer over the targets of `tests/fuzz`, one after the other.
//!
//! | file | job |
//! |---|---|
//! | [`campaign`] | runs of a target, and what they were so far |
//! | [`corpus`] | what is kept in the project of what was found |
//! | [`coverage`] | which lines that reaches |

pub mod campaign;
pub mod corpus;
pub mod coverage;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::{image, setup, tool};

/// Most bytes of an input: longer ones do nothing that several shorter ones do not.
const INPUT_BYTES_MAX: usize = 2048;

/// The targets, built for fuzzing, and their folders.
pub struct Fuzzer {
    /// The project.
    pub workspace: PathBuf,
    /// All that was found worth keeping, by target, and what the runs were.
    pub kept: PathBuf,
    /// Where the programs are, and inputs that fail.
    target: PathBuf,
    cache: Cache,
}

impl Fuzzer {
    /// Makes what is missing.
    pub fn build() -> Result<Self> {
        let fuzzer = Self::open()?;
        let cargo_fuzz = setup::cargo_fuzz(&Cache::open()?)?;
        let mut build = Command::new(cargo_fuzz);
        // No sanitizer: the code is safe, but for files that no target reaches. Assertions and overflow checks are on.
        build.args(["fuzz", "build", "--sanitizer", "none", "--fuzz-dir"]);
        build.arg(fuzzer.workspace.join("tests/fuzz/libfuzzer")).arg("--target-dir").arg(&fuzzer.target);
        crate::progress::step("building the fuzz targets", || tool::run(&mut build))?;
        Ok(fuzzer)
    }

    /// The same, without the programs.
    pub fn open() -> Result<Self> {
        let workspace = image::workspace()?;
        let cache = Cache::open()?;
        let kept = cache.root().join("fuzz");
        let target = image::target_folder()?.join("fuzz");
        std::fs::create_dir_all(&kept).context("cannot write to the cache")?;
        Ok(Self { workspace, kept, target, cache })
    }

    /// No other command works on the corpus of a target while this lives; on others it may.
    pub fn lock(&self, name: &str) -> Result<File> {
        self.cache.lock(&format!("fuzz-{name}"))
    }

    /// The names of all targets.
    pub fn targets(&self) -> Result<Vec<String>> {
        let folder = self.workspace.join("tests/fuzz/libfuzzer/targets");
        let mut names = Vec::new();
        for file in std::fs::read_dir(&folder)? {
            names.extend(file?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The corpus of a target, with all that the project has of it.
    pub fn corpus(&self, name: &str) -> Result<PathBuf> {
        let folder = self.kept.join("corpus").join(name);
        std::fs::create_dir_all(&folder)?;
        for input in corpus::read(&self.packed(name))? {
            std::fs::write(folder.join(crate::cache::key(&[&input])), input)?;
        }
        Ok(folder)
    }

    /// The part of the corpus that is in the project.
    pub fn packed(&self, name: &str) -> PathBuf {
        self.workspace.join("tests/fuzz/corpus").join(name)
    }

    /// The program of a target, to be run nicely and with bounds for what it may take.
    fn program(&self, name: &str) -> Result<Command> {
        let tuple = tool::text(Command::new("rustc").args(["--print", "host-tuple"]))?;
        let program = self.target.join(tuple).join("release").join(name);
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program).env("RUST_BACKTRACE", "0");
        command.args(["-rss_limit_mb=512", "-malloc_limit_mb=64", "-timeout=5"]);
        command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
        Ok(command)
    }

    /// Where inputs go that fail.
    fn findings(&self) -> Result<PathBuf> {
        let folder = self.target.join("findings");
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// How many files a folder has.
fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
