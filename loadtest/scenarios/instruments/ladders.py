"""Captures the packets of one connection at the router, for a ladder diagram in the report of a scenario."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from experiments import Ladder, Run
from waterfall.capture import Frames, frames_of
from waterfall.errors import NoFramesError
from waterfall.lab import WAN
from waterfall.packets import dissect
from waterfall.passages import End, tcp_passages

#: Maximum number of packets in a diagram, and number of packets shown before the first lost one.
SHOWN, BEFORE = 24, 3


@contextmanager
def capturing(run: Run, address: str) -> Iterator[Frames]:
    """Capture the frames of the host at *address* inside a ``with`` block; entering it blocks for some milliseconds.

    If the router cannot capture frames, the list stays empty, and the report says that the diagram is missing.
    """
    frames = Frames()
    with ExitStack() as stack:
        try:
            frames = stack.enter_context(frames_of(address, WAN))
        except NoFramesError as error:
            run.findings.leave_out(f"the ladder diagram: {error}")
        yield frames


def tcp_packets(frames: Frames, client: End, server: End) -> dict[str, Any]:
    """Return the packets of one TCP connection without TLS; times are milliseconds since its first packet."""
    passages = tcp_passages(frames.recording.frames, client, server)
    began_ns = passages[0].sent_ns if passages else 0
    return dissect(frames.recording, client, server, began_ns=began_ns, first_byte_ms=-1, tls=False)


def add(run: Run, packets: dict[str, Any], title: str, caption: str, name: str) -> None:
    """Add the ladder diagram *name* to the report, unless there are no packets.

    Of a long connection, only `SHOWN` packets are drawn; if a packet was lost, they begin shortly before the lost one.
    """
    rows = packets.get("packets", [])
    lost = next((i for i, row in enumerate(rows) if row["arrived_ms"] is None), 0)
    first = max(0, lost - BEFORE) if len(rows) > SHOWN else 0
    if shown := rows[first : first + SHOWN]:
        run.findings.chart(Ladder(title, {**packets, "packets": shown}, caption, name))
