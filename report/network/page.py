"""HTML page of one network for offline use: its drawing, its layers as a table, and its architecture file."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from report.network.drawing import network_svg
from report.network.layout import typeset
from search.budget.cost import Cost, compute_cost
from search.budget.summary import LayerRow, layer_rows
from search.errors import UserError
from search.files import write_text
from search.networks.architecture import Architecture, to_json
from search.text import format_share

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --page: #fff; --line: #d0d7de; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --page: #0d1117; --line: #30363d; } }
body { color: var(--text); background: var(--page); font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  margin: 0 auto; padding: 16px; max-width: 1200px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; margin-top: 24px; }
th, td { padding: 3px 12px 3px 0; text-align: left; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
.figure { text-align: right; }
tr.begins td { border-top: 2px solid var(--line); }
tfoot td { font-weight: 600; border: 0; }
details { margin-top: 24px; }
pre { overflow-x: auto; font-size: 12px; }
"""
_FIGURES = ("output", "receptive field", "parameters", "share", "multiply-adds", "share")


def network_html(architecture: Architecture) -> str:
    """Render the page.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    name, total = escape(architecture.name or "network"), compute_cost(architecture)
    sums = ("", "", f"{total.params:,}", "", f"{total.macs:,}", "")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title><style>{_STYLE}</style></head><body>",
        f'<div class="wide" tabindex="0">{network_svg(architecture)}</div>',
        '<div class="wide" tabindex="0"><table><thead><tr><th>layer</th><th></th>',
        *(f'<th class="figure">{column}</th>' for column in _FIGURES),
        "</tr></thead><tbody>",
        *_rows(architecture, total),
        f"</tbody><tfoot><tr><td>total</td><td></td>{_cells(sums)}</tr></tfoot></table></div>",
        f"<details><summary>The architecture file</summary><pre>{escape(to_json(architecture))}</pre></details>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def write_drawings(architecture: Architecture, svg: Path | None, html: Path | None) -> list[Path]:
    """Write the drawing, the page, or both, and return the paths written.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
        UserError: a file is not called .svg or .html, or cannot be written.
    """
    formats = ((svg, ".svg", network_svg), (html, ".html", network_html))
    wanted = [(path, suffix, render) for path, suffix, render in formats if path]
    for path, suffix, _ in wanted:  # checked first, so that no file of another kind is overwritten by mistake
        if path.suffix.lower() != suffix:
            raise UserError(f"{path}: --{suffix[1:]} writes a {suffix} file; name it {path.stem or 'network'}{suffix}")
    for path, _, render in wanted:
        try:
            write_text(path, render(architecture))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error}); pass another path") from None
    return [path for path, _, _ in wanted]


def _rows(architecture: Architecture, total: Cost) -> Iterator[str]:
    for row in layer_rows(architecture):
        kind = ' class="begins"' if row.is_resized else ""
        name = f'<td style="padding-left: {18 * len(row.path)}px">{row.name}</td><td>{escape(typeset(row.options))}</td>'
        yield f"<tr{kind}>{name}{_cells(_figures(row, total))}</tr>"


def _figures(row: LayerRow, total: Cost) -> tuple[str, ...]:
    params = (f"{row.params:,}", format_share(row.params, total.params)) if row.params else ("", "")
    macs = (f"{row.macs:,}", format_share(row.macs, total.macs)) if row.macs else ("", "")
    return typeset(row.output_text), typeset(row.field_text()), *params, *macs


def _cells(figures: tuple[str, ...]) -> str:
    return "".join(f'<td class="figure">{figure}</td>' for figure in figures)
