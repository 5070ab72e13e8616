//! The fuzzer's targets: whatever a guest, a server, a client or the toolstack may send, as a function of any bytes.
//!
//! A target panics when what must hold does not. `cargo xtask fuzz` runs them by libFuzzer, `cargo xtask test` with the bytes that
//! it found worth keeping (`corpus`).
//!
//! | file | is |
//! |---|---|
//! | `input` | bytes to numbers that mean something, and to steps |
//! | `memory`, `guest` | a hostile guest: memory that changes and is watched, registers and rings written by hand |
//! | `packet` | frames |
//! | `nbd_server`, `endpoint_bed` | what `nbd`, and what `endpoint` and `http`, need around them |
//! | `clock` | the time, as a target sets it |
//! | the others | the targets; each begins with what must hold |

#![allow(clippy::cast_possible_truncation, reason = "what comes of fuzzed numbers is cut on purpose")]
#![allow(clippy::missing_panics_doc, reason = "a panic is what a target has to tell")]

mod blk;
mod bridge;
mod clock;
pub mod corpus;
mod device_tree;
mod endpoint;
mod endpoint_bed;
mod gpt;
mod guest;
mod http;
mod input;
mod memory;
mod nbd;
mod nbd_server;
mod net;
mod offload;
mod packet;
mod queue_chain;
mod text;
mod xenstore;

pub use blk::blk;
pub use bridge::bridge;
pub use device_tree::device_tree;
pub use endpoint::endpoint;
pub use gpt::gpt;
pub use http::http;
pub use nbd::nbd;
pub use net::{net_control, net_receive, net_transmit};
pub use offload::offload;
pub use queue_chain::queue_chain;
pub use text::text;
pub use xenstore::xenstore;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("blk", blk),
    ("net_transmit", net_transmit),
    ("net_receive", net_receive),
    ("net_control", net_control),
    ("queue_chain", queue_chain),
    ("bridge", bridge),
    ("nbd", nbd),
    ("offload", offload),
    ("http", http),
    ("endpoint", endpoint),
    ("xenstore", xenstore),
    ("gpt", gpt),
    ("device_tree", device_tree),
    ("text", text),
];
