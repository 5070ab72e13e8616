//! Single pages of others at frame numbers of ours: the hypervisor's, ioreq servers', granted ones.
//!
//! Each is a value that holds what undoes the mapping, and does so when dropped. What is mapped where is also noted in the
//! handover area: a kernel that is started again adopts the hypervisor's pages and unmaps the rest.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use drivers::guest::Access;
use smallvec::SmallVec;

use super::address::Gfn;
use crate::arch::whole::Whole;
use crate::limits::SINGLE_PAGES;
use crate::restart::words::Word;
use crate::xen::DomainId;
use crate::xen::dm::ServerId;
use crate::xen::grant::{self, GrantError, GrantTable, Mapped, Wanted};
use crate::xen::hypercall::{Errno, HypercallError};
use crate::xen::memory;

/// All frame numbers are taken.
const FULL: HypercallError =
    HypercallError { operation: "find a frame number for a page", errno: Errno::ENOMEM };

/// Frame numbers for single pages: a set of those in use.
pub struct SinglePages {
    first: Gfn,
    used: [u64; SINGLE_PAGES / 64],
    /// Of these, how many hold granted pages.
    granted: usize,
    /// What each holds, for the next life.
    notes: Option<&'static [Word; SINGLE_PAGES]>,
}

/// What a frame number for a single page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    SharedInfo,
    Ioreq(DomainId, ServerId),
    GrantTable,
    /// With the handle that Xen gave.
    Granted(u32),
}

impl Content {
    const KIND_BITS: u32 = 2;

    fn word(self) -> u64 {
        let (kind, value) = match self {
            Self::SharedInfo => (0, 0),
            Self::Ioreq(domain, server) => (1, u64::from(domain.0) << 16 | u64::from(server.0)),
            Self::GrantTable => (2, 0),
            Self::Granted(handle) => (3, u64::from(handle)),
        };
        value << Self::KIND_BITS | kind
    }

    fn from_word(word: u64) -> Self {
        let value = word >> Self::KIND_BITS;
        match word & ((1 << Self::KIND_BITS) - 1) {
            0 => Self::SharedInfo,
            1 => Self::Ioreq(DomainId((value >> 16) as u16), ServerId(value as u16)),
            2 => Self::GrantTable,
            _ => Self::Granted(value as u32),
        }
    }
}

/// A page of the hypervisor's or of a guest's ioreq server at a frame number of ours; unmapped when dropped.
pub struct SinglePage {
    owner: Rc<RefCell<SinglePages>>,
    gfn: Gfn,
}

/// Granted pages, each at a frame number of ours; unmapped together when dropped.
pub struct GrantedPages {
    owner: Rc<RefCell<SinglePages>>,
    /// Small requests need no memory from the heap.
    pages: SmallVec<[Mapped; 4]>,
}

impl SinglePages {
    /// Manages [`SINGLE_PAGES`] holes from `first` on.
    #[must_use]
    pub fn new(first: Gfn) -> Self {
        Self { first, used: [0; SINGLE_PAGES / 64], granted: 0, notes: None }
    }

    /// The same, noted in `notes`. What an earlier life left there is unmapped, but for the hypervisor's pages: those wait for
    /// [`Self::map_shared_info`] and [`Self::adopt_ioreq`].
    #[must_use]
    pub fn noted_in(first: Gfn, notes: &'static [Word; SINGLE_PAGES]) -> Self {
        let mut pages = Self::new(first);
        pages.notes = Some(notes);
        for (index, note) in (0..).zip(notes) {
            // What is unmapped and what is noted go together.
            let _whole = Whole::begin();
            let gfn = Gfn(first.0 + index);
            let removed = match note.get().map(Content::from_word) {
                Some(Content::SharedInfo | Content::Ioreq(..)) => false,
                Some(Content::GrantTable) => is_hole(memory::remove(gfn.0)),
                Some(Content::Granted(handle)) => {
                    let mut unmapped = false;
                    let mapped = Mapped { gfn, handle, bus_address: 0 };
                    grant::unmap(&[mapped], |_, result| unmapped = result.is_ok());
                    unmapped
                }
                // Whatever it is, nothing is ever mapped over it.
                None => !note.is_damaged(),
            };
            if removed {
                note.clear();
                continue;
            }
            pages.mark(gfn, true);
            if !matches!(note.get().map(Content::from_word), Some(Content::SharedInfo | Content::Ioreq(..))) {
                // Never tried again: Xen may have given the handle to another mapping by then.
                note.damage();
            }
        }
        pages
    }

