"""``firstbyte join`` and ``firstbyte leave``: add a program of the user to a region of the lab, and remove it."""

import argparse
import contextlib
import ipaddress
import json
import re
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from authority.issuance import PERMITTED
from firstbyte import dns, terminal, where
from hostfiles.layout import TRUST_ANCHOR
from netns_engine import compose
from netns_engine.compose import COMPOSE_FILE
from runtime import Lab, LabDownError, LabError, Source, Subject, UsageError
from runtime.subject import free_address, region_of, regions

#: TTL of a subject's address record in seconds, as for the lab's other hosts.
TTL = 30
#: Interval between requests to the observer while the subject starts, in seconds.
POLL = 0.1
#: Host from which the subject is probed, and the only port on which TLS is not expected.
OUTSIDE, PLAIN = "client", 80
#: Signals that end `join` early; before it exits, it removes what it has started.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Labels of a DNS name (RFC 1123 section 2.1).
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class NotServingError(LabError):
    """The subject ended or does not serve on its port, and `join` has removed it."""

    exit_code = 1


def join(args: argparse.Namespace) -> int:
    """Start a subject (a program under test), publish its address in DNS, and wait until it is serving.

    On any failure, undo everything.

    Raises:
        UsageError: the name, the address, the region or the program is invalid; nothing was started.
        NotServingError: the subject exited or is not serving.
    """
    if bool(args.words) == bool(args.container):
        raise UsageError("expected an image, --container NAME or, in namespaces, -- COMMAND")
    source = Source(tuple(args.words), args.container or "")
    with where.outside("join") as lab:
        lab.require_up()
        lab.require_joinable(source)
        subject = _chosen(lab, args)
        began = time.monotonic()
        with _undone_on_failure(lab, subject):
            dns.replace(lab, subject.name, "A", TTL, subject.address)
            region = region_of(subject.address, lab.topology.project)
            entry = {"name": subject.host, "address": subject.address, "fqdn": subject.name, "region": region}
            lab.call("console", "POST", "/admin/hosts", entry)
            if args.life is not None:
                lab.call("ca", "PUT", f"/admin/lifetime/{subject.name}", {"seconds": args.life})
            lab.join(subject, source)
            _wait_until_listening(lab, subject, args.wait)
            seen = _seen_from_outside(lab, subject)
        took = time.monotonic() - began
    if args.json:
        print(json.dumps({**entry, "port": subject.port, "took_s": round(took, 1), "certificate": seen}))
    else:
        print(f"{subject.name} is {subject.host}, {subject.address} in the region {region}, up after {took:.1f} s")
        print(f"port {subject.port}: {seen}")
    return 0


def leave(args: argparse.Namespace) -> int:
    """Remove one subject or all, with their DNS records."""
    if bool(args.name) == args.all:
        raise UsageError("expected the name of a subject, or --all")
    with where.outside("leave") as lab:
        lab.require_up()
        found = lab.subjects()
        chosen = found if args.all else [each for each in found if args.name in {each.host, each.name}]
        if not chosen and not args.all:
            known = ", ".join(each.name for each in found)
            raise UsageError(f"expected one of {known}; got {args.name!r}" if known else "nothing has joined the lab")
        for each in chosen:
            remove(lab, each)
            print(f"{each.name} has left")
    return 0


