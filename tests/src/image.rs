//! The driver domain's image, and those of test domains on the same kernel: an ELF file laid out flat, as `xl` takes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};

use crate::setup::TARGET;
use crate::tool;

/// The file is a whole number of these.
const PAGE_BYTES: usize = 4096;

/// What a build made.
pub struct Image {
    /// With symbols, for `size` and for looking up addresses.
    pub elf: PathBuf,
    /// What a domain boots.
    pub flat: PathBuf,
}

/// The root of the project.
pub fn workspace() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(Path::to_owned).context("the tests' folder is in no project")
}

/// Where cargo and the bed put what they make.
pub fn target_folder() -> Result<PathBuf> {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().map(|root| root.join("target")), |folder| Ok(PathBuf::from(folder)))?;
    std::path::absolute(folder).context("the target folder has no absolute path")
}

/// Builds the driver domain.
pub fn build() -> Result<Image> {
    build_domain("kernel", "driver-domain")
}

/// Builds the image that is the program `program` of `package`.
pub fn build_domain(package: &str, program: &str) -> Result<Image> {
    build_package(package, &["--bin", program])?;
    let elf = target_folder()?.join(TARGET).join("kernel").join(program);
    let flat = elf.with_extension("img");
    let content = fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let bytes = flatten(&content).with_context(|| format!("{} cannot be laid out flat", elf.display()))?;
    fs::write(&flat, bytes).with_context(|| format!("cannot write {}", flat.display()))?;
    Ok(Image { elf, flat })
}

/// Builds the library of `package` that a C program is linked with.
pub fn build_library(package: &str) -> Result<PathBuf> {
    build_package(package, &["--lib"])?;
    Ok(target_folder()?.join(TARGET).join("kernel").join(format!("lib{package}.a")))
}

fn build_package(package: &str, what: &[&str]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace()?).arg("--config").arg(without_machine_paths()?);
    cargo.args(["build", "--quiet", "--profile", "kernel", "--target", TARGET, "-p", package]).args(what);
    if !tool::succeeds(&mut cargo)? {
        bail!("{package} does not build (see above)");
    }
    Ok(())
}

/// A setting of cargo's by which places in crates' sources are named from the crate on: the image is the same wherever they lie.
fn without_machine_paths() -> Result<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("there is no home folder")?;
    let registries = fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten();
    let flags = registries.map(|registry| format!("'--remap-path-prefix={}/='", registry.path().display()));
    Ok(format!("target.{TARGET}.rustflags=[{}]", flags.collect::<Vec<_>>().join(",")))
}

/// The loaded segments at their distances from the first one, zeroes included; but for those that have nothing in the file (stacks).
fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
    let file = ElfFile64::<Endianness>::parse(elf)?;
    let endian = file.endian();
    let headers = file.elf_header().program_headers(endian, elf)?;
    let loaded =
        || headers.iter().filter(|header| header.p_type(endian) == PT_LOAD && header.p_filesz(endian) > 0);
    let start = loaded().map(|header| header.p_paddr(endian)).min().context("it has nothing to load")?;
    let mut image = Vec::new();
    for header in loaded() {
        let at = usize::try_from(header.p_paddr(endian) - start)?;
        let end = at + usize::try_from(header.p_memsz(endian))?;
        if image.len() < end {
            image.resize(end, 0);
        }
        let data = header.data(endian, elf).ok().context("a segment lies outside of the file")?;
        image[at..at + data.len()].copy_from_slice(data);
    }
    image.resize(image.len().next_multiple_of(PAGE_BYTES), 0);
    Ok(image)
}

/// Compiles the device tree of the devices that are passed through to the driver domain.
pub fn passthrough_tree() -> Result<PathBuf> {
    let folder = target_folder()?.join(TARGET).join("kernel");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let result = folder.join("passthrough.dtb");
    // Quietly: the tree is a part of another one, which has the interrupt controller that this one names.
    let mut compiler = Command::new("dtc");
    compiler.args(["-q", "-I", "dts", "-O", "dtb", "-o"]).arg(&result);
    tool::run(compiler.arg(workspace()?.join("boot/passthrough.dts")))?;
    Ok(result)
}

/// The files of the project that a script finds in `/bed`.
pub fn bed_files(workspace: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(workspace.join("boot")).context("the folder boot is missing")?;
    let configurations = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cfg"));
    Ok(configurations.chain([passthrough_tree()?]).collect())
}

/// Copies what is in `from` into `to`.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    tool::run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to))
}
