"""What a trace can bring along for other programs: decoded packets, a pcap file, the secrets to decrypt it."""

import base64
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from waterfall.errors import EvidenceError

#: Keys of a trace's JSON that go into files, never into what is shown or kept.
PCAP, KEYLOG = "pcap", "keylog"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What to bring along."""

    #: Every segment, decoded, in the JSON.
    packets: bool = False
    #: A capture at the client's side.
    pcap: bool = False
    #: TLS secrets.  Whoever has them can read the connections.
    keylog: bool = False

    @property
    def frames(self) -> bool:
        """Whether frames have to be captured."""
        return self.packets or self.pcap

    def as_json(self) -> dict[str, bool]:
        """Return the flags, as the agent's request has them."""
        return asdict(self)


def save(body: dict[str, Any], pcap: Path | None, keylog: Path | None) -> dict[str, Any]:
    """Write the files that were asked for; return *body* without them.

    Raises:
        EvidenceError: a file can not be written.
    """
    rest = {key: value for key, value in body.items() if key not in {PCAP, KEYLOG}}
    contents = {pcap: base64.b64decode(body.get(PCAP, "")), keylog: str(body.get(KEYLOG, "")).encode()}
    for path, content in contents.items():
        if path is None:
            continue
        try:
            # Secrets are for their owner: a file that others may read would be as good as no TLS.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if path == keylog else 0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise EvidenceError(f"cannot write {path}: {error.strerror}") from None
    return rest


def check(*paths: Path | None) -> None:
    """Refuse, before anything is measured, files that can not be written.

    Raises:
        EvidenceError: there is no such folder, or we may not write there.
    """
    for path in paths:
        if path is None:
            continue
        target = path if path.exists() else path.parent
        if path.is_dir() or not path.parent.is_dir() or not os.access(target, os.W_OK):
            raise EvidenceError(f"expected a file that can be written, got {path}")
