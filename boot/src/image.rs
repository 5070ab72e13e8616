//! Where the parts of the running image lie: symbols of `linker/kernel.ld`, as address ranges.

use core::ops::Range;

unsafe extern "C" {
    static image_header: u8;
    static text_end: u8;
    static rodata_end: u8;
    static data_end: u8;
    static exception_stack_start: u8;
    static exception_stack_end: u8;
    static main_stack_start: u8;
    static main_stack_end: u8;
    static image_end: u8;
}

/// The parts of the image, each page aligned. Between them, and nowhere else, lie unmapped guard pages.
#[derive(Clone, Debug)]
pub struct ImageLayout {
    /// Code: to be mapped read-only and executable.
    pub text: Range<usize>,
    /// Constants: to be mapped read-only.
    pub rodata: Range<usize>,
    /// Data and BSS: to be mapped writable.
    pub data: Range<usize>,
    /// Stack for exceptions; the page below is a guard.
    pub exception_stack: Range<usize>,
    /// Main stack; the page below is a guard.
    pub main_stack: Range<usize>,
    /// First byte after everything.
    pub end: usize,
}

/// The layout of the running image.
#[must_use]
pub fn layout() -> ImageLayout {
    ImageLayout {
        text: (&raw const image_header).addr()..(&raw const text_end).addr(),
        rodata: (&raw const text_end).addr()..(&raw const rodata_end).addr(),
        data: (&raw const rodata_end).addr()..(&raw const data_end).addr(),
        exception_stack: (&raw const exception_stack_start).addr()..(&raw const exception_stack_end).addr(),
        main_stack: (&raw const main_stack_start).addr()..(&raw const main_stack_end).addr(),
        end: (&raw const image_end).addr(),
    }
}
