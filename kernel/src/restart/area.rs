//! What a life of this kernel leaves for the next one in the same domain: the handover area, right behind the image.
//!
//! Only what cannot be read back from Xen, xenstore or the guests' rings. It is written as things happen, word by word, each
//! with its check; the end may come between any two of them.
//!
//! | part | what | who writes it |
//! |---|---|---|
//! | [`Root`] | where the device tree is, how often this kernel was started, who is being served | `bring_up`, the loop |
//! | singles | what is mapped at each frame number for single pages: ioreq pages, grants with their handles | `mm/singles.rs` |
//! | devices | whose device is where, its registers and requests under way | `guest/mod.rs`, `drivers::virtio::handover` |
//! | volumes | where the RAM of `ram:` volumes lies | `mm/volumes.rs` |
//! | lent | which of our RAM is in the balloon | `mm/frames.rs` |

use core::mem::{align_of, size_of};
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use drivers::virtio::handover::DeviceHandover;

use super::words::Word;
use crate::guest::DeviceId;
use crate::limits::{
    HANDOVER_DEVICES_MAX, HANDOVER_DEVICES_MIN, HANDOVER_PAGES_PER_DEVICE, HANDOVER_VOLUMES, PAGE_BYTES,
    SINGLE_PAGES,
};
use crate::xen::DomainId;

/// The words that are there once.
#[derive(Debug, Default)]
pub struct Root {
    /// Address of the device tree.
    pub device_tree: Word,
    /// How often this kernel was started again.
    pub restarts: Word,
    /// Of these, how many in a row came soon after it began to serve.
    pub short_lives: Word,
    /// When this life began to serve, in microseconds; none before it does.
    pub serving_since_us: Word,
    /// For how long the last life served, in microseconds.
    pub served_us: Word,
    /// When the last life ended, in microseconds.
    pub ended_us: Word,
    /// The ring index at which the request ends that is being sent to xenstored.
    pub store_request_end: Word,
    /// Slots of the window in unpopulated address space that were ever used.
    pub window_slots: Word,
    /// The entry of the device that is being served; none between devices.
    pub served: Word,
}

/// A device that is attached.
#[derive(Default)]
pub struct DeviceEntry {
    owner: Word,
    base: Word,
    line: Word,
    /// How often this kernel ended while it served the device.
    pub blame: Word,
    /// What its registers and queues were.
    pub device: DeviceHandover,
}

/// Whose device it is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub domain: DomainId,
    /// Which of its devices.
    pub id: DeviceId,
    /// Guest address of its registers.
    pub base: u64,
    /// Its interrupt.
    pub irq: u32,
    /// Whether the guest grants its pages.
    pub is_granted: bool,
}

const DOMAIN_SHIFT: u32 = 33;
const NIC: u64 = 1 << 32;
const GRANTED: u64 = 1 << 32;
const ABANDONED: u64 = 1 << 33;

/// A device by one number, of 48 bits.
#[must_use]
pub fn key(domain: DomainId, id: DeviceId) -> u64 {
    let number = match id {
        DeviceId::Disk(number) => u64::from(number),
        DeviceId::Nic(number) => NIC | u64::from(number),
    };
    u64::from(domain.0) << DOMAIN_SHIFT | number
}

impl DeviceEntry {
    /// Whose it is, if anybody's.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let (owner, base, line) = (self.owner.get()?, self.base.get()?, self.line.get()?);
        let number = owner as u32;
        let id = if owner & NIC == 0 { DeviceId::Disk(number) } else { DeviceId::Nic(number) };
        let domain = DomainId((owner >> DOMAIN_SHIFT) as u16);
        Some(Place { domain, id, base, irq: line as u32, is_granted: line & GRANTED != 0 })
    }

    fn occupy(&self, place: &Place) {
        self.blame.set(0);
        self.base.set(place.base);
        self.line.set(u64::from(place.irq) | if place.is_granted { GRANTED } else { 0 });
        self.device.forget();
        // Last: from here on it is somebody's.
        self.owner.set(key(place.domain, place.id));
    }

    /// It is there for its guest, and is never served again.
    pub fn abandon(&self) {
        if let Some(line) = self.line.get() {
            self.line.set(line | ABANDONED);
        }
    }

    /// Whether it is never served again.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.line.get().is_some_and(|line| line & ABANDONED != 0)
    }

    /// Nobody's any more.
    pub fn release(&self) {
        self.owner.clear();
    }
}

