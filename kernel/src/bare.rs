//! `kernel_main`: everything that happens once, in the order it happens.

extern crate alloc;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use core::panic::PanicInfo;
use core::ptr::{self, NonNull};

use drivers::volume::ram::Storage;
use drivers::volume::registry::Registry;
use kernel::arch::cpu;
use kernel::arch::gic::{Gic, Interrupt};
use kernel::arch::mmu::{AddressSpace, Use};
use kernel::device_tree::Machine;
use kernel::devices::Devices;
use kernel::devices::transport::PhysicalDevice;
use kernel::devices::{disk, transport};
use kernel::guest::control::{Control, OwnMemory};
use kernel::guest::table::GuestTable;
use kernel::limits::{ADDRESS_LIMIT, HEAP_MAX_BYTES, HEAP_SHARE, PAGE_BYTES, SINGLE_PAGES};
use kernel::mm::address::Gfn;
use kernel::mm::bus::SelfGrants;
use kernel::mm::dma::{DmaError, DmaPool};
use kernel::mm::foreign::Pager;
use kernel::mm::frames::{FrameAllocator, FrameRun, RamStorage};
use kernel::mm::physmap::{REGION_ALIGNMENT, Window};
use kernel::mm::singles::SinglePages;
use kernel::options::Options;
use kernel::run::Loop;
use kernel::xen::abi::hvm;
use kernel::xen::console_ring::ConsoleRing;
use kernel::xen::event::{PendingEvents, Port};
use kernel::xen::sched::{ShutdownReason, shutdown};
use kernel::xen::store::{Ring, Store};
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
    // What xl told us. No heap yet: the facts borrow from the blob.
    let blob = blob_range(device_tree)?;
    // SAFETY: `blob_range` checked the header; the blob lies in RAM of ours that nothing writes.
    let data = unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance(blob.start), blob.len()) };
    let machine = Machine::read(data)?;

    // The heap, right after the image.
    let gap = gap_after_image(&machine, &blob);
    let heap = gap.start..gap.start + (gap.len() / HEAP_SHARE).min(HEAP_MAX_BYTES) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: the gap is RAM that holds neither image nor blob nor initrd, and the frame allocator leaves it out.
    unsafe { mm::heap::init(&heap) };
    let (options, complaints) = Options::parse(machine.command_line);
    log::set_max_level(options.log);

    // The final address space.
    let region_bytes = REGION_ALIGNMENT + options.window_bytes;
    let region = find_region(&machine, region_bytes)?;
    let store_page = kernel::xen::hvm::parameter(hvm::PARAM_STORE_PFN)? as usize * PAGE_BYTES;
    let console_page = kernel::xen::hvm::parameter(hvm::PARAM_CONSOLE_PFN)? as usize * PAGE_BYTES;
    map_everything(&machine, &region, [store_page, console_page])?;

    // The console.
    let console = Port(kernel::xen::hvm::parameter(hvm::PARAM_CONSOLE_EVENT)? as u32);
    let page = pointer(console_page)?;
    // SAFETY: Xen's console page, mapped above for good; nothing else in the kernel uses it.
    logger::attach(|notify| unsafe { ConsoleRing::at(page, notify) }, console);
    log::info!("driver domain {}, for Xen on Arm", env!("CARGO_PKG_VERSION"));
    for complaint in &complaints {
        log::error!("{complaint}");
    }

    // Our own RAM.
    let frames = Rc::new(RefCell::new(FrameAllocator::default()));
    for bank in &machine.memory {
        frames.borrow_mut().add_bank(&bytes_of(bank));
    }
    let image = boot::image::layout();
    for used in [image.text.start..heap.end, blob] {
        if let Some(run) = FrameAllocator::take_at(&frames, &used) {
            // Taken for as long as the kernel runs.
            core::mem::forget::<FrameRun>(run);
        }
    }

    // Others' pages, and events.
    let singles = Rc::new(RefCell::new(SinglePages::new(Gfn::containing(region.start))));
    let shared_info = SinglePages::map_shared_info(&singles)?;
    // SAFETY: just mapped, and never unmapped: the value is forgotten.
    let events = unsafe { PendingEvents::new(pointer(shared_info.address())?.cast()) };
    core::mem::forget(shared_info);
    let window = Window::new(&(region.start + SINGLE_PAGES * PAGE_BYTES..region.end));
    let pager = Rc::new(RefCell::new(Pager::new(window)));
    mm::view::init(&pager);
    // SAFETY: the registers were mapped above; this is the only driver.
    let gic = unsafe { Gic::new(machine.interrupt_controller)? };
    let mut devices = Devices::new(gic, Interrupt(machine.timer_interrupt))?;

    // Volumes.
    let initrd =
        machine.initrd.as_ref().map(bytes_of).and_then(|range| RamStorage::existing(&frames, &range));
    let initrd = initrd.map(|storage| Box::new(storage) as Box<dyn Storage>);
    let disks = disk::bring_up(physical_devices(&machine, &frames, &singles), &mut devices);
    let ram = frames.clone();
    let allocate = move |bytes| Some(Box::new(RamStorage::zeroed(&ram, bytes)?) as Box<dyn Storage>);
    let volumes = Registry::new(initrd, disks, Box::new(allocate));

    // The control plane.
    let store_port = Port(kernel::xen::hvm::parameter(hvm::PARAM_STORE_EVENT)? as u32);
    // SAFETY: Xen's xenstore page, mapped above for good; nothing else in the kernel uses it.
    let ring = unsafe { Ring::at(pointer(store_page)?) };
    let store = Store::new(ring, move || kernel::xen::event::send(store_port));
    let guests = Rc::new(RefCell::new(GuestTable::new(singles, pager)));
    let own_memory = OwnMemory { frames: frames.clone(), heap_free: mm::heap::free_bytes };
    let control = Control::new(store.clone(), guests.clone(), volumes, own_memory);
    log::info!(
        "{} KiB of RAM free, {} KiB of heap, window of {} MiB at {:#x}",
        (frames.borrow().free() * PAGE_BYTES) >> 10,
        mm::heap::free_bytes() >> 10,
        options.window_bytes >> 20,
        region.start,
    );
    Ok(Loop {
        events,
        guests,
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
    // SAFETY: the registers were mapped by `map_everything`; this is called once.
    unsafe { transport::find(&machine.passthrough) }
}

fn pointer(address: usize) -> Result<NonNull<u8>, &'static str> {
    NonNull::new(ptr::with_exposed_provenance_mut(address)).ok_or("Xen gave a page at address 0")
}

