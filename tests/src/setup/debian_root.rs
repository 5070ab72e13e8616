//! A whole Debian, as a folder: systemd, dpkg and what they need, as apt resolves it, unpacked and entered in dpkg's own database.
//!
//! Nothing of it is run here, so what maintainer scripts would make and it needs is in `tests/debian`. So are links to `/dev/null` that switch
//! off units of systemd which a guest without devices and modules has no use for.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{Apt, SUITE};
use crate::tool;

/// What is installed, with all that these depend on: Debian's essential packages, an init, and tools for file systems.
const PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "e2fsprogs",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "login",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "sed",
    "systemd-sysv",
    "sysvinit-utils",
    "tar",
    "util-linux",
];
/// Not installed: its file lies in `/root`, for a guest to install.
const LATER_PACKAGE: &str = "hello";

/// All that goes into it, for the name of what is made of it.
pub fn inputs() -> String {
    format!("{}{SUITE}{PACKAGES:?}{LATER_PACKAGE}", include_str!("debian_root.rs"))
}

/// Makes it in `work`; gives the root's folder. `own_files` are put over the packages' files.
pub fn build(apt: &Apt, own_files: &Path, work: &Path) -> Result<PathBuf> {
    let root = work.join("root");
    let downloads = work.join("downloads");
    apt.download_all(SUITE, PACKAGES, &downloads)?;
    let mut database = Database::new(&root, &work.join("control"))?;
    for file in packages(&downloads)? {
        tool::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root))?;
        database.enter(&file).with_context(|| format!("{} cannot be entered", file.display()))?;
    }
    database.finish()?;
    fs::remove_dir_all(&downloads)?;
    apt.download(SUITE, &[format!("{LATER_PACKAGE}:arm64")], &downloads)?;
    for file in packages(&downloads)? {
        fs::copy(&file, root.join("root").join(format!("{LATER_PACKAGE}.deb")))?;
    }
    fs::remove_dir_all(&downloads)?;
    for name in ["passwd", "group"] {
        let original = root.join(format!("usr/share/base-passwd/{name}.master"));
        fs::copy(&original, root.join("etc").join(name)).context("base-passwd has changed")?;
    }
    symlink("mawk", root.join("usr/bin/awk"))?;
    tool::run(Command::new("cp").arg("-a").arg(own_files.join(".")).arg(&root))?;
    Ok(root)
}

fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// dpkg's database, in the making.
struct Database {
    folder: PathBuf,
    control: PathBuf,
    status: String,
}

impl Database {
    fn new(root: &Path, control: &Path) -> Result<Self> {
        let folder = root.join("var/lib/dpkg");
        for part in ["info", "updates", "triggers", "parts"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("available"), "")?;
        fs::write(folder.join("info/format"), "1\n")?;
        Ok(Self { folder, control: control.to_owned(), status: String::new() })
    }

    /// Enters the package in `file` as installed.
    fn enter(&mut self, file: &Path) -> Result<()> {
        let description = tool::text(Command::new("dpkg-deb").arg("-f").arg(file))?;
        let field = |name: &str| {
            let prefix = format!("{name}: ");
            description.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        let package = field("Package").context("it has no name")?;
        for line in description.lines() {
            writeln!(self.status, "{line}")?;
            if line.starts_with("Package: ") {
                self.status.push_str("Status: install ok installed\n");
            }
        }
        self.status.push('\n');
        // Of such packages there may be one of each architecture.
        let name = if field("Multi-Arch").as_deref() == Some("same") { package + ":arm64" } else { package };
        tool::run(Command::new("dpkg-deb").arg("-e").arg(file).arg(&self.control))?;
        for entry in fs::read_dir(&self.control)? {
            let entry = entry?;
            let kind = entry.file_name().to_string_lossy().into_owned();
            if kind != "control" {
                fs::rename(entry.path(), self.folder.join(format!("info/{name}.{kind}")))?;
            }
        }
        fs::remove_dir_all(&self.control)?;
        fs::write(self.folder.join(format!("info/{name}.list")), list(file)?)?;
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        fs::write(self.folder.join("status"), &self.status).context("cannot write dpkg's database")
    }
}

/// The paths that a package has, as dpkg lists them.
fn list(package: &Path) -> Result<String> {
    let archive = tool::output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package))?;
    let mut list = String::new();
    for entry in tar::Archive::new(archive.as_slice()).entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let path = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
        let path = path.trim_end_matches('/');
        writeln!(list, "/{}", if path.is_empty() { "." } else { path })?;
    }
    Ok(list)
}
