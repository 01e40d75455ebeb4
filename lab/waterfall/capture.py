"""Capture of a trace's frames at the host `wan`, and conversion to a pcap file as seen by the client.

`wan` captures each packet twice: when it enters the network and when it leaves.  The pcap file has each packet once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from telemetry.call import CallError, call
from waterfall.errors import NoFramesError
from wireformat.ip import HeaderError, decode_frame
from wireformat.pcap import LINKTYPE_ETHERNET, file_header, record
from wireformat.pcapng import PcapngError, Recording, read

TIMEOUT = 5.0
#: Maximum duration of a capture in seconds; `wan` then ends the capture if the client has not ended it.
LIMIT = 90.0


@dataclass(slots=True)
class Frames:
    """The captured frames; `recording` is empty until the capture has ended."""

    recording: Recording = field(default_factory=Recording)


@contextmanager
def frames_of(address: str, wan: str) -> Iterator[Frames]:
    """Capture the frames from and to the host at *address* while the context is active.

    Raises:
        NoFramesError: wan has no packet socket, is busy, or does not respond.
    """
    captured = Frames()
    _ask(wan, "POST", {"seconds": LIMIT, "host": address})
    try:
        yield captured
    finally:
        _ask(wan, "DELETE")
        data = _ask(wan, "GET")
        try:
            captured.recording = read(data if isinstance(data, bytes) else b"")
        except PcapngError as error:
            raise NoFramesError(f"wan: {error}") from None


def client_pcap(recording: Recording, address: str, asking_ns: Sequence[tuple[int, int]]) -> bytes:
    """Return a pcap file with the packets that the host at *address* sent and received.

    Args:
        recording: frames captured at both ends of every link.
        address: IPv4 address of the client.
        asking_ns: periods (nanoseconds since the epoch) during which the traces resolved names.  UDP packets outside
            these periods are omitted.
    """
    records = [file_header(LINKTYPE_ETHERNET)]
    for frame in recording.frames:
        try:
            packet = decode_frame(frame.data).packet
        except HeaderError:
            continue
        if address != (packet.ip.destination if frame.outbound else packet.ip.source):
            continue
        if packet.udp is not None and not any(since <= frame.time_ns <= until for since, until in asking_ns):
            continue
        records.append(record(frame.time_ns, frame.data))
    return b"".join(records)


def _ask(wan: str, method: str, body: object = None) -> object:
    try:
        return call(wan, method, "/admin/frames", body, timeout=TIMEOUT)
    except CallError as error:
        raise NoFramesError(f"no frames from wan: {error.message.removeprefix(f'{method} /admin/frames: ')}") from None
