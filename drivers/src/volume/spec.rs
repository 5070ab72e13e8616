//! The grammar of a disk's `target=`, as in `disk = [ 'target=ram:64M, …' ]`.
//!
//! ```text
//! target = "initrd" | "ram:" size
//! size   = digits [ "K" | "M" | "G" ]
//! ```
//! Pure: whether the volume exists, and may be opened, is for [`super::registry`] to say.

use crate::block::SECTOR_BYTES;

/// Which volume a guest's disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeSpec {
    /// The image that `ramdisk=` gives the driver domain.
    Initrd,
    /// A fresh volume in RAM, zeroed, gone when it is closed.
    Ram {
        /// Its size.
        bytes: u64,
    },
}

/// Why a `target=` names no volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// None of the forms.
    #[error("target= is neither `initrd` nor `ram:SIZE`")]
    Form,
    /// The size of `ram:SIZE`.
    #[error("the size in `ram:SIZE` is not a number with an optional K, M or G")]
    Size,
    /// Likewise.
    #[error("the size in `ram:SIZE` is not a multiple of 512 bytes, or is 0")]
    Sectors,
}

impl VolumeSpec {
    /// Reads a `target=`.
    ///
    /// # Errors
    /// [`SpecError`], which names the accepted forms.
    pub fn parse(target: &str) -> Result<Self, SpecError> {
        match target.split_once(':') {
            None if target == "initrd" => Ok(Self::Initrd),
            Some(("ram", size)) => {
                let bytes = parse_size(size).ok_or(SpecError::Size)?;
                if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
                    return Err(SpecError::Sectors);
                }
                Ok(Self::Ram { bytes })
            }
            _ => Err(SpecError::Form),
        }
    }
}

impl core::fmt::Display for VolumeSpec {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Initrd => out.write_str("initrd"),
            Self::Ram { bytes } => write!(out, "ram:{bytes}"),
        }
    }
}

/// Bytes: a decimal number with an optional unit K, M or G (powers of 1024).
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' => (text.strip_suffix('K')?, 1 << 10),
        b'M' => (text.strip_suffix('M')?, 1 << 20),
        b'G' => (text.strip_suffix('G')?, 1 << 30),
        _ => (text, 1),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!(VolumeSpec::parse("ram:512"), Ok(VolumeSpec::Ram { bytes: 512 }));
        assert_eq!(VolumeSpec::parse("ram:4K"), Ok(VolumeSpec::Ram { bytes: 4096 }));
        assert_eq!(VolumeSpec::parse("ram:64M"), Ok(VolumeSpec::Ram { bytes: 64 << 20 }));
        assert_eq!(VolumeSpec::parse("ram:2G"), Ok(VolumeSpec::Ram { bytes: 2 << 30 }));
    }

    #[test]
    fn initrd_takes_nothing_else() {
        assert_eq!(VolumeSpec::parse("initrd"), Ok(VolumeSpec::Initrd));
        assert_eq!(VolumeSpec::parse("initrd:1"), Err(SpecError::Form));
    }

    #[test]
    fn other_words_are_refused() {
        assert_eq!(VolumeSpec::parse(""), Err(SpecError::Form));
        assert_eq!(VolumeSpec::parse("/dev/vda"), Err(SpecError::Form));
        assert_eq!(VolumeSpec::parse("ram"), Err(SpecError::Form));
        assert_eq!(VolumeSpec::parse("RAM:1M"), Err(SpecError::Form));
    }

    #[test]
    fn sizes_that_are_no_numbers_are_refused() {
        assert_eq!(VolumeSpec::parse("ram:"), Err(SpecError::Size));
        assert_eq!(VolumeSpec::parse("ram:M"), Err(SpecError::Size));
        assert_eq!(VolumeSpec::parse("ram:+1M"), Err(SpecError::Size));
        assert_eq!(VolumeSpec::parse("ram:1T"), Err(SpecError::Size));
        assert_eq!(VolumeSpec::parse("ram:1é"), Err(SpecError::Size));
        assert_eq!(VolumeSpec::parse("ram:99999999999999999G"), Err(SpecError::Size));
    }

    #[test]
    fn sizes_that_are_not_whole_sectors_are_refused() {
        assert_eq!(VolumeSpec::parse("ram:0"), Err(SpecError::Sectors));
        assert_eq!(VolumeSpec::parse("ram:100"), Err(SpecError::Sectors));
    }
}
