//! The other domain: `guests/mapping_target.S`, which has the same constants.

use alloc::boxed::Box;
use core::error::Error;
use core::ops::Range;
use core::ptr;

use drivers::guest::{GuestAddress, GuestRegion};
use kernel::arch::timer::now_ns;
use kernel::limits::PAGE_BYTES;
use kernel::mm::address::{Gfn, GuestFrame};
use kernel::xen::{DomainId, event, sched};

use crate::foreign::Mapper;

/// Pages of its memory. The first one is its image, the others hold the pattern.
pub const PAGES: u32 = 64 << 20 >> PAGE_BYTES.trailing_zeros();
/// The first page that holds the pattern.
pub const FIRST_PAGE: u32 = 1;

const MEMORY: u64 = 0x4000_0000;
const PATTERN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Page n is granted as this and n.
const FIRST_REFERENCE: u32 = 8;

/// Offset of its state in its first page, and of the word that tells it our number.
const STATE_OFFSET: usize = 64;
const PEER_OFFSET: usize = 72;
const GRANTED: i64 = 2;

const PATIENCE_NS: u64 = 10_000_000_000;

/// A page of its memory, counted from the start.
pub type Page = u32;

/// The frame number of a page.
pub fn frame(page: Page) -> GuestFrame {
    GuestFrame(MEMORY / PAGE_BYTES as u64 + u64::from(page))
}

/// By what the target names the grant of a page.
pub fn reference(page: Page) -> u32 {
    FIRST_REFERENCE + page
}

/// The first bytes of a page, and what follows.
pub fn region(page: Page, length: usize) -> GuestRegion {
    let address = GuestAddress(frame(page).0 * PAGE_BYTES as u64);
    GuestRegion { address, length: length as u32 }
}

/// Whether `bytes` are what a page holds from its start on.
pub fn holds(page: Page, bytes: &[u8]) -> bool {
    let first = (MEMORY + u64::from(page) * PAGE_BYTES as u64).wrapping_mul(PATTERN);
    let step = PATTERN.wrapping_mul(size_of::<u64>() as u64);
    let words = bytes
        .chunks_exact(size_of::<u64>())
        .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let (good, _) = words.fold((true, first), |(good, expected), word| {
        (good && word == expected, expected.wrapping_add(step))
    });
    good
}

/// Tells `domain` who we are, and waits until it has filled and granted its memory. `window` is free address space.
pub fn meet(domain: DomainId, window: &Range<usize>) -> Result<(), Box<dyn Error>> {
    let own = event::own_domain()?;
    let first = Gfn::containing(window.start);
    let mut mapper = Mapper::new(domain);
    mapper.map(&[0], first)?;
    let state: *mut i64 = ptr::with_exposed_provenance_mut(first.address() + STATE_OFFSET);
    let peer: *mut u64 = ptr::with_exposed_provenance_mut(first.address() + PEER_OFFSET);
    // SAFETY: the page was mapped just now, and both words lie in it; the other domain reads and writes them, too.
    unsafe { peer.write_volatile(u64::from(own.0)) };
    let end_ns = now_ns() + PATIENCE_NS;
    let reached = loop {
        // SAFETY: as above.
        let state = unsafe { state.read_volatile() };
        if state < 0 || state == GRANTED || now_ns() > end_ns {
            break state;
        }
        sched::yield_processor();
    };
    mapper.unmap(first, 1)?;
    if reached == GRANTED { Ok(()) } else { Err(alloc::format!("the target is at {reached}").into()) }
}
