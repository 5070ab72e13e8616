//! The grammar of a disk's `target=`, as in `disk = [ 'target=ram:64M, …' ]`.
//!
//! ```text
//! target = "initrd" | "ram:" size | disk [ ":part=" number | ":label=" name ] | "nbd:" host [ ":" port ] "/" export
//! size   = digits [ "K" | "M" | "G" ]
//! disk   = "blk" ( "0" | number )      physical disks, in the order of the device tree
//! number = decimal from 1 on, without leading zeros
//! name   = all that follows: 1 to 36 UTF-16 units, no control characters
//! host   = an IPv4 address; port = decimal from 1 to 65535, without leading zeros, 10809 if there is none
//! export = all that follows: up to 255 bytes, no control characters; nothing for the server's default export
//! ```
//! Pure: whether the volume exists, and may be opened, is for [`super::registry`] to say; what partitions a disk has, for
//! [`super::gpt`].

use super::nbd::wire::{DEFAULT_PORT, EXPORT_NAME_MAX};
use crate::block::SECTOR_BYTES;
use alloc::string::{String, ToString};
use core::net::{Ipv4Addr, SocketAddrV4};

/// UTF-16 units that a GPT partition name can have (UEFI 2.10, 5.3.3: 72 bytes).
pub const LABEL_UNITS: usize = 36;

/// Which volume a guest's disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSpec {
    /// The image that `ramdisk=` gives the driver domain.
    Initrd,
    /// A fresh volume in RAM, zeroed, gone when it is closed.
    Ram {
        /// Its size.
        bytes: u64,
    },
    /// A physical disk, or a partition of it.
    Disk {
        /// Which: the first is 0.
        disk: u32,
        /// How much of it.
        part: Part,
    },
    /// A disk on another machine.
    Nbd {
        /// The NBD server there.
        server: SocketAddrV4,
        /// Which of its exports; empty for its default one.
        export: String,
    },
}

/// How much of a physical disk a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, whatever is on it.
    Whole,
    /// The partition with this number in the GPT; the first is 1.
    Number(u32),
    /// The one partition with exactly this name in the GPT.
    Label(String),
}

/// Why a `target=` names no volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// None of the forms.
    #[error(
        "target= is none of `initrd`, `ram:SIZE`, `blkN`, `blkN:part=NUMBER`, `blkN:label=NAME` and \
         `nbd:HOST:PORT/EXPORT`"
    )]
    Form,
    /// The size of `ram:SIZE`.
    #[error("the size in `ram:SIZE` is not a number with an optional K, M or G")]
    Size,
    /// Likewise.
    #[error("the size in `ram:SIZE` is not a multiple of 512 bytes, or is 0")]
    Sectors,
    /// The number of `blkN`.
    #[error("the disk is not `blkN` with a plain decimal number: `blk0`, `blk1`, …")]
    Disk,
    /// What follows `blkN`.
    #[error("after the disk comes neither `:part=NUMBER` nor `:label=NAME`")]
    Part,
    /// The number of `blkN:part=NUMBER`.
    #[error("the number in `blkN:part=NUMBER` is not a plain decimal number from 1 on")]
    Number,
    /// The name of `blkN:label=NAME`.
    #[error("the name in `blkN:label=NAME` is not 1 to 36 UTF-16 units without control characters")]
    Label,
    /// What follows `nbd:`, up to the slash.
    #[error(
        "the server in `nbd:HOST:PORT/EXPORT` is not a plain IPv4 address, with or without a port, before a slash"
    )]
    Server,
    /// What follows the slash.
    #[error("the export in `nbd:HOST:PORT/EXPORT` has more than 255 bytes, or control characters")]
    Export,
}

impl VolumeSpec {
    /// Reads a `target=`.
    ///
    /// # Errors
    /// [`SpecError`], which names the accepted forms.
    pub fn parse(target: &str) -> Result<Self, SpecError> {
        let (volume, rest) = match target.split_once(':') {
            Some((volume, rest)) => (volume, Some(rest)),
            None => (target, None),
        };
        match (volume, rest) {
            ("initrd", None) => Ok(Self::Initrd),
            ("ram", Some(size)) => {
                let bytes = parse_size(size).ok_or(SpecError::Size)?;
                if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
                    return Err(SpecError::Sectors);
                }
                Ok(Self::Ram { bytes })
            }
            ("nbd", Some(rest)) => {
                let (server, export) = rest.split_once('/').ok_or(SpecError::Server)?;
                let server = parse_server(server).ok_or(SpecError::Server)?;
                if export.len() > EXPORT_NAME_MAX || export.contains(char::is_control) {
                    return Err(SpecError::Export);
                }
                Ok(Self::Nbd { server, export: export.to_string() })
            }
            _ => {
                let number = volume.strip_prefix("blk").ok_or(SpecError::Form)?;
                let disk = parse_plain(number).ok_or(SpecError::Disk)?;
                Ok(Self::Disk { disk, part: rest.map_or(Ok(Part::Whole), Part::parse)? })
            }
        }
    }
}

