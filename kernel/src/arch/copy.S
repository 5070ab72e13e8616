// Copies between our memory and pages that another domain may change at the same time; and within our own.
//
// In assembly because a Rust copy of memory that somebody else writes is undefined; here each load simply returns
// one of the values that were there.

// The vector registers are used here and nowhere else: they move twice as much with one instruction. The code around is
// compiled without them, Xen keeps them for each vCPU anyway, and exceptions leave those that are used as they were
// (boot/src/vectors.S), for a fault of such a copy may end in another one.
    .arch_extension fp
    .arch_extension simd

// In:  x0 = destination, x1 = source, x2 = length in bytes, no overlap.
// Out: x0 as it was. Clobbers x1 to x3, x11, q0 to q7. Uses neither the stack nor x30.
    .macro  copy_bytes
    mov     x11, x0
    subs    x2, x2, #128
    b.lo    2f
1:  ldp     q0, q1, [x1], #32
    ldp     q2, q3, [x1], #32
    ldp     q4, q5, [x1], #32
    ldp     q6, q7, [x1], #32
    stp     q0, q1, [x11], #32
    stp     q2, q3, [x11], #32
    stp     q4, q5, [x11], #32
    stp     q6, q7, [x11], #32
    subs    x2, x2, #128
    b.hs    1b
2:  tbz     x2, #6, 3f                  // the low seven bits of x2 still say how much is left
    ldp     q0, q1, [x1], #32
    ldp     q2, q3, [x1], #32
    stp     q0, q1, [x11], #32
    stp     q2, q3, [x11], #32
3:  tbz     x2, #5, 4f
    ldp     q0, q1, [x1], #32
    stp     q0, q1, [x11], #32
4:  tbz     x2, #4, 5f
    ldr     q0, [x1], #16
    str     q0, [x11], #16
5:  tbz     x2, #3, 6f
    ldr     x3, [x1], #8
    str     x3, [x11], #8
6:  tbz     x2, #2, 7f
    ldr     w3, [x1], #4
    str     w3, [x11], #4
7:  tbz     x2, #1, 8f
    ldrh    w3, [x1], #2
    strh    w3, [x11], #2
8:  tbz     x2, #0, 9f
    ldrb    w3, [x1]
    strb    w3, [x11]
9:  ret
    .endm

// In and out: as above.
//
// It is C's memcpy as well, to which the compiler turns every move of a value: compiler_builtins' own, which this
// replaces, moves 8 bytes in four instructions.
    .section .text.copy_shared, "ax"
    .global copy_shared
    .global memcpy
copy_shared:
memcpy:
    copy_bytes

// The same where one side lies in a view (kernel/src/mm/view.rs), so that any access may be a fault. The handler brings
// the page and goes on at the same instruction, of which nothing has happened then; or it goes on at copy_view_failed.
//
// In:  as above.
// Out: x0 as it was, or 0 when a page could not be had.
    .section .text.copy_view, "ax"
    .global copy_view
    .global copy_view_failed
copy_view:
    copy_bytes
copy_view_failed:
    mov     x0, xzr
    ret

// In:  x0 = destination, x1 = length in bytes.
// Out: x0 as it was. Clobbers x1 to x4, q0.
    .section .text.zero_shared, "ax"
    .global zero_shared
zero_shared:
    mov     x2, x1
    mov     w1, wzr

// C's memset, likewise.
// In:  x0 = destination, w1 = what to fill with (the low byte), x2 = length in bytes.
// Out: x0 as it was. Clobbers x2 to x4, q0.
    .global memset
memset:
    dup     v0.16b, w1                  // the byte, sixteen times
    fmov    x3, d0
    mov     x4, x0
    subs    x2, x2, #64
    b.lo    2f
1:  stp     q0, q0, [x4], #32
    stp     q0, q0, [x4], #32
    subs    x2, x2, #64
    b.hs    1b
2:  tbz     x2, #5, 3f                  // the low six bits of x2 still say how much is left
    stp     q0, q0, [x4], #32
3:  tbz     x2, #4, 4f
    str     q0, [x4], #16
4:  tbz     x2, #3, 5f
    str     x3, [x4], #8
5:  tbz     x2, #2, 6f
    str     w3, [x4], #4
6:  tbz     x2, #1, 7f
    strh    w3, [x4], #2
7:  tbz     x2, #0, 8f
    strb    w3, [x4]
8:  ret
