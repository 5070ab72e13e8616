//! Does for a receiver what a sender left to it and it cannot do: completes a checksum, cuts a TCP segment.
//!
//! The frame itself is never changed, others have it too: headers that differ are made in the caller's buffer, and the payload
//! stays where it is. Each byte of it is read once here, for the checksum, and only if the receiver wants that complete.

use super::{
    Capabilities, HEADER_BYTES_MAX, Offload, PartialChecksum, Segmentation, SegmentedProtocol, TCP_CHECKSUM,
};
use crate::net::checksum;
use crate::net::headers::{TcpSegment, word};

/// Identification and checksum in an IPv4 header, and the total length (RFC 791, 3.1).
const IPV4_LENGTH: usize = 2;
const IPV4_IDENTIFICATION: usize = 4;
const IPV4_CHECKSUM: usize = 10;
/// The payload length in an IPv6 header, which it does not count itself (RFC 8200, section 3).
const IPV6_LENGTH: usize = 4;
const IPV6_BYTES: usize = 40;
/// Sequence number and flags in a TCP header (RFC 9293, 3.1).
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
/// Flags that only the last piece may have: FIN, PSH.
const LAST_ONLY: u8 = 0x01 | 0x08;
/// And only the first: CWR, which answers one mark of congestion, not many (RFC 3168, 6.1.2).
const FIRST_ONLY: u8 = 0x80;

/// The frames that a frame is for one receiver.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    bytes: &'a [u8],
    /// What is left to the receiver of each.
    offload: Offload,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// It goes as it is.
    None,
    /// The checksum is completed.
    Complete(PartialChecksum),
    /// It is cut, so many bytes of payload in each piece.
    Cut { segment: TcpSegment, piece_bytes: usize },
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
    let takes_uncut = |protocol| match protocol {
        SegmentedProtocol::Tcp4 => receiver.checksum && receiver.tcp4,
        SegmentedProtocol::Tcp6 => receiver.checksum && receiver.tcp6,
    };
    if let Some(Segmentation { protocol, segment_bytes, .. }) = offload.segmentation
        && !takes_uncut(protocol)
        && let Some(segment) = TcpSegment::find(bytes)
    {
        // A piece has the checksum where the frame has it.
        let checksum = offload.checksum.filter(|_| receiver.checksum);
        let piece_bytes = usize::from(segment_bytes).max(1);
        return Pieces {
            bytes,
            offload: Offload { checksum, ..Offload::default() },
            work: Work::Cut { segment, piece_bytes },
        };
    }
    match offload.checksum {
        Some(place) if !receiver.checksum => {
            Pieces { bytes, offload: Offload::default(), work: Work::Complete(place) }
        }
        _ => {
            let is_verified = offload.is_verified && receiver.checksum;
            Pieces { bytes, offload: Offload { is_verified, ..offload }, work: Work::None }
        }
    }
}

impl<'a> Pieces<'a> {
    /// How many there are: at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.work {
            Work::Cut { segment, piece_bytes } => {
                self.bytes.len().saturating_sub(segment.payload).div_ceil(piece_bytes).max(1)
            }
            _ => 1,
        }
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self.work {
            Work::Cut { segment, .. } => self.bytes.len() + (self.count() - 1) * segment.payload,
            _ => self.bytes.len(),
        }
    }

    /// The piece `index`; its headers are written to `header` if they differ from those of the frame. None past the last.
    #[must_use]
    pub fn piece<'b>(&self, index: usize, header: &'b mut [u8; HEADER_BYTES_MAX]) -> Option<Piece<'b>>
    where
        'a: 'b,
    {
        if index >= self.count() {
            return None;
        }
        let (front, rest) = match self.work {
            Work::None => (self.bytes, &[][..]),
            Work::Complete(place) => complete(self.bytes, place, header)?,
            Work::Cut { segment, piece_bytes } => {
                let payload = self.bytes.get(segment.payload..)?;
                let start = index * piece_bytes;
                let end = payload.len().min(start + piece_bytes);
                let front = header.get_mut(..segment.payload)?;
                front.copy_from_slice(self.bytes.get(..segment.payload)?);
                let rest = payload.get(start..end)?;
                let mut head = Head { segment, front };
                head.place(index, start, rest.len(), end == payload.len())?;
                if self.offload.checksum.is_none() {
                    head.complete(rest)?;
                }
                (&*head.front, rest)
            }
        };
        Some(Piece { front, rest, offload: self.offload })
    }
}

