"""``firstbyte encryption``: send one text in four ways, and show which of five places can read it.

The places are the packets at `wan`, the edge and the origin after they decrypt TLS (recorded by their taps), the
database file, and the recipient.  A place *reads* the text if the bytes captured there contain the text.
"""

import argparse
import json
import re
import secrets
from typing import Any

from firstbyte import terminal, where
from hostfiles.layout import TRUST_ANCHOR
from origin.correspondent import CorrespondentError, views
from origin.sealing import SealError
from runtime import InsideLab, LabError, UsageError
from scenarios.instruments.vantage_points import HOST, PLACES, WAYS, Evidence, View, collect, views_of


class LeakError(LabError):
    """A text is readable where it must not be, or is unreadable or missing where it must be readable."""

    exit_code = 1


def encryption(args: argparse.Namespace) -> int:
    """Send a text in four ways, and show which places read it.

    Raises:
        LeakError: a text is readable where it must not be, or is unreadable or missing where it must be readable.
        UsageError: the text is empty or too long, or contains characters that are not allowed.
        LabError: the lab is not up, or the text did not arrive.
    """
    text = _text(args.text)
    with where.lab() as lab:
        evidence = collect(lab, _address(lab), lambda: _send(lab, text))
    found = list(views_of(evidence))
    if args.json:
        print(json.dumps(_as_json(evidence, found), indent=2))
    else:
        _draw(evidence, found)
    judge(found)
    return 0


def judge(found: list[View]) -> None:
    """Check that each text can be read at exactly the places where it should be readable.

    Raises:
        LeakError: a text is readable where it must not be, or is unreadable or missing where it must be readable.
    """
    for each in found:
        if not each.right:
            what = "reads it" if each.reads else "does not read it" if each.data else "does not have the message"
            raise LeakError(f"{PLACES[each.place]}: {what}, when sent as {WAYS[each.way]}")


def _text(given: str) -> str:
    """Return the text with a random suffix, so that it differs from every earlier text."""
    if not re.fullmatch(r"[ !#-\[\]-~]{1,200}", given):
        raise UsageError(f'expected 1 to 200 printable ASCII characters without " and \\, got {given[:60]!r}')
    return f"{given} #{secrets.token_hex(3)}"


def _address(lab: where.Way) -> str:
    if isinstance(lab, InsideLab):
        return lab.addresses["edge"]
    return lab.topology.host("edge").address or ""


def _send(lab: where.Way, text: str) -> dict[str, Any]:
    """Run the mailbox client on the host `client`, or on this host inside the lab; return its report."""
    if isinstance(lab, InsideLab):
        try:
            return views(HOST, TRUST_ANCHOR, text)
        except (CorrespondentError, SealError) as error:
            raise LabError(str(error)) from None
    code, out, err = lab.capture("client", ["python", "-m", "origin.correspondent", "views", "--host", HOST, text])
    if code:
        raise LabError(f"client: {err.decode(errors='replace').strip()}")
    found: dict[str, Any] = json.loads(out)
    return found


# --- output -----------------------------------------------------------------------------------------------------------


def _draw(evidence: Evidence, found: list[View]) -> None:
    console, table = terminal.console(), terminal.table("who reads it?", *WAYS)
    for place, title in PLACES.items():
        cells = {each.way: "reads it" if each.reads else "-" for each in found if each.place == place}
        table.add_row(title, *(cells[way] for way in WAYS))
    console.print(table)
    for way, title in WAYS.items():
        console.print(f"\n{title}", style="bold")
        for each in found:
            if each.way == way:
                console.print(f"  {PLACES[each.place]:<18} {len(each.data):>5} bytes  {each.shown}", soft_wrap=True)
    console.print(f"\nfingerprint of the recipient's key: {evidence.sent['fingerprint']}")


def _as_json(evidence: Evidence, found: list[View]) -> dict[str, Any]:
    rows = [
        {"place": each.place, "way": each.way, "text": each.text, "reads": each.reads, "hex": each.data.hex()}
        for each in found
    ]
    return {"fingerprint": evidence.sent["fingerprint"], "views": rows}
