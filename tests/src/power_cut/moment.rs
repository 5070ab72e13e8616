//! When the power is cut.

use std::fmt;
use std::time::Duration;

/// Not before so many reports: then both guests are at work.
const FEWEST_REPORTS: u64 = 20;
/// Nor after many more, so that a run does not take long.
const SPREAD_REPORTS: u64 = 180;
const LONGEST_DELAY_MICROSECONDS: u64 = 250_000;

/// A moment in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// After so many reports.
    pub reports: usize,
    /// And so much later.
    pub delay: Duration,
}

impl Moment {
    /// The moment of cut `number`: another one for each, and the same in each run.
    pub fn of(number: u32) -> Self {
        let random = scrambled(u64::from(number));
        let reports = FEWEST_REPORTS + random % SPREAD_REPORTS;
        Self {
            reports: usize::try_from(reports).unwrap_or(usize::MAX),
            delay: Duration::from_micros((random >> 32) % LONGEST_DELAY_MICROSECONDS),
        }
    }
}

/// The finalizer of SplitMix64.
fn scrambled(number: u64) -> u64 {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{:.1} ms after report {}", self.delay.as_secs_f64() * 1000.0, self.reports)
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn moments_differ() {
        let moments: Vec<Moment> = (1..=20).map(Moment::of).collect();
        for (number, moment) in moments.iter().enumerate() {
            assert!(!moments[..number].contains(moment));
        }
    }
}
