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
xl create /tmp/mapping.cfg || fail "the measuring domain could not be created"
xl unpause target
wait_file_text "$CONSOLES/guest-mapping.log" "bench name=end" 600 "ERROR"
sed -n 's/.*\(bench name=\)/\1/p; s/.*ERROR/# ERROR/p' "$CONSOLES/guest-mapping.log"
xl destroy mapping
xl destroy target
