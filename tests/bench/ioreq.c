/*
 * ioreq ADDRESS: what one access to a device's register costs a guest that waits for another domain's answer.
 *
 * The page at ADDRESS holds virtio-mmio registers that no driver of this guest uses at the moment.
 */
#include <sys/mman.h>
#include <time.h>
#include "marks.h"

enum { ACCESSES = 100, ROUNDS = 21, MAGIC_OFFSET = 0x00, NOTIFY_OFFSET = 0x50, MAGIC = 0x74726976 };

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int by_size(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

struct result {
    double median, mean, least, most;
};

static struct result measure(volatile uint32_t *at, int is_write)
{
    double each[ROUNDS], sum = 0;

    for (int round = -1; round < ROUNDS; round++) {
        double start = now_ns();
        for (int count = 0; count < ACCESSES; count++) {
            if (is_write)
                *at = 0;
            else
                (void)*at;
        }
        /* The first round only warms up. */
        if (round >= 0)
            each[round] = (now_ns() - start) / ACCESSES;
    }
    for (int round = 0; round < ROUNDS; round++)
        sum += each[round];
    qsort(each, ROUNDS, sizeof(each[0]), by_size);
    return (struct result){ each[ROUNDS / 2], sum / ROUNDS, each[0], each[ROUNDS - 1] };
}

/* Measures between two marks, and takes off what the loop itself costs. */
static struct result measure_marked(const char *name, volatile uint32_t *at, int is_write, double loop)
{
    char text[64];

    snprintf(text, sizeof(text), "%s begin", name);
    mark(text);
    struct result result = measure(at, is_write);
    snprintf(text, sizeof(text), "%s end", name);
    mark(text);
    return (struct result){ result.median - loop, result.mean - loop, result.least - loop, result.most - loop };
}

static void show(const char *name, struct result result)
{
    printf("bench name=%s requests=%d median_ns=%.0f mean_ns=%.0f least_ns=%.0f most_ns=%.0f\n", name,
           ACCESSES * (ROUNDS + 1), result.median, result.mean, result.least, result.most);
}

int main(int count, char **words)
{
    static uint32_t memory;

    if (count != 2) {
        fputs("usage: ioreq ADDRESS\n", stderr);
        return 2;
    }
    int file = open("/dev/mem", O_RDWR | O_SYNC);
    if (file < 0)
        stop("/dev/mem");
    volatile uint32_t *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, strtoull(words[1], NULL, 16));
    if (page == MAP_FAILED)
        stop("mmap");
    if (page[MAGIC_OFFSET / 4] != MAGIC) {
        fprintf(stderr, "ioreq: %#x instead of a virtio device's magic number\n", page[MAGIC_OFFSET / 4]);
        return 1;
    }
    double loop = measure(&memory, 0).median;
    mark("none begin");
    mark("none end");
    struct result magic = measure_marked("magic", &page[MAGIC_OFFSET / 4], 0, loop);
    struct result notify = measure_marked("notify", &page[NOTIFY_OFFSET / 4], 1, loop);
    show("loop", (struct result){ loop, loop, loop, loop });
    show("magic", magic);
    show("notify", notify);
    return 0;
}
