//! RAM of `ram:` volumes, which outlives this kernel: the next life finds it where it was.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use drivers::volume::ram::Storage;

use super::frames::{FrameAllocator, FrameRun, RamStorage};
use super::ram::Ram;
use crate::limits::PAGE_BYTES;
use crate::restart::area::{Area, VolumeEntry};

/// The volumes in RAM.
pub struct RamVolumes {
    area: Area,
    /// Of an earlier life, and not asked for again yet.
    kept: RefCell<Vec<(&'static VolumeEntry, FrameRun)>>,
}

/// A volume that the next life finds.
struct Kept {
    storage: RamStorage,
    entry: Option<&'static VolumeEntry>,
}

impl RamVolumes {
    /// Takes what an earlier life had, before anybody else can.
    #[must_use]
    pub fn new(area: Area, frames: &Rc<RefCell<FrameAllocator>>) -> Self {
        let mut kept = Vec::new();
        for entry in area.volumes {
            match entry.range().and_then(|range| FrameAllocator::take_at(frames, &range)) {
                Some(run) => kept.push((entry, run)),
                None => entry.release(),
            }
        }
        Self { area, kept: RefCell::new(kept) }
    }

    /// RAM for the volume of `bytes` bytes of the device with this [`key`](crate::restart::area::key): what it had, or zeroes.
    pub fn open(&self, owner: u64, bytes: usize, ram: &Ram) -> Option<Box<dyn Storage>> {
        let had = self.area.volume(owner, bytes);
        let mut kept = self.kept.borrow_mut();
        let place = kept.iter().position(|(entry, _)| had.is_some_and(|had| core::ptr::eq(had, *entry)));
        if let Some(place) = place {
            let (entry, run) = kept.swap_remove(place);
            return Some(Box::new(Kept { storage: RamStorage::kept(run, bytes)?, entry: Some(entry) }));
        }
        let storage = RamStorage::zeroed(ram.take(bytes.div_ceil(PAGE_BYTES))?, bytes)?;
        let entry = self.area.note_volume(owner, &storage.range());
        if entry.is_none() {
            log::warn!("too many volumes in RAM: the latest would not outlive a fault of this kernel");
        }
        Some(Box::new(Kept { storage, entry }))
    }

    /// Nobody will ask for what is left of an earlier life.
    pub fn forget_rest(&self) {
        self.kept.borrow_mut().drain(..).for_each(|(entry, _)| entry.release());
    }
}

impl Storage for Kept {
    fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.storage.bytes_mut()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.entry.inspect(|entry| entry.release());
    }
}
