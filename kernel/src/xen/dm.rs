//! Device model operations on another domain: ioreq servers and interrupt lines.

use super::DomainId;
use super::abi::{DmOp, DmOpBuffer, dm, number};
use super::hypercall::{HypercallError, call};

fn operate(domain: DomainId, op: &mut DmOp, operation: &'static str) -> Result<(), HypercallError> {
    let op: *mut DmOp = op;
    op.expose_provenance();
    let buffer = DmOpBuffer { address: op.cast(), size: size_of::<DmOp>() as u64 };
    let address = (&raw const buffer).expose_provenance() as u64;
    // SAFETY: HYPERVISOR_dm_op reads one xen_dm_op_buf, and reads and writes the xen_dm_op that it names; both
    // live until the call returns (hvm/dm_op.h).
    unsafe { call(number::DM_OP, [u64::from(domain.0), 1, address, 0, 0], operation) }.map(drop)
}

/// Identifies an ioreq server of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerId(pub u16);

/// Creates an ioreq server for `domain`, without buffered requests (Arm has none).
///
/// # Errors
/// ENOSYS when Xen has no ioreq servers; EPERM or EACCES when the policy refuses.
pub fn create_ioreq_server(domain: DomainId) -> Result<ServerId, HypercallError> {
    let mut op = DmOp { op: dm::CREATE_IOREQ_SERVER, ..DmOp::default() };
    operate(domain, &mut op, "create ioreq server")?;
    // xen_dm_op_create_ioreq_server: u8 handle_bufioreq, u8 pad[3], u16 id.
    Ok(ServerId((op.payload[0] >> 32) as u16))
}

/// Enables or disables a server; enabling publishes the event channel of each vCPU in the ioreq page.
///
/// # Errors
/// ENOENT when the server or the domain is gone.
pub fn enable_ioreq_server(domain: DomainId, server: ServerId, enabled: bool) -> Result<(), HypercallError> {
    // xen_dm_op_set_ioreq_server_state: u16 id, u8 enabled, u8 pad.
    let word = u64::from(server.0) | u64::from(enabled) << 16;
    let mut op = DmOp { op: dm::SET_IOREQ_SERVER_STATE, ..DmOp::default() };
    op.payload[0] = word;
    operate(domain, &mut op, "enable ioreq server")
}

/// Destroys a server.
///
/// # Errors
/// ENOENT when the server or the domain is gone.
pub fn destroy_ioreq_server(domain: DomainId, server: ServerId) -> Result<(), HypercallError> {
    let mut op = DmOp { op: dm::DESTROY_IOREQ_SERVER, ..DmOp::default() };
    op.payload[0] = u64::from(server.0);
    operate(domain, &mut op, "destroy ioreq server")
}

/// What to do with a range of guest addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeChange {
    /// Accesses come to the server from now on.
    Claim,
    /// Accesses no longer come.
    Release,
}

/// Claims or releases the guest addresses `first..=last` for a server.
///
/// # Errors
/// EEXIST when the server has a part of it already; ENOENT when the server or the domain is gone.
pub fn change_range(
    domain: DomainId,
    server: ServerId,
    change: RangeChange,
    first: u64,
    last: u64,
) -> Result<(), HypercallError> {
    let (number, operation) = match change {
        RangeChange::Claim => (dm::MAP_IO_RANGE, "claim guest addresses"),
        RangeChange::Release => (dm::UNMAP_IO_RANGE, "release guest addresses"),
    };
    // xen_dm_op_ioreq_server_range: u16 id, u16 pad, u32 type, u64 start, u64 end (inclusive).
    let mut op = DmOp { op: number, ..DmOp::default() };
    op.payload[..3].copy_from_slice(&[u64::from(server.0) | u64::from(dm::RANGE_MEMORY) << 32, first, last]);
    operate(domain, &mut op, operation)
}

/// Raises one edge on interrupt `irq` (a GIC INTID, 32 or higher) of `domain`.
///
/// # Errors
/// EINVAL when the domain has no such interrupt.
pub fn raise_irq(domain: DomainId, irq: u32) -> Result<(), HypercallError> {
    // xen_dm_op_set_irq_level: u32 irq, u8 level, u8 pad[3].
    let mut op = DmOp { op: dm::SET_IRQ_LEVEL, ..DmOp::default() };
    op.payload[0] = u64::from(irq) | 1 << 32;
    operate(domain, &mut op, "raise guest interrupt")
}

/// Number of vCPUs that `domain` may ever have.
///
/// # Errors
/// ESRCH when the domain is gone.
pub fn vcpus(domain: DomainId) -> Result<u32, HypercallError> {
    let mut op = DmOp { op: dm::NR_VCPUS, ..DmOp::default() };
    operate(domain, &mut op, "count vCPUs")?;
    Ok(op.payload[0] as u32)
}
