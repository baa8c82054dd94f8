"""Shows a run in the terminal: a line a finished trial, and under them a live line of the one that trains."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.config import StudyConfig, hardly_learnt
from search.plan import Survey
from search.probe import Forecast

Event = dict[str, Any]


class RunView:
    """Follows the events of a run; without a terminal only the lines of finished trials are printed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=True, auto_refresh=console.is_terminal)
        self.goal = self.trained = self.rejected = 0
        self.phase = ""  # what is done instead of the search: finals, their control
        self.classes = 2
        self.base: float | None = None
        self.best: tuple[float, int] | None = None  # accuracy, number of the trial
        self.device: Event = {}
        self.trial: Event = {}
        self.epoch: Event = {}
        self.share_done = 0.0  # of the trial that trains
        self.started = time.monotonic()
        self.seconds: list[float] = []  # that each trained candidate took

    def __enter__(self) -> RunView:
        if self.console.is_terminal:
            self.live.start()
            self.live.update(self._line())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def show(self, event: Event) -> None:
        """Take one event of a worker in."""
        match event["event"]:
            case "device" if event != self.device:  # the same again of every fresh worker
                self.device = event
                self.console.print(f"{event['text'][0].upper()}{event['text'][1:]}.", highlight=False)
                self.console.print(event["data"], highlight=False)
            case "found":
                self._found(event)
            case "base":
                self.base, self.classes = event["accuracy"], event["classes"]
                self._warn_near_chance(self.base, "The base")
            case "phase":
                self._phase(event)
            case "trial":
                self.trial, self.epoch, self.share_done, self.started = event, {}, 0.0, time.monotonic()
                self.rejected += event["refused"]
            case "step":
                self.share_done = event["step"] / event["steps"]
            case "epoch":
                self.epoch = (
                    event if event["val_accuracy"] >= self.epoch.get("top", 0) else event | {"top": self.epoch["top"]}
                )
                self.epoch.setdefault("top", event["val_accuracy"])
            case "end":
                self._end(event)
            case "lost":
                self.console.print(f"[red]The worker {event['reason']}[/]; the run goes on.", highlight=False)
            case "enough":
                self.console.print(f"[yellow]The study ends here[/]: {event['text']}.", highlight=False)
            case "finishing":
                self.trial = {}
                if self.best:
                    self._warn_near_chance(self.best[0], "The best candidate")
        if self.console.is_terminal:
            self.live.update(self._line())

    def _warn_near_chance(self, accuracy: float, what: str) -> None:
        if hardly_learnt(accuracy, self.classes):
            self.console.print(
                f"[yellow]{what} hardly learnt[/]: {accuracy:.2%}, and chance is {1 / self.classes:.1%}, so comparisons say "
                "little; see the logs in the run folder. More --images or --epochs, or another --seed, need a new --out.",
                highlight=False,
            )

    def _found(self, event: Event) -> None:
        self.goal, first = event["trials"], not self.goal
        self.trained, self.rejected = event["done"], event["rejected"]
        self.best = tuple(event["best"]) if event["best"] else None
        if first and (self.trained or self.rejected or event["failed"]):
            self.console.print(
                f"Found {self.trained} of {self.goal} done, {self.rejected} rejected, {event['failed']} failed; "
                + ("nothing is left to train." if self.trained >= self.goal else "going on."),
                highlight=False,
            )

    def _phase(self, event: Event) -> None:
        if event["text"] != self.phase:
            self.console.print(f"{event['text'][0].upper()}{event['text'][1:]}.", highlight=False)
            self.best, self.seconds, self.rejected = None, [], 0
        self.phase, self.goal, self.trained = event["text"], event["goal"], event["done"]

    def _end(self, event: Event) -> None:
        number, outcome = event["number"], event["outcome"]
        if outcome == "rejected":
            self.rejected += 1
            return
        name, reference = self._name(), self.trial.get("reference")
        if outcome == "pruned_at_rung":
            self.trained += 1
            self.seconds.append(event["seconds"])
            count = f"  [dim]{self.trained}/{self.goal}[/]"
            self.console.print(f"{name}: {self.trial['params']:,} params, pruned, {event['reason']}{count}", highlight=False)
        elif outcome != "trained":
            self.console.print(f"{name}: [red]{outcome.replace('_', ' ')}[/], {event['reason']}", highlight=False)
        else:
            top, seconds = self.epoch["top"], event["seconds"]
            if not reference:
                self.trained += 1
                self.seconds.append(seconds)
                if not self.phase:
                    self.best = max(self.best or (0.0, -1), (top, number), key=lambda pair: pair[0])
            against = f", {100 * (top - self.base):+.2f} against the base" if self.base and not reference else ""
            tally = "" if self.phase else f", {self.rejected} rejected"
            count = "" if reference else f"  [dim]{self.trained}/{self.goal}{tally}[/]"
            self.console.print(
                f"{name}: {self.trial['params']:,} params, best {top:.2%}{against}, {seconds:.0f} s "
                f"({event['compile_seconds']:.0f} s to compile){count}",
                highlight=False,
            )
        self.trial = {}

    def _name(self) -> str:
        if "contender" in self.trial:
            return f"{self.trial['contender']}, seed {self.trial['repeat'] + 1}"
        return self.trial.get("reference") or f"trial {self.trial.get('number', '?')}"

    def _line(self) -> Text:
        if not self.goal:
            return Text("starting: TensorFlow takes a few seconds to load", style="dim")
        if not self.trial:
            return Text(self.phase or f"{self.trained}/{self.goal} trained, {self.rejected} rejected", style="dim")
        parts = [self._name(), f"{self.trial['params']:,} params"]
        if self.epoch:
            parts.append(f"epoch {self.epoch['epoch']}/{self.epoch['epochs']}, accuracy {self.epoch['val_accuracy']:.2%}")
        else:
            parts.append(f"first epoch ({self.share_done:.0%} of the trial)")
        if self.best:
            gap = f" ({100 * (self.best[0] - self.base):+.2f} against the base)" if self.base else ""
            parts.append(f"best so far {self.best[0]:.2%}{gap}")
        parts.append(f"{self.trained}/{self.goal} trained")
        if (left := self._seconds_left()) is not None:
            parts.append(f"about {_duration(left)} left")
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")

    def _seconds_left(self) -> float | None:
        spent = time.monotonic() - self.started
        rest = spent / self.share_done - spent if self.share_done > 0.02 else None
        if self.trial.get("reference"):
            return rest
        each = sum(self.seconds) / len(self.seconds) if self.seconds else (spent + rest if rest is not None else None)
        if each is None:
            return None
        return (rest if rest is not None else each) + each * max(self.goal - self.trained - 1, 0)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes}:{rest:02}"


