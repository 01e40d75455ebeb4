"""Lessons as one HTML page for printing: a lesson per sheet, black on white, without scripts or external files."""

from collections.abc import Sequence

from markdown_it import MarkdownIt

STYLE = """\
body { font: 11pt/1.5 Georgia, serif; max-width: 44em; margin: 2em auto; padding: 0 1em; color: #111; background: #fff }
h1 { font-size: 1.6em; line-height: 1.2 } h2 { font-size: 1.15em; margin-top: 1.6em; break-after: avoid }
pre, code { font: 0.85em/1.35 ui-monospace, monospace; background: #f3f3f3 }
pre { padding: 0.7em 1em; break-inside: avoid; overflow-x: auto } section + section { break-before: page }
"""


def page(texts: Sequence[str]) -> str:
    """Return an HTML page with one section per Markdown text."""
    render = MarkdownIt("commonmark", {"html": False}).render
    sections = "\n".join(f"<section>\n{render(each)}</section>" for each in texts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>firstbyte: lessons</title><style>\n{STYLE}</style></head>\n'
        f"<body>\n{sections}\n</body></html>\n"
    )
