/*
 * The first and only process of a Linux that serves disks in RAM and NICs by its own backends, xen-blkback and xen-netback. It does what
 * `xl devd` and its scripts do in a driver domain, at the least cost in memory: no shell, no library, no file but the modules.
 *
 * It says in its xenstore node data/ready that it serves, and in data/available, whenever data/report changes, what memory is left.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include "xenstore.h"

#define BRIDGE "xenbr0"
#define ADDRESS "10.0.9.1"
#define NETMASK "255.255.255.0"
/* Of brd: as many disks, as many KiB each, as the guests have. */
#define DISKS "rd_nr=4 rd_size=1024"

static void insert_modules(void)
{
    struct dirent **entries;
    int count = scandir("/modules", &entries, NULL, alphasort);

    for (int index = 0; index < count; index++) {
        char path[300];

        if (entries[index]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/modules/%s", entries[index]->d_name);
        int module = open(path, O_RDONLY);
        if (module < 0 || syscall(SYS_finit_module, module, strstr(path, "brd") ? DISKS : "", 0) != 0)
            stop(path);
        close(module);
    }
}

/* A socket for questions about interfaces. */
static int interfaces;

static int interface_up(const char *name)
{
    struct ifreq request = { .ifr_flags = IFF_UP };

    snprintf(request.ifr_name, IFNAMSIZ, "%.*s", IFNAMSIZ - 1, name);
    return ioctl(interfaces, SIOCSIFFLAGS, &request);
}

static void make_bridge(void)
{
    struct ifreq request = { .ifr_name = BRIDGE };
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;

    interfaces = socket(AF_INET, SOCK_DGRAM, 0);
    if (interfaces < 0 || ioctl(interfaces, SIOCBRADDBR, BRIDGE) != 0)
        stop("no bridge");
    address->sin_family = AF_INET;
    inet_pton(AF_INET, ADDRESS, &address->sin_addr);
    if (ioctl(interfaces, SIOCSIFADDR, &request) != 0)
        stop("no address for the bridge");
    inet_pton(AF_INET, NETMASK, &address->sin_addr);
    if (ioctl(interfaces, SIOCSIFNETMASK, &request) != 0 || interface_up(BRIDGE) != 0)
        stop("the bridge is not up");
}

/* Reads FOLDER/NAME to `value`; false when it is not there. */
static int read_node(const char *folder, const char *name, char *value, size_t size)
{
    char path[200];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (xenstore_call(XS_READ, path, strlen(path) + 1) == XS_ERROR)
        return 0;
    snprintf(value, size, "%.*s", (int)size - 1, xenstore_answer);
    return 1;
}

static void write_node(const char *folder, const char *name, const char *value)
{
    char body[256];

    xenstore_call(XS_WRITE, body, snprintf(body, sizeof(body), "%s/%s%c%s", folder, name, 0, value));
}

/* Does what a device at `path` waits for; false when it cannot be done yet. */
static int serve(const char *path, const char *type, const char *domain, const char *device)
{
    char value[200];

    if (read_node(path, "state", value, sizeof(value)) && strcmp(value, "6") == 0
        && read_node(path, "online", value, sizeof(value)) && strcmp(value, "0") == 0) {
        xenstore_call(XS_RM, path, strlen(path) + 1);
        return 1;
    }
    if (read_node(path, "hotplug-status", value, sizeof(value)) && strcmp(value, "connected") == 0)
        return 1;
    if (strcmp(type, "vbd") == 0) {
        struct stat disk;

        if (!read_node(path, "params", value, sizeof(value)) || stat(value, &disk) != 0)
            return 0;
        snprintf(value, sizeof(value), "%x:%x", major(disk.st_rdev), minor(disk.st_rdev));
        write_node(path, "physical-device", value);
    } else {
        struct ifreq request = { .ifr_name = BRIDGE };

        snprintf(value, sizeof(value), "vif%s.%s", domain, device);
        request.ifr_ifindex = if_nametoindex(value);
        if (request.ifr_ifindex == 0)
            return 0;
        if ((ioctl(interfaces, SIOCBRADDIF, &request) != 0 && errno != EBUSY) || interface_up(value) != 0)
            stop(value);
    }
    write_node(path, "hotplug-status", "connected");
    return 1;
}

/* Calls `each` with every entry of the folder `path`. */
static int for_each(const char *path, int (*each)(const char *path, const char *type, const char *domain, const char *name),
                    const char *type, const char *domain)
{
    char names[sizeof(xenstore_answer)];
    int done = 1;

    if (xenstore_call(XS_DIRECTORY, path, strlen(path) + 1) == XS_ERROR)
        return 1;
    memcpy(names, xenstore_answer, sizeof(names));
    for (const char *name = names; *name != '\0'; name += strlen(name) + 1) {
        char below[200];

        snprintf(below, sizeof(below), "%s/%s", path, name);
        done &= each(below, type, domain, name);
    }
    return done;
}

static int serve_domain(const char *path, const char *type, const char *unused, const char *domain)
{
    (void)unused;
    return for_each(path, serve, type, domain);
}

/* Answers data/report, once for each of its values. */
static void report(void)
{
    static char last[32];
    char wanted[sizeof(last)], text[4096];

    if (!read_node("data", "report", wanted, sizeof(wanted)) || strcmp(wanted, last) == 0)
        return;
    strcpy(last, wanted);
    int file = open("/proc/meminfo", O_RDONLY);
    ssize_t length = read(file, text, sizeof(text) - 1);
    close(file);
    if (length < 0)
        stop("/proc/meminfo");
    text[length] = '\0';
    const char *available = strstr(text, "MemAvailable:");
    char answer[64];
    snprintf(answer, sizeof(answer), "%s %ld", wanted, available ? strtol(available + 13, NULL, 10) : -1);
    write_node("data", "available", answer);
}

static void watch(const char *path)
{
    char body[64];

    /* The second string is a token of our own. */
    xenstore_call(XS_WATCH, body, snprintf(body, sizeof(body), "%s%cx", path, 0) + 1);
}

int main(void)
{
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int standard = 0; standard < 3; standard++)
        dup2(console, standard);
    insert_modules();
    make_bridge();
    xenstore_open();
    watch("backend");
    watch("data/report");
    write_node("data", "ready", "1");
    for (;;) {
        xenstore_events = 0;
        int done = for_each("backend/vbd", serve_domain, "vbd", NULL) & for_each("backend/vif", serve_domain, "vif", NULL);
        report();
        if (xenstore_events > 0)
            continue;
        struct pollfd news = { .fd = xenstore, .events = POLLIN };
        if (poll(&news, 1, done ? -1 : 50) > 0)
            xenstore_message();
    }
}
