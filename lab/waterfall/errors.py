"""Why a request did not get as far as its first byte: one class per phase, one clear sentence each."""


class WaterfallError(Exception):
    """Base: the phase in which the request ended, and why."""

    phase = ""


class BadURLError(WaterfallError):
    """Not an http or https URL."""

    phase = "url"


class NameLookupError(WaterfallError):
    """The name has no address."""

    phase = "dns"


class ConnectError(WaterfallError):
    """Nobody accepts the connection, or nothing answers in time."""

    phase = "connect"


class BadCertificateError(WaterfallError):
    """The server did not prove that it is who it should be, or TLS failed otherwise."""

    phase = "tls"


class ResponseError(WaterfallError):
    """What came is not an HTTP response, or it ended before it was whole."""

    phase = "first_byte"


class NoFramesError(WaterfallError):
    """Packets were asked for, and nothing can capture them."""

    phase = "frames"


class EvidenceError(WaterfallError):
    """A file that was asked for can not be written."""

    phase = "files"
