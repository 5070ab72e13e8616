/*
 * blkbench DEVICE BYTES [OPTION]...: what a request to the block device DEVICE costs this guest, in its first BYTES bytes.
 *
 *   forgets          the device forgets what is written, which is how one that takes no time is made
 *   cases=NAME,...   these cases alone
 *   rounds=N         fewer timed rounds of each
 *   passes=N         all of that so often, with a mark `pass end` after each
 *   over=BYTES       buffers are spread over so much memory, for the cases `anywhere`
 *   buffers=N,...    how many of those there are, a pass for each number
 *
 * Every page on the device holds a number that says what should be there; the whole is compared before the first case and after
 * the last, outside of what is timed; not so on a device that forgets.
 */
#define _GNU_SOURCE
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include "marks.h"

enum { PAGE = 4096, ROUNDS = 5, MOST_DEPTH = 32, MOST_PAGES = 1 << 16, MOST_PASSES = 16 };

enum operation { READ, WRITE, FLUSHED_WRITE, COPY };

enum order {
    IN_NO_ORDER,
    IN_ORDER,
    ANYWHERE, /* in no order, and each time another of the buffers spread over all memory */
};

enum submission {
    CALL,    /* pread or pwrite, memcpy: one at a time */
    SINGLE,  /* `depth` in flight, each submitted alone as soon as another is complete */
    BATCHED, /* `depth` submitted at once, then all awaited */
};

static const struct bench {
    const char *name;
    enum operation operation;
    size_t bytes;
    enum order order;
    enum submission submission;
    int depth;
    int requests; /* of one round */
    int buffers;  /* how many different buffers the requests take in turn */
} benches[] = {
    { "copy-4k", COPY, 4096, IN_ORDER, CALL, 1, 2048, 1 },
    { "copy-64k", COPY, 65536, IN_ORDER, CALL, 1, 512, 1 },
    { "copy-1m", COPY, 1 << 20, IN_ORDER, CALL, 1, 64, 1 },
    { "read-4k-1", READ, 4096, IN_NO_ORDER, CALL, 1, 2048, 1 },
    { "read-4k-8-batched", READ, 4096, IN_NO_ORDER, BATCHED, 8, 2048, 8 },
    { "read-4k-16-single", READ, 4096, IN_NO_ORDER, SINGLE, 16, 2048, 16 },
    { "read-4k-32-single", READ, 4096, IN_NO_ORDER, SINGLE, 32, 2048, 32 },
    { "read-4k-32-batched", READ, 4096, IN_NO_ORDER, BATCHED, 32, 2048, 32 },
    { "read-4k-32-batched-spread", READ, 4096, IN_NO_ORDER, BATCHED, 32, 2048, 2048 },
    { "read-4k-sequential-1", READ, 4096, IN_ORDER, CALL, 1, 2048, 1 },
    { "read-4k-sequential-32-batched", READ, 4096, IN_ORDER, BATCHED, 32, 2048, 32 },
    { "write-4k-1", WRITE, 4096, IN_NO_ORDER, CALL, 1, 2048, 1 },
    { "write-fsync-4k-1", FLUSHED_WRITE, 4096, IN_NO_ORDER, CALL, 1, 1024, 1 },
    { "write-4k-32-single", WRITE, 4096, IN_NO_ORDER, SINGLE, 32, 2048, 32 },
    { "write-4k-32-batched", WRITE, 4096, IN_NO_ORDER, BATCHED, 32, 2048, 32 },
    { "read-64k-1", READ, 65536, IN_ORDER, CALL, 1, 512, 1 },
    { "read-64k-8-batched", READ, 65536, IN_ORDER, BATCHED, 8, 512, 8 },
    { "write-64k-1", WRITE, 65536, IN_ORDER, CALL, 1, 512, 1 },
    { "read-1m-1", READ, 1 << 20, IN_ORDER, CALL, 1, 64, 1 },
    { "write-1m-1", WRITE, 1 << 20, IN_ORDER, CALL, 1, 64, 1 },
    { "read-1m-32", READ, 1 << 20, IN_ORDER, BATCHED, 32, 64, 32 },
    { "write-1m-32", WRITE, 1 << 20, IN_ORDER, BATCHED, 32, 64, 32 },
    { "read-4k-1-anywhere", READ, 4096, ANYWHERE, CALL, 1, 2048, 0 },
    { "read-4k-32-batched-anywhere", READ, 4096, ANYWHERE, BATCHED, 32, 2048, 0 },
};
enum { BENCHES = sizeof(benches) / sizeof(benches[0]) };

static int device;
static size_t device_bytes;
static int forgets;
static const char *cases; /* all when there is none */
static int rounds = ROUNDS, passes = 1;
static int counts[MOST_PASSES], buffers; /* of all memory: in each pass, and in this one */
static size_t all_bytes;
static uint8_t *all_memory, *memory; /* the second as large as the device */
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

/* The number-th request's place: each place once before any comes again. */
static off_t place(const struct bench *bench, unsigned number)
{
    size_t places = device_bytes / bench->bytes;
    size_t place = bench->order == IN_ORDER ? number % places : (number * 1237u + 311u) % places;

    return place * bench->bytes;
}

