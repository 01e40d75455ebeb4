"""Exceptions of traces, with one class for each phase in which a request can fail."""


class WaterfallError(Exception):
    """Base class of this package's exceptions; `phase` is the phase in which the request failed."""

    phase = ""


class BadURLError(WaterfallError):
    """The text is not a valid http or https URL."""

    phase = "url"


class NameLookupError(WaterfallError):
    """The host name cannot be resolved to an address."""

    phase = "dns"


class ConnectError(WaterfallError):
    """The server refused the connection or did not respond in time."""

    phase = "connect"


class BadCertificateError(WaterfallError):
    """The TLS handshake failed, or the server's certificate is not trusted."""

    phase = "tls"


class ResponseError(WaterfallError):
    """The response is missing, incomplete or not valid HTTP."""

    phase = "first_byte"


class NoFramesError(WaterfallError):
    """Packets were requested, but cannot be captured."""

    phase = "frames"


class EvidenceError(WaterfallError):
    """A file for the packets or TLS secrets cannot be written."""

    phase = "files"
