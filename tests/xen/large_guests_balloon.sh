# promise: Four guests of 1 GiB are served as in large_guests, when the driver domain maps their pages in place of its own RAM and nowhere else.
# time: 600
# memory: 8G
# disk: file-sets 4 1126M
# with: large_guests

OPTIONS='extra = "window=32M physmap=balloon"'
. /bed/large_guests.sh
