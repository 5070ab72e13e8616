//! What the sender of a frame left to its receiver: to complete a checksum, to cut a large TCP segment into many.
//!
//! From one guest to another a frame goes as it is, and neither is ever done. A receiver that cannot do it by itself
//! gets [`pieces`], for which we do it.
//!
//! What a sender alleges is held against the frame once, when it is in a buffer of ours ([`Offload::check`]). `cut` looks
//! at the frame again where it needs more, rather than to remember it.

mod cut;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use cut::{Piece, Pieces, pieces};

use super::frame::WIRE_BYTES_MAX;
use super::headers::{TcpSegment, behind_tags};

/// A checksum that is to be completed: it covers all bytes from `start` on, and its place holds the sum of the pseudo-header
/// (virtio 1.2, 5.1.6.2, `VIRTIO_NET_HDR_F_NEEDS_CSUM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte that it covers.
    pub start: u16,
    /// Its place, from `start` on.
    pub offset: u16,
}

/// Protocol of a frame that is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentedProtocol {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
}

/// A frame that is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What it carries.
    pub protocol: SegmentedProtocol,
    /// Bytes of TCP payload in each piece but the last.
    pub segment_bytes: u16,
    /// Bytes of all headers, which each piece begins with; from our own look at the frame.
    pub header_bytes: u16,
}

/// What is left to do. Says nothing that was not checked against the frame's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// A checksum has to be completed.
    pub checksum: Option<PartialChecksum>,
    /// The frame has to be cut; then `checksum` is there too.
    pub segmentation: Option<Segmentation>,
    /// The sender vouches for the checksum that the frame has; never with a `checksum` to complete.
    pub is_verified: bool,
}

/// What a sender alleges of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allegation {
    /// See [`Offload::checksum`].
    pub checksum: Option<PartialChecksum>,
    /// Protocol, and bytes of payload in each piece.
    pub segmentation: Option<(SegmentedProtocol, u16)>,
    /// See [`Offload::is_verified`].
    pub is_verified: bool,
}

/// Why an allegation cannot be true of a frame, or asks too much of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The place of the checksum is not inside the frame, or behind the first [`HEADER_BYTES_MAX`] bytes, or among what
    /// the bridge goes by (addresses, VLAN tags); or, in a frame to be cut, not TCP's.
    #[error("no checksum can be in the place that is said")]
    Checksum,
    /// It is no TCP segment of that protocol, or a header is cut off.
    #[error("a frame to be cut is no TCP segment")]
    NotTcp,
    /// Pieces of no byte, or too large for the wire, or more than [`PIECES_MAX`].
    #[error("a frame cannot be cut into pieces of {0} bytes")]
    SegmentBytes(u16),
}

/// Most pieces that a frame is cut into. One of 64 KiB is, for a network with an MTU of 576 bytes, the smallest that IPv4
/// hosts expect; a guest that says 1 byte would have us make 65,000 frames of one.
pub const PIECES_MAX: usize = 128;

/// Where the checksum is in a TCP header (RFC 9293, 3.1).
const TCP_CHECKSUM: u16 = 16;

impl Offload {
    /// What of `allegation` is left to do of the frame `bytes`.
    ///
    /// # Errors
    /// [`OffloadError`].
    pub fn check(allegation: Allegation, bytes: &[u8]) -> Result<Self, OffloadError> {
        let checksum = allegation.checksum;
        if let Some(place) = checksum {
            check_place(place, bytes)?;
        }
        let segmentation = match allegation.segmentation {
            Some((protocol, segment_bytes)) => check_segmentation(protocol, segment_bytes, checksum, bytes)?,
            None => None,
        };
        Ok(Self { checksum, segmentation, is_verified: allegation.is_verified && checksum.is_none() })
    }
}

fn check_place(place: PartialChecksum, bytes: &[u8]) -> Result<(), OffloadError> {
    let start = usize::from(place.start);
    let end = start + usize::from(place.offset) + 2;
    match behind_tags(bytes) {
        Some((_, first)) if start >= first && end <= bytes.len().min(HEADER_BYTES_MAX) => Ok(()),
        _ => Err(OffloadError::Checksum),
    }
}

/// None for a frame that is one piece already.
fn check_segmentation(
    protocol: SegmentedProtocol,
    segment_bytes: u16,
    checksum: Option<PartialChecksum>,
    bytes: &[u8],
) -> Result<Option<Segmentation>, OffloadError> {
    let segment = TcpSegment::find(bytes).filter(|segment| segment.protocol == protocol);
    let TcpSegment { transport, payload, .. } = segment.ok_or(OffloadError::NotTcp)?;
    let is_tcps =
        |place: PartialChecksum| usize::from(place.start) == transport && place.offset == TCP_CHECKSUM;
    if !checksum.is_some_and(is_tcps) {
        return Err(OffloadError::Checksum);
    }
    let piece = usize::from(segment_bytes);
    let payload_bytes = bytes.len().saturating_sub(payload);
    if piece == 0 || payload + piece > WIRE_BYTES_MAX || payload_bytes.div_ceil(piece) > PIECES_MAX {
        return Err(OffloadError::SegmentBytes(segment_bytes));
    }
    let header_bytes = u16::try_from(payload).map_err(|_| OffloadError::NotTcp)?;
    Ok((payload_bytes > piece).then_some(Segmentation { protocol, segment_bytes, header_bytes }))
}

/// What a receiver does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Complete checksums, or do without.
    pub checksum: bool,
    /// Take TCP over IPv4 uncut.
    pub tcp4: bool,
    /// Take TCP over IPv6 uncut.
    pub tcp6: bool,
}

/// Most bytes of headers before TCP payload: Ethernet, VLAN tags, IPv4 with options or IPv6 with extensions, TCP with options.
pub const HEADER_BYTES_MAX: usize = 256;
