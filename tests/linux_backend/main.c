/*
 * linux-backend all|each BYTES: serves the next guest that is to have a virtio disk of Dom0, of BYTES of a block device, until it is gone.
 *
 * The device model is the driver domain's own (src/lib.rs). Around it is what any virtio backend does that is a process of Linux: an
 * IOREQ server, by libxendevicemodel, and the guest's memory, by libxenforeignmemory: `all` of it mapped before the guest starts, or the
 * buffers of `each` request mapped for it and unmapped after it. The rings stay mapped.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <xen/xen.h>
#include <xen/hvm/dm_op.h>
#include <xen/hvm/ioreq.h>
#include <xen/memory.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xenstore.h>

enum { PAGE = 4096, REGISTERS = 0x200, MOST_VCPUS = 8 };

/* Backend states that matter here (io/xenbus.h). */
enum { INITIALISING = 1, INIT_WAIT = 2, CLOSING = 5, CLOSED = 6 };

#define DISKS "/local/domain/0/backend/virtio_disk"

/* The device model, in Rust. */
struct backend;
struct backend *backend_new(uint64_t bytes);
uint64_t backend_read(const struct backend *backend, uint32_t offset, uint32_t width);
bool backend_write(struct backend *backend, uint32_t offset, uint32_t width, uint64_t value);
bool backend_process(struct backend *backend);
void backend_free(struct backend *backend);

static struct xs_handle *store;
static xendevicemodel_handle *models;
static xenforeignmemory_handle *memory;
static xenevtchn_handle *channels;

static char disk[128]; /* its directory in xenstore */
static domid_t guest;
static uint64_t base;
static unsigned int irq;
static int device; /* of Dom0's: the disk is on it */
static struct backend *backend;

static ioservid_t server;
static shared_iopage_t *slots;
static unsigned int vcpus;
static evtchn_port_t ports[MOST_VCPUS];

/* The guest's RAM, if it is mapped at all times, and which of its pages are not there. */
static uint8_t *ram;
static size_t ram_pages;
static int *ram_errors;

static void stop(const char *what)
{
    perror(what);
    exit(1);
}

/* The number at a node, -1 if it is not there. */
static long long number_at(const char *directory, const char *leaf)
{
    char path[192];
    long long number = -1;

    snprintf(path, sizeof(path), "%s/%s", directory, leaf);
    char *text = xs_read(store, XBT_NULL, path, NULL);
    if (text != NULL)
        number = atoll(text);
    free(text);
    return number;
}

static void tell_state(int state)
{
    char path[192], text[] = { '0' + state, 0 };

    snprintf(path, sizeof(path), "%s/state", disk);
    if (!xs_write(store, XBT_NULL, path, text, 1))
        stop(path);
}

/* Waits for a disk to serve. All that there is to know of one comes at once. */
static void find_disk(void)
{
    unsigned int domain, number, count;
    char path[192];

    for (;;) {
        char **event = xs_read_watch(store, &count);
        if (event == NULL)
            stop("xenstore");
        bool is_disk = sscanf(event[XS_WATCH_PATH], DISKS "/%u/%u", &domain, &number) == 2;
        free(event);
        if (!is_disk)
            continue;
        snprintf(disk, sizeof(disk), DISKS "/%u/%u", domain, number);
        if (number_at(disk, "state") == INITIALISING)
            break;
    }
    snprintf(path, sizeof(path), "%s/params", disk);
    char *name = xs_read(store, XBT_NULL, path, NULL);
    device = name == NULL ? -1 : open(name, O_RDWR);
    free(name);
    if (device < 0)
        stop("the block device");
    guest = domain;
    base = number_at(disk, "base");
    irq = number_at(disk, "irq");
}

static bool is_closing(void)
{
    char **event;

    while ((event = xs_check_watch(store)) != NULL)
        free(event);
    long long state = number_at(disk, "state");
    return state < INIT_WAIT || state == CLOSING || number_at(disk, "online") == 0;
}

static uint8_t *map(uint64_t frame, size_t pages, int *errors)
{
    xen_pfn_t *frames = malloc(pages * sizeof(*frames));

    for (size_t page = 0; page < pages; page++)
        frames[page] = frame + page;
    uint8_t *start = xenforeignmemory_map(memory, guest, PROT_READ | PROT_WRITE, pages, frames, errors);
    free(frames);
    return start;
}

static void map_all(void)
{
    char directory[64];

    snprintf(directory, sizeof(directory), "/local/domain/%u/memory", guest);
    ram_pages = number_at(directory, "static-max") / (PAGE / 1024);
    ram_errors = calloc(ram_pages, sizeof(*ram_errors));
    ram = map(GUEST_RAM0_BASE / PAGE, ram_pages, ram_errors);
    if (ram == NULL)
        stop("the guest's memory");
}