    /// Maps Xen's shared info page, or finds it where an earlier life mapped it.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn map_shared_info(owner: &Rc<RefCell<Self>>) -> Result<SinglePage, HypercallError> {
        let adopted = owner.borrow().noted(|content| content == Content::SharedInfo).next();
        match adopted {
            Some((gfn, _)) => Ok(SinglePage { owner: owner.clone(), gfn }),
            None => Self::map(owner, Content::SharedInfo, memory::map_shared_info),
        }
    }

    /// The ioreq pages that an earlier life left, with their servers. To be called once, by who takes them all.
    #[must_use]
    pub fn adopt_ioreq(owner: &Rc<RefCell<Self>>) -> Vec<(SinglePage, DomainId, ServerId)> {
        let pages = owner.borrow();
        let noted = pages.noted(|content| matches!(content, Content::Ioreq(..)));
        let adopt = |(gfn, content)| match content {
            Content::Ioreq(domain, server) => {
                Some((SinglePage { owner: owner.clone(), gfn }, domain, server))
            }
            _ => None,
        };
        noted.filter_map(adopt).collect()
    }

    fn noted(&self, which: impl Fn(Content) -> bool) -> impl Iterator<Item = (Gfn, Content)> {
        let first = self.first.0;
        let notes = (first..).map(Gfn).zip(self.notes.into_iter().flatten());
        notes
            .filter_map(|(gfn, note)| Some((gfn, Content::from_word(note.get()?))))
            .filter(move |(_, content)| which(*content))
    }

    /// Maps the page with the per-vCPU slots of an ioreq server.
    ///
    /// # Errors
    /// Xen's answer; ENOMEM when all frame numbers for single pages are taken.
    pub fn map_ioreq(
        owner: &Rc<RefCell<Self>>,
        domain: DomainId,
        server: ServerId,
    ) -> Result<SinglePage, HypercallError> {
        Self::map(owner, Content::Ioreq(domain, server), |gfn| memory::map_ioreq_page(domain, server, gfn))
    }

    /// Maps the first page of our grant table.
    ///
    /// # Errors
    /// Xen's answer.
    pub fn map_grant_table(owner: &Rc<RefCell<Self>>) -> Result<GrantTable, HypercallError> {
        let page = Self::map(owner, Content::GrantTable, memory::map_grant_table)?;
        // SAFETY: mapped just now.
        Ok(unsafe { GrantTable::new(page) })
    }

    /// Maps the pages that `domain` granted us under these references, many by one hypercall.
    ///
    /// # Errors
    /// All or nothing: the first reference that could not be mapped and Xen's answer; ENOMEM when all frame numbers for
    /// single pages are taken, or the heap is used up.
    pub fn map_granted(
        owner: &Rc<RefCell<Self>>,
        domain: DomainId,
        references: &[(u32, Access)],
    ) -> Result<GrantedPages, (u32, GrantError)> {
        let mut granted = GrantedPages { owner: owner.clone(), pages: SmallVec::new() };
        granted.pages.try_reserve(references.len()).map_err(|_| (0, FULL.into()))?;
        for references in references.chunks(grant::MAP_BATCH) {
            let _whole = Whole::begin();
            let mut pages = owner.borrow_mut();
            let mut wanted = [Wanted { reference: 0, gfn: Gfn(0), access: Access::Read }; grant::MAP_BATCH];
            let mut count = 0;
            let places = wanted.iter_mut().zip(references).zip(pages.holes());
            for ((place, (reference, access)), gfn) in places {
                *place = Wanted { reference: *reference, gfn, access: *access };
                count += 1;
            }
            if let Some((reference, _)) = references.get(count) {
                return Err((*reference, FULL.into()));
            }
            let mut failed = None;
            grant::map(domain, wanted.get(..count).unwrap_or_default(), |wanted, mapped| match mapped {
                Ok(mapped) => {
                    pages.note(mapped.gfn, Content::Granted(mapped.handle));
                    pages.granted += 1;
                    granted.pages.push(mapped);
                }
                Err(error) => failed = failed.or(Some((wanted.reference, error))),
            });
            if let Some(failed) = failed {
                return Err(failed);
            }
        }
        Ok(granted)
    }

    fn map(
        owner: &Rc<RefCell<Self>>,
        content: Content,
        map: impl FnOnce(u64) -> Result<(), HypercallError>,
    ) -> Result<SinglePage, HypercallError> {
        let gfn = owner.borrow().holes().next().ok_or(FULL)?;
        let _whole = Whole::begin();
        map(gfn.0)?;
        owner.borrow_mut().note(gfn, content);
        Ok(SinglePage { owner: owner.clone(), gfn })
    }

    /// The frame numbers that are free, in order.
    fn holes(&self) -> impl Iterator<Item = Gfn> {
        let indices =
            (0..).zip(self.used).flat_map(|(word, used)| Bits(!used).map(move |bit| word * 64 + bit));
        let first = self.first.0;
        indices.map(move |index| Gfn(first + index))
    }

    /// `gfn` holds `content` from now on.
    fn note(&mut self, gfn: Gfn, content: Content) {
        if let Some(note) = self.notes.and_then(|notes| notes.get(self.index(gfn))) {
            note.set(content.word());
        }
        self.mark(gfn, true);
    }

    /// `gfn` is a hole from now on.
    fn forget(&mut self, gfn: Gfn) {
        if let Some(note) = self.notes.and_then(|notes| notes.get(self.index(gfn))) {
            note.clear();
        }
        self.mark(gfn, false);
    }

    fn mark(&mut self, gfn: Gfn, is_used: bool) {
        let index = self.index(gfn);
        if let Some(word) = self.used.get_mut(index / 64) {
            let bit = 1 << (index % 64);
            *word = if is_used { *word | bit } else { *word & !bit };
        }
    }

    fn index(&self, gfn: Gfn) -> usize {
        gfn.0.saturating_sub(self.first.0) as usize
    }

    /// Granted pages mapped now.
    #[must_use]
    pub fn granted(&self) -> usize {
        self.granted
    }

    /// Pages mapped now.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.used.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// Whether nothing is there after an attempt to remove it: Xen says ENOENT where nothing was.
