"""One request, phase by phase: names, connection, identity, first byte, each beside what theory says it costs.

Works on any URL; predictions need the lab, whose links and resolver are asked for them.
"""

from waterfall.errors import (
    BadCertificateError,
    BadURLError,
    ConnectError,
    NameLookupError,
    ResponseError,
    WaterfallError,
)
from waterfall.measure import Session, measure
from waterfall.model import Hop, Phase, Trace, from_json, summary
from waterfall.render import render

__all__ = [
    "BadCertificateError",
    "BadURLError",
    "ConnectError",
    "Hop",
    "NameLookupError",
    "Phase",
    "ResponseError",
    "Session",
    "Trace",
    "WaterfallError",
    "from_json",
    "measure",
    "render",
    "summary",
]
