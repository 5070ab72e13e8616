//! A hostile guest: it does all that a guest can do to its virtio devices, at random, by a seed.
//!
//! It stands on the driver domain's own kernel, and boots as the driver domain does. Its command line ([`options`]) gives the seed and
//! says what it does. A life is a row of rounds; each is an attack on one of its devices, and what it does in it depends on the seed
//! and on the number of the round alone, but for what depends on time. From time to time it is honest: it resets a device, and
//! expects it to work as if nothing had been. Its console says how many of each attack there were. `xen/hostile.sh` is the judge.
//!
//! | file | what |
//! |---|---|
//! | `bare` | the entry, and what happens once |
//! | `options` | the command line |
//! | `random` | numbers by a seed |
//! | `life` | the rounds, and how they end |
//! | `attacks` | all attacks, by name |
//! | `device` | a device of ours: queues, memory, how it is started |
//! | `anywhere` | addresses and lengths that a device must not trust |
//! | `honest` | requests that must be served |
//! | `chains` | descriptors, indices and rings that lie |
//! | `rewrites` | descriptors rewritten while they are in flight |
//! | `floods` | kicks, resets, and as many requests as there is room for |
//! | `frames` | frames with lying headers, from thousands of addresses; commands that are none |
//! | `probes` | every register at every width and offset |
//! | `access` | one access, which may fault |
//! | `ballooning` | pages given back to Xen while the device uses them |
//! | `store` | our nodes in xenstore, rewritten |
//! | `second` | the second vCPU, which does as it is told meanwhile |
#![cfg_attr(target_os = "none", no_std, no_main)]
// usize is 64 bits wherever this runs.
#![allow(clippy::cast_possible_truncation)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod access;
#[cfg(target_os = "none")]
mod anywhere;
#[cfg(target_os = "none")]
mod attacks;
#[cfg(target_os = "none")]
mod ballooning;
#[cfg(target_os = "none")]
mod bare;
#[cfg(target_os = "none")]
mod chains;
#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod floods;
#[cfg(target_os = "none")]
mod frames;
#[cfg(target_os = "none")]
mod honest;
#[cfg(target_os = "none")]
mod life;
#[cfg(target_os = "none")]
mod options;
#[cfg(target_os = "none")]
mod probes;
#[cfg(target_os = "none")]
mod random;
#[cfg(target_os = "none")]
mod rewrites;
#[cfg(target_os = "none")]
mod second;
#[cfg(target_os = "none")]
mod store;

/// It only runs as a domain; on the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {}
