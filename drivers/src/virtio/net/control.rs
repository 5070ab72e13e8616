//! The control queue (virtio 1.2, 5.1.6.5): what the guest wants to receive, its address, and its answer to a request to announce itself.
//!
//! A command is a class, a number in it and data, all readable, and a writable byte for the answer. Commands that make no
//! sense, or lack their feature, are answered with an error; only one without that byte ends the queue.

use super::Common;
use super::config::{CTRL_MAC_ADDR, CTRL_RX, CTRL_RX_EXTRA, CTRL_VLAN, GUEST_ANNOUNCE};
use crate::guest::{GuestMemory, GuestRegion, MemoryError, PinnedMemory};
use crate::net::MacAddress;
use crate::net::bridge::Port;
use crate::net::filter::{ADDRESSES_MAX, Filter, VLANS};
use crate::virtio::batch::Bounds;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{Queue, QueueError, Used};
use crate::virtio::{Features, Served};
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::cell::Cell;

/// VIRTIO_NET_OK
const OK: u8 = 0;
/// VIRTIO_NET_ERR
const ERROR: u8 = 1;

/// Most bytes of a command: more than 600 addresses.
const COMMAND_BYTES_MAX: usize = 4096;
/// Most commands in a call.
const ENOUGH_COMMANDS: u16 = 8;

const ADDRESS_BYTES: usize = 6;

/// A bit for each VLAN.
type Vlans = [u64; VLANS / 64];

// Classes, and the commands in them.
const RX: u8 = 0;
const MAC: u8 = 1;
const VLAN: u8 = 2;
const ANNOUNCE: u8 = 3;
const PROMISC: u8 = 0;
const ALLMULTI: u8 = 1;
const ALLUNI: u8 = 2;
const NOMULTI: u8 = 3;
const NOUNI: u8 = 4;
const NOBCAST: u8 = 5;
const TABLE_SET: u8 = 0;
const ADDR_SET: u8 = 1;
const ADD: u8 = 0;
const DELETE: u8 = 1;
const ACK: u8 = 0;

/// Why a command was answered with an error.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Refusal {
    #[error("control command {0}.{1} is none, or was not negotiated")]
    Unknown(u8, u8),
    #[error("control command {0}.{1} with data that it cannot have")]
    Malformed(u8, u8),
    #[error("a control command of {0} bytes")]
    Length(usize),
    #[error("the address {0}, which it cannot have")]
    Address(MacAddress),
    #[error("no memory for a control command")]
    NoMemory,
    #[error("{0}")]
    Memory(#[from] MemoryError),
}

impl From<TryReserveError> for Refusal {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

/// The control queue's side of a device.
#[derive(Default)]
pub struct Control {
    /// What was asked for.
    filter: Filter,
    /// There were too many stations, or groups, for a table: all of them are wanted.
    too_many: TooMany,
    /// Another kernel was told which address it has, and which it wants: frames for all stations and groups come.
    is_resumed: bool,
}

#[derive(Clone, Copy, Default)]
struct TooMany {
    unicast: bool,
    multicast: bool,
}

impl Control {
    /// The driver is up: it gets everything until it says what it wants, but, if it filters VLANs, none yet.
    pub fn start(&mut self, common: &mut Common) {
        // For want of memory they are not filtered.
        let vlans =
            if common.accepted.contains(CTRL_VLAN) { copied_vlans(&[0; VLANS / 64]).ok() } else { None };
        self.filter = Filter { vlans, ..everything() };
        self.too_many = TooMany::default();
        self.is_resumed = false;
        common.port.set_filter(Some(self.filter().unwrap_or_else(|_| everything())));
    }

    /// The driver has said what it wants, but to another kernel: it gets everything, of all VLANs, too.
    pub fn resume(&mut self, common: &mut Common) {
        self.start(common);
        self.is_resumed = true;
        if let Some(vlans) = &mut self.filter.vlans {
            vlans.fill(u64::MAX);
        }
        common.port.set_filter(Some(self.filter().unwrap_or_else(|_| everything())));
    }

