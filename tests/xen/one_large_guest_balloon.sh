# promise: A guest of 5 GiB is served as in one_large_guest, when the driver domain maps its pages in place of its own RAM and nowhere else.
# time: 600
# memory: 8G
# disk: file-sets 4 1126M
# with: one_large_guest

OPTIONS='extra = "window=32M physmap=balloon"'
. /bed/one_large_guest.sh
