//! The page tables of views: the upper half of the address space, which TTBR1 translates, in a fixed number of tables.
//!
//! 48-bit addresses in pages of 4 KiB, so four levels, of which level 3 has the pages (Arm ARM, D8.2 and D8.3). When a way
//! to a page needs a table and none is free, a level-3 table that was not entered since the clock's hand last passed is
//! taken out, with the tables above it that are empty then.
//!
//! Nothing here is unsafe: a table is an array of words. What makes the CPU look at them, and lets it forget what it
//! has seen of them, is [`Translation`]'s.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::limits::PAGE_BYTES;

/// First address of the upper half.
pub const UPPER_HALF: usize = 0xffff << ADDRESS_BITS;
/// Bits of an address that are translated.
pub const ADDRESS_BITS: u32 = 48;

/// What a table of level 3 covers.
pub const TABLE_SPAN: usize = ENTRIES * PAGE_BYTES;
/// Fewer tables are of no use: the root, and a path to each of two pages, which an access across their border needs at
/// the same time.
pub const TABLES_MIN: usize = 1 + 2 * LAST_LEVEL;

const ENTRIES: usize = 512;
const LAST_LEVEL: usize = 3;
const ROOT: usize = 0;

/// Descriptor bits (Arm ARM, D8.3.1 and D8.3.2).
const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
/// Set by us in each entry: Armv8.0 has no hardware that would, an access without it is a fault.
const ACCESSED: u64 = 1 << 10;
const PRIVILEGED_EXECUTE_NEVER: u64 = 1 << 53;
const EXECUTE_NEVER: u64 = 1 << 54;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - PAGE_BYTES as u64;

/// What may be done to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads alone.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// What the CPU keeps of the tables.
///
/// # Implementation notes
/// The methods are called after the change to the tables, and have taken effect when they return.
pub trait Translation {
    /// From now on the upper half is translated by the tables whose root is at this physical address.
    fn start(&self, root: usize);
    /// Entries became valid: the next access finds them. No TLB keeps an entry that is a translation
    /// fault (Arm ARM, "TLB maintenance").
    fn publish(&self);
    /// The entry of the page at `address` was cleared.
    fn forget_page(&self, address: usize);
    /// Entries on the way to each of the pages at `addresses` were cleared, of tables too.
    fn forget_paths(&self, addresses: impl Iterator<Item = usize>);
    /// Everything may have changed.
    fn forget_all(&self);
}

#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES]);

impl Table {
    fn entry(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |entry| entry.load(Ordering::Relaxed))
    }

    fn set(&self, index: usize, descriptor: u64) {
        if let Some(entry) = self.0.get(index) {
            entry.store(descriptor, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        self.0.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
    }

    fn valid(&self) -> impl Iterator<Item = usize> + '_ {
        (0..ENTRIES).filter(|index| self.entry(*index) & VALID != 0)
    }

    /// Where the CPU finds it: our own memory is mapped at its physical address.
    fn address(&self) -> u64 {
        (&raw const *self).expose_provenance() as u64
    }
}

/// What a table is used for.
#[derive(Clone, Copy)]
struct Place {
    level: usize,
    /// First address that it translates.
    start: usize,
    /// Which entry of which table points to it.
    parent: (usize, usize),
    valid_entries: usize,
    /// Entered since the clock's hand last passed.
    entered: bool,
}

/// The tables. Those that are not in use are zero.
pub struct Tables {
    tables: Box<[Table]>,
    /// One for each table; none when it is free. The root is not counted in.
    places: Box<[Option<Place>]>,
    hand: usize,
    free: usize,
    reclaimed: u64,
}

/// Index of the entry for `address` in a table of `level`.
const fn index_at(address: usize, level: usize) -> usize {
    let shift = PAGE_BYTES.trailing_zeros() as usize + (LAST_LEVEL - level) * 9;
    address >> shift & (ENTRIES - 1)
}

/// First address that a table of `level` on the way to `address` translates.
const fn start_at(address: usize, level: usize) -> usize {
    let shift = PAGE_BYTES.trailing_zeros() as usize + (LAST_LEVEL + 1 - level) * 9;
    address >> shift << shift
}

impl Tables {
    /// `count` tables from the heap, at least [`TABLES_MIN`], of which one is the root; none when there is no memory.
    #[must_use]
    pub fn new(count: usize) -> Option<Self> {
        let count = count.max(TABLES_MIN);
        let mut tables = Vec::new();
        tables.try_reserve_exact(count).ok()?;
        tables.resize_with(count, || Table([const { AtomicU64::new(0) }; ENTRIES]));
        let mut places = Vec::new();
        places.try_reserve_exact(count).ok()?;
        places.resize(count, None);
        let (tables, places) = (tables.into_boxed_slice(), places.into_boxed_slice());
        Some(Self { tables, places, hand: 0, free: count - 1, reclaimed: 0 })
    }

