//! Fails the build when a symbol that we define has another signature than hermit-abi declares.

/// The same function twice: as declared by hermit-abi, as defined here.
#[allow(dead_code)]
const CLOCK_GETTIME: [unsafe extern "C" fn(hermit_abi::clockid_t, *mut hermit_abi::timespec) -> i32; 2] =
    [hermit_abi::clock_gettime, super::time::sys_clock_gettime];
