//! The volumes there are, and the rule of opening them: one writer, or any number of readers.
//!
//! The rule is one of sectors: two volumes that share a sector, as a disk and a partition of it do, are not open at the
//! same time if one of them is open for writing. An open volume is a value ([`OpenVolume`]); dropping it closes it.
//! `ram:SIZE` makes a volume for each opening, so two guests that name it have two disks; its RAM goes back when it is
//! closed. An export of an NBD server is one disk for all who open it here; what others do with it is for the server to
//! say. A partition table is read at each opening: whoever had the whole disk before may have changed it.

use super::disk::Disk;
use super::disk_reader::DiskReader;
use super::disk_volume::DiskVolume;
use super::gpt::{self, TableError};
use super::nbd::NbdError;
use super::nbd::disks::{Connect, ExportUser, NetworkDisks};
use super::ram::{self, Storage};
use super::spec::{Part, VolumeSpec};
use crate::block::{Begun, Done, Geometry, Operation, SECTOR_BYTES, Tag, Volume, VolumeError};
use crate::guest::PinnedMemory;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use slab::Slab;

/// What a guest may do with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read; others may read too.
    ReadOnly,
    /// Read and write; nobody else has it open.
    ReadWrite,
}

/// Why a volume cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    #[error("there is no disk blk{0}: this driver domain has {1} physical disks")]
    NoDisk(u32, usize),
    /// The disk is there, but could not be brought up.
    #[error("the disk blk{0} cannot be used: the console of the driver domain says why")]
    DeadDisk(u32),
    /// The disk cannot be written.
    #[error("the disk is read-only: give access=ro")]
    ReadOnlyDisk,
    /// No such partition, or no table.
    #[error("{0}")]
    Table(#[from] TableError),
    /// No way to a server.
    #[error("there is no network for it, or no room for another connection")]
    NoNetwork,
    /// No such server, or none that serves us.
    #[error("{0}")]
    Network(#[from] NbdError),
    /// No RAM for it.
    #[error("no RAM for {0} bytes of it")]
    NoRam(u64),
}

/// What RAM is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Buffers on the way to another machine.
    Buffers,
    /// The volume of the opener with this number ([`Registry::open`]): who gives RAM may have kept it for him.
    VolumeOf(u64),
}

/// Gives RAM: so many zeroed bytes, or a volume's as they were, or nothing. They go back when the value is dropped.
pub type AllocateRam = dyn Fn(u64, Purpose) -> Option<Box<dyn Storage>>;

type SharedStorage = Rc<RefCell<Box<dyn Storage>>>;

/// The volumes of this driver domain.
pub struct Registry {
    initrd: Option<SharedStorage>,
    /// None for those that cannot be used.
    disks: Vec<Option<Rc<RefCell<Disk>>>>,
    network_disks: NetworkDisks,
    allocate: Box<AllocateRam>,
    openings: Rc<RefCell<Slab<Opening>>>,
}

/// What volumes are parts of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Initrd,
    Disk(u32),
    /// As [`ExportUser::key`] says.
    Export(usize),
}

/// Sectors that are open.
struct Opening {
    whole: Whole,
    sectors: Range<u64>,
    access: Access,
}

/// An [`Opening`], ended when dropped.
struct Opened {
    openings: Rc<RefCell<Slab<Opening>>>,
    key: usize,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.openings.borrow_mut().try_remove(self.key);
    }
}

impl Registry {
    /// Volumes made of the `initrd`, if there is one, of physical `disks`, of which those that cannot be used keep their
    /// places, of what is on other machines, to which `connect` leads, and of RAM that `allocate` gives.
    #[must_use]
    pub fn new(
        initrd: Option<Box<dyn Storage>>,
        disks: Vec<Option<Rc<RefCell<Disk>>>>,
        allocate: Box<AllocateRam>,
        connect: Box<Connect>,
    ) -> Self {
        if let Some(storage) = &initrd {
            let bytes = storage.bytes().len() as u64;
            let tail = bytes % SECTOR_BYTES;
            if tail != 0 {
                log::warn!("initrd: its last {tail} bytes fill no sector and are not part of the volume");
            }
        }
        let initrd = initrd.map(|storage| Rc::new(RefCell::new(storage)));
        let network_disks = NetworkDisks::new(connect);
        Self { initrd, disks, network_disks, allocate, openings: Rc::default() }
    }

    /// The disks on other machines, which the loop has to drive.
    #[must_use]
    pub fn network_disks(&self) -> NetworkDisks {
        self.network_disks.clone()
    }

    /// Opens a volume. May have to wait for a disk. `opener` is the caller's name for whom it is.
    ///
    /// # Errors
    /// [`OpenError`], in one sentence for the log and xenstore.
    pub async fn open(
        &self,
        spec: &VolumeSpec,
        access: Access,
        opener: u64,
    ) -> Result<OpenVolume, OpenError> {
        match spec {
            VolumeSpec::Initrd => {
                let storage = self.initrd.clone().ok_or(OpenError::NoInitrd)?;
                let opened = self.occupy(Whole::Initrd, 0..u64::MAX, access)?;
                Ok(OpenVolume { backing: Backing::Ram(storage), access, _opened: Some(opened), _user: None })
            }
            VolumeSpec::Ram { bytes } => {
                let storage =
                    (self.allocate)(*bytes, Purpose::VolumeOf(opener)).ok_or(OpenError::NoRam(*bytes))?;
                let backing = Backing::Ram(Rc::new(RefCell::new(storage)));
                Ok(OpenVolume { backing, access, _opened: None, _user: None })
            }
            VolumeSpec::Disk { disk: number, part } => {
                let disk = self.disks.get(*number as usize);
                let disk = disk.ok_or(OpenError::NoDisk(*number, self.disks.len()))?;
                let disk = disk.as_ref().ok_or(OpenError::DeadDisk(*number))?;
                let facts = disk.borrow().facts();
                if facts.read_only && access == Access::ReadWrite {
                    return Err(OpenError::ReadOnlyDisk);
                }
                let sectors = match part {
                    Part::Whole => 0..facts.sectors,
                    part => {
                        let table =
                            gpt::read_table(&DiskReader::new(disk), &facts.geometry(0..facts.sectors, true))
                                .await?;
                        let range = table.partition(part)?;
                        range.first..range.first + range.sectors
                    }
                };
                let opened = self.occupy(Whole::Disk(*number), sectors.clone(), access)?;
                let volume = DiskVolume::open(disk, sectors, access == Access::ReadOnly);
                Ok(OpenVolume { backing: Backing::Disk(volume), access, _opened: Some(opened), _user: None })
            }
            VolumeSpec::Nbd { server, export } => {
                let (user, disk) = self.network_disks.open(*server, export, &*self.allocate).await?;
                let facts = disk.borrow().facts();
                if facts.read_only && access == Access::ReadWrite {
                    return Err(OpenError::ReadOnlyDisk);
                }
                let sectors = 0..facts.sectors;
                let opened = self.occupy(Whole::Export(user.key()), sectors.clone(), access)?;
                let volume = DiskVolume::open(&disk, sectors, access == Access::ReadOnly);
                let backing = Backing::Disk(volume);
                Ok(OpenVolume { backing, access, _opened: Some(opened), _user: Some(user) })
            }
        }
    }

    fn occupy(&self, whole: Whole, sectors: Range<u64>, access: Access) -> Result<Opened, OpenError> {
        let mut openings = self.openings.borrow_mut();
        let in_common = |other: &Opening| {
            other.whole == whole && other.sectors.start < sectors.end && sectors.start < other.sectors.end
        };
        for (_, other) in openings.iter().filter(|(_, other)| in_common(other)) {
            match (other.access, access) {
                (Access::ReadWrite, _) => return Err(OpenError::BeingWritten),
                (Access::ReadOnly, Access::ReadWrite) => return Err(OpenError::BeingRead),
                (Access::ReadOnly, Access::ReadOnly) => {}
            }
        }
        let key = openings.insert(Opening { whole, sectors, access });
        Ok(Opened { openings: self.openings.clone(), key })
    }
}

/// A volume that a guest has open; dropping it closes it.
pub struct OpenVolume {
    // Dropped in this order: what is under way is abandoned before others may open the sectors.
    backing: Backing,
    access: Access,
    _opened: Option<Opened>,
    _user: Option<ExportUser>,
}

enum Backing {
    Ram(SharedStorage),
    Disk(DiskVolume),
}

impl core::fmt::Debug for OpenVolume {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("OpenVolume").field("access", &self.access).finish_non_exhaustive()
    }
}

impl<P: PinnedMemory> Volume<P> for OpenVolume {
    fn geometry(&self) -> Geometry {
        match &self.backing {
            Backing::Ram(storage) => ram::geometry(&**storage.borrow(), self.access == Access::ReadOnly),
            Backing::Disk(volume) => Volume::<P>::geometry(volume),
        }
    }

    fn room(&self) -> usize {
        match &self.backing {
            Backing::Ram(_) => usize::MAX,
            Backing::Disk(volume) => Volume::<P>::room(volume),
        }
    }

    fn begin(&mut self, tag: Tag, operation: Operation, memory: &P, offset: u32) -> Begun {
        let storage = match &mut self.backing {
            Backing::Ram(storage) => storage,
            Backing::Disk(volume) => return volume.begin(tag, operation, memory, offset),
        };
        let writes = !matches!(operation, Operation::Read { .. } | Operation::Flush);
        if writes && self.access == Access::ReadOnly {
            return Begun::Done(Err(VolumeError::ReadOnly));
        }
        // One loop, no re-entry: nobody holds the storage across a call.
        Begun::Done(ram::execute(&mut **storage.borrow_mut(), operation, memory, offset))
    }

