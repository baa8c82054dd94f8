"""The report of a run as one HTML page, report.html, that opens offline: plotly (gzip) and every number are inside.

The page loads nothing: its content security policy forbids it, also if a name in it contains markup. `report.css` and
`report.js` beside this file are inlined. The script element `leaderboard` holds the output of `top --json`; no path of
this machine is on the page.
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
from report.analysis.verdict import Verdict
from report.html import effort, insights, markup, results
from report.html.markup import Section
from report.markdown.formatting import protocol_words, without_paths
from report.tables import interval_text
from search.errors import UserError
from search.files import write_text
from search.text import format_percent, format_points, format_points_span

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
            f"<title>{name}: {escape(findings.verdict.title)}</title>",
            f"<style>{_beside('report.css')}</style></head>",
            "<body>",
            f'<div class="page"><nav aria-label="Contents"><ol>{"".join(map(_entry, shown))}</ol></nav>',
            f'<main><header id="top">{without_paths(_header(findings), findings.run)}</header>',
            "<noscript><p>Figures are drawn by the script in this page, which is switched off here.</p></noscript>",
            *(without_paths(_card(section), findings.run) for section in shown),
            f"<footer>Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by <code>python -m search report</code>.</footer>",
            "</main></div>",
            f'<script type="application/json" id="leaderboard">{markup.script_data(findings.judged_board)}</script>',
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
    config, verdict = findings.run.config, findings.verdict
    kinds = "separable convolutions only, " if config.budget.separable_only else ""
    question = f"{findings.data['summary']}; {kinds}under {config.budget.words}"
    words = f"Protocol {config.protocol}: {protocol_words(config, findings.finals)}"
    return "".join(
        [
            markup.paragraph(question, "eyebrow"),
            f"<h1>{escape(findings.run.name)}: {escape(verdict.title)}</h1>",
            markup.paragraph(verdict.text, "lead"),
            f'<dl class="tiles {verdict.standing.replace(" ", "-")}">{"".join(_tiles(findings))}</dl>',
            markup.commands(verdict.commands),
            markup.notice(words, "warning") if config.protocol == "course" else markup.paragraph(words, "remark"),
        ]
    )


def _tiles(findings: Findings) -> Iterator[str]:
    """Four key figures of the winner."""
    verdict, best, images = findings.verdict, findings.board["trials"][0], findings.board.get("val_images")
    base, limit = findings.board["base"], findings.run.config.budget.params
    base_text = "it has not been trained"
    if base is not None:
        size = "" if base["params"] is None else f", {base['params']:,} parameters"
        base_text = f"in one training each; the base has {format_percent(base['best_val_accuracy'], images)}{size}"
    last = format_percent(best["final_val_accuracy"], images)
    epoch = f"in epoch {best['best_epoch']} of {best['epochs']}, {last} in the last"
    if findings.run.config.search.rank_by == "int8":
        epoch += f" in float; {format_percent(best['float_val_accuracy'], images)} in float in the best"
    if images is not None:
        epoch += f"; 95 % interval {interval_text(findings.board, best)}% on {images:,} images"
    gap = format_points(best["delta_vs_base"], images)
    yield _tile(f"Best {findings.run.config.measure}", format_percent(best["best_val_accuracy"], images), epoch)
    yield _tile("Parameters", f"{best['params']:,}", f"the budget is under {limit:,}", markup.bar(best["params"] / limit))
    yield _tile("Against the base", f"{gap} points" if gap else "", base_text)
    yield _tile("On fresh seeds", *_fresh(verdict))


def _fresh(verdict: Verdict) -> tuple[str, str]:
    """Figure and words of the tile on finals."""
    if not verdict.standing.is_confirmed:
        return "not confirmed", "by no finals yet"
    gap = f"{format_points(verdict.difference, None)} points"
    span = verdict.difference_interval
    interval = "" if span is None else f"; 95 % interval {format_points_span(*span, None)}"
    return gap, f"{verdict.title}{interval}"


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
