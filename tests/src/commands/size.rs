//! `cargo xtask size`: how large the driver domain is, and what of it; fails above the budget that README.md states.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf};

use crate::{image, setup};

/// Modules smaller than this are summed up.
const SHOWN_BYTES: u64 = 1024;

/// Prints the sizes and compares them with the budget.
pub fn run() -> Result<ExitCode> {
    setup::toolchain()?;
    let image = image::build()?;
    let elf = fs::read(&image.elf).with_context(|| format!("cannot read {}", image.elf.display()))?;
    let file = object::File::parse(elf.as_slice())?;
    let mut sizes = vec![("image file".to_owned(), fs::metadata(&image.flat)?.len())];
    for section in file.sections().filter(|section| is_loaded(section) && section.size() > 0) {
        sizes.push((section.name()?.to_owned(), section.size()));
    }
    let budget = budget(&image::workspace()?.join("README.md"))?;
    let mut exceeded = Vec::new();
    println!("{:<24} {:>10} {:>10}", "part", "bytes", "budget");
    for (name, bytes) in &sizes {
        let limit = budget.get(name);
        println!("{name:<24} {bytes:>10} {:>10}", limit.map_or_else(String::new, u64::to_string));
        if limit.is_some_and(|limit| bytes > limit) {
            exceeded.push(name.as_str());
        }
    }
    println!("\n{:<40} {:>10} {:>10}", "module", "code", "data");
    for (name, (code, data)) in by_module(&file) {
        println!("{name:<40} {code:>10} {data:>10}");
    }
    if !budget.contains_key("image file") {
        bail!("README.md states no budget: it should have a line such as `| image file | 384 KiB |`");
    }
    if exceeded.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nabove the budget of README.md: {}", exceeded.join(", "));
    Ok(ExitCode::FAILURE)
}

fn is_loaded(section: &object::Section) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::SHF_ALLOC.0 != 0)
}

/// Bytes of code and of data by crate and first module.
fn by_module(file: &object::File) -> Vec<(String, (u64, u64))> {
    let mut modules: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
        let sizes = modules.entry(module_of(symbol.name().unwrap_or_default())).or_default();
        match symbol.kind() {
            SymbolKind::Text => sizes.0 += symbol.size(),
            SymbolKind::Data => sizes.1 += symbol.size(),
            _ => {}
        }
    }
    let (large, small): (Vec<_>, Vec<_>) =
        modules.into_iter().partition(|(_, (code, data))| code + data >= SHOWN_BYTES);
    let rest = small.iter().fold((0, 0), |sum, (_, sizes)| (sum.0 + sizes.0, sum.1 + sizes.1));
    let mut result = large;
    result.sort_by_key(|(_, (code, data))| std::cmp::Reverse(code + data));
    result.push((format!("{} smaller ones", small.len()), rest));
    result
}

/// `crate::module` of a mangled name; of `<Type as Trait>::method`, the type's, or the trait's when the type is no crate's. A name
/// that is not mangled stays as it is.
fn module_of(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    let (one, other) = name.trim_start_matches('<').split_once(" as ").unwrap_or((&name, &name));
    module_of_path(one).or_else(|| module_of_path(other)).unwrap_or(name)
}

fn module_of_path(path: &str) -> Option<String> {
    let path = path.trim_start_matches(['<', '&', '[']).trim_start_matches("mut ").trim_start_matches("dyn ");
    let end = path.find(['<', '>', ' ', ']', '(', '{', ',']).unwrap_or(path.len());
    let mut parts = path[..end].split("::").filter(|part| !part.is_empty());
    let (first, second) = (parts.next()?, parts.next()?);
    let is_module = second.starts_with(|letter: char| letter.is_ascii_lowercase());
    Some(if is_module { format!("{first}::{second}") } else { first.to_owned() })
}

/// The lines `| NAME | N KiB |` of the README, in bytes.
fn budget(readme: &Path) -> Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(readme).with_context(|| format!("cannot read {}", readme.display()))?;
    Ok(text.lines().filter_map(budget_line).collect())
}

fn budget_line(line: &str) -> Option<(String, u64)> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
    let name = cells.next()?.trim_matches('`');
    let (number, unit) = cells.next()?.split_once(' ')?;
    let factor = match unit {
        "B" | "bytes" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    Some((name.to_owned(), number.parse::<u64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::{budget_line, module_of};

    #[test]
    fn budget_is_read_from_a_table() {
        assert_eq!(budget_line("| image file | 384 KiB |"), Some(("image file".to_owned(), 384 * 1024)));
        assert_eq!(budget_line("| `.text` | 200 KiB | code |"), Some((".text".to_owned(), 200 * 1024)));
        assert_eq!(budget_line("|---|---|"), None);
        assert_eq!(budget_line("| boots in | 2 s |"), None);
    }

    #[test]
    fn names_are_put_to_modules() {
        assert_eq!(module_of("_ZN6kernel3run4loop17h0123456789abcdefE"), "kernel::run");
        assert_eq!(module_of("<&T as core::fmt::Debug>::fmt"), "core::fmt");
        assert_eq!(module_of("<drivers::virtio::blk::Disk as drivers::Block>::read"), "drivers::virtio");
        assert_eq!(module_of("memcpy"), "memcpy");
    }
}
