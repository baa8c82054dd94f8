"""Terminal tables of leaderboards, search spaces, exports and fronts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from report import tables
from report.analysis.verdict import Standing, Verdict
from report.device import card_lines
from report.markdown.summary import STOPPED, stopped_table
from report.pareto import Front, front_table, front_words
from report.pareto_export import INDEX, WORDS, ExportedFront
from search.export.exporter import Exported
from search.study.config import StudyConfig
from search.study.survey import Survey
from search.text import format_estimate, format_percent, format_points
from search.training.measures import ACCURACY, MEASURES
from search.tuning.forecast import Forecast

WITH_INTERVAL = 100  # columns of a terminal from which the leaderboard has intervals
STOPPED_SHOWN = 20  # candidates that were stopped early
CARD_INDENT = 10  # of the second line of what a card says
SHOWN = 200  # trials of a leaderboard; a table of thousands takes seconds to lay out, and is not readable


def print_leaderboard(console: Console, board: dict[str, Any], config: StudyConfig, *, whole: bool = False) -> None:
    """Print the leaderboard, of a long one the first `SHOWN` trials; what was stopped early stands apart."""
    has_interval = board.get("val_images") is not None and console.width >= WITH_INTERVAL
    table = Table(title=f"{board['study']}: under {config.budget.words}", title_justify="left")
    interval = ("95 % interval",) if has_interval else ()
    has_seconds = board.get("ranked_by") != "int8" or console.width >= WITH_INTERVAL  # it has one more column
    seconds = ("seconds",) if has_seconds else ()
    for column in ("rank", "trial", "params", *tables.accuracy_columns(board), *interval, "against base", *seconds):
        table.add_column(column, justify="left" if column == "trial" else "right")
    named = [*([{"name": "base"} | board["base"]] if board["base"] else []), *board["references"]]
    for reference in named:
        gap = "" if reference["name"] == "base" else tables.gap_text(board, reference, "-")
        cells = _cells(board, reference, has_interval=has_interval)
        table.add_row(
            "",
            reference["name"],
            *cells,
            gap,
            *([""] if has_seconds else []),
            style="bold" if reference["name"] == "base" else "",
        )
    ranked = [trial for trial in board["trials"] if trial["rank"] is not None]
    stopped = [trial for trial in board["trials"] if trial["rank"] is None]
    shown = ranked if whole else ranked[:SHOWN]
    for trial in shown:
        table.add_row(
            str(trial["rank"]),
            tables.trial_name(trial),
            *_cells(board, trial, has_interval=has_interval),
            tables.gap_text(board, trial, "-"),
            *([_seconds(trial["seconds"])] if has_seconds else []),
            style="bold green" if trial["rank"] == 1 else "",
        )
    console.print(table)
    if board.get("folds"):
        words = f"Each accuracy is the mean of {tables.trainings(board)}, which `show` lists, and its interval is theirs."
        console.print(words, highlight=False)
    if more := len(ranked) - len(shown):
        console.print(f"… and {more:,} more: top --all prints them, --json too", highlight=False)
    if stopped:
        _print_stopped(console, board, stopped, most=len(stopped) if whole else STOPPED_SHOWN)
    counts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in board["counts"].items())
    console.print(counts, highlight=False)
    if adopted := tables.adopted_words(board):
        _say(console, adopted)
    if ranked and board.get("val_images") is not None and not has_interval:
        span = f"{tables.interval_text(board, ranked[0])}%"
        console.print(f"95 % interval of the best, on {board['val_images']:,} images: {span}", highlight=False)
    if config.search.rank_by == "int8":
        console.print(
            "in int8: of the converted network, computed as TensorFlow Lite Micro does; against base: in int8.",
            highlight=False,
        )
    if config.protocol == "course":
        is_published = config.data.name == "cifar10" and "metric" not in board
        alike = "comparable with the published logs, and " if is_published else ""
        console.print(
            f"{_figures(board)} are on the test images (course protocol): {alike}flattering, as the best of many is picked "
            "on them."
        )


def _figures(board: dict[str, Any]) -> str:
    return "Accuracies" if "metric" not in board else f"Values of {tables.measure_of(board).label}"


def _print_stopped(console: Console, board: dict[str, Any], stopped: list[dict[str, Any]], most: int) -> None:
    """Print the candidates that were stopped early: of fewer epochs, their accuracies compare with no ranked one."""
    cells = stopped_table(board)
    table = Table(title=STOPPED, title_justify="left", style="dim")
    for column in cells.columns:
        table.add_column(column, justify="left" if column in ("trial", "outcome") else "right")
    for row in cells.rows[:most]:
        table.add_row(*row, style="dim")
    console.print(table)
    if len(stopped) > most:
        console.print(f"… and {len(stopped) - most:,} more: top --all prints them, --json too", highlight=False)


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print the verdict and the next command."""
    sign, style = _SIGNS[verdict.standing]
    sign = "-" if console.options.ascii_only else sign
    title = verdict.title[0].upper() + verdict.title[1:]
    console.print(Text.assemble((f"{sign} {title}.", style), f" {verdict.text}"), soft_wrap=False)
    for purpose, command in [*verdict.commands.items()][:1]:
        _say(console, f"Next, to {purpose}: {command}")


