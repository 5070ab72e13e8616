//! What came back from the device.

use core::fmt;

/// In the status byte as long as nobody has written it.
pub const UNTOUCHED: u8 = 0xff;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The chain, with this in its status byte.
    Status(u8),
    /// DEVICE_NEEDS_RESET.
    NeedsReset,
    /// Nothing, in a long time.
    Nothing,
}

impl Answer {
    pub const OK: Self = Self::Status(0);
    pub const IO_ERROR: Self = Self::Status(1);
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(0) => f.write_str("OK"),
            Self::Status(1) => f.write_str("IOERR"),
            Self::Status(2) => f.write_str("UNSUPP"),
            Self::Status(UNTOUCHED) => f.write_str("given back without a status"),
            Self::Status(other) => write!(f, "status {other}"),
            Self::NeedsReset => f.write_str("NEEDS_RESET"),
            Self::Nothing => f.write_str("no answer"),
        }
    }
}
