//! Completion and segmentation held against `etherparse`; and garbage.

use super::*;
use etherparse::{
    EtherType, IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader,
    Ipv6RoutingExtensions, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice,
};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const SOURCE4: [u8; 4] = [10, 1, 2, 3];
const DESTINATION4: [u8; 4] = [192, 168, 250, 77];
const SOURCE6: [u8; 16] = [0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const DESTINATION6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0xfd, 0xfc, 0, 1, 2, 3];

/// A tag of a VLAN.
#[derive(Clone, Copy, Debug)]
pub enum Tag {
    Customer(u16),
    Service(u16),
}

/// An IP header, with so many words of options, or so many bytes in each extension.
#[derive(Clone, Debug)]
pub enum Ip {
    V4 { identification: u16, option_words: usize },
    V6 { hop_by_hop: Option<usize>, routing: Option<usize>, destination: Option<usize> },
}

/// A TCP segment in a frame.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub tags: Vec<Tag>,
    pub ip: Ip,
    pub tcp: TcpHeader,
    pub payload: Vec<u8>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            ip: Ip::V4 { identification: 0xfffe, option_words: 0 },
            tcp: TcpHeader::new(1234, 80, 0xffff_fff0, 4096),
            payload: Vec::new(),
        }
    }
}

impl Recipe {
    fn ip(&self) -> IpHeaders {
        match &self.ip {
            Ip::V4 { identification, option_words } => {
                let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, SOURCE4, DESTINATION4).unwrap();
                header.identification = *identification;
                header.options = vec![1; option_words * 4].as_slice().try_into().unwrap();
                IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
            }
            Ip::V6 { hop_by_hop, routing, destination } => {
                let extension = |bytes: &Option<usize>| {
                    let payload = vec![0; bytes.map_or(6, |bytes| bytes.next_multiple_of(8) - 2)];
                    bytes.map(|_| Ipv6RawExtHeader::new_raw(IpNumber::TCP, &payload).unwrap())
                };
                let header =
                    Ipv6Header { source: SOURCE6, destination: DESTINATION6, ..Ipv6Header::default() };
                let extensions = Ipv6Extensions {
                    hop_by_hop_options: extension(hop_by_hop),
                    destination_options: extension(destination),
                    routing: extension(routing)
                        .map(|routing| Ipv6RoutingExtensions { routing, final_destination_options: None }),
                    ..Ipv6Extensions::default()
                };
                IpHeaders::Ipv6(header, extensions)
            }
        }
    }

    /// The frame with its checksum complete.
    fn complete(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ip(self.ip());
        builder.tcp_header(self.tcp.clone()).write_to_vec(&mut frame, &self.payload).unwrap();
        for tag in self.tags.iter().rev() {
            let (kind, id) = match tag {
                Tag::Customer(id) => (EtherType::VLAN_TAGGED_FRAME, id),
                Tag::Service(id) => (EtherType::PROVIDER_BRIDGING, id),
            };
            let [a, b] = kind.0.to_be_bytes();
            let [c, d] = id.to_be_bytes();
            frame.splice(12..12, [a, b, c, d]);
        }
        frame
    }

    fn tcp_at(&self) -> usize {
        14 + self.tags.len() * 4 + self.ip().header_len()
    }

    /// The frame as one sends it who leaves its checksum to the receiver.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.complete();
        let at = self.tcp_at() + 16;
        let pseudo = self.pseudo(frame.len() - self.tcp_at());
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        frame
    }

    /// What one says who sends it so.
    pub fn allegation(&self, segment_bytes: u16) -> Allegation {
        let protocol = match self.ip {
            Ip::V4 { .. } => SegmentedProtocol::Tcp4,
            Ip::V6 { .. } => SegmentedProtocol::Tcp6,
        };
        let start = u16::try_from(self.tcp_at()).unwrap();
        Allegation {
            checksum: Some(PartialChecksum { start, offset: 16 }),
            segmentation: Some((protocol, segment_bytes)),
            is_verified: false,
        }
    }

    /// The sum of the pseudo-header for so many bytes of TCP.
    fn pseudo(&self, tcp_bytes: usize) -> u16 {
        let addresses = match self.ip {
            Ip::V4 { .. } => [&SOURCE4[..], &DESTINATION4].concat(),
            Ip::V6 { .. } => [&SOURCE6[..], &DESTINATION6].concat(),
        };
        let words = addresses.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word[1]));
        // Ones' complement arithmetic is that of residues modulo 0xffff.
        u16::try_from((words.sum::<u64>() + 6 + tcp_bytes as u64) % 0xffff).unwrap()
    }
}

