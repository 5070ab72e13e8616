// A look at a register that may not be there.
//
// Xen answers an access to an address where it has mapped nothing for us by a data abort. The abort of this one
// instruction does not end the domain: exception_entry sees that it happened at `probe_load`, and goes on at
// `probe_failed`.
//
// In:  x0 = address of a register of 32 bits, mapped as device memory.
// Out: x0 = its value, or all ones in 64 bits.
    .section .text.probe_register, "ax"
    .global probe_register
    .global probe_load
    .global probe_failed
probe_register:
probe_load:
    ldr     w0, [x0]
    ret
probe_failed:
    mov     x0, #-1
    ret
