//! What the bridge asks of a physical NIC's driver: a [`Nic`].
//!
//! Neighbours: [`crate::hardware::net`] is the driver of virtio NICs, [`crate::net::uplink`] joins one to the bridge.

use crate::net::MacAddress;

/// Why a NIC did not carry out what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NicError {
    /// Ours: all its buffers are under way.
    #[error("no free buffer")]
    Busy,
    /// It broke its own protocol, asks to be reset, or is gone: nothing more is sent to it.
    #[error("the NIC is out of order")]
    Broken,
}

/// A physical NIC. It does no offloads for us: frames are whole, with all checksums, and no larger than
/// [`crate::net::frame::WIRE_BYTES_MAX`].
pub trait Nic {
    /// Its address, by which the network knows it; the bridge does not use it.
    fn address(&self) -> MacAddress;

    /// Whether there is a network behind it.
    fn link_is_up(&self) -> bool;

    /// Hands the next frame that came to `take`. Returns whether there was one.
    ///
    /// # Errors
    /// [`NicError::Broken`].
    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<bool, NicError>;

    /// Copies the frame that is `front` and `rest`, one after the other, to the device, which need not look at it before
    /// [`Self::kick`].
    ///
    /// # Errors
    /// [`NicError`].
    fn transmit(&mut self, front: &[u8], rest: &[u8]) -> Result<(), NicError>;

    /// Lets the device know of what it was given since the last call.
    fn kick(&mut self);

    /// Asks for an interrupt for frames that come from now on, or for none; with `also_sent` for frames that were sent, too.
    /// Returns whether there is something already, for which there may be no interrupt.
    fn want_interrupts(&mut self, wanted: bool, also_sent: bool) -> bool;

    /// Takes note of an interrupt.
    ///
    /// # Errors
    /// [`NicError::Broken`] when the device says that it needs a reset.
    fn acknowledge_interrupt(&mut self) -> Result<(), NicError>;
}