/// Equal to who adds it up.
fn same(one: u16, other: u16) -> bool {
    one % 0xffff == other % 0xffff
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let extension = || proptest::option::weighted(0.3, 1..40_usize);
    let ip = prop_oneof![
        (any::<u16>(), 0..=10_usize)
            .prop_map(|(identification, option_words)| Ip::V4 { identification, option_words }),
        (extension(), extension(), extension()).prop_map(|(hop_by_hop, routing, destination)| Ip::V6 {
            hop_by_hop,
            routing,
            destination
        }),
    ];
    let tag = prop_oneof![any::<u16>().prop_map(Tag::Customer), any::<u16>().prop_map(Tag::Service)];
    let tcp = (any::<u32>(), any::<[u16; 3]>(), any::<[bool; 9]>(), 0..=10_usize);
    let tcp = tcp.prop_map(|(sequence, [from, to, window], flags, option_words)| {
        let mut header = TcpHeader::new(from, to, sequence, window);
        let [ns, fin, syn, rst, psh, ack, urg, ece, cwr] = flags;
        (header.ns, header.fin, header.syn, header.rst) = (ns, fin, syn, rst);
        (header.psh, header.ack, header.urg, header.ece, header.cwr) = (psh, ack, urg, ece, cwr);
        header.set_options_raw(&vec![1; option_words * 4]).unwrap();
        header
    });
    let payload = prop_oneof![0..6000_usize, 0..64_000_usize]
        .prop_flat_map(|bytes| prop::collection::vec(any::<u8>(), bytes));
    (prop::collection::vec(tag, 0..=2), ip, tcp, payload).prop_map(|(tags, ip, tcp, payload)| Recipe {
        tags,
        ip,
        tcp,
        payload,
    })
}

/// Takes a piece apart with the other implementation, and holds against `recipe` what is not to change, and checksums.
fn judge(recipe: &Recipe, piece: &[u8], index: usize, start: usize, is_partial: bool) -> Vec<u8> {
    let sliced = SlicedPacket::from_ethernet(piece).unwrap();
    assert_eq!(sliced.link_exts.len(), recipe.tags.len());
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("no TCP") };
    let expected = match (&sliced.net, recipe.ip()) {
        (Some(NetSlice::Ipv4(ip)), IpHeaders::Ipv4(mut sent, _)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(14 + 4 * recipe.tags.len() + usize::from(header.total_len), piece.len());
            sent.identification = sent.identification.wrapping_add(u16::try_from(index).unwrap());
            (sent.total_len, sent.header_checksum) = (header.total_len, header.header_checksum);
            assert_eq!(header, sent);
            tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
        }
        (Some(NetSlice::Ipv6(ip)), IpHeaders::Ipv6(mut sent, extensions)) => {
            let header = ip.header().to_header();
            assert_eq!(54 + 4 * recipe.tags.len() + usize::from(header.payload_length), piece.len());
            sent.payload_length = header.payload_length;
            sent.next_header = header.next_header;
            assert_eq!(header, sent);
            assert_eq!(ip.extensions().slice().len(), extensions.header_len());
            tcp.calc_checksum_ipv6(header.source, header.destination).unwrap()
        }
        _ => panic!("another protocol"),
    };
    if is_partial {
        assert!(same(tcp.checksum(), recipe.pseudo(tcp.slice().len())));
    } else {
        assert!(same(tcp.checksum(), expected));
    }
    let is_last = start + tcp.payload().len() == recipe.payload.len();
    let mut sent = recipe.tcp.clone();
    sent.sequence_number = sent.sequence_number.wrapping_add(u32::try_from(start).unwrap());
    (sent.fin, sent.psh, sent.cwr) = (sent.fin && is_last, sent.psh && is_last, sent.cwr && index == 0);
    sent.checksum = tcp.checksum();
    assert_eq!(tcp.to_header(), sent);
    tcp.payload().to_vec()
}

