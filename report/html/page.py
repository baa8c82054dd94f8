"""The report of a run as one HTML page, report.html, that opens offline: plotly (gzip) and every number are inside.

The page loads nothing: its content security policy forbids it, also if a name in it contains markup. `report.css` and
`report.js` beside this file are inlined. The script element `leaderboard` holds the output of `top --json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from plotly.offline import get_plotlyjs

from report.analysis.findings import Findings
from report.analysis.mistakes import Predictions, evaluate_winner
from report.analysis.parts import nets
from report.analysis.timing import training_times
from report.html import effort, insights, markup, results
from report.html.markup import Section
from report.markdown.formatting import protocol_words
from report.markdown.summary import Confirmed, confirmation, title, verdict
from search.errors import UserError
from search.files import write_text

POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"

_HERE = Path(__file__).parent


def write_html(findings: Findings, folder: Path | None = None) -> Path:
    """Write report.html into a folder, the run folder if None; Keras re-evaluates the winner on the validation images."""
    write_text(path := (folder or findings.run.folder) / "report.html", page(findings, _predictions(findings)))
    return path


def page(findings: Findings, predictions: Predictions | str) -> str:
    """The whole page.

    Args:
        predictions: the winner's predictions for the validation images, or the reason why there are none.
    """
    candidates = nets(findings)
    sections: list[Section | None] = [
        results.leaderboard(findings),
        results.finals(findings),
        results.curves(findings),
        results.progress(findings),
        results.costs(findings, candidates),
        results.winner(findings),
        results.mistakes(findings, predictions),
        insights.effects(findings),
        insights.choices(findings, candidates),
        insights.importances(findings),
        insights.parameters(findings, candidates),
        effort.rejections(findings),
        effort.time_spent(training_times(findings.run, findings.studies.candidates)),
        effort.configuration(findings),
    ]
    shown = [section for section in sections if section]
    name = escape(findings.run.name)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{name}: {escape(title(findings.board, findings.network.classes))}</title>",
            f"<style>{_beside('report.css')}</style></head>",
            "<body>",
            f'<div class="page"><nav aria-label="Contents"><ol>{"".join(map(_entry, shown))}</ol></nav>',
            f'<main><header id="top">{_header(findings)}</header>',
            "<noscript><p>Figures are drawn by the script in this page, which is switched off here.</p></noscript>",
            *(_card(section) for section in shown),
            f"<footer>Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by <code>python -m search report</code>.</footer>",
            "</main></div>",
            f'<script type="application/json" id="leaderboard">{markup.script_data(findings.board)}</script>',
            f'<script type="application/gzip" id="plotly">{markup.packed(get_plotlyjs())}</script>',
            f"<script>{_beside('report.js')}</script>",
            "</body></html>",
        ]
    )


def _predictions(findings: Findings) -> Predictions | str:
    try:
        return evaluate_winner(findings)
    except UserError as error:
        return str(error)


def _header(findings: Findings) -> str:
    config, board, classes = findings.run.config, findings.board, findings.network.classes
    kinds = "separable convolutions only, " if config.budget.separable_only else ""
    question = f"{findings.data['summary']}; {kinds}under {config.budget.words}"
    fresh = confirmation(findings.finals, findings.number, results.finals_command(findings))
    text = f"Protocol {config.protocol}: {protocol_words(config)}"
    return "".join(
        [
            markup.paragraph(question, "eyebrow"),
            f"<h1>{escape(findings.run.name)}: {escape(title(board, classes))}</h1>",
            markup.paragraph(f"{verdict(board, classes)} {fresh.words}", "lead"),
            f'<dl class="tiles {fresh.status.replace(" ", "-")}">{"".join(_tiles(findings, fresh))}</dl>',
            markup.notice(text, "warning") if config.protocol == "course" else markup.paragraph(text, "remark"),
        ]
    )


def _tiles(findings: Findings, fresh: Confirmed) -> Iterator[str]:
    """Four key figures of the winner."""
    best, base, limit = findings.board["trials"][0], findings.board["base"], findings.run.config.budget.params
    delta, base_text = best["delta_vs_base"], "it has not been trained"
    if base is not None:
        size = "" if base["params"] is None else f", {base['params']:,} parameters"
        base_text = f"the base has {base['best_val_accuracy']:.2%}{size}"
    epoch = f"in epoch {best['best_epoch']} of {best['epochs']}, {best['final_val_accuracy']:.2%} in the last"
    if findings.run.config.search.rank_by == "int8":
        epoch += f" in float; {best['float_val_accuracy']:.2%} in float in the best"
    points = "" if delta is None else f"{100 * delta:+.2f} points"
    yield _tile(f"Best {findings.run.config.measure}", f"{best['best_val_accuracy']:.2%}", epoch)
    yield _tile("Parameters", f"{best['params']:,}", f"the budget is under {limit:,}", markup.bar(best["params"] / limit))
    yield _tile("Against the base", points, base_text)
    yield _tile("On fresh seeds", fresh.short, "by the finals" if findings.finals else "no finals yet")


def _tile(what: str, figure: str, words: str, body: str = "") -> str:
    return (
        f"<div><dt>{escape(what)}</dt><dd><strong>{escape(figure)}</strong>{body}<small>{escape(words)}</small></dd></div>"
    )


def _entry(section: Section) -> str:
    return f'<li><a href="#{section.id}">{escape(section.title)}</a></li>'


def _card(section: Section) -> str:
    return f'<section id="{section.id}"><h2>{escape(section.title)}</h2>{section.body}</section>'


def _beside(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
