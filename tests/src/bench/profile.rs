//! Where the instructions of a request or a packet are executed: by a plugin of QEMU that counts them between marks in the guest's program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol, SymbolKind};

use super::{Benchmark, Records, Report, Table, number};
use crate::bed::Lab;
use crate::setup::xen::Flavour;
use crate::{image, setup, tool};

/// Enough for the volume.
const MEMORY_MIB: u32 = 24;
const VOLUME_BYTES: u64 = 8 << 20;
/// Where `xl` loads a domain's image on Arm.
const IMAGE_ADDRESS: u64 = 0x4000_0000;
/// Where Xen runs (`XEN_VIRT_START`, and the rest of that half TiB).
const XEN: std::ops::Range<u64> = 0xa00_0000_0000..0xa80_0000_0000;
/// Where Linux' kernel runs, a guest's or Dom0's.
const LINUX: u64 = 0xffff_0000_0000_0000;
/// Functions that are named.
const FUNCTIONS: usize = 12;

/// What a case is called here and by `blkbench.c`.
const DISK: [(&str, &str); 4] = [
    ("4 KiB random read, depth 1", "read-4k-1"),
    ("  depth 32, submitted together", "read-4k-32-batched"),
    ("64 KiB sequential read", "read-64k-1"),
    ("1 MiB sequential read", "read-1m-1"),
];

/// The same for `netbench.c`.
const NET: [(&str, &str); 6] = [
    ("ping of 64 bytes, round trip", "ping-64"),
    ("TCP, one byte, round trip", "tcp-1"),
    ("UDP of 64 bytes, a packet", "udp-64"),
    ("UDP of 1400 bytes, a packet", "udp-1400"),
    ("TCP, 64 KiB to the other", "tcp-to"),
    ("TCP, 64 KiB from the other", "tcp-from"),
];

/// See the module.
pub struct Profile;

impl Benchmark for Profile {
    fn name(&self) -> &'static str {
        "profile"
    }

    fn prepare(&self) -> Result<()> {
        let folder = folder()?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let source = image::workspace()?.join("tests/host/instructions.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]);
        tool::run(compiler.arg(plugin(&folder)).arg(source))
    }

    fn lab(&self, mut lab: Lab) -> Lab {
        if let Ok(folder) = folder() {
            let plugin = format!("{},out={}", plugin(&folder).display(), counts(&folder).display());
            lab.qemu_arguments.extend(["-plugin".to_owned(), plugin]);
        }
        lab
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let cases = DISK.map(|(_, name)| name).join(",");
        vec![
            ("DRIVER_DOMAIN_MEMORY", MEMORY_MIB.to_string()),
            ("VOLUME_BYTES", VOLUME_BYTES.to_string()),
            ("CASES", cases),
        ]
    }

    fn report(&self, records: &Records) -> Result<Report> {
        let file = counts(&folder()?);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let phases = phases(&text)?;
        let cases = [DISK.as_slice(), &NET].concat();
        if phases.len() != cases.len() {
            bail!("{}: {} phases, and there are {} cases", file.display(), phases.len(), cases.len());
        }
        let code = Code::read()?;
        let mut places = Table::new(&[
            "one request, round trip or packet",
            "all",
            "guests' programs",
            "their kernels",
            "Xen",
            "driver domain",
        ]);
        let mut report = Report::default();
        let mut functions = Vec::new();
        for ((title, name), phase) in cases.iter().zip(&phases) {
            let requests = records.one(None, name)?.number("requests")?;
            let each = |place: Place| {
                phase.iter().filter(|(at, _)| Place::of(**at) == place).map(|(_, n)| n).sum::<f64>()
                    / requests
            };
            let shares = [Place::Program, Place::Kernel, Place::Xen, Place::DriverDomain].map(each);
            let all = shares.iter().sum();
            places.row(title, [all].into_iter().chain(shares).map(|value| number(value, 0)));
            functions.push((*title, code.functions(phase, requests)));
        }
        report.table("", places);
        for (title, list) in functions {
            let mut table = Table::new(&["function", "instructions a request"]);
            for (name, each) in list {
                table.row(&name, [number(each, 0)]);
            }
            report.table(title.trim(), table);
        }
        report.remark(&format!(
            "counted  by tests/host/instructions.c, a plugin of QEMU, each block of code as a whole; disks in RAM, {MEMORY_MIB} MiB for the \
             driver domain, target=ram:{VOLUME_BYTES}; Dom0 is idle, and part of the guests' columns if it is not"
        ));
        Ok(report)
    }
}

