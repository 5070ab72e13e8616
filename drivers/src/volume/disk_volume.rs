//! A volume on a physical disk: all of it, or the sectors of a partition.

use super::disk::{ClientKey, Disk};
use crate::block::{Begun, Done, Geometry, Operation, SECTOR_BYTES, Tag, Volume, VolumeError};
use crate::guest::PinnedMemory;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::ops::Range;

/// Sectors of a disk that are open. Dropping it abandons what is under way.
pub struct DiskVolume {
    disk: Rc<RefCell<Disk>>,
    client: ClientKey,
    sectors: Range<u64>,
    read_only: bool,
}

impl DiskVolume {
    /// Opens `sectors` of a disk, which must lie inside of it.
    #[must_use]
    pub fn open(disk: &Rc<RefCell<Disk>>, sectors: Range<u64>, read_only: bool) -> Self {
        let client = disk.borrow_mut().open(sectors.clone());
        Self { disk: disk.clone(), client, sectors, read_only }
    }

    /// The operation as the disk knows it.
    fn on_disk(&self, operation: Operation) -> Result<Operation, VolumeError> {
        let place = |sector: u64, sectors: u64| {
            let first = self.sectors.start.checked_add(sector).ok_or(VolumeError::OutOfRange)?;
            match first.checked_add(sectors) {
                Some(end) if end <= self.sectors.end => Ok(first),
                _ => Err(VolumeError::OutOfRange),
            }
        };
        let in_sectors = |length: u32| u64::from(length) / SECTOR_BYTES;
        let writes = !matches!(operation, Operation::Read { .. } | Operation::Flush);
        if writes && self.read_only {
            return Err(VolumeError::ReadOnly);
        }
        Ok(match operation {
            Operation::Read { sector, length } => {
                Operation::Read { sector: place(sector, in_sectors(length))?, length }
            }
            Operation::Write { sector, length } => {
                Operation::Write { sector: place(sector, in_sectors(length))?, length }
            }
            Operation::Flush => Operation::Flush,
            Operation::Discard { sector, sectors } => {
                Operation::Discard { sector: place(sector, sectors.into())?, sectors }
            }
            Operation::WriteZeroes { sector, sectors } => {
                Operation::WriteZeroes { sector: place(sector, sectors.into())?, sectors }
            }
        })
    }
}

impl Drop for DiskVolume {
    fn drop(&mut self) {
        let mut disk = self.disk.borrow_mut();
        disk.close(self.client);
        log::info!("{}: a volume is closed; so far: {:?}", disk.name(), disk.counters());
    }
}

impl<P: PinnedMemory> Volume<P> for DiskVolume {
    fn geometry(&self) -> Geometry {
        self.disk.borrow().facts().geometry(self.sectors.clone(), self.read_only)
    }

    fn room(&self) -> usize {
        self.disk.borrow().room(self.client)
    }

    fn begin(&mut self, tag: Tag, operation: Operation, memory: &P, offset: u32) -> Begun {
        let operation = match self.on_disk(operation) {
            Ok(operation) => operation,
            Err(error) => return Begun::Done(Err(error)),
        };
        let mut disk = self.disk.borrow_mut();
        match operation {
            // Nothing to do, and nothing that a device must accept.
            Operation::Read { length: 0, .. }
            | Operation::Write { length: 0, .. }
            | Operation::Discard { sectors: 0, .. }
            | Operation::WriteZeroes { sectors: 0, .. } => Begun::Done(Ok(())),
            // What a disk without a cache has completed is durable.
            Operation::Flush if !disk.facts().has_cache => Begun::Done(Ok(())),
            _ => disk.begin(self.client, tag, operation, |buffer| Ok(memory.read(offset, buffer)?)),
        }
    }

    fn next_done(&mut self) -> Option<Done> {
        self.disk.borrow_mut().next_done(self.client)
    }

    fn finish(&mut self, done: Done, memory: &P, offset: u32) -> Result<(), VolumeError> {
        self.disk.borrow_mut().finish(done.outcome, |bytes| Ok(memory.write(offset, bytes)?))
    }

    fn cancel(&mut self) {
        self.disk.borrow_mut().cancel(self.client);
    }
}
