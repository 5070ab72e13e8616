//! Power cuts.

#![expect(dead_code)]

mod log;
mod replay;
