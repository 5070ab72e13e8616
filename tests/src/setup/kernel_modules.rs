//! Chosen modules of a Debian kernel, unpacked, with those that they depend on, in the order to load them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use crate::setup::root_tree::RootTree;
use crate::tool;

/// A kernel as a package unpacks it.
pub struct Kernel {
    /// The plain Image.
    pub image: PathBuf,
    modules: HashMap<String, PathBuf>,
    builtin: Vec<String>,
}

impl Kernel {
    /// Finds the one kernel in `packages` whose name ends with `ending`.
    pub fn find(packages: &Path, ending: &str) -> Result<Self> {
        let release = fs::read_dir(packages.join("usr/lib/modules"))
            .context("no kernel in the packages")?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .find(|name| name.ends_with(ending) && name.contains("-cloud-") == ending.contains("-cloud-"))
            .with_context(|| format!("no kernel …{ending} in the packages"))?;
        let folder = packages.join("usr/lib/modules").join(&release);
        let builtin = fs::read_to_string(folder.join("modules.builtin"))
            .context("the kernel's list of built-in modules is missing")?;
        let mut modules = HashMap::new();
        collect(&folder.join("kernel"), &mut modules)?;
        Ok(Self {
            image: packages.join(format!("boot/vmlinuz-{release}")),
            modules,
            builtin: builtin.lines().map(|line| module_name(Path::new(line))).collect(),
        })
    }

    /// Puts the modules `names` into `tree` as `FOLDER/NN-name.ko`: loading them in the order of their names works.
    pub fn add_modules(&self, tree: &mut RootTree, folder: &str, names: &[&str]) -> Result<()> {
        let mut order = Vec::new();
        for name in names {
            self.place(name, &mut order)?;
        }
        for (number, (name, content)) in order.into_iter().enumerate() {
            tree.file(&format!("{folder}/{number:02}-{name}.ko"), content, 0o644);
        }
        Ok(())
    }

    /// Appends the module `name` after all that it depends on.
    fn place(&self, name: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) || order.iter().any(|(placed, _)| *placed == name) {
            return Ok(());
        }
        let Some(file) = self.modules.get(&name) else {
            bail!("the kernel has no module {name}");
        };
        let content = if file.extension().is_some_and(|ending| ending == "xz") {
            tool::output(Command::new("xz").arg("-dc").arg(file))?
        } else {
            fs::read(file)?
        };
        for dependency in
            dependencies(&content).with_context(|| format!("{} cannot be read", file.display()))?
        {
            self.place(&dependency, order)?;
        }
        order.push((name, content));
        Ok(())
    }
}

/// The modules that a module's own description names.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("no .modinfo section")?;
    let text = String::from_utf8_lossy(section.data()?).into_owned();
    let names = text.split('\0').find_map(|line| line.strip_prefix("depends=")).unwrap_or_default();
    Ok(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn collect(folder: &Path, modules: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if path.to_string_lossy().contains(".ko") {
            modules.insert(module_name(&path), path);
        }
    }
    Ok(())
}

fn module_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split(".ko").next().unwrap_or_default().replace('-', "_")
}
