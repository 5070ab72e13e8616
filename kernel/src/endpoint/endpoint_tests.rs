use super::bed::{Bed, MS, OUR_IP, OURS, Peer, SECOND, THEIR_IP, THEIRS, bridge_port, send};
use super::*;
use alloc::vec;
use alloc::vec::Vec;
use drivers::net::bridge::PortKind;
use drivers::net::filter::Filter;
use drivers::net::offload::{Allegation, Offload, PartialChecksum, SegmentedProtocol};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;

/// A station whose frames are made and read by hand.
fn station(bed: &Bed) -> Port {
    let port = bridge_port(&bed.bridge, "station", PortKind::Guest, THEIRS);
    port.set_filter(Some(Filter::default()));
    port
}

fn ethernet(destination: EthernetAddress, kind: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_dst_addr(destination);
    frame.set_src_addr(EthernetAddress(THEIRS.0));
    frame.set_ethertype(kind);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

fn ip(source: Ipv4Address, destination: Ipv4Address, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; repr.buffer_len() + payload.len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

fn to_us(packet: &[u8]) -> Vec<u8> {
    ethernet(EthernetAddress(OURS.0), EthernetProtocol::Ipv4, packet)
}

fn arp_request() -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(THEIRS.0),
        source_protocol_addr: THEIR_IP,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: OUR_IP,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes[..]));
    ethernet(EthernetAddress::BROADCAST, EthernetProtocol::Arp, &bytes)
}

fn tcp_to(port: u16, source_port: u16, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(source_port);
    packet.set_dst_port(port);
    packet.set_header_len(20);
    packet.set_syn(flags & 2 != 0);
    packet.set_rst(flags & 4 != 0);
    packet.set_ack(flags & 16 != 0);
    packet.set_window_len(1000);
    packet.fill_checksum(&IpAddress::Ipv4(THEIR_IP), &IpAddress::Ipv4(OUR_IP));
    to_us(&ip(THEIR_IP, OUR_IP, IpProtocol::Tcp, &bytes))
}

/// What came back, from the Ethernet payload on.
fn answers(port: &Port) -> Vec<Vec<u8>> {
    core::iter::from_fn(|| port.receive()).map(|frame| frame.bytes()[14..].to_vec()).collect()
}

#[test]
fn who_asks_is_told_where_we_are_and_that_we_live() {
    let bed = Bed::new("10.0.0.5/24");
    let station = station(&bed);
    send(&station, &arp_request());
    bed.settle();
    let answer = ArpRepr::parse(&ArpPacket::new_checked(&answers(&station)[0][..]).unwrap()).unwrap();
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(operation, ArpOperation::Reply);
    assert_eq!((source_hardware_addr.0, source_protocol_addr), (OURS.0, OUR_IP));

    let echo = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: &[0xa5; 1000] };
    let mut bytes = vec![0; echo.buffer_len()];
    echo.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
    send(&station, &to_us(&ip(THEIR_IP, OUR_IP, IpProtocol::Icmp, &bytes)));
    bed.settle();
    let answers = answers(&station);
    let packet = Ipv4Packet::new_checked(&answers[0][..]).unwrap();
    let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    let reply = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
    assert_eq!(reply, Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data: &[0xa5; 1000] });
}

#[test]
fn without_frames_or_time_nothing_is_to_do() {
    let bed = Bed::new("10.0.0.5/24");
    bed.settle();
    let mut endpoint = bed.endpoint.borrow_mut();
    assert_eq!((endpoint.poll(u64::MAX), endpoint.has_work(), endpoint.deadline_ns()), (false, false, None));
}

/// A DHCP server: answers what comes with `lease`, and returns how many requests there were.
fn serve_dhcp(station: &Port, address: Ipv4Address, router: Option<Ipv4Address>, seconds: u32) -> usize {
    serve_dhcp_from(THEIR_IP, station, address, router, seconds)
}

