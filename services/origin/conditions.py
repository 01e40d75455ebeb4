"""Conditional requests (RFC 9110 section 13): evaluate a request's preconditions.

Sans-IO: the input is header fields and validators, the output is a decision.  Ranges are evaluated afterwards
(`origin.ranges`).
"""

import datetime as dt
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

#: Methods for which a false If-None-Match or If-Modified-Since results in 304, not 412 (RFC 9110 section 13.1.2).
SAFE = frozenset({"GET", "HEAD"})
_ETAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
#: The three date formats that a recipient must accept (RFC 9110 section 5.6.7): IMF-fixdate, RFC 850, asctime.  A
#: two-digit year stands for a year from 1969 to 2068.
_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")


class MalformedError(ValueError):
    """The value of a conditional header field is malformed."""


class Decision(enum.Enum):
    """Result of evaluating a conditional request."""

    PROCEED = "proceed"
    NOT_MODIFIED = "304"
    FAILED = "412"


@dataclass(frozen=True, slots=True)
class ETag:
    """Entity tag (RFC 9110 section 8.8.3); `opaque` includes the quotes."""

    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return ("W/" if self.weak else "") + self.opaque

    def matches(self, other: "ETag", *, strong: bool) -> bool:
        """Compare two tags (RFC 9110 section 8.8.3.2); a weak tag never matches in a strong comparison."""
        return self.opaque == other.opaque and not (strong and (self.weak or other.weak))


@dataclass(frozen=True, slots=True)
class Validators:
    """Validators of the current representation."""

    etag: ETag | None = None
    #: Last-Modified in whole seconds since the epoch.
    modified: int | None = None


def decide(method: str, fields: Mapping[str, str], current: Validators | None) -> Decision:
    """Evaluate the preconditions of a request in the order of RFC 9110 section 13.2.2.

    Args:
        method: request method; If-Modified-Since is ignored unless it is GET or HEAD.
        fields: header fields with lower-case names; repeated lines are joined with commas.
        current: validators of the current representation; None if the resource does not exist.

    Raises:
        MalformedError: the method is unsafe and If-Match or If-None-Match is malformed, so the client's intention is
            unknown.  For a safe method, a malformed field is ignored.
    """
    if "if-match" in fields:
        if not _listed(fields["if-match"], current, strong=True, lenient=method in SAFE, otherwise=True):
            return Decision.FAILED
    elif (since := parse_date(fields.get("if-unmodified-since"))) is not None and (
        current is not None and current.modified is not None and current.modified > since
    ):
        return Decision.FAILED
    if "if-none-match" in fields:
        if _listed(fields["if-none-match"], current, strong=False, lenient=method in SAFE, otherwise=False):
            return Decision.NOT_MODIFIED if method in SAFE else Decision.FAILED
    elif (
        method in SAFE
        and (since := parse_date(fields.get("if-modified-since"))) is not None
        and current is not None
        and current.modified is not None
        and current.modified <= since
    ):
        return Decision.NOT_MODIFIED
    return Decision.PROCEED


def range_applies(condition: str | None, current: Validators, now: float) -> bool:
    """Evaluate If-Range (RFC 9110 section 13.1.5): return whether the Range field of a GET applies.

    A date is a strong validator only if the representation was modified at least a second before *now* (seconds since
    the epoch; RFC 9110 section 8.8.2.2).
    """
    if condition is None:
        return True
    if found := _ETAG.fullmatch(condition.strip()):
        return current.etag is not None and ETag(found[2], bool(found[1])).matches(current.etag, strong=True)
    date = parse_date(condition.strip())
    return date is not None and current.modified == date and date <= now - 1


def parse_date(text: str | None) -> int | None:
    """Return an HTTP date as seconds since the epoch, or None if *text* is not a valid date."""
    if text is None or not text.isascii():
        return None
    for form in _DATES:
        try:
            found = dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
        except ValueError:
            continue
        return int(found.timestamp())
    return None


def format_date(seconds: int) -> str:
    """Return *seconds* since the epoch as an IMF-fixdate."""
    when = dt.datetime.fromtimestamp(seconds, dt.UTC)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[when.weekday()]
    names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return f"{day}, {when.day:02} {names[when.month - 1]} {when.year:04} {when:%H:%M:%S} GMT"


def parse_etags(text: str) -> list[ETag]:
    """Parse a list of entity tags; empty list elements are allowed (RFC 9110 section 5.6.1).

    Raises:
        MalformedError: *text* is not a list of entity tags, or the list is empty.
    """
    found, at, expected = [], 0, True
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text[at] == ",":
            at, expected = at + 1, True
        elif expected and (match := _ETAG.match(text, at)):
            found.append(ETag(match[2], bool(match[1])))
            at, expected = match.end(), False
        else:
            raise MalformedError(f'expected entity tags such as "abc", got {text[:60]!r}')
    if not found:
        raise MalformedError(f'expected at least one entity tag such as "abc", got {text[:60]!r}')
    return found


def _listed(text: str, current: Validators | None, *, strong: bool, lenient: bool, otherwise: bool) -> bool:
    """Return whether the tag of *current* is in the list *text*; `*` matches any existing representation."""
    if text.strip() == "*":
        return current is not None
    try:
        tags = parse_etags(text)
    except MalformedError:
        if lenient:
            return otherwise
        raise
    tag = None if current is None else current.etag
    return tag is not None and any(tag.matches(each, strong=strong) for each in tags)
