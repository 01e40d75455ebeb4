"""Snapshot of all hosts for the page, as JSON-serialisable data.  Sans-IO; times are in seconds since the epoch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from console.alarms import Alarm, Down, of_certificate, of_health, of_hosts
from console.hosts import Hosts
from console.reading import entries_in, mapping_in, texts_in, time_in
from console.track import WINDOW, Track

_LINK = {"from": str, "to": str, "rtt_ms": float}


def snapshot(hosts: Hosts, tracks: Sequence[Track], unseen: frozenset[str], now: float) -> dict[str, Any]:
    """Return the state of all hosts.

    Args:
        hosts: the hosts file.
        tracks: recorded data of each host.
        unseen: names of hosts that cannot be reached because the router is down.
        now: current time in seconds since the epoch.
    """
    certificates = {track.host.name: [certificate(track, path, now) for path in track.certificates] for track in tracks}
    known = {name: [each for each in found if each] for name, found in certificates.items()}
    faults = [fault for track in tracks for fault in _faults(track)]
    alarms = _alarms(hosts, [track for track in tracks if track.host.name not in unseen], known)
    resolver = next((track for track in tracks if track.host.role == "resolver"), None)
    return {
        "verdict": _verdict(tracks, unseen, alarms, faulty=bool(faults)),
        "alarms": [alarm.as_dict() for alarm in alarms],
        "regions": [
            {
                "name": name,
                "title": title,
                "hosts": [_host(t, unseen=t.host.name in unseen) for t in tracks if t.host.region == name],
            }
            for name, title in hosts.regions.items()
        ],
        "certificates": [each for found in known.values() for each in found],
        "pools": [pool for track in tracks for pool in _pools(track)],
        "cache": None if resolver is None else _cache(resolver),
        "links": _links(tracks),
        "faults": faults,
    }


def _alarms(hosts: Hosts, tracks: Sequence[Track], certificates: Mapping[str, list[dict[str, Any]]]) -> list[Alarm]:
    down = [Down(t.host, t.since, t.error, t.seen) for t in tracks if t.status == "down"]
    alarms = of_hosts(down, hosts.losses)
    alarms += [of_health(t.host, t.checks, t.since) for t in tracks if t.status == "failing"]
    for track in (t for t in tracks if t.status == "ok"):
        alarms += [alarm for each in certificates[track.host.name] if (alarm := of_certificate(track.host, each))]
    refused = [t for t in tracks if t.refused and t.status != "down"]
    if refused:
        who = f"{len(refused)} hosts" if len(refused) > 1 else refused[0].host.name
        alarms.append(Alarm("warn", "the console", f"cannot read the admin API of {who}", None, refused[0].refused))
    for track in tracks:
        grown = track.tun_drops.growth()
        if grown is not None and grown[1][0] > 0:
            why = f"the kernel dropped {grown[1][0]:.0f} packets in the last minute"
            what, means = "is too slow for this load", "measurements are invalid"
            alarms.append(Alarm("warn", track.host.name, what, None, why, means))
    return sorted(alarms, key=lambda alarm: alarm.level != "bad")


def _verdict(
    tracks: Sequence[Track], unseen: frozenset[str], alarms: Sequence[Alarm], *, faulty: bool
) -> dict[str, str]:
    total = len(tracks)
    waiting = sum(track.status == "waiting" for track in tracks)
    healthy = sum(track.status == "ok" for track in tracks)
    if unseen:
        return {"level": "bad", "text": f"The router is down: {len(unseen)} of {total} hosts cannot be seen."}
    if any(alarm.level == "bad" for alarm in alarms):
        if healthy == total:
            return {"level": "bad", "text": f"All {total} hosts answer, but something is broken."}
        return {"level": "bad", "text": f"{healthy} of {total} hosts are healthy."}
    if waiting:
        return {"level": "wait", "text": f"Starting: {total - waiting} of {total} hosts have answered."}
    if alarms or faulty:
        return {"level": "warn", "text": f"All {total} hosts answer, with warnings."}
    return {"level": "ok", "text": f"All {total} hosts are healthy."}


def _host(track: Track, *, unseen: bool) -> dict[str, Any]:
    host, scrape, status = track.host, track.scrape, "unseen" if unseen else track.status
    rates = track.counters.rates() if host.role == "edge" else None
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
        "tw_history": list(track.time_wait),
        "rss": scrape.total("process_resident_memory_bytes"),
        "requests_per_s": None if rates is None else rates[0],
    }


def certificate(track: Track, path: str, now: float) -> dict[str, Any] | None:
    """Return the certificate reported at *path*, or None; ``used`` is the elapsed fraction of its lifetime."""
    at, body = track.answer(path)
    if not body:
        return None
    ends, renewal, left = time_in(body, "not_after"), time_in(body, "next_renewal"), time_in(body, "seconds_left")
    # Prefer the remaining time that the host reports, because its clock may be offset on purpose; subtract the time
    # since the report.
    if left is not None:
        left -= now - at
    elif ends is not None:
        left = ends - now
    # Count from the issue time, as the renewal schedule does: not_before is earlier, to allow for slow client clocks.
    issued = time_in(body, "issued")
    begins = issued if issued is not None else time_in(body, "not_before")
    used = renew_at = None
    if begins is not None and ends is not None and ends > begins and left is not None:
        lifetime = ends - begins
        used = min(1.0, max(0.0, 1 - left / lifetime))
        renew_at = None if renewal is None else min(1.0, max(0.0, (renewal - begins) / lifetime))
    return {
        "host": track.host.name,
        "names": [str(name) for name in texts_in(body, "names")],
        "key": str(body.get("key") or ""),
        "issuer": body.get("issuer"),
        "serial": body.get("serial"),
        "not_after": ends,
        "seconds_left": left,
        "used": used,
        "renew_at": renew_at,
        "next_renewal": renewal,
        "renewals": body.get("renewals", 0),
        "failures": body.get("failures", 0),
        "last_error": body.get("last_error"),
        "stale": track.stale,
    }


def _pools(track: Track) -> list[dict[str, Any]]:
    upstreams = entries_in(track.answer("/admin/pool")[1], "upstreams", {"name": str})
    return [{**upstream, "host": track.host.name, "stale": track.stale} for upstream in upstreams]


def _cache(track: Track) -> dict[str, Any]:
    grown = track.counters.growth()
    hit_rate = per_second = None
    if grown is not None:
        seconds, (hits, misses) = grown
        per_second = (hits + misses) / seconds
        hit_rate = hits / (hits + misses) if hits + misses else None
    size = track.scrape.total("firstbyte_resolver_cache_entries")
    return {
        "host": track.host.name,
        "window_s": WINDOW,
        "hit_rate": hit_rate,
        "queries_per_s": per_second,
        "hits": track.scrape.total("firstbyte_resolver_cache_hits_total"),
        "misses": track.scrape.total("firstbyte_resolver_cache_misses_total"),
        "size": track.answer("/admin/cache?limit=0")[1].get("size", size),
        "stale": track.stale,
    }


def _links(tracks: Sequence[Track]) -> list[dict[str, Any]]:
    """Return one entry per pair of regions, or one per direction if the settings of the two directions differ."""
    table = []
    for track in tracks:
        links = {
            (each["from"], each["to"]): each for each in entries_in(track.answer("/admin/links")[1], "links", _LINK)
        }
        shown: set[tuple[str, str]] = set()
        for (a, b), there in links.items():
            if (a, b) in shown:
                continue
            back = links.get((b, a))
            both = back is not None and _settings(there) == _settings(back)
            pairs = [(a, b), (b, a)] if both else [(a, b)]
            shown.update(pairs)
            windows = [track.links[pair] for pair in pairs if pair in track.links]
            table.append(
                {
                    **there,
                    "both": both,
                    "stale": track.stale,
                    "changed": any(links[pair].get("changed") for pair in pairs),
                    "packets_per_s": sum(rates[0] for window in windows if (rates := window.rates())),
                    "dropped": sum(grown[1][1] for window in windows if (grown := window.growth())),
                }
            )
    return table


def _settings(link: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in link.items() if key not in {"from", "to", "changed"}}


def _faults(track: Track) -> Iterator[dict[str, Any]]:
    switches = track.answer("/admin/faults")[1]
    for name in () if track.stale else track.faults:
        switch = mapping_in(switches, name)
        yield {
            "host": track.host.name,
            "name": name,
            "help": str(switch.get("help") or ""),
            "parameters": mapping_in(switch, "parameters"),
            "hits": switch.get("hits"),
        }
