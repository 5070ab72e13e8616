/*
 * xen-facts: numbers of the hypervisor that no tool of Xen prints exactly.
 *
 *   xen-facts free-pages        pages that no domain has
 *   xen-facts domain NUMBER     pages=... cpu_ns=... of one domain
 *   xen-facts dying             how many domains are destroyed, but not yet gone
 *
 * and one that no tool can set that finely:
 *
 *   xen-facts p2m-pool NUMBER PAGES   pages for a domain's second-stage tables, those in use included
 *
 * The structures are Xen's own public headers; the call goes through Linux' /dev/xen/privcmd.
 */
#define __XEN_TOOLS__ 1
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/sysctl.h>

struct privcmd_hypercall {
    uint64_t number;
    uint64_t argument[5];
};
#define IOCTL_PRIVCMD_HYPERCALL _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))

/* Xen reads and writes the request in place, so it must stay in memory. */
static int hypercall(uint64_t number, void *request)
{
    struct privcmd_hypercall call = { .number = number, .argument = { (uintptr_t)request } };
    int file = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);

    if (file < 0) {
        perror("/dev/xen/privcmd");
        return -1;
    }
    if (mlockall(MCL_CURRENT) != 0 || ioctl(file, IOCTL_PRIVCMD_HYPERCALL, &call) != 0) {
        perror("hypercall");
        return -1;
    }
    return 0;
}

static int free_pages(void)
{
    static xen_sysctl_t request;

    request.cmd = XEN_SYSCTL_physinfo;
    request.interface_version = XEN_SYSCTL_INTERFACE_VERSION;
    if (hypercall(__HYPERVISOR_sysctl, &request) != 0)
        return 1;
    printf("%" PRIu64 "\n", (uint64_t)request.u.physinfo.free_pages);
    return 0;
}

static int domain(const char *number)
{
    static xen_domctl_t request;

    request.cmd = XEN_DOMCTL_getdomaininfo;
    request.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    request.domain = (domid_t)atoi(number);
    if (hypercall(__HYPERVISOR_domctl, &request) != 0)
        return 1;
    /* Xen answers for the next domain when there is none of that number. */
    if (request.domain != (domid_t)atoi(number)) {
        fprintf(stderr, "no domain %s\n", number);
        return 1;
    }
    printf("pages=%" PRIu64 " cpu_ns=%" PRIu64 "\n", (uint64_t)request.u.getdomaininfo.tot_pages,
           (uint64_t)request.u.getdomaininfo.cpu_time);
    return 0;
}

static int p2m_pool(const char *number, const char *pages)
{
    static xen_domctl_t request;

    request.cmd = XEN_DOMCTL_set_paging_mempool_size;
    request.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    request.domain = (domid_t)atoi(number);
    request.u.paging_mempool.size = (uint64_t)atoi(pages) * 4096;
    return hypercall(__HYPERVISOR_domctl, &request) != 0;
}

static int dying(void)
{
    static xen_sysctl_t request;
    static xen_domctl_getdomaininfo_t domains[256];
    unsigned int number, count = 0;

    request.cmd = XEN_SYSCTL_getdomaininfolist;
    request.interface_version = XEN_SYSCTL_INTERFACE_VERSION;
    request.u.getdomaininfolist.max_domains = sizeof(domains) / sizeof(domains[0]);
    set_xen_guest_handle(request.u.getdomaininfolist.buffer, domains);
    if (hypercall(__HYPERVISOR_sysctl, &request) != 0)
        return 1;
    for (number = 0; number < request.u.getdomaininfolist.num_domains; number++)
        count += (domains[number].flags & XEN_DOMINF_dying) != 0;
    printf("%u\n", count);
    return 0;
}

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "free-pages") == 0)
        return free_pages();
    if (count == 3 && strcmp(words[1], "domain") == 0)
        return domain(words[2]);
    if (count == 2 && strcmp(words[1], "dying") == 0)
        return dying();
    if (count == 4 && strcmp(words[1], "p2m-pool") == 0)
        return p2m_pool(words[2], words[3]);
    fputs("usage: xen-facts free-pages | domain NUMBER | dying | p2m-pool NUMBER PAGES\n", stderr);
    return 2;
}
