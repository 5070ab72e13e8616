# promise: What a guest was told is synced survives a loss of power, of a volume's bytes and of a file system's files.
# time: 150
# disk: two-partitions
# power-cuts: 3

# Each record lies behind the one before it, which stays as it is. Another writer does not wait for anything to be flushed.
cat >bytes <<'JOB'
(while sleep 0.1; do
    dd if=/dev/urandom of=/dev/vda bs=16k count=4 seek=$((3840 + RANDOM % 250)) oflag=direct 2>/dev/null
done) &
at=0
while [ "$at" -lt $((59 << 20)) ]; do
    length=$(((RANDOM % 8 + 1) * 4096))
    head -c "$length" /dev/urandom >/tmp/record
    dd if=/tmp/record of=/dev/vda bs=4096 seek=$((at / 4096)) conv=fsync,notrunc 2>/dev/null || exit
    sum=$(sha256sum </tmp/record)
    echo "synced bytes $at $length ${sum%% *}"
    at=$((at + length))
done
JOB
cat >files <<'JOB'
set -e
# e2fsck takes the mark of an orphan file, after a replay, for damage.
mke2fs -q -t ext4 -O ^orphan_file /dev/vda
mount -t ext4 /dev/vda /mnt
number=0
while :; do
    number=$((number + 1))
    head -c "$((RANDOM * 3))" /dev/urandom >/tmp/file
    dd if=/tmp/file "of=/mnt/$number" bs=64k conv=fsync 2>/dev/null
    sum=$(sha256sum </tmp/file)
    echo "synced file $number ${sum%% *}"
done
JOB

# console NAME: the lines of guest NAME's console as they come, until its job ends.
console() {
    local log=$CONSOLES/guest-$1.log line= part=
    wait_file_text "$log" "synced" 90 || return
    while sleep 0.1; do
        while IFS= read -r part; do
            echo "$line$part"
            [[ $line$part != *"the job ended"* ]] || return
            line=
        done <&3
        line+=$part
    done 3<"$log"
}

start_driver_domain
make_guest bytes cloud bytes "$(guest_disk blk0:part=1)" || fail "the guest that writes bytes could not be created"
make_guest files cloud files "$(guest_disk blk0:label=second)" || fail "the guest that writes files could not be created"
console bytes &
console files &
# The machine is stopped before a guest ends.
wait -n
fail "a guest has ended, or says nothing"
