#!/bin/sh
# Entry point of every host: sets the routes, drops privileges, executes the service.
#
#   host.sh COMMAND...      the command runs as uid 1000, without capabilities, under tini where it is installed
#
# A host keeps its own /24 on-link and reaches the rest of the lab's /16 through the router `wan`.  The default route that
# Docker sets for published ports is removed, so no traffic leaves the lab.
#
#   HOST_ROLE=wan                  this host is the router
#   HOST_ALSO                      a second address of this host, in its own /24
#   HOST_CUBIC                     an address towards which this host uses CUBIC, whatever it uses towards others
#   HOST_NAT                       "FIRST-LAST:FIRST-LAST": connections from the first range of source ports leave with a
#                                  port of the second range, as from a small NAT (scenario `limits`); the kernel tracks them
#   HOST_CONGESTION_CONTROL        congestion control towards other regions (default reno)
#   HOST_KEEP_DEFAULT              keep the default route: this is a container of the user, with networks of its own
#   HOST_INITIAL_WINDOW            segments that a connection may send before the first acknowledgement (default: the kernel's 10)
#   HOST_UID                       another uid; set by the runtime without Docker where uid 1000 cannot read the interpreter
#   FIRSTBYTE_PREFIX               first half of every address
set -eu
prefix=10.198
user=${HOST_UID:-1000}

fail() { echo "host: error: $*" >&2; exit 2; }

[ "${FIRSTBYTE_PREFIX:-$prefix}" = "$prefix" ] ||
  fail "expected files with addresses in $FIRSTBYTE_PREFIX, got $prefix: set FIRSTBYTE_FILES to a folder that has them (.env.example)"
wide=$prefix.0.0/16
router=$prefix.0.254
address=$(ip -o -4 addr show | awk -v prefix="$prefix." '{ sub("/.*", "", $4) } index($4, prefix) == 1 { print $4; exit }')
[ -n "$address" ] || fail "expected an address in $wide, got none: is this host on the network 'internet'?"
device=$(ip -o -4 addr show | awk -v address="$address/" 'index($4, address) == 1 { print $2; exit }')

[ -z "${HOST_ALSO:-}" ] || ip addr replace "$HOST_ALSO/32" dev "$device"

if [ "${HOST_ROLE:-host}" = wan ]; then
  [ -c /dev/net/tun ] || fail "expected the device /dev/net/tun, got none: load the kernel module 'tun', or allow the device"
  # The device may be restricted to root.  Without Docker it is usable already and its mode cannot be changed here.
  chmod 666 /dev/net/tun 2>/dev/null || [ -w /dev/net/tun ] || fail "expected to write /dev/net/tun, got $(ls -l /dev/net/tun)"
  ip tuntap add dev wan0 mode tun user "$user"
  ip link set wan0 mtu 1500 txqueuelen 10000 up
  # Packets from hosts go to the router process; packets that the process writes follow the main table.
  ip route add default dev wan0 table 100
  ip rule add iif "$device" lookup 100
else
  own=${address%.*}.0/24
  # The same congestion control on every machine, so that figures are comparable (theory/slow_start.py models reno).  It is
  # set by route: an unprivileged process may not choose it, and a network namespace inherits the machine's default.
  control=${HOST_CONGESTION_CONTROL:-reno}
  ip route replace "$own" dev "$device" src "$address"
  ip route replace "$router" dev "$device" src "$address"
  ip route del "$wide" dev "$device" 2>/dev/null || true
  window=${HOST_INITIAL_WINDOW:+initcwnd $HOST_INITIAL_WINDOW}
  # shellcheck disable=SC2086 # two words, or none
  ip route replace "$wide" via "$router" dev "$device" src "$address" $window congctl "$control" ||
    ip route replace "$wide" via "$router" dev "$device" src "$address" $window
  # A kernel without CUBIC uses the route above; the scenario `congestion` says so.
  [ -z "${HOST_CUBIC:-}" ] || ip route replace "$HOST_CUBIC" via "$router" dev "$device" src "$address" congctl cubic || true
fi
[ -n "${HOST_KEEP_DEFAULT:-}" ] || ip route del default 2>/dev/null || true

# Only the connections of this NAT are tracked, so that it costs others nothing.  Without nft, or if the kernel lacks
# connection tracking, `limits` leaves this part out and says so.
if [ -n "${HOST_NAT:-}" ] && command -v nft >/dev/null; then
  inside=${HOST_NAT%:*} outside=${HOST_NAT#*:}
  nft -f - 2>/dev/null <<EOF || true
table ip firstbyte_nat {
  chain out { type filter hook output priority raw; tcp sport $inside accept; notrack; }
  chain in { type filter hook prerouting priority raw; tcp dport $outside accept; notrack; }
  chain translate { type nat hook postrouting priority srcnat; tcp sport $inside masquerade to :$outside; }
}
EOF
fi

# An unprivileged user namespace has a single uid, which cannot even be set again.
[ "$user" = "$(id -u)" ] || ids="--reuid $user --regid $user --clear-groups"
command -v tini >/dev/null && set -- tini -- "$@"
# shellcheck disable=SC2086 # three words, or none
set -- setpriv ${ids:-} --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs "$@"
# The packet socket for frames needs CAP_NET_RAW: it is opened here and inherited, but receives nothing until requested.
[ "${HOST_ROLE:-host}" != wan ] || set -- python -m wan.frames --device "$device" -- "$@"
# The router delays packets by as long as it waits for a core, so it gets real-time priority where the kernel grants it
# (SYS_NICE, a control group with real-time budget); /admin/counters says whether it has.
[ "${HOST_ROLE:-host}" != wan ] || ! chrt --rr 1 true 2>/dev/null || set -- chrt --rr 1 "$@"
exec "$@"
