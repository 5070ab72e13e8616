//! The volumes there are, and the rule of opening them: one writer, or any number of readers.
//!
//! An open volume is a value ([`OpenVolume`]); dropping it closes it. `ram:SIZE` makes a volume for each opening, so two
//! guests that name it have two disks; its RAM goes back when it is closed.

use super::ram::{self, Storage};
use super::spec::VolumeSpec;
use crate::block::{Geometry, Operation, SECTOR_BYTES, Volume, VolumeError};
use crate::guest::PinnedMemory;
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

/// What a guest may do with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read; others may read too.
    ReadOnly,
    /// Read and write; nobody else has it open.
    ReadWrite,
}

/// Why a volume cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The driver domain was started without one.
    #[error("there is no initrd: driver-domain.cfg has no ramdisk=")]
    NoInitrd,
    /// Somebody has it open for writing.
    #[error("volume is open for writing elsewhere")]
    BeingWritten,
    /// Somebody has it open for reading, so it cannot be opened for writing.
    #[error("volume is open for reading elsewhere, so it cannot be opened for writing")]
    BeingRead,
    /// No such disk.
    #[error("there is no disk blk{0}: physical disks are not supported yet")]
    NoDisk(u32),
    /// No RAM for it.
    #[error("no RAM for a volume of {0} bytes")]
    NoRam(u64),
}

/// Gives RAM for a `ram:SIZE` volume: so many zeroed bytes, or nothing. They go back when the value is dropped.
pub type AllocateRam = dyn Fn(u64) -> Option<Box<dyn Storage>>;

/// The volumes of this driver domain.
pub struct Registry {
    initrd: Option<Rc<Shared>>,
    allocate: Box<AllocateRam>,
}

struct Shared {
    storage: RefCell<Box<dyn Storage>>,
    users: Cell<Users>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    Readers(usize),
    Writer,
}

impl Shared {
    fn new(storage: Box<dyn Storage>) -> Rc<Self> {
        Rc::new(Self { storage: RefCell::new(storage), users: Cell::new(Users::Readers(0)) })
    }
}

impl Registry {
    /// Volumes made of the `initrd`, if there is one, and of RAM that `allocate` gives.
    #[must_use]
    pub fn new(initrd: Option<Box<dyn Storage>>, allocate: Box<AllocateRam>) -> Self {
        if let Some(storage) = &initrd {
            let bytes = storage.bytes().len() as u64;
            let tail = bytes % SECTOR_BYTES;
            if tail != 0 {
                log::warn!("initrd: its last {tail} bytes fill no sector and are not part of the volume");
            }
        }
        Self { initrd: initrd.map(Shared::new), allocate }
    }

    /// Opens a volume.
    ///
    /// # Errors
    /// [`OpenError`], in one sentence for the log and xenstore.
    pub fn open(&self, spec: &VolumeSpec, access: Access) -> Result<OpenVolume, OpenError> {
        let shared = match *spec {
            VolumeSpec::Initrd => self.initrd.clone().ok_or(OpenError::NoInitrd)?,
            VolumeSpec::Ram { bytes } => Shared::new((self.allocate)(bytes).ok_or(OpenError::NoRam(bytes))?),
            VolumeSpec::Disk { disk, .. } => return Err(OpenError::NoDisk(disk)),
        };
        let users = match (shared.users.get(), access) {
            (Users::Writer, _) => return Err(OpenError::BeingWritten),
            (Users::Readers(0), Access::ReadWrite) => Users::Writer,
            (Users::Readers(_), Access::ReadWrite) => return Err(OpenError::BeingRead),
            (Users::Readers(readers), Access::ReadOnly) => Users::Readers(readers + 1),
        };
        shared.users.set(users);
        Ok(OpenVolume { shared, access })
    }
}

/// A volume that a guest has open; dropping it closes it.
pub struct OpenVolume {
    shared: Rc<Shared>,
    access: Access,
}

