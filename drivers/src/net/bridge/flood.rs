//! How many copies a port may have the bridge make: frames for groups, and for stations that nobody knows.

/// Copies in a second, in the long run. One costs a few microseconds, so that a storm takes some hundredths of one CPU from
/// the others; ARP, DHCP, mDNS and router advertisements of a guest are a few in a second, and a video stream for a group,
/// 20 Mbit/s to one receiver, is 1800.
const COPIES_PER_SECOND: u64 = 4000;
const COPY_NS: u64 = 1_000_000_000 / COPIES_PER_SECOND;
/// Who was quiet may have one second's copies at once: a scan of a network with 254 addresses, to 15 other ports.
const BURST_NS: u64 = 1_000_000_000;

/// The account of one port: a token bucket, told by the time until which it is spent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FloodLimit {
    spent_until_ns: u64,
}

impl FloodLimit {
    /// Whether one more frame may be flooded. To all or to none: else those that come last would be served worse.
    pub fn allows(&self, now_ns: u64) -> bool {
        self.spent_until_ns.saturating_sub(now_ns) < BURST_NS
    }

    /// It was, in so many copies.
    pub fn charge(&mut self, copies: u64, now_ns: u64) {
        let from_ns = self.spent_until_ns.max(now_ns);
        self.spent_until_ns = from_ns.saturating_add(copies.saturating_mul(COPY_NS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flooded(limit: &mut FloodLimit, copies: u64, now_ns: u64) -> u64 {
        let mut frames = 0;
        while limit.allows(now_ns) {
            limit.charge(copies, now_ns);
            frames += 1;
        }
        frames
    }

    #[test]
    fn a_burst_and_then_a_rate() {
        let mut limit = FloodLimit::default();
        assert_eq!(flooded(&mut limit, 4, 5_000_000_000), 1000);
        assert_eq!(flooded(&mut limit, 4, 5_100_000_000), 100);
        assert_eq!(flooded(&mut limit, 4, 60_000_000_000), 1000);
    }

    #[test]
    fn what_nobody_wants_costs_nothing() {
        let mut limit = FloodLimit::default();
        limit.charge(0, 5);
        assert_eq!(flooded(&mut limit, 1, 5), 4000);
    }
}
