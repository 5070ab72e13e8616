# metrics: the endpoint's page of metrics, if Prometheus' own tool has nothing against it.
set -e
curl --silent --show-error --fail --max-time 5 --retry 5 --retry-all-errors --retry-delay 1 "$ENDPOINT/metrics" >metrics
"$PROMTOOL" check metrics <metrics >promtool.log 2>&1 || { cat promtool.log; exit 1; }
cat metrics
