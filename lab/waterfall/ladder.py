"""Draws the packets of one connection: a row per segment, and below it the states that it put both ends in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

#: Columns of the figures of every row, of those that only wide terminals get, and of the least sentence.
FIGURES, MORE, LEAST = 48, 15, 12
ROOM_FOR_MORE = 100
ABBREVIATIONS = {"SYN": "S", "FIN": "F", "RST": "R", "PSH": "P", "ACK": "A", "URG": "U", "ECE": "E", "CWR": "C"}
ORDER = ("SYN", "FIN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


def ladder(packets: Mapping[str, Any], width: int) -> Iterator[Text]:
    """Yield the lines of ``packets`` of a trace's JSON, none wider than *width*."""
    rows = packets["packets"]
    if not rows:
        yield _cut("packets: none passed wan: both ends are in one region, or nothing was sent", width, "yellow")
        return
    for line in _ends(packets):
        yield _cut(line, width, "dim")
    wide = width >= ROOM_FOR_MORE
    more = f"{'window':>8}{'ttl':>7}" if wide else ""
    yield _cut(f"{'sent':>7}{'arrived':>9}    {'flags':<6}{'seq':>7}{'ack':>8}{'len':>7}{more}  what", width, "dim")
    told: list[Mapping[str, Any]] = list(packets["states"])
    for row in rows:
        ours = row["from"] == "client"
        yield _cut(_figures(row, wide=wide) + f"  {row.get('what', '')}", width, "blue" if ours else "green")
        yield from _below(row, told, width, wide=wide)
    yield from _verdict(packets, width)


def _ends(packets: Mapping[str, Any]) -> Iterator[str]:
    router = packets["router"]
    for name, side in (("client", "client_side_mac"), ("server", "server_side_mac")):
        end = packets[name]
        yield f"{name} {end['address']}:{end['port']}  {end['mac'] or '?'} ⇄ {router[side] or '?'} wan"


def _figures(row: Mapping[str, Any], *, wide: bool) -> str:
    arrived = "lost" if row["arrived_ms"] is None else f"{row['arrived_ms']:.1f}"
    arrow = "→" if row["from"] == "client" else "←"
    text = f"{row['sent_ms']:>7.1f}{arrived:>9}  {arrow} "
    tcp = row.get("tcp")
    if tcp is None:
        text += f"{'UDP':<6}{'':>7}{'':>8}{row.get('udp', {}).get('length', ''):>7}"
    else:
        flags = "".join(ABBREVIATIONS[flag] for flag in ORDER if flag in tcp["flags"])
        ack = "" if tcp["relative_ack"] is None else tcp["relative_ack"]
        text += f"{flags:<6}{tcp['relative_seq']:>7}{ack:>8}{tcp['length'] or '':>7}"
    if not wide:
        return text
    ip = row["ip"]
    ttl = f"{ip['ttl_sent']}→{ip['ttl_arrived'] or '?'}"
    return text + f"{'' if tcp is None else tcp['scaled_window']:>8}{ttl:>7}"


def _below(row: Mapping[str, Any], told: list[Mapping[str, Any]], width: int, *, wide: bool) -> Iterator[Text]:
    """Yield what a segment brought: options of a SYN, new states where it was sent and where it arrived."""
    margin = " " * (FIGURES + 2 + (MORE if wide else 0))
    if width - len(margin) < LEAST:
        margin = " " * 18
    tcp = row.get("tcp")
    if tcp is None:
        return
    if "SYN" in tcp["flags"] and tcp["options"]:
        options = [each.split(" ")[0] if each.startswith("ts ") else each for each in tcp["options"]]
        yield _cut(margin + ", ".join(options), width, "dim")
    sender, receiver = ("client", "server") if row["from"] == "client" else ("server", "client")
    for host, at in ((sender, row["sent_ms"]), (receiver, row["arrived_ms"])):
        reached = [each for each in told if each["host"] == host and at is not None and each["ms"] == at]
        for each in reached:
            told.remove(each)
        if reached:
            yield _cut(margin + f"{host}: " + " → ".join(each["state"] for each in reached), width, "yellow")


def _verdict(packets: Mapping[str, Any], width: int) -> Iterator[Text]:
    checks: Sequence[Mapping[str, Any]] = packets["kernel"]
    wrong = [each for each in checks if not each["agrees"]]
    agree = (
        f"the client's kernel says the same {len(checks)} times out of {len(checks)}"
        if not wrong
        else "the client's kernel says otherwise: "
        + ", ".join(f"{each['kernel']} at {each['ms']:.1f} ms, not {each['segments']}" for each in wrong)
    )
    yield _cut(f"{packets['round_trips']} round trips to the first byte; {agree}", width, "red" if wrong else "default")
    if packets["dropped"]:
        yield _cut(f"incomplete: {packets['dropped']} frames found no room in the capture", width, "red")


def _cut(line: str, width: int, style: str) -> Text:
    text = Text(line, style=style)
    text.truncate(width, overflow="ellipsis")
    return text
