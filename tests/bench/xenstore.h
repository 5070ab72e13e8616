/*
 * A client of xenstore for guests, by /dev/xen/xenbus: one call at a time.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Xen's public/io/xs_wire.h. */
enum { XS_DIRECTORY = 1, XS_READ = 2, XS_WATCH = 4, XS_WRITE = 11, XS_RM = 13, XS_WATCH_EVENT = 15, XS_ERROR = 16 };

struct xs_header {
    uint32_t type, request, transaction, length;
};

static int xenstore = -1;
static char xenstore_answer[4096 + 1];
/* Watch events that came before an answer. */
static unsigned int xenstore_events;

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

/* The answer is in xenstore_answer; returns its type. */
static uint32_t xenstore_call(uint32_t type, const void *body, size_t length)
{
    uint32_t answer;
    char message[256];
    struct xs_header header = { .type = type, .length = length };

    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), body, length);
    if (write(xenstore, message, sizeof(header) + length) < 0)
        stop("xenstore");
    while ((answer = xenstore_message()) == XS_WATCH_EVENT)
        xenstore_events++;
    return answer;
}

static void xenstore_open(void)
{
    xenstore = open("/dev/xen/xenbus", O_RDWR);
    if (xenstore < 0)
        stop("/dev/xen/xenbus");
}
