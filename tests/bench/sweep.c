/*
 * sweep DISK: has a disk's first MiB read into nearly all of this guest's memory, past its page cache, and compares it: the backend has then
 * reached all of that. Prints `bench name=sweep mib=…`.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE (1 << 20)
/* For all else in the guest. */
#define LEFT_MIB 48

static long available_mib(void)
{
    char line[128];
    long kib = -1;
    FILE *file = fopen("/proc/meminfo", "r");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %ld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib / 1024;
}

int main(int count, char **words)
{
    long pieces = available_mib() - LEFT_MIB;
    int disk = count == 2 ? open(words[1], O_RDONLY | O_DIRECT) : -1;

    if (disk < 0 || pieces < 1) {
        fputs("usage: sweep DISK\n", stderr);
        return 2;
    }
    char *memory = mmap(NULL, (size_t)pieces * PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("sweep");
        return 1;
    }
    for (long piece = 0; piece < pieces; piece++)
        if (pread(disk, memory + piece * PIECE, PIECE, 0) != PIECE) {
            perror(words[1]);
            return 1;
        }
    /* One word of each page is enough to see a page that nobody wrote. */
    for (size_t at = PIECE; at < (size_t)pieces * PIECE; at += 4096)
        if (memcmp(memory + at, memory + at % PIECE, 8) != 0) {
            fprintf(stderr, "sweep: other bytes at %zu\n", at);
            return 1;
        }
    printf("bench name=sweep mib=%ld\n", pieces);
    return 0;
}
