//! `kernel_main`: what happens once in the driver domain, in the order it happens, after what every image needs
//! ([`kernel::bring_up`]).

extern crate alloc;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::panic::PanicInfo;

use drivers::net::bridge::Bridge;
use drivers::volume::ram::Storage;
use drivers::volume::registry::Registry;
use kernel::arch::cpu;
use kernel::arch::gic::{Gic, Interrupt};
use kernel::arch::timer::now_ns;
use kernel::bring_up::{Foundation, bytes_of, foundation};
use kernel::device_tree::Machine;
use kernel::devices::Devices;
use kernel::devices::transport::PhysicalDevice;
use kernel::devices::{disk, transport, uplink};
use kernel::guest::control::{Control, Network, OwnMemory};
use kernel::guest::table::GuestTable;
use kernel::limits::{PAGE_BYTES, VIEW_TABLES};
use kernel::mm::bus::SelfGrants;
use kernel::mm::dma::{DmaError, DmaPool};
use kernel::mm::foreign::Pager;
use kernel::mm::frames::{FrameAllocator, RamStorage};
use kernel::mm::ram::Ram;
use kernel::mm::singles::SinglePages;
use kernel::options::Source;
use kernel::run::Loop;
use kernel::xen::sched::{ShutdownReason, shutdown};
use kernel::xen::store::Store;
use kernel::{logger, mm};

/// Called by `entry.S` with the address of the device tree.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(device_tree: usize) -> ! {
    logger::init();
    let reason = match bring_up(device_tree) {
        Ok(running) => running.run(),
        Err(reason) => {
            log::error!("cannot start: {reason}");
            ShutdownReason::Crash
        }
    };
    if reason == ShutdownReason::PowerOff {
        cpu::power_off();
    }
    shutdown(reason)
}

/// Brings everything up, in order.
fn bring_up(device_tree: usize) -> Result<Loop, Box<dyn core::error::Error>> {
    // SAFETY: `kernel_main` is called once, with what `entry.S` handed over, and did nothing else so far.
    let foundation = unsafe { foundation(device_tree, &[])? };
    let Foundation { machine, options, complaints, frames, special_pages, singles, window, .. } = foundation;
    let Foundation { events, console, store, .. } = foundation;
    log::info!("driver domain {}, for Xen on Arm", env!("CARGO_PKG_VERSION"));
    for complaint in &complaints {
        log::error!("{complaint}");
    }

    // Guests' pages, and interrupts.
    let pager = Rc::new(RefCell::new(Pager::new(window)));
    let ram = Ram::new(frames.clone(), pager.clone());
    mm::view::init(&pager, VIEW_TABLES);
    // SAFETY: `foundation` mapped the registers; this is the only driver.
    let gic = unsafe { Gic::new(machine.interrupt_controller)? };
    let mut devices = Devices::new(gic, Interrupt(machine.timer_interrupt))?;

    // The network, and volumes.
    let initrd =
        machine.initrd.as_ref().map(bytes_of).and_then(|range| RamStorage::existing(&frames, &range));
    let initrd = initrd.map(|storage| Box::new(storage) as Box<dyn Storage>);
    let physical = physical_devices(&machine, &frames, &singles);
    let bridge = Bridge::new(now_ns());
    let (_uplink, physical) = uplink::bring_up(physical, &bridge, &mut devices);
    let disks = disk::bring_up(physical, &mut devices);
    let volume_ram = ram.clone();
    let allocate = move |bytes| {
        let bytes = usize::try_from(bytes).ok()?;
        let run = volume_ram.take(bytes.div_ceil(PAGE_BYTES))?;
        Some(Box::new(RamStorage::zeroed(run, bytes)?) as Box<dyn Storage>)
    };
    let volumes = Registry::new(initrd, disks, Box::new(allocate), Box::new(|_| None));

    // The control plane.
    let (ring, store_port) = store;
    let store = Store::new(ring, move || kernel::xen::event::send(store_port));
    let guests = Rc::new(RefCell::new(GuestTable::new(singles, pager)));
    let own_memory = OwnMemory { frames: frames.clone(), heap_free: mm::heap::free_bytes, special_pages };
    let network = Network { bridge, options: options.network };
    let control = Control::new(store.clone(), guests.clone(), volumes, network, own_memory);
    let source = match options.source {
        Source::Unpopulated => "unpopulated address space",
        Source::Balloon => "our own RAM",
    };
    log::info!(
        "{} KiB of RAM free, {} KiB of heap, window of up to {} KiB in {source}",
        (frames.borrow().free() * PAGE_BYTES) >> 10,
        mm::heap::free_bytes() >> 10,
        (guests.borrow().pager().borrow().usable() * PAGE_BYTES) >> 10,
    );
    Ok(Loop {
        events,
        guests,
        ram,
        devices,
        store: (store, store_port),
        console,
        control: Box::pin(control.run(complaints)),
    })
}

/// The physical devices, if there are any and there is memory for them. Called when all RAM that is in use is taken.
fn physical_devices(
    machine: &Machine<'_>,
    frames: &Rc<RefCell<FrameAllocator>>,
    singles: &Rc<RefCell<SinglePages>>,
) -> Vec<PhysicalDevice> {
    for name in &machine.passthrough_skipped {
        log::error!("passthrough: node {name} is none that can be used: see boot/passthrough.dts");
    }
    if machine.passthrough.is_empty() {
        return Vec::new();
    }
    let pool = SelfGrants::new(singles).map_err(|error| DmaError::NoBusAddress(error.into()));
    match pool.and_then(|mut addresses| DmaPool::new(frames, &mut addresses)) {
        Ok(pool) => {
            let (bytes, address, bus_address) = (pool.bytes(), pool.address(), pool.bus_address());
            log::info!("DMA: {} KiB at {address:#x}, in the machine at {bus_address:#x}", bytes >> 10);
            mm::hal::init(pool);
        }
        Err(error) => {
            log::error!("no physical devices, for lack of DMA memory: {error}");
            return Vec::new();
        }
    }
    // SAFETY: the registers were mapped by `foundation`; this is called once.
    unsafe { transport::find(&machine.passthrough) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    logger::emergency(format_args!("PANIC {info}"));
    shutdown(ShutdownReason::Crash)
}
