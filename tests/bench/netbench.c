/*
 * netbench serve, netbench measure ADDRESS: what a packet between two machines costs all that it passes.
 *
 * The one that measures tells the other over a connection of their own what to do next, and waits until it is ready for it. In the
 * first round of a case, which is not timed, the receiver compares every byte; in the others it counts.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include "marks.h"

enum { PORT = 5001, ROUNDS = 5, PIECE = 1 << 16, PATTERN = 251, PATIENCE_S = 2, ATTEMPTS = 100 };

/* What the other machine does. */
enum role {
    NOTHING, /* its system answers by itself */
    ECHO,    /* sends back what it receives, request by request */
    SINK,    /* receives all requests as one stream */
    SOURCE,  /* sends them */
    COUNT,   /* receives datagrams, of which some may be lost */
};

struct bench {
    const char *name;
    enum role role;
    int bytes;    /* of a request */
    int requests; /* of one round */
};

static const struct bench benches[] = {
    { "ping-64", NOTHING, 64, 512 },
    { "tcp-1", ECHO, 1, 512 },
    { "udp-64", COUNT, 64, 4096 },
    { "udp-1400", COUNT, 1400, 4096 },
    { "tcp-to", SINK, PIECE, 256 },
    { "tcp-from", SOURCE, PIECE, 256 },
};
enum { BENCHES = sizeof(benches) / sizeof(benches[0]) };

/* What the measuring machine tells the other. */
struct order {
    int number; /* in the table above */
    int compare;
};

/* How a round went. */
struct outcome {
    double ns;
    int received;
};

static int orders, stream, datagrams;
static uint8_t pattern[PATTERN + PIECE], buffer[PIECE];

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int checked(int result, const char *what)
{
    if (result < 0)
        stop(what);
    return result;
}

static void wrong(const struct bench *bench)
{
    fprintf(stderr, "%s: what was received is not what was sent\n", bench->name);
    exit(1);
}

static void give(int socket, const void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;)
        done += checked(send(socket, (const char *)data + done, bytes - done, 0), "send");
}

/* False when the other end has closed. */
static int take(int socket, void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        int count = checked(recv(socket, (char *)data + done, bytes - done, 0), "recv");
        if (count == 0)
            return 0;
        done += count;
    }
    return 1;
}

/* The number-th request's content. */
static const uint8_t *content(int number)
{
    return pattern + number % PATTERN;
}

static void compare(const struct bench *bench, const uint8_t *wanted)
{
    if (memcmp(buffer, wanted, bench->bytes) != 0)
        wrong(bench);
}

static void send_all(const struct bench *bench, int socket)
{
    for (int number = 0; number < bench->requests; number++)
        give(socket, content(number), bench->bytes);
}

static void receive_all(const struct bench *bench, int is_compared)
{
    for (int number = 0; number < bench->requests; number++) {
        if (!take(stream, buffer, bench->bytes))
            wrong(bench);
        if (is_compared)
            compare(bench, content(number));
    }
}

static void echo_all(const struct bench *bench)
{
    for (int number = 0; number < bench->requests; number++) {
        if (!take(stream, buffer, bench->bytes))
            wrong(bench);
        give(stream, buffer, bench->bytes);
    }
}

/* Receives until all are there or none has come for a while; the time is the last one's. */
static void count_datagrams(const struct bench *bench, int is_compared, struct outcome *outcome)
{
    double start = now_ns();

    while (outcome->received < bench->requests) {
        int count = recv(datagrams, buffer, PIECE, 0);
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (checked(count, "recv") != bench->bytes)
            wrong(bench);
        /* When none is lost they come in order. */
        if (is_compared)
            compare(bench, content(buffer[0]));
        outcome->received++;
        outcome->ns = now_ns() - start;
    }
}

/* Does the other side's part of one round. */
static void serve_round(const struct order *order)
{
    const struct bench *bench = &benches[order->number];
    struct outcome outcome = { 0 };

    give(orders, "r", 1);
    switch (bench->role) {
    case NOTHING:
        return;
    case ECHO:
        echo_all(bench);
        return;
    case SINK:
        receive_all(bench, order->compare);
        break;
    case SOURCE:
        send_all(bench, stream);
        return;
    case COUNT:
        count_datagrams(bench, order->compare, &outcome);
        break;
    }
    give(orders, &outcome, sizeof(outcome));
}

static uint16_t sum(const void *data, int bytes)
{
    uint32_t sum = 0;

    for (const uint16_t *word = data; bytes > 0; bytes -= 2)
        sum += *word++;
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16));
}

static void ping_all(const struct bench *bench, int ping)
{
    uint8_t packet[256];

    for (int number = 0; number < bench->requests; number++) {
        struct icmphdr *header = (struct icmphdr *)packet;
        memcpy(packet, content(number), bench->bytes);
        *header = (struct icmphdr){ .type = ICMP_ECHO, .un.echo = { .id = 1, .sequence = htons(number) } };
        header->checksum = sum(packet, bench->bytes);
        give(ping, packet, bench->bytes);
        /* A raw socket is given the header of IP, too. */
        int count = checked(recv(ping, buffer, sizeof(buffer), 0), "ping");
        header = (struct icmphdr *)(buffer + sizeof(struct iphdr));
        if (count != (int)sizeof(struct iphdr) + bench->bytes || header->type != ICMP_ECHOREPLY ||
            header->un.echo.sequence != htons(number) ||
            memcmp(header + 1, content(number) + sizeof(*header), bench->bytes - sizeof(*header)) != 0)
            wrong(bench);
    }
}

