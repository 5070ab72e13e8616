// From the first instruction to Rust.
//
// In:  x0 = address of the device tree blob. EL1, MMU and caches off, interrupts masked; the loader has cleaned the
//      image to memory, so that nothing of it lies dirty in a cache.
// Out: kernel_main(x0 = device tree, x1 = 0) on the main stack (SP_EL0), MMU and caches on, image relocated, vectors set.
//      The second time and later, by start_again: x1 = 1, and all data of the image is as it was the first time.
//
// The map made here is coarse: the whole GiB around the image, readable, writable and executable. The kernel
// replaces it by the real one (kernel/src/arch/mmu.rs) before it does anything else.

    .equ    MAIR_VALUE, 0x04ff          // index 0: normal, write-back; index 1: Device-nGnRE
    // TCR_EL1: 39-bit addresses through TTBR0 only, 4 KiB granule, walks write-back and inner-shareable.
    .equ    TCR_T0SZ_39_BIT, 64 - 39
    .equ    TCR_IRGN0_WRITE_BACK, 1 << 8
    .equ    TCR_ORGN0_WRITE_BACK, 1 << 10
    .equ    TCR_SH0_INNER, 3 << 12
    .equ    TCR_EPD1, 1 << 23           // no walks through TTBR1
    .equ    TCR_VALUE, TCR_T0SZ_39_BIT | TCR_IRGN0_WRITE_BACK | TCR_ORGN0_WRITE_BACK | TCR_SH0_INNER | TCR_EPD1
    .equ    TCR_IPS_SHIFT, 32
    .equ    PARANGE_MAX, 5              // 48 bits, the most that a 4 KiB granule without LPA2 can express
    // SCTLR_EL1: the bits that are one in Armv8.0, and MMU, data cache, stack alignment check, instruction cache.
    .equ    SCTLR_VALUE, 0x30d00800 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12
    // A level-1 block: valid, attribute index 0, inner-shareable, accessed, EL1 read-write and executable.
    .equ    BLOCK_1GIB_NORMAL, 1 | 3 << 8 | 1 << 10
    .equ    GIB_SHIFT, 30
    .equ    CPACR_VECTORS_USABLE, 3 << 20   // FPEN: no trap
    .equ    WORD, 8
    .equ    RELR_BITMAP_WORDS, 63

    .section .text.entry, "ax"
    .global entry
entry:
    mov     x19, x0                     // x19 = device tree, kept to the end

    // 1. The coarse map: one block entry each for the GiB of the image's first and last byte.
    adrp    x20, boot_table
    adrp    x1, image_header
    lsr     x1, x1, #GIB_SHIFT
    mov     x2, #BLOCK_1GIB_NORMAL
    orr     x3, x2, x1, lsl #GIB_SHIFT
    add     x4, x20, x1, lsl #3
    str     x3, [x4]
    adrp    x1, image_end
    lsr     x1, x1, #GIB_SHIFT
    orr     x3, x2, x1, lsl #GIB_SHIFT
    add     x5, x20, x1, lsl #3
    str     x3, [x5]
    dmb     sy
    dc      ivac, x4                    // a clean line speculatively fetched before would hide the entry
    dc      ivac, x5
    dsb     sy

    // 2. MMU and caches on.
    ldr     x1, =MAIR_VALUE
    msr     mair_el1, x1
    ldr     x1, =TCR_VALUE
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf
    mov     x3, #PARANGE_MAX
    cmp     x2, x3
    csel    x2, x2, x3, lo
    orr     x1, x1, x2, lsl #TCR_IPS_SHIFT
    msr     tcr_el1, x1
    msr     ttbr0_el1, x20
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x1, =SCTLR_VALUE
    msr     sctlr_el1, x1
    isb

    // 3. Relocate: the image is linked at 0 and runs wherever it was loaded. .relr.dyn (ELF, SHT_RELR) names the words to
    //    which the load address is to be added. An even entry is the offset of one; an odd entry is a bitmap of the
    //    63 words after the last ones, bit 1 for the first of them.
    adrp    x0, image_header            // load address = what to add
    adrp    x1, relr_start
    add     x1, x1, :lo12:relr_start
    adrp    x2, relr_end
    add     x2, x2, :lo12:relr_end
