"""Name server process: sockets, counters, fault switches, and how changes to zones are stored and published."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import serving
from dnsmessage import Name, RemoteError, rcode_to_text
from dnsmessage.message import REFUSED, SERVFAIL
from dnsmessage.request import decode_request
from dnsmessage.tsig import Key
from nameserver.access import Access
from nameserver.added import AddedZones
from nameserver.admin import Admin
from nameserver.announce import Announcer
from nameserver.compiled import Compiled
from nameserver.errors import NameServerError, ZoneError
from nameserver.journal import JournalError
from nameserver.master_file import load, parse
from nameserver.refresh import Secondaries
from nameserver.requests import Outcome, Requests
from nameserver.responder import Responder, Response
from nameserver.secondary import Primary
from nameserver.store import Store, reloaded
from nameserver.transfer import encode, revise
from nameserver.update import UpdateError, changed
from nameserver.zone import Zone
from telemetry import Telemetry, log

logger = log.get("nameserver")
T = TypeVar("T")

#: Interpreter thread-switch interval, in seconds (Python's default is 5 ms). The short interval keeps queries from
#: waiting while a zone is compiled in a thread.
SWITCH_INTERVAL = 0.001


@dataclass(frozen=True, slots=True)
class Loaded:
    """Result of a reload: the zone to serve, and the zone in the master file; their serial numbers may differ."""

    zone: Zone
    file: Zone


class Server:
    """A name server that serves a set of zones on one address."""

    def __init__(
        self,
        telemetry: Telemetry,
        files: Mapping[str, Path],
        access: Access | None = None,
        policy: serving.Settings | None = None,
        secondaries: Mapping[Name, Sequence[Primary]] | None = None,
    ) -> None:
        """Load the zones in *files*, a dict from origin to master file, and the copies of secondary zones.

        *access* holds the permissions for transfers and updates; *policy* holds the query ACL, the rate limit and the
        identity of the server; *secondaries* maps each secondary zone to its primaries.

        Raises:
            ZoneFileError: a file cannot be read or is not a valid zone.
        """
        self.telemetry = telemetry
        self.policy = serving.Policy(policy or serving.Settings(), telemetry)
        access, secondaries = access or Access(), dict(secondaries or {})
        self._added = AddedZones(access.state)
        self.files = self._added.files() | {Name.from_text(origin): path for origin, path in files.items()}
        self.store = Store(access.state)
        zones = [self.store.restore(load(str(apex), path)) for apex, path in self.files.items()]
        self.responder = Responder({zone.apex: zone for zone in zones})
        for served in (each for each in zones if access.is_transferred(each.apex)):
            encode(served)
        self.queries = serving.QueryLog()
        #: Time of the latest published change, keyed by zone, in seconds since 1970; unchanged zones are missing.
        self.published: dict[Name, float] = {}
        self.requests = Requests(self.responder, access, self.store.histories)
        self.requests.update = self._update
        self.policy.resign = lambda wire, reply: self.requests.resign(wire, reply, int(telemetry.clock.time()))
        self.secondaries = Secondaries(
            self, self._added.secondaries(secondaries) | secondaries, access.keys, access.state
        )
        for apex, zone in self.secondaries.restore():
            if zone is None:
                self.responder.withdraw(apex)
            else:
                self.responder.put(zone)
        self.requests.notified = self.secondaries.notified
        self._changing = asyncio.Lock()
        self._announcer: Announcer | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        sys.setswitchinterval(SWITCH_INTERVAL)
        metrics = telemetry.metrics
        self._count = metrics.counter(
            "firstbyte_nameserver_queries_total", "Queries by transport and rcode", "transport", "rcode"
        )
        self._dropped = metrics.counter("firstbyte_nameserver_dropped_total", "Queries without an answer", "reason")
        serials = metrics.gauge("firstbyte_nameserver_zone_serial", "Serial of each zone", "zone", across="max")

        #: Prebuilt answers sent since the last metrics scrape. They are counted here because updating a labelled
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
        telemetry.health.set("zones", ok=True, detail=", ".join(map(str, self.files)) or "secondary only")

    async def start(self, endpoint: tuple[str, int], *, shared: bool = False) -> serving.Listener:
        """Listen on *endpoint*; raise `OSError` if the address is in use. *shared* enables SO_REUSEPORT."""
        finished = None if self.policy.per_query else self
        listener = await serving.start(endpoint, self.policy.guard(self.handle), finished=finished, shared=shared)
        access = self.requests.access
        if (access.readers or access.targets) and ":" not in listener.address[0]:
            self._announcer = Announcer(self.telemetry, access, listener.address[0])
            for apex in self.files:
                self._announcer.changed(self.responder.zones[apex], primary=True)
        self.telemetry.health.set("listener", ok=True, detail=f"{listener.address[0]}:{listener.address[1]}")
        self.secondaries.start()
        return listener

    def close(self) -> None:
        """Stop announcing changes and refreshing secondary zones, and close the journals."""
        self.secondaries.close()
        if self._announcer is not None:
            self._announcer.close()
            self._announcer = None
        self.store.close()

    def withdraw(self, apex: Name) -> None:
        """Answer SERVFAIL for the zone *apex*, which has expired."""
        self.responder.withdraw(apex)

    def handle(self, wire: bytes, client: tuple[str, int], transport: serving.Transport) -> Any:
        """Return the reply to one query, or an awaitable that returns the reply; None if no reply is sent."""
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
        """Count and log a query; return its reply, which a fault switch may replace."""
        self.queries.add(client, transport, wire, outcome.rcode)
        self._count.inc(transport=transport, rcode=rcode_to_text(outcome.rcode))
        faults = self.telemetry.faults
        if faults.any_on:
            if faults.hit("drop_answers"):
                self._dropped.inc(reason="fault")
                return None
            answer = self.responder.servfail(wire) if faults.hit("servfail") else outcome.wire
            if (delay := faults.hit("delay_answers")) is not None:
                return _delayed(answer, float(delay["ms"]) / 1000)
            return answer
        return outcome.wire

    def answers(self) -> serving.Answers | None:
        """Return the prebuilt answers; None while any fault switch is on."""
        return None if self.telemetry.faults.any_on else self.responder.answers

    def answered(self, questions: list[bytes], clients: bytes) -> None:
        """Count and log a batch of queries that received prebuilt answers."""
        self._finished += len(questions)
        self.queries.add_batch(questions, clients)

    async def reload(self, apex: Name, *, changed_only: bool = False) -> Zone:
        """Reload the zone *apex* from its file, in a thread, and return the new zone.

        The file replaces all changes made since it was last read, and the serial number always increases. With
        *changed_only*, a file that has not changed is ignored. If the file is invalid, the old zone stays in service,
        the health check of this zone fails, and the error is raised again.
        """
        check = f"zone {apex}"

        def make() -> Loaded:
            file, old = load(str(apex), self.files[apex]), self.zone(apex)
            if old is None or (changed_only and not self.store.is_new(file, old)):
                return Loaded(old or file, file)
            return Loaded(reloaded(old, file), file)

        try:
            zone = await self.publish(make)
        except Exception as error:  # a bad file must not stop this server or the reload of another zone
            serial = self.responder.zones[apex].serial
            self.telemetry.health.set(check, ok=False, detail=f"still serving serial {serial}: {error}")
            logger.error("reload_failed", zone=str(apex), error=str(error))
            raise
        self.telemetry.health.set(check, ok=True, detail=f"serial {zone.serial}")
        logger.info("zone_loaded", zone=str(apex), serial=zone.serial)
        return zone

    async def reload_all(self) -> None:
        """Reload the zones whose files have changed; each failure is logged and reported in the health checks."""
        for apex in list(self.files):
            await asyncio.gather(self.reload(apex, changed_only=True), return_exceptions=True)

    async def add_zone(self, apex: Name, text: str, source: str) -> Zone:
        """Serve a new primary zone and store it in the state folder; *text* is the content of the master file *source*.

        Raises:
            NameServerError: *text* is not a valid zone, the zone is already served, or the zone cannot be stored.
        """

        def make() -> Loaded:
            zone = parse(str(apex), text, source)
            path = self._added.keep(apex, "zone", text)
            try:
                restored = self.store.restore(zone)
            except NameServerError:
                path.unlink()
                raise
            self.files[apex] = path
            return Loaded(restored, zone)

        self._check_new(apex)
        return await self.publish(make)

    def add_secondary(self, apex: Name, like: Name) -> None:
        """Serve a new secondary zone, transferred from the primaries of the secondary zone *like*.

        Raises:
            NameServerError: *like* is not a secondary zone, the new zone is already served, or the new zone cannot be
                stored.
        """
        self._check_new(apex)
        if like not in self.secondaries.zones:
            raise ZoneError(f"expected a secondary zone of this server, got {like}")
        self._added.keep(apex, "secondary", str(like))
        self.secondaries.add(apex, self.secondaries.zones[like].core.primaries)

    def _check_new(self, apex: Name) -> None:
        if apex in self.files or apex in self.secondaries.zones:
            raise ZoneError(f"expected a new zone, but {apex} is already served")

    def on_hangup(self) -> None:
        """Start `reload_all` as a background task (SIGHUP handler)."""
        self._start(self.reload_all())

    def zone(self, apex: Name) -> Zone | None:
        """Return the zone *apex*; None if it is not served."""
        return self.responder.zone(apex)

    async def publish(self, make: Callable[[], Zone | Loaded]) -> Zone:
        """Build and compile a zone in a thread so that queries are not delayed, then serve it.

        *make* may read the zone that is being served, because changes are serialised. A change is stored before it is
        served; both happen even if the caller is cancelled.

        Raises:
            NameServerError: *make* failed, or the change cannot be stored; the zone is unchanged.
        """
        return await asyncio.shield(self._start(self._publish(make)))

    async def _publish(self, make: Callable[[], Zone | Loaded]) -> Zone:
        def compiled() -> tuple[Zone, Compiled | None]:
            made = make()
            new, file = (made.zone, made.file) if isinstance(made, Loaded) else (made, None)
            old = self.zone(new.apex)
            done = None
            if old is not new:
                done = self.responder.compile(new)
                if file is not None and self.requests.access.is_transferred(new.apex):
                    encode(new)
                change = None if old is None else old.diff(new)
                if old is not None and change is not None and change.old != change.new:
                    self.store.record(old, change, file)
                    revise(old, new, change)
            return new, done

        async with self._changing:
            zone, done = await asyncio.to_thread(compiled)
            if done is not None:
                self.responder.put_compiled(done)
                self.published[zone.apex] = self.telemetry.clock.time()
                if self._announcer is not None:
                    self._announcer.changed(zone, primary=zone.apex in self.files)
                await asyncio.to_thread(self.store.tidy, zone)
        return zone

    async def _update(self, apex: Name, wire: bytes, key: Key | None) -> int:
        """Perform an UPDATE and return its rcode (RFC 2136 section 3)."""
        fields = {"zone": str(apex), "key": "" if key is None else str(key.name)}
        if apex not in self.files:
            return REFUSED

        def permitted(name: Name, rdtype: int) -> bool:
            return self.requests.access.may_update(apex, key, name, rdtype)

        def make() -> Zone:
            zone = self.responder.zones[apex]
            change = changed(zone, decode_request(wire), permitted)
            return zone if change is None else zone.apply(change)

        try:
            zone = await self.publish(make)
        except (UpdateError, RemoteError) as error:
            logger.info("update_rejected", **fields, detail=str(error))
            return error.rcode
        except JournalError as error:
            logger.error("update_failed", **fields, error=str(error))
            return SERVFAIL
        except ZoneError as error:  # the result would not be a valid zone
            logger.info("update_rejected", **fields, detail=str(error))
            return REFUSED
        logger.info("updated", **fields, serial=zone.serial)
        return 0

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start *work* as a task, and keep a reference to the task until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _delayed(answer: serving.Reply, delay: float) -> serving.Reply:
    await asyncio.sleep(delay)  # the delay of the ``delay_answers`` fault switch
    return answer
