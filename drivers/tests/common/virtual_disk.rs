//! The driver of virtio disks, and its disk: our own device model.

use super::ModelDisk;
use super::virtio_guest::{GuestHal, Registers, host_memory, registers_of};
use drivers::block::Operation;
use drivers::drive::{Drive, DriveError, Finished};
use drivers::fake::FakeLine;
use drivers::hardware::block::VirtioDisk;

pub struct VirtualDisk {
    pub drive: VirtioDisk<GuestHal, Registers>,
    pub registers: Registers,
    pub model: ModelDisk,
    pub line: FakeLine,
}

impl VirtualDisk {
    /// A disk that works on what it is told at each kick.
    pub fn new(model: ModelDisk, slots_max: usize) -> Self {
        let line = FakeLine::default();
        let registers = registers_of(Box::new(model.clone()), &host_memory(), &line);
        let drive = VirtioDisk::new(registers.clone(), slots_max).unwrap();
        Self { drive, registers, model, line }
    }
}

/// Reads one sector.
pub fn read_at(sector: u16) -> Operation {
    Operation::Read { sector: sector.into(), length: 512 }
}

/// All commands that are finished, with their slots.
pub fn finish_all(drive: &mut impl Drive) -> Vec<(u16, Result<(), DriveError>)> {
    core::iter::from_fn(|| drive.next_finished().unwrap())
        .map(|Finished { slot, result }| (slot, result))
        .collect()
}

/// What comes of a command alone.
pub fn finished(drive: &mut impl Drive, slot: u16, command: Operation) -> Result<(), DriveError> {
    drive.submit(slot, command).unwrap();
    drive.kick();
    let [(of, result)] = finish_all(drive)[..] else { panic!("one command, one answer") };
    assert_eq!(of, slot);
    result
}
