#!/bin/sh
# HAProxy with lego: lego answers http-01 on port 80 itself, and its renew hook gives HAProxy the new certificate and reloads
# it.  In master-worker mode a reload starts a new worker and lets the old one finish its connections.
#
#   HOOK=no      leave the reload out
#   EVERY        seconds between two renewals (8); `--days 3650` makes each run renew
set -eu
data=${DATA:-/srv/subject}
pem=$data/haproxy.pem
made=$data/lego/certificates/$SUBJECT_NAME
go() { lego --server "$ACME_DIRECTORY" --accept-tos --email me@example.com --domains "$SUBJECT_NAME" --http --path "$data/lego" "$@"; }

mkdir -p "$data"
cat >"$data/haproxy.cfg" <<EOF
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend tls
  bind :443 ssl crt $pem
  http-request return status 200 content-type text/plain string "served by HAProxy\n"
EOF

go run
cat "$made.crt" "$made.key" >"$pem"
haproxy -W -db -p "$data/haproxy.pid" -f "$data/haproxy.cfg" &
reload="kill -USR2 $!"
[ "${HOOK:-yes}" = yes ] || reload=true
# A file, because lego splits the hook at spaces and runs no shell.
printf '#!/bin/sh\ncat %s %s >%s && %s\n' "$made.crt" "$made.key" "$pem" "$reload" >"$data/hook"
chmod +x "$data/hook"
while sleep "${EVERY:-8}"; do
  go renew --days 3650 --no-random-sleep --renew-hook "$data/hook"
done
