"""Tests that compare our answers with NSD's for random zones and questions; skipped if NSD is not installed."""

import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
from dns_queries import NSD

from nameserver import Responder, parse
from tests import judges
from tests.nameserver.daemons import free_port

QUESTIONS, ZONES = 10_000, 20
QTYPES = ["A", "AAAA", "NS", "CNAME", "MX", "TXT", "SOA", "SRV", "DS", "HTTPS", "CAA", "TYPE65280"]
HEAD = "$TTL 60\n@ IN SOA ns hm 1 2 3 4 5\n@ IN NS ns\nns IN A 192.0.2.1\n"
LABELS = ["a", "b", "c", "*", "ns", "mail", "x-1", "_tcp"]


def owner(rng: random.Random, depth: int = 3) -> str:
    return ".".join(rng.choice(LABELS) for _ in range(rng.randint(1, depth)))


def make_zone(rng: random.Random) -> str:
    """Return a random zone with wildcards, delegations, CNAMEs and empty non-terminals."""
    lines, taken = [HEAD], {"ns"}
    for _ in range(rng.randint(5, 40)):
        name = owner(rng)
        if name in taken:
            continue
        taken.add(name)
        target = rng.choice([owner(rng), owner(rng), "ns", "mail.other.", "@"])
        kind = rng.random()
        if kind < 0.15 and not name.startswith("*"):
            lines.append(f"{name} IN NS ns.{name}\nns.{name} IN A 192.0.2.{rng.randrange(256)}\n")
            taken.add(f"ns.{name}")
            if rng.random() < 0.3:
                lines.append(f"{name} IN DS 1 13 2 {'ab' * 32}\n")
        elif kind < 0.35:
            lines.append(f"{name} IN CNAME {target}\n")
        else:
            data = rng.sample(
                ["A 192.0.2.7", "A 192.0.2.8", "AAAA 2001:db8::7", "TXT text", f"MX 10 {target}", f"SRV 1 2 3 {target}",
                 "HTTPS 1 . alpn=h2", 'CAA 0 issue "ca.test"', "TYPE65280 \\# 2 abcd"], rng.randint(1, 4),
            )  # fmt: skip
            lines += [f"{name} IN {each}\n" for each in data]
    return "".join(lines)


@contextmanager
def nsd(folder: Path, zones: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run NSD with *zones* (master file text by origin); yield its address and port."""
    port = free_port()
    config = NSD.format(port=port, folder=folder)
    for origin, text in zones.items():
        (folder / origin).write_text(f"$ORIGIN {origin}\n{text}")
        config += f"zone:\n  name: {origin}\n  zonefile: {origin}\n"
    (folder / "nsd.conf").write_text(config)
    with running([*judges.command("nsd"), "-d", "-c", str(folder / "nsd.conf")], folder, port, next(iter(zones))):
        yield "127.0.0.1", port


@contextmanager
def running(command: list[str], folder: Path, port: int, origin: str) -> Iterator[None]:
    """Run a name server until the context ends; enter the context once the server answers for *origin*."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        query = dns.message.make_query(origin, "SOA")
        for _ in range(200):
            try:
                dns.query.udp(query, "127.0.0.1", 0.2, port)
                break
            except (OSError, dns.exception.Timeout):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)  # poll interval: the peer does not signal that it is ready
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def said(message: dns.message.Message) -> tuple[str, bool, list[str], list[str]]:
    """Return the rcode, the AA flag, and the sorted records of the answer and authority sections."""
    sections = [
        sorted(line.lower() for rrset in section for line in rrset.to_text().splitlines())
        for section in (message.answer, message.authority)
    ]
    return dns.rcode.to_text(message.rcode()), bool(message.flags & dns.flags.AA), sections[0], sections[1]


def test_ten_thousand_answers_are_those_of_nsd(tmp_path: Path) -> None:
    judges.require("nsd")
    rng = random.Random(20261128)
    texts = {f"zone{i}.test.": make_zone(rng) for i in range(ZONES)}
    zones = {origin: parse(origin, text) for origin, text in texts.items()}
    responder = Responder({zone.apex: zone for zone in zones.values()})
    different = []
    with nsd(tmp_path, texts) as (address, port), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((address, port))
        for _ in range(QUESTIONS):
            qname = f"{owner(rng, 4)}.{rng.choice(list(texts))}" if rng.random() < 0.97 else rng.choice(list(texts))
            query = dns.message.make_query(qname, rng.choice(QTYPES), use_edns=0, payload=4096)
            query.flags = 0
            wire = query.to_wire()
            sock.send(wire)
            theirs = dns.message.from_wire(sock.recv(65_535))
            response = responder.respond(wire, udp=False)
            assert response is not None
            ours = dns.message.from_wire(response.wire)
            if said(ours) != said(theirs):
                different.append(f"{query.question[0]}\n  ours {said(ours)}\n  nsd  {said(theirs)}")
    assert not different, f"{len(different)} of {QUESTIONS} differ, as\n" + "\n".join(different[:5])
