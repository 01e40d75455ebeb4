#!/bin/sh
# Every host starts here: join the wide-area network, give up every privilege, become the service.
#
#   host.sh COMMAND...      the command runs as uid 1000, without any capability, below tini (where there is one)
#
# A host keeps its own /24 on-link and reaches the rest of 198.19/16 through the router `wan`; whatever default route
# Docker set for a published port goes, so nothing leaves the lab.  HOST_ROLE=wan: this host is that router.  HOST_UID:
# another uid, set by the runtime without Docker where uid 1000 could not read the interpreter.  HOST_ALSO: one more address
# of this host, in its own /24.
set -eu
wide=198.19.0.0/16
router=198.19.0.254
user=${HOST_UID:-1000}

fail() { echo "host: error: $*" >&2; exit 2; }

address=$(ip -o -4 addr show | sed -n 's#.* inet \(198\.19\.[0-9]*\.[0-9]*\)/.*#\1#p' | head -n 1)
[ -n "$address" ] || fail "expected an address in $wide, got none: is this host on the network 'internet'?"
device=$(ip -o -4 addr show | sed -n "s#^[0-9]*: *\([^ ]*\) .* inet $address/.*#\1#p")

[ -z "${HOST_ALSO:-}" ] || ip addr replace "$HOST_ALSO/32" dev "$device"

if [ "${HOST_ROLE:-host}" = wan ]; then
  [ -c /dev/net/tun ] || fail "expected the device /dev/net/tun, got none: load the kernel module 'tun', or allow the device"
  # The device is often for root alone; without Docker it is made fit before we start, and can not be changed here.
  chmod 666 /dev/net/tun 2>/dev/null || [ -w /dev/net/tun ] || fail "expected to write /dev/net/tun, got $(ls -l /dev/net/tun)"
  ip tuntap add dev wan0 mode tun user "$user"
  ip link set wan0 mtu 1500 txqueuelen 10000 up
  # Whatever comes from a host goes up into the router process; what the process writes back follows the main table.
  ip route add default dev wan0 table 100
  ip rule add iif "$device" lookup 100
else
  own=${address%.*}.0/24
  # One congestion control for everybody, so that figures mean the same on every machine (theory/slow_start.py models
  # reno); by route, since a process may not choose it and a network namespace inherits the machine's.
  control=${HOST_CONGESTION_CONTROL:-reno}
  ip route replace "$own" dev "$device" src "$address"
  ip route replace "$router" dev "$device" src "$address"
  ip route del "$wide" dev "$device" 2>/dev/null || true
  ip route replace "$wide" via "$router" dev "$device" src "$address" congctl "$control" ||
    ip route replace "$wide" via "$router" dev "$device" src "$address"
fi
ip route del default 2>/dev/null || true

# An unprivileged user namespace knows one uid only, and may not even set that.
[ "$user" = "$(id -u)" ] || ids="--reuid $user --regid $user --clear-groups"
command -v tini >/dev/null && set -- tini -- "$@"
# shellcheck disable=SC2086 # three words, or none
set -- setpriv ${ids:-} --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs "$@"
# Frames of the wire come from a packet socket that only CAP_NET_RAW may open: it is opened here, shut, and inherited.
[ "${HOST_ROLE:-host}" != wan ] || set -- python -m wan.frames --device "$device" -- "$@"
# A packet is late by as long as the router waits for a core, so it comes before everything else; where the kernel does
# not let us (no SYS_NICE, a control group without real-time), it waits its turn and says so in /admin/counters.
[ "${HOST_ROLE:-host}" != wan ] || ! chrt --rr 1 true 2>/dev/null || set -- chrt --rr 1 "$@"
exec "$@"
