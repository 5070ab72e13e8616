use super::super::bed::{Bed, MS, OUR_IP, Peer, SECOND, THEIR_IP};
use super::*;
use alloc::vec;

const SERVER: SocketAddrV4 = SocketAddrV4::new(THEIR_IP, 10809);

fn bed() -> (Bed, Peer, EndpointConnection) {
    let bed = Bed::new("10.0.0.5/24");
    let peer = Peer::new(&bed);
    let connection = EndpointConnection::new(&bed.endpoint, SERVER).unwrap();
    (bed, peer, connection)
}

fn listen(peer: &mut Peer) -> SocketHandle {
    let socket = peer.socket();
    peer.tcp(socket).listen(SERVER.port()).unwrap();
    socket
}

fn opened() -> (Bed, Peer, EndpointConnection, SocketHandle) {
    let (mut bed, mut peer, mut connection) = bed();
    let server = listen(&mut peer);
    connection.open();
    assert_eq!(connection.state(), ConnectionState::Opening);
    peer.run(&mut bed, 10 * MS);
    assert_eq!(connection.state(), ConnectionState::Open);
    (bed, peer, connection, server)
}

#[test]
fn much_goes_both_ways_unchanged() {
    let (mut bed, mut peer, mut connection, server) = opened();
    let sent: Vec<u8> = (0..300_000_u32).map(|number| (number / 7) as u8).collect();
    let (mut taken, mut received) = (0, Vec::new());
    let mut part = [0; 3000];
    let all = peer.run_until(&mut bed, 10 * SECOND, |peer| {
        taken += connection.send(&sent[taken..]);
        // The server sends back what it gets.
        let socket = peer.tcp(server);
        if socket.can_recv() && socket.can_send() {
            let mut bytes = [0; 2000];
            let room = (socket.send_capacity() - socket.send_queue()).min(bytes.len());
            let count = socket.recv_slice(&mut bytes[..room]).unwrap();
            assert_eq!(socket.send_slice(&bytes[..count]), Ok(count));
        }
        loop {
            let count = connection.receive(&mut part);
            received.extend_from_slice(&part[..count]);
            if count == 0 {
                break;
            }
        }
        received.len() == sent.len()
    });
    assert!(all && received == sent);
}

#[test]
fn without_an_address_it_waits_for_one() {
    let mut bed = Bed::new("dhcp");
    let mut peer = Peer::new(&bed);
    let server = listen(&mut peer);
    let mut connection = EndpointConnection::new(&bed.endpoint, SERVER).unwrap();
    connection.open();
    peer.run(&mut bed, SECOND);
    assert_eq!(connection.state(), ConnectionState::Opening);
    let lease = super::super::addressing::Lease::checked(smoltcp::wire::Ipv4Cidr::new(OUR_IP, 24), None);
    bed.endpoint.borrow_mut().set_lease(lease, "by the test");
    bed.endpoint.borrow_mut().touched = true;
    peer.run(&mut bed, 10 * MS);
    assert_eq!(connection.state(), ConnectionState::Open);
    assert_eq!(peer.tcp(server).state(), State::Established);
    bed.endpoint.borrow_mut().set_lease(None, "");
    bed.endpoint.borrow_mut().touched = true;
    peer.run(&mut bed, 10 * MS);
    assert_eq!(connection.state(), ConnectionState::Closed, "what came from another address is over");
}

#[test]
fn a_refusal_closes_it_and_it_can_be_opened_again() {
    let (mut bed, mut peer, mut connection) = bed();
    connection.open();
    peer.run(&mut bed, 10 * MS);
    assert_eq!(connection.state(), ConnectionState::Closed);
    listen(&mut peer);
    connection.open();
    peer.run(&mut bed, 10 * MS);
    assert_eq!(connection.state(), ConnectionState::Open);
}

#[test]
fn a_server_that_dies_is_noticed_in_ten_seconds() {
    let (mut bed, peer, connection, _) = opened();
    drop(peer);
    let end_ns = bed.now_ns + 10 * SECOND;
    while bed.now_ns < end_ns {
        bed.settle();
        bed.now_ns += MS;
    }
    assert_eq!(connection.state(), ConnectionState::Closed);
}

#[test]
fn a_server_that_only_is_silent_is_not_given_up() {
    let (mut bed, mut peer, connection, _) = opened();
    peer.run(&mut bed, 60 * SECOND);
    assert_eq!(connection.state(), ConnectionState::Open);
}

#[test]
fn a_server_that_is_not_there_is_given_up() {
    let (mut bed, peer, mut connection) = bed();
    drop(peer);
    connection.open();
    let end_ns = bed.now_ns + 10 * SECOND;
    while bed.now_ns < end_ns {
        bed.settle();
        bed.now_ns += MS;
    }
    assert_eq!(connection.state(), ConnectionState::Closed);
}

#[test]
fn what_the_server_sent_before_its_end_is_received() {
    let (mut bed, mut peer, mut connection, server) = opened();
    peer.tcp(server).send_slice(b"last words").unwrap();
    peer.tcp(server).close();
    peer.run(&mut bed, 10 * MS);
    assert_eq!(connection.state(), ConnectionState::Open);
    let mut words = [0; 20];
    assert_eq!(connection.receive(&mut words), 10);
    assert_eq!((connection.state(), connection.receive(&mut words)), (ConnectionState::Closed, 0));
}

