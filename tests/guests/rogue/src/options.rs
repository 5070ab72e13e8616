//! The command line, given by `extra=`.
//!
//! | word | means |
//! |---|---|
//! | `lies=memory` | about addresses; the disk has `grant_usage=0` |
//! | `lies=grants` | about grants; the disk has `grant_usage=1` |
//! | `backend=NUMBER` | the driver domain |

use kernel::xen::DomainId;

/// What the lies are about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// Addresses.
    Memory,
    /// Grants.
    Grants,
}

/// What the command line says.
pub struct Options {
    /// What to lie about.
    pub lies: Lies,
    /// The driver domain.
    pub backend: DomainId,
}

impl Options {
    /// Reads the command line.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let value = |name| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
        let lies = match value("lies=") {
            Some("memory") => Lies::Memory,
            Some("grants") => Lies::Grants,
            _ => return Err("the command line has neither lies=memory nor lies=grants"),
        };
        let backend = value("backend=").and_then(|number| number.parse().ok());
        let backend = backend.ok_or("the command line has no backend=NUMBER")?;
        Ok(Self { lies, backend: DomainId(backend) })
    }
}
