//! What we ask of Xen: one file for each family of hypercalls, and the protocols on shared pages.
//!
//! | file | what |
//! |---|---|
//! | `hypercall` | the one `hvc` instruction |
//! | `abi` | numbers and structures |
//! | `memory`, `event`, `dm`, `hvm`, `sched` | hypercall families |
//! | `grant` | our pages granted, and granted pages mapped |
//! | `ioreq` | a server for one guest's trapped accesses |
//! | `version` | our UUID |
//! | `tally` | how often we asked for what |
//! | `console_ring`, `store` | console and xenstore |

pub mod abi;
pub mod console_ring;
pub mod dm;
pub mod event;
#[cfg(test)]
pub(crate) mod fake;
pub mod grant;
pub mod hvm;
pub mod hypercall;
pub mod ioreq;
pub mod memory;
pub mod sched;
pub mod store;
pub mod tally;
pub mod version;

/// A domain's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

impl core::fmt::Display for DomainId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "dom{}", self.0)
    }
}
