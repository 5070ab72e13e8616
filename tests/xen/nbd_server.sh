# promise: A guest's disk on Debian's nbd-server: the same as nbd_qemu, with one restart.
# time: 200
# nic: user
# service: nbd-server 256M
# with: nbd_qemu

SERVER=nbd-server
PORT=$NBD_SERVER_PORT
ROUNDS=25
ABSENCES=3
. /bed/nbd_qemu.sh
