//! `kernel_main`: the kernel's bring-up, then the life.

use core::panic::PanicInfo;

use by_hand::registers::WINDOW;
use kernel::bring_up::foundation;
use kernel::logger;
use kernel::restart::Life;
use kernel::xen::sched::{ShutdownReason, shutdown};

use crate::life::live;

/// Called by `entry.S` with the address of the device tree.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(device_tree: usize) -> ! {
    logger::init();
    // SAFETY: called once, with what `entry.S` handed over.
    let lived = unsafe { foundation(device_tree, Life::First, &[WINDOW]) }.and_then(live);
    match lived {
        Ok(reason) => shutdown(reason),
        Err(error) => {
            log::error!("hostile: cannot go on: {error}");
            shutdown(ShutdownReason::Crash)
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    logger::emergency(format_args!("PANIC {info}"));
    shutdown(ShutdownReason::Crash)
}
