/*
 * map_guest DOMAIN MIB PIECE-MIB: maps all memory of a domain into this process, in pieces, as libxenforeignmemory does it and every Linux backend
 * for virtio that maps its guests in advance; and says what that takes of Dom0's memory. The domain has MIB of it.
 *
 * Prints `pieces=… mapped_mib=… before_kib=… during_kib=…`: Dom0's MemAvailable before and while all is mapped; or, in place of the latter, error=….
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Where Xen puts the memory of a guest on Arm, in pages (public/arch-arm.h): what is beyond 3 GiB is elsewhere. */
#define BANK0_PAGE (0x40000000ull >> 12)
#define BANK0_PAGES (0xc0000000ull >> 12)
#define BANK1_PAGE (0x200000000ull >> 12)

/* Linux' include/uapi/xen/privcmd.h. */
struct privcmd_mmapbatch_v2 {
    unsigned int num;
    uint16_t dom;
    uint64_t addr;
    const uint64_t *arr;
    int *err;
};
#define IOCTL_PRIVCMD_MMAPBATCH_V2 _IOC(_IOC_NONE, 'P', 4, sizeof(struct privcmd_mmapbatch_v2))

/* Dom0's MemAvailable, once the pages that were freed are counted as free again. */
static long available_kib(void)
{
    sleep(3);

    char line[128];
    long kib = -1;
    FILE *file = fopen("/proc/meminfo", "r");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %ld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

/* Maps `count` pages from the guest's page number `first` of its memory on; 0, or an error's number. */
static int map_piece(int file, uint16_t domain, uint64_t first, uint64_t count)
{
    uint64_t *pages = malloc(count * sizeof(*pages));
    int *errors = calloc(count, sizeof(*errors));
    volatile char *memory = mmap(NULL, count << 12, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int error = 0;

    if (!pages || !errors || memory == MAP_FAILED)
        return errno;
    for (uint64_t index = 0; index < count; index++) {
        uint64_t page = first + index;
        pages[index] = page < BANK0_PAGES ? BANK0_PAGE + page : BANK1_PAGE + page - BANK0_PAGES;
    }
    struct privcmd_mmapbatch_v2 batch = {
        .num = count, .dom = domain, .addr = (uintptr_t)memory, .arr = pages, .err = errors
    };
    if (ioctl(file, IOCTL_PRIVCMD_MMAPBATCH_V2, &batch) != 0)
        error = errno;
    for (uint64_t index = 0; index < count && error == 0; index++)
        error = -errors[index];
    for (uint64_t index = 0; index < count && error == 0; index++)
        (void)memory[index << 12];
    free(pages);
    free(errors);
    return error;
}

int main(int count, char **words)
{
    if (count != 4) {
        fputs("usage: map_guest DOMAIN MIB PIECE-MIB\n", stderr);
        return 2;
    }
    uint16_t domain = atoi(words[1]);
    uint64_t pages = strtoull(words[2], NULL, 10) << 8, piece = strtoull(words[3], NULL, 10) << 8;
    int file = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
    unsigned int pieces = 0;
    long before = available_kib();

    if (file < 0) {
        perror("/dev/xen/privcmd");
        return 1;
    }
    for (uint64_t first = 0; first < pages; first += piece, pieces++) {
        uint64_t left = pages - first;
        int error = map_piece(file, domain, first, left < piece ? left : piece);
        if (error != 0) {
            printf("pieces=%u mapped_mib=%u before_kib=%ld error=%s\n", pieces, (unsigned int)(first >> 8), before,
                   strerrorname_np(error));
            return 0;
        }
    }
    printf("pieces=%u mapped_mib=%u before_kib=%ld during_kib=%ld\n", pieces, (unsigned int)(pages >> 8), before, available_kib());
    fflush(stdout);
    /* Whoever asks Xen what it has now does so while we wait for him. */
    getchar();
    return 0;
}
