// A hypercall that an interrupt ends: the only place where interrupts of devices are taken.
//
// Everywhere else the interrupt controller keeps them back, all but the watchdog's, and they are asked for by polling it. That alone would lose
// one: an interrupt that comes after the last look and before Xen has put us to sleep would be slept through, since Xen
// does not keep a vCPU awake for interrupts that it has masked. So they are unmasked for the time of the hypercall:
//
//  - one that is pending before `hvc` is taken before it; the handler (`interrupt` in boot/src/vectors.S) moves on
//    behind the `hvc`, and nothing is slept;
//  - one that comes while Xen looks makes Xen return at once: it sees that interrupts are not masked and one is pending
//    (SCHEDOP_poll, local_events_need_delivery);
//  - one that comes later wakes the vCPU (vgic_inject_irq), and is taken behind the `hvc`.
//
// The handler acknowledges nothing: whatever it was is still pending when this returns.
//
// In:  x0, x1 = the hypercall's arguments, x2 = its number. Interrupts masked.
// Out: x0 = Xen's answer, or what it was if the hypercall was not made. Interrupts masked.
// Clobbers x1 to x4 and x16, as any hypercall.
    .section .text.hypercall_or_interrupt, "ax"
    .global hypercall_or_interrupt
    .global sleep_start
    .global sleep_end
hypercall_or_interrupt:
    mov     x16, x2
sleep_start:                            // an interrupt taken from here ...
    msr     daifclr, #2
    hvc     #0xEA1
sleep_end:                              // ... to here goes on here
    msr     daifset, #2
    ret
