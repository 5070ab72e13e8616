# What Dom0 does once it is up: runs the script that the host gave, and hands back what came of it.
#
# The script's output, our own messages (lines that start with ^A), what it asks the host for, the host's answers and its word to stop
# share one port.

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
# Open for both ends: who writes never waits for a reader, nor is a request or an answer lost between two of them.
mkfifo /run/host-requests /run/host-answers
exec 4<>/run/host-requests 5<>/run/host-answers
setsid bash /run/job/script.sh </dev/null >&3 2>&1 3>&- 4>&- 5>&- &
script=$!
(while read -r request <&4; do printf '\1host %s\n' "$request" >&3; done) &
# `stop` from the host ends the script and all that it started.
(while IFS= read -r line <&3; do
    case $line in
    stop) kill -TERM -- "-$script" ;;
    *) printf '%s\n' "$line" >&5 ;;
    esac
done) &
wait "$script"
status=$?

ln -s /var/log/xen/console "$OUT/console" 2>/dev/null
xl dmesg >"$OUT/xen.log" 2>/dev/null
cp -r /var/log/xen/*.log "$OUT" 2>/dev/null
tar -chf - -C "$OUT" . | dd of=/run/disk-results bs=1M conv=fsync 2>/dev/null
printf '\n\1bed exit %d\n' "$status" >&3
# The host stops the machine.
sleep 1000
