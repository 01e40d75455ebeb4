"""Tests of the console's HTTP server in a separate process."""

import asyncio
import json
import sys

import aiohttp
import pytest
from yarl import URL

from telemetry.call import CallError
from tests.console.lab import ROOT, ScriptedLab, console, trace

PAGE = ("/", "/app.js", "/dom.js", "/map.js", "/waterfall.js", "/style.css", "/icon.svg")


async def test_the_page_and_its_files_are_served_with_a_strict_content_security_policy(lab: ScriptedLab) -> None:
    async with console(lab) as running, aiohttp.ClientSession(running.url) as session:
        for path in PAGE:
            async with session.get(path) as response:
                assert response.status == 200
                assert "default-src 'self'" in response.headers["Content-Security-Policy"]
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert "http-equiv" not in await response.text()
        async with session.post("/api/state") as response:
            assert response.status == 405
        async with session.get("/nothing") as response:
            assert response.status == 404


async def test_the_state_is_json_and_changes_are_events(lab: ScriptedLab) -> None:
    async with console(lab) as running, aiohttp.ClientSession(running.url) as session:
        async with session.get("/api/state") as response:
            assert len((await response.json())["regions"]) == 8
        async with session.get("/events") as response, asyncio.timeout(20):
            assert response.headers["Content-Type"].startswith("text/event-stream")
            await running.show_trace(trace())
            seen: dict[str, dict[str, object]] = {}
            kind = ""
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    seen[kind] = json.loads(line[6:])
                if seen.keys() == {"state", "trace"}:
                    break
        assert seen["trace"]["trace"] == trace()


async def test_reports_are_served_with_scripts_disabled_and_other_paths_are_not_found(lab: ScriptedLab) -> None:
    run = lab.folder / "results" / "ttl" / "20261124T213910Z"
    run.mkdir(parents=True)
    (run / "report.html").write_text("<script>1</script>", encoding="utf-8")
    (run / "run.pcap").write_bytes(b"\xd4\xc3\xb2\xa1")
    async with console(lab) as running, aiohttp.ClientSession(running.url) as session:
        async with session.get("/results/ttl/20261124T213910Z/report.html") as response:
            assert response.status == 200
            assert "sandbox" in response.headers["Content-Security-Policy"]
            assert "script-src" not in response.headers["Content-Security-Policy"]
        async with session.get("/results/ttl/20261124T213910Z/run.pcap") as response:
            assert response.headers["Content-Disposition"] == "attachment"
        async with session.get("/results/ttl/20261124T213910Z") as response:
            assert str(response.url).endswith("20261124T213910Z/")
            assert "report.html" in await response.text()
        for path in ("/results/%2e%2e/admin.token", "/results/..%2fadmin.token", "/results/ttl/none"):
            async with session.get(URL(running.url + path, encoded=True)) as response:
                assert response.status == 404, path


async def test_no_results_folder_is_an_empty_listing(lab: ScriptedLab) -> None:
    async with (
        console(lab) as running,
        aiohttp.ClientSession(running.url) as session,
        session.get("/results") as response,
    ):
        assert response.status == 200
        assert "Nothing here yet" in await response.text()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param([], "a JSON object, got list", id="list"),
        pytest.param({}, "url to be text, got None", id="no-url"),
        pytest.param({"url": "https://x/"}, "cold to be an object, got NoneType", id="no-cold"),
        pytest.param({"url": "https://x/", "cold": {}}, "cold.total_ms to be a number", id="no-total"),
        pytest.param(
            {"url": "https://x/", "cold": {"total_ms": 1, "phases": {}}}, "cold.phases to be a list", id="no-list"
        ),
        pytest.param(
            {"url": "https://x/", "cold": {"total_ms": 1, "phases": [{"name": "dns"}]}},
            "cold.phases[0] to have a name, start_ms and measured_ms",
            id="half-a-phase",
        ),
    ],
)
async def test_an_invalid_trace_is_refused(lab: ScriptedLab, body: object, expected: str) -> None:
    async with console(lab) as running:
        with pytest.raises(CallError) as caught:
            await running.show_trace(body)
        assert caught.value.status == 400
        assert expected in caught.value.message


async def test_a_trace_without_token_is_refused(lab: ScriptedLab) -> None:
    async with console(lab) as running:
        running.token = "wrong"
        with pytest.raises(CallError) as caught:
            await running.show_trace(trace())
        assert caught.value.status in {401, 403}


async def test_sigterm_ends_open_pages_and_exits_0(lab: ScriptedLab) -> None:
    async with (
        console(lab) as running,
        aiohttp.ClientSession(running.url) as session,
        session.get("/events") as response,
    ):
        await response.content.readline()
        assert await running.stop() == 0
        async with asyncio.timeout(5):
            await response.content.read()


async def run(*options: str) -> tuple[int | None, str]:
    rooms = ":".join(str(ROOT / room) for room in ("dns", "pki", "services", "loadtest", "lab"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console", *options,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": rooms},
    )  # fmt: skip
    _, said = await process.communicate()
    return process.returncode, said.decode().splitlines()[-1]


async def test_bad_settings_are_one_line_and_exit_2(lab: ScriptedLab) -> None:
    hosts_file = str(lab.hosts_file())
    broken = lab.folder / "broken.toml"
    broken.write_text("[regions\n", encoding="utf-8")
    async with console(lab) as running:
        taken = f"127.0.0.1:{running.ports['http']}"
        for options, expected in (
            (["--hosts", str(broken)], f"console: error: {broken}:1: expected TOML"),
            (["--hosts", hosts_file, "--listen", taken], f"cannot listen on {taken}: "),
            (["--hosts", hosts_file, "--interval", "0"], "expected 0.2 to 60 seconds, got '0'"),
            (["--hosts", hosts_file, "--trace", "https://x/"], "expected --trace URL and --tracer URL together"),
            (["--hosts", hosts_file, "--listen", "nowhere"], "HOST:PORT"),
            ([], "--hosts"),
        ):
            code, said = await run(*options)
            assert (code, expected in said) == (2, True), said
