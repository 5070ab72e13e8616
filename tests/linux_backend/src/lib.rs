//! The driver domain's disk as a process of Linux in Dom0: the same registers and queues, with the guest and the disk reached as virtio
//! backends on Linux reach them. What it costs stands in for other backends in user space.
//!
//! `main.c` is the process: it talks to Xen and xenstore by their libraries for C, and takes guests' accesses to registers here.
//!
//! | file | what |
//! |---|---|
//! | `memory` | the guest's memory: pages that `main.c` maps |
//! | `volume` | the block device of Dom0 that the disk is on |
//! | `host` | what this needs of `main.c` and the C library |
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod host;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod volume;

/// It is only linked for the target that has no operating system, and thus the same calls as every other.
#[cfg(target_os = "none")]
mod backend {
    use alloc::boxed::Box;
    use alloc::string::String;

    use drivers::virtio::Features;
    use drivers::virtio::blk::BlockDevice;
    use drivers::virtio::mmio::{Effect, MmioDevice, Width};

    use crate::host::Line;
    use crate::memory::{ForeignMemory, Pinned};
    use crate::volume::DeviceVolume;

    /// A disk behind its registers.
    pub struct Backend(MmioDevice<BlockDevice<Pinned>, ForeignMemory, Line>);

    /// Makes the disk, which has `bytes`.
    #[unsafe(no_mangle)]
    extern "C" fn backend_new(bytes: u64) -> Box<Backend> {
        let disk = BlockDevice::new(String::from("disk"), "linux", Box::new(DeviceVolume { bytes }));
        Box::new(Backend(MmioDevice::new(disk, ForeignMemory, Line, Features::empty())))
    }

    /// Answers a read of `width` bytes at `offset` of the registers.
    #[unsafe(no_mangle)]
    extern "C" fn backend_read(backend: &Backend, offset: u32, width: u32) -> u64 {
        Width::from_bytes(width.into()).map_or(0, |width| backend.0.read(offset, width))
    }

    /// Takes a write of `width` bytes at `offset` of the registers. Returns whether there is work for [`backend_process`].
    #[unsafe(no_mangle)]
    extern "C" fn backend_write(backend: &mut Backend, offset: u32, width: u32, value: u64) -> bool {
        Width::from_bytes(width.into())
            .is_some_and(|width| backend.0.write(offset, width, value) == Effect::Work)
    }

    /// Serves the queue. Returns whether there is more to do.
    #[unsafe(no_mangle)]
    extern "C" fn backend_process(backend: &mut Backend) -> bool {
        backend.0.process().more
    }

    /// Gives the guest's pages back.
    #[unsafe(no_mangle)]
    extern "C" fn backend_free(backend: Box<Backend>) {
        drop(backend);
    }
}