/// Unpopulated address space for others' pages, aligned to what one second-stage table covers.
fn find_region(machine: &Machine<'_>, bytes: usize) -> Result<Range<usize>, &'static str> {
    machine
        .extended_regions
        .iter()
        .map(bytes_of)
        .map(|region| region.start.next_multiple_of(REGION_ALIGNMENT)..region.end)
        .find(|region| region.start.saturating_add(bytes) <= region.end.min(ADDRESS_LIMIT))
        .map(|region| region.start..region.start + bytes)
        .ok_or("the device tree names no extended region large enough for the window: try a smaller window=")
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    logger::emergency(format_args!("PANIC {info}"));
    shutdown(ShutdownReason::Crash)
}

/// Address of the first byte and length of the device tree blob, from its header (Devicetree Specification, 5.2).
fn blob_range(address: usize) -> Result<Range<usize>, &'static str> {
    const MAGIC: u32 = 0xd00d_feed;
    const MAX_BYTES: u32 = 1 << 20;
    let header: *const u32 = ptr::with_exposed_provenance(address);
    if address == 0 || !header.is_aligned() {
        return Err("no device tree was handed over");
    }
    // SAFETY: the boot map covers the blob, which xl puts into the first GiB of RAM; nobody writes it.
    let (magic, bytes) = unsafe { (u32::from_be(header.read()), u32::from_be(header.add(1).read())) };
    if magic != MAGIC || bytes > MAX_BYTES {
        return Err("what was handed over is not a device tree");
    }
    Ok(address..address + bytes as usize)
}

fn bytes_of(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// The part of RAM between the end of the image and whatever the tool stack put behind it.
fn gap_after_image(machine: &Machine<'_>, blob: &Range<usize>) -> Range<usize> {
    let start = boot::image::layout().end;
    let bank = machine.memory.iter().map(bytes_of).find(|bank| bank.contains(&start)).unwrap_or(start..start);
    let initrd = machine.initrd.as_ref().map(bytes_of);
    let behind = [Some(blob.start), initrd.map(|range| range.start)];
    let end = behind.into_iter().flatten().filter(|next| *next >= start).fold(bank.end, usize::min);
    start..end / PAGE_BYTES * PAGE_BYTES
}

/// Maps all that the kernel uses, and switches to that map.
fn map_everything(
    machine: &Machine<'_>,
    region: &Range<usize>,
    magic_pages: [usize; 2],
) -> Result<(), &'static str> {
    use kernel::device_tree::InterruptController::{V2, V3};
    const GICD_BYTES: u64 = 0x1_0000;
    const GICC_BYTES: u64 = 0x2000;
    const GICR_BYTES: u64 = 0x2_0000;
    let mut space = AddressSpace::default();
    let image = boot::image::layout();
    let mut map =
        |range: Range<usize>, purpose| space.map(&range, purpose).map_err(|_| "a range cannot be mapped");
    map(image.text.clone(), Use::Code)?;
    map(image.rodata, Use::Constants)?;
    map(image.data, Use::Memory)?;
    map(image.exception_stack, Use::Memory)?;
    map(image.main_stack, Use::Memory)?;
    for bank in machine.memory.iter().map(bytes_of) {
        if bank.contains(&image.end) {
            map(bank.start..image.text.start, Use::Memory)?;
            map(image.end..bank.end, Use::Memory)?;
        } else {
            map(bank, Use::Memory)?;
        }
    }
    map(region.clone(), Use::Memory)?;
    for page in magic_pages {
        map(page..page + PAGE_BYTES, Use::Memory)?;
    }
    let registers = match machine.interrupt_controller {
        V2 { distributor, cpu_interface } => [(distributor, PAGE_BYTES as u64), (cpu_interface, GICC_BYTES)],
        V3 { distributor, redistributor } => [(distributor, GICD_BYTES), (redistributor, GICR_BYTES)],
    };
    for (start, bytes) in registers {
        map(bytes_of(&(start..start + bytes)), Use::Device)?;
    }
    for page in machine.register_pages() {
        map(bytes_of(&page), Use::Device)?;
    }
    // SAFETY: image, stacks, all of RAM (heap and device tree among it) are mapped at the addresses in use.
    unsafe { space.activate() };
    Ok(())
}
