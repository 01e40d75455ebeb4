"""Frames around one trace: asks `wan` for them, and writes those of the client's side as a pcap file.

A frame is captured where it enters the network and where it leaves it; a file for other programs holds each packet
once, as it was at the client's end of its link: LINKTYPE_ETHERNET, nanoseconds (draft-ietf-opsawg-pcap).
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
#: Seconds until wan shuts its socket by itself, should nobody tell it to.
LIMIT = 90.0


@dataclass(slots=True)
class Frames:
    """What passed while the trace ran; empty until the end."""

    recording: Recording = field(default_factory=Recording)


@contextmanager
def frames_of(address: str, wan: str) -> Iterator[Frames]:
    """Capture the frames of the host at *address* for as long as the context lasts.

    Raises:
        NoFramesError: wan has no packet socket, is busy, or does not answer.
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
    """Return the pcap file of what the host at *address* sent and received, each packet once.

    Args:
        recording: frames at both ends of every link.
        address: of the client.
        asking_ns: from when to when (nanoseconds since 1970) a trace resolved its name; other DNS is not the trace's.
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
