# pester: what a web server should not be sent. Nothing is said of the answers: the endpoint must be there afterwards.
port=/dev/tcp/127.0.0.1/$ENDPOINT_PORT

# send SECONDS: a connection that sends standard input, and is closed in the middle of what comes back or after so many seconds.
send() {
    timeout "$1" bash -c "exec 3<>$port && cat >&3 && cat <&3" >/dev/null 2>&1
}

head -c 100000 /dev/urandom | send 3
yes "GET" | tr '\n' ' ' | head -c 1000000 | send 3
printf 'GET / HTTP/1.1\r\n%s\r\n' "$(yes 'X-Header: y' | head -n 20000)" | send 3
printf 'POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n' | send 3
printf 'DELETE /metrics HTTP/1.1\r\n\r\n' | send 3
printf 'GET /../../etc/passwd HTTP/1.0\r\n\r\n' | send 3
printf 'GET / HTTP/1.1\r\nHost: \0\0\r\n\r\n' | send 3
printf '\r\n\r\n\r\n' | send 1
# Many at once that say nothing, or never end what they say.
for number in $(seq 60); do
    { printf 'GET /' && sleep 4; } | send 4 &
done
wait
# Many, one after the other.
for number in $(seq 100); do
    timeout 1 bash -c "exec 3<>$port" 2>/dev/null
done
exit 0
