// The arm64 Image header (Linux, Documentation/arch/arm64/booting.rst), 64 bytes at the very start of the file.
// Xen's tool stack recognises the file by the magic at offset 56 and reads text_offset; it ignores image_size (see the linker script).

    .section .text.header, "ax"
    .global image_header
image_header:
    b       entry                       // code0
    .long   0                           // code1
    .quad   0                           // text_offset: at the start of RAM; 2 MiB here would cost 2 MiB of RAM
    .quad   image_end - image_header    // image_size, for loaders that honour it
    .quad   0b1010                      // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0                           // reserved
    .quad   0
    .quad   0
    .ascii  "ARM\x64"                   // magic
    .long   0                           // no PE header