    fn next_done(&mut self) -> Option<Done> {
        match &mut self.backing {
            Backing::Ram(_) => None,
            Backing::Disk(volume) => Volume::<P>::next_done(volume),
        }
    }

    fn finish(&mut self, done: Done, memory: &P, offset: u32) -> Result<(), VolumeError> {
        match &mut self.backing {
            Backing::Ram(_) => Ok(()),
            Backing::Disk(volume) => volume.finish(done, memory, offset),
        }
    }

    fn cancel(&mut self) {
        match &mut self.backing {
            Backing::Ram(_) => {}
            Backing::Disk(volume) => Volume::<P>::cancel(volume),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};
    use std::vec;

    fn registry() -> Registry {
        let allocate = |bytes: u64, _: Purpose| -> Option<Box<dyn Storage>> {
            (bytes <= 4096).then(|| Box::new(vec![0_u8; bytes.try_into().unwrap()]) as Box<dyn Storage>)
        };
        Registry::new(Some(Box::new(vec![7_u8; 1300])), Vec::new(), Box::new(allocate), Box::new(|_| None))
    }

    impl Registry {
        /// Opens what needs no disk.
        fn open_now(&self, spec: &VolumeSpec, access: Access) -> Result<OpenVolume, OpenError> {
            let mut opening = pin!(self.open(spec, access, 0));
            match opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(opened) => opened,
                Poll::Pending => panic!("it waits for a disk"),
            }
        }
    }

    fn geometry(volume: &OpenVolume) -> Geometry {
        Volume::<crate::fake::FakePinned>::geometry(volume)
    }

    #[test]
    fn initrd_tail_is_cut_to_whole_sectors() {
        let volume = registry().open_now(&VolumeSpec::Initrd, Access::ReadOnly).unwrap();
        let geometry = geometry(&volume);
        assert_eq!((geometry.sectors, geometry.block_bytes, geometry.read_only), (2, 512, true));
    }

    #[test]
    fn readers_share() {
        let registry = registry();
        let _first = registry.open_now(&VolumeSpec::Initrd, Access::ReadOnly).unwrap();
        assert!(registry.open_now(&VolumeSpec::Initrd, Access::ReadOnly).is_ok());
    }

    #[test]
    fn a_writer_is_alone() {
        let registry = registry();
        let _writer = registry.open_now(&VolumeSpec::Initrd, Access::ReadWrite).unwrap();
        assert_eq!(
            registry.open_now(&VolumeSpec::Initrd, Access::ReadOnly).unwrap_err(),
            OpenError::BeingWritten
        );
    }

    #[test]
    fn a_reader_keeps_writers_out() {
        let registry = registry();
        let _reader = registry.open_now(&VolumeSpec::Initrd, Access::ReadOnly).unwrap();
        assert_eq!(
            registry.open_now(&VolumeSpec::Initrd, Access::ReadWrite).unwrap_err(),
            OpenError::BeingRead
        );
    }

    #[test]
    fn closing_lets_the_next_one_write() {
        let registry = registry();
        drop(registry.open_now(&VolumeSpec::Initrd, Access::ReadWrite).unwrap());
        assert!(registry.open_now(&VolumeSpec::Initrd, Access::ReadWrite).is_ok());
    }

    #[test]
    fn every_opening_of_ram_is_a_volume_of_its_own() {
        let registry = registry();
        let _first = registry.open_now(&VolumeSpec::Ram { bytes: 1024 }, Access::ReadWrite).unwrap();
        assert!(registry.open_now(&VolumeSpec::Ram { bytes: 1024 }, Access::ReadWrite).is_ok());
    }

    #[test]
    fn ram_that_is_not_there_is_refused() {
        let refused = registry().open_now(&VolumeSpec::Ram { bytes: 8192 }, Access::ReadWrite).unwrap_err();
        assert_eq!(refused, OpenError::NoRam(8192));
    }

    #[test]
    fn without_a_network_there_are_no_exports() {
        let spec = VolumeSpec::parse("nbd:10.0.0.1/").unwrap();
        assert_eq!(registry().open_now(&spec, Access::ReadOnly).unwrap_err(), OpenError::NoNetwork);
    }

    #[test]
    fn a_missing_initrd_is_refused() {
        let registry = Registry::new(None, Vec::new(), Box::new(|_, _| None), Box::new(|_| None));
        assert_eq!(
            registry.open_now(&VolumeSpec::Initrd, Access::ReadOnly).unwrap_err(),
            OpenError::NoInitrd
        );
    }
}
