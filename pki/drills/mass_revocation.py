"""Drill D17 `mass-revocation`: the CA must revoke all certificates of a fleet within 24 hours or 5 days."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509

from drills.drill import Drill
from drills.enrolment import Enrolment
from drills.fleet import Fleet, Host
from drills.lifetimes import NOMINAL_DAYS, SHARE, Scale, shorten
from drills.rehearsal import Rehearsal
from drills.revoke_client import download
from experiments import Bars, Control, Curve, Lesson, Panel, Quantity, Run, Undo, parameter
from renewal.lifecycle import Validity
from renewal.revocation import list_url
from renewal.schedule import MIN_RETRY, Rule

#: Deadlines for revocation in nominal days (Baseline Requirements section 4.9.1.1): 24 hours, for example after a key
#: compromise, and 5 days, for example after a misissuance.
SOON, LATER = 1.0, 5.0
#: Duration of the window over which the CA spreads the replacements, in nominal days.
WINDOW = 0.6
#: Interval at which hosts poll renewal information, in nominal days; the CA sets it with Retry-After.
POLL = 0.25
#: Maximum ratio of the orders in the busiest second to the mean over the window.
MAX_PEAK = 2.0
#: Validity gate: maximum 90th percentile of the duration of an order, in nominal days; slower orders would use up the
#: first 24 hours.
SLOW = 0.3
#: Time-out of the fleet (the drill stops it earlier), and time-out until all revocations are on the CRL, in seconds.
MAX_RUN, ON_LIST = 3600.0, 5.0
#: Interval between requests for the CRL, in seconds.
EVERY = 0.1
#: Revocation reason code: superseded (RFC 5280 section 5.3.1).
SUPERSEDED = 4
EXPLANATION = "https://ca.example.com/incidents/1"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the drill `mass-revocation`."""

    rate: float = parameter(60.0, quick=40.0, unit="requests/s", low=1, high=1000, help="half fresh, half kept alive")
    hosts: int = parameter(100, quick=30, low=10, high=1000, help="simulated hosts, each with an account of its own")
    polling: float = parameter(0.8, low=0.1, high=1, help="share of the hosts that poll renewal information")
    day: float = parameter(12.0, quick=5.0, unit="s", low=4, high=60, help="a nominal day lasts this long")
    recall: str = parameter(
        "serials",
        choices=("serials", "issuer"),
        help="serials: only the fleet's certificates are recalled; issuer: all certificates of the CA that issued them",
    )