/* For the device model: pages of the guest from `frame` on, or null. */
uint8_t *host_map(uint64_t frame, size_t pages)
{
    uint64_t first = frame - GUEST_RAM0_BASE / PAGE;

    if (ram == NULL)
        return map(frame, pages, NULL);
    if (first >= ram_pages || pages > ram_pages - first)
        return NULL;
    for (size_t page = 0; page < pages; page++) {
        if (ram_errors[first + page] != 0)
            return NULL;
    }
    return ram + first * PAGE;
}

void host_unmap(uint8_t *start, size_t pages)
{
    if (ram == NULL)
        xenforeignmemory_unmap(memory, start, pages);
}

/* For the device model, too: true if all `bytes` of the pieces were read or written, from byte `at` of the device on. */
bool host_transfer(bool is_write, const struct iovec *pieces, size_t count, size_t bytes, uint64_t at)
{
    ssize_t done = is_write ? pwritev(device, pieces, count, at) : preadv(device, pieces, count, at);

    return done == (ssize_t)bytes;
}

void host_raise(void)
{
    xendevicemodel_set_irq_level(models, guest, irq, 1);
}

static void start_server(void)
{
    void *page = NULL;

    if (xendevicemodel_nr_vcpus(models, guest, &vcpus) != 0 || vcpus > MOST_VCPUS)
        stop("vCPUs");
    if (xendevicemodel_create_ioreq_server(models, guest, HVM_IOREQSRV_BUFIOREQ_OFF, &server) != 0)
        stop("IOREQ server");
    if (xenforeignmemory_map_resource(memory, guest, XENMEM_resource_ioreq_server, server,
                                      XENMEM_resource_ioreq_server_frame_ioreq(0), 1, &page,
                                      PROT_READ | PROT_WRITE, 0) == NULL)
        stop("IOREQ page");
    slots = page;
    if (xendevicemodel_map_io_range_to_ioreq_server(models, guest, server, 1, base, base + REGISTERS - 1) != 0)
        stop("registers");
    if (xendevicemodel_set_ioreq_server_state(models, guest, server, 1) != 0)
        stop("IOREQ server");
    for (unsigned int vcpu = 0; vcpu < vcpus; vcpu++) {
        int port = xenevtchn_bind_interdomain(channels, guest, slots->vcpu_ioreq[vcpu].vp_eport);
        if (port < 0)
            stop("event channel");
        ports[vcpu] = port;
    }
}

/* Answers the access of a vCPU. Returns whether the device model has work now: the guest does not wait for that. */
static bool answer(unsigned int vcpu)
{
    ioreq_t *access = &slots->vcpu_ioreq[vcpu];
    bool has_work = false;

    if (access->state != STATE_IOREQ_READY)
        return false;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (access->type == IOREQ_TYPE_COPY && access->dir == IOREQ_READ)
        access->data = backend_read(backend, access->addr - base, access->size);
    else if (access->type == IOREQ_TYPE_COPY)
        has_work = backend_write(backend, access->addr - base, access->size, access->data);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    access->state = STATE_IORESP_READY;
    xenevtchn_notify(channels, ports[vcpu]);
    return has_work;
}

static void serve(void)
{
    struct pollfd files[] = {
        { .fd = xenevtchn_fd(channels), .events = POLLIN },
        { .fd = xs_fileno(store), .events = POLLIN },
    };

    for (;;) {
        if (poll(files, 2, -1) < 0)
            stop("poll");
        if (files[1].revents != 0 && is_closing())
            return;
        if (files[0].revents == 0)
            continue;
        int port = xenevtchn_pending(channels);
        if (port < 0 || xenevtchn_unmask(channels, port) != 0)
            stop("event channel");
        bool has_work = false;
        for (unsigned int vcpu = 0; vcpu < vcpus; vcpu++)
            has_work |= ports[vcpu] == (evtchn_port_t)port && answer(vcpu);
        while (has_work)
            has_work = backend_process(backend);
    }
}

/* Lets go of all that is the guest's, before xl is told so and destroys it. */
static void stop_serving(void)
{
    xendevicemodel_destroy_ioreq_server(models, guest, server);
    backend_free(backend);
    if (ram != NULL)
        xenforeignmemory_unmap(memory, ram, ram_pages);
}

int main(int count, char **words)
{
    if (count != 3 || (strcmp(words[1], "all") != 0 && strcmp(words[1], "each") != 0)) {
        fputs("usage: linux-backend all|each BYTES\n", stderr);
        return 2;
    }
    store = xs_open(0);
    models = xendevicemodel_open(NULL, 0);
    memory = xenforeignmemory_open(NULL, 0);
    channels = xenevtchn_open(NULL, 0);
    if (store == NULL || models == NULL || memory == NULL || channels == NULL)
        stop("Xen");
    backend = backend_new(strtoull(words[2], NULL, 10));
    if (!xs_watch(store, DISKS, "disk"))
        stop(DISKS);
    find_disk();
    if (strcmp(words[1], "all") == 0)
        map_all();
    start_server();
    tell_state(INIT_WAIT);
    serve();
    stop_serving();
    tell_state(CLOSED);
    return 0;
}
