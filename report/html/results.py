"""Sections on results: leaderboard, finals, curves, costs, the winner and its mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from plotly.graph_objects import Figure

from report import pareto as fronts
from report.analysis.findings import Findings
from report.analysis.mistakes import (
    CLASS_TABLE,
    Predictions,
    class_table,
    first_fold_words,
    most_confused,
    picture,
    recall_title,
)
from report.analysis.parts import Net, outline, part_of
from report.device import accuracy_text, bars, operators_text
from report.figures import curves as figures
from report.figures import finals as charts
from report.figures.progress import progress as draw_progress
from report.html import markup
from report.html.markup import Lacking, Section
from report.markdown import effects as evidence
from report.network.drawing import network_svg
from report.network.layout import View
from report.tables import Table, images_behind, trainings
from search.budget.metrics import METRICS
from search.finals.statistics import wilson
from search.study.pareto import add_costs
from search.study.run import Opened, Studies
from search.text import format_count, format_percent, format_percents, format_share
from search.training.measures import ACCURACY, MEASURES, other_measures

SHOWN = 20  # trials shown above the fold
MATRIX = 20  # most classes for which the confusion matrix is a table of numbers
CONFUSIONS = 10  # confusions listed


def finals(findings: Findings) -> Section | Lacking:
    """Section on the finals."""
    results = findings.finals
    if results is None:
        return Lacking("Finals on fresh seeds", "not run yet", findings.run.command_of("finals"))
    parts = [markup.paragraph(evidence.finals_leader(results))]
    table = evidence.finals_table(results, findings.board.get("val_images"))
    if results.finalists:
        caption = (
            f"Mean {results.measure_label} of each finalist on {results.seeds} fresh seeds with its 95 % interval, "
            f"each seed, and the best validation {MEASURES[results.metric].label} that the search had seen."
            + (" Dashed: the mean of the base." if any(one.name == "base" for one in results.finalists) else "")
        )
        parts += [
            markup.figure(charts.finals(results, findings.board.get("val_images")), caption),
            markup.table(table, "Finals"),
        ]
        parts.append(markup.paragraph(evidence.FINALS, "remark"))
    parts += [markup.paragraph(line, "remark") for line in evidence.finals_notes(results)]
    return Section("finals", "Finals on fresh seeds", "".join(parts))


def curves(findings: Findings) -> Section:
    """Validation accuracy, or the study's other measure, by epoch."""
    known = findings.run, findings.candidates, findings.references
    plot = figures.learning_curves(*known, images=findings.board.get("val_images"))
    low = plot.layout.yaxis.range[0]
    form = " in float" if findings.run.config.search.rank_by == "int8" else ""
    published = " Published logs, dotted with one symbol each, are of the test images." if _has_published(plot) else ""
    text = (
        f"Validation {findings.run.config.metric_label}{form} by epoch: the winner in colour, the base dashed, the next "
        f"best in blue, other candidates grey.{published}"
    )
    if any(value is not None and value < low for trace in plot.data for value in trace.y):
        text += f" The axis begins at {low:.0%}, so that differences at the end show: first epochs lie below."
    return Section("curves", "Learning curves", markup.figure(plot, text, height=480))


def _has_published(plot: Figure) -> bool:
    return any(", published" in (trace.name or "") for trace in plot.data)


def progress(findings: Findings) -> Section:
    """Section on the course of the search."""
    plot = draw_progress(findings.run, findings.candidates, findings.references, images=findings.board.get("val_images"))
    text = "Each candidate in the order of the trials, and the best so far."
    if any(isinstance(trace.marker.symbol, tuple) for trace in plot.data):
        text += " Triangles on the lower edge are less accurate than the axis shows."
    if any("expected_gain" in record.proposal for record in findings.candidates):
        text += (
            " The lower panel answers whether to go on: the gain over the best network so far that the sampler expected of "
            "each trial when it proposed it, averaged over what the trial might have reached."
        )
    return Section("progress", "Progress of the search", markup.figure(plot, text))