/// Likewise, by a server that says that this is its address.
fn serve_dhcp_from(
    server: Ipv4Address,
    station: &Port,
    address: Ipv4Address,
    router: Option<Ipv4Address>,
    seconds: u32,
) -> usize {
    let asked = answers(station);
    let mut requests = 0;
    for packet in asked {
        let Ok(packet) = Ipv4Packet::new_checked(&packet[..]) else { continue };
        let udp = UdpPacket::new_checked(packet.payload()).unwrap();
        let dhcp = DhcpPacket::new_checked(udp.payload()).unwrap();
        let asked = DhcpRepr::parse(&dhcp).unwrap();
        let message_type = match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            _ => DhcpMessageType::Ack,
        };
        let answer = DhcpRepr {
            message_type,
            transaction_id: asked.transaction_id,
            client_hardware_address: asked.client_hardware_address,
            client_ip: Ipv4Address::UNSPECIFIED,
            your_ip: address,
            server_ip: server,
            router,
            subnet_mask: Some(Ipv4Address::new(255, 255, 255, 0)),
            relay_agent_ip: Ipv4Address::UNSPECIFIED,
            secs: 0,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(server),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: Some(seconds),
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; 8 + answer.buffer_len()];
        UdpRepr { src_port: 67, dst_port: 68 }.emit(
            &mut UdpPacket::new_unchecked(&mut bytes[..]),
            &IpAddress::Ipv4(server),
            &IpAddress::Ipv4(Ipv4Address::BROADCAST),
            answer.buffer_len(),
            |payload| answer.emit(&mut DhcpPacket::new_unchecked(payload)).unwrap(),
            &ChecksumCapabilities::default(),
        );
        let packet = ip(server, Ipv4Address::BROADCAST, IpProtocol::Udp, &bytes);
        send(station, &ethernet(EthernetAddress::BROADCAST, EthernetProtocol::Ipv4, &packet));
        requests += 1;
    }
    requests
}

/// Whether the endpoint tells a change of its address.
fn has_news(bed: &Bed) -> bool {
    let context = core::task::Context::from_waker(core::task::Waker::noop());
    bed.endpoint.borrow_mut().poll_news(&context).is_ready()
}

/// Goes to the endpoint's next deadline.
fn go_on(bed: &mut Bed) {
    let due_ns = bed.endpoint.borrow().deadline_ns().unwrap();
    bed.now_ns = due_ns.max(bed.now_ns);
    bed.settle();
}

#[test]
fn an_address_comes_by_dhcp_is_renewed_and_lost_with_its_lease() {
    let mut bed = Bed::new("dhcp");
    let station = station(&bed);
    let gateway = Some(THEIR_IP);
    bed.settle();
    assert_eq!(bed.endpoint.borrow().address(), None);
    for _ in 0..2 {
        assert_eq!(serve_dhcp(&station, OUR_IP, gateway, 600), 1);
        bed.settle();
    }
    let lease = bed.endpoint.borrow().address().unwrap();
    assert_eq!((lease.address, lease.gateway), (Ipv4Cidr::new(OUR_IP, 24), gateway));
    assert!(has_news(&bed));
    assert!(!has_news(&bed));
    send(&station, &arp_request());
    bed.settle();
    assert_eq!(answers(&station).len(), 1, "it answers for its address");

    // Half of the lease is over. The question goes to the server, which has to be looked for.
    go_on(&mut bed);
    assert!(bed.now_ns >= 300 * SECOND);
    let begun_ns = bed.now_ns;
    while bed.endpoint.borrow().address().is_some() {
        assert!(bed.now_ns < begun_ns + 400 * SECOND);
        answers(&station);
        go_on(&mut bed);
    }
    assert!(bed.now_ns >= 600 * SECOND);
    assert!(has_news(&bed));
    answers(&station);
    send(&station, &arp_request());
    bed.settle();
    let arp = answers(&station).iter().filter(|packet| packet[..2] == [0, 1]).count();
    assert_eq!(arp, 0, "it answers for an address that is not its own any more");
}

