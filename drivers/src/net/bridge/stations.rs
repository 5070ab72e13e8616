//! Which port a station is behind, learned from the sources of frames.
//!
//! Each port has its own entries, a bounded number of them: one that is flooded with addresses loses its own, never
//! another's. All are found through one hash table of chains; the hash has a secret key, so nobody can choose addresses that
//! fall into one chain. What became old stays in place until it is seen again or its place is needed: nothing goes round.
//!
//! An address that is a port's own is there for good, and nobody else can have it. What was heard at the preferred port, the
//! uplink, is nobody else's before it is old: no guest takes the place of the gateway.

use crate::net::MacAddress;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hasher;
use siphasher::sip::SipHasher13;

/// A station that was not heard for so long may be elsewhere (IEEE 802.1D, table 7-5).
const AGE_MAX_S: u32 = 300;
/// Chains. With all ports' entries in use each has three.
const CHAINS: usize = 1024;
/// How many entries are looked at for one that was not heard for long.
const VICTIMS: usize = 8;

/// An entry: the port it belongs to, and which of that port's it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    port: u16,
    slot: u16,
}

/// The end of a chain.
const END: Link = Link { port: u16::MAX, slot: u16::MAX };

#[derive(Clone, Copy, Debug)]
struct Station {
    address: MacAddress,
    next: Link,
    seen_s: u32,
}

#[derive(Default)]
struct Held {
    /// The first is the port's own, if it has one.
    stations: Vec<Station>,
    /// How many there may be.
    most: usize,
    has_own: bool,
    /// Where the search for a victim goes on.
    hand: usize,
}

/// The table of stations.
pub(super) struct Stations {
    key: u64,
    chains: Box<[Link]>,
    ports: Vec<Held>,
    preferred: Option<usize>,
}

/// The heap has not so much left.
pub(super) struct NoMemory;

impl Stations {
    /// An empty table, hashed with the secret `key`.
    pub fn new(key: u64) -> Self {
        Self { key, chains: vec![END; CHAINS].into_boxed_slice(), ports: Vec::new(), preferred: None }
    }

    /// There is a port, with at most so many stations, and perhaps an address of its own, which is nobody else's own.
    pub fn add(&mut self, port: usize, own: Option<MacAddress>, most: usize) -> Result<(), NoMemory> {
        let lacking = (port + 1).saturating_sub(self.ports.len());
        self.ports.try_reserve(lacking).map_err(|_| NoMemory)?;
        self.ports.extend(core::iter::repeat_with(Held::default).take(lacking));
        let held = self.ports.get_mut(port).ok_or(NoMemory)?;
        held.most = most;
        let Some(address) = own else { return Ok(()) };
        // It comes before what others may have learned, so that is not found any more.
        self.insert(port, address, 0).ok_or(NoMemory)?;
        self.ports.get_mut(port).ok_or(NoMemory)?.has_own = true;
        Ok(())
    }

    /// A port that has an address of its own has another one from now on.
    pub fn set_own(&mut self, port: usize, address: MacAddress) {
        let Some(entry) = link(port, 0).filter(|entry| self.is_own(*entry)) else { return };
        self.unlink(entry);
        let _ = self.enter(entry, address, 0);
    }

    /// From now on `port` comes before others, but where an address is their own.
    pub fn prefer(&mut self, port: usize) {
        self.preferred = Some(port);
    }

    /// The port is no more.
    pub fn remove(&mut self, port: usize) {
        self.preferred = self.preferred.filter(|preferred| *preferred != port);
        let slots = self.ports.get(port).map_or(0, |held| held.stations.len());
        (0..slots).filter_map(|slot| link(port, slot)).for_each(|entry| self.unlink(entry));
        if let Some(held) = self.ports.get_mut(port) {
            *held = Held::default();
        }
    }

    /// The port that the station is behind, if it was heard lately.
    pub fn find(&self, address: MacAddress, now_s: u32) -> Option<usize> {
        self.entry(address, now_s).map(|entry| entry.port.into())
    }