def costs(findings: Findings, candidates: Sequence[Net] = ()) -> Section:
    """Section on accuracy against each cost metric, with its Pareto front as a table.

    Args:
        candidates: their networks, for the hover text.
    """
    config = findings.run.config
    networks = {net.number: outline(net, part_of(config.space)) for net in candidates}
    noise, board_images = _noise(findings), findings.board.get("val_images")
    names, measure = config.recorded_metrics, MEASURES[config.search.metric]
    known = add_costs(Opened(findings.run, findings.candidates, findings.references), names, findings.studies)
    parts = [_front(known, config.cost_metrics, findings.studies)] if config.cost_metrics else list[str]()
    for name in names:
        metric, front = METRICS[name], fronts.front_board(known, (name,), findings.studies)
        text = f"Best validation {measure.label} against {metric.axis}; the line is the highest at no higher cost."
        text += " Shaded: beyond the budget." if name in config.budget.limits else ""
        if noise is not None:
            measured = f"{trainings(findings.board)} on {board_images:,} images"
            text += f" The bar at the winner: 95 % interval of {measured}."
        plot = figures.accuracy_by_cost(*known, name, noise=noise, networks=networks, images=board_images)
        parts += [f"<h3>{metric.label.capitalize()}</h3>", markup.figure(plot, text)]
        n, label = len(front["trials"]), f"The front of {measure.label} against {metric.label}"
        table = markup.table(fronts.front_table(front, is_page=True), label, left=(1,))
        parts.append(markup.details(f"{label}: {n:,} candidate{'' if n == 1 else 's'} that no other beats", table))
    return Section("costs", f"{measure.title} against cost", "".join(parts))


def _noise(findings: Findings) -> figures.Noise | None:
    """95 % interval of the winner's accuracy."""
    row = findings.board["trials"][0]
    images = images_behind(findings.board, row)
    return figures.Noise(*wilson(row["best_val_accuracy"], images)) if images else None


def _front(known: Opened, metrics: Sequence[str], studies: Studies) -> str:
    """Front of the objectives of the study together."""
    front = fronts.front_board(known, metrics, studies)
    whole, n_references = fronts.front_table(front, is_page=True), len(front["references"]) + bool(front["base"])
    rows = whole.rows[: n_references + SHOWN], whole.rows[n_references + SHOWN :]
    first, rest = (markup.table(Table(whole.columns, some), "The front of the study", left=(1,)) for some in rows)
    folded = markup.details(f"{len(rows[1]):,} more", rest) if rows[1] else ""
    few = " and ".join(METRICS[name].label for name in metrics)
    words = f"The study asks for high {known.run.config.metric_label} and few {few} at once. "
    words += fronts.front_words(front)
    return f"<h3>The front of all objectives</h3>{markup.paragraph(words)}{first}{folded}"


def winner(findings: Findings) -> Section:
    """The winner layer by layer."""
    text = (
        f"Trial {findings.number} from its input down: boxes as wide as their channels, strips for normalisation, "
        "activation and dropout; output size, receptive field in input pixels, parameters and multiply-adds."
    )
    images = findings.board.get("val_images")
    flipped = next(record.flip_val_accuracy for record in findings.candidates if record.number == findings.number)
    if flipped is not None:
        text += " With flip averaging, which is reported separately and never ranked, it reaches "
        text += f"{format_percent(flipped, images)}."
    label = f"Trial {findings.number}, layer by layer"
    network = findings.network
    folded, compact, full = (network_svg(network, view) for view in (View.FOLDED, View.COMPACT, View.FULL))
    parts = [
        markup.paragraph(text),
        f'<div class="broad">{markup.scrolling(folded, label)}</div><div class="narrow">{compact}</div>',
        markup.details("Every layer by itself", markup.scrolling(full, f"{label}, nothing folded")),
    ]
    return Section("winner", f"The winner: trial {findings.number}", "".join(parts))


# --- mistakes --------------------------------------------------------------------------------------------------------


def device(findings: Findings) -> Section | None:
    """Section on what the best candidates take of the microcontroller; None without one."""
    board = findings.device_board
    if board is None:
        return None
    columns = ("trial", "RAM: arena", "flash", "multiply-adds", "int8", "operators")
    rows = []
    for card in board["cards"]:
        taken = [
            f"{markup.bar(value / limit, 'over' if value > limit else '')}<br>{value:,} ({format_share(value, limit)})"
            for _, value, limit, _ in bars(board, card)
        ]
        name = str(card["number"]) + ("" if card["fits"] else "<br><b>does not fit</b>")
        rows.append((name, *taken, escape(accuracy_text(board, card)), escape(operators_text(card))))
    memory = f"{board['ram']:,} bytes of RAM and {board['flash']:,} of flash"
    macs = "the limit of multiply-adds in the budget" if board["macs"] else "the most multiply-adds listed"
    text = f"Shares of {memory}, and of {macs}. The arena is to be allocated, the operators are to be registered. All are "
    text += "computed from the networks, without converting them."
    table = markup.table_of(columns, rows, "Memory of the device", left=(0, 1, 2, 3, 5))
    return Section("device", f"On {escape(board['device'])}", markup.paragraph(text) + table)


