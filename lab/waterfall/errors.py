"""Errors of a trace, one class per phase in which the request failed."""


class WaterfallError(Exception):
    """Base of this package's errors; `phase` is where the request failed."""

    phase = ""


class BadURLError(WaterfallError):
    """Not an http or https URL."""

    phase = "url"


class NameLookupError(WaterfallError):
    """The name has no address."""

    phase = "dns"


class ConnectError(WaterfallError):
    """The connection was refused, or there was no response in time."""

    phase = "connect"


class BadCertificateError(WaterfallError):
    """The server's certificate is not trusted, or TLS failed."""

    phase = "tls"


class ResponseError(WaterfallError):
    """The response is missing, incomplete or not HTTP."""

    phase = "first_byte"


class NoFramesError(WaterfallError):
    """Packets were requested, but nothing can capture them."""

    phase = "frames"


class EvidenceError(WaterfallError):
    """A requested file cannot be written."""

    phase = "files"
