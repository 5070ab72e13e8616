//! Reads of a disk for ourselves, such as of its partition table: futures that wait for the device.

use super::disk::{ClientKey, Disk};
use super::gpt::ReadSectors;
use crate::block::{Begun, Operation, SECTOR_BYTES, Tag, VolumeError};
use crate::drive::DriveError;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Context, Poll};

/// In how much time all that is read must be there. A guest waits for it, and xl for the guest: less than xl's 10 s.
const TIME_LIMIT_NS: u64 = 5_000_000_000;

/// The only command under way.
const TAG: Tag = Tag(0);

/// A reader of a whole disk.
pub struct DiskReader {
    name: String,
    disk: Rc<RefCell<Disk>>,
    client: ClientKey,
    /// When the last answer must be there.
    deadline_ns: u64,
}

impl DiskReader {
    /// A reader of `disk`.
    #[must_use]
    pub fn new(disk: &Rc<RefCell<Disk>>) -> Self {
        let sectors = 0..disk.borrow().facts().sectors;
        let client = disk.borrow_mut().open(sectors);
        let deadline_ns = disk.borrow().now_ns().saturating_add(TIME_LIMIT_NS);
        let name = disk.borrow().name().into();
        Self { name, disk: disk.clone(), client, deadline_ns }
    }

    fn begin(&self, context: &Context<'_>, operation: Operation) -> Poll<Result<(), VolumeError>> {
        let mut disk = self.disk.borrow_mut();
        if disk.now_ns() >= self.deadline_ns || disk.room(self.client) == 0 {
            return self.wait(&mut disk, context);
        }
        match disk.begin(self.client, TAG, operation, |_| Ok(())) {
            Begun::Done(result) => Poll::Ready(result),
            Begun::Pending => Poll::Ready(Ok(())),
        }
    }

    fn finish(&self, context: &Context<'_>, out: &mut [u8]) -> Poll<Result<(), VolumeError>> {
        let mut disk = self.disk.borrow_mut();
        let Some(done) = disk.next_done(self.client) else { return self.wait(&mut disk, context) };
        Poll::Ready(disk.finish(done.outcome, |bytes| {
            out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            Ok(())
        }))
    }

    /// Waits for the next thing that the disk does, unless it is too late for that.
    fn wait(&self, disk: &mut Disk, context: &Context<'_>) -> Poll<Result<(), VolumeError>> {
        if disk.now_ns() >= self.deadline_ns {
            return Poll::Ready(Err(DriveError::Silent.into()));
        }
        disk.wake_when_done(context.waker(), self.deadline_ns);
        Poll::Pending
    }
}

impl Drop for DiskReader {
    fn drop(&mut self) {
        self.disk.borrow_mut().close(self.client);
    }
}

impl ReadSectors for DiskReader {
    fn name(&self) -> &str {
        &self.name
    }

    async fn read(&self, sector: u64, out: &mut [u8]) -> Result<(), VolumeError> {
        let most = self.disk.borrow().facts().buffer_bytes.max(1);
        let mut sector = sector;
        for part in out.chunks_mut(most as usize) {
            let length = u32::try_from(part.len()).map_err(|_| VolumeError::OutOfRange)?;
            poll_fn(|context| self.begin(context, Operation::Read { sector, length })).await?;
            poll_fn(|context| self.finish(context, part)).await?;
            sector += u64::from(length) / SECTOR_BYTES;
        }
        Ok(())
    }
}
