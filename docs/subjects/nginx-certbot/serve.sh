#!/bin/sh
# nginx with certbot: a first certificate over http-01, then `certbot renew` every few seconds, as a timer would do twice a
# day.  The deploy hook makes nginx load the new certificate; without it (HOOK=no), nginx serves the old one until it ends.
#
#   HOOK=no      leave the hook out, to see what a forgotten reload costs
#   EVERY        seconds between two runs of `certbot renew` (5)
#   FORCE=yes    renew at each run, even if the certificate is not due
set -eu
data=${DATA:-/srv/subject}
conf=$data/nginx.conf
mkdir -p "$data/www" "$data/logs" "$data/tmp"
bot() { certbot --config-dir "$data/letsencrypt" --work-dir "$data/work" --logs-dir "$data/logs" "$@" >>"$data/logs/run.log" 2>&1; }

# Started as root without capabilities, as in a namespace of the lab, nginx cannot change to another user.
[ "$(id -u)" != 0 ] || user='user root;'
write_conf() {
  cat >"$conf" <<EOF
${user:-}
worker_processes 1;
pid $data/nginx.pid;
error_log $data/logs/error.log;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path $data/tmp; proxy_temp_path $data/tmp; fastcgi_temp_path $data/tmp;
  uwsgi_temp_path $data/tmp; scgi_temp_path $data/tmp;
  server {
    listen 80;
    location /.well-known/acme-challenge/ { root $data/www; }
    location / { return 301 https://\$host\$request_uri; }
  }
  $1
}
EOF
}

write_conf ''
nginx -c "$conf" -e "$data/logs/error.log"
bot certonly --non-interactive --agree-tos --register-unsafely-without-email --server "$ACME_DIRECTORY" \
  --webroot --webroot-path "$data/www" --domain "$SUBJECT_NAME" || { tail -3 "$data/logs/run.log"; exit 1; }
# certbot closes these folders to all but root; the lab's observer reads certificates as another user. Keys stay 0600.
chmod 755 "$data/letsencrypt/live" "$data/letsencrypt/archive"
live=$data/letsencrypt/live/$SUBJECT_NAME
write_conf "server {
    listen 443 ssl;
    ssl_certificate $live/fullchain.pem;
    ssl_certificate_key $live/privkey.pem;
    location / { return 200 'served by nginx\n'; }
  }"
nginx -c "$conf" -e "$data/logs/error.log" -s reload

hook="nginx -c $conf -e $data/logs/error.log -s reload"
[ "${HOOK:-yes}" = yes ] || hook=true
while sleep "${EVERY:-5}"; do
  bot renew --no-random-sleep-on-renew ${FORCE:+--force-renewal} --deploy-hook "$hook" || tail -1 "$data/logs/run.log"
done
