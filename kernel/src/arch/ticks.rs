//! Nanoseconds and ticks of a counter.

const NS_PER_S: u64 = 1_000_000_000;

/// The time in nanoseconds when a counter of `hz` ticks a second shows `ticks`, rounded down.
#[must_use]
pub const fn to_ns(ticks: u64, hz: u64) -> u64 {
    // In two parts: ticks times 10^9 would overflow after a few minutes.
    ticks / hz * NS_PER_S + ticks % hz * NS_PER_S / hz
}

/// What the counter shows when [`to_ns`] first tells `ns` or more.
#[must_use]
pub const fn at_ns(ns: u64, hz: u64) -> u64 {
    let (seconds, rest) = (ns / NS_PER_S, ns % NS_PER_S);
    seconds.saturating_mul(hz).saturating_add((rest * hz).div_ceil(NS_PER_S))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_has_as_many_ticks_as_the_frequency_says() {
        assert_eq!((to_ns(62_500_000, 62_500_000), at_ns(NS_PER_S, 62_500_000)), (NS_PER_S, 62_500_000));
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        assert_eq!(at_ns(u64::MAX, u64::from(u32::MAX)), u64::MAX);
    }

    proptest! {
        /// An alarm never rings early, nor a tick late.
        #[test]
        fn the_first_tick_at_which_the_time_has_come(ns in 0..1_u64 << 60, hz in 1_000_000..5_000_000_000_u64) {
            let ticks = at_ns(ns, hz);
            prop_assert!(to_ns(ticks, hz) >= ns);
            prop_assert!(ticks == 0 || to_ns(ticks - 1, hz) < ns);
        }
    }
}
