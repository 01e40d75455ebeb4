"""What the console knows: samples and a time in, one JSON snapshot with alarms out.

Sans-IO: nothing here asks a host, reads a clock or writes to a browser.  Times are seconds since the epoch, as the
console's own clock has them.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from console.alarms import Alarm, Down, of_certificate, of_health, of_hosts
from console.hosts import Host, Hosts
from console.prometheus import LARGEST, Scrape
from console.window import Window

#: Samples in a row without an answer before a host counts as down; one may be a hiccup of a busy machine.
MISSES = 2
#: Seconds that hosts get to answer for the first time before the silence is an alarm.
BOOT = 20.0
#: Seconds over which rates are taken: two of the shorter TTLs in the lab's zones.
WINDOW = 60.0
#: Past TIME_WAIT counts kept for each host: a TIME_WAIT of 60 s at a sample every 2 s is seen to come and go.
HISTORY = 60
#: Things that happened, newest first.
EVENTS = 30
#: Seconds since the epoch at which X.509 ends (RFC 5280 section 4.1.2.5); a C library may end there, too.
YEAR_10000 = 253_402_300_800
#: Where a host shows its certificate; one for a name of its own below it.
CERTIFICATE = "/admin/certificate"
#: What may be such a name: it becomes part of a path.
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of asking one host."""

    host: str
    #: When it was asked.
    at: float
    #: Why there was no answer, in plain words; None when there was one.
    error: str | None = None
    #: The body of /health.
    health: Mapping[str, Any] = field(default_factory=dict)
    scrape: Scrape = field(default_factory=Scrape)
    #: Answers of the admin requests that were made this time, by path.
    admin: Mapping[str, Any] = field(default_factory=dict)
    #: Why an admin request was refused, if one was.
    refused: str = ""


class _Track:
    """One host through time."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.status = "waiting"
        self.since = 0.0
        self.seen = False
        self.misses = 0
        self.first_miss = 0.0
        self.error = ""
        #: It went silent together with the router: that is no news about the host itself.
        self.hidden = False
        self.health: Mapping[str, Any] = {}
        self.scrape = Scrape()
        self.admin: dict[str, tuple[float, Any]] = {}
        self.refused = ""
        self.tw: deque[int] = deque(maxlen=HISTORY)
        self.requests = Window(WINDOW)

    @property
    def checks(self) -> dict[str, Mapping[str, Any]]:
        """The host's own checks by name."""
        checks = self.health.get("checks")
        entries = checks.items() if isinstance(checks, Mapping) else ()
        return {name: check for name, check in entries if isinstance(check, Mapping)}

    @property
    def faults(self) -> list[str]:
        """Names of the faults that are on."""
        faults = self.health.get("faults")
        return [name for name in faults if isinstance(name, str)] if isinstance(faults, list) else []

    @property
    def further(self) -> tuple[str, ...]:
        """Paths of the certificates for names of their own (SNI), besides the one for everybody."""
        names = self.answer(CERTIFICATE)[1].get("further")
        known = names if isinstance(names, list) else ()
        return tuple(f"{CERTIFICATE}/{it}" for it in known if isinstance(it, str) and _NAME.fullmatch(it))

    def answer(self, path: str) -> tuple[float, Mapping[str, Any]]:
        """Return when *path* was last answered, and the answer; an empty one when it never was or is no object."""
        at, body = self.admin.get(path, (0.0, {}))
        return at, body if isinstance(body, Mapping) else {}