#[test]
fn a_gateway_goes_with_its_address() {
    let bed = Bed::new("10.0.0.5/24,gateway=10.0.0.1");
    let mut endpoint = bed.endpoint.borrow_mut();
    let routes = |endpoint: &mut Endpoint| {
        let mut count = 0;
        endpoint.interface.routes_mut().update(|routes| count = routes.len());
        count
    };
    assert_eq!(routes(&mut endpoint), 1);
    endpoint.set_lease(None, "");
    assert_eq!(routes(&mut endpoint), 0);
}

#[test]
fn what_the_stack_does_not_write_is_nobodys() {
    use smoltcp::phy::{Device, TxToken};
    let bridge = drivers::net::bridge::Bridge::new(1);
    let station = bridge_port(&bridge, "station", PortKind::Guest, THEIRS);
    station.set_filter(Some(Filter::default()));
    let mut wire = Wire::new(bridge_port(&bridge, "endpoint", PortKind::Endpoint, OURS));
    send(&station, &ethernet(EthernetAddress(OURS.0), EthernetProtocol::Ipv4, &[0xa5; 200]));
    assert!(wire.receive(Instant::ZERO).is_some());
    let addresses = ethernet(EthernetAddress::BROADCAST, EthernetProtocol::Ipv4, &[]);
    let written = |bytes: &mut [u8]| {
        bytes[..14].copy_from_slice(&addresses);
        bytes[6..12].copy_from_slice(&OURS.0);
    };
    wire.transmit(Instant::ZERO).unwrap().consume(200, written);
    assert_eq!(answers(&station), [vec![0; 186]]);
}

#[test]
fn an_address_that_no_station_can_have_is_not_taken_from_dhcp() {
    for (address, router, expected) in [
        (Ipv4Address::new(127, 0, 0, 1), None, None),
        (Ipv4Address::new(10, 0, 0, 255), None, None),
        (Ipv4Address::new(224, 0, 0, 1), None, None),
        (OUR_IP, Some(Ipv4Address::new(224, 0, 0, 1)), Some(None)),
        (OUR_IP, Some(OUR_IP), Some(None)),
        (OUR_IP, Some(Ipv4Address::new(1, 2, 3, 4)), Some(Some(Ipv4Address::new(1, 2, 3, 4)))),
    ] {
        let bed = Bed::new("dhcp");
        let station = station(&bed);
        bed.settle();
        for _ in 0..2 {
            serve_dhcp(&station, address, router, 600);
            bed.settle();
        }
        let gateway = bed.endpoint.borrow().address().map(|lease| lease.gateway);
        assert_eq!(gateway, expected, "{address} {router:?}");
    }
}

/// The stack would send to it when the lease is to be renewed, and panic. Found by the fuzzer.
#[test]
fn a_lease_of_a_server_that_can_be_no_station_is_not_taken() {
    for server in [Ipv4Address::UNSPECIFIED, Ipv4Address::BROADCAST, Ipv4Address::new(224, 0, 0, 1)] {
        let mut bed = Bed::new("dhcp");
        let station = station(&bed);
        bed.settle();
        for _ in 0..100 {
            serve_dhcp_from(server, &station, OUR_IP, None, 600);
            go_on(&mut bed);
            assert_eq!(bed.endpoint.borrow().address(), None, "{server}");
        }
        for _ in 0..2 {
            serve_dhcp(&station, OUR_IP, None, 600);
            go_on(&mut bed);
        }
        assert!(bed.endpoint.borrow().address().is_some(), "{server}");
    }
}

#[test]
fn leases_of_no_time_cost_time_and_not_the_log() {
    let mut bed = Bed::new("dhcp");
    let station = station(&bed);
    for _ in 0..1000 {
        bed.settle();
        serve_dhcp(&station, OUR_IP, None, 0);
        bed.now_ns += MS;
    }
    bed.settle();
    assert!(bed.endpoint.borrow().changes > CHANGES_LOGGED);
}

