"""What a trace can return besides timings: decoded packets, a pcap file, and the TLS secrets to decrypt it."""

import base64
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from waterfall.errors import EvidenceError

#: Keys of a trace's JSON that are written to files only, and neither shown nor kept.
PCAP, KEYLOG = "pcap", "keylog"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a trace shall return."""

    #: Every segment, decoded, in the JSON.
    packets: bool = False
    #: A capture at the client's end.
    pcap: bool = False
    #: TLS secrets, which decrypt the connections.
    keylog: bool = False

    @property
    def frames(self) -> bool:
        """Whether frames must be captured."""
        return self.packets or self.pcap

    def as_json(self) -> dict[str, bool]:
        """Return the flags as in the agent's request."""
        return asdict(self)


def save(body: dict[str, Any], pcap: Path | None, keylog: Path | None) -> dict[str, Any]:
    """Write the requested files; return *body* without their contents.

    Raises:
        EvidenceError: a file cannot be written.
    """
    rest = {key: value for key, value in body.items() if key not in {PCAP, KEYLOG}}
    contents = {pcap: base64.b64decode(body.get(PCAP, "")), keylog: str(body.get(KEYLOG, "")).encode()}
    for path, content in contents.items():
        if path is None:
            continue
        try:
            # Only the owner may read the secrets, which undo the encryption.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if path == keylog else 0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise EvidenceError(f"cannot write {path}: {error.strerror}") from None
    return rest


def check(*paths: Path | None) -> None:
    """Check before measuring that the files can be written.

    Raises:
        EvidenceError: the folder does not exist or is not writable.
    """
    for path in paths:
        if path is None:
            continue
        target = path if path.exists() else path.parent
        if path.is_dir() or not path.parent.is_dir() or not os.access(target, os.W_OK):
            raise EvidenceError(f"expected a writable file, got {path}")
