//! `kernel_main`: the kernel's bring-up, then the lies.

use alloc::boxed::Box;
use core::error::Error;
use core::panic::PanicInfo;

use kernel::bring_up::{Foundation, foundation};
use kernel::logger;
use kernel::restart::Life;
use kernel::xen::sched::{ShutdownReason, shutdown};

use crate::options::{Lies, Options};
use crate::session::Session;
use crate::{bad_grants, bad_memory, bad_rings, row};
use by_hand::registers::WINDOW;

/// Called by `entry.S` with the address of the device tree.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(device_tree: usize) -> ! {
    logger::init();
    // SAFETY: called once, with what `entry.S` handed over.
    let lied =
        unsafe { foundation(device_tree, Life::First, &[WINDOW]) }.and_then(|foundation| lie(&foundation));
    if let Err(error) = lied {
        log::error!("rogue: cannot go on: {error}");
    }
    shutdown(ShutdownReason::Crash)
}

/// Tells all lies that the command line asks for, and some of them for ever.
fn lie(foundation: &Foundation) -> Result<(), Box<dyn Error>> {
    let options = Options::parse(foundation.machine.command_line)?;
    let mut session = Session::new(foundation, &options)?;
    match options.lies {
        Lies::Memory => bad_memory::tell(&mut session, foundation)?,
        Lies::Grants => bad_grants::tell(&mut session, foundation, &options)?,
    }
    bad_rings::tell(&mut session);
    row::tell(&mut session)?;
    log::info!("rogue: goes on until it is destroyed");
    row::go_on(&mut session)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    logger::emergency(format_args!("PANIC {info}"));
    shutdown(ShutdownReason::Crash)
}
