"""Draws the packets of a trace as a ladder diagram: time runs downwards, and each segment is an arrow."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from reports.labels import LETTER, cut, element, text, wrap
from reports.palette import style

#: Width of the picture, distance of the hosts' lines from its edges, distance between text and a line, and width of the
#: column of times, in pixels.
WIDTH, MARGIN, GAP, TIMES = 960, 235, 10, 66
#: Vertical scale, in pixels: minimum (`ROW`) and maximum (`IDLE`) distance between the sending of successive segments,
#: minimum distance between any two events (`CLOSE`), and pixels per millisecond within these limits (`SCALE`).
ROW, IDLE, CLOSE, SCALE = 21.0, 60.0, 5.0, 5.0
#: Length of an arrowhead, and half of its width, in pixels.
HEAD, HALF = 8.0, 3.5
#: Colour classes (see `reports.palette`) of segments from the client and from the server.
COLOURS = {"client": 0, "server": 1}
OTHER = {"client": "server", "server": "client"}
#: Which IP header field of a datagram holds the resolver's address, by the end that sends the datagram.
RESOLVER = {"client": "destination", "server": "source"}
DNS_PORT = 53
#: TCP flags that a label shows; ACK is omitted, because `waterfall` already names segments that only acknowledge.
FLAGS = ("SYN", "FIN", "RST", "URG")


def ladder(packets: Mapping[str, Any], title: str, caption: str = "", *, standalone: bool = True) -> str:
    """Return a ladder diagram as SVG markup.

    Args:
        packets: ``packets`` of a trace's JSON (`waterfall.packets`); it must have at least one packet.
        title: title of the diagram.
        caption: text below the diagram, such as the predicted and the measured time; long lines are wrapped.
        standalone: include style sheet, title, caption and background, for a file that is shown outside a page.
    """
    drawn = _Ladder(packets["packets"], packets["states"])
    words = [text(title, 8, 22, "title")] if standalone else []
    for host, x in drawn.lines.items():
        end = packets[host]
        words.append(text(f"{host} {end['address']}:{end['port']}", x, 52, "ink", text_anchor="middle"))
    y = 66 + drawn.height
    for line in wrap(caption, int((WIDTH - 16) / LETTER)) if caption and standalone else ():
        y += 17
        words.append(text(line, 8, y))
    height = round(y + 14)
    size = {"width": WIDTH, "height": height}
    body = element("style", style()) + element("rect", "", "paper", **size) if standalone else ""
    body += "".join(words) + element("g", drawn.body, transform="translate(0 66)")
    about = {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria_label": escape(title)}
    return element("svg", body, "chart", xmlns="http://www.w3.org/2000/svg", **about, **(size if standalone else {}))


class _Ladder:
    """A ladder diagram, drawn when the object is created: SVG markup (`body`) and its height in pixels (`height`)."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any]]) -> None:
        self.lines = {"client": float(MARGIN), "server": float(WIDTH - MARGIN)}
        self._sent, self._arrived = _positions(rows)
        self.height = max(*self._sent, *self._arrived) + 16
        parts = [element("line", "", "axis", x1=x, y1=0.0, x2=x, y2=self.height) for x in self.lines.values()]
        parts += [self._arrow(i, row) for i, row in enumerate(rows)]
        parts += [self._label(i, row) for i, row in enumerate(rows)]
        for host in self.lines:
            parts += self._states(host, rows, [each for each in states if each["host"] == host])
        self.body = "".join(parts)

    def _arrow(self, i: int, row: Mapping[str, Any]) -> str:
        """Return the arrow for segment *i*, or a dashed line that ends in a cross if the segment was lost."""
        sender = row["from"]
        x1, x2, y1, y2 = self.lines[sender], self.lines[OTHER[sender]], self._sent[i], self._arrived[i]
        way, colour = (1 if x2 > x1 else -1), COLOURS[sender]
        if row["arrived_ms"] is None:
            x2 = (x1 + x2) / 2
            line = element("line", "", f"l-{colour}", x1=x1, y1=y1, x2=x2, y2=y2, stroke_dasharray="4 3")
            cross = f"M{x2 - 5:.1f} {y2 - 5:.1f}l10 10m0-10l-10 10"
            return line + element("path", "", "l-bad", d=cross, stroke_width="2")
        head = f"M{x2:.1f} {y2:.1f}l{-way * HEAD:.1f} {-HALF - 2:.1f}v{2 * HALF:.1f}z"
        line = element("line", "", f"l-{colour}", x1=x1, y1=y1, x2=x2, y2=y2, stroke_width="1.4")
        return line + element("path", "", f"f-{colour}", d=head)

    def _label(self, i: int, row: Mapping[str, Any]) -> str:
        """Return the text above the sender's end of an arrow, and the time at which the segment was sent."""
        sender, y = row["from"], self._sent[i]
        way = 1 if sender == "client" else -1
        anchor, outside = ("start", "end") if sender == "client" else ("end", "start")
        x, room = self.lines[sender], int((WIDTH - 2 * MARGIN - 4 * GAP) / LETTER)
        words = text(cut(_words(row), room), x + way * GAP * 1.8, y - 3, "ink", text_anchor=anchor)
        return words + text(f"{row['sent_ms']:.1f} ms", x - way * GAP, y + 4, text_anchor=outside)

    def _states(
        self, host: str, rows: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any]]
    ) -> Iterator[str]:
        """Yield a dot and a name for each TCP state of *host*; names that would overlap share one line of text."""
        ends = {
            **{row["arrived_ms"]: y for row, y in zip(rows, self._arrived, strict=True) if row["from"] != host},
            **{row["sent_ms"]: y for row, y in zip(rows, self._sent, strict=True) if row["from"] == host},
        }
        way, anchor = (-1, "end") if host == "client" else (1, "start")
        lines: list[tuple[float, str]] = []
        for y, name in sorted((ends[each["ms"]], each["state"]) for each in states if each["ms"] in ends):
            yield element("circle", "", "f-mark", cx=self.lines[host], cy=y, r="3.5")
            if lines and y - lines[-1][0] < ROW / 2:
                y, name = lines[-1][0], f"{lines.pop()[1]}, {name}"  # noqa: PLW2901 - both names share one line
            lines.append((y, name))
        for y, name in lines:
            yield text(name, self.lines[host] + way * (GAP + TIMES), y + 4, "ink", text_anchor=anchor)


