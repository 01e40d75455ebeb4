"""Drill D16 `blind-monitor`: certificates become overdue for renewal while part of the monitoring is broken."""

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from cryptography import x509

from drills.drill import Drill
from drills.enrolment import ZONE, Enrolment, publish, serial_of
from drills.lifetimes import MIN_BACKDATE
from drills.rehearsal import NAME, Rehearsal
from experiments import Control, Lane, Panel, Quantity, Run, Span, Undo, parameter
from hostfiles.layout import TRUST_ANCHOR
from monitor.alarms import CHANNEL, HEARTBEAT, INVENTORY, MISSED
from monitor.channels import Webhook
from monitor.command import certified
from monitor.judgement import ALARM_AT
from monitor.probers import Collector, OpensslProber, Prober, SslProber, Target
from monitor.watcher import Settings, Watcher
from renewal.proof import load_pair
from stub import AsyncStub

#: DNS labels used by the drill: one for a monitored endpoint, and one for a certificate that is not monitored.
SITE, FORGOTTEN = "site", "forgotten"
DOMAIN = ZONE.rstrip(".")
#: The four faults of the drill, in the order in which they are injected.
UNLISTED, RESOLVER, CHANNEL_DOWN, DEAD = "unlisted certificate", "no resolver", "no channel", "dead monitor"
FAULTS = (UNLISTED, RESOLVER, CHANNEL_DOWN, DEAD)
#: Port on this host that receives alarms.
PORT = 9093
#: Typical duration of probing all endpoints, and maximum duration of probing them and delivering an alarm, in seconds.
LOOK, MAX_LOOK = 0.3, 2.0
#: Mean rounding error of notAfter, in seconds, because notAfter is truncated to whole seconds.
CUT = 0.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `blind-monitor`."""

    rate: float = parameter(60.0, quick=40.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    life: float = parameter(16.0, quick=10.0, unit="s", low=10, high=120, help="lifetime of the monitored certificate")
    interval: float = parameter(1.0, unit="s", low=0.5, high=10, help="between looks of a monitor")


@dataclass(frozen=True, slots=True)
class Received:
    """An alarm or a heartbeat that arrived at a receiver; times are in seconds on the run's timeline."""

    at: float
    receiver: str
    body: Mapping[str, Any]
    #: Time at which the monitor raised the alarm or sent the heartbeat.
    raised: float = 0.0

    def is_alarm(self, about: str, check: str) -> bool:
        """Return whether this message reports the beginning of an alarm of the given kind."""
        return (self.body.get("kind"), self.body.get("about"), self.body.get("check")) == ("alarm", about, check)


@dataclass(slots=True)
class Fault:
    """One fault in the monitoring; times are in seconds on the run's timeline."""

    name: str
    begin: float
    end: float = math.inf
    #: Subject and check of the alarm that must report the fault itself.
    about: tuple[str, str] = ("", "")
    #: notAfter of the endpoint's certificate that becomes overdue during the fault; None if no certificate does.
    not_after: float | None = None