impl Part {
    /// Reads what follows the colon of `blkN:`.
    fn parse(text: &str) -> Result<Self, SpecError> {
        match text.split_once('=') {
            Some(("part", number)) => {
                let number = parse_plain(number).filter(|number| *number != 0);
                Ok(Self::Number(number.ok_or(SpecError::Number)?))
            }
            Some(("label", name)) => {
                let units = name.encode_utf16().count();
                if units == 0 || units > LABEL_UNITS || name.contains(char::is_control) {
                    return Err(SpecError::Label);
                }
                Ok(Self::Label(name.to_string()))
            }
            _ => Err(SpecError::Part),
        }
    }
}

impl core::fmt::Display for VolumeSpec {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Initrd => out.write_str("initrd"),
            Self::Ram { bytes } => write!(out, "ram:{bytes}"),
            Self::Disk { disk, part: Part::Whole } => write!(out, "blk{disk}"),
            Self::Disk { disk, part: Part::Number(number) } => write!(out, "blk{disk}:part={number}"),
            Self::Disk { disk, part: Part::Label(name) } => write!(out, "blk{disk}:label={name}"),
            Self::Nbd { server, export } => write!(out, "nbd:{server}/{export}"),
        }
    }
}

/// The address of one machine, with an optional port.
fn parse_server(text: &str) -> Option<SocketAddrV4> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, u16::try_from(parse_plain(port)?).ok()?),
        None => (text, DEFAULT_PORT),
    };
    let host: Ipv4Addr = host.parse().ok()?;
    let is_one = !(host.is_unspecified() || host.is_multicast() || host.is_broadcast());
    (is_one && port != 0).then(|| SocketAddrV4::new(host, port))
}

