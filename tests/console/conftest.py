"""Fixtures: a scripted lab on loopback, and headless Chromium."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import judges
from tests.console import browser
from tests.console.lab import ScriptedLab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ScriptedLab]:
    """Yield a scripted lab in which every host is healthy and has realistic responses."""
    scripted = ScriptedLab(tmp_path)
    scripted.furnish(time.time())
    for host in scripted.hosts.values():
        await host.start()
    yield scripted
    for host in scripted.hosts.values():
        await host.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run headless Chromium and yield the URL of its web socket."""
    (program,) = judges.command("chromium")
    with browser.running(program, tmp_path_factory.mktemp("chromium")) as web_socket:
        yield web_socket


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[browser.Page]:
    """Yield a browser tab; the test fails if the page logs an error to the browser console."""
    async with browser.tab(chromium) as tab:
        yield tab
    assert tab.complaints == [], "the page's console"
