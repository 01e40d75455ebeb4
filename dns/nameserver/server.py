"""Name server process: sockets, counters and fault switches, and the path of every change to a zone."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import serving
from dnsmessage import Name, rcode_to_text
from nameserver.access import Access
from nameserver.admin import Admin
from nameserver.changes import Change, History
from nameserver.compiled import Compiled, compile_zone
from nameserver.master_file import load
from nameserver.query_log import QueryLog
from nameserver.requests import Outcome, Requests
from nameserver.responder import Responder, Response
from nameserver.zone import Zone
from telemetry import Telemetry, log

logger = log.get("nameserver")

#: Number of queries kept for ``GET /admin/queries``, about as many as an experiment sends in a few seconds.
QUERY_LOG = 2000
#: Interpreter thread-switch interval, in seconds (Python's default is 5 ms). The short interval keeps queries from
#: waiting while a zone is compiled in a thread.
SWITCH_INTERVAL = 0.001


class Server:
    """A name server that serves a set of zones on one address."""

    def __init__(self, telemetry: Telemetry, files: dict[str, Path], access: Access | None = None) -> None:
        """Load the zones in *files*, a dict from origin to master file; *access* says who may transfer or change them.

        Raises:
            ZoneFileError: a file cannot be read or is not a valid zone.
        """
        self.telemetry = telemetry
        self.files = {Name.from_text(origin): path for origin, path in files.items()}
        self.responder = Responder({apex: load(str(apex), path) for apex, path in self.files.items()})
        self.queries = QueryLog(QUERY_LOG)
        self.histories: dict[Name, History] = {}
        self.requests = Requests(self.responder, access or Access(), self.histories)
        self._changing = asyncio.Lock()
        self._reloading: set[asyncio.Task[None]] = set()
        sys.setswitchinterval(SWITCH_INTERVAL)
        metrics = telemetry.metrics
        self._count = metrics.counter(
            "firstbyte_nameserver_queries_total", "Queries by transport and rcode", "transport", "rcode"
        )
        self._dropped = metrics.counter("firstbyte_nameserver_dropped_total", "Queries without an answer", "reason")
        serials = metrics.gauge("firstbyte_nameserver_zone_serial", "Serial of each zone", "zone")

        #: Finished answers sent since the last metrics scrape. They are counted here because updating a labelled
        #: counter for each batch costs as much as the batch's lookups.
        self._finished = 0

        def refresh() -> None:
            self._count.inc(self._finished, transport="udp", rcode="NOERROR")
            self._finished = 0
            for apex, zone in self.responder.zones.items():
                serials.set(zone.serial, zone=str(apex))

        metrics.before_render(refresh)
        telemetry.faults.declare("drop_answers", "Drop answers with this probability", probability=1.0, seed=0)
        telemetry.faults.declare("delay_answers", "Answer this many milliseconds late", ms=1000.0)
        telemetry.faults.declare("servfail", "Answer SERVFAIL with this probability", probability=1.0, seed=0)
        self.admin = Admin(self)
        self.admin.route(telemetry)
        telemetry.health.set("zones", ok=True, detail=", ".join(map(str, self.responder.zones)))

    async def start(self, endpoint: tuple[str, int], *, shared: bool = False) -> serving.Listener:
        """Listen on *endpoint*; raise `OSError` if the address is in use. *shared* enables SO_REUSEPORT."""
        listener = await serving.start(endpoint, self.handle, finished=self, shared=shared)
        self.telemetry.health.set("listener", ok=True, detail=f"{listener.address[0]}:{listener.address[1]}")
        return listener

    def handle(self, wire: bytes, client: tuple[str, int], transport: serving.Transport) -> Any:
        """Return the reply to one query; an awaitable if it takes time; None if no reply is sent."""
        udp = transport == "udp"
        outcome: Response | Outcome | None = self.responder.finished(wire, udp=udp)
        if outcome is None:
            other = self.requests.respond(wire, client[0], self.telemetry.clock.time, udp=udp)
            if other is None:
                self._dropped.inc(reason="not_a_query")
                return None
            if not isinstance(other, Outcome):
                return self._later(other, wire, client[0], transport)
            outcome = other
        return self._counted(outcome, wire, client[0], transport)

    async def _later(
        self, outcome: Awaitable[Outcome], wire: bytes, client: str, transport: serving.Transport
    ) -> serving.Reply:
        reply = self._counted(await outcome, wire, client, transport)
        return await reply if isinstance(reply, Awaitable) else reply

    def _counted(
        self, outcome: Outcome | Response, wire: bytes, client: str, transport: serving.Transport
    ) -> serving.Reply | Awaitable[serving.Reply]:
        """Count and log a query; return its reply, unless a fault switch changes it."""
        self.queries.add(client, transport, wire, outcome.rcode)
        self._count.inc(transport=transport, rcode=rcode_to_text(outcome.rcode))
        faults = self.telemetry.faults
        if faults.any_on:
            if faults.hit("drop_answers"):
                self._dropped.inc(reason="fault")
                return None
            answer = self.responder.servfail(wire) if faults.hit("servfail") else outcome.wire
            if faults.hit("delay_answers"):
                return _delayed(answer, float((faults.get("delay_answers") or {})["ms"]) / 1000)
            return answer
        return outcome.wire

    def answers(self) -> serving.Answers | None:
        """Return the finished answers; None while a fault switch is on."""
        return None if self.telemetry.faults.any_on else self.responder.answers

    def answered(self, questions: list[bytes], clients: bytes) -> None:
        """Count and log a batch of queries that received finished answers."""
        self._finished += len(questions)
        self.queries.add_batch(questions, clients)

    async def reload(self, apex: Name) -> Zone:
        """Reload the zone *apex* from its file, in a thread, and return the new zone.

        If the file is invalid, the old zone stays in service, the health check of this zone fails, and the error is
        raised again.
        """
        check = f"zone {apex}"
        try:
            zone = await self.publish(lambda: load(str(apex), self.files[apex]))
        except Exception as error:  # a bad file must not stop this server or the reload of another zone
            serial = self.responder.zones[apex].serial
            self.telemetry.health.set(check, ok=False, detail=f"still serving serial {serial}: {error}")
            logger.error("reload_failed", zone=str(apex), error=str(error))
            raise
        self.telemetry.health.set(check, ok=True, detail=f"serial {zone.serial}")
        logger.info("zone_loaded", zone=str(apex), serial=zone.serial)
        return zone

    async def reload_all(self) -> None:
        """Reload all zones, one after the other; each failure is logged and reported in the health checks."""
        for apex in self.files:
            await asyncio.gather(self.reload(apex), return_exceptions=True)

    def on_hangup(self) -> None:
        """Start `reload_all` as a background task (SIGHUP handler)."""
        task = asyncio.get_running_loop().create_task(self.reload_all())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    def zone(self, apex: Name) -> Zone | None:
        """Return the zone *apex* as it is being served."""
        return self.responder.zone(apex)

    async def publish(self, make: Callable[[], Zone]) -> Zone:
        """Build and compile a zone in a thread so that queries are not delayed, then serve it.

        *make* may start from the zone that is being served: changes are made one after the other.
        """

        def compiled() -> tuple[Compiled | None, Zone, Change | None]:
            new = make()
            old = self.responder.zone(new.apex)
            if old is new:
                return None, new, None
            if old is None:
                return compile_zone(new), new, None
            change = old.diff(new)
            return compile_zone(new), new, change

        async with self._changing:
            done, zone, change = await asyncio.to_thread(compiled)
            if done is not None:
                self.responder.put_compiled(done)
            if change is not None and change.old != change.new:
                self.histories.setdefault(zone.apex, History()).add(change)
        return zone


async def _delayed(answer: serving.Reply, delay: float) -> serving.Reply:
    await asyncio.sleep(delay)  # the delay of the ``delay_answers`` fault switch
    return answer
