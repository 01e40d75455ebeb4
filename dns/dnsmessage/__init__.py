"""The wire format of DNS (RFC 1035 section 4, EDNS RFC 6891): names, messages, RDATA.

The only package that knows it; no sockets and no clock.  It does not validate DNSSEC and does not sign.
"""

from dnsmessage import rdata, rdtypes
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
]
