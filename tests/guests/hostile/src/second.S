// The second vCPU: started by the first, with its translation, vectors and stacks of its own.
//
// start_second: In:  x0 = end of its stack, x1 = end of its stack for faults.
//               Out: x0 = 0, or the firmware's error.
// It then calls second_main(), which never returns.
    .equ    CPU_ON, 0xc4000003
    .equ    SECOND, 1               // its number, in Aff0

    .section .text.second, "ax"
    .global start_second
start_second:
    adrp    x9, second_context
    add     x9, x9, :lo12:second_context
    mrs     x10, mair_el1
    mrs     x11, tcr_el1
    mrs     x12, ttbr0_el1
    mrs     x13, vbar_el1
    mrs     x14, sctlr_el1
    stp     x10, x11, [x9]
    stp     x12, x13, [x9, #16]
    stp     x14, x0, [x9, #32]
    str     x1, [x9, #48]
    dc      civac, x9               // read with caches off: 64 bytes, aligned to them
    dsb     sy
    ldr     x0, =CPU_ON
    mov     x1, #SECOND
    adrp    x2, second_entry
    add     x2, x2, :lo12:second_entry
    mov     x3, x9
    hvc     #0
    ret

// In: x0 = second_context. EL1, MMU and caches off, interrupts masked.
second_entry:
    ldp     x10, x11, [x0]
    ldp     x12, x13, [x0, #16]
    ldp     x14, x15, [x0, #32]
    ldr     x16, [x0, #48]
    msr     mair_el1, x10
    msr     tcr_el1, x11
    msr     ttbr0_el1, x12
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x14
    isb
    msr     vbar_el1, x13
    mov     sp, x16
    msr     spsel, #0
    mov     sp, x15
    mov     x29, xzr
    mov     x30, xzr
    bl      second_main
1:  wfi
    b       1b

    .ltorg

    .section .bss.second_context, "aw", %nobits
    .balign 64
second_context:
    .space  64