/// RAM of a volume: of which device, and where.
#[derive(Debug, Default)]
pub struct VolumeEntry {
    owner: Word,
    start: Word,
    bytes: Word,
}

impl VolumeEntry {
    /// Where it lies, if it is somebody's.
    #[must_use]
    pub fn range(&self) -> Option<Range<usize>> {
        self.owner.get()?;
        let (start, bytes) = (self.start.get()? as usize, self.bytes.get()? as usize);
        Some(start..start.checked_add(bytes)?)
    }

    /// Nobody's any more.
    pub fn release(&self) {
        self.owner.clear();
    }
}

/// The handover area.
#[derive(Clone, Copy)]
pub struct Area {
    /// The words that are there once.
    pub root: &'static Root,
    /// One word for each frame number for single pages.
    pub singles: &'static [Word; SINGLE_PAGES],
    /// Devices.
    pub devices: &'static [DeviceEntry],
    /// Volumes in RAM.
    pub volumes: &'static [VolumeEntry],
    /// A bit for each page of RAM, from the lowest on.
    pub lent: &'static [AtomicU64],
    /// All of it.
    words: &'static [AtomicU64],
}

/// Where the parts lie, in bytes from the start.
struct Layout {
    singles: usize,
    devices: usize,
    volumes: usize,
    lent: usize,
    end: usize,
    device_count: usize,
    lent_words: usize,
}

impl Layout {
    const fn of(ram_pages: usize) -> Self {
        let by_ram = ram_pages / HANDOVER_PAGES_PER_DEVICE;
        let device_count = match by_ram {
            ..HANDOVER_DEVICES_MIN => HANDOVER_DEVICES_MIN,
            HANDOVER_DEVICES_MAX.. => HANDOVER_DEVICES_MAX,
            _ => by_ram,
        };
        let lent_words = ram_pages.div_ceil(u64::BITS as usize);
        let singles = size_of::<Root>();
        let devices = singles + size_of::<[Word; SINGLE_PAGES]>();
        let volumes = devices + device_count * size_of::<DeviceEntry>();
        let lent = volumes + HANDOVER_VOLUMES * size_of::<VolumeEntry>();
        let end = (lent + lent_words * size_of::<u64>()).next_multiple_of(PAGE_BYTES);
        Self { singles, devices, volumes, lent, end, device_count, lent_words }
    }
}

// Each part begins where its type may.
const _: () =
    assert!(align_of::<Root>() == 8 && align_of::<DeviceEntry>() == 8 && align_of::<VolumeEntry>() == 8);

impl Area {
    /// The bytes that the area takes in a domain with so many pages of RAM.
    #[must_use]
    pub const fn bytes(ram_pages: usize) -> usize {
        Layout::of(ram_pages).end
    }

    /// The area at `address`, as whoever was here before left it.
    ///
    /// # Safety
    /// [`Self::bytes`] bytes from there on, a multiple of a page, must be RAM that is mapped and that nothing else uses,
    /// for good.
    #[must_use]
    pub unsafe fn at(address: usize, ram_pages: usize) -> Self {
        let layout = Layout::of(ram_pages);
        // SAFETY: the caller's contract; every type of it is made of atomics, for which any bits are a value, and each
        // part is aligned, as `Layout` lays them out one after the other in units of words.
        unsafe {
            Self {
                root: &*ptr::with_exposed_provenance(address),
                singles: &*ptr::with_exposed_provenance(address + layout.singles),
                devices: core::slice::from_raw_parts(
                    ptr::with_exposed_provenance(address + layout.devices),
                    layout.device_count,
                ),
                volumes: core::slice::from_raw_parts(
                    ptr::with_exposed_provenance(address + layout.volumes),
                    HANDOVER_VOLUMES,
                ),
                lent: core::slice::from_raw_parts(
                    ptr::with_exposed_provenance(address + layout.lent),
                    layout.lent_words,
                ),
                words: core::slice::from_raw_parts(
                    ptr::with_exposed_provenance(address),
                    layout.end / size_of::<AtomicU64>(),
                ),
            }
        }
    }

