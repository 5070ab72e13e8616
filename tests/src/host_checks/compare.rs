//! Two images, byte for byte.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};

const PIECE_BYTES: usize = 1 << 20;

/// Fails when `image` is not the same as `original` outside of the ranges `except`, which are in order.
pub fn must_be_same(original: &Path, image: &Path, except: &[Range<u64>]) -> Result<()> {
    let (mut one, mut other) = (open(original)?, open(image)?);
    let size = one.metadata()?.len();
    if other.metadata()?.len() != size {
        bail!("{} has not the size of {}", image.display(), original.display());
    }
    let starts = std::iter::once(0).chain(except.iter().map(|range| range.end));
    let ends = except.iter().map(|range| range.start).chain([size]);
    for (start, end) in starts.zip(ends) {
        one.seek(SeekFrom::Start(start))?;
        other.seek(SeekFrom::Start(start))?;
        if let Some(place) = first_difference(&mut one, &mut other, end - start)? {
            bail!("{} was changed at byte {:#x}", image.display(), start + place);
        }
    }
    Ok(())
}

/// Where the next `length` bytes of `one` and `other` differ first.
fn first_difference(one: &mut impl Read, other: &mut impl Read, length: u64) -> Result<Option<u64>> {
    let (mut piece, mut other_piece) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut place = 0;
    while place < length {
        let size = usize::try_from(length - place)?.min(PIECE_BYTES);
        one.read_exact(&mut piece[..size])?;
        other.read_exact(&mut other_piece[..size])?;
        if piece[..size] != other_piece[..size] {
            let same = piece.iter().zip(&other_piece).take_while(|(one, other)| one == other).count();
            return Ok(Some(place + u64::try_from(same)?));
        }
        place += u64::try_from(size)?;
    }
    Ok(None)
}

fn open(file: &Path) -> Result<File> {
    File::open(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn difference_is_found_within_the_length_only() {
        let find = |length| first_difference(&mut &b"abcd"[..], &mut &b"abxd"[..], length).ok().flatten();
        assert_eq!(find(2), None);
        assert_eq!(find(3), Some(2));
    }
}
