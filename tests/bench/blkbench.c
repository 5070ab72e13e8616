/*
 * blkbench DEVICE BYTES [forgets]: what a request to the block device DEVICE costs this guest, in its first BYTES bytes.
 *
 * Every page on the device holds a number that says what should be there; the whole is compared before the first case and after
 * the last, outside of what is timed. Not so on a device that forgets what is written, which is how one that takes no time is made.
 */
#define _GNU_SOURCE
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include "marks.h"

enum { PAGE = 4096, ROUNDS = 5, MOST_DEPTH = 32, MOST_PAGES = 1 << 16 };

enum submission {
    CALL,    /* pread or pwrite: one at a time */
    SINGLE,  /* `depth` in flight, each submitted alone as soon as another is complete */
    BATCHED, /* `depth` submitted at once, then all awaited */
};

static const struct bench {
    const char *name;
    int is_write;
    size_t bytes;
    enum submission submission;
    int depth;
    int requests; /* of one round */
    int buffers;  /* how many different buffers the requests take in turn */
} benches[] = {
    { "read-4k-1", 0, 4096, CALL, 1, 2048, 1 },
    { "read-4k-32-single", 0, 4096, SINGLE, 32, 2048, 32 },
    { "read-4k-32-batched", 0, 4096, BATCHED, 32, 2048, 32 },
    { "read-4k-32-batched-spread", 0, 4096, BATCHED, 32, 2048, 2048 },
    { "write-4k-1", 1, 4096, CALL, 1, 2048, 1 },
    { "write-4k-32-single", 1, 4096, SINGLE, 32, 2048, 32 },
    { "write-4k-32-batched", 1, 4096, BATCHED, 32, 2048, 32 },
    { "read-64k-1", 0, 65536, CALL, 1, 512, 1 },
    { "write-64k-1", 1, 65536, CALL, 1, 512, 1 },
    { "read-1m-1", 0, 1 << 20, CALL, 1, 64, 1 },
    { "write-1m-1", 1, 1 << 20, CALL, 1, 64, 1 },
    { "read-1m-32", 0, 1 << 20, BATCHED, 32, 64, 32 },
    { "write-1m-32", 1, 1 << 20, BATCHED, 32, 64, 32 },
};
enum { BENCHES = sizeof(benches) / sizeof(benches[0]) };

static int device;
static size_t device_bytes;
static int forgets;
static uint8_t *memory; /* as large as the device */
static uint32_t expected[MOST_PAGES];
static aio_context_t aio;

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void fill(uint8_t *page, uint32_t number)
{
    for (size_t word = 0; word < PAGE / 4; word++)
        ((uint32_t *)page)[word] = number * 2654435761u + word;
}

static void transfer(int is_write, uint8_t *buffer, size_t bytes, off_t offset)
{
    ssize_t done = is_write ? pwrite(device, buffer, bytes, offset) : pread(device, buffer, bytes, offset);

    if (done != (ssize_t)bytes)
        stop(is_write ? "pwrite" : "pread");
}

static void verify(void)
{
    uint8_t wanted[PAGE];
    size_t wrong = 0;

    if (forgets)
        return;
    memset(memory, 0, device_bytes);
    for (size_t offset = 0; offset < device_bytes; offset += 1 << 20)
        transfer(0, memory + offset, 1 << 20, offset);
    for (size_t page = 0; page < device_bytes / PAGE; page++) {
        fill(wanted, expected[page]);
        wrong += memcmp(memory + page * PAGE, wanted, PAGE) != 0;
    }
    printf("bench name=content pages=%zu wrong=%zu\n", device_bytes / PAGE, wrong);
    if (wrong != 0)
        exit(1);
}

/* The number-th request's place: each place once before any comes again; small ones in no order, large ones in order. */
static off_t place(const struct bench *bench, unsigned number)
{
    size_t places = device_bytes / bench->bytes;
    size_t place = bench->bytes > PAGE ? number % places : (number * 1237u + 311u) % places;

    return place * bench->bytes;
}

static uint8_t *buffer_of(const struct bench *bench, unsigned number)
{
    return memory + number % bench->buffers * bench->bytes;
}

static void prepare(struct iocb *request, const struct bench *bench, unsigned number)
{
    *request = (struct iocb){
        .aio_lio_opcode = bench->is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
        .aio_fildes = device,
        .aio_buf = (uintptr_t)buffer_of(bench, number),
        .aio_nbytes = bench->bytes,
        .aio_offset = place(bench, number),
        .aio_data = (uintptr_t)request,
    };
}

static void submit(struct iocb **requests, int count)
{
    if (syscall(SYS_io_submit, aio, (long)count, requests) != count)
        stop("io_submit");
}

/* Awaits at least `least` completions, and returns how many there are. */
static int await(struct io_event *events, const struct bench *bench, int least)
{
    int count = syscall(SYS_io_getevents, aio, (long)least, (long)bench->depth, events, NULL);

    if (count < least)
        stop("io_getevents");
    for (int event = 0; event < count; event++) {
        if (events[event].res != (int64_t)bench->bytes) {
            fprintf(stderr, "%s: a request ended with %lld\n", bench->name, (long long)events[event].res);
            exit(1);
        }
    }
    return count;
}

