"""One request, phase by phase: names, connection, identity, first byte, each beside what theory says it costs.

Works on any URL; predictions need the lab, whose links and resolver are asked for them.
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
from waterfall.model import Hop, Phase, Trace, from_json, summary
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
    "from_json",
    "measure",
    "render",
    "save",
    "summary",
]
