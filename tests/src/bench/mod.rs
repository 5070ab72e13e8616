//! What the benchmarks have in common: their run in the lab, the records that come back, and the report made of them.

mod code;
mod counted;
mod disk;
mod distance;
mod footprint;
mod ioreq;
mod linux_backend;
mod mapping;
mod net;
mod plot;
mod profile;
mod records;
mod report;
mod run;
mod scale;
mod start;
mod table;
mod tools;

use std::path::PathBuf;

use anyhow::Result;

use crate::bed::Lab;
pub use disk::Disk;
pub use footprint::Footprint;
pub use ioreq::Ioreq;
pub use mapping::Mapping;
pub use net::Net;
pub use profile::Profile;
pub use records::Records;
pub use report::Report;
pub use run::{Options, run};
pub use scale::Scale;
pub use start::Start;
pub use table::{Table, number, text};

/// A benchmark: one boot of the lab, what it writes down, and what is told of that.
pub trait Benchmark {
    /// Names the script `tests/bench/NAME.sh` and the folder of its runs, `target/bed/bench-NAME`.
    fn name(&self) -> &'static str;

    /// Makes what the machine needs beside what all need.
    ///
    /// # Errors
    /// It cannot be made.
    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// The machine, made of the usual one: the release Xen, time counted in instructions.
    fn lab(&self, usual: Lab) -> Lab {
        usual
    }

    /// Variables that the script sees.
    fn environment(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Packages of which the programs are images in `/bed`.
    fn domains(&self) -> &'static [&'static str] {
        &[]
    }

    /// More files for `/bed`, made when all parts of the bed are there.
    fn bed_files(&self) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    /// What the records say. A column called `ours/X` is a ratio to a peer of ours: `bench all` gathers these.
    fn report(&self, records: &Records) -> Result<Report>;
}

/// The remark on guests that most benchmarks have.
const GUEST: &str = "guest    Debian's cloud kernel, 1 vCPU, 256 MiB, idle for 1 s before; one request is the median of rounds";
