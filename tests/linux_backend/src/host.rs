//! What the device model needs of `main.c` and the C library.

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

use drivers::guest::InterruptLine;
use hermit_abi::{clockid_t, errno::EINVAL, timespec};

unsafe extern "C" {
    fn aligned_alloc(alignment: usize, bytes: usize) -> *mut u8;
    fn calloc(count: usize, bytes: usize) -> *mut u8;
    fn free(memory: *mut u8);
    fn abort() -> !;
    fn host_map(frame: u64, pages: usize) -> *mut u8;
    fn host_unmap(start: *mut u8, pages: usize);
    fn host_raise();
    fn host_transfer(is_write: bool, pieces: *const Piece, count: usize, bytes: usize, at: u64) -> bool;
}

/// C's `struct iovec`.
#[repr(C)]
pub struct Piece {
    /// Its first byte.
    pub start: *mut u8,
    /// How many.
    pub bytes: usize,
}

/// Reads or writes `bytes` in `pieces` from byte `at` of the device on. Returns whether all were.
pub fn transfer(is_write: bool, pieces: &[Piece], bytes: u32, at: u64) -> bool {
    // SAFETY: Linux looks itself whether it may reach what is in the pieces.
    unsafe { host_transfer(is_write, pieces.as_ptr(), pieces.len(), bytes as usize, at) }
}

/// The most that the C library aligns without being asked.
const C_ALIGNMENT: usize = 16;

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

// SAFETY: the C library's heap.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let layout = layout.pad_to_align();
        // SAFETY: the alignment is a power of two that the size is a multiple of.
        unsafe { aligned_alloc(layout.align(), layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() > C_ALIGNMENT {
            return core::ptr::null_mut();
        }
        // SAFETY: any size will do.
        unsafe { calloc(1, layout.size()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, _layout: Layout) {
        // SAFETY: it is from one of the two above.
        unsafe { free(memory) }
    }
}

#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    // SAFETY: it does not return.
    unsafe { abort() }
}

/// `clock_gettime` of hermit-abi: there is no clock, as nobody asks for the model's counters of time.
#[unsafe(no_mangle)]
extern "C" fn sys_clock_gettime(_clock: clockid_t, _time: *mut timespec) -> i32 {
    -EINVAL
}

/// The interrupt line of the one device.
pub struct Line;

impl InterruptLine for Line {
    fn raise(&self) {
        // SAFETY: it has no conditions.
        unsafe { host_raise() }
    }
}

/// Pages of the guest, from one frame on, as long as this lives.
pub struct Pages {
    start: *mut u8,
    count: usize,
}

impl Pages {
    /// Reaches `count` pages from `frame` on; none if the guest lacks one.
    pub fn map(frame: u64, count: usize) -> Option<Self> {
        // SAFETY: it has no conditions: what it gives is mapped, or null.
        let start = unsafe { host_map(frame, count) };
        (!start.is_null()).then_some(Self { start, count })
    }

    /// The first byte of the first page.
    pub fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing is reached through it any more.
        unsafe { host_unmap(self.start, self.count) }
    }
}
