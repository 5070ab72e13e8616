//! The registers of a virtio-mmio device, version 2 (virtio 1.2, 4.2.2), and the status bits.

use core::ops::Range;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

use kernel::arch::probe::read_register;

/// Where `xl` puts a guest's first virtio device (Xen, `arch-arm.h`, `GUEST_VIRTIO_MMIO_BASE`).
pub const FIRST_DEVICE: usize = 0x0200_0000;
/// The distance from it to the next one (libxl, `VIRTIO_MMIO_DEV_SIZE`).
pub const DEVICE_BYTES: usize = 0x200;
/// The page that the first devices lie in, to be mapped.
pub const WINDOW: Range<usize> = FIRST_DEVICE..FIRST_DEVICE + 0x1000;

/// "virt".
pub const MAGIC: usize = 0x000;
/// What kind of device it is.
pub const DEVICE_ID: usize = 0x008;
/// Features it offers, 32 of them.
pub const DEVICE_FEATURES: usize = 0x010;
/// Which 32.
pub const DEVICE_FEATURES_SELECT: usize = 0x014;
/// Features we take, 32 of them.
pub const DRIVER_FEATURES: usize = 0x020;
/// Which 32.
pub const DRIVER_FEATURES_SELECT: usize = 0x024;
/// The queue that the next five are about.
pub const QUEUE_SELECT: usize = 0x030;
/// Entries of the queue.
pub const QUEUE_SIZE: usize = 0x038;
/// Whether the queue is in use.
pub const QUEUE_READY: usize = 0x044;
/// A queue has something new.
pub const QUEUE_NOTIFY: usize = 0x050;
/// Why there is an interrupt.
pub const INTERRUPT_STATUS: usize = 0x060;
/// That it was seen.
pub const INTERRUPT_ACK: usize = 0x064;
/// How far driver and device are with each other.
pub const STATUS: usize = 0x070;
/// Low halves of the addresses of the three rings; the high half is 4 bytes further on.
pub const QUEUE_RINGS: [usize; 3] = [0x080, 0x090, 0x0a0];
/// What the kind of device has beside these.
pub const CONFIG: usize = 0x100;

/// Bits of the status.
pub const ACKNOWLEDGE: u32 = 1;
/// There is a driver.
pub const DRIVER: u32 = 2;
/// It is ready.
pub const DRIVER_OK: u32 = 4;
/// Features are agreed on.
pub const FEATURES_OK: u32 = 8;
/// The device has had enough.
pub const NEEDS_RESET: u32 = 64;

/// A device's registers.
#[derive(Clone, Copy, Debug)]
pub struct Registers(usize);

impl Registers {
    /// Those of the device that `xl` made as number `index`. Its page, [`WINDOW`], must be mapped for good.
    ///
    /// # Panics
    /// When it lies behind that page.
    #[must_use]
    pub fn nth(index: usize) -> Self {
        let base = FIRST_DEVICE + index * DEVICE_BYTES;
        assert!(WINDOW.contains(&base), "by hand: no such device");
        Self(base)
    }

    /// The address of the first one.
    #[must_use]
    pub fn base(self) -> usize {
        self.0
    }

    /// Reads a register. A plain load, which Xen can take apart: never one of a pair, nor one that changes its base.
    ///
    /// # Panics
    /// When it is no register of the device.
    #[inline(never)]
    #[must_use]
    pub fn read(self, offset: usize) -> u32 {
        assert!(offset < DEVICE_BYTES, "by hand: no register of the device");
        // SAFETY: the page is mapped for good, and the driver domain answers for it.
        unsafe { with_exposed_provenance::<u32>(self.0 + offset).read_volatile() }
    }

    /// Writes a register, likewise.
    ///
    /// # Panics
    /// When it is no register of the device.
    #[inline(never)]
    pub fn write(self, offset: usize, value: u32) {
        assert!(offset < DEVICE_BYTES, "by hand: no register of the device");
        // SAFETY: as for `read`.
        unsafe { with_exposed_provenance_mut::<u32>(self.0 + offset).write_volatile(value) };
    }

    /// Whether there is a virtio device.
    #[must_use]
    pub fn is_virtio(self) -> bool {
        // SAFETY: the page is mapped for good; whoever answers for it, reading this register changes nothing.
        let magic = unsafe { read_register((self.0 + MAGIC) as u64) };
        magic == Some(u32::from_le_bytes(*b"virt"))
    }
}
