// Copies between our memory and pages that another domain may change at the same time.
//
// In assembly because a Rust copy of memory that somebody else writes is undefined; here each load simply returns
// one of the values that were there.

// In:  x0 = destination, x1 = source, x2 = length in bytes, no overlap.
// Out: nothing. Clobbers x3 to x10.
    .section .text.copy_shared, "ax"
    .global copy_shared
copy_shared:
    subs    x2, x2, #128
    b.lo    2f
1:  ldp     x3, x4, [x1]
    ldp     x5, x6, [x1, #16]
    ldp     x7, x8, [x1, #32]
    ldp     x9, x10, [x1, #48]
    stp     x3, x4, [x0]
    stp     x5, x6, [x0, #16]
    stp     x7, x8, [x0, #32]
    stp     x9, x10, [x0, #48]
    ldp     x3, x4, [x1, #64]
    ldp     x5, x6, [x1, #80]
    ldp     x7, x8, [x1, #96]
    ldp     x9, x10, [x1, #112]
    add     x1, x1, #128
    stp     x3, x4, [x0, #64]
    stp     x5, x6, [x0, #80]
    stp     x7, x8, [x0, #96]
    stp     x9, x10, [x0, #112]
    add     x0, x0, #128
    subs    x2, x2, #128
    b.hs    1b
2:  tbz     x2, #6, 3f                  // the low seven bits of x2 still say how much is left
    ldp     x3, x4, [x1], #16
    ldp     x5, x6, [x1], #16
    ldp     x7, x8, [x1], #16
    ldp     x9, x10, [x1], #16
    stp     x3, x4, [x0], #16
    stp     x5, x6, [x0], #16
    stp     x7, x8, [x0], #16
    stp     x9, x10, [x0], #16
3:  tbz     x2, #5, 4f
    ldp     x3, x4, [x1], #16
    ldp     x5, x6, [x1], #16
    stp     x3, x4, [x0], #16
    stp     x5, x6, [x0], #16
4:  tbz     x2, #4, 5f
    ldp     x3, x4, [x1], #16
    stp     x3, x4, [x0], #16
5:  tbz     x2, #3, 6f
    ldr     x3, [x1], #8
    str     x3, [x0], #8
6:  tbz     x2, #2, 7f
    ldr     w3, [x1], #4
    str     w3, [x0], #4
7:  tbz     x2, #1, 8f
    ldrh    w3, [x1], #2
    strh    w3, [x0], #2
8:  tbz     x2, #0, 9f
    ldrb    w3, [x1]
    strb    w3, [x0]
9:  ret

// In:  x0 = destination, x1 = length in bytes.
// Out: nothing. Clobbers x0 and x1.
    .section .text.zero_shared, "ax"
    .global zero_shared
zero_shared:
    subs    x1, x1, #64
    b.lo    2f
1:  stp     xzr, xzr, [x0]
    stp     xzr, xzr, [x0, #16]
    stp     xzr, xzr, [x0, #32]
    stp     xzr, xzr, [x0, #48]
    add     x0, x0, #64
    subs    x1, x1, #64
    b.hs    1b
2:  ands    x1, x1, #63
    b.eq    4f
3:  strb    wzr, [x0], #1
    subs    x1, x1, #1
    b.ne    3b
4:  ret
