"""Sections on results: leaderboard, finals, curves, costs, the winner and its mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from report import pareto as fronts
from report.analysis.findings import Findings
from report.analysis.mistakes import Told, confused, picture
from report.figures import curves as figures
from report.figures import finals as charts
from report.html import markup
from report.html.markup import Section
from report.markdown import effects as evidence
from report.markdown.summary import base_table, confirmation, counts_words, leaderboard_table
from report.network.drawing import network_svg
from report.tables import Table
from search.budget.metrics import METRICS
from search.study.pareto import add_costs
from search.study.run import Opened

SHOWN = 20  # trials shown above the fold
MATRIX = 20  # most classes for which the confusion matrix is a table of numbers
CONFUSIONS = 10  # confusions listed


def leaderboard(found: Findings) -> Section:
    """Section with the leaderboard: base, references, best trials, others folded."""
    whole, opponents = leaderboard_table(found.board), len(found.board["references"]) + bool(found.board["base"])
    first, rest = whole.rows[: opponents + SHOWN], whole.rows[opponents + SHOWN :]
    kinds = dict.fromkeys(range(opponents), "base") | {opponents: "winner"}
    parts = [
        markup.table(Table(whole.columns, first), "Leaderboard", left=(1,), kinds=kinds),
        markup.paragraph(
            f"{counts_words(found.board)}. Best is the best validation accuracy over the epochs of one training, last epoch "
            "that of its last; trials without a rank were not trained in full.",
            "remark",
        ),
    ]
    if rest:
        parts.insert(
            1, markup.details(f"{len(rest):,} more", markup.table(Table(whole.columns, rest), "The rest", left=(1,)))
        )
    base = found.run.config.base_name
    if base is not None and (known := base_table(found.run.config, found.board)).rows:
        parts += [f"<h3>The base{'' if base == 'base' else f', {escape(base)}'}</h3>", markup.table(known, "The base")]
    return Section("leaderboard", "Leaderboard", "".join(parts))


def finals(found: Findings) -> Section:
    """Section on the finals."""
    held = found.finals
    if held is None:
        words = confirmation(None, found.number, finals_command(found)).words
        return Section("finals", "Finals on fresh seeds", markup.paragraph(words))
    parts = [markup.paragraph(evidence.finals_verdict(held))]
    if held.finalists:
        told = (
            f"Mean {evidence.measure(held)} of each finalist on {held.seeds} fresh seeds with its 95 % interval, each seed, "
            "and the best validation accuracy that the search had seen."
        )
        parts += [markup.figure(charts.finals(held), told), markup.table(evidence.finals_table(held), "Finals")]
        parts.append(markup.paragraph(evidence.FINALS, "remark"))
    parts += [markup.paragraph(line, "remark") for line in evidence.finals_notes(held)]
    return Section("finals", "Finals on fresh seeds", "".join(parts))


def curves(found: Findings) -> Section:
    """Validation accuracy by epoch."""
    known = found.run, found.candidates, found.references
    words = "Validation accuracy by epoch: base dashed, best trials in colour, others dash-dotted, published logs dotted."
    return Section("curves", "Learning curves", markup.figure(figures.learning_curves(*known), words, height=460))


def costs(found: Findings) -> Section:
    """Section on accuracy against each cost metric, with its Pareto front as a table."""
    config = found.run.config
    names = config.recorded_metrics
    known = add_costs(Opened(found.run, found.candidates, found.references), names, found.studies)
    parts = [_front(known, config.cost_metrics)] if config.cost_metrics else list[str]()
    for name in names:
        metric, front = METRICS[name], fronts.front_board(known, (name,))
        words = f"Best validation accuracy against {metric.axis}; the line is the best to be had with no more."
        parts += [f"<h3>{metric.label.capitalize()}</h3>", markup.figure(figures.accuracy_by_cost(*known, name), words)]
        n, label = len(front["trials"]), f"The front of accuracy against {metric.label}"
        table = markup.table(fronts.front_table(front), label, left=(1,))
        parts.append(markup.details(f"{label}: {n:,} candidate{'' if n == 1 else 's'} that no other beats", table))
    return Section("costs", "Accuracy against cost", "".join(parts))


def _front(known: Opened, prices: Sequence[str]) -> str:
    """Front of the study's own objectives together."""
    front = fronts.front_board(known, prices)
    whole, opponents = fronts.front_table(front), len(front["references"]) + bool(front["base"])
    rows = whole.rows[: opponents + SHOWN], whole.rows[opponents + SHOWN :]
    first, rest = (markup.table(Table(whole.columns, some), "The front of the study", left=(1,)) for some in rows)
    folded = markup.details(f"{len(rows[1]):,} more", rest) if rows[1] else ""
    words = f"The study asks for high accuracy and low {', '.join(prices)} at once. {fronts.front_words(front)}"
    return f"<h3>The front of all objectives</h3>{markup.paragraph(words)}{first}{folded}"


