"""HTTP/2 frame checks that the library h2 omits, for servers (RFC 9113)."""

from h2.errors import ErrorCodes

#: Maximum frame payload in bytes: the smallest limit that a server may set (RFC 9113 section 4.2).
MAX_FRAME = 16_384
#: Frame type SETTINGS, and the ACK flag of SETTINGS frames (RFC 9113 section 6.5).
_SETTINGS, _ACK = 0x4, 0x1


class FrameHeaders:
    """Checks frame headers before h2 parses the frames.

    h2 buffers an oversized frame before rejecting it, accepts a connection preface without SETTINGS, and
    reports a wrong error code for a SETTINGS acknowledgement with a payload (RFC 9113 section 6.5).
    """

    def __init__(self) -> None:
        #: Number of bytes of the current frame payload that have not arrived yet; initially, the length of the
        #: connection preface (RFC 9113 section 3.4).
        self._left = 24
        self._header = b""
        self._first = True

    def check(self, data: bytes) -> ErrorCodes | None:
        """Check the next received bytes; return the error code for the first invalid frame header in them, or None."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(9 - len(self._header), len(data) - at)
                self._header += data[at : at + step]
                if len(self._header) == 9:
                    header, self._header = self._header, b""
                    self._left = length = int.from_bytes(header[:3], "big")
                    settings, first = header[3] == _SETTINGS, self._first
                    self._first = False
                    if length > MAX_FRAME or (settings and length and header[4] & _ACK):
                        return ErrorCodes.FRAME_SIZE_ERROR
                    if first and not settings:
                        return ErrorCodes.PROTOCOL_ERROR
            at += step
        return None