def print_leaderboard(console: Console, board: dict[str, Any], config: StudyConfig) -> None:
    """The leaderboard as a table."""
    table = Table(title=f"{board['study']}: under {config.budget.words}", title_justify="left")
    for column in ("rank", "trial", "params", "best", "epoch", "last", "against base", "seconds"):
        table.add_column(column, justify="left" if column == "trial" else "right")
    if board["base"]:
        table.add_row("", "base", *_cells(board["base"]), "", "", style="bold")
    for reference in board["references"]:
        table.add_row("", reference["name"], *_cells(reference), _points(board, reference), "")
    for trial in board["trials"]:
        if trial["rank"] is None:
            table.add_row("", str(trial["number"]), *_cells(trial), "", trial["outcome"].replace("_", " "), style="dim")
        else:
            table.add_row(
                str(trial["rank"]), str(trial["number"]), *_cells(trial), _points(board, trial), _seconds(trial["seconds"])
            )
    console.print(table)
    counts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in board["counts"].items())
    console.print(counts, highlight=False)
    if config.protocol == "course":
        alike = "comparable with the published logs, and " if config.data.name == "cifar10" else ""
        console.print(
            f"Accuracies are on the test images (course protocol): {alike}flattering, as the best of many is picked on them."
        )


def _cells(row: dict[str, Any]) -> list[str]:
    params = "-" if row["params"] is None else f"{row['params']:,}"
    return [params, _percent(row["best_val_accuracy"]), str(row["best_epoch"] or "-"), _percent(row["final_val_accuracy"])]


def _points(board: dict[str, Any], row: dict[str, Any]) -> str:
    best = row["best_val_accuracy"]
    return "-" if not board["base"] or best is None else f"{100 * (best - board['base']['best_val_accuracy']):+.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def print_survey(console: Console, name: str, budget: int, found: Survey, timed: Forecast | None = None) -> None:
    """What a space holds, with a histogram of its sizes, and how long the study takes."""
    low, high = found.interval
    console.print(
        f"{name}: {found.share_that_fits:.1%} of {found.draws:,} random draws fit under {budget:,} parameters\n"
        f"95 % interval {low:.1%} to {high:.1%}; {found.proposals_per_second:,.0f} proposals a second\n"
        f"smallest found {found.smallest_params:,}, largest that fits {found.largest_params_that_fit:,}, largest "
        f"{found.largest_params:,}",
        highlight=False,
    )
    if set(found.broken) - {"over budget"}:
        told = ", ".join(f"{count / found.draws:.1%} {rule}" for rule, count in found.broken.items())
        console.print(f"refused, by the first rule that they break: {told}", highlight=False)
    width = max(found.largest_params / 12, 1)
    counts = Counter(min(int(size / width), 11) for size in found.sizes)
    for index in range(12):
        share = counts[index] / len(found.sizes)
        fits = "green" if (index + 1) * width <= budget else "yellow" if index * width < budget else "dim"
        bar = "█" * round(share * 60)
        console.print(f"{index * width:>11,.0f} [{fits}]{bar}[/] {share:.1%}", highlight=False)
    hint = "[dim]--probe times a few trainings on this machine and forecasts the whole study[/]"
    console.print(_forecast(timed, time.time()) if timed else hint, highlight=False)


def _forecast(timed: Forecast, now: float) -> str:
    count = f"{timed.trials:,} trial{'s' if timed.trials > 1 else ''}"
    base = "" if timed.seconds_of_base is None else f", the base {_about(timed.seconds_of_base)}"
    return (
        f"about {_about(timed.seconds)} on this machine ({count} of {_from_to(timed.cheap, timed.dear)}{base})\n"
        f"started now, it would end {_moment(now + timed.seconds, now)}"
    )


def _about(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if minutes < 90:
        return f"{minutes} min"
    parts = ((hours // 24, "days"), (hours % 24, "h")) if hours >= 48 else ((minutes // 60, "h"), (minutes % 60, "min"))
    return " ".join(f"{count:,} {unit}" for count, unit in parts if count)


def _from_to(low: float, high: float) -> str:
    first, last = _about(low), _about(high)
    if first == last:
        return first
    alike = first.split()[1:] == last.split()[1:] and len(first.split()) == 2
    return f"{first.split()[0] if alike else first} to {last}"


def _moment(then: float, now: float) -> str:
    """A moment in local time, by the minute, with its day where that is not today."""
    end, today = time.localtime(then), time.localtime(now)
    day = "" if end[:3] == today[:3] else time.strftime("on %A %d %B ", end)
    return day + time.strftime("at %H:%M", end)