    /// The station was heard at the port, and so is no longer behind another. False if the address is another port's own, or
    /// the preferred port's.
    pub fn learn(&mut self, port: usize, address: MacAddress, now_s: u32) -> bool {
        if let Some(entry) = self.entry(address, now_s) {
            let holder = usize::from(entry.port);
            if holder != port && (self.is_own(entry) || self.preferred == Some(holder)) {
                return false;
            }
        }
        let (mut at, mut is_there) = (self.chain(address), false);
        while let Some(station) = self.station(at) {
            if station.address == address {
                let is_ours = usize::from(at.port) == port;
                is_there |= is_ours;
                let seen_s = if is_ours { now_s } else { now_s.wrapping_sub(AGE_MAX_S + 1) };
                if let Some(station) = self.station_mut(at) {
                    station.seen_s = seen_s;
                }
            }
            at = station.next;
        }
        if !is_there {
            // Without memory for it, frames for the station are flooded.
            let _ = self.insert(port, address, now_s);
        }
        true
    }

    /// Most entries that a port has at this time.
    #[cfg(test)]
    pub fn held(&self, port: usize) -> usize {
        self.ports.get(port).map_or(0, |held| held.stations.len())
    }

    /// The entry that says where the station is.
    fn entry(&self, address: MacAddress, now_s: u32) -> Option<Link> {
        let mut at = self.chain(address);
        while let Some(station) = self.station(at) {
            let is_known = self.is_own(at) || now_s.wrapping_sub(station.seen_s) <= AGE_MAX_S;
            if station.address == address && is_known {
                return Some(at);
            }
            at = station.next;
        }
        None
    }

    /// A new entry.
    fn insert(&mut self, port: usize, address: MacAddress, now_s: u32) -> Option<()> {
        let entry = self.room(port, now_s)?;
        self.enter(entry, address, now_s)
    }

    /// Makes an entry that is in no chain the first of one.
    fn enter(&mut self, entry: Link, address: MacAddress, now_s: u32) -> Option<()> {
        let next = self.chain(address);
        *self.station_mut(entry)? = Station { address, next, seen_s: now_s };
        let chain = self.index(address);
        *self.chains.get_mut(chain)? = entry;
        Some(())
    }

    /// A place that is in no chain.
    fn room(&mut self, port: usize, now_s: u32) -> Option<Link> {
        let held = self.ports.get_mut(port)?;
        let slots = held.stations.len();
        if slots < held.most && held.stations.try_reserve(1).is_ok() {
            held.stations.push(Station { address: MacAddress([0; 6]), next: END, seen_s: now_s });
            return link(port, slots);
        }
        let victim = held.victim(now_s)?;
        let victim = link(port, victim)?;
        self.unlink(victim);
        Some(victim)
    }

    fn unlink(&mut self, entry: Link) {
        let Some(Station { address, next, .. }) = self.station(entry) else { return };
        let chain = self.index(address);
        let mut at = match self.chains.get_mut(chain) {
            Some(first) if *first == entry => return *first = next,
            Some(first) => *first,
            None => return,
        };
        while let Some(station) = self.station_mut(at) {
            if station.next == entry {
                return station.next = next;
            }
            at = station.next;
        }
    }

    fn is_own(&self, entry: Link) -> bool {
        entry.slot == 0 && self.ports.get(usize::from(entry.port)).is_some_and(|held| held.has_own)
    }

    fn station(&self, entry: Link) -> Option<Station> {
        self.ports.get(usize::from(entry.port))?.stations.get(usize::from(entry.slot)).copied()
    }

    fn station_mut(&mut self, entry: Link) -> Option<&mut Station> {
        self.ports.get_mut(usize::from(entry.port))?.stations.get_mut(usize::from(entry.slot))
    }

    fn chain(&self, address: MacAddress) -> Link {
        self.chains.get(self.index(address)).copied().unwrap_or(END)
    }

    fn index(&self, address: MacAddress) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.key, 0);
        hasher.write(&address.0);
        usize::try_from(hasher.finish() % CHAINS as u64).unwrap_or(0)
    }
}

impl Held {
    /// Of the next few, the one that was not heard for longest.
    fn victim(&mut self, now_s: u32) -> Option<usize> {
        let first = usize::from(self.has_own);
        let learned = self.stations.len().checked_sub(first).filter(|learned| *learned > 0)?;
        let tried = learned.min(VICTIMS);
        let start = self.hand;
        self.hand = (start + tried) % learned;
        let candidates = (start..start + tried).map(|at| first + at % learned);
        candidates.max_by_key(|slot| self.stations.get(*slot).map(|it| now_s.wrapping_sub(it.seen_s)))
    }
}