def _positions(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Return the vertical positions, in pixels, at which each segment is sent and received.

    Distances are proportional to time, except that idle periods are shortened and labels of a host never overlap.
    """
    instants = [(row["sent_ms"], i, True) for i, row in enumerate(rows)]
    instants += [(row["arrived_ms"], i, False) for i, row in enumerate(rows) if row["arrived_ms"] is not None]
    sent, arrived = [0.0] * len(rows), [0.0] * len(rows)
    free = dict.fromkeys(OTHER, ROW)  # for each host, the first position at which its next label fits
    y, before = ROW, min(instants)[0]
    for at, i, is_sent in sorted(instants, key=lambda each: (each[0], not each[2], each[1])):
        y += min(IDLE, max(CLOSE, SCALE * (at - before))) if at > before else 0.0
        before = at
        if is_sent:
            sender = rows[i]["from"]
            y = max(y, free[sender])
            free[sender], sent[i] = y + ROW, y
            arrived[i] = y + ROW / 2  # a lost segment has no time of arrival
        else:
            arrived[i] = y
    return sent, arrived


def _words(row: Mapping[str, Any]) -> str:
    """Return the label of a segment: its TCP flags, its content, and the size of its payload."""
    tcp, what = row.get("tcp"), str(row.get("what", ""))
    if tcp is None and (udp := row.get("udp")) and DNS_PORT not in udp.values():
        return f"{what} ({udp['length']:,} B)"
    if tcp is None:
        return f"{what or 'UDP'} ({'to' if row['from'] == 'client' else 'from'} {row['ip'][RESOLVER[row['from']]]})"
    flags = [flag for flag in FLAGS if flag in tcp["flags"]]
    head = "" if flags and what.startswith(flags[0]) else " ".join(flags)
    size = f"({tcp['length']:,} B)" if tcp["length"] else ""
    return " ".join(word for word in (head, what, size) if word)
