//! Virtio transports that were passed through to us: what answers at their registers (virtio 1.2, 4.2.2).

use alloc::vec::Vec;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use virtio_drivers::transport::mmio::{MmioError, MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::arch::gic::Interrupt;
use crate::arch::probe::read_register;
use crate::device_tree::PassthroughDevice;
use crate::limits::PASSTHROUGH_MAX;

/// Looks at a device's status until it is given up.
const SILENCE_PATIENCE: u32 = 1_000_000;

/// Bytes of registers before the configuration space (virtio 1.2, 4.2.2).
const HEADER_BYTES: u64 = 0x100;
/// Offset of the status register; 0 resets the device.
const STATUS: usize = 0x70;

/// Addresses of the registers of devices, for [`reset_all`]; 0 for none. A restart of the kernel leaves it alone.
#[unsafe(link_section = ".kept.devices")]
static FOUND: [AtomicUsize; PASSTHROUGH_MAX] = [const { AtomicUsize::new(0) }; PASSTHROUGH_MAX];

/// Offset of the register with the device's kind; 0 is a placeholder.
const DEVICE_ID: u64 = 8;

/// A virtio device of the machine, not yet used.
pub struct PhysicalDevice {
    /// Its registers. Resets the device when dropped.
    pub transport: MmioTransport<'static>,
    /// Its interrupt.
    pub interrupt: Interrupt,
}

/// Why a node of the device tree is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum ProbeError {
    /// Nothing is plugged in there; virtio 1.2, 4.2.2.1 wants this ignored.
    #[error("no device is behind it")]
    Empty,
    #[error("nothing answers there: is the page in iomem=?")]
    NoAnswer,
    #[error("{0} bytes, at an address with the low bits {1:#x}, are no transport's registers")]
    Registers(u64, u64),
    #[error(transparent)]
    Transport(#[from] MmioError),
}

/// Stops devices that an earlier life of this kernel may have left at work: resets them, and waits until they say that they
/// are (virtio 1.2, 4.2.3.1.1 and 2.4.1). What is no device is left alone.
///
/// # Safety
/// As [`find`], which may be called afterwards.
pub unsafe fn silence(nodes: &[PassthroughDevice]) {
    for node in nodes {
        // SAFETY: the caller's contract.
        if let Ok(mut transport) = unsafe { probe(node) } {
            transport.set_status(DeviceStatus::empty());
            let is_silent = (0..SILENCE_PATIENCE).any(|_| transport.get_status().is_empty());
            if !is_silent {
                log::error!("virtio at {:#x}: it does not stop", node.registers.start);
            }
        }
    }
}

/// Resets every device that [`find`] found, whoever drives it: when this domain ends its memory becomes others', and what they were
/// told to write they would write there.
pub fn reset_all() {
    for place in &FOUND {
        let address = place.load(Ordering::Relaxed);
        if address != 0 {
            let status: *mut u32 = ptr::with_exposed_provenance_mut(address + STATUS);
            // SAFETY: `find` saw a transport there, whose registers are mapped for good. The kernel is at its end: nobody else
            // uses the device any more.
            unsafe { status.write_volatile(0) };
        }
    }
}

/// Looks at each node of the device tree, with a line in the log for each.
///
/// # Safety
/// The registers must be mapped as device memory for good, and nothing else may use them; so this is called once.
#[must_use]
pub unsafe fn find(nodes: &[PassthroughDevice]) -> Vec<PhysicalDevice> {
    let mut found = Vec::new();
    for node in nodes {
        let (at, interrupt) = (node.registers.start, node.interrupt);
        // SAFETY: the caller's contract.
        match unsafe { probe(node) } {
            Ok(transport) => {
                log::info!(
                    "virtio at {at:#x}: {:?}, version {}, interrupt {interrupt}",
                    transport.device_type(),
                    u32::from(transport.version())
                );
                let free =
                    FOUND.iter().find(|place| [0, at as usize].contains(&place.load(Ordering::Relaxed)));
                free.inspect(|place| place.store(at as usize, Ordering::Relaxed));
                found.push(PhysicalDevice { transport, interrupt: Interrupt(interrupt) });
            }
            Err(ProbeError::Empty) => log::debug!("virtio at {at:#x}: {}", ProbeError::Empty),
            Err(error) => log::error!("virtio at {at:#x}: {error}"),
        }
    }
    found
}

/// # Safety
/// As [`find`].
unsafe fn probe(node: &PassthroughDevice) -> Result<MmioTransport<'static>, ProbeError> {
    let bytes = node.registers.end.saturating_sub(node.registers.start);
    let low_bits = node.registers.start % size_of::<u64>() as u64;
    if bytes < HEADER_BYTES || low_bits != 0 {
        return Err(ProbeError::Registers(bytes, low_bits));
    }
    // SAFETY: the caller's contract; reading the kind of a device changes nothing.
    let kind = unsafe { read_register(node.registers.start + DEVICE_ID) }.ok_or(ProbeError::NoAnswer)?;
    let header: *mut VirtIOHeader = ptr::with_exposed_provenance_mut(node.registers.start as usize);
    let header = NonNull::new(header).ok_or(ProbeError::NoAnswer)?;
    // SAFETY: the registers are mapped for good and nobody else's, by the caller's contract; something answers there.
    match unsafe { MmioTransport::new(header, bytes as usize) } {
        Err(MmioError::InvalidDeviceID(_)) if kind == 0 => Err(ProbeError::Empty),
        transport => Ok(transport?),
    }
}
