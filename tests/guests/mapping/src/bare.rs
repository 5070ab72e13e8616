//! `kernel_main`: the kernel's bring-up, then the rows.

use core::panic::PanicInfo;

use kernel::bring_up::foundation;
use kernel::logger;
use kernel::restart::Life;
use kernel::xen::sched::{ShutdownReason, shutdown};

use crate::{clock, rows};

/// Called by `entry.S` with the address of the device tree.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(device_tree: usize) -> ! {
    logger::init();
    // SAFETY: called once, with what `entry.S` handed over.
    let measured = unsafe { foundation(device_tree, Life::First, &[]) }
        .and_then(|foundation| rows::measure_all(&foundation));
    match measured {
        Ok(()) => log::info!("bench name=end"),
        Err(error) => log::error!("cannot go on: {error}"),
    }
    // The last line has to be read before this domain is gone.
    clock::rest(clock::TO_SETTLE_NS);
    shutdown(ShutdownReason::PowerOff)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    logger::emergency(format_args!("PANIC {info}"));
    shutdown(ShutdownReason::Crash)
}
