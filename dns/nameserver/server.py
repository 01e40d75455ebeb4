"""Name server process: sockets, counters, fault switches and the admin API."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import serving
from dnsmessage import Name, rcode_to_text
from nameserver.admin import Admin
from nameserver.compiled import Compiled, compile_zone
from nameserver.master_file import load
from nameserver.query_log import QueryLog
from nameserver.responder import Responder
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

    def __init__(self, telemetry: Telemetry, files: dict[str, Path]) -> None:
        """Load the zones in *files*, a dict from origin to master file.

        Raises:
            ZoneFileError: a file cannot be read or is not a valid zone.
        """
        self.telemetry = telemetry
        self.files = {Name.from_text(origin): path for origin, path in files.items()}
        self.responder = Responder({apex: load(str(apex), path) for apex, path in self.files.items()})
        self.queries = QueryLog(QUERY_LOG)
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
        """Return the reply to one query; an awaitable if a fault switch delays the reply; None if no reply is sent."""
        response = self.responder.respond(wire, udp=transport == "udp")
        if response is None:
            self._dropped.inc(reason="not_a_query")
            return None
        self.queries.add(client[0], transport, wire, response.rcode)
        self._count.inc(transport=transport, rcode=rcode_to_text(response.rcode))
        faults = self.telemetry.faults
        if faults.any_on:
            if faults.hit("drop_answers"):
                self._dropped.inc(reason="fault")
                return None
            answer = self.responder.servfail(wire) if faults.hit("servfail") else response.wire
            if faults.hit("delay_answers"):
                return _later(answer, float((faults.get("delay_answers") or {})["ms"]) / 1000)
            return answer
        return response.wire

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

    async def publish(self, make: Callable[[], Zone]) -> Zone:
        """Build and compile a zone in a thread so that queries are not delayed, then serve it."""

        def compiled() -> Compiled:
            return compile_zone(make())

        async with self._changing:
            done = await asyncio.to_thread(compiled)
            self.responder.put_compiled(done)
        return done.zone


async def _later(answer: bytes, delay: float) -> bytes:
    await asyncio.sleep(delay)  # the delay of the ``delay_answers`` fault switch
    return answer
