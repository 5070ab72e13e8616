//! Bring-up that every image of this kernel needs, in the order it happens: what `xl` told us, heap, address space,
//! console, our RAM, the frame numbers for others' pages. What an image is for comes after it, in the image.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::cmp::Reverse;
use core::error::Error;
use core::ops::Range;
use core::ptr::{self, NonNull};

use crate::arch::mmu::{AddressSpace, Use};
use crate::device_tree::Machine;
use crate::devices::transport;
use crate::limits::{
    ADDRESS_LIMIT, HEAP_SHARE, HEAP_START_BYTES, PAGE_BYTES, SINGLE_PAGES, WINDOW_BYTES_PER_PAGE,
};
use crate::mm::address::Gfn;
use crate::mm::balloon::Balloon;
use crate::mm::frames::{FrameAllocator, FrameRun};
use crate::mm::physmap::{REGION_ALIGNMENT, Unpopulated, Window};
use crate::mm::singles::SinglePages;
use crate::mm::volumes::RamVolumes;
use crate::options::{Options, Source, window_asked};
use crate::restart::area::Area;
use crate::restart::{self, Life};
use crate::xen::abi::hvm;
use crate::xen::console_ring::ConsoleRing;
use crate::xen::event::{PendingEvents, Port};
use crate::xen::memory::current_reservation;
use crate::xen::store::Ring;
use crate::{logger, mm};

/// What an image stands on.
pub struct Foundation {
    /// What this domain is made of. Registers of its devices are mapped.
    pub machine: Machine<'static>,
    /// What the command line says.
    pub options: Options,
    /// One sentence about each word of it that was not understood.
    pub complaints: Vec<String>,
    /// Our RAM, without what is in use so far.
    pub frames: Rc<RefCell<FrameAllocator>>,
    /// Pages of RAM that Xen counts as ours and the device tree does not name.
    pub special_pages: usize,
    /// Frame numbers for single pages of others.
    pub singles: Rc<RefCell<SinglePages>>,
    /// Where guests' pages go.
    pub window: Window,
    /// Unpopulated addresses, from which the window's slots come first. Mapped in our page tables.
    pub unpopulated: Range<usize>,
    /// Pending bits of our event channels.
    pub events: PendingEvents,
    /// The port of the console, onto which the log goes from now on.
    pub console: Port,
    /// The page shared with xenstored, and its port.
    pub store: (Ring, Port),
    /// What outlives this kernel.
    pub area: Area,
    /// Volumes in RAM of an earlier life, which are in nobody's way.
    pub volumes: RamVolumes,
}

/// Brings up what every image needs, in order. `registers` are those that this image needs beside the machine's own devices.
///
/// # Errors
/// What is missing or was refused, for the log.
///
/// # Safety
/// To be called once in a `life`, first of all but [`logger::init`], with the address of the device tree as `entry.S` handed it
/// over.
pub unsafe fn foundation(
    device_tree: usize,
    life: Life,
    registers: &[Range<usize>],
) -> Result<Foundation, Box<dyn Error>> {
    // What xl told us. No heap yet: the facts borrow from the blob.
    let blob = blob_range(device_tree)?;
    // SAFETY: `blob_range` checked the header; the blob lies in RAM of ours that nothing writes.
    let data = unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance(blob.start), blob.len()) };
    let machine = Machine::read(data)?;

    // The handover area, right after the image, and the heap after it.
    let gap = gap_after_image(&machine, &blob);
    let ram_pages = ram_bytes(&machine) / PAGE_BYTES;
    if Area::bytes(ram_pages) > gap.len() / 2 {
        return Err("there is too little memory behind the image".into());
    }
    // SAFETY: the gap is RAM that holds neither image nor blob nor initrd, and the frame allocator leaves it out.
    let area = unsafe { Area::at(gap.start, ram_pages) };
    let gap = gap.start + Area::bytes(ram_pages)..gap.end;
    restart::begin(&area, life, device_tree);
    let heap = gap.start..gap.start + heap_bytes(&machine, gap.len());
    // SAFETY: the gap is RAM that holds neither image nor blob nor initrd, and the frame allocator leaves it out.
    unsafe { mm::heap::init(&heap) };
    let (options, mut complaints) = Options::parse(machine.command_line);
    log::set_max_level(options.log);

    // The final address space.
    let asked = options.window(ram_bytes(&machine));
    let window_bytes = asked.min(largest_window(heap.len()));
    if window_bytes < asked {
        complaints.push(format!(
            "a window of {} MiB needs more memory= than there is: it has {} MiB",
            asked >> 20,
            window_bytes >> 20
        ));
    }
    let unpopulated_bytes = if options.source == Source::Balloon { 0 } else { window_bytes };
    let region = find_region(&machine, REGION_ALIGNMENT + unpopulated_bytes)?;
    let store_page = crate::xen::hvm::parameter(hvm::PARAM_STORE_PFN)? as usize * PAGE_BYTES;
    let console_page = crate::xen::hvm::parameter(hvm::PARAM_CONSOLE_PFN)? as usize * PAGE_BYTES;
    map_everything(&machine, &region, [store_page, console_page], registers)?;
    if life == Life::Again {
        // Before any of our RAM is used for something else than it was.
        // SAFETY: their registers are mapped, and nobody uses them yet.
        unsafe { transport::silence(&machine.passthrough) };
    }

    // The console.
    let console = Port(crate::xen::hvm::parameter(hvm::PARAM_CONSOLE_EVENT)? as u32);
    let page = pointer(console_page)?;
    // SAFETY: Xen's console page, mapped above for good; nothing else in the kernel uses it.
    logger::attach(|notify| unsafe { ConsoleRing::at(page, notify) }, console);

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
    let volumes = RamVolumes::new(area, &frames);
    let lent = frames.borrow_mut().noted_in(area.lent);
    Balloon::recover(&frames, lent);
    let own = frames.borrow().total() - frames.borrow().lent();
    let special_pages = current_reservation().map_or(0, |all| all.saturating_sub(own));

    // Others' pages, and events.
    let singles = Rc::new(RefCell::new(SinglePages::noted_in(Gfn::containing(region.start), area.singles)));
    let shared_info = SinglePages::map_shared_info(&singles)?;
    // SAFETY: just mapped, and never unmapped: the value is forgotten.
    let events = unsafe { PendingEvents::new(pointer(shared_info.address())?.cast()) };
    core::mem::forget(shared_info);
    let unpopulated = region.start + SINGLE_PAGES * PAGE_BYTES..region.end;
    let slots = Unpopulated::new(&unpopulated).noted_in(&area.root.window_slots);
    let window = Window::new(window_bytes / PAGE_BYTES, slots, Balloon::new(frames.clone()));

    // xenstore, which nobody has spoken to yet.
    let store_port = Port(crate::xen::hvm::parameter(hvm::PARAM_STORE_EVENT)? as u32);
    // SAFETY: Xen's xenstore page, mapped above for good; nothing else in the kernel uses it.
    let ring = unsafe { Ring::at(pointer(store_page)?) }.noted_in(&area.root.store_request_end);
    Ok(Foundation {
        machine,
        options,
        complaints,
        frames,
        special_pages,
        singles,
        window,
        unpopulated,
        events,
        console,
        store: (ring, store_port),
        area,
        volumes,
    })
}