    /// The entry of a device that was attached in an earlier life.
    #[must_use]
    pub fn find(&self, domain: DomainId, id: DeviceId) -> Option<&'static DeviceEntry> {
        let owner = key(domain, id);
        self.devices.iter().find(|entry| entry.owner.get() == Some(owner))
    }

    /// A free entry, now that of the device at `place`; none when all are taken: such a device does not outlive this kernel.
    #[must_use]
    pub fn occupy(&self, place: &Place) -> Option<&'static DeviceEntry> {
        let entry = self.devices.iter().find(|entry| entry.place().is_none())?;
        entry.occupy(place);
        Some(entry)
    }

    /// The number of an entry of [`Self::devices`].
    #[must_use]
    pub fn index(&self, entry: &DeviceEntry) -> u64 {
        let offset = ptr::from_ref(entry).addr().wrapping_sub(self.devices.as_ptr().addr());
        (offset / size_of::<DeviceEntry>()) as u64
    }

    /// Where the RAM lies that the volume of so many bytes has from an earlier life whose device has this [`key`].
    #[must_use]
    pub fn volume(&self, owner: u64, bytes: usize) -> Option<&'static VolumeEntry> {
        let is_it = |entry: &&VolumeEntry| {
            entry.owner.get() == Some(owner) && entry.range().is_some_and(|range| range.len() == bytes)
        };
        self.volumes.iter().find(is_it)
    }

    /// Notes where the RAM of the volume of the device with this [`key`] lies.
    #[must_use]
    pub fn note_volume(&self, owner: u64, range: &Range<usize>) -> Option<&'static VolumeEntry> {
        let entry = self.volumes.iter().find(|entry| entry.range().is_none())?;
        entry.start.set(range.start as u64);
        entry.bytes.set(range.len() as u64);
        entry.owner.set(owner);
        Some(entry)
    }

    /// Empties it, for a first life: zeroes are no value of any word.
    pub fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec;

    const PAGES: usize = 2048;
    pub const GUEST: DomainId = DomainId(0x7fef);

    /// An empty area, for good.
    pub fn area() -> Area {
        let memory = Box::leak(vec![0xff_u64.rotate_left(9); Area::bytes(PAGES) / 8].into_boxed_slice());
        // SAFETY: leaked memory of that size, which nobody else has.
        let area = unsafe { Area::at(memory.as_mut_ptr().expose_provenance(), PAGES) };
        area.clear();
        area
    }

    /// Where a device of a guest is.
    pub fn place(id: DeviceId) -> Place {
        Place { domain: GUEST, id, base: 0x0200_0200, irq: 33, is_granted: true }
    }

    #[test]
    fn a_device_is_found_again_until_it_is_released() {
        let area = area();
        assert!(area.find(GUEST, DeviceId::Disk(51712)).is_none());
        let [disk, nic] = [DeviceId::Disk(51712), DeviceId::Nic(51712)];
        let entry = area.occupy(&place(disk)).unwrap();
        assert!(area.find(GUEST, nic).is_none());
        area.occupy(&place(nic)).unwrap();
        assert_eq!(area.find(GUEST, disk).unwrap().place(), Some(place(disk)));
        assert_eq!((area.index(entry), area.find(GUEST, nic).unwrap().place()), (0, Some(place(nic))));
        entry.release();
        assert!(area.find(GUEST, disk).is_none());
    }

    #[test]
    fn entries_run_out() {
        let area = area();
        let places = (0..).map(|number| place(DeviceId::Disk(number)));
        let count = places.map_while(|place| area.occupy(&place)).count();
        assert_eq!(count, area.devices.len());
    }

    #[test]
    fn a_volume_is_found_by_its_device_and_size() {
        let area = area();
        let owner = key(GUEST, DeviceId::Disk(51712));
        let range = 0x4000_0000..0x4400_0000;
        let entry = area.note_volume(owner, &range).unwrap();
        assert!(area.volume(owner, 4096).is_none());
        assert!(area.volume(key(DomainId(1), DeviceId::Disk(51712)), range.len()).is_none());
        assert_eq!(area.volume(owner, range.len()).unwrap().range(), Some(range.clone()));
        entry.release();
        assert!(area.volume(owner, range.len()).is_none());
    }
}