/// The frame with its checksum; `header` has all up to that.
fn complete<'b>(
    bytes: &'b [u8],
    PartialChecksum { start, offset }: PartialChecksum,
    header: &'b mut [u8; HEADER_BYTES_MAX],
) -> Option<(&'b [u8], &'b [u8])> {
    let place = usize::from(start) + usize::from(offset);
    // The place holds the sum of the pseudo-header, so this is the sum of both.
    let sum = checksum::sum(bytes.get(usize::from(start)..)?);
    let (before, rest) = bytes.split_at_checked(place + 2)?;
    let front = header.get_mut(..place + 2)?;
    front.copy_from_slice(before);
    put(front, place, checksum::finish(sum))?;
    Some((front, rest))
}

/// The headers of a piece in the making: at first those of the frame.
struct Head<'b> {
    segment: TcpSegment,
    front: &'b mut [u8],
}

impl Head<'_> {
    /// Makes them say that the piece `index` has the `length` bytes of payload from `start` on.
    fn place(&mut self, index: usize, start: usize, length: usize, is_last: bool) -> Option<()> {
        let TcpSegment { protocol, network, transport, payload } = self.segment;
        let length_at = network
            + match protocol {
                SegmentedProtocol::Tcp4 => IPV4_LENGTH,
                SegmentedProtocol::Tcp6 => IPV6_LENGTH,
            };
        let counted_from = match protocol {
            SegmentedProtocol::Tcp4 => network,
            SegmentedProtocol::Tcp6 => network + IPV6_BYTES,
        };
        let bytes_before = word(self.front, length_at)?;
        let bytes_after = u16::try_from((payload + length).checked_sub(counted_from)?).ok()?;
        put(self.front, length_at, bytes_after)?;
        if protocol == SegmentedProtocol::Tcp4 {
            self.number_ipv4(u16::try_from(index).ok()?)?;
        }

        let sequence_at = transport + TCP_SEQUENCE;
        let sequence = u32::from_be_bytes(*self.front.get(sequence_at..)?.first_chunk()?);
        let sequence = sequence.wrapping_add(u32::try_from(start).ok()?);
        *self.front.get_mut(sequence_at..)?.first_chunk_mut()? = sequence.to_be_bytes();
        let flags = self.front.get_mut(transport + TCP_FLAGS)?;
        *flags &= !if is_last { 0 } else { LAST_ONLY } & !if index == 0 { 0 } else { FIRST_ONLY };

        // The pseudo-header differs in nothing but the length, and that by as much as IP's. Its addresses may not be those
        // of the IP header (RFC 8200, 8.1: routing), but are in the sum that the sender gave.
        let pseudo_at = transport + usize::from(TCP_CHECKSUM);
        let pseudo = checksum::add(word(self.front, pseudo_at)?, checksum::add(!bytes_before, bytes_after));
        put(self.front, pseudo_at, pseudo)
    }

    /// Identification, and the checksum of the IPv4 header.
    fn number_ipv4(&mut self, index: u16) -> Option<()> {
        let header = self.front.get_mut(self.segment.network..self.segment.transport)?;
        let identification = word(header, IPV4_IDENTIFICATION)?;
        put(header, IPV4_IDENTIFICATION, identification.wrapping_add(index))?;
        put(header, IPV4_CHECKSUM, 0)?;
        put(header, IPV4_CHECKSUM, !checksum::sum(header))
    }

    /// Completes TCP's checksum.
    fn complete(&mut self, payload: &[u8]) -> Option<()> {
        let tcp = self.front.get_mut(self.segment.transport..)?;
        // A TCP header is a multiple of four bytes long.
        let sum = checksum::add(checksum::sum(tcp), checksum::sum(payload));
        put(tcp, TCP_CHECKSUM.into(), checksum::finish(sum))
    }
}

fn put(bytes: &mut [u8], at: usize, word: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = word.to_be_bytes();
    Some(())
}
