//! Copies to and from memory that another domain may change meanwhile.

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("copy.S"), options(raw));

#[cfg(target_os = "none")]
unsafe extern "C" {
    fn copy_shared(destination: *mut u8, source: *const u8, length: usize);
    fn copy_view(destination: *mut u8, source: *const u8, length: usize) -> *mut u8;
    static copy_view_failed: u8;
    fn zero_shared(destination: *mut u8, length: usize);
}

/// Copies `out.len()` bytes from shared memory at `source`.
///
/// # Safety
/// `source` must be mapped for that many bytes. Its content may change at any time.
pub unsafe fn from_shared(source: *const u8, out: &mut [u8]) {
    // SAFETY: `out` is ours and as long as we say; the caller vouches for `source`; they cannot overlap, shared
    // memory is never behind a Rust reference.
    unsafe { copy_shared(out.as_mut_ptr(), source, out.len()) }
}

/// Copies `data` to shared memory at `destination`.
///
/// # Safety
/// `destination` must be mapped writable for that many bytes.
pub unsafe fn to_shared(destination: *mut u8, data: &[u8]) {
    // SAFETY: as in `from_shared`, the other way round.
    unsafe { copy_shared(destination, data.as_ptr(), data.len()) }
}

/// Copies between our memory and a view, in which a page may be missing for good. Returns whether all was copied.
///
/// # Safety
/// One of the two is ours for `length` bytes, the other lies in a view; and nothing is borrowed that the way of a fault
/// ([`crate::mm::view`]) would change unasked.
#[cfg(target_os = "none")]
#[must_use]
pub unsafe fn try_copy(destination: *mut u8, source: *const u8, length: usize) -> bool {
    // SAFETY: the caller's contract; a fault that cannot be mended makes it return null.
    !unsafe { copy_view(destination, source, length) }.is_null()
}

/// Where the copies of [`try_copy`] go on when they have failed, for one whose instruction at `address` has faulted; none
/// when that is another one's instruction.
#[cfg(target_os = "none")]
#[must_use]
pub fn way_out(address: u64) -> Option<u64> {
    let end = (&raw const copy_view_failed).addr() as u64;
    (copy_view as *const () as u64..end).contains(&address).then_some(end)
}

/// Writes `length` zero bytes to shared memory at `destination`.
///
/// # Safety
/// As [`to_shared`].
pub unsafe fn zero(destination: *mut u8, length: usize) {
    // SAFETY: the caller vouches for `destination`.
    unsafe { zero_shared(destination, length) }
}

/// On the host, tests share memory with nobody.
#[cfg(not(target_os = "none"))]
unsafe fn copy_shared(destination: *mut u8, source: *const u8, length: usize) {
    // SAFETY: the caller's contract, and no other thread.
    unsafe { core::ptr::copy_nonoverlapping(source, destination, length) }
}

#[cfg(not(target_os = "none"))]
unsafe fn zero_shared(destination: *mut u8, length: usize) {
    // SAFETY: the caller's contract.
    unsafe { core::ptr::write_bytes(destination, 0, length) }
}