#[test]
fn an_end_is_told_to_the_server_and_what_was_left_is_gone() {
    let (mut bed, mut peer, mut connection, server) = opened();
    peer.tcp(server).send_slice(b"old").unwrap();
    peer.run(&mut bed, 10 * MS);
    connection.close();
    assert_eq!(connection.state(), ConnectionState::Closed);
    peer.run(&mut bed, 10 * MS);
    assert_eq!(peer.tcp(server).state(), State::Closed);
    let again = listen(&mut peer);
    connection.open();
    peer.run(&mut bed, 10 * MS);
    assert_eq!((connection.state(), connection.receive(&mut [0; 8])), (ConnectionState::Open, 0));
    assert_eq!(peer.tcp(again).state(), State::Established);
}

#[test]
fn dropped_connections_leave_no_socket() {
    let (bed, _, connection) = bed();
    let count = |bed: &Bed| bed.endpoint.borrow().sockets.iter().count();
    let with = count(&bed);
    let mut more: Vec<_> = (0..3).map(|_| EndpointConnection::new(&bed.endpoint, SERVER).unwrap()).collect();
    more.iter_mut().for_each(Connection::open);
    drop(more);
    drop(connection);
    bed.settle();
    assert_eq!(count(&bed), with - 1);
    let dialler = &bed.endpoint.borrow().dialler;
    assert!(dialler.sockets.is_empty() && dialler.waiting.is_empty());
}

fn sockets(bed: &Bed) -> usize {
    bed.endpoint.borrow().dialler.sockets.len()
}

#[test]
fn a_dropped_connection_ends_in_order() {
    let (mut bed, mut peer, mut connection, server) = opened();
    assert_eq!(connection.send(b"last words"), 10);
    let has_left = |bed: &Bed| bed.endpoint.borrow().has_left();
    assert!(has_left(&bed));
    drop(connection);
    assert!(!has_left(&bed));
    // Longer than the server's stack takes to acknowledge.
    peer.run(&mut bed, 50 * MS);
    assert!(has_left(&bed));
    let mut words = [0; 20];
    assert_eq!((peer.tcp(server).recv_slice(&mut words), &words[..10]), (Ok(10), &b"last words"[..]));
    assert_eq!((peer.tcp(server).state(), sockets(&bed)), (State::CloseWait, 0));
    peer.tcp(server).send_slice(b"an answer").unwrap();
    peer.run(&mut bed, 10 * MS);
    assert_eq!(peer.tcp(server).state(), State::Closed, "nobody is there to hear it");
}

#[test]
fn a_server_that_takes_nothing_does_not_keep_a_dropped_connection() {
    let (mut bed, mut peer, mut connection) = bed();
    peer.buffer_bytes = 1000;
    listen(&mut peer);
    connection.open();
    peer.run(&mut bed, 10 * MS);
    assert_eq!(connection.send(&[7; 3000]), 3000);
    drop(connection);
    peer.run(&mut bed, 7 * SECOND);
    assert_eq!(sockets(&bed), 1);
    peer.run(&mut bed, 2 * SECOND);
    assert_eq!(sockets(&bed), 0);
}

#[test]
fn what_is_sent_or_makes_room_goes_out_at_once() {
    let (mut bed, mut peer, mut connection, server) = opened();
    peer.run(&mut bed, 100 * MS);
    assert_eq!(connection.send(b"question"), 8);
    peer.run(&mut bed, 5 * MS);
    assert_eq!(peer.tcp(server).recv_queue(), 8);

    // More than both buffers hold: our side says that it is full.
    let mut sent = 0;
    peer.run_until(&mut bed, SECOND, |peer| {
        sent += peer.tcp(server).send_slice(&[0; 4096]).unwrap();
        false
    });
    let mut buffer = vec![0; 2 * RECEIVE_BYTES];
    let first = connection.receive(&mut buffer);
    assert!(first == RECEIVE_BYTES && sent > first);
    peer.run(&mut bed, 5 * MS);
    assert!(connection.receive(&mut buffer) > 0);
}

#[test]
fn a_port_that_is_used_is_not_drawn_again() {
    let (mut bed, mut peer, first) = bed();
    let second = EndpointConnection::new(&bed.endpoint, SERVER).unwrap();
    let mut both = [first, second];
    for connection in &mut both {
        listen(&mut peer);
        bed.endpoint.borrow_mut().dialler.random = 7;
        connection.open();
        peer.run(&mut bed, 10 * MS);
    }
    let ports = both.map(|connection| connection.with(|socket| socket.local_endpoint().unwrap().port));
    assert_ne!(ports[0], ports[1]);
}

#[test]
fn each_connection_has_a_port_of_its_own() {
    let (mut bed, mut peer, connection) = bed();
    let mut all = vec![connection];
    for _ in 0..20 {
        listen(&mut peer);
        all.push(EndpointConnection::new(&bed.endpoint, SERVER).unwrap());
    }
    listen(&mut peer);
    all.iter_mut().for_each(Connection::open);
    peer.run(&mut bed, 50 * MS);
    assert!(all.iter().all(|connection| connection.state() == ConnectionState::Open));
}
