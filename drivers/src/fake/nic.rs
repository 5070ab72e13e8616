//! A NIC made of host memory: what comes from outside is put in by a test, what is sent there is kept for it.

use crate::net::MacAddress;
use crate::nic::{Nic, NicError};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// The NIC's address.
pub const ADDRESS: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

#[derive(Default)]
struct Inner {
    incoming: RefCell<VecDeque<Vec<u8>>>,
    sent: RefCell<Vec<Vec<u8>>>,
    room: Cell<usize>,
    link_is_up: Cell<bool>,
    is_broken: Cell<bool>,
    kicks: Cell<usize>,
    wanted: Cell<(bool, bool)>,
}

/// A NIC. Clones are handles of the same one.
#[derive(Clone)]
pub struct FakeNic(Rc<Inner>);

impl FakeNic {
    /// A NIC with its link up, and room for `room` frames to send.
    #[must_use]
    pub fn new(room: usize) -> Self {
        let inner = Inner { room: Cell::new(room), link_is_up: Cell::new(true), ..Inner::default() };
        Self(Rc::new(inner))
    }

    /// A frame comes from outside.
    pub fn put(&self, frame: &[u8]) {
        self.0.incoming.borrow_mut().push_back(frame.to_vec());
    }

    /// The frames sent since this was asked last.
    #[must_use]
    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        self.0.sent.take()
    }

    /// From now on there is room for so many frames.
    pub fn set_room(&self, room: usize) {
        self.0.room.set(room);
    }

    /// Plugs the cable in, or pulls it.
    pub fn set_link(&self, is_up: bool) {
        self.0.link_is_up.set(is_up);
    }

    /// From now on it is out of order.
    pub fn break_down(&self) {
        self.0.is_broken.set(true);
    }

    /// Times that it was kicked.
    #[must_use]
    pub fn kicks(&self) -> usize {
        self.0.kicks.get()
    }

    /// Which interrupts are wanted: for frames that come, for frames that were sent.
    #[must_use]
    pub fn wanted(&self) -> (bool, bool) {
        self.0.wanted.get()
    }

    fn check(&self) -> Result<(), NicError> {
        if self.0.is_broken.get() { Err(NicError::Broken) } else { Ok(()) }
    }
}

impl Nic for FakeNic {
    fn address(&self) -> MacAddress {
        ADDRESS
    }

    fn link_is_up(&self) -> bool {
        self.0.link_is_up.get()
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<bool, NicError> {
        self.check()?;
        let frame = self.0.incoming.borrow_mut().pop_front();
        Ok(frame.inspect(|frame| take(frame)).is_some())
    }

    fn transmit(&mut self, front: &[u8], rest: &[u8]) -> Result<(), NicError> {
        self.check()?;
        let room = self.0.room.get().checked_sub(1).ok_or(NicError::Busy)?;
        self.0.room.set(room);
        self.0.sent.borrow_mut().push([front, rest].concat());
        Ok(())
    }

    fn kick(&mut self) {
        self.0.kicks.set(self.0.kicks.get() + 1);
    }

    fn want_interrupts(&mut self, wanted: bool, also_sent: bool) -> bool {
        self.0.wanted.set((wanted, also_sent));
        !self.0.incoming.borrow().is_empty()
    }

    fn acknowledge_interrupt(&mut self) -> Result<(), NicError> {
        self.check()
    }
}