/// A decimal number as one would write it: digits alone, no leading zero.
fn parse_plain(text: &str) -> Option<u32> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|digit| digit.is_ascii_digit()));
    if plain { text.parse().ok() } else { None }
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
    use std::format;

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!(VolumeSpec::parse("ram:512"), Ok(VolumeSpec::Ram { bytes: 512 }));
        assert_eq!(VolumeSpec::parse("ram:4K"), Ok(VolumeSpec::Ram { bytes: 4096 }));
        assert_eq!(VolumeSpec::parse("ram:64M"), Ok(VolumeSpec::Ram { bytes: 64 << 20 }));
        assert_eq!(VolumeSpec::parse("ram:2G"), Ok(VolumeSpec::Ram { bytes: 2 << 30 }));
    }

    fn disk(disk: u32, part: Part) -> Result<VolumeSpec, SpecError> {
        Ok(VolumeSpec::Disk { disk, part })
    }

    fn label(name: &str) -> Part {
        Part::Label(name.to_string())
    }

    #[test]
    fn disks_are_named_by_number() {
        assert_eq!(VolumeSpec::parse("blk0"), disk(0, Part::Whole));
        assert_eq!(VolumeSpec::parse("blk12"), disk(12, Part::Whole));
        assert_eq!(VolumeSpec::parse("blk4294967295"), disk(u32::MAX, Part::Whole));
    }

    #[test]
    fn partitions_are_named_by_number_or_label() {
        assert_eq!(VolumeSpec::parse("blk0:part=2"), disk(0, Part::Number(2)));
        assert_eq!(VolumeSpec::parse("blk1:label=root"), disk(1, label("root")));
    }

    #[test]
    fn labels_hold_any_character_but_controls() {
        assert_eq!(VolumeSpec::parse("blk0:label= a:b=c, é 💾 "), disk(0, label(" a:b=c, é 💾 ")));
        assert_eq!(VolumeSpec::parse("blk0:label=a\nb"), Err(SpecError::Label));
        assert_eq!(VolumeSpec::parse("blk0:label=a\0"), Err(SpecError::Label));
        assert_eq!(VolumeSpec::parse("blk0:label=\u{85}"), Err(SpecError::Label));
    }

    #[test]
    fn labels_are_as_long_as_the_table_can_hold() {
        assert!(VolumeSpec::parse(&format!("blk0:label={}", "é".repeat(36))).is_ok());
        assert_eq!(VolumeSpec::parse(&format!("blk0:label={}", "é".repeat(37))), Err(SpecError::Label));
        assert!(VolumeSpec::parse(&format!("blk0:label={}", "💾".repeat(18))).is_ok());
        assert_eq!(VolumeSpec::parse(&format!("blk0:label={}", "💾".repeat(19))), Err(SpecError::Label));
        assert_eq!(VolumeSpec::parse("blk0:label="), Err(SpecError::Label));
    }

    #[test]
    fn numbers_of_disks_are_plain() {
        assert_eq!(VolumeSpec::parse("blk"), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk00"), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk01"), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk+1"), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk 1"), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk1 "), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk٣"), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk4294967296"), Err(SpecError::Disk));
        assert_eq!(VolumeSpec::parse("blk:part=1"), Err(SpecError::Disk));
    }

    #[test]
    fn numbers_of_partitions_are_plain_and_from_1_on() {
        assert_eq!(VolumeSpec::parse("blk0:part="), Err(SpecError::Number));
        assert_eq!(VolumeSpec::parse("blk0:part=0"), Err(SpecError::Number));
        assert_eq!(VolumeSpec::parse("blk0:part=02"), Err(SpecError::Number));
        assert_eq!(VolumeSpec::parse("blk0:part=+2"), Err(SpecError::Number));
        assert_eq!(VolumeSpec::parse("blk0:part=2:label=x"), Err(SpecError::Number));
        assert_eq!(VolumeSpec::parse("blk0:part=4294967296"), Err(SpecError::Number));
    }

    #[test]
    fn disks_have_no_other_parts() {
        assert_eq!(VolumeSpec::parse("blk0:"), Err(SpecError::Part));
        assert_eq!(VolumeSpec::parse("blk0:2"), Err(SpecError::Part));
        assert_eq!(VolumeSpec::parse("blk0:part"), Err(SpecError::Part));
        assert_eq!(VolumeSpec::parse("blk0:Label=x"), Err(SpecError::Part));
    }

    fn export(host: [u8; 4], port: u16, export: &str) -> Result<VolumeSpec, SpecError> {
        Ok(VolumeSpec::Nbd { server: SocketAddrV4::new(host.into(), port), export: export.to_string() })
    }

    #[test]
    fn exports_are_named_by_server_and_name() {
        assert_eq!(VolumeSpec::parse("nbd:10.0.2.2:10810/root"), export([10, 0, 2, 2], 10810, "root"));
        assert_eq!(VolumeSpec::parse("nbd:10.0.2.2/a/b c:é"), export([10, 0, 2, 2], 10809, "a/b c:é"));
        assert_eq!(VolumeSpec::parse("nbd:127.0.0.1/"), export([127, 0, 0, 1], 10809, ""));
        assert!(VolumeSpec::parse(&format!("nbd:10.0.0.1/{}", "x".repeat(255))).is_ok());
    }

    #[test]
    fn servers_are_plain_addresses() {
        for wrong in
            ["", "/x", "10.0.0.1", "10.0.0.1:1", "host/x", "10.0.0/x", "010.0.0.1/x", "[::1]/x", "0.0.0.0/x"]
        {
            assert_eq!(VolumeSpec::parse(&format!("nbd:{wrong}")), Err(SpecError::Server), "{wrong}");
        }
        for port in ["", "0", "01", "+1", "65536", "x", "1:2"] {
            let target = format!("nbd:10.0.0.1:{port}/x");
            assert_eq!(VolumeSpec::parse(&target), Err(SpecError::Server), "{port}");
        }
        assert_eq!(VolumeSpec::parse("nbd:255.255.255.255/x"), Err(SpecError::Server));
        assert_eq!(VolumeSpec::parse("nbd:224.0.0.1/x"), Err(SpecError::Server));
        assert_eq!(VolumeSpec::parse("nbd"), Err(SpecError::Form));
    }

    #[test]
    fn names_of_exports_are_short_text() {
        assert_eq!(VolumeSpec::parse("nbd:10.0.0.1/a\nb"), Err(SpecError::Export));
        assert_eq!(VolumeSpec::parse(&format!("nbd:10.0.0.1/{}", "x".repeat(256))), Err(SpecError::Export));
    }

    #[test]
    fn what_is_shown_is_what_is_parsed() {
        let shown = |target: &str| VolumeSpec::parse(target).map(|spec| spec.to_string());
        assert_eq!(shown("initrd").as_deref(), Ok("initrd"));
        assert_eq!(shown("ram:4K").as_deref(), Ok("ram:4096"));
        assert_eq!(shown("blk1").as_deref(), Ok("blk1"));
        assert_eq!(shown("blk1:part=7").as_deref(), Ok("blk1:part=7"));
        assert_eq!(shown("blk0:label=a=b:c").as_deref(), Ok("blk0:label=a=b:c"));
        assert_eq!(shown("nbd:10.0.2.2/x").as_deref(), Ok("nbd:10.0.2.2:10809/x"));
        assert_eq!(shown("nbd:10.0.2.2:1/").as_deref(), Ok("nbd:10.0.2.2:1/"));
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
