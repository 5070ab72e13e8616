//! What Xen says of this domain.

use super::abi::{number, version};
use super::hypercall::{HypercallError, call};

/// This domain's UUID, which the tool stack gave it.
///
/// # Errors
/// Xen's answer.
pub fn domain_uuid() -> Result<[u8; 16], HypercallError> {
    let mut uuid = [0; 16];
    let address = (&raw mut uuid).expose_provenance() as u64;
    // SAFETY: XENVER_guest_handle writes one xen_domain_handle_t, 16 bytes (version.h).
    unsafe {
        call(number::XEN_VERSION, [version::GUEST_HANDLE, address, 0, 0, 0], "read this domain's UUID")?
    };
    Ok(uuid)
}