#[test]
fn a_scan_of_all_ports_finds_one_and_leaves_nothing() {
    let mut bed = Bed::new("10.0.0.5/24");
    let station = station(&bed);
    send(&station, &arp_request());
    bed.settle();
    answers(&station);
    let mut open = Vec::new();
    for port in 1..=u16::MAX {
        send(&station, &tcp_to(port, 1000, 2));
        bed.settle();
        for packet in answers(&station) {
            let Ok(packet) = Ipv4Packet::new_checked(&packet[..]) else { continue };
            let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
            if !tcp.rst() {
                open.push(tcp.src_port());
            }
        }
    }
    open.dedup();
    assert_eq!(open, [80]);
    bed.now_ns += 5 * SECOND;
    bed.settle();
    answers(&station);
    assert_eq!(bed.pool_in_use(), 0);
}

/// A segment of a client at port 2000 to the HTTP server.
fn to_server(
    control: TcpControl,
    sequence: u32,
    acknowledged: Option<u32>,
    window: u16,
    payload: &[u8],
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: 2000,
        dst_port: http::PORT,
        control,
        seq_number: TcpSeqNumber(sequence as i32),
        ack_number: acknowledged.map(|number| TcpSeqNumber(number as i32)),
        window_len: window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    let (theirs, ours) = (IpAddress::Ipv4(THEIR_IP), IpAddress::Ipv4(OUR_IP));
    repr.emit(&mut packet, &theirs, &ours, &ChecksumCapabilities::default());
    to_us(&ip(THEIR_IP, OUR_IP, IpProtocol::Tcp, &bytes))
}

/// The sequence number behind the last segment that came, and whether it ended the connection.
fn end_of_last(station: &Port) -> (u32, bool) {
    let answers = answers(station);
    let packet = Ipv4Packet::new_checked(&answers.last().unwrap()[..]).unwrap();
    let segment = TcpPacket::new_checked(packet.payload()).unwrap();
    let bytes = segment.payload().len() as u32 + u32::from(segment.syn()) + u32::from(segment.fin());
    ((segment.seq_number().0 as u32).wrapping_add(bytes), segment.fin())
}

/// Found by the fuzzer: smoltcp then sends segments without end.
#[test]
fn a_client_that_takes_the_end_with_a_window_of_zero_is_not_flooded() {
    let mut bed = Bed::new("10.0.0.5/24");
    let station = station(&bed);
    let say = |bed: &Bed, segment: &[u8]| {
        send(&station, segment);
        bed.settle();
    };
    say(&bed, &arp_request());
    let _ = answers(&station);
    say(&bed, &to_server(TcpControl::Syn, 0, None, 1000, &[]));
    let (begin, _) = end_of_last(&station);
    say(&bed, &to_server(TcpControl::None, 1, Some(begin), 1000, b"GET /nothing HTTP/1.1\r\n\r\n"));
    let (end, is_fin) = end_of_last(&station);
    assert!(is_fin, "the reply fits in one segment");
    let next = 1 + 25;
    say(&bed, &to_server(TcpControl::None, next, Some(begin.wrapping_add(50)), 0, &[]));
    say(&bed, &to_server(TcpControl::None, next, Some(end), 0, &[]));
    let _ = answers(&station);
    bed.pass(5 * SECOND);
    let frames = answers(&station).len();
    // One a millisecond, and some at first; what is left of the connection is over after 30 s.
    assert!((1..5100).contains(&frames), "{frames}");
    bed.pass(30 * SECOND);
    let _ = answers(&station);
    bed.pass(5 * SECOND);
    assert_eq!(answers(&station).len(), 0);
}

