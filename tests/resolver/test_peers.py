"""Tests for interoperability with BIND, NSD and Knot: minimised queries in mixed case, with cookies."""

from pathlib import Path

import pytest

from dnsmessage import Name
from resolver.server import Server
from telemetry import Request, Telemetry
from tests.nameserver.daemons import daemon
from tests.resolver.test_resolver import ask, lines

ROOT = "127.0.0.1"
ZONE = f"""$ORIGIN .
$TTL 60
@ IN SOA ns. hm. 1 2 3 4 5
@ IN NS ns.
ns. IN A {ROOT}
www.deep.example. IN A 192.0.2.1
alias.example. IN CNAME www.deep.example.
*.wild.example. IN MX 10 mail.example.
big.example. IN TXT {" ".join(f'"{i:03d} {"x" * 200}"' for i in range(12))}
"""
#: Settings of each peer server: it serves the root zone and answers DNS cookies; BIND requires a valid server cookie.
CLAUSES = {
    "named": 'view "all" { require-server-cookie yes; zone "." { type primary; file ".zone"; }; };\n',
    "nsd": "server:\n  answer-cookie: yes\nzone:\n  name: .\n  zonefile: {folder}/.zone\n",
    "knotd": "template:\n  - id: default\n    global-module: mod-cookies\n"
    "zone:\n  - domain: .\n    file: {folder}/.zone\n",
}


@pytest.mark.parametrize("program", CLAUSES)
async def test_other_name_servers_answer_the_resolver(program: str, tmp_path: Path) -> None:
    clause = CLAUSES[program].replace("{folder}", str(tmp_path / program))
    with daemon(program, tmp_path / program, clause, ".", ZONE) as peer:
        server = Server(Telemetry("resolver"), {Name.from_text("ns."): ROOT}, port=peer.port)
        address = ["www.deep.example. 60 IN A 192.0.2.1"]
        assert lines(await ask(server, "www.deep.example.")) == address
        assert [(hop.qname, hop.kind) for hop in server.trails[-1].hops] == [
            ("example.", "no_cut"), ("deep.example.", "no_cut"), ("www.deep.example.", "answer"),
        ]  # fmt: skip
        alias = "alias.example. 60 IN CNAME www.deep.example."
        assert lines(await ask(server, "alias.example.")) == [alias, *address], "in the case of the zone"
        assert lines(await ask(server, "a.wild.example.", "MX")) == ["a.wild.example. 60 IN MX 10 mail.example."]
        assert lines(await ask(server, "no.example.")) == []
        assert len((await ask(server, "big.example.", "TXT", "tcp")).answer[0][0].strings) == 12
        assert server.trails[-1].hops[-1].transport == "tcp"
        (known,) = server._servers(Request("GET", "/"))
    assert (known["edns"], known["mixed_case"], known["cookies"]) == (True, True, True)
