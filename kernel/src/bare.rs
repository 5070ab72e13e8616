//! `kernel_main`: what happens once in the driver domain, in the order it happens, after what every image needs
//! ([`kernel::bring_up`]).

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{OnceCell, RefCell};
use core::hash::Hasher;
use core::panic::PanicInfo;

use drivers::connection::Connection;
use drivers::net::MacAddress;
use drivers::net::bridge::{Bridge, PortKind, PortSettings, SharedBridge};
use drivers::volume::ram::Storage;
use drivers::volume::registry::{Purpose, Registry};
use kernel::arch::cpu;
use kernel::arch::gic::{Gic, Interrupt};
use kernel::arch::timer::now_ns;
use kernel::bring_up::{Foundation, bytes_of, foundation};
use kernel::device_tree::Machine;
use kernel::devices::Devices;
use kernel::devices::network::{BridgeDevice, EndpointDevice};
use kernel::devices::transport::PhysicalDevice;
use kernel::devices::{disk, transport, uplink};
use kernel::endpoint::Endpoint;
use kernel::endpoint::addressing::Addressing;
use kernel::endpoint::collect::Collector;
use kernel::endpoint::connection::EndpointConnection;
use kernel::guest::control::{Control, Network, OwnMemory};
use kernel::guest::identity::own_address;
use kernel::guest::table::GuestTable;
use kernel::limits::{PAGE_BYTES, VIEW_TABLES};
use kernel::mm::bus::SelfGrants;
use kernel::mm::dma::{DmaError, DmaPool};
use kernel::mm::foreign::Pager;
use kernel::mm::frames::{FrameAllocator, RamStorage};
use kernel::mm::ram::Ram;
use kernel::mm::singles::SinglePages;
use kernel::options::Source;
use kernel::restart::{self, Life};
use kernel::run::{Loop, Resumption};
use kernel::xen::sched::{ShutdownReason, shutdown};
use kernel::xen::store::Store;
use kernel::xen::version::domain_uuid;
use kernel::{logger, mm};
use siphasher::sip::SipHasher24;

/// Called by `entry.S` with the address of the device tree, and whether it is not for the first time.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(device_tree: usize, again: usize) -> ! {
    logger::init();
    let reason = match bring_up(device_tree, Life::from_entry(again)) {
        Ok(running) => running.run(),
        Err(reason) => {
            log::error!("cannot start: {reason}");
            ShutdownReason::Crash
        }
    };
    transport::reset_all();
    if reason == ShutdownReason::PowerOff {
        cpu::power_off();
    }
    shutdown(reason)
}

