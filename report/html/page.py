"""The report of a run as one HTML page, report.html, that opens offline: plotly (gzip) and every number are inside.

The page loads nothing: its content security policy forbids it, also if a name in it contains markup. `report.css`,
`report.js` and `leaderboard.js` beside this file are inlined. The script element `leaderboard` holds the output of
`top --json`; no path of this machine is on the page.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path

from plotly.offline import get_plotlyjs

from report.analysis.findings import Findings
from report.analysis.mistakes import Predictions, evaluate_winner
from report.analysis.parts import nets
from report.analysis.timing import training_times
from report.html import effort, first_screen, insights, leaderboard, markup, results
from report.html.markup import Lacking, Section
from report.markdown.formatting import without_paths
from search.errors import UserError
from search.files import write_text

POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"

_HERE = Path(__file__).parent


def write_html(findings: Findings, folder: Path | None = None, predictions: Predictions | str | None = None) -> Path:
    """Write report.html into a folder, the run folder if None.

    Args:
        predictions: see `page`; None has Keras re-evaluate the winner on the validation images.
    """
    path = (folder or findings.run.folder) / "report.html"
    write_text(path, page(findings, predictions or predictions_of(findings)))
    return path


def page(findings: Findings, predictions: Predictions | str) -> str:
    """The whole page.

    Args:
        predictions: the winner's predictions for the validation images, or the reason why there are none.
    """
    candidates = nets(findings)
    sections: list[Section | Lacking | None] = [
        leaderboard.section(findings),
        results.finals(findings),
        results.curves(findings),
        results.progress(findings),
        results.costs(findings, candidates),
        results.winner(findings),
        results.device(findings),
        results.mistakes(findings, predictions),
        insights.effects(findings),
        insights.choices(findings, candidates),
        insights.importances(findings),
        insights.parameters(findings, candidates),
        effort.rejections(findings),
        effort.time_spent(training_times(findings.run, findings.studies.candidates)),
        effort.configuration(findings),
    ]
    shown = [section for section in sections if isinstance(section, Section)]
    if lacking := [section for section in sections if isinstance(section, Lacking)]:
        shown.insert(-1, effort.not_shown(lacking))
    name = escape(findings.run.name)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{name}: {escape(findings.verdict.title)}</title>",
            f"<style>{_beside('report.css')}</style></head>",
            "<body>",
            f'<div class="page"><nav aria-label="Contents"><ol>{"".join(map(_entry, shown))}</ol></nav>',
            f'<main><header id="top">{without_paths(first_screen.header(findings, predictions), findings.run)}</header>',
            "<noscript><p>Figures are drawn by the script in this page, which is switched off here.</p></noscript>",
            *(without_paths(_card(section), findings.run) for section in shown),
            f"<footer>Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by <code>python -m search report</code>.</footer>",
            "</main></div>",
            f'<script type="application/json" id="leaderboard">{markup.script_data(findings.judged_board)}</script>',
            f'<script type="application/gzip" id="plotly">{markup.packed(get_plotlyjs())}</script>',
            f"<script>{_beside('report.js')}</script>",
            f"<script>{_beside('leaderboard.js')}</script>",
            "</body></html>",
        ]
    )


def predictions_of(findings: Findings) -> Predictions | str:
    """The winner's predictions for the validation images, by Keras, or the reason why there are none."""
    try:
        return evaluate_winner(findings)
    except UserError as error:
        return str(error)


def _entry(section: Section) -> str:
    return f'<li><a href="#{section.id}">{escape(section.title)}</a></li>'


def _card(section: Section) -> str:
    return f'<section id="{section.id}"><h2>{escape(section.title)}</h2>{section.body}</section>'


def _beside(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
