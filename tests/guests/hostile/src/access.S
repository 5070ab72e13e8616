// One access to a register, which may fault: Xen answers what it cannot take apart, and what nobody serves, by an abort. A fault is
// caught by vectors of our own, which are there for this one instruction alone.
//
// In:  x0 = address, mapped as device memory; x1 = which of the instructions below; x2 = value for stores.
// Out: x0 = 0, or 1 if it faulted.
    .section .text.access_register, "ax"
    .global access_register
access_register:
    mrs     x9, vbar_el1
    adrp    x10, access_vectors
    add     x10, x10, :lo12:access_vectors
    msr     vbar_el1, x10
    isb
    mov     x11, #0
    mov     x13, x0
    adr     x12, accesses
    add     x12, x12, x1, lsl #3
    br      x12
accesses:
    ldrb    w3, [x13]
    b       access_done
    ldrh    w3, [x13]
    b       access_done
    ldr     w3, [x13]
    b       access_done
    ldr     x3, [x13]
    b       access_done
    strb    w2, [x13]
    b       access_done
    strh    w2, [x13]
    b       access_done
    str     w2, [x13]
    b       access_done
    str     x2, [x13]
    b       access_done
    ldrsb   x3, [x13]
    b       access_done
    ldrsh   w3, [x13]
    b       access_done
    ldrsw   x3, [x13]
    b       access_done
    ldp     w3, w4, [x13]
    b       access_done
    stp     x2, x2, [x13]
    b       access_done
    ldr     w3, [x13], #4
    b       access_done
    str     w2, [x13, #4]!
    b       access_done
    stlr    w2, [x13]
    b       access_done
access_done:
    msr     vbar_el1, x9
    isb
    mov     x0, x11
    ret

// Goes on behind the access. Xen always enters by the vectors of SP_EL1.
    .macro  access_failed
    mrs     x10, elr_el1
    add     x10, x10, #4
    msr     elr_el1, x10
    mov     x11, #1
    eret
    .endm

    .balign 0x800
access_vectors:
    access_failed
    .balign 0x200
    access_failed
    .balign 0x200
    .space  0x400
