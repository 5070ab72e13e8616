//! Parameters that the tool stack left for this domain.

use super::abi::{DOMID_SELF, HvmParameter, hvm, number};
use super::hypercall::{HypercallError, call};

/// Reads parameter `index` (one of [`hvm`]'s `PARAM_…`) of this domain.
///
/// # Errors
/// Xen's answer; a domU may read exactly the four parameters listed in [`hvm`] and the callback interrupt.
pub fn parameter(index: u32) -> Result<u64, HypercallError> {
    let mut parameter = HvmParameter { domid: DOMID_SELF, index, ..HvmParameter::default() };
    let argument = &raw mut parameter;
    // SAFETY: HVMOP_get_param reads and writes one xen_hvm_param (hvm/hvm_op.h).
    unsafe {
        call(
            number::HVM_OP,
            [hvm::GET_PARAM, argument.expose_provenance() as u64, 0, 0, 0],
            "read HVM parameter",
        )?
    };
    Ok(parameter.value)
}