fn link(port: usize, slot: usize) -> Option<Link> {
    Some(Link { port: u16::try_from(port).ok()?, slot: u16::try_from(slot).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> MacAddress {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddress([2, 0, a, b, c, d])
    }

    fn table() -> Stations {
        let mut table = Stations::new(7);
        for port in 0..3 {
            assert!(table.add(port, Some(address(port.try_into().unwrap())), 64).is_ok());
        }
        table
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Station>(), 16);
    }

    #[test]
    fn own_addresses_are_known_and_never_age() {
        let table = table();
        assert_eq!((table.find(address(2), 0), table.find(address(2), 1_000_000)), (Some(2), Some(2)));
    }

    #[test]
    fn a_station_is_forgotten_after_five_minutes() {
        let mut table = table();
        assert!(table.learn(1, address(100), 50));
        assert_eq!((table.find(address(100), 350), table.find(address(100), 351)), (Some(1), None));
        assert!(table.learn(1, address(100), 400));
        assert_eq!((table.find(address(100), 700), table.held(1)), (Some(1), 2));
    }

    #[test]
    fn a_station_that_moves_is_behind_its_new_port() {
        let mut table = table();
        for turn in 0..100 {
            assert!(table.learn(turn % 3, address(100), 50));
            assert_eq!(table.find(address(100), 50), Some(turn % 3));
        }
        table.remove(0);
        assert_eq!((table.find(address(100), 50), table.held(1)), (None, 2));
    }

    #[test]
    fn nobody_takes_anothers_own_address() {
        let mut table = table();
        assert!(!table.learn(1, address(0), 50));
        assert_eq!(table.find(address(0), 50), Some(0));
    }

    #[test]
    fn nobody_takes_what_the_preferred_port_has_before_it_is_old() {
        let mut table = table();
        table.prefer(2);
        assert!(table.learn(0, address(100), 10));
        assert!(table.learn(2, address(100), 50));
        // It has an entry of its own, from before.
        assert!(!table.learn(0, address(100), 60));
        assert_eq!(table.find(address(100), 60), Some(2));
        assert!(table.learn(0, address(100), 351));
        assert_eq!(table.find(address(100), 351), Some(0));
        assert!(table.learn(2, address(100), 352));
        assert_eq!(table.find(address(100), 352), Some(2));
        table.remove(2);
        assert!(table.learn(1, address(100), 353));
    }

    #[test]
    fn an_own_address_is_taken_from_who_learned_it() {
        let mut table = table();
        assert!(table.learn(1, address(3), 50));
        assert!(table.add(3, Some(address(3)), 64).is_ok());
        assert_eq!(table.find(address(3), 50), Some(3));
        assert!(!table.learn(1, address(3), 50));
        table.remove(3);
        assert!(table.learn(1, address(3), 60));
        assert_eq!(table.find(address(3), 60), Some(1));
    }

    #[test]
    fn a_flood_of_addresses_takes_nothing_from_others() {
        let mut table = table();
        (1000..1063).for_each(|number| assert!(table.learn(0, address(number), 1)));
        (2000..9000).for_each(|number| assert!(table.learn(1, address(number), 2)));
        assert_eq!((table.held(0), table.held(1), table.held(2)), (64, 64, 1));
        assert!((1000..1063).all(|number| table.find(address(number), 2) == Some(0)));
        assert!((0..3).all(|port| table.find(address(port), 2) == Some(usize::try_from(port).unwrap())));
        let left = (2000..9000).filter(|number| table.find(address(*number), 2).is_some()).count();
        assert_eq!(left, 63);
    }

    #[test]
    fn who_was_heard_lately_stays() {
        let mut table = table();
        (1000..1063).for_each(|number| assert!(table.learn(0, address(number), number)));
        assert!(table.learn(0, address(1000), 1063));
        (2000..2008).for_each(|number| assert!(table.learn(0, address(number), 1064)));
        assert_eq!(table.find(address(1000), 1064), Some(0));
        assert_eq!(table.find(address(1001), 1064), None);
    }

    #[test]
    fn chains_hold_each_entry_once() {
        let mut table = table();
        (0..5000_u32).for_each(|turn| {
            let port = usize::try_from(turn % 3).unwrap();
            let _ = table.learn(port, address(turn.wrapping_mul(2_654_435_761) % 300), turn / 10);
            if turn % 1000 == 999 {
                table.remove(port);
                assert!(table.add(port, Some(address(turn % 3)), 64).is_ok());
            }
        });
        let mut linked = 0;
        for mut at in table.chains.iter().copied() {
            while let Some(station) = table.station(at) {
                linked += 1;
                at = station.next;
            }
        }
        assert_eq!(linked, (0..3).map(|port| table.held(port)).sum::<usize>());
    }
}
