//! The hypercall instruction, and what can go wrong with it. (There is one more, which interrupts end, in
//! `arch/sleep.S`.)
//!
//! On the host there is no Xen: the same function then calls the fake that a test installed with `fake::install`.

use core::fmt;

use super::tally;

/// Up to five arguments.
pub type Arguments = [u64; 5];

/// Why Xen refused (`errno.h`), with the operation that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HypercallError {
    /// What was asked for, in words.
    pub operation: &'static str,
    /// Xen's answer.
    pub errno: Errno,
}

impl fmt::Display for HypercallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.errno)
    }
}

impl core::error::Error for HypercallError {}

/// A positive error number of Xen's (`errno.h`; the same as Linux's).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// Not permitted.
    pub const EPERM: Self = Self(1);
    /// No such entry; for a mapping: no memory left for our second-stage tables.
    pub const ENOENT: Self = Self(2);
    /// No such domain.
    pub const ESRCH: Self = Self(3);
    /// Out of memory.
    pub const ENOMEM: Self = Self(12);
    /// Refused by the security policy.
    pub const EACCES: Self = Self(13);
    /// Invalid argument; for a foreign mapping: the guest has no RAM there.
    pub const EINVAL: Self = Self(22);
    /// Not built into this hypervisor.
    pub const ENOSYS: Self = Self(38);
    /// Not supported by this hypervisor.
    pub const EOPNOTSUPP: Self = Self(95);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::EPERM => "EPERM (not permitted)",
            Self::ENOENT => "ENOENT (not found, or no memory left for second-stage tables)",
            Self::ESRCH => "ESRCH (no such domain)",
            Self::ENOMEM => "ENOMEM (out of memory)",
            Self::EACCES => "EACCES (refused by the security policy)",
            Self::EINVAL => "EINVAL (invalid argument)",
            Self::ENOSYS => "ENOSYS (not built into this Xen)",
            Self::EOPNOTSUPP => "EOPNOTSUPP (not supported by this Xen)",
            Self(number) => return write!(f, "error {number}"),
        };
        f.write_str(name)
    }
}

/// Calls Xen; a negative result becomes an error that names `operation`.
///
/// # Errors
/// Whatever Xen answers.
///
/// # Safety
/// Every pointer among the arguments must point to memory of the kind and length that the hypercall reads or
/// writes, in RAM of our own (Xen refuses foreign and granted pages), valid until the call returns.
pub unsafe fn call(
    number: u64,
    arguments: Arguments,
    operation: &'static str,
) -> Result<u64, HypercallError> {
    tally::count_call(number);
    // SAFETY: the caller vouches for the pointers.
    answer(unsafe { raw(number, arguments) }, operation)
}

/// [`call`] with two arguments, which an interrupt of a device ends, or prevents if it is there already: then nothing
/// tells whether the call was made.
///
/// # Errors
/// Whatever Xen answers.
///
/// # Safety
/// As [`call`].
pub unsafe fn call_until_interrupt(
    number: u64,
    [first, second]: [u64; 2],
    operation: &'static str,
) -> Result<u64, HypercallError> {
    tally::count_call(number);
    // SAFETY: the caller vouches for the pointers.
    #[cfg(target_os = "none")]
    let result = unsafe { crate::arch::sleep::hypercall_unmasked(number, first, second) };
    // SAFETY: the caller vouches for the pointers. On the host there are no interrupts.
    #[cfg(not(target_os = "none"))]
    let result = unsafe { raw(number, [first, second, 0, 0, 0]) };
    answer(result, operation)
}

fn answer(result: i64, operation: &'static str) -> Result<u64, HypercallError> {
    if let Ok(value) = u64::try_from(result) {
        Ok(value)
    } else {
        let errno = i32::try_from(result.unsigned_abs()).unwrap_or(i32::MAX);
        Err(HypercallError { operation, errno: Errno(errno) })
    }
}

/// # Safety
/// As [`call`].
#[cfg(target_os = "none")]
unsafe fn raw(number: u64, arguments: Arguments) -> i64 {
    let [a0, a1, a2, a3, a4] = arguments;
    let result: i64;
    // SAFETY: the immediate and the registers are Xen's ABI (arch-arm.h); a preempted hypercall is run again with
    // rewritten registers, so all of them count as clobbered. The caller vouches for pointers.
    unsafe {
        core::arch::asm!(
            "hvc #0xEA1",
            inlateout("x0") a0 => result,
            inlateout("x1") a1 => _,
            inlateout("x2") a2 => _,
            inlateout("x3") a3 => _,
            inlateout("x4") a4 => _,
            inlateout("x16") number => _,
            options(nostack),
        );
    }
    result
}

/// # Safety
/// As [`call`].
#[cfg(not(target_os = "none"))]
unsafe fn raw(number: u64, arguments: Arguments) -> i64 {
    #[cfg(test)]
    return fake::call(number, arguments);
    #[cfg(not(test))]
    {
        let _ = (number, arguments);
        -i64::from(Errno::ENOSYS.0)
    }
}

/// The place of Xen in hosted tests: a function of this thread.
#[cfg(test)]
pub mod fake {
    extern crate std;
    use super::{Arguments, Errno};
    use alloc::boxed::Box;
    use core::cell::RefCell;

    type Fake = Box<dyn FnMut(u64, Arguments) -> i64>;

    std::thread_local! {
        static FAKE: RefCell<Option<Fake>> = const { RefCell::new(None) };
    }

    /// Answers this thread's hypercalls by `fake` from now on.
    pub fn install(fake: impl FnMut(u64, Arguments) -> i64 + 'static) {
        FAKE.with(|slot| *slot.borrow_mut() = Some(Box::new(fake)));
    }

    pub(super) fn call(number: u64, arguments: Arguments) -> i64 {
        FAKE.with(|slot| {
            slot.borrow_mut().as_mut().map_or(-i64::from(Errno::ENOSYS.0), |fake| fake(number, arguments))
        })
    }
}
