"""Trace of one HTTP request by phase: names, connection, identity and first byte, each measured and predicted.

Measurement works for any URL.  Predictions require the lab, because they use its links and its resolver's log.
"""

from waterfall.errors import (
    BadCertificateError,
    BadURLError,
    ConnectError,
    EvidenceError,
    NameLookupError,
    NoFramesError,
    ResponseError,
    WaterfallError,
)
from waterfall.evidence import Evidence, check, save
from waterfall.measure import Session, measure
from waterfall.model import Hop, Phase, Trace, summary
from waterfall.render import render

__all__ = [
    "BadCertificateError",
    "BadURLError",
    "ConnectError",
    "Evidence",
    "EvidenceError",
    "Hop",
    "NameLookupError",
    "NoFramesError",
    "Phase",
    "ResponseError",
    "Session",
    "Trace",
    "WaterfallError",
    "check",
    "measure",
    "render",
    "save",
    "summary",
]