static void call_all(const struct bench *bench)
{
    for (int number = 0; number < bench->requests; number++) {
        give(stream, content(number), bench->bytes);
        if (!take(stream, buffer, bench->bytes))
            wrong(bench);
        compare(bench, content(number));
    }
}

static struct outcome measure_round(int number, int is_compared, int ping)
{
    const struct bench *bench = &benches[number];
    struct order order = { .number = number, .compare = is_compared };
    struct outcome outcome, theirs;
    char ready;

    give(orders, &order, sizeof(order));
    if (!take(orders, &ready, 1))
        wrong(bench);
    double start = now_ns();
    switch (bench->role) {
    case NOTHING:
        ping_all(bench, ping);
        break;
    case ECHO:
        call_all(bench);
        break;
    case SINK:
        send_all(bench, stream);
        break;
    case SOURCE:
        receive_all(bench, is_compared);
        break;
    case COUNT:
        send_all(bench, datagrams);
        break;
    }
    if ((bench->role == SINK || bench->role == COUNT) && !take(orders, &theirs, sizeof(theirs)))
        wrong(bench);
    outcome = (struct outcome){ .ns = now_ns() - start, .received = bench->requests };
    if (bench->role == COUNT)
        outcome = theirs;
    outcome.ns /= outcome.received;
    return outcome;
}

static int by_ns(const void *left, const void *right)
{
    double difference = ((const struct outcome *)left)->ns - ((const struct outcome *)right)->ns;
    return (difference > 0) - (difference < 0);
}

static void marked(const char *name, const char *moment)
{
    char text[64];

    snprintf(text, sizeof(text), "%s %s", name, moment);
    mark(text);
}

static void print(const struct bench *bench, struct outcome *rounds)
{
    int received = 0;
    double ns = 0;

    for (int round = 0; round < ROUNDS; round++) {
        received += rounds[round].received;
        ns += rounds[round].ns * rounds[round].received;
    }
    qsort(rounds, ROUNDS, sizeof(*rounds), by_ns);
    printf("bench name=%s requests=%d lost=%d median_ns=%.0f mean_ns=%.0f least_ns=%.0f most_ns=%.0f\n", bench->name,
           received, bench->requests * ROUNDS - received, rounds[ROUNDS / 2].ns, ns / received, rounds[0].ns,
           rounds[ROUNDS - 1].ns);
}

static struct sockaddr_in at(const char *address)
{
    struct sockaddr_in result = { .sin_family = AF_INET, .sin_port = htons(PORT) };

    result.sin_addr.s_addr = inet_addr(address);
    return result;
}

static int joined(int socket, struct sockaddr_in to)
{
    return connect(socket, (struct sockaddr *)&to, sizeof(to));
}

static int connected(const char *address)
{
    int one = 1;

    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        int result = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
        setsockopt(result, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (joined(result, at(address)) == 0)
            return result;
        /* The other machine is still coming up. */
        close(result);
        usleep(100000);
    }
    stop(address);
    return -1;
}

static void measure(const char *address)
{
    static struct outcome rounds[BENCHES][ROUNDS];
    struct timeval patience = { .tv_sec = PATIENCE_S };

    orders = connected(address);
    stream = connected(address);
    checked(joined(datagrams, at(address)), address);
    int ping = checked(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), "socket");
    checked(joined(ping, at(address)), address);
    setsockopt(ping, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));

    mark("none begin");
    mark("none end");
    for (int number = 0; number < BENCHES; number++) {
        const struct bench *bench = &benches[number];
        measure_round(number, 1, ping);
        marked(bench->name, "begin");
        mark_instruction();
        for (int round = 0; round < ROUNDS; round++)
            rounds[number][round] = measure_round(number, 0, ping);
        mark_instruction();
        marked(bench->name, "end");
    }
    for (int number = 0; number < BENCHES; number++)
        print(&benches[number], rounds[number]);
}

static void serve(void)
{
    struct sockaddr_in any = at("0.0.0.0");
    struct timeval patience = { .tv_sec = PATIENCE_S };
    int one = 1, room = 16 << 20;
    struct order order;

    /* Room for a whole round: what is lost is lost on the way. */
    checked(setsockopt(datagrams, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), "SO_RCVBUFFORCE");
    checked(setsockopt(datagrams, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "SO_RCVTIMEO");
    checked(bind(datagrams, (struct sockaddr *)&any, sizeof(any)), "bind");
    int listener = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    checked(bind(listener, (struct sockaddr *)&any, sizeof(any)), "bind");
    checked(listen(listener, 2), "listen");
    orders = checked(accept(listener, NULL, NULL), "accept");
    stream = checked(accept(listener, NULL, NULL), "accept");
    setsockopt(orders, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    while (take(orders, &order, sizeof(order)))
        serve_round(&order);
}

int main(int count, char **words)
{
    for (size_t byte = 0; byte < sizeof(pattern); byte++)
        pattern[byte] = byte % PATTERN;
    datagrams = checked(socket(AF_INET, SOCK_DGRAM, 0), "socket");
    if (count == 2 && strcmp(words[1], "serve") == 0)
        serve();
    else if (count == 3 && strcmp(words[1], "measure") == 0)
        measure(words[2]);
    else {
        fputs("usage: netbench serve | netbench measure ADDRESS\n", stderr);
        return 2;
    }
    return 0;
}
