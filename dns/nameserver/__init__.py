"""An authoritative name server for zones in master files (RFC 1034 section 4.3, RFC 1035, RFC 2308, RFC 4592).

It does not support recursion or DNSSEC.
"""

from nameserver.answer import Answer, answer
from nameserver.changes import Change
from nameserver.errors import NameServerError, ZoneError, ZoneFileError
from nameserver.master_file import load, parse
from nameserver.responder import Responder
from nameserver.zone import RRset, Zone

__all__ = [
    "Answer",
    "Change",
    "NameServerError",
    "RRset",
    "Responder",
    "Zone",
    "ZoneError",
    "ZoneFileError",
    "answer",
    "load",
    "parse",
]
