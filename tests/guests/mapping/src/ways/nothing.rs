//! Only the copy, from memory of our own: what is in every row.

use alloc::boxed::Box;
use alloc::vec;
use core::error::Error;

use kernel::limits::PAGE_BYTES;

use super::{Counts, Way, copy_from};
use crate::target::Page;

pub struct Nothing(Box<[u8]>);

impl Nothing {
    pub fn new() -> Self {
        Self(vec![0; PAGE_BYTES].into())
    }
}

impl Way for Nothing {
    fn read(&mut self, _: &[Page], parts: &mut [&mut [u8]]) -> Result<(), Box<dyn Error>> {
        for part in parts.iter_mut().take(1) {
            // SAFETY: a page of our own.
            unsafe { copy_from(self.0.as_ptr().expose_provenance(), part) };
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }
}