fn joined(piece: &Piece<'_>) -> Vec<u8> {
    [piece.front, piece.rest].concat()
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    any::<[bool; 3]>().prop_map(|[checksum, tcp4, tcp6]| Capabilities { checksum, tcp4, tcp6 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_are_the_segment_again(recipe in recipes(), segment_bytes in 100..1300_u16, checksum: bool) {
        let frame = recipe.frame();
        let pieces_expected = recipe.payload.len().div_ceil(segment_bytes.into()).max(1);
        let offload = match Offload::check(recipe.allegation(segment_bytes), &frame) {
            Ok(offload) => offload,
            Err(error) => {
                prop_assert_eq!(error, OffloadError::SegmentBytes(segment_bytes));
                prop_assert!(pieces_expected > PIECES_MAX);
                return Ok(());
            }
        };
        let pieces = pieces(&frame, offload, Capabilities { checksum, ..Capabilities::default() });
        prop_assert_eq!(pieces.count(), pieces_expected);
        let (mut payload, mut bytes) = (Vec::new(), 0);
        for index in 0..pieces.count() {
            let mut header = [0xee; HEADER_BYTES_MAX];
            let piece = pieces.piece(index, &mut header).unwrap();
            prop_assert_eq!(piece.offload.checksum, offload.checksum.filter(|_| checksum));
            prop_assert_eq!(piece.offload.segmentation, None);
            let piece = joined(&piece);
            bytes += piece.len();
            payload.extend(judge(&recipe, &piece, index, payload.len(), checksum));
        }
        prop_assert_eq!((payload, bytes), (recipe.payload.clone(), pieces.bytes()));
    }

    #[test]
    fn a_completed_frame_is_as_the_other_implementation_makes_it(recipe in recipes()) {
        let frame = recipe.frame();
        let allegation = Allegation { segmentation: None, ..recipe.allegation(0) };
        let offload = Offload::check(allegation, &frame).unwrap();
        let mut header = [0xee; HEADER_BYTES_MAX];
        let piece = joined(&pieces(&frame, offload, Capabilities::default()).piece(0, &mut header).unwrap());
        let (mut complete, at) = (recipe.complete(), recipe.tcp_at() + 16);
        if complete[at..at + 2] == [0, 0] {
            complete[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
        prop_assert!(piece == complete);
    }

    #[test]
    fn garbage_and_lies_stay_inside_the_frame(
        recipe in proptest::option::of(recipes()),
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        scratches in prop::collection::vec((0..200_usize, any::<u8>()), 0..4),
        cut_off in proptest::option::of(0..300_usize),
        place in proptest::option::of((0..300_u16, 0..300_u16)),
        segmentation in proptest::option::of((any::<bool>(), prop_oneof![0..2000_u16, any::<u16>()])),
        is_honest: bool,
        receiver in capabilities(),
    ) {
        let mut frame = recipe.as_ref().map_or(garbage, Recipe::frame);
        for (at, byte) in scratches {
            if let Some(victim) = frame.get_mut(at) { *victim = byte; }
        }
        frame.truncate(cut_off.unwrap_or(usize::MAX));
        let mut allegation = Allegation {
            checksum: place.map(|(start, offset)| PartialChecksum { start, offset }),
            segmentation: segmentation.map(|(is_tcp4, bytes)| {
                (if is_tcp4 { SegmentedProtocol::Tcp4 } else { SegmentedProtocol::Tcp6 }, bytes)
            }),
            is_verified: true,
        };
        if let (Some(recipe), true) = (&recipe, is_honest) {
            allegation = recipe.allegation(segmentation.map_or(1000, |(_, bytes)| bytes));
        }
        let Ok(offload) = Offload::check(allegation, &frame) else { return Ok(()) };
        let pieces = pieces(&frame, offload, receiver);
        prop_assert!(pieces.count() <= PIECES_MAX);
        let mut bytes = 0;
        for index in 0..pieces.count() {
            let mut header = [0xee; HEADER_BYTES_MAX];
            let piece = pieces.piece(index, &mut header).unwrap();
            bytes += piece.front.len() + piece.rest.len();
            prop_assert!(pieces.count() == 1 || piece.front.len() + piece.rest.len() <= WIRE_BYTES_MAX);
            // What the bridge went by: addresses, and tags.
            let (_, network) = behind_tags(&frame).unwrap_or((0, 0));
            prop_assert_eq!(&joined(&piece)[..network], &frame[..network]);
        }
        prop_assert_eq!(bytes, pieces.bytes());
    }

    #[test]
    fn what_was_never_checked_harms_nobody(
        frame in prop::collection::vec(any::<u8>(), 0..300),
        place: (u16, u16), segment_bytes: u16, header_bytes: u16, is_tcp4: bool, receiver in capabilities(),
    ) {
        let protocol = if is_tcp4 { SegmentedProtocol::Tcp4 } else { SegmentedProtocol::Tcp6 };
        let offload = Offload {
            checksum: Some(PartialChecksum { start: place.0, offset: place.1 }),
            segmentation: Some(Segmentation { protocol, segment_bytes, header_bytes }),
            is_verified: true,
        };
        let pieces = pieces(&frame, offload, receiver);
        let mut header = [0; HEADER_BYTES_MAX];
        let _ = (pieces.bytes(), pieces.piece(0, &mut header), pieces.count());
    }
}
