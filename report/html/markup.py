"""HTML building blocks. Functions take plain text and escape it, except arguments named `html` or `body`."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any, NamedTuple

from plotly.graph_objects import Figure

from report.tables import Table

WIDE = 5  # columns beyond which a table takes the full width


class Section(NamedTuple):
    """Section of the page with an entry in its table of contents."""

    id: str
    title: str
    body: str


class Lacking(NamedTuple):
    """A section that cannot be shown yet, with the reason; all of them share one line of the page."""

    title: str
    reason: str
    command: str = ""  # by which it is made


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{spaced(text)}</p>"


def table(one: Table, label: str, *, left: Sequence[int] = (0,), kinds: Mapping[int, str] | None = None) -> str:
    """Scrollable table; columns are aligned right except those in `left`.

    Args:
        label: description for screen readers.
        kinds: CSS classes of rows, by index.
    """
    cells = [[escape(cell) for cell in row] for row in one.rows]
    return table_of([escape(column) for column in one.columns], cells, label, left=left, kinds=kinds)


def table_of(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    label: str,
    *,
    left: Sequence[int] = (0,),
    kinds: Mapping[int, str] | None = None,
) -> str:
    """Like `table`, with cells that are HTML."""
    align = ["" if place in left else ' class="n"' for place in range(len(columns))]
    heads = zip(align, columns, strict=True)
    head = "".join(f'<th scope="col"{kind}>{column}</th>' if column else f"<td{kind}></td>" for kind, column in heads)
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(align, row, strict=True))
        lines.append(f"<tr{_class((kinds or {}).get(place, ''))}>{cells}</tr>")
    wide = ' class="wide"' if len(columns) > WIDE else ""
    return scrolling(f"<table{wide}><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>", label)


def scrolling(html: str, label: str) -> str:
    """Box that scrolls horizontally, also by keyboard, for content wider than a phone."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{html}</div>'


def figure(plot: Figure, caption: str, *, height: int = 420) -> str:
    """Plotly figure, drawn by the page's script when it scrolls into view; its title is on the page.

    Args:
        height: pixels, if the figure sets none.
    """
    drawn = json.loads(plot.to_json())
    drawn["layout"].pop("title", None)
    drawn["layout"]["margin"]["t"] = 16
    tall, data = drawn["layout"].pop("height", height), script_data(drawn)
    return (
        f'<figure><div class="plot" style="height:{tall}px" role="img" aria-label="{escape(caption)}">'
        f"<script type='application/json'>{data}</script></div><figcaption>{spaced(caption)}</figcaption></figure>"
    )


def spaced(text: str) -> str:
    """Escape text and keep numbers and percent signs on one line."""
    return escape(text).replace(" %", "\u00a0%")


def details(summary: str, html: str) -> str:
    """Folded content with a summary line."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def notice(text: str, kind: str = "") -> str:
    """Highlighted notice."""
    return f'<div class="notice {kind}" role="note">{escape(text)}</div>'


def code(text: str) -> str:
    """Block of settings or commands."""
    return f'<pre class="scroll" tabindex="0">{escape(text)}</pre>'


def commands(by_purpose: Mapping[str, str]) -> str:
    """The next commands, each with its purpose."""
    rows = (f"<dt>{escape(purpose)}</dt><dd><code>{escape(line)}</code></dd>" for purpose, line in by_purpose.items())
    listed = "".join(rows)
    return f'<dl class="commands">{listed}</dl>' if listed else ""


def bar(share: float, kind: str = "") -> str:
    """Bar of this share (0 to 1) of the cell width."""
    return f'<span class="bar {kind}"><span style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></span></span>'


def script_data(value: Any) -> str:
    """JSON escaped for a script element: it can neither close the element nor open a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def packed(text: str) -> str:
    """Text as gzip in base64, which the page's script unpacks: a third of the size of minified JavaScript."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