def remove(lab: Lab, subject: Subject) -> None:
    """Remove *subject*, its DNS record and its place on the console's map.

    Raises:
        LabError: something could not be removed; everything else was.
    """
    failed: list[LabError] = []
    for part in (
        lambda: lab.leave(subject.host),
        lambda: dns.withdraw(lab, subject.name),
        lambda: lab.call("ca", "DELETE", f"/admin/lifetime/{subject.name}"),
        lambda: lab.call("console", "DELETE", f"/admin/hosts/{subject.host}"),
    ):
        try:
            part()
        except LabError as error:
            failed.append(error)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _undone_on_failure(lab: Lab, subject: Subject) -> Iterator[None]:
    """Remove *subject* if the block fails or is interrupted, and ignore further interrupts during the removal."""
    before = {each: signal.signal(each, _interrupt) for each in SIGNALS}
    try:
        yield
    except BaseException:
        with _uninterrupted(), contextlib.suppress(LabError):  # the error of the block is the one to report
            remove(lab, subject)
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _chosen(lab: Lab, args: argparse.Namespace) -> Subject:
    """Return the subject that *args* describes.

    Raises:
        UsageError: the name or the address of the subject is invalid or taken.
    """
    name = args.name.lower().rstrip(".")
    host = name.partition(".")[0]
    if not all(_LABEL.fullmatch(label) for label in name.split(".")) or "." not in name:
        raise UsageError(f"--name: expected a DNS name such as mine.example.com, got {args.name!r}")
    if not any(name.endswith(f".{each}") for each in PERMITTED):
        allowed = ", ".join(PERMITTED)
        raise UsageError(f"--name: the lab's CA can only certify names below {allowed} (name constraints); got {name}")
    if dns.exists(lab, name) or host in {each.name for each in lab.topology.hosts}:
        raise UsageError(f"--name: {name} or its host {host} is already in the lab: choose another first label")
    everywhere = regions(lab.topology.project)
    if args.region not in everywhere:
        raise UsageError(
            f"--region: expected one of {', '.join(everywhere)}; got {args.region!r}"
            + terminal.meant(args.region, everywhere)
        )
    taken = {str(each) for each in compose.load(lab.topology.project / COMPOSE_FILE).addresses()}
    taken |= {each.address for each in lab.topology.hosts if each.address}
    subnet = everywhere[args.region]
    if args.address is None:
        return Subject(host, name, args.port, free_address(subnet, taken))
    try:
        address = ipaddress.IPv4Address(args.address)
    except ValueError:
        raise UsageError(f"--address: expected an IPv4 address, got {args.address!r}") from None
    if address not in subnet or address in {subnet.network_address, subnet.broadcast_address}:
        raise UsageError(f"--address: expected a host address in {subnet}, the region {args.region}; got {address}")
    if str(address) in taken:
        raise UsageError(f"--address: {address} is taken")
    return Subject(host, name, args.port, str(address))


def _wait_until_listening(lab: Lab, subject: Subject, wait: float) -> None:
    """Wait until *subject* listens on its port.

    Raises:
        NotServingError: the program exited, or is not listening on that port after *wait* seconds.
    """
    deadline = time.monotonic() + wait
    found: dict[str, Any] = {}
    while True:
        with contextlib.suppress(LabDownError):  # the observer is still starting
            found = lab.call(subject.host, "GET", "/admin/subject")
        if found and subject.port in found["listening"]:
            return
        if found and found["exit_code"] is not None:
            said = f": {found['last_line']}" if found["last_line"] else ""
            raise NotServingError(f"{subject.name} ended with exit code {found['exit_code']}{said}")
        if ended := lab.ended(subject.host):
            raise NotServingError(f"{subject.name} {ended}")
        if time.monotonic() > deadline:
            others = found.get("listening") or []
            said = f"it listens on {', '.join(map(str, others))}" if others else "it listens on no port"
            last = f"; its last line: {found['last_line']}" if found.get("last_line") else ""
            raise NotServingError(
                f"{subject.name}: expected it to listen on port {subject.port} within {wait:g} s; {said}{last}"
            )
        time.sleep(POLL)  # polls: no event signals a change of a socket's state


def _seen_from_outside(lab: Lab, subject: Subject) -> str:
    """Probe *subject* from the region of the clients; return a description of its certificate.

    Raises:
        NotServingError: the subject accepts connections, but does not answer.
    """
    if subject.port == PLAIN:
        return "plain HTTP is not probed"
    words = ("python", "-m", "monitor", str(subject), "--once", "--json", "--trust", str(TRUST_ANCHOR))
    _, out, err = lab.capture(OUTSIDE, words)
    try:
        seen = json.loads(out)["endpoints"][0]
    except (ValueError, LookupError, TypeError):
        raise LabError(f"the probe of {subject} failed: {err.decode(errors='replace').strip()[-200:]}") from None
    findings = seen["findings"]
    if (connection := findings["connection"])["state"] != "ok":
        if "no answer" in connection["detail"]:
            raise NotServingError(f"{subject.name} accepts connections on port {subject.port}, but does not respond")
        return f"no TLS: {connection['detail']}"
    chain = findings["chain"]
    if chain["state"] != "ok":
        return f"no certificate of the lab's CA yet ({chain['detail']})"
    return f"certificate of the lab's CA, serial {seen['serial'][:8]}…, {findings['expiry']['detail']}"


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP inside the block, so that the block always completes."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