fn is_hole(removed: Result<(), HypercallError>) -> bool {
    removed.map_or_else(|error| error.errno == Errno::ENOENT, |()| true)
}

/// The numbers of the bits that are set in a word, in order.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let lowest = (self.0 != 0).then(|| u64::from(self.0.trailing_zeros()))?;
        self.0 &= self.0 - 1;
        Some(lowest)
    }
}

impl SinglePage {
    /// Address of its first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.gfn.address()
    }
}

impl Drop for SinglePage {
    fn drop(&mut self) {
        let _whole = Whole::begin();
        match memory::remove(self.gfn.0) {
            Ok(()) => self.owner.borrow_mut().forget(self.gfn),
            // The frame number stays marked as used: nothing is ever mapped over a page that is still there.
            Err(error) => log::error!("physmap: a frame number is lost: {error}"),
        }
    }
}

impl GrantedPages {
    /// Each page, in the order of their references.
    pub fn iter(&self) -> impl Iterator<Item = &Mapped> {
        self.pages.iter()
    }
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        let mut owner = self.owner.borrow_mut();
        for batch in self.pages.chunks(grant::MAP_BATCH) {
            let _whole = Whole::begin();
            grant::unmap(batch, |page, unmapped| match unmapped {
                Ok(()) => {
                    owner.forget(page.gfn);
                    owner.granted -= 1;
                }
                // As for a single page.
                Err(error) => log::error!("physmap: a frame number is lost: {error}"),
            });
        }
    }
}

#[cfg(test)]
#[path = "singles_tests.rs"]
mod tests;
