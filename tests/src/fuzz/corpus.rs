//! The corpus in the project: a file for each target, a line of hexadecimal digits for each input.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Fuzzer, INPUT_BYTES_MAX};
use crate::tool;

/// Most inputs of a target, and most bytes of them together.
const INPUTS_MAX: usize = 60;
const BYTES_MAX: usize = 16 << 10;

/// Inputs of a file; none if there is no file.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
    text.lines()
        .map(|line| bytes_of(line).with_context(|| format!("{}: not hexadecimal", path.display())))
        .collect()
}

/// Writes the smallest inputs that reach all that the whole corpus of a target reaches, as far as there is room.
pub fn minimise(fuzzer: &Fuzzer, name: &str) -> Result<()> {
    let _lock = fuzzer.lock(name)?;
    let corpus = fuzzer.corpus(name)?;
    let least = fuzzer.kept.join(format!(".least-{name}"));
    if least.exists() {
        fs::remove_dir_all(&least)?;
    }
    fs::create_dir_all(&least)?;
    let mut program = fuzzer.program(name)?;
    program.args(["-set_cover_merge=1", "-use_counters=0"]).arg(&least).arg(&corpus);
    tool::run(&mut program)?;
    let mut inputs = Vec::new();
    for file in fs::read_dir(&least)? {
        inputs.push(fs::read(file?.path())?);
    }
    fs::remove_dir_all(&least)?;
    let packed = fuzzer.packed(name);
    fs::create_dir_all(packed.parent().context("no folder")?)?;
    fs::write(&packed, pack(inputs))?;
    Ok(())
}

/// The lines of as many inputs as fit. Short ones first, for which there is more room, in an order that does not change.
fn pack(mut inputs: Vec<Vec<u8>>) -> String {
    inputs.sort_unstable_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    inputs.retain(|input| !input.is_empty() && input.len() <= INPUT_BYTES_MAX);
    let mut room = BYTES_MAX;
    let fits = inputs.into_iter().rev().filter(|input| {
        let fits = input.len() <= room;
        room -= if fits { input.len() } else { 0 };
        fits
    });
    let mut kept: Vec<_> = fits.take(INPUTS_MAX).collect();
    kept.reverse();
    kept.iter().map(|input| line_of(input)).collect()
}

fn line_of(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect()
}

fn bytes_of(line: &str) -> Option<Vec<u8>> {
    let digits = line.as_bytes().chunks(2);
    digits.map(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, INPUTS_MAX, bytes_of, pack};

    #[test]
    fn what_is_packed_is_found_again() {
        let text = pack(vec![vec![0, 1, 0xff], vec![7], vec![]]);
        let found: Option<Vec<_>> = text.lines().map(bytes_of).collect();
        assert_eq!(found, Some(vec![vec![7], vec![0, 1, 0xff]]));
    }

    #[test]
    fn it_stays_small() {
        let many = pack((0..=255).map(|byte| vec![byte; 3]).collect());
        assert_eq!(many.lines().count(), INPUTS_MAX);
        let long = pack((0..40).map(|byte| vec![byte; 1000]).collect());
        assert!(long.len() <= 2 * BYTES_MAX + 40);
    }
}