#[test]
fn without_a_buffer_nothing_is_sent_and_all_goes_on() {
    let mut bed = Bed::new("10.0.0.5/24");
    let mut peer = Peer::new(&bed);
    let socket = peer.connect(80);
    peer.run(&mut bed, 10 * MS);
    let hoard: Vec<_> = {
        let pool = bed.bridge.borrow().pool().clone();
        core::iter::from_fn(|| pool.blank(60)).collect()
    };
    let _ = peer.tcp(socket).send_slice(b"GET / HTTP/1.1\r\n\r\n");
    peer.run(&mut bed, 100 * MS);
    drop(hoard);
    assert!(peer.read_all(&mut bed, socket, 20 * SECOND).unwrap().ends_with("</html>\n"));
}

/// A TCP segment to us that a guest left to be completed, and cut, as Linux does.
fn unfinished(payload: usize, segment_bytes: Option<u16>) -> (Vec<u8>, Offload) {
    let mut tcp = vec![0xb7; 20 + payload];
    let mut packet = TcpPacket::new_unchecked(&mut tcp[..]);
    packet.set_src_port(1000);
    packet.set_dst_port(80);
    packet.clear_flags();
    packet.set_syn(payload == 0);
    packet.set_ack(payload > 0);
    packet.set_header_len(20);
    // The sum of the pseudo-header alone (RFC 9293, 3.1).
    let words = THEIR_IP.octets().into_iter().chain(OUR_IP.octets()).collect::<Vec<_>>();
    let sum: u32 = words.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = sum + 6 + 20 + payload as u32;
    packet.set_checksum((sum % 0xffff) as u16);
    let packet = ip(THEIR_IP, OUR_IP, IpProtocol::Tcp, &tcp);
    let bytes = to_us(&packet);
    let allegation = Allegation {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        segmentation: segment_bytes.map(|bytes| (SegmentedProtocol::Tcp4, bytes)),
        is_verified: false,
    };
    let offload = Offload::check(allegation, &bytes).unwrap();
    (bytes, offload)
}

fn send_unfinished(port: &Port, (bytes, offload): &(Vec<u8>, Offload)) {
    let mut blank = port.blank(bytes.len()).unwrap();
    blank.bytes_mut().copy_from_slice(bytes);
    port.send(&blank.finish(*offload), 0);
}

#[test]
fn a_checksum_that_a_guest_left_to_us_is_completed() {
    let bed = Bed::new("10.0.0.5/24");
    let station = station(&bed);
    send(&station, &arp_request());
    bed.settle();
    answers(&station);
    send_unfinished(&station, &unfinished(0, None));
    bed.settle();
    let answers = answers(&station);
    let packet = Ipv4Packet::new_checked(&answers[0][..]).unwrap();
    let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
    assert!(tcp.syn() && tcp.ack());
}

#[test]
fn a_segment_that_is_to_be_cut_comes_in_pieces_as_on_a_wire() {
    use smoltcp::phy::{Device, RxToken};
    let bridge = drivers::net::bridge::Bridge::new(1);
    let station = bridge_port(&bridge, "station", PortKind::Guest, THEIRS);
    let mut wire = Wire::new(bridge_port(&bridge, "endpoint", PortKind::Endpoint, OURS));
    send_unfinished(&station, &unfinished(5000, Some(1460)));
    let mut payloads = Vec::new();
    for left in (0..4).rev() {
        let (arrival, _) = wire.receive(Instant::ZERO).unwrap();
        payloads.push(arrival.consume(|frame| {
            let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(packet.verify_checksum());
            let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
            assert!(tcp.verify_checksum(&IpAddress::Ipv4(THEIR_IP), &IpAddress::Ipv4(OUR_IP)));
            tcp.payload().len()
        }));
        assert_eq!(wire.has_frames(), left > 0);
    }
    assert_eq!(payloads, [1460, 1460, 1460, 620]);
    assert_eq!(bridge.borrow().pool().in_use(), 0);
}

