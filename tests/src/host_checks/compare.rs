//! Two images, byte for byte.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

const PIECE_BYTES: usize = 1 << 20;

/// Where `one` and `other`, of the same size, differ first.
pub fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>> {
    let (mut one_file, mut other_file) = (open(one)?, open(other)?);
    let (mut piece, mut other_piece) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut place = 0;
    loop {
        let length = fill(&mut one_file, &mut piece)?;
        if fill(&mut other_file, &mut other_piece)? != length {
            bail!("{} and {} are not of one size", one.display(), other.display());
        }
        if length == 0 {
            return Ok(None);
        }
        if piece[..length] != other_piece[..length] {
            let found = piece.iter().zip(&other_piece).take_while(|(one, other)| one == other).count();
            return Ok(Some(place + u64::try_from(found)?));
        }
        place += u64::try_from(length)?;
    }
}

fn open(file: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?))
}

/// Reads until `piece` is full or the file ends; gives how much it read.
fn fill(file: &mut impl Read, piece: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < piece.len() {
        match file.read(&mut piece[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn fill_tells_how_much_there_was() {
        let mut piece = [0; 4];
        assert_eq!(fill(&mut &b"abc"[..], &mut piece).ok(), Some(3));
        assert_eq!(&piece, b"abc\0");
    }
}