_SIGNS = {
    Standing.UNTRAINED: ("·", "dim"),
    Standing.NO_BASE: ("·", "yellow"),
    Standing.HARDLY_LEARNT: ("✗", "bold yellow"),
    Standing.AHEAD_ONCE: ("·", "bold"),
    Standing.LEVEL_ONCE: ("=", "bold"),
    Standing.BEHIND_ONCE: ("✗", "bold red"),
    Standing.BEATEN: ("✓", "bold green"),
    Standing.TIED: ("=", "bold yellow"),
    Standing.BEHIND: ("✗", "bold red"),
}


def _cells(board: dict[str, Any], row: dict[str, Any], *, has_interval: bool) -> list[str]:
    params = "-" if row["params"] is None else f"{row['params']:,}"
    interval = [tables.interval_text(board, row, "-")] if has_interval else []
    return [params, *tables.accuracy_cells(board, row, missing="-"), *interval]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def print_survey(console: Console, name: str, budget: int, survey: Survey, forecast: Forecast | None = None) -> None:
    """Print the survey of a space with a histogram of its sizes, and the forecast of a study's time."""
    low, high = survey.interval
    console.print(
        f"{name}: {survey.share_that_fits:.1%} of {survey.draws:,} random draws fit under {budget:,} parameters\n"
        f"95 % interval {low:.1%} to {high:.1%}; {survey.proposals_per_second:,.0f} proposals a second\n"
        f"smallest found {survey.smallest_params:,}, largest that fits {survey.largest_params_that_fit:,}, largest "
        f"{survey.largest_params:,}",
        highlight=False,
    )
    if set(survey.broken) - {"over budget"}:
        shares = ", ".join(f"{count / survey.draws:.1%} {rule}" for rule, count in survey.broken.items())
        console.print(f"rejected, by the first rule that they break: {shares}", highlight=False)
    console.print("parameters  share of the draws, in twelve groups of equal width", highlight=False)
    width = max(survey.largest_params / 12, 1)
    counts = Counter(min(int(size / width), 11) for size in survey.sizes)
    for index in range(12):
        share = counts[index] / max(len(survey.sizes), 1)  # no draw may exist, and only the least networks do
        fits = "green" if (index + 1) * width <= budget else "yellow" if index * width < budget else "dim"
        bar = "█" * round(share * 60)
        console.print(f"{index * width:>11,.0f} [{fits}]{bar}[/] {share:.1%}", highlight=False)
    hint = "[dim]--probe times a few trainings on this machine and forecasts the whole study[/]"
    console.print(_forecast(forecast, time.time()) if forecast else hint, highlight=False)


def _forecast(forecast: Forecast, now: float) -> str:
    count = f"{forecast.trials:,} trial{'s' if forecast.trials > 1 else ''}"
    base = "" if forecast.seconds_of_base is None else f", the base {format_estimate(forecast.seconds_of_base)}"
    return (
        f"about {format_estimate(forecast.seconds)} on this machine "
        f"({count} of {_from_to(forecast.cheap, forecast.dear)}{base})\n"
        f"started now, it would end {_moment(now + forecast.seconds, now)}"
    )


def _from_to(low: float, high: float) -> str:
    first, last = format_estimate(low), format_estimate(high)
    if first == last:
        return first
    alike = first.split()[1:] == last.split()[1:] and len(first.split()) == 2
    return f"{first.split()[0] if alike else first} to {last}"


def _moment(then: float, now: float) -> str:
    """A time of day in local time, with the date unless it is today."""
    end, today = time.localtime(then), time.localtime(now)
    day = "" if end[:3] == today[:3] else time.strftime("on %A %d %B ", end)
    return day + time.strftime("at %H:%M", end)


def print_exported(console: Console, done: Exported) -> None:
    """Print the exported files in columns, then remarks on them."""
    rows = list(_rows(done))
    columns = [[row[index] for row in rows] for index in range(4)]
    used = [index for index, cells in enumerate(columns) if index == 0 or any(cells[1:])]
    widths = [max(map(len, cells)) for cells in columns]
    for row in rows:
        cells = [row[index].ljust(widths[index]) if index == 0 else row[index].rjust(widths[index]) for index in used]
        _say(console, "  ".join(cells).rstrip())
    for line in _notes(done):
        _say(console, line)


