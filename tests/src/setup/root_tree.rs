//! A small root file system: chosen programs out of unpacked packages, the libraries that they need, and our own files, as a cpio
//! archive that Linux takes as its initramfs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cpio::newc;
use object::read::elf::{Dyn, ElfFile64, FileHeader};
use object::{Endianness, elf};

/// Where the packages of an arm64 Debian keep their libraries, ...
pub const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";
/// ... all of them.
const LIBRARY_FOLDERS: [&str; 2] = [LIBRARIES, "usr/lib/aarch64-linux-gnu/systemd"];

enum Entry {
    Folder,
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
}

/// The tree, in the making.
pub struct RootTree {
    packages: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl RootTree {
    /// An empty root with the folders that every Linux has; programs come from `packages`, a folder of unpacked packages.
    pub fn new(packages: &Path) -> Self {
        let mut tree = Self { packages: packages.to_owned(), entries: BTreeMap::new() };
        for folder in [
            "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "usr/lib", "var/lib",
            "var/log",
        ] {
            tree.folder(folder);
        }
        for (link, target) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/sbin"),
            ("lib", "usr/lib"),
            ("var/run", "/run"),
            ("var/lock", "/run/lock"),
        ] {
            tree.link(link, target);
        }
        tree
    }

    /// Adds a program of the packages, and all libraries that it needs.
    pub fn program(&mut self, path: &str) -> Result<()> {
        let content = self.read(path)?;
        let needed = needed_libraries(&content)
            .with_context(|| format!("{path} is not a program that can be read"))?;
        self.file(path, content, 0o755);
        needed.iter().try_for_each(|library| self.library(library))
    }

    /// Adds a program under another name than the packages give it.
    pub fn program_as(&mut self, path: &str, name: &str) -> Result<()> {
        self.program(path)?;
        self.link(name, &format!("/{path}"));
        Ok(())
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::File { content: content.into(), mode });
    }

    /// Adds an empty folder.
    pub fn folder(&mut self, path: &str) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Folder);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Link { target: target.to_owned() });
    }

    /// Writes the tree as a cpio archive, the same bytes for the same tree.
    pub fn write(&self, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
        let mut output = BufWriter::new(file);
        for (number, (path, entry)) in (1u32..).zip(&self.entries) {
            let (kind, mode, content) = match entry {
                Entry::Folder => (newc::ModeFileType::Directory, 0o755, &[][..]),
                Entry::File { content, mode } => (newc::ModeFileType::Regular, *mode, content.as_slice()),
                Entry::Link { target } => (newc::ModeFileType::Symlink, 0o777, target.as_bytes()),
            };
            let builder = newc::Builder::new(path).ino(number).nlink(1).mode(mode).set_mode_file_type(kind);
            let mut writer =
                builder.write(output, u32::try_from(content.len()).context("a file of more than 4 GB")?);
            writer.write_all(content)?;
            output = writer.finish()?;
        }
        newc::trailer(output)?.flush().with_context(|| format!("cannot write {}", to.display()))
    }

    /// Adds a library of the packages, and all that it needs.
    pub fn library(&mut self, name: &str) -> Result<()> {
        let place = LIBRARY_FOLDERS
            .iter()
            .map(|folder| format!("{folder}/{name}"))
            .find(|path| self.packages.join(path).exists());
        let Some(path) = place else {
            bail!(
                "the library {name} is in none of the packages: add the Debian package that has it to the list"
            );
        };
        if name.starts_with("ld-linux") {
            // Programs name their loader by this path.
            self.link(&format!("usr/lib/{name}"), &format!("/{path}"));
        }
        if self.entries.contains_key(&path) { Ok(()) } else { self.program(&path) }
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.packages.join(path);
        fs::read(&file).with_context(|| {
            format!("no {path} in the packages: add the Debian package that has it to the list")
        })
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert(Entry::Folder);
        }
    }
}

/// The names of the shared libraries that an arm64 program asks for.
fn needed_libraries(program: &[u8]) -> Result<Vec<String>> {
    let file = ElfFile64::<Endianness>::parse(program)?;
    let (endian, header) = (file.endian(), file.elf_header());
    let sections = header.sections(endian, program)?;
    let Some((dynamic, link)) = sections.dynamic(endian, program)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, program, link)?;
    let names = dynamic.iter().filter(|entry| entry.tag(endian) == elf::DT_NEEDED);
    names.map(|entry| Ok(String::from_utf8(entry.string(endian, strings)?.to_vec())?)).collect()
}
