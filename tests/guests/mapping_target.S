/*
 * A guest without an operating system whose memory is read by the benchmark of mappings (guests/mapping): it fills each page with a
 * pattern of its own, grants each to the benchmark's domain, and sleeps.
 *
 * The first page is this image. In it, at a fixed offset, lies the mailbox by which both domains speak: the benchmark's domain maps it.
 * guests/mapping/src/target.rs has the same constants.
 *
 * The MMU stays off: no access is cached. The benchmarks run where there are no real caches.
 */
    .equ MEMORY_BYTES, 64 << 20 /* memory= of its configuration. */
    .equ PAGE_BYTES, 4096
    .equ PAGES, MEMORY_BYTES / PAGE_BYTES
    .equ PATTERN_LOW, 0x7f4a7c15
    .equ PATTERN_HIGH, 0x9e3779b9

    .equ GRANT_TABLE, 0x38000000 /* Where xl leaves room for it. */
    .equ FIRST_REFERENCE, 8     /* Those before have fixed uses. Page n of the memory is granted as this + n. */
    .equ ENTRY_BYTES, 8
    .equ TABLE_PAGES, ((FIRST_REFERENCE + PAGES) * ENTRY_BYTES + PAGE_BYTES - 1) / PAGE_BYTES
    .equ PERMIT_ACCESS, 1

    .equ FILLED, 1
    .equ GRANTED, 2

    .equ HYPERCALL, 0xea1
    .equ MEMORY_OP, 12
    .equ ADD_TO_PHYSMAP, 7
    .equ SPACE_GRANT_TABLE, 1
    .equ DOMID_SELF, 0x7ff0
    .equ SCHED_OP, 29
    .equ YIELD, 0

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

/* The mailbox. */
state:
    .quad   0                   /* How far we are; negative: Xen's error. */
peer:
    .quad   0                   /* The number of the benchmark's domain, once it has written it. */

start:
    adr     x19, image
    ldr     x20, =MEMORY_BYTES
    add     x20, x19, x20
    /* Each word is its address times a constant. */
    ldr     x1, =(PATTERN_HIGH << 32 | PATTERN_LOW)
    lsl     x2, x1, #4          /* From one pair of words to the next. */
    add     x0, x19, #PAGE_BYTES
    mul     x3, x0, x1
    add     x4, x3, x1, lsl #3
1:  stp     x3, x4, [x0], #16
    add     x3, x3, x2
    add     x4, x4, x2
    cmp     x0, x20
    b.lo    1b
    mov     x0, #FILLED
    bl      tell

    /* Who is to read them? */
2:  ldr     x21, peer
    cbnz    x21, 3f
    mov     x0, #YIELD
    mov     x16, #SCHED_OP
    hvc     #HYPERCALL
    b       2b

    /* Maps our grant table, page by page. */
3:  mov     x22, #0
4:  adr     x1, add_to_physmap
    str     x22, [x1, #8]
    ldr     x2, =(GRANT_TABLE / PAGE_BYTES)
    add     x2, x2, x22
    str     x2, [x1, #16]
    mov     x0, #ADD_TO_PHYSMAP
    mov     x16, #MEMORY_OP
    hvc     #HYPERCALL
    cbnz    x0, 6f
    add     x22, x22, #1
    cmp     x22, #TABLE_PAGES
    b.lo    4b

    /* An entry: flags, whom, and from bit 32 on the frame number. */
    mov     x0, #PERMIT_ACCESS
    orr     x0, x0, x21, lsl #16
    lsr     x1, x19, #12
    orr     x0, x0, x1, lsl #32
    ldr     x1, =(GRANT_TABLE + FIRST_REFERENCE * ENTRY_BYTES)
    ldr     x2, =(GRANT_TABLE + (FIRST_REFERENCE + PAGES) * ENTRY_BYTES)
    mov     x3, #(1 << 32)
5:  str     x0, [x1], #ENTRY_BYTES
    add     x0, x0, x3
    cmp     x1, x2
    b.lo    5b
    mov     x0, #GRANTED
6:  bl      tell
7:  wfi
    b       7b

/* tell(x0 state) */
tell:
    adr     x1, state
    dsb     sy
    str     x0, [x1]
    dsb     sy
    ret

    .ltorg
    .balign 8
/* xen_add_to_physmap (memory.h). */
add_to_physmap:
    .short  DOMID_SELF, 0
    .long   SPACE_GRANT_TABLE
    .quad   0, 0
image_end:
