//! Memory: our own frames, and others' pages mapped into our physmap.
//!
//! | file | what |
//! |---|---|
//! | `address` | newtypes |
//! | `bus` | where devices find our pages |
//! | `frames` | which of our RAM is free |
//! | `heap` | `linked_list_allocator` behind the global allocator |
//! | `physmap` | single owner of our guest-physical frame numbers |
//! | `foreign` | the pager: pages of guests in the slots of a window |
//! | `pinned` | pinned guest pages, as device models see them |

pub mod address;
pub mod bus;
pub mod foreign;
pub mod frames;
#[cfg(target_os = "none")]
pub mod heap;
pub mod physmap;
pub mod pinned;
