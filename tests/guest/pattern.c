/*
 * A pattern that is another one at each place and for each key: whoever finds it knows who wrote it, and where.
 *
 *   pattern write|verify DEVICE KEY BYTES     BYTES is a multiple of 256 KiB; past the page cache
 *
 * tests/src/host_checks/pattern.rs makes the same one.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE_BYTES (256 * 1024)
#define PIECE_WORDS (PIECE_BYTES / sizeof(uint64_t))

/* The word at an index: splitmix64 of both. */
static uint64_t word(uint64_t key, uint64_t index)
{
    uint64_t x = (key << 56 ^ index) + 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

int main(int count, char **words)
{
    static uint64_t pattern[PIECE_WORDS] __attribute__((aligned(4096)));
    static uint64_t found[PIECE_WORDS] __attribute__((aligned(4096)));
    uint64_t key, bytes, place, index;
    int device, writes;

    if (count != 5) {
        fputs("usage: pattern write|verify DEVICE KEY BYTES\n", stderr);
        return 2;
    }
    writes = strcmp(words[1], "write") == 0;
    key = strtoull(words[3], NULL, 10);
    bytes = strtoull(words[4], NULL, 10);
    device = open(words[2], (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
    if (device < 0) {
        perror(words[2]);
        return 1;
    }
    for (place = 0; place < bytes; place += PIECE_BYTES) {
        for (index = 0; index < PIECE_WORDS; index++)
            pattern[index] = word(key, place / sizeof(uint64_t) + index);
        if (writes) {
            if (pwrite(device, pattern, PIECE_BYTES, (off_t)place) != PIECE_BYTES) {
                perror("write");
                return 1;
            }
            continue;
        }
        if (pread(device, found, PIECE_BYTES, (off_t)place) != PIECE_BYTES) {
            perror("read");
            return 1;
        }
        for (index = 0; index < PIECE_WORDS; index++) {
            if (found[index] != pattern[index]) {
                printf("pattern: another word at byte %" PRIu64 "\n", place + index * sizeof(uint64_t));
                return 1;
            }
        }
    }
    if (writes && fsync(device) != 0) {
        perror("flush");
        return 1;
    }
    return 0;
}
