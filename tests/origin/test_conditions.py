"""Tests for conditional requests and ranges: the rules of RFC 9110 as a table, and a comparison with nginx."""

import asyncio
import contextlib
import email
import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from origin.conditions import (
    Decision,
    ETag,
    MalformedError,
    Validators,
    decide,
    format_date,
    parse_date,
    parse_etags,
    range_applies,
)
from origin.problems import Problem
from origin.ranges import UnsatisfiableError, parse
from origin.representations import Representation, send
from tests import judges
from tests.acme_server.conftest import site
from tests.waiting import comes_true

NOW = 1_790_000_000
CURRENT = Validators(ETag('"v1"'), NOW)
SAME, BEFORE, AFTER = (format_date(NOW + seconds) for seconds in (0, -1, 1))
GO, OLD, NO = Decision.PROCEED, Decision.NOT_MODIFIED, Decision.FAILED


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        pytest.param("GET", {}, GO, id="unconditional"),
        pytest.param("GET", {"if-none-match": '"v1"'}, OLD, id="same-tag"),
        pytest.param("GET", {"if-none-match": 'W/"v1"'}, OLD, id="weak-comparison"),
        pytest.param("GET", {"if-none-match": '"a", ,"v1"'}, OLD, id="in-a-list"),
        pytest.param("GET", {"if-none-match": '"v2"'}, GO, id="other-tag"),
        pytest.param("GET", {"if-none-match": "*"}, OLD, id="asterisk"),
        pytest.param("GET", {"if-modified-since": SAME}, OLD, id="not-modified"),
        pytest.param("GET", {"if-modified-since": BEFORE}, GO, id="modified"),
        pytest.param("HEAD", {"if-modified-since": AFTER}, OLD, id="head"),
        pytest.param("GET", {"if-modified-since": "yesterday"}, GO, id="no-date"),
        pytest.param("GET", {"if-none-match": '"v2"', "if-modified-since": SAME}, GO, id="tag-before-date"),
        pytest.param("GET", {"if-none-match": '"v1"', "if-modified-since": BEFORE}, OLD, id="tag-before-date-2"),
        pytest.param("PUT", {"if-modified-since": SAME}, GO, id="since-is-for-reads"),
        pytest.param("PUT", {"if-none-match": '"v1"'}, NO, id="write-none-match"),
        pytest.param("PUT", {"if-match": '"v1"'}, GO, id="match"),
        pytest.param("PUT", {"if-match": 'W/"v1"'}, NO, id="strong-comparison"),
        pytest.param("PUT", {"if-match": "*"}, GO, id="match-any"),
        pytest.param("GET", {"if-match": '"v2"'}, NO, id="read-match"),
        pytest.param("PUT", {"if-unmodified-since": SAME}, GO, id="unmodified"),
        pytest.param("PUT", {"if-unmodified-since": BEFORE}, NO, id="modified-since"),
        pytest.param("PUT", {"if-match": '"v1"', "if-unmodified-since": BEFORE}, GO, id="match-before-unmodified"),
        pytest.param("GET", {"if-match": '"v1"', "if-none-match": '"v1"'}, OLD, id="both-steps"),
        pytest.param("GET", {"if-match": '"v2"', "if-none-match": '"v1"'}, NO, id="the-first-step-decides"),
    ],
)
def test_preconditions_in_the_order_of_section_13_2_2(method: str, fields: dict[str, str], expected: Decision) -> None:
    assert decide(method, fields, CURRENT) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"if-match": "*"}, NO), ({"if-match": '"v1"'}, NO), ({"if-none-match": "*"}, GO), ({}, GO)],
)
def test_preconditions_without_a_current_representation(fields: dict[str, str], expected: Decision) -> None:
    assert decide("PUT", fields, None) is expected


@pytest.mark.parametrize("text", ["", "v1", '"a', 'w/"a"', '"a" "b"', '"a"x', "*, *", '"a\x7f"', "W/*"])
def test_malformed_tags_are_refused_for_writes_and_ignored_for_reads(text: str) -> None:
    with pytest.raises(MalformedError):
        decide("PUT", {"if-match": text}, CURRENT)
    assert decide("GET", {"if-match": text}, CURRENT) is GO
    assert decide("GET", {"if-none-match": text}, CURRENT) is GO


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Sun, 06 Nov 1994 08:49:37 +0000", None),
        ("784111777", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_the_three_date_formats(text: str, expected: int | None) -> None:
    assert parse_date(text) == expected


@given(st.integers(0, 4_000_000_000))
def test_dates_survive_a_round_trip(seconds: int) -> None:
    assert parse_date(format_date(seconds)) == seconds


@given(st.lists(st.tuples(st.text(st.characters(min_codepoint=0x23, max_codepoint=0x7E)), st.booleans()), min_size=1))
def test_lists_of_tags_survive_a_round_trip(tags: list[tuple[str, bool]]) -> None:
    made = [ETag(f'"{opaque}"', weak) for opaque, weak in tags]
    assert parse_etags(", ".join(map(str, made))) == made


@given(st.text())
def test_any_text_is_a_list_of_tags_or_malformed(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert all(each.opaque[0] == each.opaque[-1] == '"' for each in parse_etags(text))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [(None, True), ('"v1"', True), ('"v2"', False), ('W/"v1"', False), (SAME, True), (AFTER, False), ("x", False)],
)
def test_if_range_compares_strongly(condition: str | None, expected: bool) -> None:
    assert range_applies(condition, CURRENT, NOW + 60) is expected


def test_a_date_of_this_second_is_no_strong_validator() -> None:
    assert not range_applies(SAME, CURRENT, NOW + 0.9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-4", [(0, 4)]),
        ("bytes=0-", [(0, 9)]),
        ("bytes=-3", [(7, 9)]),
        ("bytes=-30", [(0, 9)]),
        ("bytes=5-500", [(5, 9)]),
        ("Bytes=1-1 , ,3-4", [(1, 1), (3, 4)]),
        ("bytes=3-4,99-,1-2", [(3, 4), (1, 2)]),
        ("bytes=4-3", []),
        ("bytes=a-b", []),
        ("bytes=-", []),
        ("bytes=²-", []),
        ("bytes", []),
        ("lines=1-2", []),
        ("bytes=0-,0-", []),
        ("bytes=" + ",".join("0-0" for _ in range(17)), []),
        (f"bytes=0-{'9' * 20}", []),
        ("bytes=10-", None),
        ("bytes=-0", None),
    ],
)
def test_ranges_of_ten_bytes(text: str, expected: list[tuple[int, int]] | None) -> None:
    if expected is None:
        with pytest.raises(UnsatisfiableError):
            parse(text, 10)
    else:
        assert [(each.first, each.last) for each in parse(text, 10)] == expected


