"""Admin requests to the lab, and injections that are always undone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from experiments.timeline import Timeline
from experiments.undo_log import Undo, UndoLog

#: Seconds that one admin request may take, and one that changes the lab (a renewal waits for the CA).
TIMEOUT, INJECTION_TIMEOUT = 15.0, 60.0


class Admin(Protocol):
    """Reaches the hosts' admin ports (`runtime.InsideLab`, or a test's own)."""

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = TIMEOUT) -> Any:
        """Send one admin request; return the JSON of the response."""


class Lab:
    """The lab as an experiment sees it."""

    def __init__(self, admin: Admin, undo_log: UndoLog, timeline: Timeline) -> None:
        self.admin, self.undo_log, self.timeline = admin, undo_log, timeline

    async def call(self, host: str, method: str, path: str, body: Any = None, timeout: float = TIMEOUT) -> Any:
        """Send one admin request from a thread; return the JSON of the response."""
        return await asyncio.to_thread(self.admin.call, host, method, path, body, timeout=timeout)

    async def inject(self, text: str, host: str, method: str, path: str, body: Any = None, *, undo: Undo | None) -> Any:
        """Send an admin request that changes the lab.

        Args:
            text: a description of a few words, for the timeline.
            host: whose admin port.
            method: HTTP method.
            path: of the request.
            body: of the request.
            undo: the request that reverses it, written to disk first.  None: nothing to reverse.

        Raises:
            OSError: the undo log could not be written; nothing was injected.
        """
        if undo is not None:
            self.undo_log.add(undo)
        response = await self.call(host, method, path, body, timeout=INJECTION_TIMEOUT)
        self.timeline.note("injection", text)
        return response

    async def fault(self, host: str, name: str, **parameters: Any) -> Undo:
        """Switch a fault on until `undo` or the end of the run."""
        undo = Undo(f"fault {name} of {host}", host, "DELETE", f"/admin/faults/{name}")
        await self.inject(f"{host}: {name} on", host, "POST", f"/admin/faults/{name}", parameters, undo=undo)
        return undo

    @contextlib.asynccontextmanager
    async def fault_on(self, host: str, name: str, **parameters: Any) -> AsyncIterator[None]:
        """Keep a fault switched on inside an ``async with`` block."""
        undo = await self.fault(host, name, **parameters)
        try:
            yield
        finally:
            await asyncio.shield(self.undo(undo))

    async def set_clock(self, host: str, offset: float) -> Undo:
        """Shift the wall clock of *host* by *offset* seconds."""
        undo = Undo(f"clock of {host}", host, "PUT", "/admin/clock", {"offset_s": 0})
        await self.inject(f"{host}: clock {offset:+g} s", host, "PUT", "/admin/clock", {"offset_s": offset}, undo=undo)
        return undo

    async def link(self, a: str, b: str, *, one_way: bool = False, **settings: Any) -> Undo:
        """Change the link between two regions (rtt_ms, jitter_ms, loss, rate_bps, …); both directions unless *one_way*."""
        query = "?direction=one" if one_way else ""
        undo = Undo(f"link {a}:{b}", "wan", "DELETE", f"/admin/links/{a}/{b}{query}")
        words = ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in settings.items())
        await self.inject(f"{a}:{b} {words}", "wan", "PUT", f"/admin/links/{a}/{b}{query}", settings, undo=undo)
        return undo

    async def undo(self, undo: Undo) -> None:
        """Reverse one injection."""
        await self.call(undo.host, undo.method, undo.path, undo.body)
        if undo in self.undo_log.undos:
            self.undo_log.remove(undo)
        self.timeline.note("undone", undo.text)

    async def undo_all(self) -> list[str]:
        """Reverse every injection, the last one first.

        Returns:
            What could not be undone, and why; it stays in the log for the next run.
        """
        failed = []
        for undo in reversed(tuple(self.undo_log.undos)):
            try:
                await self.undo(undo)
            except Exception as error:  # the host may be gone: go on with the others and report it
                failed.append(f"{undo.text}: {error}")
        return failed
