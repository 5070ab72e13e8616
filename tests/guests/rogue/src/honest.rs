//! Requests that must be served.

use kernel::limits::PAGE_BYTES;

use crate::answer::Answer;
use crate::session::{Kind, Session};

pub const SECTORS_PER_PAGE: u64 = PAGE_BYTES as u64 / 512;
/// Pages of the disk that are written. What follows is never written: zeroes.
pub const PAGES_WRITTEN: u64 = 64;
/// The first sector that is never written.
pub const ZEROES: u64 = PAGES_WRITTEN * SECTORS_PER_PAGE;

/// The content of a page, another one for each `seed`.
pub fn pattern(seed: u64) -> [u8; PAGE_BYTES] {
    let mut bytes = [0; PAGE_BYTES];
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for part in bytes.chunks_exact_mut(size_of::<u64>()) {
        word = word.wrapping_add(0xd1b5_4a32_d192_ed03);
        part.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

impl Session {
    /// Writes a page to the disk, and reads it back to another. Returns how that went: "right" is what it must be.
    pub fn honest(&mut self) -> &'static str {
        const FROM: usize = 0;
        const TO: usize = 1;
        self.rounds += 1;
        let expected = pattern(self.rounds);
        let sector = self.rounds % PAGES_WRITTEN * SECTORS_PER_PAGE;
        self.pages.write(Self::data(FROM), &expected);
        self.pages.fill(Self::data(TO), PAGE_BYTES, 0);
        for (kind, page) in [(Kind::Write, FROM), (Kind::Read, TO)] {
            let data = self.page(page, kind);
            let chain = self.request(kind, sector, &[data]);
            if self.ask(&chain) != Answer::OK {
                return "refused";
            }
            if self.disk.written() != 1 + if kind == Kind::Read { PAGE_BYTES as u32 } else { 0 } {
                return "of wrong length";
            }
        }
        if self.holds(TO, &expected) { "right" } else { "of wrong content" }
    }

    /// Whether a page of data holds these bytes.
    pub fn holds(&self, page: usize, expected: &[u8; PAGE_BYTES]) -> bool {
        let mut found = [0; PAGE_BYTES];
        self.pages.read(Self::data(page), &mut found);
        found == *expected
    }
}