class State:
    """Everything the page shows."""

    def __init__(self, hosts: Hosts, started: float) -> None:
        self.hosts, self.started = hosts, started
        self._tracks = {host.name: _Track(host) for host in hosts.hosts}
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._cache = Window(WINDOW)
        self._links: dict[tuple[str, str], Window] = {}
        self._wan_drops = Window(WINDOW)
        self._trace: dict[str, Any] | None = None
        self._reports: list[dict[str, Any]] = []

    # --- what comes in ----------------------------------------------------------------------------------------------

    def observe(self, sample: Sample) -> None:
        """Take in what came of asking one host."""
        track = self._tracks[sample.host]
        if sample.error is not None:
            self._missed(track, sample.at, sample.error)
            return
        if track.host.role == "wan" and track.status == "down":
            self._reveal()
        if track.status == "down" and track.seen and not track.hidden:
            self._event(sample.at, track.host.name, f"is back after {_seconds(sample.at - track.since)}", "good")
        healthy = sample.health.get("status") == "ok"
        status = "ok" if healthy else "failing"
        if status != track.status:
            if status == "failing" and track.seen:
                self._event(sample.at, track.host.name, "fails its own checks", "bad")
            elif track.status == "failing" and track.seen:
                self._event(sample.at, track.host.name, "is well again", "good")
            track.status, track.since = status, sample.at
        track.seen, track.misses, track.error, track.hidden = True, 0, "", False
        track.health, track.scrape, track.refused = sample.health, sample.scrape, sample.refused
        for path, answer in sample.admin.items():
            track.admin[path] = (sample.at, answer)
        track.tw.append(int(sample.scrape.total("firstbyte_sockets", state="tw") or 0))
        self._count(track, sample)

    def _missed(self, track: _Track, at: float, error: str) -> None:
        track.misses += 1
        track.error = error
        if track.misses == 1:
            track.first_miss = at
        patient = not track.seen and at < self.started + BOOT
        if track.status == "down" or track.misses < MISSES or patient:
            return
        track.status, track.since = "down", track.first_miss
        track.hidden = self._behind_router(track)
        if track.hidden:
            return
        self._event(track.first_miss, track.host.name, f"is down: {error}" if track.seen else "has not answered", "bad")

    def _reveal(self) -> None:
        """Judge the hosts behind the router anew, now that they can be seen again."""
        for track in self._tracks.values():
            if track.hidden:
                track.status, track.misses, track.hidden = "waiting", 0, False

    def _behind_router(self, track: _Track) -> bool:
        routers = [other for other in self._tracks.values() if other.host.role == "wan"]
        return (
            bool(routers)
            and all(router.status == "down" for router in routers)
            and track.host.region not in {router.host.region for router in routers}
        )

    def _count(self, track: _Track, sample: Sample) -> None:
        scrape, role = sample.scrape, track.host.role
        if role == "resolver":
            hits = scrape.total("firstbyte_resolver_cache_hits_total")
            misses = scrape.total("firstbyte_resolver_cache_misses_total")
            if hits is not None and misses is not None:
                self._cache.add(sample.at, hits, misses)
        elif role == "edge":
            served = scrape.total("firstbyte_edge_requests_total")
            if served is not None:
                track.requests.add(sample.at, served)
        elif role == "wan" and "/admin/counters" in sample.admin:
            counters = sample.admin["/admin/counters"]
            dropped = counters.get("tun_dropped") if isinstance(counters, Mapping) else None
            if _number(dropped):
                self._wan_drops.add(sample.at, dropped)
            for link in _entries(counters, "links", _COUNTERS):
                window = self._links.setdefault((link["from"], link["to"]), Window(WINDOW))
                window.add(sample.at, link["packets"], link["dropped_loss"] + link["dropped_queue"])

    def take_trace(self, trace: Mapping[str, Any], at: float) -> None:
        """Show this trace from now on."""
        self._trace = {"at": at, "trace": dict(trace)}

    def take_reports(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Show these runs, newest first."""
        self._reports = [dict(report) for report in reports]

    def _event(self, at: float, host: str, text: str, level: str) -> None:
        self._events.appendleft({"at": at, "host": host, "text": text, "level": level})

    # --- what goes out ----------------------------------------------------------------------------------------------

    def trace(self) -> dict[str, Any] | None:
        """Return the last trace and when it came; None before there is one."""
        return self._trace

    def admin_paths(self, host: Host) -> tuple[str, ...]:
        """Return what to ask *host*'s admin API for, given what it is and what it last said of itself."""
        paths = {
            "edge": (CERTIFICATE, "/admin/pool"),
            "origin": (CERTIFICATE,),
            "wan": ("/admin/links", "/admin/counters"),
            # Its entries are not shown: none of them are asked for.
            "resolver": ("/admin/cache?limit=0",),
        }.get(host.role, ())
        track = self._tracks[host.name]
        # /health names the faults that are on; only then is it worth asking what they do.
        return (*paths, *track.further, *(("/admin/faults",) if track.faults else ()))

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return everything but the trace, as the page gets it."""
        blind = self._blind()
        alarms = self._alarms(now, blind)
        return {
            "now": now,
            "started": self.started,
            "verdict": self._verdict(alarms, blind),
            "alarms": [alarm.as_dict() for alarm in alarms],
            "regions": [self._region(name, blind) for name in self.hosts.regions],
            "certificates": [entry for track in self._tracks.values() for entry in self._certificates(track, now)],
            "pools": [pool for track in self._tracks.values() for pool in self._pools(track)],
            "cache": self._resolver_cache(),
            "links": self._link_table(),
            "faults": list(self._faults()),
            "events": list(self._events),
            "reports": self._reports,
            "trace_at": None if self._trace is None else self._trace["at"],
        }

    def _blind(self) -> frozenset[str]:
        """Return the hosts that can not be seen because the router is down, whatever they are themselves."""
        return frozenset(
            name
            for name, track in self._tracks.items()
            if (track.status == "down" or track.misses) and self._behind_router(track)
        )

    def _status(self, track: _Track, blind: frozenset[str]) -> str:
        return "unseen" if track.host.name in blind else track.status

    def _alarms(self, now: float, blind: frozenset[str]) -> list[Alarm]:
        tracks = [track for track in self._tracks.values() if track.host.name not in blind]
        down = [Down(t.host, t.since, t.error, t.seen) for t in tracks if t.status == "down"]
        alarms = of_hosts(down, self.hosts.losses)
        alarms += [of_health(t.host, t.health, t.since) for t in tracks if t.status == "failing"]
        for track in tracks:
            certificates = self._certificates(track, now) if track.status == "ok" else ()
            alarms += [alarm for each in certificates if (alarm := of_certificate(track.host, each))]
        refused = [t for t in tracks if t.refused and t.status != "down"]
        if refused:
            count = f"{len(refused)} hosts" if len(refused) > 1 else refused[0].host.name
            alarms.append(Alarm("warn", "the console", f"may not ask {count} all it wants", None, refused[0].refused))
        grown = self._wan_drops.growth()
        if grown is not None and grown[1][0] > 0:
            why = f"the kernel threw {grown[1][0]:.0f} packets away in the last minute"
            alarms.append(Alarm("warn", "wan", "is too slow for this load", None, why, "measurements are not valid"))
        return sorted(alarms, key=lambda alarm: alarm.level != "bad")

    def _verdict(self, alarms: list[Alarm], blind: frozenset[str]) -> dict[str, Any]:
        total = len(self._tracks)
        waiting = [name for name, track in self._tracks.items() if track.status == "waiting"]
        well = sum(track.status == "ok" for track in self._tracks.values())
        faults = sum(1 for _ in self._faults())
        if blind:
            return {"level": "bad", "text": f"Blind: {len(blind)} of {total} hosts can not be seen."}
        if any(alarm.level == "bad" for alarm in alarms):
            if well == total:
                return {"level": "bad", "text": f"All {total} hosts answer, but something is broken."}
            return {"level": "bad", "text": f"{well} of {total} hosts are well."}
        if waiting:
            return {"level": "wait", "text": f"Starting: {total - len(waiting)} of {total} hosts have answered."}
        if alarms or faults:
            return {"level": "warn", "text": f"All {total} hosts answer, but not all is as it should be."}
        return {"level": "ok", "text": f"All {total} hosts are well."}

    def _region(self, name: str, blind: frozenset[str]) -> dict[str, Any]:
        return {
            "name": name,
            "title": self.hosts.regions[name],
            "hosts": [self._host(t, blind) for t in self._tracks.values() if t.host.region == name],
        }

    def _host(self, track: _Track, blind: frozenset[str]) -> dict[str, Any]:
        host, scrape, status = track.host, track.scrape, self._status(track, blind)
        rates = track.requests.rates()
        return {
            "name": host.name,
            "address": host.address,
            "fqdn": host.fqdn,
            "role": host.role,
            "status": status,
            "since": track.since or None,
            "error": track.error,
            "checks": track.checks,
            "faults": track.faults,
            "tw": scrape.total("firstbyte_sockets", state="tw") if status in {"ok", "failing"} else None,
            "inuse": scrape.total("firstbyte_sockets", state="inuse"),
            "tw_history": list(track.tw),
            "rss": scrape.total("process_resident_memory_bytes"),
            "requests_per_s": None if rates is None else rates[0],
        }

    def _certificates(self, track: _Track, now: float) -> Iterable[dict[str, Any]]:
        """Yield what a host's certificates are: the one for everybody, then the others."""
        for path in (CERTIFICATE, *track.further):
            at, body = track.answer(path)
            if body:
                yield self._certificate(track, now, at, body)

    def _certificate(self, track: _Track, now: float, at: float, body: Mapping[str, Any]) -> dict[str, Any]:
        before, after, renewal = body.get("not_before"), body.get("not_after"), body.get("next_renewal")
        issued, names = body.get("issued"), body.get("names")
        left = body.get("seconds_left")
        # The host's clock may be set ahead on purpose: what it says is left counts, less the time since it said so.
        left = left - (now - at) if _time(left) else after - now if _time(after) else None
        used = renew_at = None
        # Certificates are dated back a little for clocks that lag; life counts from issue, as the schedule does.
        begins = issued if _time(issued) else before
        if _time(begins) and _time(after) and after > begins and left is not None:
            life = after - begins
            used = min(1.0, max(0.0, 1 - left / life))
            renew_at = min(1.0, max(0.0, (renewal - begins) / life)) if _time(renewal) else None
        return {
            "host": track.host.name,
            "names": [str(name) for name in names] if isinstance(names, list) else [],
            "key": str(body.get("key") or ""),
            "issuer": body.get("issuer"),
            "serial": body.get("serial"),
            "not_after": after if _time(after) else None,
            "seconds_left": left,
            "used": used,
            "renew_at": renew_at,
            "next_renewal": renewal if _time(renewal) else None,
            "renewals": body.get("renewals", 0),
            "failures": body.get("failures", 0),
            "last_error": body.get("last_error"),
            "stale": track.status == "down",
        }

    def _pools(self, track: _Track) -> list[dict[str, Any]]:
        _, body = track.answer("/admin/pool")
        upstreams = _entries(body, "upstreams", {"name": str})
        return [{**upstream, "host": track.host.name, "stale": track.status == "down"} for upstream in upstreams]

    def _resolver_cache(self) -> dict[str, Any] | None:
        for track in self._tracks.values():
            if track.host.role != "resolver":
                continue
            grown = self._cache.growth()
            hit_rate = per_second = None
            if grown is not None:
                seconds, (hits, misses) = grown
                asked = hits + misses
                per_second = asked / seconds
                hit_rate = hits / asked if asked else None
            _, body = track.answer("/admin/cache?limit=0")
            return {
                "host": track.host.name,
                "window_s": WINDOW,
                "hit_rate": hit_rate,
                "queries_per_s": per_second,
                "hits": track.scrape.total("firstbyte_resolver_cache_hits_total"),
                "misses": track.scrape.total("firstbyte_resolver_cache_misses_total"),
                "size": body.get("size", track.scrape.total("firstbyte_resolver_cache_entries")),
                "stale": track.status == "down",
            }
        return None

    def _link_table(self) -> list[dict[str, Any]]:
        """Return one entry for each pair, with both directions apart only where they differ."""
        links: dict[tuple[str, str], Mapping[str, Any]] = {}
        stale = False
        for track in self._tracks.values():
            for link in _entries(track.answer("/admin/links")[1], "links", _LINK):
                links[link["from"], link["to"]] = link
                stale = track.status == "down"
        table: list[dict[str, Any]] = []
        shown: set[tuple[str, str]] = set()
        for (a, b), there in links.items():
            if (a, b) in shown:
                continue
            back = links.get((b, a))
            alike = back is not None and _settings(there) == _settings(back)
            pairs = [(a, b), (b, a)] if alike else [(a, b)]
            shown.update(pairs)
            rates = [window.rates() for pair in pairs if (window := self._links.get(pair))]
            grown = [window.growth() for pair in pairs if (window := self._links.get(pair))]
            table.append(
                {
                    **there,
                    "both": alike,
                    "stale": stale,
                    "changed": bool(there.get("changed") or (alike and back is not None and back.get("changed"))),
                    "packets_per_s": sum(rate[0] for rate in rates if rate),
                    "dropped": sum(growth[1][1] for growth in grown if growth),
                }
            )
        return table

    def _faults(self) -> Iterable[dict[str, Any]]:
        for track in self._tracks.values():
            _, switches = track.answer("/admin/faults")
            for name in track.faults if track.status != "down" else ():
                switch = switches.get(name)
                known = switch if isinstance(switch, Mapping) else {}
                parameters = known.get("parameters")
                yield {
                    "host": track.host.name,
                    "name": name,
                    "help": str(known.get("help") or ""),
                    "parameters": parameters if isinstance(parameters, Mapping) else {},
                    "hits": known.get("hits"),
                }

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for track in self._tracks.values():
            counts[track.status] = counts.get(track.status, 0) + 1
        return f"<State {' '.join(f'{status}={count}' for status, count in sorted(counts.items()))}>"


#: What an entry has to have to be shown: a host that says something else is another version, not a reason to fail.
_LINK = {"from": str, "to": str, "rtt_ms": float}
_COUNTERS = {"from": str, "to": str, "packets": float, "dropped_loss": float, "dropped_queue": float}


def _entries(body: object, key: str, fields: Mapping[str, type]) -> Iterable[Mapping[str, Any]]:
    """Yield the entries of the list at *key* of *body* that have *fields*, text or numbers."""
    entries = body.get(key) if isinstance(body, Mapping) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and all(
            _number(entry.get(name)) if kind is float else isinstance(entry.get(name), kind)
            for name, kind in fields.items()
        ):
            yield entry


def _number(value: object) -> TypeGuard[float]:
    """Say whether *value* is a number that can be reckoned with: JSON has integers longer than any float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _time(value: object) -> TypeGuard[float]:
    """Say whether *value* is a moment or a span that a certificate can have, in seconds."""
    return _number(value) and abs(value) < YEAR_10000


def _settings(link: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in link.items() if key not in {"from", "to", "changed"}}


def _seconds(span: float) -> str:
    return f"{span:.0f} s" if span < 120 else f"{span / 60:.0f} min"
