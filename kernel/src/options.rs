//! Our command line, given by `extra=` in the domain's configuration.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `window=SIZE` | address space in which guests' pages are mapped, 2M to 256M | four times our RAM |
//! | `physmap=SOURCE` | what that address space is made of: `unpopulated` regions, or `balloon`: our own RAM | `unpopulated` |
//! | `ip=ADDRESS` | our own address: `dhcp`, or as `10.0.0.5/24` or `10.0.0.5/24,gateway=10.0.0.1` | `off` |
//! | `mac-seed=TEXT` | what derived addresses of NICs depend on | our domain's UUID |
//! | `mac=ADDRESS@VOLUME` | the address of the NIC of the guest whose first volume that is; `@VOLUME#1`: of its second NIC | |
//! | `pin-macs=WHOSE` | guests' NICs that may send from their own address alone: `all`, or their addresses with commas | none |
//! | `isolate=WHOSE` | guests' NICs that reach the uplink and us, but no isolated NIC: as above | none |
//! | `log=LEVEL` | `error`, `warn`, `info`, `debug` or `trace` | `info` |
//! | `sysrq=crash` | for tests: `xl sysrq DOMAIN c` crashes this kernel, and `h` lets it hang | neither does |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use drivers::net::MacAddress;
use drivers::volume::spec::parse_size;
use log::LevelFilter;

use crate::endpoint::addressing::{self, Addressing};
use crate::guest::identity::GivenAddress;
use crate::limits::{WINDOW_MAX_BYTES, WINDOW_PER_RAM};
use crate::mm::physmap::REGION_ALIGNMENT;

/// All of them, in the order of the table above.
const KNOWN: &str = "window=, physmap=, ip=, mac-seed=, mac=, pin-macs=, isolate=, log= and sysrq=";

/// Where the window's slots come from first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Address space that Xen names as unpopulated, and RAM when that runs out.
    Unpopulated,
    /// RAM.
    Balloon,
}

/// Some of the guests' NICs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nics {
    /// All of them.
    All,
    /// Those with these addresses.
    Of(Vec<MacAddress>),
}

impl Nics {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::All),
            _ => text.split(',').map(MacAddress::parse).collect::<Option<_>>().map(Self::Of),
        }
    }

    /// Whether the one with `address` is among them.
    #[must_use]
    pub fn has(&self, address: MacAddress) -> bool {
        match self {
            Self::All => true,
            Self::Of(addresses) => addresses.contains(&address),
        }
    }
}

/// What the command line says of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Where our own address comes from, if we have one.
    pub ip: Option<Addressing>,
    /// What derived addresses depend on; our UUID if it is not given.
    pub seed: Option<String>,
    /// Addresses of NICs.
    pub given: Vec<GivenAddress>,
    /// NICs that may send from their own address alone.
    pub pinned: Nics,
    /// NICs that exchange nothing with each other.
    pub isolated: Nics,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            ip: None,
            seed: None,
            given: Vec::new(),
            pinned: Nics::Of(Vec::new()),
            isolated: Nics::Of(Vec::new()),
        }
    }
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of the window, a multiple of 2 MiB, if they were given.
    pub window_bytes: Option<usize>,
    /// What it is made of.
    pub source: Source,
    /// The network.
    pub network: NetworkOptions,
    /// Lines less important than this are not shown.
    pub log: LevelFilter,
    /// Whether `xl sysrq` may crash this kernel or let it hang, to see it begin again.
    pub may_crash: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window_bytes: None,
            source: Source::Unpopulated,
            network: NetworkOptions::default(),
            log: LevelFilter::Info,
            may_crash: false,
        }
    }
}

impl Options {
    /// Reads a command line. What is not understood is left at its default; one sentence about each such word comes
    /// back.
    #[must_use]
    pub fn parse(command_line: &str) -> (Self, Vec<String>) {
        let mut options = Self::default();
        let complaints =
            command_line.split_ascii_whitespace().filter_map(|word| options.apply(word).err()).collect();
        (options, complaints)
    }

    /// Bytes of the window in a domain with so much RAM.
    ///
    /// Four times the RAM by default: what the pager knows of that many pages is a 36th of the RAM. Xen has enough memory for
    /// our tables by far (a page for 2 MiB, of 384 and one for each MiB of RAM: libxl's `libxl__get_required_paging_memory`),
    /// unless `shadow_memory=` says less; then the pager makes do with what there is.
    #[must_use]
    pub fn window(&self, ram_bytes: usize) -> usize {
        match (self.window_bytes, self.source) {
            (Some(bytes), _) => bytes,
            // There cannot be more slots than frames.
            (None, Source::Balloon) => ram_bytes.next_multiple_of(REGION_ALIGNMENT).min(WINDOW_MAX_BYTES),
            (None, Source::Unpopulated) => {
                (ram_bytes * WINDOW_PER_RAM).next_multiple_of(REGION_ALIGNMENT).min(WINDOW_MAX_BYTES)
            }
        }
    }

