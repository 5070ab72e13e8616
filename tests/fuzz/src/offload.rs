//! What a frame alleges, its completion and its cutting, held against `etherparse`: what was left to do is done, and lies stay inside the
//! frame.

use crate::packet::{Damage, Network, Packet};
use arbitrary::{Arbitrary, Unstructured};
use drivers::net::frame::WIRE_BYTES_MAX;
use drivers::net::offload::{
    Allegation, Capabilities, HEADER_BYTES_MAX, Offload, OffloadError, PIECES_MAX, PartialChecksum, Piece,
    SegmentedProtocol, pieces,
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

#[derive(Arbitrary, Debug)]
struct Case {
    packet: Packet,
    segment_bytes: u16,
    receiver: [bool; 3],
    /// It is sent as it should be.
    is_honest: bool,
    is_cut: bool,
    damage: Damage,
    place: Option<(u16, u16)>,
    protocol: Option<bool>,
    is_verified: bool,
}

fn joined(piece: &Piece<'_>) -> Vec<u8> {
    [piece.front, piece.rest].concat()
}

/// Equal to who adds it up.
fn same(one: u16, other: u16) -> bool {
    one % 0xffff == other % 0xffff
}

fn allegation(packet: &Packet, segment_bytes: u16, is_cut: bool) -> Option<Allegation> {
    let protocol = match packet.network {
        Network::None => return None,
        Network::V4 { .. } => SegmentedProtocol::Tcp4,
        Network::V6 { .. } => SegmentedProtocol::Tcp6,
    };
    let checksum = Some(PartialChecksum { start: packet.transport() as u16, offset: 16 });
    Some(Allegation {
        checksum,
        segmentation: is_cut.then_some((protocol, segment_bytes)),
        is_verified: false,
    })
}

/// Takes a piece apart, and says what payload it has.
fn judge(packet: &Packet, piece: &[u8], index: usize, start: usize, is_partial: bool) -> Vec<u8> {
    let sliced = SlicedPacket::from_ethernet(piece).expect("a good piece");
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("a piece without TCP") };
    let complete = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let Network::V4 { identification, .. } = packet.network else { panic!("another protocol") };
            assert_eq!(header.identification, identification.wrapping_add(index as u16));
            tcp.calc_checksum_ipv4(header.source, header.destination)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            tcp.calc_checksum_ipv6(header.source, header.destination)
        }
        _ => panic!("another protocol"),
    };
    let expected = if is_partial { packet.pseudo(tcp.slice().len()) } else { complete.expect("a sum") };
    assert!(same(tcp.checksum(), expected), "a wrong checksum");
    let is_last = start + tcp.payload().len() == packet.payload;
    let mut sent = packet.tcp();
    sent.sequence_number = sent.sequence_number.wrapping_add(start as u32);
    (sent.fin, sent.psh, sent.cwr) = (sent.fin && is_last, sent.psh && is_last, sent.cwr && index == 0);
    sent.checksum = tcp.checksum();
    assert_eq!(tcp.to_header(), sent);
    tcp.payload().to_vec()
}

/// What goes out is what was sent.
fn honest(case: &Case) {
    let Case { packet, segment_bytes, is_cut, .. } = case;
    let Some(allegation) = allegation(packet, *segment_bytes, *is_cut) else { return };
    // More tags than two fit no wire's frame.
    if packet.tags.len() > 2 {
        return;
    }
    let frame = packet.partial();
    let offload = match Offload::check(allegation, &frame) {
        Ok(offload) => offload,
        Err(error) => {
            let bytes = usize::from(*segment_bytes);
            let header = frame.len() - packet.payload;
            let is_bad = bytes == 0 || header + bytes > WIRE_BYTES_MAX;
            let is_endless = bytes > 0 && packet.payload.div_ceil(bytes) > PIECES_MAX;
            assert_eq!(error, OffloadError::SegmentBytes(*segment_bytes));
            assert!(*is_cut && (is_bad || is_endless), "a good frame is refused");
            return;
        }
    };
    let [checksum, tcp4, tcp6] = case.receiver;
    let all = pieces(&frame, offload, Capabilities { checksum, tcp4, tcp6 });
    let takes_whole = match packet.network {
        Network::V4 { .. } => tcp4,
        _ => tcp6,
    };
    let count =
        if !is_cut || takes_whole { 1 } else { packet.payload.div_ceil((*segment_bytes).into()).max(1) };
    if offload.segmentation.is_some() && takes_whole {
        return;
    }
    assert_eq!(all.count(), count);
    let (mut payload, mut bytes) = (Vec::new(), 0);
    for index in 0..all.count() {
        let mut header = [0xee; HEADER_BYTES_MAX];
        let piece = all.piece(index, &mut header).expect("a piece");
        let is_partial = piece.offload.checksum.is_some();
        assert_eq!(is_partial, checksum);
        let piece = joined(&piece);
        bytes += piece.len();
        payload.extend(judge(packet, &piece, index, payload.len(), is_partial));
    }
    assert!(payload == packet.payload(), "the payload changed");
    assert_eq!(bytes, all.bytes());
}

/// Whatever is alleged, nothing leaves the frame's bounds, and what the bridge went by stays.
fn dishonest(case: &Case) {
    let mut frame = case.packet.partial();
    case.damage.apply(&mut frame);
    let usual = allegation(&case.packet, case.segment_bytes, case.is_cut).unwrap_or_default();
    let protocol = |is_tcp4| if is_tcp4 { SegmentedProtocol::Tcp4 } else { SegmentedProtocol::Tcp6 };
    let place = case.place.map(|(start, offset)| PartialChecksum { start, offset });
    let segmentation = case.protocol.map(|is_tcp4| (protocol(is_tcp4), case.segment_bytes));
    let allegation = Allegation {
        checksum: place.or(usual.checksum),
        segmentation: segmentation.or(usual.segmentation),
        is_verified: case.is_verified,
    };
    let Ok(offload) = Offload::check(allegation, &frame) else { return };
    assert!(offload.segmentation.is_none() || offload.checksum.is_some());
    let [checksum, tcp4, tcp6] = case.receiver;
    let all = pieces(&frame, offload, Capabilities { checksum, tcp4, tcp6 });
    assert!(all.count() <= PIECES_MAX, "pieces without bound");
    let mut bytes = 0;
    for index in 0..all.count() {
        let mut header = [0xee; HEADER_BYTES_MAX];
        let piece = joined(&all.piece(index, &mut header).expect("a piece"));
        bytes += piece.len();
        assert!(all.count() == 1 || piece.len() <= WIRE_BYTES_MAX, "a piece too long for a wire");
        let addresses = 12.min(frame.len());
        assert_eq!(piece[..addresses], frame[..addresses], "the bridge went by other addresses");
    }
    assert_eq!(bytes, all.bytes());
    assert!(all.piece(all.count(), &mut [0; HEADER_BYTES_MAX]).is_none());
}

/// A frame with an offload.
pub fn offload(data: &[u8]) {
    let Ok(case) = Unstructured::new(data).arbitrary::<Case>() else { return };
    if case.is_honest {
        honest(&case);
    } else {
        dishonest(&case);
    }
}
