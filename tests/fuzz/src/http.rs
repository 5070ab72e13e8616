//! Clients of the HTTP server, over a second stack: what is answered is an answer to what was said, and whoever is slow is out after
//! some time.

use crate::endpoint_bed::{Bed, MS, OUR_IP, SECOND, THEIR_IP, THEIRS, instant, port};
use crate::input::steps;
use arbitrary::{Arbitrary, Unstructured};
use drivers::net::bridge::PortKind;
use kernel::endpoint::addressing::parse;
use kernel::endpoint::phy::Wire;
use kernel::endpoint::request::{self, HEAD_BYTES_MAX};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr};

const CLIENTS: usize = 6;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Connects, and makes a good request.
    Fetch {
        client: u8,
        is_head: bool,
    },
    Connect {
        client: u8,
    },
    Say {
        client: u8,
        words: Vec<u8>,
    },
    SayRaw {
        client: u8,
        bytes: Vec<u8>,
    },
    Read {
        client: u8,
        bytes: u16,
    },
    Close {
        client: u8,
    },
    Abort {
        client: u8,
    },
    Run {
        ms: u8,
    },
    Sleep {
        seconds: u8,
    },
}

const WORDS: [&str; 16] = [
    "GET ",
    "/",
    "/metrics",
    " HTTP/1.1\r\n",
    "\r\n",
    "Host: a\r\n",
    "HEAD ",
    "POST ",
    " HTTP/1.0\r\n",
    "?x=1",
    "a",
    "Connection: keep-alive\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n",
    "\0",
];

struct Client {
    socket: SocketHandle,
    said: Vec<u8>,
    heard: Vec<u8>,
}

struct Web {
    bed: Bed,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    clients: [Option<Client>; CLIENTS],
    next_port: u16,
}

impl Web {
    fn new() -> Self {
        let Ok(Some(addressing)) = parse("10.0.0.5/24") else { panic!("a good address") };
        let bed = Bed::new(addressing);
        let mut wire = Wire::new(port(&bed.bridge, "peer", PortKind::Uplink, THEIRS));
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(THEIRS.0)));
        let mut interface = Interface::new(config, &mut wire, instant(bed.now_ns));
        let [a, b, c, d] = THEIR_IP;
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(Ipv4Address::new(a, b, c, d), 24)));
        });
        let sockets = SocketSet::new(Vec::new());
        Self { bed, wire, interface, sockets, clients: Default::default(), next_port: 1000 }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.bed.settle();
            self.wire.set_time(self.bed.now_ns);
            self.interface.poll(instant(self.bed.now_ns), &mut self.wire, &mut self.sockets);
            self.bed.settle();
            self.bed.now_ns += MS;
        }
    }

    fn connect(&mut self, number: usize) {
        if let Some(client) = self.clients[number].take() {
            self.sockets.remove(client.socket);
        }
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let socket = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port += 1;
        let [a, b, c, d] = OUR_IP;
        let remote = (IpAddress::v4(a, b, c, d), 80);
        let context = self.interface.context();
        let connecting = self.sockets.get_mut::<Socket<'_>>(socket).connect(context, remote, self.next_port);
        connecting.expect("a port of its own");
        self.clients[number] = Some(Client { socket, said: Vec::new(), heard: Vec::new() });
        self.run(2);
    }

    fn with(&mut self, number: u8, use_it: impl FnOnce(&mut Client, &mut Socket<'static>)) {
        if let Some(client) = &mut self.clients[usize::from(number) % CLIENTS] {
            use_it(client, self.sockets.get_mut(client.socket));
        }
    }

    fn say(&mut self, number: u8, bytes: &[u8]) {
        self.with(number, |client, socket| {
            if socket.may_send() {
                let said = socket.send_slice(bytes).unwrap_or(0);
                client.said.extend_from_slice(&bytes[..said]);
            }
        });
        self.run(1);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect { client } => self.connect(usize::from(client) % CLIENTS),
            Step::Fetch { client, is_head } => {
                self.connect(usize::from(client) % CLIENTS);
                let method = if is_head { "HEAD" } else { "GET" };
                self.say(client, format!("{method} /metrics HTTP/1.1\r\n\r\n").as_bytes());
            }
            Step::Say { client, words } => {
                let words = words.iter().take(64).map(|word| WORDS[usize::from(word % 16)]);
                self.say(client, words.collect::<String>().as_bytes());
            }
            Step::SayRaw { client, bytes } => self.say(client, &bytes),
            Step::Read { client, bytes } => self.with(client, |client, socket| {
                let most = usize::from(bytes);
                let _ = socket.recv(|part| {
                    let part = &part[..part.len().min(most)];
                    client.heard.extend_from_slice(part);
                    (part.len(), ())
                });
            }),
            Step::Close { client } => self.with(client, |_, socket| socket.close()),
            Step::Abort { client } => self.with(client, |_, socket| socket.abort()),
            Step::Run { ms } => self.run(u64::from(ms % 16)),
            Step::Sleep { seconds } => {
                self.bed.now_ns += u64::from(seconds % 64) * SECOND;
                self.run(1);
            }
        }
    }

    /// Reads on until the server has ended the connection, or it takes too long. Returns whether it has.
    fn read_all(&mut self, number: usize) -> bool {
        for _ in 0..40 {
            let mut has_ended = true;
            self.with(number as u8, |client, socket| {
                while socket.can_recv() {
                    let _ = socket.recv(|part| (part.len(), client.heard.extend_from_slice(part)));
                }
                has_ended = matches!(socket.state(), State::CloseWait);
            });
            if has_ended {
                return true;
            }
            self.run(5);
        }
        false
    }
}

