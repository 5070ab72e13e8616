# Two equal guests one after the other: a disk of the driver domain, then one of Linux' own backend in Dom0; both in RAM.
. /files/marks.sh

bench() {
    local name=$1
    shift
    make_guest "$name" cloud /files/disk.job "$@" || fail "guest $name could not be created"
    answer_marks "$name" "$name" driver-domain 0
    grep '^bench ' "$CONSOLES/guest-$name.log" | sed "s/^bench /bench guest=$name /"
}

load_more_modules || fail "Linux' backends cannot be loaded"
install -m 755 /files/block-ready /tmp/block-ready
export GUEST_FILES=/files/guest
echo "$VOLUME_BYTES" >/files/guest/volume-bytes
start_driver_domain "memory = $DRIVER_DOMAIN_MEMORY"
bench ours "$(guest_disk "ram:$VOLUME_BYTES")"
bench blkback "disk = [ \"vdev=xvda, format=raw, access=rw, backendtype=phy, script=/tmp/block-ready, target=/dev/ram0\" ]"
