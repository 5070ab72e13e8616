//! A disk that tests can look into and break, independent of the crate's own volumes.

use drivers::block::{Begun, Geometry, Operation, Tag, Volume, VolumeError};
use drivers::guest::PinnedMemory;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Most bytes that it takes at a time.
pub const TRANSFER_BYTES: u32 = 256 << 10;

/// Clones are handles of the same disk.
#[derive(Clone)]
pub struct ModelDisk {
    pub bytes: Rc<RefCell<Vec<u8>>>,
    pub read_only: bool,
    pub block_bytes: u32,
    pub discard_sectors_max: u32,
    pub broken: Rc<Cell<bool>>,
    /// What it was asked to do.
    pub asked: Rc<RefCell<Vec<Operation>>>,
}

impl ModelDisk {
    /// A disk on which byte `n` of sector `s` is `s + n`.
    pub fn new(sectors: usize) -> Self {
        let bytes = (0..sectors * 512).map(|place| pattern(place / 512, place % 512)).collect();
        Self {
            bytes: Rc::new(RefCell::new(bytes)),
            read_only: false,
            block_bytes: 512,
            discard_sectors_max: 512,
            broken: Rc::default(),
            asked: Rc::default(),
        }
    }

    pub fn read_only(sectors: usize) -> Self {
        Self { read_only: true, ..Self::new(sectors) }
    }

    /// Bytes of the disk from `sector` on.
    pub fn content(&self, sector: usize, length: usize) -> Vec<u8> {
        self.bytes.borrow()[sector * 512..][..length].to_vec()
    }
}

pub fn pattern(sector: usize, byte: usize) -> u8 {
    u8::try_from((sector + byte) % 256).unwrap()
}

fn place(sector: u64) -> usize {
    usize::try_from(sector).unwrap() * 512
}

impl<P: PinnedMemory> Volume<P> for ModelDisk {
    fn geometry(&self) -> Geometry {
        let sectors = self.bytes.borrow().len() as u64 / 512;
        Geometry {
            sectors,
            block_bytes: self.block_bytes,
            read_only: self.read_only,
            has_cache: true,
            transfer_bytes_max: TRANSFER_BYTES,
            discard_sectors_max: self.discard_sectors_max,
            write_zeroes_sectors_max: 512,
        }
    }

    fn begin(&mut self, _tag: Tag, operation: Operation, memory: &P, offset: u32) -> Begun {
        Begun::Done(self.execute(operation, memory, offset))
    }
}

impl ModelDisk {
    /// Panics when asked for what a device model must not ask for.
    fn execute(
        &self,
        operation: Operation,
        memory: &impl PinnedMemory,
        offset: u32,
    ) -> Result<(), VolumeError> {
        self.asked.borrow_mut().push(operation);
        if self.broken.get() {
            return Err(VolumeError::OutOfRange);
        }
        let mut bytes = self.bytes.borrow_mut();
        match operation {
            Operation::Read { sector, length } => {
                memory.write(offset, &bytes[place(sector)..][..length as usize])?;
            }
            Operation::Write { sector, length } => {
                assert!(!self.read_only);
                memory.read(offset, &mut bytes[place(sector)..][..length as usize])?;
            }
            Operation::Flush => {}
            Operation::Discard { sector, sectors } | Operation::WriteZeroes { sector, sectors } => {
                assert!(!self.read_only);
                bytes[place(sector)..][..sectors as usize * 512].fill(0);
            }
        }
        Ok(())
    }
}
