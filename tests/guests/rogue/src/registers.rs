//! The registers of a virtio-mmio device, version 2 (virtio 1.2, 4.2.2), and the status bits.

use core::ops::Range;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// Where `xl` puts a guest's first virtio device (Xen, `arch-arm.h`, `GUEST_VIRTIO_MMIO_BASE`).
pub const DEVICE: usize = 0x0200_0000;
/// The page that it lies in, to be mapped.
pub const WINDOW: Range<usize> = DEVICE..DEVICE + 0x1000;

pub const MAGIC: usize = 0x000;
pub const DRIVER_FEATURES: usize = 0x020;
pub const DRIVER_FEATURES_SELECT: usize = 0x024;
pub const QUEUE_SELECT: usize = 0x030;
pub const QUEUE_SIZE: usize = 0x038;
pub const QUEUE_READY: usize = 0x044;
pub const QUEUE_NOTIFY: usize = 0x050;
pub const INTERRUPT_STATUS: usize = 0x060;
pub const INTERRUPT_ACK: usize = 0x064;
pub const STATUS: usize = 0x070;
/// Low halves of the addresses of the three rings; the high half is 4 bytes further on.
pub const QUEUE_RINGS: [usize; 3] = [0x080, 0x090, 0x0a0];

pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
pub const FEATURES_OK: u32 = 8;
pub const NEEDS_RESET: u32 = 64;

/// Reads a register. A plain load, which Xen can take apart: never one of a pair, nor one that changes its base.
#[inline(never)]
pub fn read(offset: usize) -> u32 {
    assert!(offset < WINDOW.len(), "rogue: no register of the device");
    // SAFETY: the page is mapped for good, and the driver domain answers for it.
    unsafe { with_exposed_provenance::<u32>(DEVICE + offset).read_volatile() }
}

/// Writes a register, likewise.
#[inline(never)]
pub fn write(offset: usize, value: u32) {
    assert!(offset < WINDOW.len(), "rogue: no register of the device");
    // SAFETY: as for `read`.
    unsafe { with_exposed_provenance_mut::<u32>(DEVICE + offset).write_volatile(value) };
}