static void round_of_calls(const struct bench *bench)
{
    for (int number = 0; number < bench->requests; number++)
        transfer(bench->is_write, buffer_of(bench, number), bench->bytes, place(bench, number));
}

static void round_of_batches(const struct bench *bench)
{
    static struct iocb requests[MOST_DEPTH];
    struct iocb *list[MOST_DEPTH];
    struct io_event events[MOST_DEPTH];

    for (int number = 0; number < bench->requests; number += bench->depth) {
        for (int slot = 0; slot < bench->depth; slot++) {
            list[slot] = &requests[slot];
            prepare(&requests[slot], bench, number + slot);
        }
        submit(list, bench->depth);
        await(events, bench, bench->depth);
    }
}

static void round_of_singles(const struct bench *bench)
{
    static struct iocb requests[MOST_DEPTH];
    struct io_event events[MOST_DEPTH];
    int number = 0;

    for (; number < bench->depth; number++) {
        struct iocb *request = &requests[number];
        prepare(request, bench, number);
        submit(&request, 1);
    }
    for (int done = 0; done < bench->requests;) {
        int count = await(events, bench, 1);
        done += count;
        for (int event = 0; event < count && number < bench->requests; event++, number++) {
            struct iocb *request = (struct iocb *)(uintptr_t)events[event].data;
            prepare(request, bench, number);
            submit(&request, 1);
        }
    }
}

static double round_ns(const struct bench *bench)
{
    double start = now_ns();

    switch (bench->submission) {
    case CALL:
        round_of_calls(bench);
        break;
    case SINGLE:
        round_of_singles(bench);
        break;
    case BATCHED:
        round_of_batches(bench);
        break;
    }
    return (now_ns() - start) / bench->requests;
}

/* What the writes of this case will write, and will therefore be on the device. */
static void prepare_content(const struct bench *bench, uint32_t first_number)
{
    size_t pages = bench->bytes / PAGE;

    for (size_t page = 0; page < pages * bench->buffers; page++)
        fill(memory + page * PAGE, first_number + page);
    if (!bench->is_write)
        return;
    for (int number = 0; number < bench->requests; number++) {
        size_t buffer = number % bench->buffers * pages;
        for (size_t page = 0; page < pages; page++)
            expected[place(bench, number) / PAGE + page] = first_number + buffer + page;
    }
}

static int by_size(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

static void marked(const char *name, const char *moment)
{
    char text[64];

    snprintf(text, sizeof(text), "%s %s", name, moment);
    mark(text);
}

int main(int count, char **words)
{
    static double each[BENCHES][ROUNDS];

    if (count != 3 && count != 4) {
        fputs("usage: blkbench DEVICE BYTES [forgets]\n", stderr);
        return 2;
    }
    forgets = count == 4;
    device = open(words[1], O_RDWR | O_DIRECT);
    if (device < 0)
        stop(words[1]);
    device_bytes = strtoul(words[2], NULL, 10);
    if (device_bytes / PAGE > MOST_PAGES || posix_memalign((void **)&memory, 1 << 20, device_bytes) != 0) {
        fputs("blkbench: too many bytes\n", stderr);
        return 2;
    }
    /* Pages of 4 KiB always: whether Linux finds large ones would decide how many pieces a request of 1 MiB has. */
    madvise(memory, device_bytes, MADV_NOHUGEPAGE);
    if (syscall(SYS_io_setup, MOST_DEPTH, &aio) != 0)
        stop("io_setup");

    for (size_t page = 0; page < device_bytes / PAGE; page++) {
        expected[page] = 0x10000000 + page;
        fill(memory + page * PAGE, expected[page]);
    }
    for (size_t offset = 0; offset < device_bytes; offset += 1 << 20)
        transfer(1, memory + offset, 1 << 20, offset);
    verify();

    mark("none begin");
    mark("none end");
    for (int number = 0; number < BENCHES; number++) {
        const struct bench *bench = &benches[number];
        if (bench->bytes * bench->buffers > device_bytes)
            continue;
        prepare_content(bench, (number + 2) << 20);
        /* Once untimed: queues, buffers and both sides' caches of pages come to where they stay. */
        round_ns(bench);
        marked(bench->name, "begin");
        for (int round = 0; round < ROUNDS; round++)
            each[number][round] = round_ns(bench);
        marked(bench->name, "end");
    }
    verify();
    for (int number = 0; number < BENCHES; number++) {
        if (benches[number].bytes * benches[number].buffers > device_bytes)
            continue;
        qsort(each[number], ROUNDS, sizeof(double), by_size);
        printf("bench name=%s requests=%d median_ns=%.0f least_ns=%.0f most_ns=%.0f\n", benches[number].name,
               benches[number].requests * ROUNDS, each[number][ROUNDS / 2], each[number][0],
               each[number][ROUNDS - 1]);
    }
    return 0;
}
