# Linux' own backend of disks, for scripts of Dom0; and floors.

load_more_modules || fail "Linux' backends cannot be loaded"
install -m 755 /files/block-ready /tmp/block-ready

# blkback_disk DEVICE: a guest's disk that is a block device of Dom0, by Linux' own backend.
blkback_disk() {
    echo "disk = [ \"vdev=xvda, format=raw, access=rw, backendtype=phy, script=/tmp/block-ready, target=$1\" ]"
}