def _rows(done: Exported) -> Iterator[tuple[str, str, str, str]]:
    metric = _metric_of(done)
    yield "", "bytes", MEASURES[metric].label, "against Keras"
    for form, paths in done.paths.items():
        facts = done.facts.get(form, {})
        measured, keras = facts.get(f"val_{metric}"), facts.get(f"keras_val_{metric}")
        images = facts.get("val_images")
        score = format_percent(measured, images)
        against = "" if measured is None else format_points(measured - keras, images)
        for path in paths:
            yield _short(path), f"{path.stat().st_size:,}", score, against


def _metric_of(done: Exported) -> str:
    """The measure by which the study of an exported network ranks."""
    return next((facts["metric"] for facts in done.facts.values() if "metric" in facts), ACCURACY)


def _notes(done: Exported) -> Iterator[str]:
    measured = {form: done.facts[form] for form in done.paths if done.facts.get(form, {}).get("val_accuracy") is not None}
    metric = _metric_of(done)
    for facts in list(measured.values())[:1]:
        yield (
            f"{MEASURES[metric].title} on {facts['val_images']:,} validation images, of one and the same network: "
            f"{format_percent(facts[f'keras_val_{metric}'], facts['val_images'])} in Keras."
        )
    if int8 := measured.get("int8"):
        yield f"Pixels for int8: {int8['input']['pixels']}. {int8['same_class_as_keras']:.1%} get Keras' class."
    for reason in dict.fromkeys(done.left_out.values()):
        yield f"Left out: {', '.join(form for form, why in done.left_out.items() if why == reason)} ({reason})."
    if done.removed:
        names = ", ".join(path.name for path in done.removed)
        yield f"Removed, as an earlier export had left them of another network: {names}."


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_device(console: Console, board: dict[str, Any]) -> None:
    """Print a card for each candidate: memory and multiply-adds as bars, int8 accuracy, operators to register."""
    if not board["cards"]:
        _say(console, "No candidate has been trained yet.")
    for index, card in enumerate(board["cards"]):
        head, *lines = card_lines(board, card, ascii_only=console.options.ascii_only)
        console.print(Text(head, style="bold green" if card["fits"] else "bold red"))
        for line in lines:
            for part in wrap(line, console.width, subsequent_indent=" " * CARD_INDENT, break_on_hyphens=False):
                console.print(Text(part), soft_wrap=True)
        if index + 1 < len(board["cards"]):
            console.print()


def print_front(console: Console, front: Front) -> None:
    """Print a front as a table, by rising cost."""
    title = f"{front['study']}: the front of {tables.measure_of(front).label} against {', '.join(front['prices'])}"
    cells = front_table(front)
    styles = ["" if row[0] else "bold" if row[1] == "base" else "dim" for row in cells.rows]
    _print(console, cells, title, styles, left="trial", optional=("epoch", "last", "best in float", "params"))
    _say(console, front_words(front))


def print_taken(console: Console, exported: ExportedFront, folder: Path) -> None:
    """Print the networks of an exported front as a table, then remarks on them."""
    _print(console, exported.table, f"{folder}", [""] * len(exported.table.rows), left="")
    _say(console, f"Listed in {INDEX} and {WORDS} there; each network is in a folder of its own.")
    if exported.outdated:
        _say(console, f"Of an earlier export, on the front no more: {', '.join(exported.outdated)}.")


def _print(
    console: Console, cells: tables.Table, title: str, styles: list[str], left: str, optional: tuple[str, ...] = ()
) -> None:
    """Print a table; columns that begin with one of `optional` are left out, the last first, where there is no room."""
    omitted = _without_room(cells, console.width, optional)
    table = Table(title=Text(title), title_justify="left")
    shown = [index for index, column in enumerate(cells.columns) if column not in omitted]
    for index in shown:
        column = cells.columns[index]
        align: JustifyMethod = "left" if column == left else "right"
        table.add_column(_title(column), justify=align, min_width=_least_width(column))
    for row, style in zip(cells.rows, styles, strict=True):
        table.add_row(*(Text(row[index]) for index in shown), style=style)
    console.print(table)
    if omitted:
        _say(console, f"Columns left out for lack of room: {', '.join(omitted)}; a wider terminal or --json has them.")


def _title(column: str) -> str:
    """Title of a column, which may break between its words."""
    return column.replace("_", " ")


def _least_width(column: str) -> int:
    return max(map(len, _title(column).split()), default=0)


def _without_room(cells: tables.Table, width: int, optional: tuple[str, ...]) -> list[str]:
    """Columns that have no room in this width."""
    widths = {
        column: 3 + max(_least_width(column), *(len(row[index]) for row in cells.rows), 0)
        for index, column in enumerate(cells.columns)
    }
    omitted: list[str] = []
    for column in reversed(cells.columns):
        if 1 + sum(widths.values()) - sum(widths[name] for name in omitted) <= width:
            break
        if column.startswith(optional) and optional:
            omitted.insert(0, column)
    return omitted
