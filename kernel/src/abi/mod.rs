//! The hermit-abi calls that drivers make, and no others.
//!
//! | symbol | behaviour here |
//! |---|---|
//! | `sys_clock_gettime` | `CLOCK_MONOTONIC` from the generic timer; anything else is `-EINVAL` |

pub mod check;
pub mod time;
