//! A domain that measures ways of reaching another domain's memory, one row of a table after the other.
//!
//! It stands on the driver domain's own kernel, and boots as it does. The other domain is `guests/mapping_target.S`; it is named by
//! `target=` on the command line. What was measured goes to the console, as lines that `cargo xtask bench mapping` reads.
//!
//! | file | what |
//! |---|---|
//! | `bare` | the entry, and what happens once |
//! | `clock` | time |
//! | `target` | the other domain: how to meet it, what its pages hold |
//! | `foreign` | the other domain's pages mapped by hand |
//! | `workload` | which pages are read, in which order |
//! | `rows` | the rows of the table |
//! | `measure` | how a row is measured and told |
//! | `hits` | what it costs to pin a page that is mapped already |
//! | `ways` | the ways of reaching a page |
#![cfg_attr(target_os = "none", no_std, no_main)]
// usize is 64 bits wherever this runs.
#![allow(clippy::cast_possible_truncation)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod bare;
#[cfg(target_os = "none")]
mod clock;
#[cfg(target_os = "none")]
mod foreign;
#[cfg(target_os = "none")]
mod hits;
#[cfg(target_os = "none")]
mod measure;
#[cfg(target_os = "none")]
mod rows;
#[cfg(target_os = "none")]
mod target;
#[cfg(target_os = "none")]
mod ways;
#[cfg(target_os = "none")]
mod workload;

/// It only runs as a domain; on the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {}
