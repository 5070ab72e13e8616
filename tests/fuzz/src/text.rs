//! What the toolstack writes: the command line, and what names a volume.

use drivers::net::MacAddress;
use drivers::volume::spec::{VolumeSpec, parse_size};
use kernel::endpoint::addressing;
use kernel::limits::WINDOW_MAX_BYTES;
use kernel::options::{Options, window_asked};

/// A command line, or a `target=`, or a part of one.
pub fn text(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (options, complaints) = Options::parse(text);
    assert!(complaints.len() <= text.split_ascii_whitespace().count());
    if let Some(bytes) = options.window_bytes {
        assert!((1..=WINDOW_MAX_BYTES).contains(&bytes) && bytes.is_multiple_of(2 << 20));
    }
    let _ = (window_asked(text), addressing::parse(text), parse_size(text));
    if let Ok(spec) = VolumeSpec::parse(text) {
        assert_eq!(VolumeSpec::parse(&spec.to_string()), Ok(spec), "it is told in other words");
    }
    if let Some(address) = MacAddress::parse(text) {
        assert_eq!(MacAddress::parse(&address.to_string()), Some(address));
    }
}
