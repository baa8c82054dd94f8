"""Terminal table of finals; columns that do not fit the terminal are left out and named."""

from __future__ import annotations

from statistics import mean

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from search.finals.results import FinalsResult, leader_sentence
from search.finals.statistics import Comparison
from search.study.run import Run
from search.text import format_percent, format_time
from search.training.measures import ACCURACY, MEASURES

ENOUGH_SEEDS = 5  # with 2 an interval reaches 12.7 standard errors to either side, with 5 it is 2.8
SPARE = ("params", "again", "last", "in search", "spread")  # left out where there is no room, the first of them first

Columns = dict[str, list[str]]


def print_finals(console: Console, run: Run, results: FinalsResult, val_images: int | None = None) -> None:
    """Print the finalists by mean accuracy, their differences to base and leader, the leader in words, and notes.

    Args:
        val_images: number of validation images, which decides the decimals of single trainings; None if it is unknown.
    """
    if results.finalists:
        table, left_out = _fitted(console, run, results, val_images)
        console.print(table)
        if left_out:
            _say(console, f"Columns left out for lack of room: {', '.join(left_out)}; a wider terminal or --json has them.")
    for name, reason in results.failed.items():
        _say(console, f"{name} did not train on every seed and is compared with none: {reason.rstrip('.')}.")
    sentence = leader_sentence(results)
    _say(console, sentence[0].upper() + sentence[1:])
    for line in _notes(run, results) if results.finalists else ():
        _say(console, line)


def _notes(run: Run, results: FinalsResult) -> list[str]:
    """Notes that explain the table, one line each."""
    compared = [
        comparison
        for finalist in results.finalists
        for comparison in (finalist.against_base, finalist.against_leader)
        if comparison
    ]
    lines = []
    if compared:
        lines.append("±: 95 % interval, paired by seed; tie: chance can make it (both adjusted by Holm).")
    label = MEASURES[results.metric].label
    if results.is_test:
        lines.append(f"In search, again: best validation {label} then and now; gap: winner's curse.")
    else:
        lines.append("Last: mean of the last epochs; gap: in search less mean, the winner's curse.")
    if run.config.search.rank_by == "int8":
        lines.append("Of the networks in int8; only Last is of the trained floats.")
    if any(finalist.name.startswith("control-") for finalist in results.finalists):
        lines.append("control: the best of a random search of as many epochs as the study's.")
    if results.seeds > 1 and any(comparison.low is None for comparison in compared):
        lines.append(f"±?: the same difference on all {results.seeds} seeds, too few to tell it from chance.")
    if results.seeds < ENOUGH_SEEDS:
        count = f"{results.seeds} seed{'s are' if results.seeds > 1 else ' is'} few"
        options = f"--seeds {ENOUGH_SEEDS}{' --again' if results.test_read else ''}"
        lines.append(f"{count}: take at least {ENOUGH_SEEDS} ({options}); what is trained is kept.")
    if results.test_read:
        read = ", and by --again at ".join(map(format_time, results.test_read))
        lines.append(f"The test images were read at {read}.")
    elif run.config.protocol == "course":
        lines.append(
            f"{'Accuracies' if results.metric == ACCURACY else 'Values'} are on the test images (course protocol): the best "
            "epoch of each training is picked on them."
        )
    return lines


def _fitted(console: Console, run: Run, results: FinalsResult, val_images: int | None) -> tuple[Table, list[str]]:
    """The table with the columns that fit the console, and the names of those left out."""
    columns = _columns(results, val_images)
    spare = [name for name in SPARE if name in columns]
    tries: list[tuple[int, box.Box | None, int]] = [(0, box.HEAVY_HEAD, 1), (0, None, 2)]  # left out, look, padding
    tries += [(count, None, 1) for count in range(len(spare) + 1)]
    for count, look, padding in tries:
        kept = {name: cells for name, cells in columns.items() if name not in spare[:count]}
        table = _table(run, results, kept, look, padding)
        if Measurement.get(console, console.options.update(width=1000), table).maximum <= console.width:
            break
    return table, spare[:count]


def _table(run: Run, results: FinalsResult, columns: Columns, look: box.Box | None, padding: int) -> Table:
    seeds = f"{results.seeds} fresh seed{'s' if results.seeds > 1 else ''}"
    title = f"{run.name}: finals on {seeds}, {results.measure_label}"
    around = (0, padding, 0, 1 if look else 0)
    table = Table(title=title, title_justify="left", box=look, padding=around, pad_edge=look is not None)
    for name in columns:
        table.add_column(name.replace(" ", "\n"), justify="right" if name else "left", vertical="bottom")
    for finalist, *cells in zip(results.finalists, *columns.values(), strict=True):
        table.add_row(*cells, style="bold" if finalist.name == results.leader else "")
    return table


def _columns(results: FinalsResult, val_images: int | None) -> Columns:
    """Cells of each column, by its name."""
    on_test, finalists = results.is_test, results.finalists
    columns = {
        "": [finalist.name for finalist in finalists],
        "params": [f"{finalist.params:,}" for finalist in finalists],
        "mean": [f"{finalist.mean:.2%}" for finalist in finalists],
        "spread": ["-" if finalist.spread is None else f"{100 * finalist.spread:.2f}" for finalist in finalists],
        "last": [] if on_test else [f"{mean(finalist.final_val):.2%}" for finalist in finalists],
        "in search": [format_percent(finalist.search_score, val_images, "-") for finalist in finalists],
        "again": [f"{mean(finalist.best_val):.2%}" for finalist in finalists] if on_test else [],
        "gap": ["-" if finalist.winners_curse is None else f"{100 * finalist.winners_curse:+.2f}" for finalist in finalists],
        "against base": [_versus(finalist.against_base) for finalist in finalists],
        "against leader": [_versus(finalist.against_leader) for finalist in finalists],
    }
    return {name: cells for name, cells in columns.items() if any(cells)}  # a single finalist is compared with no leader


def _versus(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    high = comparison.adjusted_high
    half = "?" if high is None else f"{100 * (high - comparison.difference):.2f}"
    return f"{100 * comparison.difference:+.2f} ±{half}{' tie' if comparison.is_tie else ''}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False)
