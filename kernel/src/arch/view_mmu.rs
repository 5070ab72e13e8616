//! Views on the CPU: TTBR1 switched on, TLB maintenance for its tables, and the way of a fault to the pager and back.
//!
//! All of it is broadcast to the inner-shareable domain: Xen may have run our vCPU on another processor before.

use core::arch::asm;
use core::ptr;

use boot::ExceptionFrame;

use super::copy;
use super::view_tables::{Translation, UPPER_HALF};
use crate::mm::view::{self, Mmu};

/// TCR_EL1 (Arm ARM, D24.2.179), the half for TTBR1: 48-bit addresses, 4 KiB granule, walks write-back and
/// inner-shareable, as `entry.S` has them for TTBR0.
const TCR_T1SZ_48_BIT: u64 = (64 - 48) << 16;
const TCR_EPD1: u64 = 1 << 23;
const TCR_IRGN1_WRITE_BACK: u64 = 1 << 24;
const TCR_ORGN1_WRITE_BACK: u64 = 1 << 26;
const TCR_SH1_INNER: u64 = 3 << 28;
const TCR_TG1_4_KIB: u64 = 2 << 30;
/// All fields of that half: T1SZ, A1, EPD1, IRGN1, ORGN1, SH1, TG1.
const TCR_UPPER_HALF: u64 = 0xffff << 16;

/// The operand of a TLBI by address: bits 55 to 12 (Arm ARM, C5.5).
const TLBI_ADDRESS_MASK: usize = (1 << 44) - 1;

/// ESR_EL1 of a data abort (Arm ARM, D24.2.40).
const CLASS_DATA_ABORT: u64 = 0x25;
const FAULT_ADDRESS_NOT_VALID: u64 = 1 << 10;
const WRITE_NOT_READ: u64 = 1 << 6;
/// A translation fault, without the level that it happened at.
const STATUS_TRANSLATION: u64 = 0b0001;

/// The CPU that we run on.
pub struct Hardware;

impl Translation for Hardware {
    fn start(&self, root: usize) {
        // SAFETY: only the upper half changes, in which nothing was mapped. The root is set before walks are allowed,
        // and what was kept of the old fields (they may be cached in the TLB) is dropped after.
        unsafe {
            asm!(
                "dsb ishst",
                "msr ttbr1_el1, {root}",
                "isb",
                "mrs {tcr}, tcr_el1",
                "bic {tcr}, {tcr}, {mask}",
                "orr {tcr}, {tcr}, {fields}",
                "msr tcr_el1, {tcr}",
                "isb",
                "tlbi vmalle1is",
                "dsb ish",
                "isb",
                root = in(reg) root,
                tcr = out(reg) _,
                mask = in(reg) TCR_UPPER_HALF,
                fields = in(reg) TCR_T1SZ_48_BIT
                    | TCR_IRGN1_WRITE_BACK
                    | TCR_ORGN1_WRITE_BACK
                    | TCR_SH1_INNER
                    | TCR_TG1_4_KIB,
                options(nostack),
            );
        }
        const { assert!(TCR_UPPER_HALF & TCR_EPD1 != 0) };
    }

    fn publish(&self) {
        // SAFETY: barriers. The store is seen by walks after the DSB, and no later access was translated before the ISB.
        unsafe { asm!("dsb ishst", "isb", options(nostack)) }
    }

    fn forget_page(&self, address: usize) {
        let operand = address >> 12 & TLBI_ADDRESS_MASK;
        // SAFETY: dropping what the TLB keeps of the last level of one address, whatever the ASID: views are global.
        unsafe {
            asm!("dsb ishst", "tlbi vaale1is, {0}", "dsb ish", "isb", in(reg) operand, options(nostack));
        }
    }

    fn forget_paths(&self, addresses: impl Iterator<Item = usize>) {
        // SAFETY: a barrier.
        unsafe { asm!("dsb ishst", options(nostack)) }
        for address in addresses {
            let operand = address >> 12 & TLBI_ADDRESS_MASK;
            // SAFETY: as in `forget_page`, of all levels.
            unsafe { asm!("tlbi vaae1is, {0}", in(reg) operand, options(nostack)) }
        }
        // SAFETY: barriers: complete before anything that follows.
        unsafe { asm!("dsb ish", "isb", options(nostack)) }
    }

    fn forget_all(&self) {
        // SAFETY: dropping all that the TLB keeps of our stage 1.
        unsafe { asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack)) }
    }
}

impl Mmu for Hardware {
    unsafe fn read(&self, address: usize, out: &mut [u8]) -> bool {
        // SAFETY: `out` is ours; a page of the view that cannot be had ends the copy by `resume`.
        unsafe { copy::try_copy(out.as_mut_ptr(), ptr::with_exposed_provenance(address), out.len()) }
    }

    unsafe fn write(&self, address: usize, data: &[u8]) -> bool {
        // SAFETY: as in `read`, the other way round.
        unsafe { copy::try_copy(ptr::with_exposed_provenance_mut(address), data.as_ptr(), data.len()) }
    }
}

/// If the exception is a copy's access to a view, brings the page, or lets the copy fail. Returns whether it was.
///
/// The abort may have been taken on either stack: Xen injects those of stage 2 as if the code had run on SP_EL1.
pub fn resume(frame: &mut ExceptionFrame) -> bool {
    let is_abort = frame.esr >> 26 == CLASS_DATA_ABORT && frame.esr & FAULT_ADDRESS_NOT_VALID == 0;
    let is_of_view = is_abort && frame.far >= UPPER_HALF as u64;
    let Some(way_out) = copy::way_out(frame.elr).filter(|_| is_of_view) else { return false };
    let is_store = frame.esr & WRITE_NOT_READ != 0;
    let mended = view::fault(frame.far as usize, is_store);
    // What is not a translation fault is not mended by a page, and would come again.
    if !mended || frame.esr >> 2 & 0xf != STATUS_TRANSLATION {
        frame.elr = way_out;
    }
    true
}
