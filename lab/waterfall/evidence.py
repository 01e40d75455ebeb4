"""Optional output of a trace in addition to timings: decoded packets, a pcap file, and TLS secrets to decrypt it."""

import base64
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from waterfall.errors import EvidenceError

#: Keys in a trace's JSON whose values are only written to files, never displayed or stored.
PCAP, KEYLOG = "pcap", "keylog"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Selects the optional output of a trace."""

    #: Include every segment, decoded, in the JSON.
    packets: bool = False
    #: Include a pcap file with the packets at the client's end.
    pcap: bool = False
    #: Include the TLS secrets needed to decrypt the connections.
    keylog: bool = False

    @property
    def frames(self) -> bool:
        """Whether the trace requires a frame capture."""
        return self.packets or self.pcap

    def as_json(self) -> dict[str, bool]:
        """Return the flags in the format of the agent's trace request."""
        return asdict(self)


def save(body: dict[str, Any], pcap: Path | None, keylog: Path | None) -> dict[str, Any]:
    """Write the requested files and return *body* without their contents.

    Raises:
        EvidenceError: a file cannot be written.
    """
    rest = {key: value for key, value in body.items() if key not in {PCAP, KEYLOG}}
    contents = {pcap: base64.b64decode(body.get(PCAP, "")), keylog: str(body.get(KEYLOG, "")).encode()}
    for path, content in contents.items():
        if path is None:
            continue
        try:
            # Only the owner may read the TLS secrets, because they decrypt the connections.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if path == keylog else 0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise EvidenceError(f"cannot write {path}: {error.strerror}") from None
    return rest


def check(*paths: Path | None) -> None:
    """Check that the files can be written, before anything is measured.

    Raises:
        EvidenceError: a folder does not exist or is not writable.
    """
    for path in paths:
        if path is None:
            continue
        target = path if path.exists() else path.parent
        if path.is_dir() or not path.parent.is_dir() or not os.access(target, os.W_OK):
            raise EvidenceError(f"expected a writable file, got {path}")