def winner(found: Findings) -> Section:
    """The winner layer by layer."""
    words = (
        f"Trial {found.number} from its input down: the size of each output, how many input pixels each way it can see, its "
        "parameters and multiply-adds with a bar each."
    )
    flipped = next(one.flip_val_accuracy for one in found.candidates if one.number == found.number)
    if flipped is not None:
        words += f" With flip averaging, which is told apart and never ranked, it reaches {flipped:.2%}."
    drawn = markup.scrolling(network_svg(found.network), f"Trial {found.number}, layer by layer")
    return Section("winner", f"The winner: trial {found.number}", markup.paragraph(words) + drawn)


# --- mistakes --------------------------------------------------------------------------------------------------------


def mistakes(found: Findings, told: Told | str) -> Section:
    """Section on the confusion matrix and the worst mistakes, or the reason why there are none."""
    title = "What the winner gets wrong"
    if isinstance(told, str):
        return Section("mistakes", title, markup.paragraph(f"Not shown: {told}."))
    record = next(one for one in found.candidates if one.number == found.number)
    stored = record.float_val_accuracy or record.best_val_accuracy or 0.0
    words = (
        f"With the weights of its best epoch, in floats, the winner was asked again: {told.accuracy:.2%} of {told.images:,} "
        f"validation images are right ({stored:.2%} when it was trained)."
    )
    beside = f'<div class="beside"><div>{_confusion(told)}</div><div>{_confusions(told)}</div></div>'
    parts = [markup.paragraph(words), beside]
    if told.worst:
        parts += [
            "<h3>Worst mistakes</h3>",
            markup.paragraph(
                f"Of {told.images - int(told.confusion.trace()):,} wrong answers the {len(told.worst)} that leave the least "
                "probability for the truth."
            ),
            f'<ul class="mistakes">{"".join(_mistakes(told))}</ul>',
        ]
    return Section("mistakes", title, "".join(parts))


def _confusion(told: Told) -> str:
    if len(told.class_names) > MATRIX:
        words = "Rows are what images are, columns what was said of them; point at a cell for its names and number."
        return f"<h3>Confusion matrix</h3>{markup.figure(charts.confusion(told), words)}"
    names = [escape(name) for name in told.class_names]
    sums = told.confusion.sum(axis=1).clip(1)
    head = "".join(f'<th scope="col"><span>{name}</span></th>' for name in names)
    lines = []
    for truth, (name, row, whole) in enumerate(zip(names, told.confusion.tolist(), sums.tolist(), strict=True)):
        cells = "".join(_cell(count, count / whole, truth == said) for said, count in enumerate(row))
        lines.append(f'<tr><th scope="row">{name}</th>{cells}<td class="n">{row[truth] / whole:.0%}</td></tr>')
    matrix = (
        f'<table class="confusion"><thead><tr><th scope="col">is \\ said to be</th>{head}'
        '<th scope="col"><span>right</span></th></tr></thead><tbody>'
    )
    matrix += f"{''.join(lines)}</tbody></table>"
    return "<h3>Confusion matrix</h3>" + markup.scrolling(
        matrix, "Confusion matrix: rows are the truth, columns the answers"
    )


def _cell(count: int, share: float, is_right: bool) -> str:
    kind = ("right" if is_right else "wrong") + (" strong" if share > 0.45 else "")
    return f'<td class="n {kind}" style="--share:{share:.3f}">{count or ""}</td>'


def _confusions(told: Told) -> str:
    pairs = confused(told, CONFUSIONS)
    if not pairs:
        return ""
    names, sums = told.class_names, told.confusion.sum(axis=1)
    rows = [(names[truth], names[said], f"{count:,}", f"{count / sums[truth]:.0%}") for truth, said, count in pairs]
    listed = markup.table(
        Table(("is", "taken for", "images", "of its class"), rows), "Most frequent confusions", left=(0, 1)
    )
    return f"<h3>Most frequent confusions</h3>{listed}"


def _mistakes(told: Told) -> Iterator[str]:
    for one in told.worst:
        truth, said = escape(told.class_names[one.truth]), escape(told.class_names[one.said])
        yield (
            f'<li><img src="{picture(one.image)}" alt="an image of class {truth}" width="96" height="96">'
            f"<span>is <b>{truth}</b></span><span>said <b>{said}</b>, {one.probability:.0%}</span></li>"
        )


def finals_command(found: Findings) -> str:
    """Command that runs the finals."""
    return found.run.command.replace("search run ", "search finals ", 1)
