# A domain that reaches another domain's memory in many ways, and measures each.
. /files/marks.sh

{
    guest_config target
    # As in guests/mapping_target.S.
    printf '%s\n' 'kernel = "/files/mapping_target.img"' 'memory = 64'
} >/tmp/target.cfg
xl create -p /tmp/target.cfg || fail "the target could not be created"

{
    guest_config mapping
    # Address space for all of the target's memory.
    printf '%s\n' 'kernel = "/bed/mapping.img"' 'memory = 16' 'seclabel = "system_u:system_r:driver_domain_t"' \
        "extra = \"window=64M target=$(xl domid target)\""
} >/tmp/mapping.cfg
# Who waits for it must not take the processor from it: no looks at files.
exec {watch}< <(exec xenstore-watch @releaseDomain 2>/dev/null)
xl create /tmp/mapping.cfg || fail "the measuring domain could not be created"
xl unpause target
while read -r -u "$watch" _ && xl domid mapping >/dev/null 2>&1; do :; done
sed -n 's/.*\(bench name=\)/\1/p; s/.*\(ERROR\|PANIC\|FATAL\)/# \1/p' "$CONSOLES/guest-mapping.log"
xl destroy target