#[test]
fn one_turn_takes_no_more_frames_than_it_should() {
    let bed = Bed::new("10.0.0.5/24");
    let station = station(&bed);
    for _ in 0..2 * FRAMES_PER_TURN {
        send(&station, &arp_request());
    }
    let mut endpoint = bed.endpoint.borrow_mut();
    assert!(endpoint.poll(bed.now_ns) && endpoint.has_work());
    assert_eq!(station.waiting(), FRAMES_PER_TURN);
}

/// Frames of any shape that a guest might send: from noise to segments that are right but for a few bytes.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    let packet = (any::<u8>(), noise.clone())
        .prop_map(|(protocol, payload)| to_us(&ip(THEIR_IP, OUR_IP, protocol.into(), &payload)));
    let kind = (any::<u16>(), noise.clone())
        .prop_map(|(kind, payload)| ethernet(EthernetAddress(OURS.0), kind.into(), &payload));
    let port = prop_oneof![Just(80_u16), Just(68), any::<u16>()];
    let segment = (port, 1000..1008_u16, any::<u8>()).prop_map(|(to, from, flags)| tcp_to(to, from, flags));
    // Options, sequence numbers and text that fit nowhere, under a checksum that fits.
    let text = (1000..1004_u16, any::<[u8; 12]>(), noise.clone()).prop_map(|(from, fields, text)| {
        let mut bytes = vec![0; 20];
        bytes[4..16].copy_from_slice(&fields);
        bytes.extend(text);
        let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
        packet.set_src_port(from);
        packet.set_dst_port(80);
        packet.fill_checksum(&IpAddress::Ipv4(THEIR_IP), &IpAddress::Ipv4(OUR_IP));
        to_us(&ip(THEIR_IP, OUR_IP, IpProtocol::Tcp, &bytes))
    });
    let dhcp = noise.clone().prop_map(|noise| {
        let mut bytes = vec![0; 8 + 240];
        bytes.extend(noise);
        let length = bytes.len();
        let mut packet = UdpPacket::new_unchecked(&mut bytes[..]);
        packet.set_src_port(67);
        packet.set_dst_port(68);
        packet.set_len(length as u16);
        packet.payload_mut()[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        packet.fill_checksum(&IpAddress::Ipv4(THEIR_IP), &IpAddress::Ipv4(OUR_IP));
        to_us(&ip(THEIR_IP, OUR_IP, IpProtocol::Udp, &bytes))
    });
    let broken = (Just(arp_request()), any::<[(u8, u8); 3]>()).prop_map(|(mut frame, changes)| {
        for (place, value) in changes {
            let place = usize::from(place) % frame.len();
            frame[place] = value;
        }
        frame
    });
    prop_oneof![noise, packet, kind, segment, text, dhcp, broken]
}

proptest! {
    /// Whatever comes: no panic, no buffer is kept, and who comes after it is served.
    #[test]
    fn garbage_does_no_harm(
        ip in prop_oneof![Just("dhcp"), Just("10.0.0.5/24")],
        frames in proptest::collection::vec((any_frame(), 0..2000_u64), 1..100),
    ) {
        let mut bed = Bed::new(ip);
        let station = station(&bed);
        for (frame, wait_ms) in frames {
            if let Some(mut blank) = station.blank(frame.len()) {
                blank.bytes_mut().copy_from_slice(&frame);
                station.send(&blank.finish(Offload::default()), 0);
            }
            bed.settle();
            bed.now_ns += wait_ms * MS;
            bed.settle();
            answers(&station);
        }
        prop_assert_eq!(bed.pool_in_use(), 0);
        drop(station);
        if ip != "dhcp" {
            bed.now_ns += 31 * SECOND;
            bed.settle();
            let mut peer = Peer::new(&bed);
            let answer = peer.fetch(&mut bed, "GET / HTTP/1.1\r\n\r\n").unwrap();
            prop_assert!(answer.starts_with("HTTP/1.1 200"));
        }
    }
}