/// What an answer must be to what was said.
fn judge(client: &Client, is_whole: bool) {
    let Client { said, heard, .. } = client;
    if heard.is_empty() {
        return;
    }
    assert!(b"HTTP/1.1 ".starts_with(&heard[..heard.len().min(9)]), "an answer that is none");
    let Some(end) = heard.windows(4).position(|part| part == b"\r\n\r\n") else {
        assert!(!is_whole, "an answer without an end");
        return;
    };
    let head = String::from_utf8_lossy(&heard[..end]);
    let body_bytes = heard.len() - end - 4;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).expect("the body's length");
    assert!(body_bytes <= length, "more than was said");
    let wish = request::read(&said[..said.len().min(HEAD_BYTES_MAX)], said.len() >= HEAD_BYTES_MAX);
    let wish = wish.expect("an answer to a request that is not over");
    assert!(!is_whole || body_bytes == if wish.head_only { 0 } else { length }, "not all of the answer");
}

/// Clients of the HTTP server.
pub fn http(data: &[u8]) {
    // A longer beginning says the same.
    let head = &data[..data.len().min(HEAD_BYTES_MAX - 1)];
    let judged = request::read(head, false);
    for part in 1..8 {
        let earlier = request::read(&head[..head.len() * part / 8], false);
        assert!(earlier.is_none() || earlier == judged, "it changes its mind");
    }
    let full = request::read(head, true);
    assert!(
        full.is_some() && (judged.is_none() || judged == full),
        "no answer when there is no room for more"
    );
    let mut web = Web::new();
    web.connect(0);
    steps(Unstructured::new(data)).for_each(|step| web.step(step));
    for number in 0..CLIENTS {
        let is_open = web.clients[number].is_some() && web.read_all(number);
        if let Some(client) = &web.clients[number] {
            judge(client, is_open);
        }
    }
    // Whoever was slow is out after some time, and others get their turn.
    web.clients.iter_mut().for_each(|client| {
        if let Some(client) = client.take() {
            web.sockets.remove(client.socket);
        }
    });
    web.run(2);
    web.bed.now_ns += 60 * SECOND;
    web.run(2);
    web.bed.now_ns += 60 * SECOND;
    web.run(2);
    web.connect(0);
    web.run(5);
    web.say(0, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(web.read_all(0), "a good request is not answered");
    let client = web.clients[0].as_ref().expect("it has connected");
    assert!(client.heard.starts_with(b"HTTP/1.1 200 OK\r\n"));
    judge(client, true);
    let Web { bed, wire, .. } = web;
    drop((bed.endpoint, wire));
    assert_eq!(bed.bridge.borrow().pool().in_use(), 0, "a buffer is lost");
}
