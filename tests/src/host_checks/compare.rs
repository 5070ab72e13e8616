//! Two images, byte for byte.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};

const PIECE_BYTES: usize = 1 << 20;

/// Fails when `image` is not the same as `original` outside of the ranges `except`, which are in order.
pub fn must_be_same(original: &Path, image: &Path, except: &[Range<u64>]) -> Result<()> {
    let (one, other) = (open(original)?, open(image)?);
    let size = one.metadata()?.len();
    if other.metadata()?.len() != size {
        bail!("{} has not the size of {}", image.display(), original.display());
    }
    if let Some(place) = first_difference_outside(one, other, size, except)? {
        bail!("{} was changed at byte {place:#x}", image.display());
    }
    Ok(())
}

/// Where `one` and `other`, both of `size` bytes, differ first, not looking at the ranges `except`.
fn first_difference_outside(
    mut one: impl Read + Seek,
    mut other: impl Read + Seek,
    size: u64,
    except: &[Range<u64>],
) -> Result<Option<u64>> {
    let starts = std::iter::once(0).chain(except.iter().map(|range| range.end));
    let ends = except.iter().map(|range| range.start).chain([size]);
    for (start, end) in starts.zip(ends) {
        one.seek(SeekFrom::Start(start))?;
        other.seek(SeekFrom::Start(start))?;
        if let Some(place) = first_difference(&mut one, &mut other, end - start)? {
            return Ok(Some(start + place));
        }
    }
    Ok(None)
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
    use super::first_difference_outside;
    use std::io::Cursor;
    use std::ops::Range;

    fn find(other: &str, except: &[Range<u64>]) -> Option<u64> {
        first_difference_outside(Cursor::new("abcdefgh"), Cursor::new(other), 8, except).ok().flatten()
    }

    #[test]
    fn difference_is_found_up_to_the_last_byte() {
        assert_eq!(find("abcdefgh", &[]), None);
        assert_eq!(find("xbcdefgh", &[]), Some(0));
        assert_eq!(find("abcdefgx", &[]), Some(7));
    }

    #[test]
    fn difference_within_an_exception_is_none_and_beside_it_is_one() {
        assert_eq!(find("abxdexgh", &[2..3, 5..6]), None);
        assert_eq!(find("abxxefgh", &[2..3, 5..6]), Some(3));
        assert_eq!(find("axcdefgh", &[2..3, 5..6]), Some(1));
    }
}
