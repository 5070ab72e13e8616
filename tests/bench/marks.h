/*
 * Marks: a guest names a moment in its xenstore node data/mark and waits; Dom0 notes every domain's processor time and gives the
 * name back in data/go. What a domain used between two marks is then known without the guest asking Xen.
 */
#include "xenstore.h"

/* A mark for who counts instructions (tests/host/instructions.c): it does nothing else. */
__attribute__((unused)) static inline void mark_instruction(void)
{
    __asm__ volatile("hint #100");
}

static void mark(const char *name)
{
    char body[128];

    if (xenstore < 0) {
        xenstore_open();
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
