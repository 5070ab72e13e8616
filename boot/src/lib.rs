//! First instruction to Rust: Image header, MMU on, relocation, stacks, exception vectors.
//!
//! The contract, in order of execution:
//! 1. `header.S` is the first 64 bytes of the image; the loader jumps to its first instruction.
//! 2. `entry.S` maps the GiB around the image, turns MMU and caches on, relocates the image, sets the vectors
//!    and both stacks, and calls `kernel_main(device_tree_address, 0)`, which the kernel defines. [`start_again`] does so
//!    once more, with 1.
//! 3. `vectors.S` saves an [`ExceptionFrame`] on the exception stack and calls
//!    `exception_entry(frame, vector)`, which the kernel defines too. An interrupt only ends the sleep between
//!    `sleep_start` and `sleep_end`, labels of the kernel.
//!
//! This crate knows the CPU and the layout of the image ([`image`]), nothing of Xen. Beside the code its folder
//! holds what `xl` is given: configuration examples and the FLASK policy module.
#![no_std]

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("header.S"), options(raw));
#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("entry.S"), options(raw));
#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("vectors.S"), options(raw));

#[cfg(target_os = "none")]
pub mod image;

#[cfg(target_os = "none")]
unsafe extern "C" {
    /// Begins again from `entry.S`: the image's data is as it was at the first start, all other RAM as it is.
    ///
    /// # Safety
    /// `device_tree` must be what `kernel_main` was given. Whatever devices still write by DMA must be memory that the
    /// next life does not use before it has stopped them.
    #[link_name = "start_again"]
    pub fn start_again(device_tree: usize) -> !;
}

/// The registers at an exception, as `vectors.S` lays them out. 288 bytes, a multiple of the stack alignment.
#[repr(C)]
#[derive(Debug)]
pub struct ExceptionFrame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// SP_EL0: the main stack pointer.
    pub sp: u64,
    /// ELR_EL1: where the exception was taken, and where it returns to.
    pub elr: u64,
    /// SPSR_EL1: processor state at the exception.
    pub spsr: u64,
    /// ESR_EL1: exception class and syndrome.
    pub esr: u64,
    /// FAR_EL1: the faulting address, where the class has one.
    pub far: u64,
}

const _: () =
    assert!(size_of::<ExceptionFrame>() == 288 && core::mem::offset_of!(ExceptionFrame, esr) == 272);
