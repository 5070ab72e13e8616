/*
 * A guest without an operating system that reads one register of its disk, over and over, and says how long it took.
 *
 * Linux registers a runstate area, which Xen updates at each switch to and from the guest. This guest registers nothing, so what it
 * measures is the driver domain and Xen's way there and back alone.
 *
 * The MMU stays off: no access is cached. Xen, whose accesses are, may thus find old text on a machine with real caches; the
 * benchmarks run where there are none.
 */
    .equ ACCESSES, 1000
    .equ ROUNDS, 21             /* The first one only warms up. */
    .equ REGISTERS, 0x02000000  /* Where xl places the first virtio device. */
    .equ MAGIC, 0x74726976
    .equ DIGITS, 8

    .equ HYPERCALL, 0xea1
    .equ CONSOLE_IO, 18
    .equ CONSOLEIO_WRITE, 0
    .equ PSCI_SYSTEM_OFF, 0x84000008

    .text
/* The header of an arm64 Image. */
image:
    b       start
    .long   0
    .quad   0                   /* Runs at any address. */
    .quad   image_end - image
    .quad   0, 0, 0, 0
    .ascii  "ARM\x64"
    .long   0

start:
    mov     w19, #ROUNDS
    ldr     w20, =MAGIC
round:
    /* What the loop itself costs. */
    adr     x0, memory
    bl      measure
    adr     x1, loop_digits
    bl      write_decimal

    mov     x0, #REGISTERS
    bl      measure
    /* Anything else than a virtio device is no result. */
    cmp     w1, w20
    b.ne    off
    adr     x1, magic_digits
    bl      write_decimal

    mrs     x0, cntfrq_el0
    adr     x1, hz_digits
    bl      write_decimal

    mov     x0, #CONSOLEIO_WRITE
    mov     x1, #(line_end - line)
    adr     x2, line
    mov     x16, #CONSOLE_IO
    hvc     #HYPERCALL
    subs    w19, w19, #1
    b.ne    round
off:
    ldr     w0, =PSCI_SYSTEM_OFF
    hvc     #0

/* measure(x0 address): x0 is the ticks that ACCESSES loads of it take, w1 what they loaded. */
measure:
    mov     w2, #ACCESSES
    isb
    mrs     x3, cntvct_el0
1:  ldr     w1, [x0]
    subs    w2, w2, #1
    b.ne    1b
    isb
    mrs     x4, cntvct_el0
    sub     x0, x4, x3
    ret

/* write_decimal(x0 number, x1 where its DIGITS are) */
write_decimal:
    mov     x2, #10
    mov     w3, #DIGITS
    add     x1, x1, #DIGITS
1:  udiv    x4, x0, x2
    msub    x5, x4, x2, x0
    add     w5, w5, #'0'
    strb    w5, [x1, #-1]!
    mov     x0, x4
    subs    w3, w3, #1
    b.ne    1b
    ret

    .ltorg
memory:
    .long   0
line:
    .ascii  "bench guest=bare name=round accesses=1000 hz="
hz_digits:
    .fill   DIGITS, 1, '0'
    .ascii  " loop_ticks="
loop_digits:
    .fill   DIGITS, 1, '0'
    .ascii  " magic_ticks="
magic_digits:
    .fill   DIGITS, 1, '0'
    .ascii  "\n"
line_end:
    .balign 8
image_end:
