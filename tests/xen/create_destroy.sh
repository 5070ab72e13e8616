# promise: The driver domain comes up, says that it is ready, can be destroyed, and leaves all its pages to Xen.

cycle() {
    start_driver_domain
    xl destroy driver-domain || fail "it cannot be destroyed"
    wait_domain_gone driver-domain || fail "it does not go away"
}

# The first cycle lets Xen and Dom0 take what they keep.
cycle
before=$(xen_free_pages)
cycle
after=$(xen_free_pages)
[ "$before" = "$after" ] || fail "Xen had $before free pages before and has $after after"
