//! How often a guest can make us write a log line: once per reset, and [`MOST`] times in a device's life.
//!
//! A guest decides how often it errs and how often it resets; the console is shared by all.

/// Lines per device and kind. Counters go on after them.
const MOST: u8 = 16;

/// The right to complain about one kind of error.
#[derive(Clone, Debug)]
pub struct Complaints {
    left: u8,
    said: bool,
}

impl Default for Complaints {
    fn default() -> Self {
        Self { left: MOST, said: false }
    }
}

impl Complaints {
    /// Whether to say it now; if so, not again until [`Self::reset`].
    pub fn may_speak(&mut self) -> bool {
        if self.said || self.left == 0 {
            return false;
        }
        self.said = true;
        self.left -= 1;
        true
    }

    /// The guest reset the device.
    pub fn reset(&mut self) {
        self.said = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_reset() {
        let mut complaints = Complaints::default();
        assert!(complaints.may_speak());
        assert!(!complaints.may_speak());
        complaints.reset();
        assert!(complaints.may_speak());
    }

    #[test]
    fn resets_do_not_buy_lines_for_ever() {
        let mut complaints = Complaints { left: 1, said: false };
        assert!(complaints.may_speak());
        complaints.reset();
        assert!(!complaints.may_speak());
    }
}
