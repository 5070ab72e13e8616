//! The machine's memory, and the piece of this process's address space that plays the part of our physmap.
//!
//! Both are real: a frame is 4 KiB of an anonymous file, and mapping it at an address aliases it there. So what one
//! side writes the other reads at once, and touching a hole ends the test with a fault, as on the machine.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ops::Range;
use core::ptr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::limits::PAGE_BYTES;
use crate::mm::physmap::REGION_ALIGNMENT;

const MEMORY_BYTES: usize = 1 << 30;
const PROTECTION_NONE: c_int = 0;
const PROTECTION_READ: c_int = 1;
const PROTECTION_READ_WRITE: c_int = 3;
const SHARED: c_int = 1;
const PRIVATE: c_int = 2;
const FIXED: c_int = 0x10;
const ANONYMOUS: c_int = 0x20;
const NO_RESERVE: c_int = 0x4000;

// The C library that std links already.
unsafe extern "C" {
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(address: *mut c_void, length: usize) -> c_int;
}

/// A frame of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame(usize);

pub struct Machine {
    file: File,
    /// All of the memory, as the hypervisor sees it.
    memory: usize,
    used: usize,
    /// All that was reserved, of which `space` is the aligned part.
    reserved: Range<usize>,
    space: Range<usize>,
}

fn reserve(length: usize) -> usize {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
    let start =
        unsafe { mmap(ptr::null_mut(), length, PROTECTION_NONE, PRIVATE | ANONYMOUS | NO_RESERVE, -1, 0) };
    assert_ne!(start.addr(), usize::MAX, "no address space");
    start.expose_provenance()
}

impl Machine {
    /// A machine on which our physmap has `bytes` bytes of holes.
    pub fn new(bytes: usize) -> Self {
        // SAFETY: the name is a C string; the result is checked by `set_len` on what it names.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(memfd_create(c"fake-xen".as_ptr(), 0)) });
        file.set_len(MEMORY_BYTES as u64).unwrap();
        let memory = reserve(MEMORY_BYTES);
        let start = reserve(bytes + REGION_ALIGNMENT);
        let first = start.next_multiple_of(REGION_ALIGNMENT);
        let machine = Self {
            file,
            memory,
            used: 0,
            reserved: start..start + bytes + REGION_ALIGNMENT,
            space: first..first + bytes,
        };
        machine.alias(memory, 0, MEMORY_BYTES);
        machine
    }

    /// The addresses of our physmap's holes.
    pub fn space(&self) -> Range<usize> {
        self.space.clone()
    }

    /// A frame of zeroes that was never used before.
    pub fn allocate(&mut self) -> Frame {
        self.used += 1;
        assert!(self.used * PAGE_BYTES <= MEMORY_BYTES, "the fake machine is out of memory");
        Frame(self.used - 1)
    }

    /// Where the hypervisor sees a frame.
    pub fn address(&self, frame: Frame) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.memory + frame.0 * PAGE_BYTES)
    }

    pub fn read(&self, frame: Frame, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= PAGE_BYTES);
        // SAFETY: inside one frame, which no Rust reference points to.
        unsafe { ptr::copy(self.address(frame).add(offset), out.as_mut_ptr(), out.len()) }
    }

    pub fn write(&self, frame: Frame, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= PAGE_BYTES);
        // SAFETY: as in `read`.
        unsafe { ptr::copy(data.as_ptr(), self.address(frame).add(offset), data.len()) }
    }

    /// Lets the page at frame number `gfn` of ours be `frame`, or a hole. Frame numbers outside the space are book-keeping.
    pub fn show(&self, gfn: u64, frame: Option<Frame>) {
        let address = usize::try_from(gfn).unwrap().wrapping_mul(PAGE_BYTES);
        if !self.space.contains(&address) {
            return;
        }
        match frame {
            Some(frame) => self.alias(address, frame.0 * PAGE_BYTES, PAGE_BYTES),
            None => {
                let flags = PRIVATE | ANONYMOUS | NO_RESERVE | FIXED;
                // SAFETY: the page lies in the space we reserved; whoever points into it breaks the kernel's own rules.
                unsafe {
                    mmap(ptr::with_exposed_provenance_mut(address), PAGE_BYTES, PROTECTION_NONE, flags, -1, 0)
                };
            }
        }
    }

    /// Lets the page at frame number `gfn` of ours be `frame`, where a write ends the test unless `writable`.
    pub fn show_granted(&self, gfn: u64, frame: Frame, writable: bool) {
        let address = usize::try_from(gfn).unwrap().wrapping_mul(PAGE_BYTES);
        if self.space.contains(&address) {
            let protection = if writable { PROTECTION_READ_WRITE } else { PROTECTION_READ };
            self.alias_protected(address, frame.0 * PAGE_BYTES, PAGE_BYTES, protection);
        }
    }

    fn alias(&self, address: usize, offset: usize, length: usize) {
        self.alias_protected(address, offset, length, PROTECTION_READ_WRITE);
    }

    fn alias_protected(&self, address: usize, offset: usize, length: usize, protection: c_int) {
        let (at, file) = (ptr::with_exposed_provenance_mut(address), self.file.as_raw_fd());
        let flags = SHARED | FIXED | NO_RESERVE;
        // SAFETY: the range lies in what we reserved.
        let result = unsafe { mmap(at, length, protection, flags, file, i64::try_from(offset).unwrap()) };
        assert_eq!(result.addr(), address, "cannot alias a page");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: what was reserved in `new`; a fake is dropped after whoever calls it.
        unsafe {
            munmap(ptr::with_exposed_provenance_mut(self.memory), MEMORY_BYTES);
            munmap(ptr::with_exposed_provenance_mut(self.reserved.start), self.reserved.len());
        }
    }
}
