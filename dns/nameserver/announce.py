"""Send NOTIFY: the socket, the timer and the log for `nameserver.notify`."""

import asyncio
import contextlib
import random
import socket

from dnsmessage import Name, Record, RemoteError, rcode_to_text, rdtypes
from dnsmessage.tsig import Verifier, sign
from nameserver.access import Access, Target
from nameserver.notify import Notice, Notifier, targets
from nameserver.zone import Zone
from telemetry import Telemetry, log

logger = log.get("nameserver")


class Announcer:
    """Sends NOTIFY for changed zones, from a separate port of the address that this server listens on."""

    def __init__(self, telemetry: Telemetry, access: Access, address: str) -> None:
        """Open the socket on the IPv4 *address*; raise `OSError` if this host does not have that address."""
        self._access, self._address, self._clock = access, address, telemetry.clock
        self._core = Notifier(random.SystemRandom())
        self._count = telemetry.metrics.counter(
            "firstbyte_nameserver_notifies_total", "NOTIFY messages sent, answered and given up", "outcome"
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: Verifier for the answer to the latest signed NOTIFY, keyed by zone and target.
        self._verifiers: dict[tuple[Name, Target], Verifier] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((address, 0))
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def __repr__(self) -> str:
        return f"<Announcer {self._core!r}>"

    def changed(self, zone: Zone, *, primary: bool) -> None:
        """Announce the serial number of *zone*; if *primary* is True, also to the servers in its NS records."""
        soa = Record(zone.apex, rdtypes.SOA, zone.soa.ttl, zone.soa.rdata[0])
        self._core.changed(soa, targets(zone, self._access, self._address, primary=primary), self._clock.monotonic())
        self._schedule()

    def close(self) -> None:
        """Drop pending announcements and close the socket."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = self._core.next()
        self._timer = None if at is None else self._loop.call_later(max(0.0, at - self._clock.monotonic()), self._turn)

    def _turn(self) -> None:
        for notice in self._core.due(self._clock.monotonic()):
            self._log("given_up" if notice.given_up else "sent", notice)
            if notice.given_up:
                continue
            wire, key = notice.wire, notice.target.key
            if key is not None:
                wire, mac = sign(wire, self._access.keys[key], int(self._clock.time()))
                self._verifiers[notice.apex, notice.target] = Verifier(self._access.keys[key], mac)
            with contextlib.suppress(OSError):  # unreachable, or the buffer is full: `Notifier` retries
                self._socket.sendto(wire, (notice.target.address, notice.target.port))
        self._schedule()

    def _readable(self) -> None:
        try:
            wire, source = self._socket.recvfrom(4096)
        except OSError:  # an ICMP error for an earlier message
            return
        notice = self._core.acknowledged(wire, source)
        if notice is None:
            return
        try:
            if notice.target.key is not None:
                self._verifiers.pop((notice.apex, notice.target)).verify(wire, int(self._clock.time()))
        except RemoteError as error:
            logger.warning("notify_answer_rejected", server=source[0], error=str(error))
        self._log("answered", notice, rcode=rcode_to_text(wire[3] & 0xF))
        self._schedule()

    def _log(self, outcome: str, notice: Notice, **more: str) -> None:
        self._count.inc(outcome=outcome)
        level = logger.warning if notice.given_up else logger.info
        level(f"notify_{outcome}", zone=str(notice.apex), serial=notice.serial, server=notice.target.address, **more)
