"""Tests of the origin with independent clients: curl for ranges and revalidation, websocket-client for the echo."""

import asyncio
import subprocess
from pathlib import Path

import websocket

from tests import judges
from tests.origin.conftest import Client


async def curl(*arguments: str) -> str:
    command = judges.command("curl", "-sS", "--max-time", "10", *arguments)
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return done.stdout


async def test_curl_resumes_a_download(ask: Client, tmp_path: Path) -> None:
    judges.require("curl")
    target, whole = tmp_path / "file", bytes(range(256)) * 1200
    target.write_bytes(whole[:123_457])
    status = await curl("-C", "-", "-o", str(target), "-w", "%{http_code} %{size_download}", f"{ask.base}/bytes/307200")
    assert status == f"206 {len(whole) - 123_457}"
    assert target.read_bytes() == whole


async def test_curl_revalidates_with_the_tag_that_it_saved(ask: Client, tmp_path: Path) -> None:
    judges.require("curl")
    tag, body, url = str(tmp_path / "tag"), str(tmp_path / "body"), f"{ask.base}/items/syn"
    compare = ("--etag-save", tag, "--etag-compare", tag, "-o", body, "-w", "%{http_code}", url)
    assert await curl("--etag-save", tag, "-o", body, "-w", "%{http_code}", url) == "200"
    assert await curl(*compare) == "304"
    assert (await ask("PUT", "/items/syn", {"name": "changed"})).status == 200
    assert await curl(*compare) == "200"
    assert (await ask("GET", "/items/syn")).body == Path(body).read_bytes()


async def test_websocket_client_gets_its_messages_back_and_a_close(ask: Client) -> None:
    def talk() -> list[str | bytes]:
        link = websocket.create_connection(f"{ask.base.replace('http', 'ws')}/echo", timeout=5)
        answers = []
        for message in ("", "häl\N{EM DASH}lo", "x" * 70_000):
            link.send(message)
            answers.append(link.recv())
        link.send_binary(b"\0\xff")
        answers.append(link.recv())
        link.ping(b"are you there?")
        assert link.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"are you there?")
        link.close(timeout=5)
        return answers

    assert await asyncio.to_thread(talk) == ["", "häl\N{EM DASH}lo", "x" * 70_000, b"\0\xff"]
