//! The register file of virtio-mmio version 2 (virtio 1.2, 4.2.2, table 4.1): offsets, and the widths of accesses.
//!
//! R: read-only, W: write-only, RW: both. [`super::mmio`] says what each does.

/// R: "virt"
pub(super) const MAGIC: u32 = 0x000;
/// R: 2
pub(super) const VERSION: u32 = 0x004;
/// R: what kind of device
pub(super) const DEVICE_ID: u32 = 0x008;
/// R: whose device
pub(super) const VENDOR_ID: u32 = 0x00c;
/// R: 32 feature bits offered, W: which
pub(super) const DEVICE_FEATURES: u32 = 0x010;
pub(super) const DEVICE_FEATURES_SELECT: u32 = 0x014;
/// W: 32 feature bits accepted, W: which
pub(super) const DRIVER_FEATURES: u32 = 0x020;
pub(super) const DRIVER_FEATURES_SELECT: u32 = 0x024;
/// W: which queue the following are about
pub(super) const QUEUE_SELECT: u32 = 0x030;
/// R: the largest size, 0 if there is no such queue
pub(super) const QUEUE_SIZE_MAX: u32 = 0x034;
/// W: the size
pub(super) const QUEUE_SIZE: u32 = 0x038;
/// RW: 1 hands the queue over, 0 takes it back
pub(super) const QUEUE_READY: u32 = 0x044;
/// W: there is something in this queue
pub(super) const QUEUE_NOTIFY: u32 = 0x050;
/// R: why an interrupt was raised
pub(super) const INTERRUPT_STATUS: u32 = 0x060;
/// W: reasons dealt with
pub(super) const INTERRUPT_ACK: u32 = 0x064;
/// RW: the status machine
pub(super) const STATUS: u32 = 0x070;
/// W: addresses of the three rings, low and high half
pub(super) const QUEUE_DESCRIPTORS_LOW: u32 = 0x080;
pub(super) const QUEUE_DESCRIPTORS_HIGH: u32 = 0x084;
pub(super) const QUEUE_AVAILABLE_LOW: u32 = 0x090;
pub(super) const QUEUE_AVAILABLE_HIGH: u32 = 0x094;
pub(super) const QUEUE_USED_LOW: u32 = 0x0a0;
pub(super) const QUEUE_USED_HIGH: u32 = 0x0a4;
/// R: length and address of a shared memory region, all ones for none
pub(super) const SHARED_MEMORY_LENGTH_LOW: u32 = 0x0b0;
pub(super) const SHARED_MEMORY_BASE_HIGH: u32 = 0x0bc;
/// R: changes when configuration space does
pub(super) const CONFIG_GENERATION: u32 = 0x0fc;
/// RW: configuration space starts
pub(super) const CONFIG: u32 = 0x100;

/// How many bytes an access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits
    One = 1,
    /// 16 bits
    Two = 2,
    /// 32 bits
    Four = 4,
    /// 64 bits
    Eight = 8,
}

impl Width {
    /// The width that is so many bytes.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }
}

/// 32 bits of 64: `which` is 0 for the low half, 1 for the high one; there are no others.
pub(super) fn half(bits: u64, which: u32) -> u32 {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = bits.to_le_bytes();
    match which {
        0 => u32::from_le_bytes([b0, b1, b2, b3]),
        1 => u32::from_le_bytes([b4, b5, b6, b7]),
        _ => 0,
    }
}

pub(super) fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

pub(super) fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}
