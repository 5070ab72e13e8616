//! The header before each frame, `virtio_net_hdr` (virtio 1.2, 5.1.6): what a driver alleges, what we tell it.

use super::config::{CSUM, HOST_TSO4, HOST_TSO6};
use crate::net::offload::{Allegation, Capabilities, Offload, PartialChecksum, SegmentedProtocol};
use crate::virtio::Features;
use zerocopy::little_endian::U16;

/// Bytes of the header. With VIRTIO_F_VERSION_1 `num_buffers` is always there.
pub const HEADER_BYTES: usize = 12;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM: a checksum is left to the receiver.
const NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID: the checksum was found correct. Drivers must not say so.
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The header as it lies in guest memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
)]
#[repr(C)]
pub struct Header {
    flags: u8,
    gso_type: u8,
    /// Bytes of all headers: a hint, that we do not take.
    header_bytes: U16,
    /// Bytes of payload in each piece.
    gso_size: U16,
    checksum_start: U16,
    checksum_offset: U16,
    /// Chains that hold the frame.
    buffers: U16,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Why a driver must not send a frame with such a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The driver did not accept the feature for it.
    #[error("an offload that was not negotiated")]
    NotNegotiated,
    /// A kind of segmentation that we do not offer.
    #[error("segmentation of kind {0:#x}")]
    Kind(u8),
    /// To be cut, but its checksum is not left to us (virtio 1.2, 5.1.6.2.1).
    #[error("a frame to be cut without a checksum to complete")]
    NoChecksum,
}

impl From<[u8; HEADER_BYTES]> for Header {
    fn from(bytes: [u8; HEADER_BYTES]) -> Self {
        zerocopy::transmute!(bytes)
    }
}

impl Header {
    /// What a driver that `accepted` these features alleges of the frame behind it.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn allegation(&self, accepted: Features) -> Result<Allegation, HeaderError> {
        let checksum = (self.flags & NEEDS_CSUM != 0).then(|| PartialChecksum {
            start: self.checksum_start.get(),
            offset: self.checksum_offset.get(),
        });
        let (needed, protocol) = match self.gso_type {
            GSO_NONE => (Features::empty(), None),
            GSO_TCPV4 => (HOST_TSO4, Some(SegmentedProtocol::Tcp4)),
            GSO_TCPV6 => (HOST_TSO6, Some(SegmentedProtocol::Tcp6)),
            other => return Err(HeaderError::Kind(other)),
        };
        if protocol.is_some() && checksum.is_none() {
            return Err(HeaderError::NoChecksum);
        }
        if !accepted.contains(needed) || checksum.is_some() && !accepted.contains(CSUM) {
            return Err(HeaderError::NotNegotiated);
        }
        let segmentation = protocol.map(|protocol| (protocol, self.gso_size.get()));
        Ok(Allegation { checksum, segmentation, is_verified: false })
    }

    /// The header before a frame of which `offload` is left to a receiver that can do it, in the buffers of so many chains.
    #[must_use]
    pub fn new(offload: Offload, receiver: Capabilities, buffers: u16) -> Self {
        let mut header = Self { buffers: U16::new(buffers), ..Self::default() };
        if let Some(PartialChecksum { start, offset }) = offload.checksum {
            header.flags = NEEDS_CSUM;
            header.checksum_start = U16::new(start);
            header.checksum_offset = U16::new(offset);
        } else if offload.is_verified && receiver.checksum {
            header.flags = DATA_VALID;
        }
        if let Some(segmentation) = offload.segmentation {
            header.gso_type = match segmentation.protocol {
                SegmentedProtocol::Tcp4 => GSO_TCPV4,
                SegmentedProtocol::Tcp6 => GSO_TCPV6,
            };
            header.gso_size = U16::new(segmentation.segment_bytes);
            header.header_bytes = U16::new(segmentation.header_bytes);
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::offload::Segmentation;
    use zerocopy::IntoBytes;

    const ALL: Features = CSUM.union(HOST_TSO4).union(HOST_TSO6);
    const CAPABLE: Capabilities = Capabilities { checksum: true, tcp4: true, tcp6: true };

    fn header(flags: u8, gso_type: u8) -> Header {
        Header { flags, gso_type, gso_size: U16::new(1448), ..Header::default() }
    }

    #[test]
    fn what_was_not_negotiated_is_refused() {
        assert_eq!(header(1, 0).allegation(HOST_TSO4), Err(HeaderError::NotNegotiated));
        assert_eq!(header(1, 1).allegation(CSUM | HOST_TSO6), Err(HeaderError::NotNegotiated));
        assert_eq!(header(1, 4).allegation(CSUM | HOST_TSO4), Err(HeaderError::NotNegotiated));
        assert!(header(1, 1).allegation(ALL).is_ok() && header(1, 4).allegation(ALL).is_ok());
    }

    #[test]
    fn kinds_that_are_not_offered_are_refused() {
        for kind in [2, 3, 5, 0x80, 0x81, 0xff] {
            assert_eq!(header(1, kind).allegation(ALL), Err(HeaderError::Kind(kind)));
        }
        assert_eq!(header(0, 1).allegation(ALL), Err(HeaderError::NoChecksum));
    }

    #[test]
    fn a_driver_does_not_vouch_and_unknown_flags_mean_nothing() {
        assert_eq!(header(!NEEDS_CSUM, 0).allegation(ALL), Ok(Allegation::default()));
    }

    #[test]
    fn what_is_left_is_told_in_the_places_of_the_specification() {
        let offload = Offload {
            checksum: Some(PartialChecksum { start: 34, offset: 16 }),
            segmentation: Some(Segmentation {
                protocol: SegmentedProtocol::Tcp6,
                segment_bytes: 1440,
                header_bytes: 74,
            }),
            is_verified: true,
        };
        let header = Header::new(offload, CAPABLE, 3);
        assert_eq!(header.as_bytes(), [1, 4, 74, 0, 0xa0, 5, 34, 0, 16, 0, 3, 0]);
    }

    #[test]
    fn a_verified_checksum_is_told_to_who_asked_for_it() {
        let verified = Offload { is_verified: true, ..Offload::default() };
        assert_eq!(Header::new(verified, CAPABLE, 1).flags, DATA_VALID);
        assert_eq!(Header::new(verified, Capabilities::default(), 1).flags, 0);
    }
}
