"""Packet ladder of one connection as text: one row per segment, followed by the TCP states that the segment caused."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

#: Widths in columns: numeric fields of a row, additional fields on wide terminals, and indent of lines below a row.
FIGURES, MORE, MARGIN = 43, 15, 17
WIDE = 100
ABBREVIATIONS = {"SYN": "S", "FIN": "F", "RST": "R", "PSH": "P", "ACK": "A", "URG": "U", "ECE": "E", "CWR": "C"}
ORDER = ("SYN", "FIN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


def ladder(packets: Mapping[str, Any], width: int) -> Iterator[Text]:
    """Yield the text lines for ``packets`` in a trace's JSON, each at most *width* columns wide."""
    rows = packets["packets"]
    if not rows:
        yield _cut("packets: none passed wan: both ends are in one region, or nothing was sent", width, "yellow")
        return
    for line in _ends(packets):
        yield _cut(line, width, "dim")
    wide = width >= WIDE
    more = f"{'window':>8}{'ttl':>7}" if wide else ""
    yield _cut(f"{'sent':>7}{'arrived':>8}   {'flags':<5}{'seq':>6}{'ack':>7}{'len':>6}{more} what", width, "dim")
    states: list[Mapping[str, Any]] = list(packets["states"])
    for row in rows:
        ours = row["from"] == "client"
        style = "blue" if ours else "green"
        room = width - FIGURES - (MORE if wide else 0)
        first, *others = textwrap.wrap(row.get("what", ""), max(room, 12)) or [""]
        yield _cut(f"{_figures(row, wide=wide)} {first}", width, style)
        for line in others:
            yield _cut(" " * (width - room) + line, width, style)
        yield from _below(row, states, width)
    yield from _verdict(packets, width)


def _ends(packets: Mapping[str, Any]) -> Iterator[str]:
    router = packets["router"]
    for name, side in (("client", "client_side_mac"), ("server", "server_side_mac")):
        end = packets[name]
        yield f"{name} {end['address']}:{end['port']}  {end['mac'] or '?'} ⇄ {router[side] or '?'} wan"


def _figures(row: Mapping[str, Any], *, wide: bool) -> str:
    arrived = "lost" if row["arrived_ms"] is None else f"{row['arrived_ms']:.1f}"
    arrow = "→" if row["from"] == "client" else "←"
    text = f"{row['sent_ms']:>7.1f}{arrived:>8} {arrow} "
    tcp = row.get("tcp")
    if tcp is None:
        text += f"{'UDP':<5}{'':>13}{row.get('udp', {}).get('length', ''):>6}"
    else:
        flags = "".join(ABBREVIATIONS[flag] for flag in ORDER if flag in tcp["flags"])
        ack = "" if tcp["relative_ack"] is None else tcp["relative_ack"]
        text += f"{flags:<5}{tcp['relative_seq']:>6}{ack:>7}{tcp['length'] or '':>6}"
    if not wide:
        return text
    ip = row["ip"]
    ttl = f"{ip['ttl_sent']}→{ip['ttl_arrived'] or '?'}"
    return text + f"{'' if tcp is None else tcp['scaled_window']:>8}{ttl:>7}"


def _below(row: Mapping[str, Any], states: list[Mapping[str, Any]], width: int) -> Iterator[Text]:
    """Yield lines with the options of a SYN and with the states that the segment caused at its sender and receiver."""
    margin, tcp = " " * MARGIN, row.get("tcp")
    if tcp is None:
        return
    if "SYN" in tcp["flags"] and tcp["options"]:
        options = ["time stamps" if each.startswith("ts ") else each for each in tcp["options"]]
        yield _cut(margin + ", ".join([*options, f"window {tcp['window']}"]), width, "dim")
    sender, receiver = ("client", "server") if row["from"] == "client" else ("server", "client")
    for host, at in ((sender, row["sent_ms"]), (receiver, row["arrived_ms"])):
        reached = [each for each in states if each["host"] == host and each["ms"] == at]
        for each in reached:
            states.remove(each)
        if reached:
            names = ", then ".join(each["state"] for each in reached)
            yield _cut(f"{margin}the {host} is {names} at {at:.1f}", width, "yellow")


def _verdict(packets: Mapping[str, Any], width: int) -> Iterator[Text]:
    checks: Sequence[Mapping[str, Any]] = packets["kernel"]
    wrong = [each for each in checks if not each["agrees"]]
    said = f"{packets['round_trips']} round trips to the first byte, counted from the capture; the client's kernel "
    if wrong:
        others = (f"{each['kernel']} at {each['ms']:.1f} ms, not {each['segments']}" for each in wrong)
        said += "says otherwise: " + ", ".join(others)
    else:
        said += f"agrees in {len(checks)} of {len(checks)} states"
    for line in textwrap.wrap(said, width):
        yield Text(line, style="red" if wrong else "default")
    if packets["dropped"]:
        yield _cut(f"incomplete: {packets['dropped']} frames did not fit into the capture", width, "red")


def _cut(line: str, width: int, style: str) -> Text:
    text = Text(line, style=style)
    text.truncate(width, overflow="ellipsis")
    return text
