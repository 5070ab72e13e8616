//! Memory: our own frames, and others' pages mapped into our physmap.
//!
//! | file | what |
//! |---|---|
//! | `address` | newtypes |
//! | `balloon` | RAM given back to Xen and got again, by which holes are made |
//! | `bus` | where devices find our pages |
//! | `census` | what our frame numbers hold, counted |
//! | `dma` | memory that devices read and write |
//! | `frames` | which of our RAM is free |
//! | `hal` | what `virtio-drivers` asks of us |
//! | `heap` | `linked_list_allocator` behind the global allocator |
//! | `physmap` | single owner of our guest-physical frame numbers |
//! | `ram` | who has our RAM when it is short |
//! | `singles` | single pages of the hypervisor's, of ioreq servers, and granted ones |
//! | `foreign` | the pager: pages of guests in the slots of a window |
//! | `pinned` | pinned guest pages, as device models see them |
//! | `granted` | the same of a guest that grants its pages one by one |
//! | `pieces` | a run of bytes in mapped pages |
//! | `volumes` | RAM of `ram:` volumes |
//! | `view` | map on fault: a guest's memory as one range of addresses |

pub mod address;
pub mod balloon;
pub mod bus;
pub mod census;
pub mod dma;
pub mod foreign;
pub mod frames;
pub mod granted;
#[cfg(target_os = "none")]
pub mod hal;
#[cfg(target_os = "none")]
pub mod heap;
pub mod physmap;
mod pieces;
pub mod pinned;
pub mod ram;
#[cfg(test)]
mod sequences;
pub mod singles;
pub mod view;
pub mod volumes;

use drivers::guest::MemoryError;
use smallvec::{Array, SmallVec};

/// Makes room in an empty list for what a guest asks for: not out of what the kernel itself may need.
fn reserve<A: Array>(list: &mut SmallVec<A>, count: usize) -> Result<(), MemoryError> {
    if count > list.inline_size() && heap_is_low() {
        return Err(MemoryError::Exhausted);
    }
    list.try_reserve(count).map_err(|_| MemoryError::Exhausted)
}

/// Whether the heap has no more than what the kernel itself may need.
#[cfg(target_os = "none")]
#[must_use]
pub fn heap_is_low() -> bool {
    heap::free_bytes() < crate::limits::HEAP_RESERVE_BYTES
}

/// Whether the heap has no more than what the kernel itself may need: on a host never.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn heap_is_low() -> bool {
    false
}
