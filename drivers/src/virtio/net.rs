//! The virtio-net device model (virtio 1.2, 5.1): a guest's port of the bridge.
//!
//! Frames that the guest sends are taken out of its memory as they come; frames for it wait in its port's inbox until it has
//! buffers for them, and are lost, and counted, when that is full. What a frame alleges that is not so costs the frame;
//! only chains that are malformed, or too short for what each must have, end the queue.
//!
//! | file | job |
//! |---|---|
//! | [`config`] | features and configuration space |
//! | [`header`] | the header before each frame |
//! | `transmit` | frames from the guest |
//! | `receive` | frames to the guest |
//! | `control` | what the guest wants to receive |

pub mod config;
mod control;
pub mod header;
mod receive;
mod transmit;

use super::batch::Batch;
use super::complaints::Complaints;
use super::queue::{MAX_SIZE, Queue};
use super::{Device, Features, QueueIndex, Served};
use crate::guest::GuestMemory;
use crate::net::bridge::Port;
use alloc::string::String;
use config::Config;
use control::Control;
use core::cell::Cell;
use receive::Receive;
use transmit::Transmit;

/// Sizes of the queues to receive, to transmit and to control (virtio 1.2, 5.1.2).
const QUEUE_SIZES: [u16; 3] = [MAX_SIZE, MAX_SIZE, 64];
const RECEIVE: QueueIndex = QueueIndex(0);
const TRANSMIT: QueueIndex = QueueIndex(1);
const CONTROL: QueueIndex = QueueIndex(2);

/// What a device did since it was made. "Sent" is by the guest, "received" is by it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub frames_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Frames not sent for lack of a buffer of ours.
    pub send_drops: u64,
    /// Frames received; of one that was cut, its pieces.
    pub frames_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Frames not received: no buffer was large enough, or we had no room to reach it.
    pub receive_drops: u64,
    /// Commands carried out.
    pub commands: u64,
    /// Times that the guest was asked to announce itself.
    pub announcements: u64,
    /// Frames and commands refused, and buffers that could not be reached.
    pub errors: u64,
}

/// What a device did, and says of it.
struct Record {
    name: String,
    counters: Counters,
    complaints: Complaints,
}

impl Record {
    /// Counts an error, with a line in the log for the first since the reset.
    fn refuse(&mut self, reason: &dyn core::fmt::Display) {
        self.counters.errors += 1;
        if self.complaints.may_speak() {
            log::warn!("{}: refused: {reason} (said once per reset)", self.name);
        }
    }
}

/// What the queues of a device share.
struct Common {
    port: Port,
    /// Only features that have what they need.
    accepted: Features,
    batch: Batch,
    record: Record,
}

/// A request to the driver to announce itself (virtio 1.2, 5.1.6.5.4). Noticed when somebody asks whether there is work.
#[derive(Default)]
struct Announcement {
    /// The driver has not answered it.
    is_wanted: Cell<bool>,
    /// The driver was not told.
    is_new: Cell<bool>,
}

/// A virtio-net device.
pub struct NetDevice {
    common: Common,
    receive: Receive,
    transmit: Transmit,
    control: Control,
    announcement: Announcement,
}

impl NetDevice {
    /// A device on `port`, whose address is the guest's. Log lines start with `name`.
    #[must_use]
    pub fn new(name: String, port: Port) -> Self {
        let record = Record { name, counters: Counters::default(), complaints: Complaints::default() };
        Self {
            common: Common { port, accepted: Features::empty(), batch: Batch::default(), record },
            receive: Receive::default(),
            transmit: Transmit::default(),
            control: Control::default(),
            announcement: Announcement::default(),
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.common.record.counters
    }

    /// Its port of the bridge.
    #[must_use]
    pub fn port(&self) -> &Port {
        &self.common.port
    }

    fn look_for_announcement(&self) {
        let Common { port, accepted, .. } = &self.common;
        if accepted.contains(config::GUEST_ANNOUNCE) && port.take_announcement() {
            self.announcement.is_wanted.set(true);
            self.announcement.is_new.set(true);
        }
    }
}

impl<M: GuestMemory> Device<M> for NetDevice {
    fn name(&self) -> &str {
        &self.common.record.name
    }

    fn id(&self) -> u32 {
        config::DEVICE_ID
    }

    fn features(&self) -> Features {
        config::features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        Config::new(self.common.port.address(), self.announcement.is_wanted.get()).read(offset, out);
    }

    fn read_refused_config(&self, _offset: u32, out: &mut [u8]) {
        out.fill(0);
    }

    fn write_config(&mut self, _offset: u32, _data: &[u8]) {}

    fn activate(&mut self, accepted: Features) {
        self.common.accepted = config::consistent(accepted);
        self.control.start(&mut self.common);
    }

    fn resume(&mut self, accepted: Features) {
        self.common.accepted = config::consistent(accepted);
        self.control.resume(&mut self.common);
    }

    fn reset(&mut self) {
        self.common.accepted = Features::empty();
        self.common.record.complaints.reset();
        self.common.port.set_filter(None);
        self.common.port.reset_address();
        self.receive = Receive::default();
        self.control = Control::default();
        self.announcement = Announcement::default();
    }

    fn has_work(&self) -> bool {
        self.look_for_announcement();
        self.announcement.is_new.get() || self.receive.has_work(&self.common.port)
    }

    fn is_polled(&self, index: QueueIndex) -> bool {
        index != CONTROL
    }

    fn take_config_change(&mut self) -> bool {
        let is_new = self.announcement.is_new.take();
        self.common.record.counters.announcements += u64::from(is_new);
        is_new
    }

    fn serve(&mut self, index: QueueIndex, queue: &mut Queue<M::Pinned>, memory: &M) -> Served {
        let served = match index {
            RECEIVE => self.receive.serve(queue, memory, &mut self.common),
            TRANSMIT => self.transmit.serve(queue, memory, &mut self.common),
            CONTROL => self.control.serve(queue, memory, &mut self.common, &self.announcement.is_wanted),
            _ => Ok(Served::default()),
        };
        served.unwrap_or_else(|error| Served { broken: Some(error), ..Served::default() })
    }
}