    /// Physical address of the root.
    #[must_use]
    pub fn root(&self) -> usize {
        self.tables.first().map_or(0, Table::address) as usize
    }

    /// Tables in use, the root among them.
    #[must_use]
    pub fn used(&self) -> usize {
        self.tables.len() - self.free
    }

    /// Level-3 tables that were taken out for want of free ones.
    #[must_use]
    pub fn reclaimed(&self) -> u64 {
        self.reclaimed
    }

    /// Makes the way to the page at `address`; what [`Self::set`] sets next to it has one then. The ways to the pages
    /// at `kept` stay. Returns false when there is no table to be had.
    #[must_use]
    pub fn make_way(&mut self, address: usize, kept: &[usize], cpu: &impl Translation) -> bool {
        loop {
            let (mut table, mut level) = self.walk(address);
            if LAST_LEVEL - level > self.free {
                // Another victim may have been the last in a table of this very path: look again.
                if !self.reclaim(kept, cpu) {
                    return false;
                }
                continue;
            }
            while level < LAST_LEVEL {
                let Some(below) = self.take_free(address, level + 1, (table, index_at(address, level)))
                else {
                    return false;
                };
                table = below;
                level += 1;
            }
            if let Some(Some(place)) = self.places.get_mut(table) {
                place.entered = true;
            }
            return true;
        }
    }

    /// Shows the page at `physical` at `address`, if there is a way to it. The change must be published.
    pub fn set(&mut self, address: usize, physical: usize, access: Access, cpu: &impl Translation) {
        let (table, level) = self.walk(address);
        let index = index_at(address, LAST_LEVEL);
        let read_only = if access == Access::ReadOnly { READ_ONLY } else { 0 };
        let descriptor = physical as u64 & ADDRESS_MASK
            | VALID
            | TABLE_OR_PAGE
            | INNER_SHAREABLE
            | ACCESSED
            | PRIVILEGED_EXECUTE_NEVER
            | EXECUTE_NEVER
            | read_only;
        let there = self.tables.get(table).map_or(0, |table| table.entry(index));
        if level < LAST_LEVEL || there == descriptor {
            return;
        }
        if there & VALID != 0 {
            // Break before make (Arm ARM, "Using break-before-make when updating translation table entries").
            self.clear(address, cpu);
        }
        if let (Some(table), Some(Some(place))) = (self.tables.get(table), self.places.get_mut(table)) {
            table.set(index, descriptor);
            place.valid_entries += 1;
        }
    }

    /// Hides the page at `address`. Returns whether one was shown there.
    pub fn clear(&mut self, address: usize, cpu: &impl Translation) -> bool {
        let (table, level) = self.walk(address);
        let index = index_at(address, LAST_LEVEL);
        if let (LAST_LEVEL, Some(table), Some(Some(place))) =
            (level, self.tables.get(table), self.places.get_mut(table))
            && table.entry(index) & VALID != 0
        {
            table.set(index, 0);
            place.valid_entries -= 1;
            cpu.forget_page(address);
            return true;
        }
        false
    }

    /// Hides all pages of `range`, which begins and ends where an entry of the root does.
    pub fn clear_all(&mut self, range: &Range<usize>, cpu: &impl Translation) {
        let within = |place: &Option<Place>| place.is_some_and(|place| range.contains(&place.start));
        let parents = self.places.iter().flatten().filter(|place| range.contains(&place.start));
        for (table, index) in parents.map(|place| place.parent).filter(|(table, _)| *table == ROOT) {
            if let Some(table) = self.tables.get(table) {
                table.set(index, 0);
            }
        }
        cpu.forget_all();
        for (place, table) in self.places.iter_mut().zip(&self.tables).filter(|(place, _)| within(place)) {
            *place = None;
            table.clear();
            self.free += 1;
        }
    }

    /// The table nearest to the page at `address` that there is, and its level.
    fn walk(&self, address: usize) -> (usize, usize) {
        let (mut table, mut level) = (ROOT, 0);
        while level < LAST_LEVEL {
            let Some(below) = self.below(table, index_at(address, level)) else { break };
            table = below;
            level += 1;
        }
        (table, level)
    }

    /// The table that an entry points to.
    fn below(&self, table: usize, index: usize) -> Option<usize> {
        let descriptor = self.tables.get(table)?.entry(index);
        let distance = (descriptor & ADDRESS_MASK).wrapping_sub(self.root() as u64);
        (descriptor & VALID != 0).then_some(distance as usize / size_of::<Table>())
    }