fn pointer(address: usize) -> Result<NonNull<u8>, &'static str> {
    NonNull::new(ptr::with_exposed_provenance_mut(address)).ok_or("Xen gave a page at address 0")
}

/// All the RAM there is.
fn ram_bytes(machine: &Machine<'_>) -> usize {
    machine.memory.iter().map(|bank| bytes_of(bank).len()).sum()
}

/// What the heap has at the start, of a gap behind the image: what the pager needs for the window, and something for the rest
/// of the kernel. Works without a heap.
fn heap_bytes(machine: &Machine<'_>, gap_bytes: usize) -> usize {
    let options = Options { window_bytes: window_asked(machine.command_line), ..Options::default() };
    let pages = options.window(ram_bytes(machine)) / PAGE_BYTES;
    let wanted = HEAP_START_BYTES + pages * WINDOW_BYTES_PER_PAGE;
    wanted.min(gap_bytes / HEAP_SHARE) / PAGE_BYTES * PAGE_BYTES
}

/// The window that a heap of so many bytes has room for, beside what the rest of the kernel needs.
fn largest_window(heap_bytes: usize) -> usize {
    let pages = heap_bytes.saturating_sub(HEAP_START_BYTES.min(heap_bytes / 2)) / WINDOW_BYTES_PER_PAGE;
    (pages * PAGE_BYTES / REGION_ALIGNMENT * REGION_ALIGNMENT).max(REGION_ALIGNMENT)
}

/// Unpopulated address space for others' pages, aligned to what one second-stage table covers: `wanted` bytes, or as much
/// as there is. What the window lacks comes out of our RAM.
fn find_region(machine: &Machine<'_>, wanted: usize) -> Result<Range<usize>, &'static str> {
    machine
        .extended_regions
        .iter()
        .map(bytes_of)
        .map(|region| region.start.next_multiple_of(REGION_ALIGNMENT)..region.end.min(ADDRESS_LIMIT))
        .map(|region| region.start..region.end.min(region.start.saturating_add(wanted)))
        .filter(|region| region.len() >= SINGLE_PAGES * PAGE_BYTES)
        .min_by_key(|region| Reverse(region.len()))
        .ok_or("the device tree names no extended region, where others' pages could be mapped")
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

/// A range of addresses as the device tree has it.
#[must_use]
pub fn bytes_of(range: &Range<u64>) -> Range<usize> {
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
    more_registers: &[Range<usize>],
) -> Result<(), &'static str> {
    use crate::device_tree::InterruptController::{V2, V3};
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
    for range in more_registers {
        map(range.clone(), Use::Device)?;
    }
    // SAFETY: image, stacks, all of RAM (heap and device tree among it) are mapped at the addresses in use.
    unsafe { space.activate() };
    Ok(())
}
