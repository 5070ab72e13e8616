// Copies between our memory and pages that another domain may change at the same time; and within our own.
//
// In assembly because a Rust copy of memory that somebody else writes is undefined; here each load simply returns
// one of the values that were there.

// In:  x0 = destination, x1 = source, x2 = length in bytes, no overlap.
// Out: x0 as it was. Clobbers x1 to x11. Uses neither the stack nor x30.
    .macro  copy_bytes
    mov     x11, x0
    subs    x2, x2, #128
    b.lo    2f
1:  ldp     x3, x4, [x1]
    ldp     x5, x6, [x1, #16]
    ldp     x7, x8, [x1, #32]
    ldp     x9, x10, [x1, #48]
    stp     x3, x4, [x11]
    stp     x5, x6, [x11, #16]
    stp     x7, x8, [x11, #32]
    stp     x9, x10, [x11, #48]
    ldp     x3, x4, [x1, #64]
    ldp     x5, x6, [x1, #80]
    ldp     x7, x8, [x1, #96]
    ldp     x9, x10, [x1, #112]
    add     x1, x1, #128
    stp     x3, x4, [x11, #64]
    stp     x5, x6, [x11, #80]
    stp     x7, x8, [x11, #96]
    stp     x9, x10, [x11, #112]
    add     x11, x11, #128
    subs    x2, x2, #128
    b.hs    1b
2:  tbz     x2, #6, 3f                  // the low seven bits of x2 still say how much is left
    ldp     x3, x4, [x1], #16
    ldp     x5, x6, [x1], #16
    ldp     x7, x8, [x1], #16
    ldp     x9, x10, [x1], #16
    stp     x3, x4, [x11], #16
    stp     x5, x6, [x11], #16
    stp     x7, x8, [x11], #16
    stp     x9, x10, [x11], #16
3:  tbz     x2, #5, 4f
    ldp     x3, x4, [x1], #16
    ldp     x5, x6, [x1], #16
    stp     x3, x4, [x11], #16
    stp     x5, x6, [x11], #16
4:  tbz     x2, #4, 5f
    ldp     x3, x4, [x1], #16
    stp     x3, x4, [x11], #16
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
// Out: x0 as it was. Clobbers x1 to x4.
    .section .text.zero_shared, "ax"
    .global zero_shared
zero_shared:
    mov     x2, x1
    mov     x3, xzr
    b       fill

// C's memset, likewise.
// In:  x0 = destination, w1 = what to fill with (the low byte), x2 = length in bytes.
// Out: x0 as it was. Clobbers x1 to x4.
    .global memset
memset:
    and     x3, x1, #0xff
    mov     x4, #0x0101010101010101
    mul     x3, x3, x4                  // the byte, eight times
fill:
    mov     x4, x0
    subs    x2, x2, #64
    b.lo    2f
1:  stp     x3, x3, [x4]
    stp     x3, x3, [x4, #16]
    stp     x3, x3, [x4, #32]
    stp     x3, x3, [x4, #48]
    add     x4, x4, #64
    subs    x2, x2, #64
    b.hs    1b
2:  tbz     x2, #5, 3f                  // the low six bits of x2 still say how much is left
    stp     x3, x3, [x4], #16
    stp     x3, x3, [x4], #16
3:  tbz     x2, #4, 4f
    stp     x3, x3, [x4], #16
4:  tbz     x2, #3, 5f
    str     x3, [x4], #8
5:  tbz     x2, #2, 6f
    str     w3, [x4], #4
6:  tbz     x2, #1, 7f
    strh    w3, [x4], #2
7:  tbz     x2, #0, 8f
    strb    w3, [x4]
8:  ret
