"""Terminal table of finals; columns that do not fit the terminal are left out and named."""

from __future__ import annotations

from statistics import mean

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from search.finals.results import FinalsResult, verdict
from search.finals.statistics import Comparison
from search.study.run import Run

ENOUGH_SEEDS = 5  # with 2 an interval reaches 12.7 standard errors to either side, with 5 it is 2.8
SPARE = ("params", "again", "last", "in search", "spread")  # left out where there is no room, the first of them first

Columns = dict[str, list[str]]


def print_finals(console: Console, run: Run, found: FinalsResult) -> None:
    """Print the finalists by mean accuracy, their differences to base and leader, the verdict, and notes."""
    if found.finalists:
        table, left_out = _fitted(console, run, found)
        console.print(table)
        if left_out:
            _say(console, f"Columns left out for lack of room: {', '.join(left_out)}; a wider terminal or --json has them.")
    for name, reason in found.failed.items():
        _say(console, f"{name} did not train on every seed and is compared with none: {reason.rstrip('.')}.")
    _say(console, verdict(found)[0].upper() + verdict(found)[1:])
    for line in _notes(run, found) if found.finalists else ():
        _say(console, line)


def _notes(run: Run, found: FinalsResult) -> list[str]:
    """Notes that explain the table, one line each."""
    compared = [one for two in found.finalists for one in (two.against_base, two.against_leader) if one]
    lines = []
    if compared:
        lines.append("±: 95 % interval, paired by seed; tie: chance can make it (Holm).")
    if found.measure == "test_accuracy":
        lines.append("In search, again: best validation accuracy then and now; gap: winner's curse.")
    else:
        lines.append("Last: mean of the last epochs; gap: in search less mean, the winner's curse.")
    if run.config.search.rank_by == "int8":
        lines.append("Of the networks in int8; only Last is of the trained floats.")
    if any(one.name.startswith("control-") for one in found.finalists):
        lines.append("control: the best of a random search of as many epochs as the study's.")
    if found.seeds > 1 and any(one.low is None for one in compared):
        lines.append(f"±?: the same difference on all {found.seeds} seeds, too few to tell it from chance.")
    if found.seeds < ENOUGH_SEEDS:
        count = f"{found.seeds} seed{'s are' if found.seeds > 1 else ' is'} few"
        options = f"--seeds {ENOUGH_SEEDS}{' --again' if found.test_read else ''}"
        lines.append(f"{count}: take at least {ENOUGH_SEEDS} ({options}); what is trained is kept.")
    if found.test_read:
        read = ", and by --again at ".join(found.test_read)
        lines.append(f"The test images were read at {read}.")
    elif run.config.protocol == "course":
        lines.append(
            "Accuracies are on the test images (course protocol): the best epoch of each training is picked on them."
        )
    return lines


def _fitted(console: Console, run: Run, found: FinalsResult) -> tuple[Table, list[str]]:
    """The table with the columns that fit the console, and the names of those left out."""
    columns = _columns(found)
    spare = [name for name in SPARE if name in columns]
    tries: list[tuple[int, box.Box | None, int]] = [(0, box.HEAVY_HEAD, 1), (0, None, 2)]  # left out, look, padding
    tries += [(count, None, 1) for count in range(len(spare) + 1)]
    for count, look, padding in tries:
        kept = {name: cells for name, cells in columns.items() if name not in spare[:count]}
        table = _table(run, found, kept, look, padding)
        if Measurement.get(console, console.options.update(width=1000), table).maximum <= console.width:
            break
    return table, spare[:count]


def _table(run: Run, found: FinalsResult, columns: Columns, look: box.Box | None, padding: int) -> Table:
    seeds = f"{found.seeds} fresh seed{'s' if found.seeds > 1 else ''}"
    measure = "test accuracy" if found.measure == "test_accuracy" else "best validation accuracy"
    title = f"{run.name}: finals on {seeds}, {measure}"
    around = (0, padding, 0, 1 if look else 0)
    table = Table(title=title, title_justify="left", box=look, padding=around, pad_edge=look is not None)
    for name in columns:
        table.add_column(name.replace(" ", "\n"), justify="right" if name else "left", vertical="bottom")
    for one, *cells in zip(found.finalists, *columns.values(), strict=True):
        table.add_row(*cells, style="bold" if one.name == found.leader else "")
    return table


def _columns(found: FinalsResult) -> Columns:
    """Cells of each column, by its name."""
    on_test, all_of = found.measure == "test_accuracy", found.finalists
    columns = {
        "": [one.name for one in all_of],
        "params": [f"{one.params:,}" for one in all_of],
        "mean": [f"{one.mean:.2%}" for one in all_of],
        "spread": ["-" if one.spread is None else f"{100 * one.spread:.2f}" for one in all_of],
        "last": [] if on_test else [f"{mean(one.final_val):.2%}" for one in all_of],
        "in search": ["-" if one.search_score is None else f"{one.search_score:.2%}" for one in all_of],
        "again": [f"{mean(one.best_val):.2%}" for one in all_of] if on_test else [],
        "gap": ["-" if one.winners_curse is None else f"{100 * one.winners_curse:+.2f}" for one in all_of],
        "against base": [_versus(one.against_base) for one in all_of],
        "against leader": [_versus(one.against_leader) for one in all_of],
    }
    return {name: cells for name, cells in columns.items() if any(cells)}  # a lone contender has no leader to face


def _versus(one: Comparison | None) -> str:
    if one is None:
        return ""
    half = "?" if one.high is None else f"{100 * (one.high - one.difference):.2f}"
    return f"{100 * one.difference:+.2f} ±{half}{' tie' if one.is_tie else ''}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False)
