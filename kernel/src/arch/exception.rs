//! What happens when the kernel itself faults: a readable dump, and another life ([`crate::restart`]). What goes on: a look at a
//! register that may not be there ([`super::probe`]), and a copy from or to a view ([`super::view_mmu`]).

use boot::ExceptionFrame;

/// What arrived, in the order of the vector table.
const VECTORS: [&str; 4] = ["synchronous exception", "interrupt", "fast interrupt", "system error"];

/// The vector of an interrupt while the kernel runs: the watchdog's.
const INTERRUPT: u64 = 1;

/// The exception class, bits 31..26 of ESR_EL1 (Arm ARM, D24.2.40), in words for those that we can cause.
fn class(esr: u64) -> &'static str {
    match esr >> 26 & 0x3f {
        0x00 => "unknown instruction",
        0x0e => "illegal execution state",
        0x15 => "SVC",
        0x21 => "instruction abort",
        0x22 => "misaligned program counter",
        0x25 => "data abort",
        0x26 => "misaligned stack pointer",
        0x2f => "SError",
        0x3c => "breakpoint",
        _ => "other",
    }
}

/// Called by `vectors.S` on the exception stack.
#[unsafe(no_mangle)]
extern "C" fn exception_entry(frame: &mut ExceptionFrame, vector: u64) {
    if vector == INTERRUPT {
        return crate::restart::watchdog::interrupt(frame.elr);
    }
    if super::probe::resume(frame) || super::view_mmu::resume(frame) {
        return;
    }
    let layout = boot::image::layout();
    let what = VECTORS.get((vector & 3) as usize).copied().unwrap_or("exception");
    let guard = |stack: &core::ops::Range<usize>| {
        (stack.start.saturating_sub(0x1000) as u64..stack.start as u64).contains(&frame.far)
    };
    crate::logger::emergency(format_args!(
        "FATAL {what} (vector {vector}): {}, ESR {:#010x}, FAR {:#x}, ELR {:#x} (image + {:#x}), SPSR {:#x}, SP {:#x}",
        class(frame.esr),
        frame.esr,
        frame.far,
        frame.elr,
        frame.elr.wrapping_sub(layout.text.start as u64),
        frame.spsr,
        frame.sp,
    ));
    if guard(&layout.main_stack) || guard(&layout.exception_stack) {
        crate::logger::emergency(format_args!("  the stack has overflowed into its guard page"));
    }
    for (row, x) in frame.x.chunks(3).enumerate() {
        let get = |column: usize| x.get(column).copied().unwrap_or_default();
        let first = row * 3;
        crate::logger::emergency(format_args!(
            "  x{first:<2} {:016x}  x{:<2} {:016x}  x{:<2} {:016x}",
            get(0),
            first + 1,
            get(1),
            first + 2,
            get(2),
        ));
    }
    crate::restart::again(crate::restart::End::Fault)
}
