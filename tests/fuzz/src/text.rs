//! What the toolstack writes, the command line and what names a volume: numbers are within their limits, and names mean the same when told
//! again.

use arbitrary::{Result, Unstructured};
use drivers::net::MacAddress;
use drivers::volume::spec::{VolumeSpec, parse_size};
use kernel::endpoint::addressing;
use kernel::limits::WINDOW_MAX_BYTES;
use kernel::options::{Options, window_asked};

/// What such texts are made of.
const WORDS: [&str; 32] = [
    "window=",
    "4M",
    "physmap=",
    "balloon",
    "ip=",
    "10.0.0.5/24",
    ",gateway=",
    "10.0.0.1",
    "dhcp",
    "mac=",
    "00:16:3e:01:02:03",
    "@blk0",
    "#1",
    "pin-macs=",
    "all",
    "isolate=",
    "log=",
    "debug",
    "blk0",
    ":part=",
    ":label=",
    "ram:",
    "nbd:",
    ":10809",
    "/",
    "EXPORT",
    "initrd",
    "64M",
    "1",
    " ",
    ",",
    "mac-seed=",
];
const WORDS_MAX: usize = 40;

/// Words, and characters between them.
fn sentence(mut input: Unstructured<'_>) -> Result<String> {
    let mut text = String::new();
    for _ in 0..WORDS_MAX {
        if input.is_empty() {
            break;
        }
        match input.arbitrary::<u8>()? {
            word @ 0..=223 => text.push_str(WORDS[usize::from(word) % WORDS.len()]),
            _ => text.push(input.arbitrary()?),
        }
    }
    Ok(text)
}

/// A command line, or a `target=`, or a part of one.
pub fn text(data: &[u8]) {
    str::from_utf8(data).into_iter().for_each(judge);
    sentence(Unstructured::new(data)).iter().for_each(|text| judge(text));
}

fn judge(text: &str) {
    let (options, complaints) = Options::parse(text);
    assert!(complaints.len() <= text.split_ascii_whitespace().count());
    if let Some(bytes) = options.window_bytes {
        assert!((1..=WINDOW_MAX_BYTES).contains(&bytes) && bytes.is_multiple_of(2 << 20));
    }
    assert!(options.window(8 << 20) <= WINDOW_MAX_BYTES);
    let _ = options.network.pinned.has(MacAddress::BROADCAST);
    let _ = (window_asked(text), addressing::parse(text), parse_size(text));
    if let Ok(spec) = VolumeSpec::parse(text) {
        assert_eq!(VolumeSpec::parse(&spec.to_string()), Ok(spec), "it is told in other words");
    }
    if let Some(address) = MacAddress::parse(text) {
        assert_eq!(MacAddress::parse(&address.to_string()), Some(address));
    }
}
