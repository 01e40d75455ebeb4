"""Codec for the DNS wire format (RFC 1035 section 4, EDNS RFC 6891): names, messages and RDATA.

All wire-format code of the project lives here. The package uses no sockets and reads no clock. It signs and
verifies with shared keys (TSIG), but neither validates nor creates DNSSEC signatures.
"""

from dnsmessage import rdata, rdtypes, tsig
from dnsmessage.errors import (
    DnsMessageError,
    LocalError,
    MismatchError,
    NameSyntaxError,
    RdataSyntaxError,
    RemoteError,
)
from dnsmessage.message import (
    Edns,
    Message,
    Query,
    Record,
    Writer,
    decode_part,
    decode_query,
    decode_reply,
    encode_opt,
    encode_query,
    error_response,
    question_end,
    rcode_to_text,
)
from dnsmessage.name import ROOT, Name, suffixes

__all__ = [
    "ROOT",
    "DnsMessageError",
    "Edns",
    "LocalError",
    "Message",
    "MismatchError",
    "Name",
    "NameSyntaxError",
    "Query",
    "RdataSyntaxError",
    "Record",
    "RemoteError",
    "Writer",
    "decode_part",
    "decode_query",
    "decode_reply",
    "encode_opt",
    "encode_query",
    "error_response",
    "question_end",
    "rcode_to_text",
    "rdata",
    "rdtypes",
    "suffixes",
    "tsig",
]
