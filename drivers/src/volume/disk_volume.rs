//! A volume on a physical disk: all of it, or the sectors of a partition.

use super::disk::{ClientKey, Disk, TIME_LIMIT_NS};
use crate::block::{Begun, Done, Geometry, Operation, SECTOR_BYTES, Tag, Volume, VolumeError};
use crate::drive::Command;
use crate::guest::PinnedMemory;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;

/// Sectors of a disk that are open. Dropping it abandons what is under way.
pub struct DiskVolume {
    disk: Rc<RefCell<Disk>>,
    client: ClientKey,
    sectors: Range<u64>,
    read_only: bool,
    /// Where in the guest's memory reads under way go.
    offsets: Vec<(Tag, u32)>,
}

impl DiskVolume {
    /// Opens `sectors` of a disk, which must lie inside of it.
    #[must_use]
    pub fn open(disk: &Rc<RefCell<Disk>>, sectors: Range<u64>, read_only: bool) -> Self {
        let slots = usize::from(disk.borrow().facts().slots);
        let client = disk.borrow_mut().open(sectors.clone(), TIME_LIMIT_NS);
        Self { disk: disk.clone(), client, sectors, read_only, offsets: Vec::with_capacity(slots) }
    }

    fn command(&self, operation: Operation) -> Result<Command, VolumeError> {
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
            Operation::Read { sector, length, .. } => {
                Command::Read { sector: place(sector, in_sectors(length))?, length }
            }
            Operation::Write { sector, length, .. } => {
                Command::Write { sector: place(sector, in_sectors(length))?, length }
            }
            Operation::Flush => Command::Flush,
            Operation::Discard { sector, sectors } => {
                Command::Discard { sector: place(sector, sectors.into())?, sectors }
            }
            Operation::WriteZeroes { sector, sectors } => {
                Command::WriteZeroes { sector: place(sector, sectors.into())?, sectors }
            }
        })
    }
}

impl Drop for DiskVolume {
    fn drop(&mut self) {
        self.disk.borrow_mut().close(self.client);
    }
}

impl<P: PinnedMemory> Volume<P> for DiskVolume {
    fn geometry(&self) -> Geometry {
        self.disk.borrow().facts().geometry(self.sectors.clone(), self.read_only)
    }

    fn room(&self) -> usize {
        self.disk.borrow().room(self.client)
    }

    fn begin(&mut self, tag: Tag, operation: Operation, memory: &P) -> Begun {
        let command = match self.command(operation) {
            Ok(command) => command,
            Err(error) => return Begun::Done(Err(error)),
        };
        let mut disk = self.disk.borrow_mut();
        match operation {
            // Nothing to do, and no command that a device must accept.
            Operation::Read { length: 0, .. } | Operation::Write { length: 0, .. } => Begun::Done(Ok(())),
            Operation::Discard { sectors: 0, .. } | Operation::WriteZeroes { sectors: 0, .. } => {
                Begun::Done(Ok(()))
            }
            // What a disk without a cache has completed is durable.
            Operation::Flush if !disk.facts().has_cache => Begun::Done(Ok(())),
            Operation::Write { offset, .. } => {
                disk.begin(self.client, tag, command, |buffer| Ok(memory.read(offset, buffer)?))
            }
            Operation::Read { offset, .. } => {
                let begun = disk.begin(self.client, tag, command, |_| Ok(()));
                if begun == Begun::Pending {
                    self.offsets.push((tag, offset));
                }
                begun
            }
            _ => disk.begin(self.client, tag, command, |_| Ok(())),
        }
    }

    fn next_done(&mut self) -> Option<Done> {
        self.disk.borrow_mut().next_done(self.client)
    }

    fn finish(&mut self, done: Done, memory: &P) -> Result<(), VolumeError> {
        let read = self.offsets.iter().position(|(tag, _)| *tag == done.tag);
        let offset = read.map_or(0, |index| self.offsets.swap_remove(index).1);
        self.disk.borrow_mut().finish(done.outcome, |bytes| Ok(memory.write(offset, bytes)?))
    }

    fn cancel(&mut self) {
        self.offsets.clear();
        self.disk.borrow_mut().cancel(self.client);
    }
}