/// Brings everything up, in order. What it and its steps need of the stack, the loop has again: none of them is inlined.
#[inline(never)]
fn bring_up(device_tree: usize, life: Life) -> Result<Loop, Box<dyn core::error::Error>> {
    // SAFETY: `kernel_main` is called once in a life, with what `entry.S` handed over, and did nothing else so far.
    let foundation = unsafe { foundation(device_tree, life, &[])? };
    let Foundation { machine, options, complaints, frames, special_pages, singles, window, .. } = foundation;
    let Foundation { events, console, store, area, volumes: ram_volumes, .. } = foundation;
    restart::allow(&area, life, options.may_crash);
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
    let mut devices =
        Devices::new(gic, Interrupt(machine.timer_interrupt), Interrupt(machine.physical_timer_interrupt))?;

    // The network.
    let uuid = uuid();
    let mac_seed = options.network.seed.clone().unwrap_or_else(|| uuid.clone());
    let secret = secret_of(&uuid);
    let bridge = Bridge::new(secret);
    bridge.borrow().pool().set_may_grow(|| !mm::heap_is_low());
    let physical = physical_devices(&machine, &frames, &singles);
    let physical = uplink::bring_up(physical, &bridge, &mut devices);
    devices.add_without_interrupt(Rc::new(BridgeDevice(bridge.clone())));
    let disks = disk::bring_up(physical, &mut devices);
    let mut guests = GuestTable::new(singles, pager).noted_in(area);
    guests.adopt(&[store.1, console]);
    let guests = Rc::new(RefCell::new(guests));

    // Volumes.
    let initrd =
        machine.initrd.as_ref().map(bytes_of).and_then(|range| RamStorage::existing(&frames, &range));
    let initrd = initrd.map(|storage| Box::new(storage) as Box<dyn Storage>);
    let volume_ram = ram.clone();
    let ram_volumes = Rc::new(ram_volumes);
    let ended_us = area.root.ended_us.get().filter(|_| life == Life::Again);
    let resumption = ended_us.map(|ended_us| Resumption { ended_us, volumes: ram_volumes.clone() });
    let allocate = move |bytes, purpose| {
        let bytes = usize::try_from(bytes).ok()?;
        if let Purpose::VolumeOf(opener) = purpose {
            return ram_volumes.open(opener, bytes, &volume_ram);
        }
        let run = volume_ram.take(bytes.div_ceil(PAGE_BYTES))?;
        Some(Box::new(RamStorage::zeroed(run, bytes)?) as Box<dyn Storage>)
    };
    let way_out = Rc::new(OnceCell::<Rc<RefCell<Endpoint>>>::new());
    let to_servers = way_out.clone();
    let connect = move |server| {
        let connection = EndpointConnection::new(to_servers.get()?, server)?;
        Some(Box::new(connection) as Box<dyn Connection>)
    };
    let physical_disks = disks.iter().flatten().cloned().collect();
    let volumes = Registry::new(initrd, disks, Box::new(allocate), Box::new(connect));
    devices.add_without_interrupt(Rc::new(volumes.network_disks()));

    // Our own station on the network.
    let status = Collector {
        guests: guests.clone(),
        bridge: bridge.clone(),
        disks: physical_disks,
        network_disks: volumes.network_disks(),
        frames: frames.clone(),
        heap_free: mm::heap::free_bytes,
        now_ns,
    };
    let address = own_address(&mac_seed);
    let endpoint = options.network.ip.and_then(|ip| endpoint(&bridge, address, ip, status, secret));
    if let Some(endpoint) = &endpoint {
        // Behind the disks: what they want to send before a sleep, it sends.
        devices.add_without_interrupt(Rc::new(EndpointDevice(endpoint.clone())));
        let _ = way_out.set(endpoint.clone());
    }

    // The control plane.
    let (ring, store_port) = store;
    let store = Store::new(ring, move || kernel::xen::event::send(store_port));
    let own_memory = OwnMemory { frames: frames.clone(), heap_free: mm::heap::free_bytes, special_pages };
    let network = Network { bridge, seed: mac_seed, options: options.network, endpoint };
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
    restart::serving(&area, now_ns() / 1000);
    Ok(Loop {
        events,
        guests,
        ram,
        devices,
        store: (store, store_port),
        console,
        control: Box::pin(control.run(complaints)),
        resumption,
    })
}

/// This domain's UUID, as hexadecimal digits.
fn uuid() -> String {
    let uuid =
        domain_uuid().inspect_err(|error| log::error!("{error}: what depends on it is not ours alone"));
    uuid.unwrap_or_default().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A number that guests cannot know: they know neither our UUID nor when we started.
fn secret_of(uuid: &str) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(now_ns(), 0);
    hasher.write(uuid.as_bytes());
    hasher.finish()
}

/// Our own station on the bridge, unless there is no room for it, which is told.
fn endpoint(
    bridge: &SharedBridge,
    address: MacAddress,
    addressing: Addressing,
    status: Collector,
    secret: u64,
) -> Option<Rc<RefCell<Endpoint>>> {
    let settings = PortSettings {
        name: "endpoint".to_string(),
        kind: PortKind::Endpoint,
        address: Some(address),
        is_pinned: false,
        is_isolated: false,
    };
    let port = Bridge::add(bridge, settings).inspect_err(|error| log::error!("endpoint: {error}")).ok()?;
    let endpoint = Endpoint::new(port, addressing, Box::new(status), secret, now_ns())?;
    log::info!("endpoint: its address on the bridge is {address}");
    Some(Rc::new(RefCell::new(endpoint)))
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
    restart::again(restart::End::Fault)
}
