/*
 * Marks: a guest names a moment in its xenstore node data/mark and waits; Dom0 notes every domain's processor time and gives the
 * name back in data/go. What a domain used between two marks is then known without the guest asking Xen.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Xen's public/io/xs_wire.h. */
enum { XS_READ = 2, XS_WATCH = 4, XS_WRITE = 11, XS_WATCH_EVENT = 15 };

struct xs_header {
    uint32_t type, request, transaction, length;
};

static int xenstore = -1;
static char xenstore_answer[4096 + 1];

static void stop(const char *what)
{
    perror(what);
    exit(1);
}

static void read_all(void *to, size_t length)
{
    for (char *at = to; length > 0;) {
        ssize_t count = read(xenstore, at, length);
        if (count <= 0)
            stop("xenstore");
        at += count;
        length -= count;
    }
}

/* Takes one message into xenstore_answer, a string, and returns its type. */
static uint32_t xenstore_message(void)
{
    struct xs_header header;

    read_all(&header, sizeof(header));
    if (header.length > sizeof(xenstore_answer) - 1) {
        fputs("xenstore: a message that is too long\n", stderr);
        exit(1);
    }
    read_all(xenstore_answer, header.length);
    xenstore_answer[header.length] = '\0';
    return header.type;
}

static void xenstore_call(uint32_t type, const void *body, size_t length)
{
    char message[256];
    struct xs_header header = { .type = type, .length = length };

    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), body, length);
    if (write(xenstore, message, sizeof(header) + length) < 0)
        stop("xenstore");
    while (xenstore_message() == XS_WATCH_EVENT)
        continue;
}

/* A mark for who counts instructions (tests/host/instructions.c): it does nothing else. */
__attribute__((unused)) static inline void mark_instruction(void)
{
    __asm__ volatile("hint #100");
}

static void mark(const char *name)
{
    char body[128];

    if (xenstore < 0) {
        xenstore = open("/dev/xen/xenbus", O_RDWR);
        if (xenstore < 0)
            stop("/dev/xen/xenbus");
        xenstore_call(XS_WATCH, "data/go\0go", sizeof("data/go\0go"));
    }
    int length = snprintf(body, sizeof(body), "data/mark%c%s", 0, name);
    xenstore_call(XS_WRITE, body, length);
    for (;;) {
        xenstore_call(XS_READ, "data/go", sizeof("data/go"));
        if (strcmp(xenstore_answer, name) == 0)
            return;
        while (xenstore_message() != XS_WATCH_EVENT)
            continue;
    }
}
