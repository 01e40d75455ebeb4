"""Sends admin requests to the lab's hosts, makes injections, and undoes every injection by the end of the run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from experiments.operator import OPERATOR, NoOperator, Operator, Reply
from experiments.timeline import Timeline
from experiments.undo_log import Undo, UndoLog

#: Time-outs of an admin request and of an injection (which may wait for a certificate renewal), in seconds.
TIMEOUT, INJECTION_TIMEOUT = 15.0, 60.0


class Admin(Protocol):
    """Client for the hosts' admin ports: `runtime.InsideLab`, or an in-memory lab in tests."""

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = TIMEOUT) -> Any:
        """Send one admin request to *host*; return the parsed JSON of the response.  *timeout* is in seconds."""


class Lab:
    """An experiment's interface to the lab: admin requests, injections and their reversal."""

    def __init__(self, admin: Admin, undo_log: UndoLog, timeline: Timeline, operator: Operator | None = None) -> None:
        self.admin, self.undo_log, self.timeline = admin, undo_log, timeline
        self.operator: Operator = operator or NoOperator()

    async def call(self, host: str, method: str, path: str, body: Any = None, timeout: float = TIMEOUT) -> Any:
        """Send one admin request from a thread; return the parsed JSON of the response."""
        return await asyncio.to_thread(self.admin.call, host, method, path, body, timeout=timeout)

    async def inject(
        self, text: str, host: str, method: str, path: str, body: Any = None, *,
        undo: Undo | None, timeout: float = INJECTION_TIMEOUT,
    ) -> Any:  # fmt: skip
        """Send an admin request that changes the lab.

        Args:
            text: short description for the timeline.
            host: host whose admin port receives the request.
            method: HTTP method.
            path: request path.
            body: request body, which is encoded as JSON.
            undo: request that reverses the change, stored in the undo log before the change is made; None: no reversal.
            timeout: time-out of the request in seconds.

        Raises:
            OSError: the undo log could not be written, so the request was not sent.
        """
        if undo is not None:
            self.undo_log.add(undo)
        response = await self.call(host, method, path, body, timeout=timeout)
        self.timeline.note("injection", text)
        return response

    async def operate(self, text: str, *words: str, undo: str = "") -> Reply:
        """Run ``firstbyte`` with *words* on the machine outside the lab; return its exit code and output.

        Args:
            text: short description for the timeline.
            words: arguments of the command.
            undo: command that reverses the change, stored in the undo log unless it is already there; "": no reversal.

        Raises:
            NoOperatorError: the experiment was started inside the lab, or the process outside does not reply.
            OSError: the undo log could not be written, so the command was not run.
        """
        entry = Undo(undo, OPERATOR, "RUN", undo)
        if undo and entry not in self.undo_log.undos:
            self.undo_log.add(entry)
        self.timeline.note("injection", text)
        return await self.operator.run(*words)

    async def fault(self, host: str, name: str, **parameters: Any) -> Undo:
        """Switch on fault *name* of *host*, until the returned `Undo` is passed to `undo` or the run ends."""
        undo = Undo(f"fault {name} of {host}", host, "DELETE", f"/admin/faults/{name}")
        text, path = f"{host}: {name} on", f"/admin/faults/{name}"
        await self.inject(text, host, "POST", path, parameters, undo=undo, timeout=TIMEOUT)
        return undo

    @contextlib.asynccontextmanager
    async def fault_on(self, host: str, name: str, **parameters: Any) -> AsyncIterator[None]:
        """Keep fault *name* of *host* switched on inside an ``async with`` block."""
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
        """Change *settings* (rtt_ms, jitter_ms, loss, rate_bps, …) of the link between regions *a* and *b*.

        The change applies to both directions, or, with *one_way*, only to the direction from *a* to *b*.
        """
        query = "?direction=one" if one_way else ""
        undo = Undo(f"link {a}:{b}", "wan", "DELETE", f"/admin/links/{a}/{b}{query}")
        words = ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in settings.items())
        await self.inject(f"{a}:{b} {words}", "wan", "PUT", f"/admin/links/{a}/{b}{query}", settings, undo=undo)
        return undo

    async def undo(self, undo: Undo) -> None:
        """Reverse one injection and remove it from the undo log.

        Raises:
            NoOperatorError: only a process outside the lab can reverse this injection.
            RuntimeError: that process could not reverse it.
        """
        if undo.host == OPERATOR:
            reply = await self.operator.run(*undo.path.split())
            if reply.code:
                raise RuntimeError(f"`firstbyte {undo.path}`: {reply.err.strip() or f'exit code {reply.code}'}")
        else:
            await self.call(undo.host, undo.method, undo.path, undo.body)
        if undo in self.undo_log.undos:
            self.undo_log.remove(undo)
        self.timeline.note("undone", undo.text)

    async def undo_all(self) -> list[str]:
        """Reverse all injections, newest first.

        Returns:
            The description and the error of each injection that could not be undone.  These injections remain in the
            undo log, and the next run tries again to undo them.
        """
        failed = []
        for undo in reversed(tuple(self.undo_log.undos)):
            try:
                await self.undo(undo)
            except Exception as error:  # for example, the host is down: report it and continue
                failed.append(f"{undo.text}: {error}")
        return failed