@given(st.text(st.sampled_from("bytes=-0123459, ")) | st.text(), st.integers(0, 1 << 40))
def test_any_range_lies_within_the_representation(text: str, length: int) -> None:
    for field in (text, "bytes=" + text):
        with contextlib.suppress(UnsatisfiableError):
            found = parse(field, length)
            assert all(0 <= each.first <= each.last < length for each in found)
            assert sum(map(len, found)) <= length


# --- comparison with nginx --------------------------------------------------------------------------------------------

BODY = b"0123456789abcdefghijklmnopqrstuvwxyz"
MODIFIED = 1_700_000_000
SINCE = [format_date(MODIFIED + seconds) for seconds in (-100, -1, 0, 1, 100)] + ["no date"]
#: Entity tag in nginx's format: modification time and size.
TAG = f'"{MODIFIED:x}-{len(BODY):x}"'
TAGS = st.sampled_from([TAG, f"W/{TAG}", '"other"', "*", f'"a", {TAG}', f'"a",  W/{TAG}'])
POSITION = st.integers(0, 50)
SPECS = st.one_of(
    st.tuples(POSITION, POSITION).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    POSITION.map(lambda first: f"{first}-"),
    POSITION.map(lambda last: f"-{last}"),
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """Return a method and header fields, except combinations for which nginx deviates from RFC 9110.

    nginx evaluates both fields of a pair even if one of them overrides the other, and it applies Range to HEAD.
    """
    fields: dict[str, str] = {}
    for names, values in (
        (("If-Match", "If-Unmodified-Since"), (TAGS, st.sampled_from(SINCE[:-1]))),
        (("If-None-Match", "If-Modified-Since"), (TAGS, st.sampled_from(SINCE))),
    ):
        which = draw(st.integers(0, 3))
        if which < 2:
            fields[names[which]] = draw(values[which])
    method = draw(st.sampled_from(["GET", "GET", "HEAD"]))
    if method == "GET" and draw(st.booleans()):
        fields["Range"] = "bytes=" + ",".join(draw(st.lists(SPECS, min_size=1, max_size=4)))
        if draw(st.booleans()):
            fields["If-Range"] = draw(st.sampled_from([TAG, f"W/{TAG}", '"other"', *SINCE[:-1]]))
    return method, fields


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve `BODY` with nginx; yield the port."""
    judges.require("nginx")
    program = judges.find("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "body").write_bytes(BODY)
    os.utime(folder / "body", (MODIFIED, MODIFIED))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = folder / "nginx.conf"
    paths = " ".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{ access_log off; default_type application/json; if_modified_since before; {paths}\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; keepalive_requests 100000; }} }}\n"
    )
    with subprocess.Popen([str(program), "-c", str(conf)], stderr=subprocess.PIPE) as process:
        assert comes_true(lambda: listens(port)), "nginx does not listen"
        yield port
        process.terminate()


@pytest.fixture(scope="module")
def ours() -> Iterator[int]:
    """Serve `BODY` with the origin's code, in a thread with its own event loop; yield the port."""

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            what = Representation.of(BODY, "application/json", Validators(ETag(TAG), MODIFIED))
            return await send(request, what)
        except Problem as problem:
            return problem.response("/body")

    application = web.Application()
    application.router.add_get("/body", handler)
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), 0
    stop = asyncio.Event()

    async def serve() -> None:
        nonlocal port
        async with site(application) as port:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(5)
    yield port
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def parts(response: http.client.HTTPResponse, body: bytes) -> object:
    """Return the parts of a response that both servers must agree on; excludes the multipart boundary."""
    kind = response.getheader("Content-Type", "")
    if not kind.startswith("multipart/byteranges"):
        known = response.status in {200, 206, 304}
        return response.status, response.getheader("Content-Range"), body if known else b""
    assert int(response.getheader("Content-Length", "0")) == len(body)
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    return [(each["Content-Range"], each["Content-Type"], each.get_payload(decode=True)) for each in message.walk()][1:]


def test_nginx_agrees_on_conditional_requests_and_ranges(nginx: int, ours: int) -> None:
    links = [http.client.HTTPConnection("127.0.0.1", port, timeout=5) for port in (nginx, ours)]

    @given(requests())
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def compare(one: tuple[str, dict[str, str]]) -> None:
        answers = []
        for link in links:
            link.close()
            link.request(one[0], "/body", headers=one[1])
            response = link.getresponse()
            answers.append(parts(response, response.read()))
        assert answers[0] == answers[1], one

    compare()
    for link in links:
        link.close()
