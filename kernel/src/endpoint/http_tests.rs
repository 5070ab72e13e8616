use super::super::bed::{Bed, MS, NASTY, Peer, SECOND, example};
use super::*;
use alloc::string::String;
use alloc::vec::Vec;
use drivers::net::bridge::PortCounters;
use std::format;
use std::vec;

use crate::endpoint::status::PortStatus;

fn bed() -> (Bed, Peer) {
    let bed = Bed::new("10.0.0.5/24");
    let peer = Peer::new(&bed);
    (bed, peer)
}

fn bed_with_ports(ports: Vec<PortStatus>) -> (Bed, Peer) {
    let bed = Bed::with_status("10.0.0.5/24", Status { ports, ..example() });
    let peer = Peer::new(&bed);
    (bed, peer)
}

fn connected(bed: &mut Bed, peer: &mut Peer) -> SocketHandle {
    let socket = peer.connect(PORT);
    peer.run(bed, 10 * MS);
    socket
}

/// Head and body of an answer, whose length is what the head says.
fn parts(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head, body)
}

fn content_length(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn the_page_and_the_metrics_can_be_read() {
    let (mut bed, mut peer) = bed();
    let answer = peer.fetch(&mut bed, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (head, body) = parts(&answer);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html"), "{head}");
    assert_eq!(content_length(head), body.len());
    assert!(body.contains("<h1>driver domain 1.2.3</h1>") && body.ends_with("</html>\n"), "{body}");
    assert!(!body.contains(NASTY));
    let answer = peer.fetch(&mut bed, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (head, body) = parts(&answer);
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(content_length(head), body.len());
    assert!(body.contains("driver_domain_uptime_seconds 61.000000001\n"), "{body}");
}

#[test]
fn a_head_is_that_of_the_body_which_does_not_follow() {
    let (mut bed, mut peer) = bed();
    let full = peer.fetch(&mut bed, "GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let head = peer.fetch(&mut bed, "HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(head, format!("{}\r\n\r\n", parts(&full).0));
}

#[test]
fn a_page_larger_than_the_sockets_buffer_comes_whole() {
    let counters = PortCounters { frames_in: u64::MAX, ..PortCounters::default() };
    let (mut bed, mut peer) = bed_with_ports(vec![PortStatus { name: "p".into(), counters }; 60]);
    let answer = peer.fetch(&mut bed, "GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let (head, body) = parts(&answer);
    assert_eq!(content_length(head), body.len());
    assert!(body.len() > 5 * SEND_BYTES, "{}", body.len());
}

#[test]
fn what_would_be_too_large_is_unavailable() {
    let ports = vec![PortStatus { name: "p".repeat(100), ..PortStatus::default() }; 500];
    let (mut bed, mut peer) = bed_with_ports(ports);
    let answer = peer.fetch(&mut bed, "GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn each_refusal_has_its_number() {
    let (mut bed, mut peer) = bed();
    let mut line = |request: &str| {
        let answer = peer.fetch(&mut bed, request).unwrap();
        let (head, body) = parts(&answer);
        assert_eq!(content_length(head), body.len());
        String::from(&answer[..12])
    };
    assert_eq!(line("GET /favicon.ico HTTP/1.1\r\n\r\n"), "HTTP/1.1 404");
    assert_eq!(line("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), "HTTP/1.1 405");
    assert_eq!(line("hello\r\n\r\n"), "HTTP/1.1 400");
    assert_eq!(line(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(4000))), "HTTP/1.1 414");
    assert_eq!(line(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(4000))), "HTTP/1.1 431");
}

#[test]
fn requests_in_a_pipeline_are_heard_to_the_end_and_the_first_is_answered() {
    let (mut bed, mut peer) = bed();
    let answer = peer.fetch(&mut bed, &"GET / HTTP/1.1\r\n\r\n".repeat(20_000)).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1);
    assert!(answer.ends_with("</html>\n"));
}

#[test]
fn what_a_client_says_after_its_request_is_taken_from_it() {
    let (mut bed, mut peer) = bed();
    let socket = connected(&mut bed, &mut peer);
    peer.tcp(socket).send_slice(&b"GET / HTTP/1.1\r\n\r\n".repeat(1000)).unwrap();
    assert!(peer.run_until(&mut bed, SECOND, |peer| peer.tcp(socket).send_queue() == 0));
    assert!(peer.read_all(&mut bed, socket, SECOND).unwrap().ends_with("</html>\n"));
}

/// A client that says nothing, and others that ask for a large page and take none of it.
fn bed_with_greedy(count: usize) -> (Bed, Peer, SocketHandle) {
    let ports = vec![PortStatus { name: "p".repeat(50), ..PortStatus::default() }; 20];
    let (mut bed, mut peer) = bed_with_ports(ports);
    let first = connected(&mut bed, &mut peer);
    peer.buffer_bytes = 100;
    let clients: Vec<_> = (0..count).map(|_| peer.connect(PORT)).collect();
    peer.run(&mut bed, 10 * MS);
    for client in clients {
        peer.tcp(client).send_slice(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    }
    peer.run(&mut bed, 100 * MS);
    (bed, peer, first)
}

/// `first` goes away, and a good client asks for a page in its place.
fn asks_after(bed: &mut Bed, peer: &mut Peer, first: SocketHandle) -> SocketHandle {
    peer.tcp(first).abort();
    peer.run(bed, 25 * SECOND);
    peer.buffer_bytes = 64 << 10;
    let next = connected(bed, peer);
    peer.tcp(next).send_slice(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    next
}

#[test]
fn no_more_than_two_pages_are_in_memory_and_others_wait_for_their_turn() {
    let (mut bed, mut peer, first) = bed_with_greedy(3);
    let pages = |bed: &Bed| {
        let endpoint = bed.endpoint.borrow();
        let visits = endpoint.server.slots.iter().filter_map(|slot| slot.visit.as_ref());
        visits.filter(|visit| visit.reply.as_ref().is_some_and(|reply| reply.is_page)).count()
    };
    assert_eq!(pages(&bed), 2);
    // The socket that comes first is free again, and its next client asks when both pages are held still.
    let next = asks_after(&mut bed, &mut peer, first);
    assert_eq!(peer.read_all(&mut bed, next, SECOND), None);
    assert_eq!(pages(&bed), 2);
}

#[test]
fn who_waits_for_a_turn_has_it_when_anothers_time_is_over() {
    let (mut bed, mut peer, first) = bed_with_greedy(2);
    let next = asks_after(&mut bed, &mut peer, first);
    let begun_ns = bed.now_ns;
    assert!(peer.read_all(&mut bed, next, 8 * SECOND).unwrap().ends_with("</html>\n"));
    assert!(bed.now_ns - begun_ns > 4 * SECOND);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (mut bed, mut peer) = bed();
    let socket = connected(&mut bed, &mut peer);
    for byte in b"GET /nothing HTTP/1.1\r\n\r\n" {
        assert_eq!(peer.tcp(socket).send_slice(&[*byte]), Ok(1));
        peer.run(&mut bed, 50 * MS);
    }
    let answer = peer.read_all(&mut bed, socket, SECOND).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"));
}

#[test]
fn a_client_that_only_ends_gets_nothing_and_leaves_nothing() {
    let (mut bed, mut peer) = bed();
    let socket = connected(&mut bed, &mut peer);
    peer.tcp(socket).send_slice(b"GET /").unwrap();
    peer.tcp(socket).close();
    peer.run(&mut bed, 100 * MS);
    assert_eq!(peer.tcp(socket).state(), State::Closed);
}

#[test]
fn who_says_nothing_is_ended_after_ten_seconds_and_others_are_served_then() {
    let (mut bed, mut peer) = bed();
    let idle: Vec<_> = (0..SOCKETS).map(|_| peer.connect(PORT)).collect();
    peer.run(&mut bed, 9 * SECOND);
    assert!(idle.iter().all(|socket| peer.tcp(*socket).state() == State::Established));
    let late = peer.connect(PORT);
    peer.run(&mut bed, 500 * MS);
    assert_eq!(peer.tcp(late).state(), State::SynSent, "it is not refused");
    assert!(peer.run_until(&mut bed, 5 * SECOND, |peer| peer.tcp(late).may_send()));
    assert!(idle.iter().all(|socket| peer.tcp(*socket).state() == State::Closed));
    peer.tcp(late).send_slice(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(peer.read_all(&mut bed, late, SECOND).unwrap().ends_with("</html>\n"));
}

#[test]
fn who_sends_slowly_or_takes_nothing_is_ended_too() {
    let (mut bed, mut peer) = bed();
    let slow = peer.connect(PORT);
    peer.buffer_bytes = 100;
    let deaf = peer.connect(PORT);
    peer.run(&mut bed, 10 * MS);
    peer.tcp(deaf).send_slice(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    for _ in 0..12 {
        let _ = peer.tcp(slow).send_slice(b"G");
        peer.run(&mut bed, SECOND);
    }
    assert_eq!(peer.tcp(slow).state(), State::Closed);
    assert_eq!(peer.tcp(deaf).state(), State::Established);
    peer.run(&mut bed, 25 * SECOND);
    assert_eq!(peer.tcp(deaf).state(), State::Closed);
    bed.settle();
    assert_eq!(bed.endpoint.borrow().deadline_ns(), None, "nobody is there any more");
}

#[test]
fn a_forged_handshake_holds_a_socket_for_three_seconds() {
    let (mut bed, mut peer) = bed();
    // It is dropped before the second segment of the handshake comes, and its stack answers nothing.
    for _ in 0..SOCKETS {
        peer.connect(PORT);
    }
    peer.interface.poll(super::super::instant(bed.now_ns), &mut peer.wire, &mut peer.sockets);
    bed.settle();
    peer.interface.poll(super::super::instant(bed.now_ns), &mut peer.wire, &mut peer.sockets);
    bed.settle();
    drop(peer);
    let has_room = |bed: &Bed| {
        let endpoint = bed.endpoint.borrow();
        endpoint.server.has_room(&endpoint.sockets)
    };
    assert!(!has_room(&bed));
    bed.pass(3500 * MS);
    assert!(has_room(&bed));
}

#[test]
fn many_more_clients_than_sockets_are_all_served() {
    let (mut bed, mut peer) = bed();
    let clients: Vec<_> = (0..4 * SOCKETS).map(|_| peer.connect(PORT)).collect();
    let mut asked = vec![false; clients.len()];
    let mut answers = vec![0; clients.len()];
    let all = peer.run_until(&mut bed, 60 * SECOND, |peer| {
        for (index, client) in clients.iter().enumerate() {
            let socket = peer.tcp(*client);
            if socket.may_send() && !asked[index] {
                asked[index] = socket.send_slice(b"GET /metrics HTTP/1.1\r\n\r\n").is_ok();
            }
            answers[index] += socket.recv(|part| (part.len(), part.len())).unwrap_or(0);
            if socket.state() == State::CloseWait {
                socket.close();
            }
        }
        clients.iter().all(|client| peer.tcp(*client).state() == State::Closed)
    });
    assert!(all);
    assert!(answers.iter().all(|bytes| *bytes == answers[0] && *bytes > 2000), "{answers:?}");
}
