"""Tests for the admin port over real sockets."""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from telemetry import Faults, Telemetry, endpoint
from telemetry.admin import MAX_HEADER, AdminServer
from telemetry.call import CallError, call


@pytest.fixture
async def service(tmp_path: Path):
    (tmp_path / "token").write_text("secret\n")
    telemetry = Telemetry("example")
    telemetry.faults.declare("drop_answers", "Drop answers", ms=0.0)
    telemetry.route("POST", "/admin/echo/{word}", lambda request: {"word": request.params["word"], **request.json()})
    args = argparse.Namespace(admin=("127.0.0.1", 0), token_file=tmp_path / "token")
    async with telemetry.serving(args):
        yield telemetry


async def ask(telemetry: Telemetry, method: str, path: str, body=None, token: str | None = "secret"):  # noqa: S107 - the token of the test service
    assert telemetry.admin_address is not None
    url = "http://{}:{}".format(*telemetry.admin_address)
    return await asyncio.to_thread(call, url, method, path, body, token=token or "")


async def test_a_body_that_is_nested_too_deeply_is_a_400(service: Telemetry) -> None:
    assert service.admin_address is not None
    reader, writer = await asyncio.open_connection(*service.admin_address)
    body = b"[" * 100_000
    head = "POST /admin/echo/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\nContent-Length: {}\r\n\r\n"
    writer.write(head.format(len(body)).encode() + body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_service_without_checks_is_not_healthy(service: Telemetry) -> None:
    with pytest.raises(CallError) as refused:
        await ask(service, "GET", "/health")
    assert refused.value.status == 503
    service.health.set("listener", True, "443")
    assert (await ask(service, "GET", "/health"))["checks"] == {"listener": {"ok": True, "detail": "443"}}


@pytest.mark.parametrize("token", ["", "wrong"], ids=["no-token", "wrong-token"])
async def test_admin_is_refused_without_the_token(service: Telemetry, token: str) -> None:
    with pytest.raises(CallError, match="Bearer TOKEN") as refused:
        await ask(service, "GET", "/admin/faults", token=token)
    assert refused.value.status == 401


@pytest.mark.parametrize("rounds", range(6))
async def test_a_connection_just_accepted_is_closed_with_the_server(rounds: int) -> None:
    server = AdminServer()
    address = await server.start("127.0.0.1", 0)
    with socket.create_connection(address) as client:
        for _ in range(rounds):
            # One event loop iteration each: accept, create the transport, create the task, run its first step.
            await asyncio.sleep(0)  # lets the event loop run once
        await server.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()  # raises a ResourceWarning if a transport is still open
        client.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


async def test_an_unreadable_token_is_reported(
    service: Telemetry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telemetry.call.ADMIN_TOKEN", tmp_path)  # a directory cannot be read as a file, even by root
    assert service.admin_address is not None
    with pytest.raises(CallError, match=r"Is a directory; .*firstbyte exec HOST") as refused:
        await asyncio.to_thread(call, "http://{}:{}".format(*service.admin_address), "GET", "/metrics")
    assert refused.value.status == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/nowhere", None, 404, "there is nothing at"),
        ("GET", "/admin/echo/hi", None, 405, "expected POST"),
        ("POST", "/admin/faults/nonsense", {}, 404, "expected one of drop_answers"),
        ("POST", "/admin/faults/drop_answers", {"probability": 2}, 400, "between 0 and 1"),
        ("POST", "/admin/faults/drop_answers", {"ms": "slow"}, 400, "expected ms to be float"),
        ("POST", "/admin/faults/drop_answers", {"speed": 1}, 400, "expected parameters among"),
        ("PUT", "/admin/clock", {"offset_s": "tomorrow"}, 400, "offset_s"),
        ("GET", "/admin/sockets?state=WAITING", None, 400, "TIME-WAIT"),
        ("GET", "/admin/sockets?local_port=70000", None, 400, "local_port"),
    ],
)
async def test_bad_requests_say_what_was_expected(service, method, path, body, status, message) -> None:
    with pytest.raises(CallError, match=message) as refused:
        await ask(service, method, path, body)
    assert refused.value.status == status


async def test_sockets_are_listed_by_state_and_port_with_both_ends(service: Telemetry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        near, far = (f"127.0.0.1:{each.getsockname()[1]}" for each in (client, server))
        path = f"/admin/sockets?local_port={client.getsockname()[1]}"
        for query, expected in ((path, [{"local": near, "remote": far}]), (f"{path}&state=TIME-WAIT", [])):
            found = await ask(service, "GET", query)  # an earlier connection from this port may be in TIME-WAIT
            assert [each for each in found if each["remote"] == far] == expected


async def test_path_parameters_reach_the_handler(service: Telemetry) -> None:
    assert await ask(service, "POST", "/admin/echo/hello%20you", {"n": 1}) == {"word": "hello you", "n": 1}


async def test_a_fault_is_off_by_default_counted_and_cleared(service: Telemetry) -> None:
    assert not service.faults.hit("drop_answers")
    await ask(service, "POST", "/admin/faults/drop_answers", {"probability": 1})
    assert service.faults.hit("drop_answers")
    assert 'firstbyte_fault_hits{fault="drop_answers"} 1' in await ask(service, "GET", "/metrics")
    await ask(service, "DELETE", "/admin/faults")
    assert not service.faults.hit("drop_answers")


def test_a_fault_with_a_count_switches_itself_off(service: Telemetry) -> None:
    service.faults.switch_on("drop_answers", {"count": 2, "ms": 5.0})
    found = [service.faults.hit("drop_answers") for _ in range(3)]
    assert [each and each["ms"] for each in found] == [5.0, 5.0, None]
    assert not service.faults.any_on
    assert service.faults.as_dict()["drop_answers"]["hits"] == 2


def test_a_fault_for_one_place_spares_the_others() -> None:
    faults = Faults()
    faults.declare("late", "Answer late", path=("any", "/a", "/b"))
    faults.switch_on("late", {"path": "/a"})
    assert [faults.hit("late", path=each) is not None for each in ("/a", "/b")] == [True, False]
    faults.switch_on("late", {})
    assert faults.hit("late", path="/b")


async def test_the_wall_clock_can_be_offset(service: Telemetry) -> None:
    before = service.clock.time()
    await ask(service, "PUT", "/admin/clock", {"offset_s": 3600})
    assert 3600 <= service.clock.time() - before < 3660


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", 400),
        (b"GET / FTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEADER + b"\r\n\r\n", 431),
    ],
    ids=["nonsense", "field", "protocol", "chunked", "body", "head"],
)
async def test_malformed_and_oversized_requests_are_refused(service: Telemetry, raw: bytes, status: int) -> None:
    assert service.admin_address is not None
    reader, writer = await asyncio.open_connection(*service.admin_address)
    writer.write(raw)
    assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("text", ["443", ":443", "host:", "host:http", "host:70000"])
def test_an_endpoint_needs_host_and_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected HOST:PORT"):
        endpoint(text)


async def test_a_closed_pipe_ends_a_call_without_a_traceback(service: Telemetry) -> None:
    assert service.admin_address is not None
    url = "http://{}:{}".format(*service.admin_address)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "telemetry.call", "--url", url, "GET", "/metrics"]
    process = await asyncio.create_subprocess_exec(*command, stdout=writing, stderr=asyncio.subprocess.PIPE)
    os.close(writing)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (-signal.SIGPIPE, b"")
