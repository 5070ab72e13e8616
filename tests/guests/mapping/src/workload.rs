//! Which pages are read, in which order.

use alloc::vec::Vec;
use core::fmt;

use kernel::limits::PAGE_BYTES;

use crate::target::{FIRST_PAGE, PAGES, Page};

/// Slots of the window of all ways that have a bounded one: a sixteenth of the target's memory.
pub const WINDOW_PAGES: u32 = PAGES / 16;

/// Pages of the working set that fits the window, and their distance from each other.
const FITTING_PAGES: u32 = WINDOW_PAGES / 4 * 3;
const FITTING_STRIDE: u32 = 21;

/// A pattern of accesses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Any page of the whole memory, at random.
    Whole,
    /// Any page of a set that fits the window, scattered all over the memory, at random.
    Fitting,
    /// The whole memory, page after page.
    Sequential,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "whole",
            Self::Fitting => "fitting",
            Self::Sequential => "sequential",
        })
    }
}

impl Workload {
    /// Requests that are measured.
    pub fn requests(self) -> u32 {
        match self {
            Self::Whole => 3 * PAGES,
            Self::Fitting => PAGES,
            Self::Sequential => PAGES / 2,
        }
    }
}

/// The pages that a workload reads, without end.
pub struct Pages {
    workload: Workload,
    /// Pages that a request touches.
    span: u32,
    random: u64,
    next: u32,
}

impl Pages {
    /// The same ones each time. After each of them come as many as a request of `bytes` needs.
    pub fn new(workload: Workload, bytes: usize) -> Self {
        let span = bytes.div_ceil(PAGE_BYTES) as u32;
        Self { workload, span, random: 0x2545_f491_4f6c_dd1d, next: 0 }
    }

    /// Pages that, once read, leave nothing new to the workload but what it is about: a full window.
    pub fn warm_up(workload: Workload, bytes: usize) -> Vec<Page> {
        match workload {
            Workload::Fitting => (0..FITTING_PAGES).map(fitting).collect(),
            Workload::Whole | Workload::Sequential => {
                let mut pages = Self::new(Workload::Whole, bytes);
                pages.random ^= 0xffff_0000;
                pages.take(2 * WINDOW_PAGES as usize).collect()
            }
        }
    }

    fn random(&mut self, below: u32) -> u32 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(below)) >> 32) as u32
    }
}

fn fitting(index: u32) -> Page {
    FIRST_PAGE + index * FITTING_STRIDE
}

impl Iterator for Pages {
    type Item = Page;

    fn next(&mut self) -> Option<Page> {
        Some(match self.workload {
            Workload::Whole => FIRST_PAGE + self.random(PAGES - FIRST_PAGE - (self.span - 1)),
            Workload::Fitting => fitting(self.random(FITTING_PAGES)),
            Workload::Sequential => {
                let page = FIRST_PAGE + self.next;
                self.next = (self.next + 1) % (PAGES - FIRST_PAGE);
                page
            }
        })
    }
}

/// The pages that were read.
pub struct Touched([u64; PAGES as usize / 64]);

impl Touched {
    pub fn new() -> Self {
        Self([0; PAGES as usize / 64])
    }

    pub fn add(&mut self, page: Page) {
        if let Some(word) = self.0.get_mut(page as usize / 64) {
            *word |= 1 << (page % 64);
        }
    }

    /// How many different ones.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}
