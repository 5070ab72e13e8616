//! What is told on the console of our memory and of our work: when `xl sysrq` asks, and when a guest is gone.

use alloc::rc::Rc;
use core::cell::RefCell;

use log::Level;

use super::Control;
use crate::guest::Guest;
use crate::guest::table::GuestTable;
use crate::mm::census::Census;
use crate::mm::frames::FrameAllocator;
use crate::restart::{self, watchdog};
use crate::xen::event::open_ports;
use crate::xen::store::StoreError;
use crate::xen::tally::Tally;

/// Where `xl sysrq` writes a letter: what we are to tell on our console, or to do.
pub(super) const QUESTION: &str = "control/sysrq";

/// What the driver domain has left of its own memory.
pub struct OwnMemory {
    /// Frames that are free.
    pub frames: Rc<RefCell<FrameAllocator>>,
    /// Tells how many bytes of the heap are free.
    pub heap_free: fn() -> usize,
    /// Pages of RAM that the device tree does not name: those of console and xenstore, and such.
    pub special_pages: usize,
}

impl Control {
    /// Tells on the console what `xl sysrq` asked for.
    pub(super) async fn answer_question(&self) -> Result<(), StoreError> {
        let letter = match self.store.read(QUESTION).await {
            Err(StoreError::NotFound) => return Ok(()),
            other => other?,
        };
        if letter.is_empty() {
            return Ok(());
        }
        // First: whoever comes after a restart is not asked the same again.
        self.store.write(QUESTION, "").await?;
        match letter.as_str() {
            "m" => self.tell_memory(),
            "w" => self.tell_work(),
            "r" => {
                log::info!("sysrq r: asked to start again");
                restart::ask();
            }
            "c" if restart::ask_for_crash() => log::info!("sysrq c: asked to crash"),
            "h" if restart::ask_for_hang() => log::info!("sysrq h: asked to hang"),
            "c" | "h" => log::info!("sysrq {letter}: not without sysrq=crash on the command line"),
            other => log::info!(
                "sysrq {other}: not known; m tells about memory, w about work, r starts this kernel again"
            ),
        }
        Ok(())
    }

    fn tell_memory(&self) {
        let guests = self.guests.borrow();
        let pager = guests.pager().borrow();
        self.tell_physmap(&guests);
        log::info!(
            "pager: {} slots, {} of them out of our RAM, {} mapped, {} pinned; {:?}",
            pager.usable(),
            pager.window().ballooned(),
            pager.mapped(),
            pager.pinned(),
            pager.counters(),
        );
        log::info!("xen: {} event channels open", open_ports());
        for guest in guests.iter() {
            log::info!("pager: {} has {} slots", guest.domain(), pager.held(guest.domain()));
        }
    }

    /// One line of `key=value` pairs, counted since this life began, kicks and interrupts of the devices that there are now; pages of guests that
    /// were mapped in place of others, or unmapped, are each a flush of our TLB entries.
    fn tell_work(&self) {
        let guests = self.guests.borrow();
        let (mut kicks, mut interrupts) = (0, 0);
        for (_, device) in guests.iter().flat_map(Guest::models) {
            kicks += device.counters().kicks;
            interrupts += device.counters().interrupts;
        }
        let pages = guests.pager().borrow().counters();
        log::info!(
            "work: turns={} {Tally} kicks={kicks} interrupts={interrupts} hits={} misses={} flushes={}",
            watchdog::turns(),
            pages.hits,
            pages.misses,
            pages.evictions + pages.unmapped,
        );
    }

    pub(super) fn tell_physmap(&self, guests: &GuestTable) {
        let frames = self.own_memory.frames.borrow();
        let (pager, pages) = (guests.pager().borrow(), guests.pages().borrow());
        let census = Census::take(&frames, pager.window(), &pages, self.own_memory.special_pages);
        let level = if census.adds_up() { Level::Info } else { Level::Error };
        log::log!(level, "physmap: {census}");
    }
}