    /// Carries out commands that wait, a bounded number. The driver is to announce itself while `announcement` is set.
    ///
    /// # Errors
    /// The rings are out of reach or their index is wrong.
    pub fn serve<M: GuestMemory>(
        &mut self,
        queue: &mut Queue<M::Pinned>,
        memory: &M,
        common: &mut Common,
        announcement: &Cell<bool>,
    ) -> Result<Served, QueueError> {
        let waiting = queue.waiting()?;
        if waiting == 0 {
            return Ok(Served::default());
        }
        common.batch.clear();
        common.batch.done.clear();
        let bounds = Bounds { chains: waiting.min(ENOUGH_COMMANDS), bytes: u32::MAX, large_bytes: u32::MAX };
        let mut broken = common.batch.take(queue, memory, bounds).err();
        let mut served = 0;
        while let Some(chain) = common.batch.chains.get(served).cloned() {
            if chain.writable_bytes == 0 {
                broken = Some(QueueError::NoStatus);
                break;
            }
            let length = self.answer(&chain, memory, common, announcement);
            common.batch.done.push(Used { id: chain.head, length });
            served += 1;
        }
        queue.complete(&common.batch.done)?;
        Ok(Served {
            requests: u32::try_from(served).unwrap_or(u32::MAX),
            interrupt: queue.wants_interrupt()?,
            more: served < usize::from(waiting),
            broken,
            ..Served::default()
        })
    }

    /// Carries out one command and answers it. Returns how many bytes were written.
    fn answer<M: GuestMemory>(
        &mut self,
        chain: &Chain,
        memory: &M,
        common: &mut Common,
        announcement: &Cell<bool>,
    ) -> u32 {
        let regions = common.batch.regions.get(chain.regions.clone()).unwrap_or_default();
        let done = read(chain.readable_bytes, regions, memory)
            .and_then(|command| self.carry_out(&command, common.accepted, &common.port, announcement));
        let answer = match &done {
            Ok(()) => {
                common.record.counters.commands += 1;
                OK
            }
            Err(refusal) => {
                common.record.refuse(refusal);
                ERROR
            }
        };
        match write(answer, chain.readable_bytes, regions, memory) {
            Ok(()) => 1,
            Err(error) => {
                common.record.refuse(&error);
                0
            }
        }
    }

    fn carry_out(
        &mut self,
        command: &[u8],
        accepted: Features,
        port: &Port,
        announcement: &Cell<bool>,
    ) -> Result<(), Refusal> {
        let &[class, number, ref data @ ..] = command else { return Err(Refusal::Length(command.len())) };
        let malformed = Refusal::Malformed(class, number);
        let needed = match (class, number) {
            (RX, PROMISC | ALLMULTI) | (MAC, TABLE_SET) => CTRL_RX,
            (RX, ALLUNI | NOMULTI | NOUNI | NOBCAST) => CTRL_RX_EXTRA,
            (MAC, ADDR_SET) => CTRL_MAC_ADDR,
            (VLAN, ADD | DELETE) => CTRL_VLAN,
            (ANNOUNCE, ACK) => GUEST_ANNOUNCE,
            _ => return Err(Refusal::Unknown(class, number)),
        };
        if !accepted.contains(needed) {
            return Err(Refusal::Unknown(class, number));
        }
        match class {
            RX => {
                let &[is_on] = data else { return Err(malformed) };
                let mode = match number {
                    PROMISC => &mut self.filter.promiscuous,
                    ALLMULTI => &mut self.filter.all_multicast,
                    ALLUNI => &mut self.filter.all_unicast,
                    NOMULTI => &mut self.filter.no_multicast,
                    NOUNI => &mut self.filter.no_unicast,
                    _ => &mut self.filter.no_broadcast,
                };
                *mode = is_on != 0;
            }
            MAC if number == ADDR_SET => {
                let address = MacAddress(data.try_into().map_err(|_| malformed)?);
                return if port.set_address(address) { Ok(()) } else { Err(Refusal::Address(address)) };
            }
            MAC => {
                let (unicast, rest) = table(data).ok_or(malformed)?;
                let (multicast, []) = table(rest).ok_or(malformed)? else { return Err(malformed) };
                let (unicast, multicast) = (addresses(unicast)?, addresses(multicast)?);
                self.too_many = TooMany { unicast: unicast.is_none(), multicast: multicast.is_none() };
                self.filter.unicast = unicast.unwrap_or_default();
                self.filter.multicast = multicast.unwrap_or_default();
            }
            VLAN => {
                let &[low, high] = data else { return Err(malformed) };
                let vlan = usize::from(u16::from_le_bytes([low, high]));
                let word = self.filter.vlans.as_mut().and_then(|vlans| vlans.get_mut(vlan / 64));
                let (Some(word), 0..VLANS) = (word, vlan) else { return Err(malformed) };
                let bit = 1 << (vlan % 64);
                *word = if number == ADD { *word | bit } else { *word & !bit };
            }
            _ => {
                announcement.set(false);
                return Ok(());
            }
        }
        port.set_filter(Some(self.filter()?));
        Ok(())
    }