1:  cmp     x1, x2
    b.hs    5f
    ldr     x3, [x1], #WORD
    tbnz    x3, #0, 2f
    add     x4, x3, x0
    ldr     x5, [x4]
    add     x5, x5, x0
    str     x5, [x4], #WORD             // x4 = the word after
    b       1b
2:  mov     x6, x4
3:  lsr     x3, x3, #1
    tbz     x3, #0, 4f
    ldr     x5, [x6]
    add     x5, x5, x0
    str     x5, [x6]
4:  add     x6, x6, #WORD
    cbnz    x3, 3b
    add     x4, x4, #RELR_BITMAP_WORDS * WORD
    b       1b
5:
    // 4. Data as it is now is what the kernel begins with, each time.
    mov     x0, #0                      // from data to the copy
    bl      copy_data
    mov     x20, #0                     // the first time

ready:
    // 5. Vector registers for copies; vectors of exceptions, and two stacks: exceptions run on SP_EL1, so that an overflow of the main
    //    stack (SP_EL0) can still be reported.
    mov     x1, #CPACR_VECTORS_USABLE
    msr     cpacr_el1, x1
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    adrp    x1, exception_stack_end
    mov     sp, x1
    msr     spsel, #0
    adrp    x1, main_stack_end
    mov     sp, x1
    isb

    // 6. Rust. Frame pointer and link register are zero, so that a back trace ends here.
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x20
    bl      kernel_main
park:
    wfi
    b       park

// In:  x0 = address of the device tree blob. Any state that the kernel can be in, at any exception stack depth.
// Out: as above; never returns.
//
// RAM outside of the image stays as it is. The map is the coarse one again: the kernel's own lies in a heap that is
// about to be made anew.
    .global start_again
start_again:
    msr     daifset, #0xf
    mov     x19, x0

    // 1. The coarse map. With the MMU off in between no two maps are ever valid at a time; nothing is loaded or stored
    //    then, and the code is clean in memory since the loader put it there.
    adrp    x20, boot_table
    mrs     x1, sctlr_el1
    bic     x2, x1, #1
    msr     sctlr_el1, x2
    isb
    msr     ttbr0_el1, x20
    mrs     x3, tcr_el1                 // views are gone: no walks through TTBR1
    orr     x3, x3, #TCR_EPD1
    msr     tcr_el1, x3
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    msr     sctlr_el1, x1
    isb

    // 2. Data and BSS.
    mov     x0, #1                      // from the copy to data
    bl      copy_data
    adrp    x1, bss_start
    add     x1, x1, :lo12:bss_start
    adrp    x2, bss_end
    add     x2, x2, :lo12:bss_end
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16
    b       1b
2:
    // 3. The stack of exceptions, which step 5 expects to be in use.
    msr     spsel, #1
    mov     x20, #1                     // again
    b       ready

// Copies data to its copy (x0 = 0) or back (x0 = 1). Clobbers x1 to x5.
copy_data:
    adrp    x1, data_start
    add     x1, x1, :lo12:data_start
    adrp    x2, data_copy_start
    add     x2, x2, :lo12:data_copy_start
    cmp     x0, #0
    csel    x3, x1, x2, eq              // from
    csel    x4, x2, x1, eq              // to
    adrp    x5, bss_start               // data ends where BSS begins
    add     x5, x5, :lo12:bss_start
    sub     x5, x5, x1
1:  cbz     x5, 2f
    ldp     x1, x2, [x3], #16
    stp     x1, x2, [x4], #16
    sub     x5, x5, #16
    b       1b
2:  ret

    .ltorg

    // Not among the data that is made anew: it is in use then.
    .section .kept.boot_table, "aw", %nobits
    .balign 4096
boot_table:
    .space  4096