impl Drop for OpenVolume {
    fn drop(&mut self) {
        self.shared.users.set(match self.shared.users.get() {
            Users::Writer => Users::Readers(0),
            Users::Readers(readers) => Users::Readers(readers.saturating_sub(1)),
        });
    }
}

impl core::fmt::Debug for OpenVolume {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("OpenVolume").field("access", &self.access).finish_non_exhaustive()
    }
}

impl<P: PinnedMemory> Volume<P> for OpenVolume {
    fn geometry(&self) -> Geometry {
        ram::geometry(&**self.shared.storage.borrow(), self.access == Access::ReadOnly)
    }

    fn execute(&mut self, operation: Operation, memory: &P) -> Result<(), VolumeError> {
        let writes = !matches!(operation, Operation::Read { .. } | Operation::Flush);
        if writes && self.access == Access::ReadOnly {
            return Err(VolumeError::ReadOnly);
        }
        // One loop, no re-entry: nobody holds the storage across a call.
        let mut storage = self.shared.storage.borrow_mut();
        ram::execute(&mut **storage, operation, memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn registry() -> Registry {
        let allocate = |bytes: u64| -> Option<Box<dyn Storage>> {
            (bytes <= 4096).then(|| Box::new(vec![0_u8; bytes.try_into().unwrap()]) as Box<dyn Storage>)
        };
        Registry::new(Some(Box::new(vec![7_u8; 1300])), Box::new(allocate))
    }

    fn geometry(volume: &OpenVolume) -> Geometry {
        Volume::<crate::fake::FakePinned>::geometry(volume)
    }

    #[test]
    fn initrd_tail_is_cut_to_whole_sectors() {
        let volume = registry().open(&VolumeSpec::Initrd, Access::ReadOnly).unwrap();
        assert_eq!(geometry(&volume), Geometry { sectors: 2, block_bytes: 512, read_only: true });
    }

    #[test]
    fn readers_share() {
        let registry = registry();
        let _first = registry.open(&VolumeSpec::Initrd, Access::ReadOnly).unwrap();
        assert!(registry.open(&VolumeSpec::Initrd, Access::ReadOnly).is_ok());
    }

    #[test]
    fn a_writer_is_alone() {
        let registry = registry();
        let _writer = registry.open(&VolumeSpec::Initrd, Access::ReadWrite).unwrap();
        assert_eq!(
            registry.open(&VolumeSpec::Initrd, Access::ReadOnly).unwrap_err(),
            OpenError::BeingWritten
        );
    }

    #[test]
    fn a_reader_keeps_writers_out() {
        let registry = registry();
        let _reader = registry.open(&VolumeSpec::Initrd, Access::ReadOnly).unwrap();
        assert_eq!(registry.open(&VolumeSpec::Initrd, Access::ReadWrite).unwrap_err(), OpenError::BeingRead);
    }

    #[test]
    fn closing_lets_the_next_one_write() {
        let registry = registry();
        drop(registry.open(&VolumeSpec::Initrd, Access::ReadWrite).unwrap());
        assert!(registry.open(&VolumeSpec::Initrd, Access::ReadWrite).is_ok());
    }

    #[test]
    fn every_opening_of_ram_is_a_volume_of_its_own() {
        let registry = registry();
        let _first = registry.open(&VolumeSpec::Ram { bytes: 1024 }, Access::ReadWrite).unwrap();
        assert!(registry.open(&VolumeSpec::Ram { bytes: 1024 }, Access::ReadWrite).is_ok());
    }

    #[test]
    fn ram_that_is_not_there_is_refused() {
        let refused = registry().open(&VolumeSpec::Ram { bytes: 8192 }, Access::ReadWrite).unwrap_err();
        assert_eq!(refused, OpenError::NoRam(8192));
    }

    #[test]
    fn a_missing_initrd_is_refused() {
        let registry = Registry::new(None, Box::new(|_| None));
        assert_eq!(registry.open(&VolumeSpec::Initrd, Access::ReadOnly).unwrap_err(), OpenError::NoInitrd);
    }
}
