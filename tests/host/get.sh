# get PATH: what the driver domain's endpoint answers.
curl --silent --show-error --fail --max-time 5 --retry 5 --retry-all-errors --retry-delay 1 "$ENDPOINT$1"
