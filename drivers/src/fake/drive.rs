//! A disk for tests: it answers when it is told to, in any order, fails on demand, and forgets what was not flushed.

use crate::block::{Operation, SECTOR_BYTES};
use crate::drive::{Drive, DriveError, DriveFacts, Finished, TIME_LIMIT_NS};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{RefCell, RefMut};

/// What a [`FakeDisk`] is made of, for the test to look into and change.
pub struct FakeState {
    /// Size and abilities.
    pub facts: DriveFacts,
    /// The content, as a read finds it.
    pub bytes: Vec<u8>,
    /// The content that a power cut leaves.
    pub durable: Vec<u8>,
    /// Commands that were submitted, the kicked and the others: slot, command, data to be written.
    pub at_device: VecDeque<(u16, Operation, Vec<u8>)>,
    /// Commands in the order in which they were carried out.
    pub carried_out: Vec<Operation>,
    /// Errors for the next commands to be carried out.
    pub errors: VecDeque<DriveError>,
    /// Answers that the driver has not yet taken, with the data that was read.
    pub answers: VecDeque<(Finished, Vec<u8>)>,
    /// Commands are carried out at each kick.
    pub is_prompt: bool,
    /// The device broke down.
    pub is_broken: bool,
    /// The driver wants interrupts.
    pub interrupts_wanted: bool,
    /// Kicks so far.
    pub kicks: usize,
}

/// A disk made of host memory. Clones are handles of the same disk.
#[derive(Clone)]
pub struct FakeDisk(Rc<RefCell<FakeState>>);

/// Its driver.
pub struct FakeDrive {
    disk: FakeDisk,
    buffers: Vec<Vec<u8>>,
    at_device: Vec<bool>,
}

/// Bytes of a slot's buffer.
pub const BUFFER_BYTES: u32 = 4096;

impl FakeDisk {
    /// A disk of `sectors` sectors of zeroes with `slots` slots of [`BUFFER_BYTES`], which carries commands out at once.
    #[must_use]
    pub fn new(sectors: u64, slots: u16) -> Self {
        let length = usize::try_from(sectors * SECTOR_BYTES).unwrap_or(0);
        let facts = DriveFacts {
            sectors,
            block_bytes: 512,
            read_only: false,
            has_cache: true,
            discard_sectors_max: 64,
            write_zeroes_sectors_max: 64,
            slots,
            buffer_bytes: BUFFER_BYTES,
            time_limit_ns: TIME_LIMIT_NS,
        };
        Self(Rc::new(RefCell::new(FakeState {
            facts,
            bytes: alloc::vec![0; length],
            durable: alloc::vec![0; length],
            at_device: VecDeque::new(),
            carried_out: Vec::new(),
            errors: VecDeque::new(),
            answers: VecDeque::new(),
            is_prompt: true,
            is_broken: false,
            interrupts_wanted: false,
            kicks: 0,
        })))
    }

    /// A driver for it.
    #[must_use]
    pub fn drive(&self) -> FakeDrive {
        let slots = usize::from(self.0.borrow().facts.slots);
        FakeDrive {
            disk: self.clone(),
            buffers: alloc::vec![alloc::vec![0; BUFFER_BYTES as usize]; slots],
            at_device: alloc::vec![false; slots],
        }
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> RefMut<'_, FakeState> {
        self.0.borrow_mut()
    }

    /// Carries out the command that was submitted `index`-th of those still waiting.
    pub fn carry_out(&self, index: usize) {
        let mut state = self.0.borrow_mut();
        if let Some((slot, operation, mut data)) = state.at_device.remove(index) {
            let result = state.carry_out(operation, &mut data);
            state.answers.push_back((Finished { slot, result }, data));
        }
    }

    /// Carries out all that was submitted.
    pub fn carry_out_all(&self) {
        while !self.0.borrow().at_device.is_empty() {
            self.carry_out(0);
        }
    }
}

impl FakeState {
    fn carry_out(&mut self, operation: Operation, data: &mut Vec<u8>) -> Result<(), DriveError> {
        self.carried_out.push(operation);
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        match operation {
            Operation::Read { sector, length } => {
                *data = self.sectors(sector, length.into())?.to_vec();
            }
            Operation::Write { sector, length } => {
                self.sectors(sector, length.into())?.copy_from_slice(data);
            }
            Operation::Flush => self.durable.clone_from(&self.bytes),
            Operation::Discard { sector, sectors } | Operation::WriteZeroes { sector, sectors } => {
                self.sectors(sector, u64::from(sectors) * SECTOR_BYTES)?.fill(0);
            }
        }
        Ok(())
    }

    fn sectors(&mut self, sector: u64, length: u64) -> Result<&mut [u8], DriveError> {
        let start = usize::try_from(sector * SECTOR_BYTES).map_err(|_| DriveError::Io)?;
        let length = usize::try_from(length).map_err(|_| DriveError::Io)?;
        self.bytes.get_mut(start..).and_then(|rest| rest.get_mut(..length)).ok_or(DriveError::Io)
    }
}

impl Drive for FakeDrive {
    fn facts(&self) -> DriveFacts {
        self.disk.state().facts
    }

    fn buffer(&mut self, slot: u16) -> &mut [u8] {
        let slot = usize::from(slot);
        match (self.buffers.get_mut(slot), self.at_device.get(slot)) {
            (Some(buffer), Some(false)) => buffer,
            _ => &mut [],
        }
    }

    fn submit(&mut self, slot: u16, operation: Operation) -> Result<(), DriveError> {
        let at_device = self.at_device.get_mut(usize::from(slot)).ok_or(DriveError::Busy)?;
        if core::mem::replace(at_device, true) {
            return Err(DriveError::Busy);
        }
        let length = match operation {
            Operation::Write { length, .. } => length as usize,
            _ => 0,
        };
        let data = self.buffers.get(usize::from(slot)).and_then(|buffer| buffer.get(..length));
        self.disk.state().at_device.push_back((slot, operation, data.unwrap_or_default().to_vec()));
        Ok(())
    }

    fn kick(&mut self) {
        self.disk.state().kicks += 1;
        let is_prompt = self.disk.state().is_prompt;
        if is_prompt {
            self.disk.carry_out_all();
        }
    }

    fn next_finished(&mut self) -> Result<Option<Finished>, DriveError> {
        let mut state = self.disk.state();
        if state.is_broken {
            return Err(DriveError::Broken);
        }
        let Some((finished, data)) = state.answers.pop_front() else { return Ok(None) };
        if let Some(at_device) = self.at_device.get_mut(usize::from(finished.slot)) {
            *at_device = false;
        }
        if let Some(buffer) = self.buffers.get_mut(usize::from(finished.slot)) {
            buffer.iter_mut().zip(data).for_each(|(to, from)| *to = from);
        }
        Ok(Some(finished))
    }

    fn want_interrupts(&mut self, wanted: bool) -> bool {
        let mut state = self.disk.state();
        state.interrupts_wanted = wanted;
        !state.answers.is_empty()
    }

    fn acknowledge_interrupt(&mut self) -> Result<(), DriveError> {
        if self.disk.state().is_broken { Err(DriveError::Broken) } else { Ok(()) }
    }
}
