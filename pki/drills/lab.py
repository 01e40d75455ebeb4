"""What a drill needs of the lab: admin ports, from an event loop, and faults that are always undone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

#: Where the lab's root certificate is, for whoever runs inside.
TRUST = "/srv/trust/root.pem"


class Control(Protocol):
    """A way to the admin ports (`runtime.InsideLab`, or a test's own)."""

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send one admin request; return its JSON."""


async def call(control: Control, host: str, method: str, path: str, body: Any = None, timeout: float = 15.0) -> Any:
    """Send one admin request without holding the load up."""
    return await asyncio.to_thread(control.call, host, method, path, body, timeout=timeout)


@contextlib.asynccontextmanager
async def fault(
    control: Control, host: str, name: str, parameters: dict[str, Any] | None = None
) -> AsyncIterator[None]:
    """Keep a fault switched on, and switch it off whatever happens."""
    await call(control, host, "POST", f"/admin/faults/{name}", parameters or {})
    try:
        yield
    finally:
        await asyncio.shield(call(control, host, "DELETE", f"/admin/faults/{name}"))
