//! Our command line, given by `extra=` in the domain's configuration.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `window=SIZE` | address space in which guests' pages are mapped, 2M to 256M | 16M |
//! | `log=LEVEL` | `error`, `warn`, `info`, `debug` or `trace` | `info` |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use drivers::volume::spec::parse_size;
use log::LevelFilter;

use crate::limits::WINDOW_DEFAULT_BYTES;
use crate::mm::physmap::REGION_ALIGNMENT;

const WINDOW_MAX_BYTES: u64 = 256 << 20;

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of the window, a multiple of 2 MiB.
    pub window_bytes: usize,
    /// Lines less important than this are not shown.
    pub log: LevelFilter,
}

impl Default for Options {
    fn default() -> Self {
        Self { window_bytes: WINDOW_DEFAULT_BYTES, log: LevelFilter::Info }
    }
}

impl Options {
    /// Reads a command line. What is not understood is left at its default; one sentence about each such word comes
    /// back.
    #[must_use]
    pub fn parse(command_line: &str) -> (Self, Vec<String>) {
        let mut options = Self::default();
        let complaints =
            command_line.split_ascii_whitespace().filter_map(|word| options.apply(word).err()).collect();
        (options, complaints)
    }

    fn apply(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "window" => {
                let bytes = parse_size(value)
                    .filter(|bytes| (REGION_ALIGNMENT as u64..=WINDOW_MAX_BYTES).contains(bytes))
                    .ok_or_else(|| {
                        format!("option '{word}': expected a size from 2M to 256M, such as window=16M")
                    })?;
                self.window_bytes = (bytes as usize).next_multiple_of(REGION_ALIGNMENT);
            }
            "log" => {
                self.log = value.parse().map_err(|_| {
                    format!("option '{word}': expected one of off, error, warn, info, debug, trace")
                })?;
            }
            _ => return Err(format!("option '{word}' is not known; known are window= and log=")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_line_means_defaults() {
        assert_eq!(Options::parse("  "), (Options::default(), Vec::new()));
    }

    #[test]
    fn known_options_are_taken() {
        let (options, complaints) = Options::parse("window=3M log=debug");
        assert_eq!(options, Options { window_bytes: 4 << 20, log: LevelFilter::Debug });
        assert!(complaints.is_empty());
    }

    #[test]
    fn each_bad_word_gets_a_sentence_and_changes_nothing() {
        let (options, complaints) = Options::parse("window=1 log=loud speed=11 window=99999999999999G");
        assert_eq!(options, Options::default());
        assert_eq!(complaints.len(), 4);
        assert!(complaints.iter().any(|sentence| sentence.contains("'speed=11'")));
    }
}