def mistakes(findings: Findings, predictions: Predictions | str) -> Section | Lacking:
    """Section on the confusion matrix and the worst mistakes, or the reason why there are none."""
    title = "What the winner gets wrong"
    if isinstance(predictions, str):
        return Lacking(title, predictions)
    record = next(record for record in findings.candidates if record.number == findings.number)
    stored = record.float_val_accuracy or record.network_value or record.best_val_accuracy or 0.0
    images = f"{predictions.images:,} validation images"
    folds = findings.run.config.data.folds
    metric = findings.run.config.search.metric
    again, before = (format_percent(value, predictions.images) for value in (predictions.measures[metric], stored))
    reached = f"{again} of {images} are classified correctly"
    if metric != ACCURACY:
        reached = f"its {MEASURES[metric].label} on {images} is {again}"
    beside = format_percents(other_measures(predictions.measures, metric), predictions.images)
    text = (
        f"With the weights of its best epoch, in float32, the winner was evaluated again: {reached} ({before} when it was "
        f"trained). Other measures: {beside}.{first_fold_words(folds)}"
    )
    columns = f'<div class="beside"><div>{_confusion(predictions)}</div><div>{_confusions(predictions)}</div></div>'
    title_of_recall = recall_title(folds)
    by_class = markup.table(class_table(predictions), title_of_recall, left=(0,))
    is_long = len(predictions.class_names) > MATRIX
    recall = markup.details(title_of_recall, by_class) if is_long else f"<h3>{title_of_recall}</h3>{by_class}"
    parts = [markup.paragraph(text), recall, markup.paragraph(CLASS_TABLE, "remark"), columns]
    if predictions.worst:
        parts += [
            "<h3>Worst mistakes</h3>",
            markup.paragraph(f"{_mistakes_words(predictions)}, the lowest probability of the true class first."),
            f'<ul class="mistakes">{"".join(_mistakes(predictions))}</ul>',
        ]
    return Section("mistakes", title, "".join(parts))


def _mistakes_words(predictions: Predictions) -> str:
    n, shown = predictions.images - int(predictions.confusion.trace()), len(predictions.worst)
    return (
        f"{format_count(shown, 'mistake')} of {n:,}" if shown < n else f"All {n:,} mistakes" if n > 1 else "The only mistake"
    )


def _confusion(predictions: Predictions) -> str:
    if len(predictions.class_names) > MATRIX:
        words = "Rows are true classes, columns predicted ones; hover over a cell for its names and count."
        return f"<h3>Confusion matrix</h3>{markup.figure(charts.confusion(predictions), words)}"
    names = [escape(name) for name in predictions.class_names]
    sums = predictions.confusion.sum(axis=1).clip(1)
    head = "".join(f'<th scope="col"><span>{name}</span></th>' for name in names)
    lines = []
    for truth, (name, row, whole) in enumerate(zip(names, predictions.confusion.tolist(), sums.tolist(), strict=True)):
        cells = "".join(_cell(count, count / whole, truth == predicted) for predicted, count in enumerate(row))
        lines.append(f'<tr><th scope="row">{name}</th>{cells}<td class="n">{row[truth] / whole:.0%}</td></tr>')
    matrix = (
        f'<table class="confusion"><thead><tr><th scope="col">true \\ predicted</th>{head}'
        '<th scope="col"><span>right</span></th></tr></thead><tbody>'
    )
    matrix += f"{''.join(lines)}</tbody></table>"
    return "<h3>Confusion matrix</h3>" + markup.scrolling(
        matrix, "Confusion matrix: rows are true classes, columns predicted ones"
    )


def _cell(count: int, share: float, is_right: bool) -> str:
    if not count:
        return '<td class="n"></td>'
    kind = "right" if is_right else "wrong"
    return f'<td class="n {kind}" style="--share:{share:.3f}">{count}</td>'


def _confusions(predictions: Predictions) -> str:
    pairs = most_confused(predictions, CONFUSIONS)
    if not pairs:
        return ""
    names, sums = predictions.class_names, predictions.confusion.sum(axis=1)
    rows = [
        (names[truth], names[predicted], f"{count:,}", f"{count / sums[truth]:.0%}") for truth, predicted, count in pairs
    ]
    listed = markup.table(
        Table(("true class", "predicted", "images", "share of class"), rows), "Most frequent confusions", left=(0, 1)
    )
    return f"<h3>Most frequent confusions</h3>{listed}"


def _mistakes(predictions: Predictions) -> Iterator[str]:
    for mistake in predictions.worst:
        truth, predicted = escape(predictions.class_names[mistake.truth]), escape(predictions.class_names[mistake.predicted])
        yield (
            f'<li><img src="{picture(mistake.image)}" alt="an image of class {truth}" width="96" height="96">'
            f"<span>is <b>{truth}</b></span><span>predicted <b>{predicted}</b>, {mistake.probability:.0%}</span></li>"
        )