class BlindMonitor(Drill[Parameters]):
    """Drill in which monitoring fails in four ways while certificates become overdue."""

    name = "blind-monitor"
    claim = "With two monitors that guard each other, no single fault of the monitoring hides an overdue certificate."
    says = (
        "Equifax, 2017: a certificate of an inspection device had expired ten months before, and so the theft of data "
        "went unnoticed for 76 days. Spotify, August 2020: an hour without music, because one certificate was not in "
        "the inventory. In both cases there was monitoring; it did not see what it was for."
    )
    source = (
        "US House of Representatives, The Equifax Data Breach, December 2018. The inventory of the CA (its issuance "
        "log, or Certificate Transparency, RFC 9162) lists what exists; a list kept by hand contains what was known."
    )
    production = (
        "Compare the certificates that were issued with the endpoints that are monitored. Run a second monitor with "
        "another TLS library, another resolver and another channel. Alarm on the absence of heartbeats: a monitor "
        "that has died reports no errors."
    )
    settings = Parameters
    control = Control(
        "one monitor, one channel, and a fixed list of endpoints", tuple(f"noticed: {fault}" for fault in FAULTS)
    )
    after = 0.5

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.faults: list[Fault] = []
        self.received: list[Received] = []
        #: Names of the receivers that currently refuse requests.
        self.refusing: set[str] = set()
        #: Maximum time until a fault without an overdue certificate is reported, in seconds.
        self.limit = (MISSED + 1) * parameters.interval + 2 * MAX_LOOK
        self._site: ssl.SSLContext | None = None
        self._peers = dict[str, Watcher]()

    def duration(self) -> float:
        """Return the expected duration in seconds: three faults with an overdue certificate, and one without."""
        return self.before + 4 + 3 * (self.p.life * ALARM_AT + 1 + self.p.interval) + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict that each fault is reported, and how much lifetime the certificate has left at the alarm."""
        whole = self.p.life + MIN_BACKDATE
        left = whole * (1 - ALARM_AT) - CUT * (1 - ALARM_AT) - self.p.interval / 2 - LOOK
        return {
            "requests lost": Quantity(0),
            "faults noticed": Quantity(0 if self.negative else len(FAULTS)),
            "left at the alarm": Quantity(left, "s"),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Start the monitors, and inject each fault while the certificate of the drill's endpoint becomes overdue."""
        for label in (SITE, FORGOTTEN):
            await publish(run, label)
        enrolment = Enrolment()
        async with enrolment.responding(), self._receivers(run, stage), self._endpoint():
            await self._renew_site(run, stage, enrolment, 3600.0)
            async with self._monitors(run) as (stub, first):
                await asyncio.sleep(2 * self.p.interval + LOOK)  # there must be no alarms before the first fault
                self.began = run.now()
                fault = self._begin(run, UNLISTED, (f"{FORGOTTEN}.{DOMAIN}", INVENTORY))
                forgotten = serial_of(await self._order(run, enrolment, FORGOTTEN, 600.0))
                await self._noticed(run, fault, self.limit)
                await run.lab.call("ca", "POST", f"/admin/revoke/{forgotten}", {"reason": 5})
                for name, about in (
                    (RESOLVER, (f"{SITE}.{DOMAIN}:443", "connection")),
                    (CHANNEL_DOWN, (f"http://127.0.0.1:{PORT}/pager-1", CHANNEL)),
                    (DEAD, ("monitor-1", HEARTBEAT)),
                ):
                    fault = self._begin(run, name, about)
                    fault.not_after = await self._renew_site(run, stage, enrolment, self.p.life)
                    async with self._broken(name, stub, first):
                        await self._noticed(run, fault, fault.not_after - run.now())
                    await self._renew_site(run, stage, enrolment, 3600.0)
                    await self._calm(run)
        self.ended = run.now()

    def _begin(self, run: Run, name: str, about: tuple[str, str]) -> Fault:
        run.phase(name)
        run.note("injection", name)
        fault = Fault(name, run.now(), about=about)
        self.faults.append(fault)
        return fault

    async def _noticed(self, run: Run, fault: Fault, timeout: float) -> None:
        """Wait until both alarms that *fault* must cause have been received, for at most *timeout* seconds."""
        end = run.now() + timeout
        while run.now() < end and math.inf in (self.named(fault), self.overdue(fault)):  # noqa: ASYNC110 - polls: no event signals the arrival of an alarm
            await asyncio.sleep(0.1)  # wait before checking the list again
        fault.end = run.now()

    async def _calm(self, run: Run) -> None:
        """Wait until no monitor has an active alarm about the endpoint, for at most `limit` seconds."""
        end, site = run.now() + self.limit, f"{SITE}.{DOMAIN}:443"
        while run.now() < end and any(s.about == site for w in self._peers.values() for s in w.alarms.active):  # noqa: ASYNC110 - polls: no event signals the end of an alarm
            await asyncio.sleep(0.1)  # wait before checking the alarms again

    # --- the lab of the drill: endpoint, receivers, monitors ----------------------------------------------------------

    async def _order(self, run: Run, enrolment: Enrolment, label: str, life: float) -> bytes:
        """Obtain a certificate for *label* with a lifetime of *life* seconds; return its key and chain."""
        undo = Undo("the CA's lifetime", "ca", "DELETE", "/admin/lifetime")
        body = {"seconds": life, "backdate": MIN_BACKDATE}
        await run.lab.inject(f"leaves live {life:g} s", "ca", "PUT", "/admin/lifetime", body, undo=undo)
        try:
            return await enrolment.obtain([f"{label}.{DOMAIN}"])
        finally:
            await asyncio.shield(run.lab.undo(undo))

    async def _renew_site(self, run: Run, stage: Rehearsal, enrolment: Enrolment, life: float) -> float:
        """Install a new certificate at the endpoint; return its notAfter in seconds on the run's timeline."""
        pair = await self._order(run, enrolment, SITE, life)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, pair)
        self._site = context
        return stage.at(x509.load_pem_x509_certificates(pair)[0].not_valid_after_utc.timestamp())

    @asynccontextmanager
    async def _endpoint(self) -> AsyncIterator[None]:
        """Serve TLS with the endpoint's current certificate on port 443 of this host."""

        def choose(sock: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            if self._site is not None:
                sock.context = self._site

        def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        outer.sni_callback = choose
        server = await asyncio.start_server(close, "0.0.0.0", 443, ssl=outer)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    @asynccontextmanager
    async def _receivers(self, run: Run, stage: Rehearsal) -> AsyncIterator[None]:
        """Run the receivers of alarms on this host: two for people, and one for each monitor."""

        async def take(request: web.Request) -> web.Response:
            name, body = request.match_info["name"], await request.json()
            if name in self.refusing:
                raise web.HTTPInternalServerError
            self.received.append(Received(run.now(), name, body, stage.at(body["at"])))
            if name in self._peers:
                self._peers[name].receive(body)
            return web.Response()

        application = web.Application()
        application.router.add_post("/{name}", take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", PORT).start()
            yield
        finally:
            await runner.cleanup()

    @asynccontextmanager
    async def _monitors(self, run: Run) -> AsyncIterator[tuple[AsyncStub, asyncio.Event]]:
        """Run both monitors (one in the control run); yield the first monitor's stub resolver and its stop event."""
        targets = [Target(NAME, 443), Target(f"{SITE}.{DOMAIN}", 443)]
        logging.getLogger("monitor").addHandler(logging.NullHandler())  # no log output: the report shows the alarms
        stub, stops, running = AsyncStub(), [asyncio.Event(), asyncio.Event()], []

        async def inventory() -> Sequence[tuple[str, str]]:
            known = (await run.lab.call("ca", "GET", "/admin/certificates"))["certificates"]
            valid = certified(each for each in known if not each["revoked"])
            return [each for each in valid if each[0].partition(".")[0] in {SITE, FORGOTTEN}]

        probers: list[Prober] = [SslProber(TRUST_ANCHOR, stub), OpensslProber(TRUST_ANCHOR)]
        for number, prober in enumerate(probers[: 1 if self.negative else 2], 1):
            urls = [f"http://127.0.0.1:{PORT}/pager-{number}"]
            urls += [] if self.negative else [f"http://127.0.0.1:{PORT}/monitor-{3 - number}"]
            watcher = Watcher(
                targets, [prober], Collector(AsyncStub()),
                settings=Settings(f"monitor-{number}", self.p.interval),
                webhooks=[Webhook(url) for url in urls],
                inventory=None if self.negative else inventory,
            )  # fmt: skip
            self._peers[f"monitor-{number}"] = watcher
            running.append(asyncio.create_task(watcher.run(stops[number - 1])))
        try:
            yield stub, stops[0]
        finally:
            for stop in stops:
                stop.set()
            await asyncio.gather(*running)

    @asynccontextmanager
    async def _broken(self, fault: str, stub: AsyncStub, stop: asyncio.Event) -> AsyncIterator[None]:
        """Break part of the first monitor inside an ``async with`` block; a stopped monitor is not restarted."""
        servers = stub.servers
        if fault == RESOLVER:
            stub.servers = [("127.0.0.1", 9)]  # no resolver answers on this port
            stub.flush()
        elif fault == CHANNEL_DOWN:
            self.refusing.add("pager-1")
        else:
            stop.set()
            self._peers.pop("monitor-1", None)
        try:
            yield
        finally:
            stub.servers = servers
            self.refusing.clear()

    # --- judgement ----------------------------------------------------------------------------------------------------

    def _first(self, fault: Fault, about: str, check: str) -> float:
        """Return when the first such alarm arrived at a receiver for people during *fault*; infinity if none did."""
        found = (r for r in self.received if r.receiver.startswith("pager") and r.is_alarm(about, check))
        return next((r.at for r in found if fault.begin <= r.raised and r.at <= fault.end), math.inf)

    def named(self, fault: Fault) -> float:
        """Return when *fault* itself was reported, in seconds on the run's timeline; infinity if it never was."""
        return self._first(fault, *fault.about)

    def overdue(self, fault: Fault) -> float:
        """Return when the overdue certificate was reported; without such a certificate, return the start of *fault*."""
        return fault.begin if fault.not_after is None else self._first(fault, f"{SITE}.{DOMAIN}:443", "expiry")

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check that each fault and each overdue certificate was reported in time, without false alarms."""
        stage.gates(self.began)
        self.check_nothing_lost(run, stage)
        check = run.findings.check
        noticed, left = 0, list[float]()
        for fault in self.faults:
            named, overdue = self.named(fault), self.overdue(fault)
            last = fault.not_after or fault.begin + self.limit
            ok = named <= last and overdue <= last
            noticed += ok
            if fault.not_after is not None and not math.isinf(overdue):
                left.append(fault.not_after - overdue)
            got = "the fault " + _after(named - fault.begin)
            if fault.not_after is not None:
                got += ", the overdue certificate " + _after(overdue - fault.begin)
            check(f"noticed: {fault.name}", f"within {last - fault.begin:.1f} s", got, ok)
        run.findings.row("faults noticed", noticed)
        if left:
            run.findings.row("left at the alarm", sum(left) / len(left), "s")
        early = [r.body for r in self.received if r.at < self.began and r.body.get("kind") == "alarm"]
        false = sorted({f"{body.get('about')}: {body.get('check')}" for body in early})
        check("no alarm before the faults", "none", ", ".join(false) or "none", not false)
        stage.facts(self.began, self.ended)
        self._picture(run, stage)

    def _picture(self, run: Run, stage: Rehearsal) -> None:
        end = min(self.ended, run.now())
        lanes = [Lane("fault", [Span(f.begin, min(f.end, end), f.name, "mark") for f in self.faults])]
        for receiver in ("pager-1", "pager-2"):
            spans, open_since = list[Span](), dict[str, float]()
            for each in self.received:
                about = f"{each.body.get('about', '')}: {each.body.get('check', '')}"
                if each.receiver != receiver or each.body.get("kind") == "heartbeat":
                    continue
                if each.body["kind"] == "alarm":
                    open_since.setdefault(about, each.at)
                elif about in open_since:
                    spans.append(Span(open_since.pop(about), each.at, about, "bad"))
            spans += [Span(at, end, about, "bad") for about, at in open_since.items()]
            lanes.append(Lane(f"alarms at {receiver}", sorted(spans, key=lambda span: span.begin)))
        stage.picture(
            "A certificate becomes overdue while monitoring is broken",
            "The panel of alarms shows each fault, and the alarms that reached each of the two receivers. During every "
            "fault at least one receiver learns of the fault and of the overdue certificate.",
            Panel(lanes=lanes, y="monitoring"),
            shown=(),
        )


def _after(seconds: float) -> str:
    return "not at all" if math.isinf(seconds) else f"after {seconds:.1f} s"
