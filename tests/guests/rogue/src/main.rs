//! A hostile guest: it drives a virtio disk by hand, and lies.
//!
//! It stands on the driver domain's own kernel, and boots as the driver domain does. Its command line says which lies it tells
//! ([`options`]). Each is a line on its console: what the device answered, and whether the next honest request went right.
//! `xen/rogue_guest.sh` knows what these lines must be.
//!
//! Pages, rings, registers and grants come from `by_hand`.
//!
//! | file | what |
//! |---|---|
//! | `bare` | the entry, and what happens once |
//! | `options` | the command line |
//! | `disk` | the device brought up, and requests made to it |
//! | `answer` | what came back |
//! | `memory` | our memory as the device sees it: by frame numbers, or by grants |
//! | `honest` | requests that must be served |
//! | `session` | a case: a lie, what came back, and an honest request |
//! | `bad_memory` | lies about addresses, where the device reaches all our memory |
//! | `bad_grants` | lies about grants |
//! | `bad_rings` | lies about the queue itself |
//! | `row` | a thousand lies in a row, each beside an honest request |
#![cfg_attr(target_os = "none", no_std, no_main)]
// usize is 64 bits wherever this runs.
#![allow(clippy::cast_possible_truncation)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod answer;
#[cfg(target_os = "none")]
mod bad_grants;
#[cfg(target_os = "none")]
mod bad_memory;
#[cfg(target_os = "none")]
mod bad_rings;
#[cfg(target_os = "none")]
mod bare;
#[cfg(target_os = "none")]
mod disk;
#[cfg(target_os = "none")]
mod honest;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod options;
#[cfg(target_os = "none")]
mod row;
#[cfg(target_os = "none")]
mod session;

/// It only runs as a domain; on the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {}