fn folder() -> Result<PathBuf> {
    Ok(image::target_folder()?.join("profile"))
}

fn plugin(folder: &Path) -> PathBuf {
    folder.join("instructions.so")
}

fn counts(folder: &Path) -> PathBuf {
    folder.join("instructions.txt")
}

/// Instructions of a phase by the address of their block.
type Counts = BTreeMap<u64, f64>;

/// What the plugin wrote.
fn phases(text: &str) -> Result<Vec<Counts>> {
    let mut phases: Vec<Counts> = Vec::new();
    for line in text.lines() {
        if line.starts_with("phase ") {
            phases.push(Counts::new());
            continue;
        }
        let pair = line.split_once(' ').and_then(|(address, count)| {
            Some((u64::from_str_radix(address, 16).ok()?, count.parse::<f64>().ok()?))
        });
        let (address, count) = pair.with_context(|| format!("`{line}` is no count"))?;
        *phases.last_mut().context("counts before the first phase")?.entry(address).or_default() += count;
    }
    Ok(phases)
}

/// Whose code lies at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Program,
    Kernel,
    Xen,
    DriverDomain,
}

impl Place {
    fn of(address: u64) -> Self {
        if address >= LINUX {
            Self::Kernel
        } else if XEN.contains(&address) {
            Self::Xen
        } else if (IMAGE_ADDRESS..IMAGE_ADDRESS + (1 << 30)).contains(&address) {
            Self::DriverDomain
        } else {
            Self::Program
        }
    }
}

/// Functions of the driver domain and of Xen, by where they begin when they run.
struct Code(BTreeMap<u64, String>);

impl Code {
    fn read() -> Result<Self> {
        let parts = setup::everything(&image::workspace()?)?;
        let mut code = Self(BTreeMap::new());
        code.add(&image::build()?.elf, IMAGE_ADDRESS, "")?;
        code.add(&parts.xen(Flavour::Release).with_file_name("xen-syms"), 0, "Xen: ")?;
        Ok(code)
    }

    fn add(&mut self, elf: &Path, base: u64, prefix: &str) -> Result<()> {
        let content = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
        let file = object::File::parse(content.as_slice())?;
        // Assembly's labels have no kind; `$x` and such tell where code is and where data.
        let is_code = |kind| matches!(kind, SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown);
        for symbol in file.symbols().filter(|symbol| is_code(symbol.kind())) {
            let name = symbol.name().unwrap_or_default();
            if name.starts_with('$') || name.is_empty() {
                continue;
            }
            let name = format!("{:#}", rustc_demangle::demangle(name));
            self.0.insert(base + symbol.address(), format!("{prefix}{name}"));
        }
        Ok(())
    }

    /// The functions with most instructions for each of so many `requests`, and how many these are.
    fn functions(&self, counts: &Counts, requests: f64) -> Vec<(String, f64)> {
        let mut functions: BTreeMap<&str, f64> = BTreeMap::new();
        for (address, count) in counts {
            if matches!(Place::of(*address), Place::Xen | Place::DriverDomain)
                && let Some((_, name)) = self.0.range(..=address).next_back()
            {
                *functions.entry(name).or_default() += count / requests;
            }
        }
        let mut list: Vec<_> = functions.into_iter().map(|(name, each)| (name.to_owned(), each)).collect();
        list.sort_by(|one, other| other.1.total_cmp(&one.1));
        list.truncate(FUNCTIONS);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, phases};

    #[test]
    fn counts_belong_to_phases_and_functions() {
        let phases =
            phases("phase 1\n40000010 6\n40000020 4\nphase 2\na0000000004 2\nffff800000000000 9\n").unwrap();
        let code = Code([(0x4000_0000, "f".to_owned()), (0x4000_0020, "g".to_owned())].into());
        assert_eq!(code.functions(&phases[0], 2.0), [("f".to_owned(), 3.0), ("g".to_owned(), 2.0)]);
        assert_eq!((phases.len(), phases[1].len()), (2, 2));
        assert!(super::phases("40000000 1\n").is_err() && super::phases("phase 1\nnonsense\n").is_err());
    }
}
