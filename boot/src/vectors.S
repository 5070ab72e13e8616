// Exception vectors. Of interrupts only two kinds arrive: those that end a sleep, and the watchdog's. Everything else is
// either a fault of our own or a bug. One path: save all registers, call exception_entry, restore, return.
//
// In:  any exception to EL1. SPSel is 1 (the hardware sets it), SP_EL1 is the exception stack.
// Out: exception_entry(x0 = &ExceptionFrame, x1 = vector number 0..15); see ExceptionFrame in lib.rs for the layout.

    .arch_extension fp
    .arch_extension simd

    .equ    VECTORS_OFFSET, 34 * 8 + 2 * 8  // behind the ExceptionFrame: q0 to q7, which copies use (kernel/src/arch/copy.S)
    .equ    FRAME_BYTES, VECTORS_OFFSET + 8 * 16
    .equ    SPSR_INTERRUPTS_MASKED, 1 << 7

    .macro  vector number
    .balign 0x80
    sub     sp, sp, #FRAME_BYTES
    stp     x0, x1, [sp, #0]
    mov     x1, #\number
    b       save_and_call
    .endm

    // An interrupt from sleep_start to sleep_end, that one included (kernel/src/arch/sleep.S) ends a sleep: it is acknowledged by nobody
    // here and stays pending, so it must be masked from then on. Anywhere else it is the watchdog's, and goes the way of all
    // exceptions.
    //
    // In:  an interrupt, on the main stack's side.
    // Out: of a sleep: at sleep_end, with interrupts masked, all registers as they were. Else as `vector`.
    .macro  interrupt number
    .balign 0x80
    stp     x0, x1, [sp, #-16]!
    mrs     x0, elr_el1
    adrp    x1, sleep_start
    add     x1, x1, :lo12:sleep_start
    cmp     x0, x1
    b.lo    1f
    adrp    x1, sleep_end
    add     x1, x1, :lo12:sleep_end
    cmp     x0, x1
    b.hi    1f                          // sleep_end itself is where the hypercall returns to
    msr     elr_el1, x1
    mrs     x0, spsr_el1
    orr     x0, x0, #SPSR_INTERRUPTS_MASKED
    msr     spsr_el1, x0
    ldp     x0, x1, [sp], #16
    eret
1:  ldp     x0, x1, [sp], #16
    sub     sp, sp, #FRAME_BYTES
    stp     x0, x1, [sp, #0]
    mov     x1, #\number
    b       save_and_call
    .endm

    .section .text.vectors, "ax"
    .balign 0x800
    .global vectors
vectors:
    vector  0       // current EL, SP_EL0: synchronous, IRQ, FIQ, SError
    interrupt 1
    vector  2
    vector  3
    vector  4       // current EL, SP_EL1: a fault inside the fault handler, and all aborts that Xen injects
    vector  5
    vector  6
    vector  7
    vector  8       // lower EL, AArch64: there is none
    vector  9
    vector  10
    vector  11
    vector  12      // lower EL, AArch32: there is none
    vector  13
    vector  14
    vector  15

save_and_call:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, sp_el0
    stp     x30, x2, [sp, #240]
    mrs     x2, elr_el1
    mrs     x3, spsr_el1
    stp     x2, x3, [sp, #256]
    mrs     x2, esr_el1
    mrs     x3, far_el1
    stp     x2, x3, [sp, #272]
    stp     q0, q1, [sp, #VECTORS_OFFSET]
    stp     q2, q3, [sp, #VECTORS_OFFSET + 32]
    stp     q4, q5, [sp, #VECTORS_OFFSET + 64]
    stp     q6, q7, [sp, #VECTORS_OFFSET + 96]
    mov     x0, sp
    bl      exception_entry
    ldp     q0, q1, [sp, #VECTORS_OFFSET]
    ldp     q2, q3, [sp, #VECTORS_OFFSET + 32]
    ldp     q4, q5, [sp, #VECTORS_OFFSET + 64]
    ldp     q6, q7, [sp, #VECTORS_OFFSET + 96]
    ldp     x2, x3, [sp, #256]
    msr     elr_el1, x2
    msr     spsr_el1, x3
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp, #0]
    add     sp, sp, #FRAME_BYTES
    eret