static uint8_t *buffer_of(const struct bench *bench, unsigned number)
{
    static uint32_t state = 1;

    if (bench->order != ANYWHERE)
        return memory + number % bench->buffers * bench->bytes;
    /* Any of them, also one that was taken just before: how many are found where they were goes by how many there are. */
    state = state * 1664525u + 1013904223u;
    size_t buffer = (uint64_t)state * buffers >> 32;
    return all_memory + buffer * (all_bytes / PAGE) / buffers * PAGE;
}

static void prepare(struct iocb *request, const struct bench *bench, unsigned number)
{
    *request = (struct iocb){
        .aio_lio_opcode = bench->operation == READ ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE,
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
    for (int number = 0; number < bench->requests; number++) {
        uint8_t *buffer = buffer_of(bench, number);
        if (bench->operation == COPY)
            memcpy(buffer + device_bytes / 2, buffer, bench->bytes);
        else
            transfer(bench->operation != READ, buffer, bench->bytes, place(bench, number));
        if (bench->operation == FLUSHED_WRITE && fdatasync(device) != 0)
            stop("fdatasync");
    }
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
    if (bench->operation != WRITE && bench->operation != FLUSHED_WRITE)
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

/* Whether the list of names has this one. */
static int lists(const char *list, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = list; (at = strstr(at, name)) != NULL; at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return 1;
    return 0;
}

static int is_wanted(const struct bench *bench)
{
    if (bench->order == ANYWHERE ? all_memory == NULL : bench->bytes * bench->buffers > device_bytes)
        return 0;
    return cases == NULL || lists(cases, bench->name);
}

static void measure(const struct bench *bench, uint32_t first_number)
{
    char name[64], text[80];
    double each[ROUNDS];

    snprintf(name, sizeof(name), bench->order == ANYWHERE ? "%s-%d" : "%s", bench->name, buffers);
    prepare_content(bench, first_number);
    /* Once untimed: queues, buffers and both sides' caches of pages come to where they stay. */
    round_ns(bench);
    snprintf(text, sizeof(text), "%s begin", name);
    mark(text);
    mark_instruction();
    for (int round = 0; round < rounds; round++)
        each[round] = round_ns(bench);
    mark_instruction();
    snprintf(text, sizeof(text), "%s end", name);
    mark(text);
    qsort(each, rounds, sizeof(double), by_size);
    printf("bench name=%s requests=%d median_ns=%.0f least_ns=%.0f most_ns=%.0f\n", name, bench->requests * rounds,
           each[rounds / 2], each[0], each[rounds - 1]);
}

static void pass(int number)
{
    buffers = counts[number];
    mark("none begin");
    mark("none end");
    for (int bench = 0; bench < BENCHES; bench++)
        if (is_wanted(&benches[bench]))
            measure(&benches[bench], (bench + 2) << 20);
    mark("pass end");
}

/* Pages of 4 KiB always: whether Linux finds large ones would decide how many pieces a request of 1 MiB has. */
static uint8_t *small_pages(size_t bytes)
{
    void *result;

    if (posix_memalign(&result, 1 << 20, bytes) != 0)
        stop("memory");
    madvise(result, bytes, MADV_NOHUGEPAGE);
    return result;
}

static int take_option(char *word)
{
    if (strcmp(word, "forgets") == 0)
        forgets = 1;
    else if (strncmp(word, "cases=", 6) == 0)
        cases = word + 6;
    else if (strncmp(word, "rounds=", 7) == 0)
        rounds = atoi(word + 7);
    else if (strncmp(word, "passes=", 7) == 0)
        passes = atoi(word + 7);
    else if (strncmp(word, "over=", 5) == 0)
        all_bytes = strtoul(word + 5, NULL, 10);
    else if (strncmp(word, "buffers=", 8) == 0) {
        passes = 0;
        for (char *at = strtok(word + 8, ","); at != NULL && passes < MOST_PASSES; at = strtok(NULL, ","))
            counts[passes++] = atoi(at);
    } else
        return 0;
    return rounds > 0 && rounds <= ROUNDS && passes > 0 && passes <= MOST_PASSES;
}

int main(int count, char **words)
{
    for (int word = 3; word < count; word++)
        if (!take_option(words[word]))
            count = 0;
    if (count < 3) {
        fputs("usage: blkbench DEVICE BYTES [forgets] [cases=NAME,...] [rounds=N] [passes=N] [over=BYTES] [buffers=N,...]\n", stderr);
        return 2;
    }
    /* What is printed costs Dom0 time: all of it comes at the end. */
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    device = open(words[1], O_RDWR | O_DIRECT);
    if (device < 0)
        stop(words[1]);
    device_bytes = strtoul(words[2], NULL, 10);
    if (device_bytes / PAGE > MOST_PAGES) {
        fputs("blkbench: too many bytes\n", stderr);
        return 2;
    }
    memory = small_pages(device_bytes);
    if (all_bytes > 0) {
        all_memory = small_pages(all_bytes);
        for (size_t offset = 0; offset < all_bytes; offset += PAGE)
            all_memory[offset] = 1;
    }
    if (syscall(SYS_io_setup, MOST_DEPTH, &aio) != 0)
        stop("io_setup");

    for (size_t page = 0; page < device_bytes / PAGE; page++) {
        expected[page] = 0x10000000 + page;
        fill(memory + page * PAGE, expected[page]);
    }
    for (size_t offset = 0; offset < device_bytes; offset += 1 << 20)
        transfer(1, memory + offset, 1 << 20, offset);
    verify();
    for (int number = 0; number < passes; number++)
        pass(number);
    verify();
    return 0;
}