    /// The filter for the port.
    fn filter(&self) -> Result<Filter, Refusal> {
        let Filter { promiscuous, no_multicast, no_unicast, no_broadcast, .. } = self.filter;
        Ok(Filter {
            promiscuous,
            all_multicast: self.filter.all_multicast || self.too_many.multicast || self.is_resumed,
            all_unicast: self.filter.all_unicast || self.too_many.unicast || self.is_resumed,
            no_multicast,
            no_unicast,
            no_broadcast,
            unicast: copied(&self.filter.unicast)?,
            multicast: copied(&self.filter.multicast)?,
            vlans: self.filter.vlans.as_deref().map(copied_vlans).transpose()?,
        })
    }
}

/// What a port wants whose driver has said nothing.
fn everything() -> Filter {
    Filter { promiscuous: true, ..Filter::default() }
}

/// Copies a command: the readable bytes of a chain with these buffers.
fn read<M: GuestMemory>(bytes: u32, regions: &[GuestRegion], memory: &M) -> Result<Vec<u8>, Refusal> {
    let length = bytes as usize;
    if length > COMMAND_BYTES_MAX {
        return Err(Refusal::Length(length));
    }
    let mut command = Vec::new();
    command.try_reserve_exact(length)?;
    command.resize(length, 0);
    let mut rest = command.as_mut_slice();
    for region in regions {
        // The writable buffers come last.
        let Some(part) = rest.split_off_mut(..region.length as usize) else { break };
        memory.read(region.address, part)?;
    }
    Ok(command)
}

/// Writes the answer to the first writable byte.
fn write<M: GuestMemory>(
    answer: u8,
    readable_bytes: u32,
    regions: &[GuestRegion],
    memory: &M,
) -> Result<(), MemoryError> {
    let mut skip = readable_bytes;
    let writable = regions.iter().find(|region| {
        let is_readable = skip > 0;
        skip = skip.saturating_sub(region.length);
        !is_readable
    });
    let address = writable.ok_or(MemoryError::OutOfRange)?.address;
    memory.pin(&[GuestRegion { address, length: 1 }])?.write(0, &[answer])
}

/// Splits a table of addresses off: their number, four bytes long, then they.
fn table(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = data.split_first_chunk()?;
    let bytes = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(ADDRESS_BYTES)?;
    rest.split_at_checked(bytes)
}

/// The addresses of a table; none when they are too many.
fn addresses(table: &[u8]) -> Result<Option<Vec<MacAddress>>, Refusal> {
    let (addresses, _) = table.as_chunks::<ADDRESS_BYTES>();
    if addresses.len() > ADDRESSES_MAX {
        return Ok(None);
    }
    let mut list = Vec::new();
    list.try_reserve_exact(addresses.len())?;
    list.extend(addresses.iter().copied().map(MacAddress));
    Ok(Some(list))
}

fn copied<T: Copy>(list: &[T]) -> Result<Vec<T>, Refusal> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(list.len())?;
    copy.extend_from_slice(list);
    Ok(copy)
}

fn copied_vlans(vlans: &Vlans) -> Result<Box<Vlans>, Refusal> {
    copied(vlans.as_slice())?.into_boxed_slice().try_into().map_err(|_| Refusal::NoMemory)
}
