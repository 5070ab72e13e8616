//! The command line, given by `extra=`.
//!
//! | word | means |
//! |---|---|
//! | `seed=NUMBER` | by what it chooses |
//! | `backend=NUMBER` | the driver domain |
//! | `do=NAME,NAME` | the attacks to choose from, `spin` to use its processors and nothing else; else all |
//! | `life=MILLISECONDS` | how long it lives at most; else until it is destroyed |
//! | `end=stay` | when that time is over it goes on; else it ends before, at any moment, in any way |

use alloc::vec::Vec;

use kernel::xen::DomainId;

use crate::attacks::{ALL, Attack};

/// What the command line says.
pub struct Options {
    pub seed: u64,
    pub backend: DomainId,
    /// None to spin.
    pub attacks: Vec<&'static Attack>,
    pub life_ns: Option<u64>,
    pub stays: bool,
}

impl Options {
    /// Reads the command line.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let value = |name| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
        let number = |name| value(name).and_then(|number: &str| number.parse::<u64>().ok());
        let backend = number("backend=").and_then(|number| number.try_into().ok());
        let attacks = match value("do=") {
            None | Some("all") => ALL.iter().collect(),
            Some("spin") => Vec::new(),
            Some(names) => names
                .split(',')
                .map(|name| ALL.iter().find(|attack| attack.name == name))
                .collect::<Option<_>>()
                .ok_or("do= names an attack that is not known")?,
        };
        Ok(Self {
            seed: number("seed=").ok_or("the command line has no seed=NUMBER")?,
            backend: DomainId(backend.ok_or("the command line has no backend=NUMBER")?),
            attacks,
            life_ns: number("life=").map(|ms| ms * 1_000_000),
            stays: value("end=") == Some("stay"),
        })
    }
}
