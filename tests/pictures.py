"""``python -m tests.pictures``: create the README's pictures from a real lab, which is started and removed.

- `docs/console-light.png` and `docs/console-dark.png`: the console in headless Chromium.
- `docs/session.svg`: a recorded terminal session, animated with CSS only.  Output and its order are unchanged; pauses
  longer than `LONGEST_PAUSE` are shortened, and typing is simulated at `KEY` seconds per key.
"""

import asyncio
import base64
import html
import os
import pty
import re
import select
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from tests import judges
from tests.console import browser
from tests.house.test_layout import ROOT

#: Commands of the recorded session, in order.
SESSION = (
    "firstbyte up",
    "firstbyte trace https://www.example.com/",
    "firstbyte link access:near --rtt 80ms",
    "firstbyte trace https://www.example.com/ --cold",
)
#: Size of the recorded terminal, in characters.
COLUMNS, ROWS = 96, 30
#: Times in seconds: per typed key, longest pause that is kept, and pause before the recording repeats.
KEY, LONGEST_PAUSE, END_PAUSE = 0.04, 1.2, 6.0
#: Sizes in pixels: character width, line height, and margin.
ADVANCE, LEADING, MARGIN = 7.8, 17, 14
#: Size of the browser window for screenshots of the console, in CSS pixels.
WINDOW = (1180, 860)
PROMPT = "\x1b[32m$\x1b[0m "


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the terminal, and the time at which it appears in seconds from the start."""

    at: float
    text: Text


def record(commands: Iterable[str]) -> list[Line]:
    """Run *commands* in a terminal; return all output lines, including prompts.

    Raises:
        RuntimeError: a command failed, or moved the cursor, which a list of lines cannot represent.
    """
    lines: list[Line] = []
    now = 0.5
    for command in commands:
        now += KEY * len(command)
        lines.append(Line(now, Text.from_ansi(PROMPT + command)))
        written, code = _run(command)
        if code:
            raise RuntimeError(
                f"expected exit code 0 of `{command}`, got {code}: {b''.join(data for _, data in written)!r}"
            )
        pending, before = b"", 0.0
        for moment, data in written:
            now += min(moment - before, LONGEST_PAUSE)
            before = moment
            *whole, pending = (pending + data).split(b"\n")
            lines += [Line(now, _line(raw)) for raw in whole]
        if pending:
            lines.append(Line(now, _line(pending)))
        now += 1.0
        lines.append(Line(now, Text()))
    return lines


def _run(command: str) -> tuple[list[tuple[float, bytes]], int]:
    """Run *command* in a new terminal; return its output as (time, bytes) pieces, and its exit code."""
    began = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS=str(COLUMNS), LINES=str(ROWS), TERM="xterm-256color")
        os.execvp(sys.executable, [sys.executable, "-m", *shlex.split(command)])  # noqa: S606 - no shell is involved
    written = []
    while True:
        select.select([terminal], [], [])
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux reports end of file on a terminal as an error after its last process has ended
            break
        if not data:
            break
        written.append((time.monotonic() - began, data))
    return written, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _line(raw: bytes) -> Text:
    text = raw.decode().rstrip("\r").replace("\x1b[?25l", "").replace("\x1b[?25h", "")
    if moved := re.search(r"\x1b\[[0-9;?]*[A-HJKSTfsu]|\r", text):
        raise RuntimeError(f"expected plain lines, got the control sequence {moved[0]!r} in {text!r}")
    return Text.from_ansi(text)


def draw(lines: list[Line]) -> str:
    """Return an animated SVG of *lines*: each line becomes visible at its time, and the page scrolls."""
    total = lines[-1].at + END_PAUSE
    width, height = round(COLUMNS * ADVANCE + 2 * MARGIN), ROWS * LEADING + 2 * MARGIN
    background, foreground = SVG_EXPORT_THEME.background_color.hex, SVG_EXPORT_THEME.foreground_color.hex
    rules, body = [], []
    scroll = [(0.0, 0)]
    for number, line in enumerate(lines):
        share = 100 * line.at / total
        rules.append(
            f"@keyframes l{number}{{0%{{opacity:0}}{share:.2f}%,100%{{opacity:1}}}}"
            f"#l{number}{{animation-name:l{number}}}"
        )
        body.append(f'<text id="l{number}" y="{(number + 1) * LEADING}">{"".join(_spans(line.text))}</text>')
        if number >= ROWS:
            scroll.append((share, -(number + 1 - ROWS) * LEADING))
    steps = "".join(f"{share:.2f}%{{transform:translateY({up}px)}}" for share, up in scroll)
    end = f"100%{{transform:translateY({scroll[-1][1]}px)}}"
    style = (
        f"text{{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:{foreground};white-space:pre;"
        f"animation:{total:.1f}s step-end infinite}}#page{{animation:page {total:.1f}s step-end infinite}}"
        f"@keyframes page{{{steps}{end}}}{''.join(rules)}"
        f"@media(prefers-reduced-motion:reduce){{text,#page{{animation:none}}"
        f"#page{{transform:translateY({scroll[-1][1]}px)}}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">'
        f"<title>A terminal session: {html.escape('; '.join(SESSION))}</title><style>{style}</style>"
        f'<rect width="{width}" height="{height}" rx="8" fill="{background}"/>'
        f'<svg x="{MARGIN}" y="{MARGIN - 4}" width="{width - 2 * MARGIN}" height="{ROWS * LEADING + 8}"><g id="page">'
        + "\n".join(body)
        + "</g></svg></svg>\n"
    )


def _spans(text: Text) -> Iterable[str]:
    """Yield one SVG span per run of equally styled text, positioned by column so that any font aligns."""
    column = 0
    for segment in text.render(Console(width=10 * COLUMNS, color_system="truecolor")):
        words = segment.text.rstrip("\n")
        if words:
            length = len(words) * ADVANCE
            place = f'x="{column * ADVANCE:.1f}" textLength="{length:.1f}"'
            if words.strip():
                yield f"<tspan {place}{_fill(segment.style)}>{html.escape(words)}</tspan>"
            column += len(words)


def _fill(style: Style | None) -> str:
    if style is None:
        return ""
    attributes = ""
    if style.color is not None and not style.color.is_default:
        attributes += f' fill="{style.color.get_truecolor(SVG_EXPORT_THEME).hex}"'
    if style.bold:
        attributes += ' font-weight="bold"'
    if style.dim:
        attributes += ' opacity=".6"'
    return attributes


async def screenshots(program: str) -> None:
    """Write screenshots of the console in the light and the dark colour scheme."""
    with tempfile.TemporaryDirectory() as profile, browser.running(program, Path(profile)) as socket:
        for dark in (False, True):
            async with browser.tab(socket) as tab:
                await tab.look(WINDOW[0], height=WINDOW[1], dark=dark)
                await tab.open("http://127.0.0.1:8080/")
                await asyncio.sleep(5)  # wait until the page's charts have some data
                shot = await tab.command("Page.captureScreenshot", format="png")
                file = ROOT / "docs" / f"console-{'dark' if dark else 'light'}.png"
                file.write_bytes(base64.b64decode(shot["data"]))


def main() -> int:
    """Create all pictures; return 0."""
    program = judges.find("chromium")
    if program is None:
        print("pictures: error: expected chromium, found none: `make judges` installs it", file=sys.stderr)
        return 3
    lines = record(SESSION)
    try:
        (ROOT / "docs" / "session.svg").write_text(draw(lines), encoding="utf-8")
        asyncio.run(screenshots(program))
    finally:
        _run("firstbyte down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