    /// Puts a free table at `level` on the way to `address`, below `parent`.
    fn take_free(&mut self, address: usize, level: usize, parent: (usize, usize)) -> Option<usize> {
        let free = (ROOT + 1..self.places.len())
            .find(|table| self.places.get(*table).is_some_and(Option::is_none))?;
        let start = start_at(address, level);
        *self.places.get_mut(free)? = Some(Place { level, start, parent, valid_entries: 0, entered: false });
        self.free -= 1;
        // A walk that finds the table finds it zero.
        fence(Ordering::Release);
        let descriptor = self.tables.get(free)?.address() | VALID | TABLE_OR_PAGE;
        self.tables.get(parent.0)?.set(parent.1, descriptor);
        if let Some(Some(place)) = self.places.get_mut(parent.0) {
            place.valid_entries += 1;
        }
        Some(free)
    }

    /// Takes out a level-3 table by CLOCK. Entered means that a fault led there: what is read and written without one
    /// leaves no trace in an Armv8.0 table, so a table in constant use may go too. That costs it a fault, no more.
    fn reclaim(&mut self, kept: &[usize], cpu: &impl Translation) -> bool {
        for _ in 0..2 * self.places.len() {
            let table = self.hand;
            self.hand = if table + 1 < self.places.len() { table + 1 } else { 0 };
            let Some(Some(place)) = self.places.get_mut(table) else { continue };
            let is_kept = kept.iter().any(|address| start_at(*address, LAST_LEVEL) == place.start);
            if place.level < LAST_LEVEL || is_kept || core::mem::take(&mut place.entered) {
                continue;
            }
            self.reclaimed += 1;
            self.take_out(table, cpu);
            return true;
        }
        false
    }

    /// Takes out a level-3 table, and those above it that have nothing else below them.
    fn take_out(&mut self, table: usize, cpu: &impl Translation) {
        let Some(Some(Place { start, .. })) = self.places.get(table).copied() else { return };
        // From the bottom to the highest table that goes.
        let mut going = [None; LAST_LEVEL];
        let mut next = table;
        for going in &mut going {
            let Some(Some(place)) = self.places.get(next).copied() else { break };
            *going = Some(next);
            let (parent, index) = place.parent;
            if let Some(parent) = self.tables.get(parent) {
                parent.set(index, 0);
            }
            next = parent;
            let Some(Some(above)) = self.places.get_mut(parent) else { break };
            above.valid_entries -= 1;
            if above.valid_entries > 0 {
                break;
            }
        }
        let Some(last) = self.tables.get(table) else { return };
        // The first one for the tables themselves, even if no page is shown.
        let pages = core::iter::once(0).chain(last.valid().filter(|index| *index != 0));
        cpu.forget_paths(pages.map(|index| start + index * PAGE_BYTES));
        for table in going.into_iter().flatten() {
            if let (Some(place), Some(table)) = (self.places.get_mut(table), self.tables.get(table)) {
                *place = None;
                table.clear();
                self.free += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps nothing of the tables.
    struct Forgetful;

    impl Translation for Forgetful {
        fn start(&self, _: usize) {}
        fn publish(&self) {}
        fn forget_page(&self, _: usize) {}
        fn forget_paths(&self, _: impl Iterator<Item = usize>) {}
        fn forget_all(&self) {}
    }

    const fn page(block: usize) -> usize {
        UPPER_HALF + block * TABLE_SPAN
    }

    #[test]
    fn the_way_to_a_page_that_is_kept_stays_wherever_the_hand_stands() {
        let mut tables = Tables::new(TABLES_MIN).unwrap();
        for block in 1..100 {
            // Neighbours, and pages whose ways have nothing in common but the root.
            let (kept, next) = (page(block), page(block + block % 3 * 0x40000));
            assert!(tables.make_way(kept, &[kept], &Forgetful));
            assert!(tables.make_way(next, &[kept, next], &Forgetful));
            assert_eq!((tables.walk(kept).1, tables.walk(next).1), (LAST_LEVEL, LAST_LEVEL));
        }
        assert!(tables.reclaimed() > 0);
    }

    #[test]
    fn a_table_that_was_entered_lately_outlives_one_that_was_not() {
        let mut tables = Tables::new(TABLES_MIN).unwrap();
        // Four of level 3 are all there can be; the fifth makes the hand pass all, and takes the first.
        assert!((0..5).all(|block| tables.make_way(page(block), &[], &Forgetful)));
        assert!(tables.make_way(page(1), &[], &Forgetful));
        assert!(tables.make_way(page(5), &[], &Forgetful));
        let there = [0, 1, 2, 3, 4, 5].map(|block| tables.walk(page(block)).1 == LAST_LEVEL);
        assert_eq!(there, [false, true, false, true, true, true]);
    }

    #[test]
    fn when_all_ways_are_kept_there_is_no_other() {
        let mut tables = Tables::new(TABLES_MIN).unwrap();
        let kept = [0, 1, 2, 3].map(page);
        assert!(kept.iter().all(|page| tables.make_way(*page, &kept, &Forgetful)));
        assert!(!tables.make_way(page(4), &kept, &Forgetful));
        assert_eq!(tables.used(), TABLES_MIN);
    }
}