    fn apply(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "window" => {
                let expected = "expected a size from 2M to 256M, such as window=16M";
                let bytes = window_of(value).ok_or_else(|| format!("option '{word}': {expected}"))?;
                self.window_bytes = Some(bytes);
            }
            "physmap" => {
                self.source = match value {
                    "unpopulated" => Source::Unpopulated,
                    "balloon" => Source::Balloon,
                    _ => return Err(format!("option '{word}': expected unpopulated or balloon")),
                };
            }
            "ip" => self.network.ip = addressing::parse(value)?,
            "mac-seed" => self.network.seed = Some(String::from(value)),
            "mac" => {
                let expected = "expected an address and a volume, such as mac=00:16:3e:01:02:03@blk0";
                let given = GivenAddress::parse(value);
                self.network.given.push(given.ok_or_else(|| format!("option '{word}': {expected}"))?);
            }
            "pin-macs" => self.network.pinned = nics_of(word, value)?,
            "isolate" => self.network.isolated = nics_of(word, value)?,
            "sysrq" => {
                if value != "crash" {
                    return Err(format!("option '{word}': expected sysrq=crash"));
                }
                self.may_crash = true;
            }
            "log" => {
                self.log = value.parse().map_err(|_| {
                    format!("option '{word}': expected one of off, error, warn, info, debug, trace")
                })?;
            }
            _ => return Err(format!("option '{word}' is not known; known are {KNOWN}")),
        }
        Ok(())
    }
}

fn nics_of(word: &str, value: &str) -> Result<Nics, String> {
    let expected =
        "expected all, or addresses of guests' NICs such as 00:16:3e:01:02:03 with commas between them";
    Nics::parse(value).ok_or_else(|| format!("option '{word}': {expected}"))
}

/// The size of the window that a command line asks for. Takes no memory from the heap.
#[must_use]
pub fn window_asked(command_line: &str) -> Option<usize> {
    let mut sizes = command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("window="));
    sizes.next_back().and_then(window_of)
}

fn window_of(size: &str) -> Option<usize> {
    let bytes = parse_size(size)?;
    let is_fine = (REGION_ALIGNMENT as u64..=WINDOW_MAX_BYTES as u64).contains(&bytes);
    is_fine.then(|| (bytes as usize).next_multiple_of(REGION_ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_line_means_defaults() {
        assert_eq!(Options::parse("  "), (Options::default(), Vec::new()));
    }

    #[test]
    fn known_options_are_taken() {
        let (options, complaints) = Options::parse("window=3M physmap=balloon log=debug");
        let expected = Options {
            window_bytes: Some(4 << 20),
            source: Source::Balloon,
            log: LevelFilter::Debug,
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert!(complaints.is_empty());
    }

    #[test]
    fn the_network_s_options_are_taken() {
        let line = "mac-seed=x mac=00:16:3e:00:00:01@blk0 mac=00:16:3e:00:00:02@blk0#1 pin-macs=all \
                    isolate=00:16:3e:00:00:01,00:16:3e:00:00:02";
        let (options, complaints) = Options::parse(line);
        assert_eq!(complaints, Vec::<String>::new());
        let network = options.network;
        assert_eq!((network.seed.as_deref(), network.given.len()), (Some("x"), 2));
        let (one, three) = (MacAddress([0, 0x16, 0x3e, 0, 0, 1]), MacAddress([0, 0x16, 0x3e, 0, 0, 3]));
        assert!(network.pinned.has(one) && network.pinned.has(three));
        assert!(network.isolated.has(one) && !network.isolated.has(three));
    }

    #[test]
    fn the_window_goes_with_the_ram() {
        let window = |line, ram| Options::parse(line).0.window(ram) >> 20;
        assert_eq!((window("", 8 << 20), window("", 3 << 20), window("", 1 << 30)), (32, 12, 256));
        assert_eq!((window("physmap=balloon", 8 << 20), window("window=2M", 8 << 20)), (8, 2));
    }

    #[test]
    fn the_window_asked_for_is_that_of_the_last_word() {
        assert_eq!(window_asked("log=info window=4M window=3M"), Some(4 << 20));
        assert_eq!((window_asked("window=1"), window_asked("")), (None, None));
    }

    #[test]
    fn each_bad_word_gets_a_sentence_and_changes_nothing() {
        let (options, complaints) = Options::parse(
            "window=1 log=loud speed=11 physmap=big window=99999999999999G mac=x pin-macs= isolate=a,b ip=1",
        );
        assert_eq!(options, Options::default());
        assert_eq!(complaints.len(), 9);
        assert!(complaints.iter().any(|sentence| sentence.contains("'speed=11'")));
    }
}