class MassRevocation(Drill[Parameters]):
    """Drill in which the CA recalls all certificates of a fleet, and revokes them when the deadlines have passed."""

    name = "mass-revocation"
    claim = (
        "Every host that polls renewal information replaces its certificate before the 24-hour deadline, without a "
        "peak at the CA, and the CA names all others before it revokes their certificates."
    )
    says = (
        "In March 2020 Let's Encrypt had to revoke 3 million certificates within five days, and left a third of them "
        "in use, because their owners had not replaced them. CAs must have a plan for mass revocation and rehearse it "
        "every year; whether the plan works is decided by their subscribers' clients."
    )
    source = (
        "CA/Browser Forum Baseline Requirements sections 4.9.1.1 (24 hours, 5 days) and 5.7.1 (plan for mass "
        "revocation); RFC 9773. Hosts that poll every p days and draw a time in a window of w days have replaced after "
        "max(p, w). Of hosts that renew at 2/3 of L days by their own schedule, t/(2/3 L) do so within t days."
    )
    production = (
        "Use clients that poll renewal information several times a day, and check that they do: nothing else reacts "
        "within 24 hours while you sleep. Know which of your certificates are renewed by a timer or a person: this is "
        "the list of your outages in the next mass revocation."
    )
    settings = Parameters
    control = Control("no host polls renewal information", ("replaced within 24 hours",))
    records = ("ca",)
    lessons = (
        Lesson(
            "Four of five hosts poll the CA's renewal information. The others hold certificates of 47 days, of all "
            "ages, and renew them after two thirds. What percentage of all certificates is replaced within 5 days?",
            "replaced within 5 days", "%", 4.0,
        ),
        Lesson(
            "Hosts poll renewal information every six hours, and draw a time in a window of 14.4 hours. How many hours "
            "after the recall does the last of them have a new certificate?",
            "last host that polls, hours", "h", 3.0,
        ),
    )  # fmt: skip
    after = 0.5

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.scale = Scale(NOMINAL_DAYS * parameters.day)
        self.fleet: list[Host] = []
        #: Number of hosts that poll renewal information; these are the first hosts of the fleet.
        self.pollers = round(parameters.hosts * parameters.polling)
        #: Serial number of each host's recalled certificate, keyed by host name.
        self.old: dict[str, int] = {}
        #: Serial number of the certificate that each host uses when the drill ends, keyed by host name.
        self.using: dict[str, int] = {}
        #: Time of the recall, in seconds on the run's timeline.
        self.recalled = math.inf
        #: Names whose certificates had not been replaced when the five-day deadline passed, as the CA reports them.
        self.outstanding: list[str] = []
        #: Serial numbers in the CRL after the revocation.
        self.crl: set[int] = set()

    def duration(self) -> float:
        """Return the expected duration in seconds: enrolment, five nominal days, and the revocation."""
        return self.before + self.p.hosts / 12 + LATER * self.p.day + 2 + self.after

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the share of replaced certificates at both deadlines: all pollers, and few of the other hosts."""
        polling = self.pollers / self.p.hosts
        soon, later = (polling + (1 - polling) * days / (SHARE * NOMINAL_DAYS) for days in (SOON, LATER))
        return {
            "requests lost": Quantity(0),
            "replaced within 24 hours": Quantity(100 * soon, "%"),
            "replaced within 5 days": Quantity(100 * later, "%"),
            "last host that polls, hours": Quantity(24 * WINDOW, "h"),
        }

    async def inject(self, run: Run, stage: Rehearsal) -> None:
        """Enrol the fleet, recall all its certificates, wait for the second deadline, and revoke the certificates."""
        fleet = Fleet(run, stage, Enrolment())
        await fleet.publish()
        self.began = run.now()
        await shorten(run, (), self.scale)
        for _ in range(self.p.hosts):
            fleet.add(Rule(scale=self.scale.factor), random.Random(run.rng.getrandbits(32)))
        self.fleet = fleet.hosts
        async with fleet.enrolment.responding():
            run.phase(f"{self.p.hosts} hosts enrol")
            await fleet.enrol()
            self._age(run, fleet)
            polling = asyncio.create_task(fleet.operate(self.fleet, MAX_RUN))
            try:
                await self._recall(run)
            finally:
                polling.cancel()
                await asyncio.gather(polling, return_exceptions=True)
        report = await run.lab.call("ca", "GET", "/admin/recall")
        names = {host.name for host in self.fleet}  # a recall by issuer also selects the certificates of other hosts
        self.outstanding = [name for name in report["recalls"][-1]["outstanding"] if name in names]
        run.findings.fact("certificates recalled", report["recalls"][-1]["selected"])
        await self._revoke(run)
        self.using = {host.name: host.leaf.serial_number for host in self.fleet if host.leaf is not None}
        self.ended = run.now()

    async def _recall(self, run: Run) -> None:
        """Recall all certificates of the fleet, and wait until the second deadline passes."""
        await asyncio.sleep(MIN_RETRY + self.scale.seconds(POLL))  # every host polls once before the recall
        undo = Undo("recall", "ca", "DELETE", "/admin/recall")
        body = {
            **self.selection(),
            "in_s": 0,
            "spread_s": self.scale.seconds(WINDOW),
            "explanation_url": EXPLANATION,
        }
        text = f"{self.p.hosts} certificates recalled by {self.p.recall}"
        await run.lab.inject(text, "ca", "POST", "/admin/recall", body, undo=undo)
        self.recalled = run.now()
        run.phase("the certificates must be revoked within 24 hours or 5 days")
        await run.until(self.recalled + self.scale.seconds(LATER))

    def selection(self) -> dict[str, object]:
        """Return the members of the request for a recall that select the certificates."""
        if self.p.recall == "serials":
            return {"serials": [f"{serial:x}" for serial in self.old.values()]}
        leaf = next(host.leaf for host in self.fleet if host.leaf is not None)
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        return {"issuer": (authority.key_identifier or b"").hex()}

    def _age(self, run: Run, fleet: Fleet) -> None:
        """Record the certificates to recall; pretend that hosts which do not poll received theirs on different days."""
        now, others = fleet.now(), self.p.hosts - self.pollers
        for number, host in enumerate(self.fleet):
            leaf, held = host.leaf, host.lifecycle.held
            assert leaf is not None  # noqa: S101 - `enrol` set it
            assert held is not None  # noqa: S101 - `enrol` set it
            self.old[host.name] = leaf.serial_number
            if number >= self.pollers:
                age = (number - self.pollers + 0.5) / others * SHARE * self.scale.life
                host.lifecycle.loaded(Validity(held.serial, now - age, now - age, now - age + self.scale.life))
            if number >= self.pollers or self.negative:
                host.polls = False
            else:  # the polls of different hosts are spread over the interval
                host.lifecycle.polled(now, MIN_RETRY + run.rng.uniform(0, self.scale.seconds(POLL)))

    async def _revoke(self, run: Run) -> None:
        """Revoke all recalled certificates, and read the CRL."""
        run.phase("5 days have passed: the CA revokes the recalled certificates")
        limit = asyncio.Semaphore(8)

        async def revoke(serial: int) -> None:
            async with limit:
                await run.lab.call("ca", "POST", f"/admin/revoke/{serial:x}", {"reason": SUPERSEDED})

        await asyncio.gather(*map(revoke, self.old.values()))
        run.note("injection", "certificates revoked")
        leaf = next(host.leaf for host in self.fleet if host.leaf is not None)
        end = run.now() + ON_LIST
        while not self.crl >= set(self.old.values()) and run.now() < end:
            crl = x509.load_der_x509_crl(await asyncio.to_thread(download, list_url(leaf)))
            self.crl = {each.serial_number for each in crl}
            await asyncio.sleep(EVERY)  # polls: no event signals that the CA has signed a new CRL

    def judge(self, run: Run, stage: Rehearsal) -> None:
        """Check the share of replaced certificates at both deadlines, the CA's load, and which remain in use."""
        stage.gates(self.began)
        check, row, fact, gate = run.findings.check, run.findings.row, run.findings.fact, run.findings.gate
        day, pollers = self.p.day, self.fleet[: self.pollers]
        took = sorted(host.renewed - host.orders[-1] for host in self.fleet if not math.isinf(host.renewed))
        slow = took[int(len(took) * 0.9)] / day if took else math.inf
        got = f"{slow:.2f} days" if took else "no order"
        gate("duration of nine of ten orders", f"<= {SLOW:g} nominal days", got, self.negative or slow <= SLOW)
        self.check_nothing_lost(run, stage)
        late = [host for host in pollers if host.renewed > self.recalled + SOON * day]
        for name, days in (("24 hours", SOON), ("5 days", LATER)):
            row(f"replaced within {name}", 100 * self._share(days), "%")
        last = max((host.renewed for host in pollers), default=math.inf) - self.recalled
        if not math.isinf(last):
            row("last host that polls, hours", 24 * last / day, "h")
        got = f"{len(pollers) - len(late)} of {len(pollers)}"
        check("replaced within 24 hours", "all hosts that poll", got, not late and bool(pollers))
        busiest = max(self._per_second().values(), default=0)
        mean = len(pollers) / self.scale.seconds(WINDOW)
        got = f"{busiest} orders, {busiest / mean:.1f} × the mean"
        check("busiest second", f"<= {MAX_PEAK:g} × the mean over the window", got, busiest <= MAX_PEAK * mean)
        left = sorted(host.name for host in self.fleet if host.renewed > self.recalled + LATER * day)
        same = left == sorted(self.outstanding)
        got = f"{len(self.outstanding)}" + (
            "" if same else f", not {', '.join(set(left) ^ set(self.outstanding))}"[:80]
        )
        check("the CA names the hosts that did not replace", f"{len(left)}", got, same)
        revoked = set(self.old.values())
        got = f"{len(revoked & self.crl)} of {len(revoked)}"
        check("recalled certificates on the CRL", f"all {len(revoked)}", got, bool(revoked) and revoked <= self.crl)
        bad = sorted(name for name, serial in self.using.items() if serial in self.crl)
        check("hosts with a revoked certificate", f"the {len(left)} named", f"{len(bad)}", bad == left)
        fact("named by the CA", ", ".join(self.outstanding[:8]) or "none")
        errors = Counter(error[:80] for host in self.fleet for error in (*host.errors, *host.poll_errors))
        fact("orders and polls that failed", errors.total())
        stage.facts(self.began, self.ended)
        self._picture(stage)

    def _share(self, days: float) -> float:
        """Return the share of hosts that replaced their certificates within *days* nominal days after the recall."""
        limit = self.recalled + days * self.p.day
        return sum(host.renewed <= limit for host in self.fleet) / len(self.fleet) if self.fleet else 0.0

    def _per_second(self) -> Counter[int]:
        """Return the number of orders in each second after the recall."""
        return Counter(int(at - self.recalled) for host in self.fleet for at in host.orders)

    def _picture(self, stage: Rehearsal) -> None:
        begin, day = self.recalled, self.p.day
        if math.isinf(begin):
            return
        end = begin + LATER * day
        times = sorted(host.renewed for host in self.fleet if host.renewed <= end)
        steps = [(begin, 0.0), *((at, 100 * n / len(self.fleet)) for n, at in enumerate(times, 1))]
        steps.append((end, steps[-1][1]))
        rest = 100 * (1 - self.pollers / self.p.hosts)
        theory = [(begin, 0.0), (begin + WINDOW * day, 100 - rest)]
        theory.append((end, 100 - rest + rest * LATER / (SHARE * NOMINAL_DAYS)))
        deadlines = [Curve(name, [(begin + at * day, 0.0), (begin + at * day, 100.0)], "bad", dashed=True)
                     for name, at in (("24 hours", SOON), ("5 days", LATER))]  # fmt: skip
        bars = [(begin + n, begin + n + 1, float(count)) for n, count in sorted(self._per_second().items())]
        stage.picture(
            f"{self.p.hosts} certificates are recalled and revoked",
            "The upper panel shows the share of replaced certificates next to theory; the dashed lines are the "
            f"deadlines of 24 hours and 5 days (a nominal day lasts {day:g} s). The lower panel shows the orders that "
            "begin in each second.",
            Panel([Curve("measured", steps, 0), Curve("theory", theory, 1, dashed=True), *deadlines], y="replaced, %"),
            Panel([Bars("orders begun", bars, 0)], y="orders per second"),
        )
