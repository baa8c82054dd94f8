"""First screen of the report: the verdict, three figures, and base and winner side by side to one scale."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from report.analysis.findings import Findings
from report.analysis.mistakes import Predictions, not_evaluated
from report.card.comparison import Fact, Headline, base_network, facts, headlines
from report.card.scene import svg_shapes
from report.card.silhouette import common_scale, silhouette
from report.html import markup
from report.markdown.formatting import protocol_words
from search.networks.architecture import Architecture

WIDTH, HEIGHT = 440, 96  # of a silhouette


def header(findings: Findings, predictions: Predictions | str) -> str:
    """Body of the page's header.

    Args:
        predictions: of the winner, or the reason why there are none.
    """
    problem = not_evaluated(findings, predictions)
    config, verdict = findings.run.config, findings.verdict
    kinds = "separable convolutions only, " if config.budget.separable_only else ""
    question = f"{findings.data['summary']}; {kinds}under {config.budget.words}"
    protocol = f"Protocol {config.protocol}: {protocol_words(config, findings.finals)}"
    base = base_network(findings)
    figures = "".join(map(_tile, headlines(findings, base)))
    return "".join(
        [
            markup.paragraph(question, "eyebrow"),
            f"<h1>{escape(findings.run.name)}: {escape(verdict.title)}</h1>",
            markup.notice(unfinished, "warning") if (unfinished := findings.unfinished) else "",
            markup.paragraph(verdict.sentence, "lead"),
            markup.notice(problem, "warning") if problem else "",
            f'<dl class="tiles {verdict.standing.replace(" ", "-")}">{figures}</dl>',
            _side_by_side(findings, base),
            markup.paragraph(" ".join(verdict.remarks)) if verdict.remarks else "",
            markup.commands(verdict.commands),
            markup.notice(protocol, "warning") if config.protocol == "course" else markup.paragraph(protocol, "remark"),
        ]
    )


def _tile(headline: Headline) -> str:
    label, figure, words = (escape(text) for text in (headline.label, headline.figure, headline.words))
    return f"<div><dt>{label[0].upper()}{label[1:]}</dt><dd><strong>{figure}</strong><small>{words}</small></dd></div>"


def _side_by_side(findings: Findings, base: Architecture | None) -> str:
    """Both networks to one scale, and a line for each of their figures."""
    scale = common_scale([network for network in (base, findings.network) if network], WIDTH)
    own = _silhouette(findings.network, scale, f"trial {findings.number}")
    rows = "".join(map(_row, facts(findings, base)))
    named = findings.run.config.base_name
    title = "Base" if named in (None, "base") else f"Base {named}"
    if base is None:
        words = f"a plain {findings.run.config.metric_label}" if findings.verdict.base else "not trained yet"
        other = f'<p class="remark">{words}</p>'
    else:
        other = _silhouette(base, scale, title)
    return (
        '<div class="versus"><table><caption>Base and winner: each box is a layer with weights, as wide as its channels, '
        "as high as its map, both to one scale; blue are separable convolutions, orange ordinary ones and dense "
        "layers.</caption>"
        "<thead><tr><td></td>"
        f'<th scope="col">{escape(title)}{other}</th><th scope="col">Winner, trial {findings.number}{own}</th>'
        f"<td></td></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _silhouette(network: Architecture, scale: float, name: str) -> str:
    shapes = "".join(svg_shapes(silhouette(network, scale, HEIGHT)))
    label = escape(f"{name}: its layers with weights from left to right")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="silhouette" role="img" aria-label="{label}">{shapes}</svg>'


def _row(row: Fact) -> str:
    cells = "".join(_cells(row))
    return f'<tr><th scope="row">{escape(row.label)}</th>{cells}<td class="ratio">{escape(row.ratio)}</td></tr>'


def _cells(row: Fact) -> Iterator[str]:
    for text, share, kind in ((row.base, row.base_share, "quiet"), (row.winner, row.winner_share, "")):
        bar = "" if share is None else markup.bar(share, kind)
        yield f"<td>{bar}<span>{escape(text)}</span></td>"
