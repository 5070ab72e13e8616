/*
 * A pattern that is another one at each place and for each key: whoever finds it knows who wrote it, and where.
 *
 *   pattern write|verify DEVICE KEY BYTES     BYTES is a multiple of 256 KiB; past the page cache
 *   pattern verify-files KEY FILE...          it goes through the FILEs, one after the other; through the page cache
 *
 * tests/src/pattern.rs makes the same one.
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

static uint64_t pattern[PIECE_WORDS] __attribute__((aligned(4096)));
static uint64_t found[PIECE_WORDS] __attribute__((aligned(4096)));

/* The word at an index: splitmix64 of both. */
static uint64_t word(uint64_t key, uint64_t index)
{
    uint64_t x = (key << 56 ^ index) + 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* Whether the first words that were found are those of the pattern from an index on. */
static int is_right(const char *name, uint64_t key, uint64_t start, size_t words)
{
    size_t index;

    for (index = 0; index < words; index++) {
        if (found[index] != word(key, start + index)) {
            printf("pattern: %s: another word at byte %" PRIu64 " of the pattern\n", name,
                   (start + index) * sizeof(uint64_t));
            return 0;
        }
    }
    return 1;
}

static int verify_files(uint64_t key, char **names, int count)
{
    uint64_t index = 0;
    int number;

    for (number = 0; number < count; number++) {
        int file = open(names[number], O_RDONLY);
        ssize_t bytes;

        if (file < 0) {
            perror(names[number]);
            return 1;
        }
        while ((bytes = read(file, found, PIECE_BYTES)) > 0) {
            if (bytes % sizeof(uint64_t) != 0) {
                printf("pattern: %s ends within a word\n", names[number]);
                return 1;
            }
            if (!is_right(names[number], key, index, bytes / sizeof(uint64_t)))
                return 1;
            index += bytes / sizeof(uint64_t);
        }
        if (bytes < 0) {
            perror(names[number]);
            return 1;
        }
        close(file);
    }
    printf("pattern: %d files with %" PRIu64 " KiB are right\n", count, index * sizeof(uint64_t) >> 10);
    return 0;
}

int main(int count, char **words)
{
    uint64_t key, bytes, place, index;
    int device, writes;

    if (count >= 4 && strcmp(words[1], "verify-files") == 0)
        return verify_files(strtoull(words[2], NULL, 10), words + 3, count - 3);
    if (count != 5) {
        fputs("usage: pattern write|verify DEVICE KEY BYTES | verify-files KEY FILE...\n", stderr);
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
        if (!writes) {
            if (pread(device, found, PIECE_BYTES, (off_t)place) != PIECE_BYTES) {
                perror("read");
                return 1;
            }
            if (!is_right(words[2], key, place / sizeof(uint64_t), PIECE_WORDS))
                return 1;
            continue;
        }
        for (index = 0; index < PIECE_WORDS; index++)
            pattern[index] = word(key, place / sizeof(uint64_t) + index);
        if (pwrite(device, pattern, PIECE_BYTES, (off_t)place) != PIECE_BYTES) {
            perror("write");
            return 1;
        }
    }
    if (writes && fsync(device) != 0) {
        perror("flush");
        return 1;
    }
    return 0;
}
