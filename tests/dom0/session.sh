# What Dom0 does once it is up: runs the script that the host gave, and hands back what came of it.
#
# The script's output, our own messages (lines that start with ^A) and the host's word to stop share one port.

cd /files
export OUT=/run/out BASH_ENV=/bed/bed.sh
mkdir -p "$OUT"
. /run/job/job.env

if [ ! -s /run/job/script.sh ]; then
    # No script: a shell on the console; the machine ends with it.
    export TERM=linux PS1='dom0:\w# '
    setsid -c bash --rcfile /bed/bed.sh -i </dev/hvc0 >/dev/hvc0 2>&1
    poweroff -f
fi

# Whichever virtio device of Dom0's it is.
exec 3<>"$(echo /dev/vport*p1)"
printf '\1bed start\n' >&3
setsid bash /run/job/script.sh </dev/null >&3 2>&1 3>&- &
script=$!
# `stop` from the host ends the script and all that it started.
(read -r _ <&3 && kill -TERM -- "-$script") &
wait "$script"
status=$?

ln -s /var/log/xen/console "$OUT/console" 2>/dev/null
xl dmesg >"$OUT/xen.log" 2>/dev/null
cp -r /var/log/xen/*.log "$OUT" 2>/dev/null
tar -chf - -C "$OUT" . | dd of=/run/disk-results bs=1M conv=fsync 2>/dev/null
printf '\n\1bed exit %d\n' "$status" >&3
# The host stops the machine.
sleep 1000
