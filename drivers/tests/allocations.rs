//! The path of a request takes nothing from the heap.

mod common;

use common::{DATA, Guest, HEADER, INDIRECT, ModelDisk, STATUS_BYTE, TABLE};
use drivers::virtio::mmio::Progress;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

std::thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A guest that has 16 requests of 4 KiB waiting.
fn guest_with_requests() -> Guest {
    let mut guest = Guest::running(&ModelDisk::new(64));
    // The model notes what it was asked, which takes room.
    guest.disk.asked.borrow_mut().reserve(64);
    for ahead in 0..16 {
        guest.put_head(ahead, 0);
    }
    guest.publish(16);
    guest
}

fn allocations_of_work(guest: &mut Guest) -> usize {
    let _ = guest.write(common::QUEUE_NOTIFY, 0);
    let before = ALLOCATIONS.get();
    let progress = guest.device.process();
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(progress, Progress { requests: 16, more: false, ..Progress::default() });
    allocations
}

#[test]
fn direct_requests_allocate_nothing() {
    let mut guest = guest_with_requests();
    guest.set_request(0, 0, &[(DATA, 4096, true)]);
    assert_eq!(allocations_of_work(&mut guest), 0);
}

#[test]
fn indirect_requests_allocate_nothing() {
    let mut guest = guest_with_requests();
    guest.set_header(1, 0);
    guest.set_chain(TABLE, 0, &[(HEADER, 16, false), (DATA, 4096, false), (STATUS_BYTE, 1, true)]);
    guest.set_descriptor(common::DESCRIPTORS, 0, (TABLE, 48), INDIRECT, 0);
    assert_eq!(allocations_of_work(&mut guest), 0);
}
