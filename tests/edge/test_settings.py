"""Tests for the settings file: valid settings, error messages, and reloads that lose no request."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import Limits, Route, Target, Timeouts
from edge.__main__ import main
from edge.errors import BadRequestError
from edge.heads import normal_path
from edge.proxy import Proxy
from edge.routes import HealthCheck, matchable
from edge.settings import Clients, SettingsError, load, parse
from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.peers import OK, read_request, replying
from tests.waiting import until

ROUTE = '[[route]]\nprefix = "/"\ntargets = ["a:1"]\n'


def test_everything_that_can_be_set() -> None:
    settings = parse(
        """
[timeouts]
idle = 5
response = 9.5
[clients]
max = 10
per_address = 3
trusted = ["198.19.0.0/16", "::1/128"]
proxy_protocol = ["10.0.0.0/24"]
max_body = 1000
[https]
redirect = true
hsts = 60
[access_log]
sample = 0.5
[[route]]
prefix = "/news"
targets = ["news.example.com:8443", {address = "http://10.0.0.7:80", weight = 3}]
timeouts = {response = 2}
pool = {per_target = 7}
health = {path = "/health", interval = 1, timeout = 0.5}
[[route]]
prefix = "/"
targets = ["a:1"]
max_body = 0
"""
    )
    news, rest = settings.routes
    assert news == Route(
        "/news",
        (Target("news.example.com", 8443), Target("10.0.0.7", 80, tls=False)),
        (1, 3),
        Timeouts(idle=5.0, response=2.0),
        Limits(per_target=7),
        1000,
        HealthCheck("/health", 1.0, 0.5),
    )
    assert (rest.max_body, rest.timeouts) == (0, Timeouts(idle=5.0, response=9.5))
    assert (settings.clients.max, settings.clients.per_address, settings.redirect, settings.hsts) == (10, 3, True, 60)
    assert [str(each) for each in settings.clients.trusted or ()] == ["198.19.0.0/16", "::1/128"]
    assert [str(each) for each in settings.clients.proxy_protocol] == ["10.0.0.0/24"]
    assert settings.log_sample == 0.5


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("[timeouts\n", 1, "expected TOML"),
        ("[time]\nidle = 1\n", 1, "expected one of timeouts, clients, https, access_log, route"),
        ("[timeouts]\nidle = 1\nidel = 2\n", 3, "expected one of handshake, head"),
        ("[timeouts]\nidle = 0\n", 2, "expected idle to be a positive number, got 0"),
        ("[timeouts]\nidle = true\n", 2, "expected idle to be a positive number, got True"),
        ('[clients]\nmax = "9"\n', 2, "expected max to be a whole number of at least 1"),
        ("[clients]\nproxy_protocol = true\n", 2, "expected proxy_protocol to be a list of networks, got True"),
        ('[clients]\ntrusted = ["a"]\n', 2, "expected networks such as \"198.19.0.0/16\", got 'a'"),
        ("[https]\nredirect = 1\n", 2, "expected redirect to be true or false"),
        ("[access_log]\nsample = 2\n", 2, "expected sample to be a share from 0 to 1"),
        ('[[route]]\nprefix = "news"\ntargets = ["a:1"]\n', 2, 'expected a prefix such as "/news"'),
        ('[[route]]\nprefix = "/"\n', 1, "expected targets"),
        ('[[route]]\nprefix = "/"\ntargets = ["a"]\n', 3, "expected HOST:PORT or http://HOST:PORT, got 'a'"),
        (
            '[[route]]\nprefix = "/"\ntargets = ["ftp://a:1"]\n',
            3,
            "expected HOST:PORT or http://HOST:PORT, got 'ftp://a:1'",
        ),
        ('[[route]]\nprefix = "/"\ntargets = ["a b:1"]\n', 3, "expected HOST:PORT or http://HOST:PORT, got 'a b:1'"),
        (
            '[[route]]\nprefix = "/"\ntargets = ["a\\r\\n:1"]\n',
            3,
            "expected HOST:PORT or http://HOST:PORT, got 'a\\r\\n:1'",
        ),
        ('[[route]]\nprefix = "/"\ntargets = [{address = "a:1", weight = 0}]\n', 3, "expected a weight from 1 to 1000"),
        ('[[route]]\nprefix = "/"\ntargets = ["a:1", "a:1"]\n', 3, "expected each target once"),
        (ROUTE + ROUTE, 5, "expected each prefix once, got '/'"),
        (ROUTE + "timeouts = {idle = 3}\n", 4, "expected one of connect, response, pool"),
        (ROUTE + "pool = {per_target = 1.5}\n", 4, "expected per_target to be a positive whole number"),
        *(
            (f'[[route]]\nprefix = "{prefix}"\ntargets = ["a:1"]\n', 2, 'expected a prefix such as "/news"')
            for prefix in ("", "/a/../b", "/./a", "/a/..", "//", "/a//b", "/a//", "/\\u0000", "/\u65e5\u672c")
        ),
        *(
            (ROUTE + f'health = {{path = "{path}"}}\n', 4, 'expected a path such as "/health", without spaces')
            for path in ("x", "/a b", "/a\\r\\nX: y", "/a\\t", "/\\u007f", "/\u00e9")
        ),
        (ROUTE + "retries = 3\n", 4, "expected one of prefix, targets"),
    ],
)
def test_each_mistake_names_its_line_and_what_was_expected(text: str, line: int, expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(text, "edge.toml")
    assert str(refused.value).startswith(f"edge.toml:{line}: ")
    assert expected in str(refused.value)


@given(st.text(st.sampled_from("/.a%"), min_size=1, max_size=8), st.text(st.sampled_from("/.a%"), max_size=8))
def test_a_prefix_is_refused_if_no_normalised_path_can_match_it(prefix: str, rest: str) -> None:
    path = "/" + prefix + rest
    for at in range(1, len(path) + 1):
        route = Route(path[:at], (Target("a", 1),))
        with contextlib.suppress(BadRequestError):
            assert matchable(route.prefix) or not route.matches(normal_path(path.encode()))
    if matchable("/" + prefix):
        assert Route("/" + prefix, ()).matches(normal_path(quote("/" + prefix).encode()))


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("[time]\n", ":1: expected one of timeouts, clients, https, access_log, route, got 'time'"),
        (None, ": expected a readable settings file, got: No such file or directory"),
    ],
)
def test_a_settings_error_is_one_line_without_the_usage_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, reported: str
) -> None:
    path = tmp_path / "edge.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as exit_:
        main(["--http", "127.0.0.1:0", "--settings", str(path)])
    assert exit_.value.code == 2
    assert capsys.readouterr() == ("", f"edge: error: {path}{reported}\n")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: expected a readable settings file"):
        load(tmp_path / "none.toml")


def configured(proxy: Proxy, **changes) -> None:
    """Change settings of the edge; arguments with the prefix ``route_`` change a setting of every route."""
    routes = {name.removeprefix("route_"): value for name, value in changes.items() if name.startswith("route_")}
    rest = {name: value for name, value in changes.items() if not name.startswith("route_")}
    proxy.reconfigure(
        replace(proxy.settings, routes=tuple(replace(r, **routes) for r in proxy.settings.routes), **rest)
    )


async def test_ten_reloads_under_load_lose_no_request(bench: Bench) -> None:
    origins = [plain(await bench.start(replying(OK, delay=0.005))) for _ in range(2)]
    proxy, port = await bench.edge(origins[0])
    stop = asyncio.Event()
    statuses: list[int] = []

    async def client() -> None:
        while not stop.is_set():
            statuses.append(parts(await talk(port, GET))[0])

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for number in range(10):
        await asyncio.sleep(0.03)  # lets clients send requests between two reloads
        configured(proxy, route_targets=(origins[number % 2],), route_limits=Limits(per_target=4 + number))
    stop.set()
    await asyncio.gather(*clients)
    assert len(statuses) > 30
    assert set(statuses) == {200}
    await until(lambda: not proxy._old_pools)


async def test_bodies_beyond_the_limit_are_a_413(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))))
    configured(proxy, route_max_body=10)
    sized = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
    assert parts(await talk(port, sized % (10, bytes(10))))[0] == 200
    assert parts(await talk(port, sized % (11, bytes(11))))[0] == 413
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n6\r\n123456\r\n0\r\n\r\n"
    assert parts(await talk(port, chunked))[0] == 413


async def test_plain_http_is_redirected_and_https_says_that_it_lasts(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))))
    configured(proxy, redirect=True)
    status, fields, _ = parts(await talk(port, GET.replace(b"GET /", b"GET /a?b")))
    assert (status, fields["location"]) == (308, "https://www.example.com/a?b")
    secure, secure_port = await bench.edge(plain(await bench.start(replying(OK))), tls=True)
    configured(secure, hsts=60)
    _, fields, _ = parts(await talk(secure_port, GET, bench.papers.client()))
    assert fields["strict-transport-security"] == "max-age=60"


async def test_only_trusted_proxies_may_say_where_a_request_came_from(bench: Bench) -> None:
    seen: list[str] = []

    async def script(reader, writer) -> None:
        while True:
            seen.append((await read_request(reader))[1]["x-forwarded-for"])
            writer.write(OK)

    proxy, port = await bench.edge(plain(await bench.start(script)))
    claim = GET[:-2] + b"X-Forwarded-For: 203.0.113.9\r\n\r\n"
    for trusted in (None, "127.0.0.0/8", "198.19.0.0/16"):
        listed = parse(f'[clients]\ntrusted = ["{trusted}"]').clients.trusted if trusted else None
        configured(proxy, clients=Clients(trusted=listed))
        await talk(port, claim)
    assert seen == ["203.0.113.9, 127.0.0.1", "203.0.113.9, 127.0.0.1", "127.0.0.1"]


async def test_connections_of_one_address_are_limited(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))))
    configured(proxy, clients=Clients(per_address=1))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: proxy._by_address["127.0.0.1"] == 1)
    status, _, body = parts(await talk(port, GET))
    assert (status, "from one address" in json.loads(body)["reason"]) == (503, True)
    writer.write(GET)
    assert parts(await reader.read())[0] == 200
    writer.close()
    await until(lambda: not proxy._clients)
    assert not proxy._by_address


async def test_the_access_log_has_every_failure_and_a_share_of_the_rest(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, str]] = []

    async def script(reader, writer) -> None:
        while True:
            seen.append((await read_request(reader))[1])
            writer.write(OK)

    caplog.set_level("INFO")
    proxy, port = await bench.edge(plain(await bench.start(script)))
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for sample, lines in ((None, 0), (0.0, 0), (1.0, 1)):
        configured(proxy, log_sample=sample)
        caplog.clear()
        await talk(port, GET[:-2] + b"traceparent: " + trace + b"\r\n\r\n")
        records = [record for record in caplog.records if record.name == "edge.access"]
        assert len(records) == lines
    assert seen[0]["traceparent"] == trace.decode()
    assert "x-request-id" not in seen[0]
    assert len(seen[2]["x-request-id"]) == 16
    reported = vars(records[0])
    assert seen[2]["x-request-id"] in str(reported)
    assert "0af7651916cd43dd8448eb211c80319c" in str(reported)
    dead, dead_port = await bench.edge(plain(1))
    configured(dead, log_sample=0.0)
    caplog.clear()
    await talk(dead_port, GET)
    assert [record.name for record in caplog.records].count("edge.access") == 1


async def test_weights_divide_requests(bench: Bench) -> None:
    light, heavy = [plain(await bench.start(replying(OK))) for _ in range(2)]
    proxy, port = await bench.edge(light, heavy)
    configured(proxy, route_weights=(1, 3))
    for _ in range(120):
        await talk(port, GET)
    counts = [row["opened"] + row["reused"] for row in proxy._rows()]
    assert 1.8 < counts[1] / counts[0] < 4.5


def gauges(proxy: Proxy) -> list[tuple[float, float]]:
    """Return the gauges ``healthy`` and ``ejected`` of each target in one scrape, in the order of the settings."""
    lines = dict(line.rsplit(" ", 1) for line in proxy.telemetry.metrics.render().splitlines())
    names = [f'{{route="{row["route"]}",upstream="{row["name"]}"}}' for row in proxy._rows()]
    reported = [
        [float(lines[f"firstbyte_edge_target_{what}{name}"]) for what in ("healthy", "ejected")] for name in names
    ]
    assert sum("target_healthy{" in line for line in lines) == len(reported)
    return [(healthy, ejected) for healthy, ejected in reported]


async def test_an_origin_that_fails_its_health_check_gets_no_requests_until_it_is_well(bench: Bench) -> None:
    well = True
    asked: list[str] = []

    async def script(reader, writer) -> None:
        while True:
            line, _, _ = await read_request(reader)
            if "/health" in line:
                writer.write(OK if well else b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            else:
                asked.append(line)
                writer.write(OK)

    sick, other = plain(await bench.start(script)), plain(await bench.start(replying(OK)))
    proxy, port = await bench.edge(sick, other)
    configured(proxy, route_health=HealthCheck("/health", 0.02, 1.0))
    await talk(port, GET)
    well = False
    await until(lambda: proxy._rows()[0]["ejected"])
    assert gauges(proxy) == [(0, 1), (1, 0)]
    asked.clear()
    for _ in range(20):
        assert parts(await talk(port, GET))[0] == 200
    assert asked == []
    well = True
    await until(lambda: not proxy._rows()[0]["ejected"])
    assert gauges(proxy) == [(1, 0), (1, 0)]
    for _ in range(20):
        await talk(port, GET)
    assert asked
    proxy.reconfigure(replace(proxy.settings, routes=(Route("/", (other,)),)))
    assert gauges(proxy) == [(1, 0)]


async def test_a_target_that_is_ejected_for_failures_is_still_healthy(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(1), limits=Limits(failures=1, ejected_s=60.0))
    assert gauges(proxy) == [(1, 0)]
    await talk(port, GET)
    assert gauges(proxy) == [(1, 1)]


async def test_health_checks_keep_their_connection_and_open_another_when_the_origin_has_closed_it(bench: Bench) -> None:
    checks = 0
    closes = False

    async def script(reader, writer) -> None:
        nonlocal checks
        while not closes:
            await read_request(reader)
            checks += 1
            writer.write(OK)

    proxy, _ = await bench.edge(plain(await bench.start(script)))
    configured(proxy, route_health=HealthCheck("/health", 0.01, 1.0))
    await until(lambda: checks == 10)
    assert bench.connections == 1
    closes = True
    await until(lambda: bench.connections > 3)
    closes = False
    checks = 0
    await until(lambda: checks == 10)
    assert not proxy._rows()[0]["ejected"]
    opened = bench.connections
    (pool,) = proxy.pools.values()
    pool.retire()
    await until(lambda: bench.connections == opened + 1)


async def test_requests_that_wait_for_a_sick_origin_move_to_another(bench: Bench) -> None:
    silent = asyncio.Event()

    async def script(reader, writer) -> None:
        line, _, _ = await read_request(reader)
        if "/health" not in line or silent.is_set():
            silent.set()
            await reader.read()  # simulates an unresponsive origin: reads without responding
        writer.write(OK)

    proxy, port = await bench.edge(plain(await bench.start(script)), plain(await bench.start(replying(OK))))
    configured(proxy, route_health=HealthCheck("/health", 0.02, 0.1))
    answers = await asyncio.wait_for(asyncio.gather(*(talk(port, GET) for _ in range(6))), 10)
    assert {parts(answer)[0] for answer in answers} == {200}


@pytest.mark.parametrize("good", [True, False])
def test_sighup_reads_the_settings_again_and_keeps_the_old_ones_where_they_are_bad(
    tmp_path: Path, *, good: bool
) -> None:
    settings, token = tmp_path / "edge.toml", tmp_path / "token"
    settings.write_text('[[route]]\nprefix = "/a"\ntargets = ["http://127.0.0.1:9"]\n')
    token.write_text("secret")
    argv = ["--http", "127.0.0.1:0", "--settings", str(settings), "--admin", "127.0.0.1:0", "--token-file", str(token)]
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        addresses: dict[str, str] = {}
        while len(addresses) < 2:
            words = process.stdout.readline().split()
            addresses[words[-1].strip("()")] = words[2]

        def health() -> dict:
            try:
                with urllib.request.urlopen(f"http://{addresses['admin']}/health") as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return json.load(error)

        settings.write_text('[[route]]\nprefix = "/b"\ntargets = ["http://127.0.0.1:9"]\n' if good else "[[route]]\n")
        os.kill(process.pid, signal.SIGHUP)
        for _ in range(200):
            if "settings" in (checks := health()["checks"]):
                break
        assert checks["settings"]["ok"] is good
        if not good:
            assert f"{settings}:1: expected" in checks["settings"]["detail"]
        for path, served in (("/a", not good), ("/b", good)):
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.urlopen(f"http://{addresses['http']}{path}")
            answer.value.close()
            assert answer.value.code == (502 if served else 404)
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.communicate()


def test_the_settings_of_the_labs_edge_are_valid() -> None:
    settings = load(Path(__file__).parents[2] / "lab" / "etc" / "edge.toml")
    assert [route.prefix for route in settings.routes if route.health] == ["/"]
