//! Frames: good ones, made by `etherparse`, and what can be done to them.

use arbitrary::{Arbitrary, Result, Unstructured};
use drivers::net::MacAddress;
use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader,
    PacketBuilder, TcpHeader,
};

/// Most bytes of payload: a packet of 64 KiB, with all headers.
const PAYLOAD_MAX: usize = 65_000;

/// A station, by a small number; and nobody, groups, and those that no bridge forwards.
#[must_use]
pub fn address(number: u8) -> MacAddress {
    match number {
        0..=239 => MacAddress([0, 0x16, 0x3e, 0, 0, number % 12]),
        240..=247 => MacAddress::BROADCAST,
        248..=250 => MacAddress([0x01, 0x00, 0x5e, 0, 0, number]),
        251 => MacAddress([0x33, 0x33, 0, 0, 0, 1]),
        252 => MacAddress([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
        253 => MacAddress([0; 6]),
        _ => MacAddress([0x02, 0, 0, 0, 1, number]),
    }
}

/// What a frame carries.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Network {
    /// Nothing that anybody looks into.
    None,
    /// TCP over IPv4.
    V4 { identification: u16, option_words: u8 },
    /// TCP over IPv6, with so many bytes of options.
    V6 { options: Option<u8> },
}

/// A frame.
#[derive(Clone, Debug)]
pub struct Packet {
    pub to: u8,
    pub from: u8,
    /// VLAN tags, the outermost first; the bool says that it is a service tag.
    pub tags: Vec<(bool, u16)>,
    pub network: Network,
    pub sequence: u32,
    /// NS, FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
    pub flags: u16,
    pub option_words: u8,
    pub payload: usize,
}

impl<'a> Arbitrary<'a> for Packet {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let (to, from) = input.arbitrary()?;
        let tags = match input.arbitrary::<u8>()? {
            kind @ 200.. => (0..kind % 4).map(|_| input.arbitrary()).collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        let (network, sequence, flags, option_words) = input.arbitrary()?;
        let payload = match input.arbitrary::<u8>()? {
            short @ 0..=127 => usize::from(short),
            128..=191 => 1448 + usize::from(input.arbitrary::<u8>()?),
            192..=239 => usize::from(input.arbitrary::<u16>()?) % 8192,
            _ => usize::from(input.arbitrary::<u16>()?).min(PAYLOAD_MAX),
        };
        Ok(Self { to, from, tags, network, sequence, flags, option_words, payload })
    }
}

impl Packet {
    /// Its network header and extensions.
    #[must_use]
    pub fn ip(&self) -> Option<IpHeaders> {
        match self.network {
            Network::None => None,
            Network::V4 { identification, option_words } => {
                let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, [10, 1, 2, 3], [10, 1, 2, 4]).ok()?;
                header.identification = identification;
                header.options = vec![1; usize::from(option_words % 11) * 4].as_slice().try_into().ok()?;
                Some(IpHeaders::Ipv4(header, Ipv4Extensions::default()))
            }
            Network::V6 { options } => {
                let header = Ipv6Header { source: [7; 16], destination: [9; 16], ..Ipv6Header::default() };
                let extension = |bytes: u8| {
                    let payload = vec![0; usize::from(bytes % 24).next_multiple_of(8) + 6];
                    Ipv6RawExtHeader::new_raw(IpNumber::TCP, &payload).ok()
                };
                let hop_by_hop_options = options.and_then(extension);
                let extensions = Ipv6Extensions { hop_by_hop_options, ..Ipv6Extensions::default() };
                Some(IpHeaders::Ipv6(header, extensions))
            }
        }
    }

    /// Its transport header.
    #[must_use]
    pub fn tcp(&self) -> TcpHeader {
        let mut header = TcpHeader::new(1234, 80, self.sequence, 4096);
        let flag = |bit: u16| self.flags >> bit & 1 != 0;
        (header.ns, header.fin, header.syn, header.rst) = (flag(0), flag(1), flag(2), flag(3));
        (header.psh, header.ack, header.urg) = (flag(4), flag(5), flag(6));
        (header.ece, header.cwr) = (flag(7), flag(8));
        let _ = header.set_options_raw(&vec![1; usize::from(self.option_words % 11) * 4]);
        header
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        (0..self.payload).map(|place| (place % 251) as u8).collect()
    }

    /// Where the transport header is.
    #[must_use]
    pub fn transport(&self) -> usize {
        14 + self.tags.len() * 4 + self.ip().map_or(0, |ip| ip.header_len())
    }

    /// The frame, with its checksums complete.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let (to, from) = (address(self.to).0, address(self.from).0);
        let mut frame = Vec::new();
        match self.ip() {
            Some(ip) => {
                let builder = PacketBuilder::ethernet2(from, to).ip(ip);
                let written = builder.tcp_header(self.tcp()).write_to_vec(&mut frame, &self.payload());
                written.expect("a good packet");
            }
            None => frame.extend([&to[..], &from, &[0x88, 0xb5], &self.payload()].concat()),
        }
        for (is_service, id) in self.tags.iter().rev() {
            let kind: [u8; 2] = if *is_service { [0x88, 0xa8] } else { [0x81, 0x00] };
            let [high, low] = id.to_be_bytes();
            frame.splice(12..12, [kind[0], kind[1], high, low]);
        }
        frame
    }

    /// The sum of the pseudo-header for so many bytes of TCP.
    #[must_use]
    pub fn pseudo(&self, tcp_bytes: usize) -> u16 {
        let addresses = match self.ip() {
            Some(IpHeaders::Ipv4(header, _)) => [&header.source[..], &header.destination].concat(),
            Some(IpHeaders::Ipv6(header, _)) => [&header.source[..], &header.destination].concat(),
            None => Vec::new(),
        };
        let words = addresses.as_chunks::<2>().0.iter().map(|word| u64::from(u16::from_be_bytes(*word)));
        // Ones' complement arithmetic is that of residues modulo 0xffff.
        ((words.sum::<u64>() + 6 + tcp_bytes as u64) % 0xffff) as u16
    }

    /// The frame as one sends it who leaves its checksum to the receiver.
    #[must_use]
    pub fn partial(&self) -> Vec<u8> {
        let mut frame = self.frame();
        let (at, bytes) = (self.transport() + 16, frame.len() - self.transport());
        if let (Some(place), Some(_)) = (frame.get_mut(at..at + 2), self.ip()) {
            place.copy_from_slice(&self.pseudo(bytes).to_be_bytes());
        }
        frame
    }
}

/// Damage to a frame.
#[derive(Arbitrary, Clone, Debug, Default)]
pub struct Damage {
    scratches: Vec<(u8, u8)>,
    cut_off: Option<u8>,
}

impl Damage {
    /// Does it.
    pub fn apply(&self, frame: &mut Vec<u8>) {
        for (at, byte) in &self.scratches {
            if let Some(victim) = frame.get_mut(usize::from(*at)) {
                *victim = *byte;
            }
        }
        frame.truncate(self.cut_off.map_or(usize::MAX, usize::from));
    }
}
