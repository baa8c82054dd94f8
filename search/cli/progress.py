"""Live progress of a run: a line for each finished trial, and on a terminal or in a notebook the state of every worker.

What other supervisors of the same study train is not followed here; the number of trials is right again with every fresh
worker.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from search.cli.waiting import AwaitedTrials
from search.runner.events import (
    BaseKnown,
    DatabaseUnavailable,
    DeviceReady,
    EpochDone,
    Event,
    Finishing,
    ImagesRead,
    LimitHit,
    PhaseStarted,
    PriorFitted,
    StepDone,
    StudyLoaded,
    TrialEnded,
    TrialReassigned,
    TrialsAdopted,
    TrialStarted,
    Waiting,
    WorkerLost,
    finalist_name,
)
from search.text import format_clock, format_duration, format_percent, format_points
from search.training.measures import ACCURACY, MEASURES, is_near_guess
from search.training.result import Outcome

BAR_WIDTH = 16  # letters of the bar of the whole run
NAME_WIDTH = 12  # letters of the name of a trial in its line
MOST_ROWS = 8  # of workers that are shown
NOTEBOOK_WIDTH = 110  # letters of a live line in a notebook
NOTEBOOK_SECONDS = 0.25  # between two updates there
AWAY_SECONDS = 60.0  # between two lines that say that the database is unreachable


@dataclass
class Row:
    """The state of one worker."""

    trial: TrialStarted | None = None
    epoch: EpochDone | None = None  # the last one
    best_score: float = 0.0  # of its epochs
    share_done: float = 0.0  # of the trial
    started: float = field(default_factory=time.monotonic)
    text: str = "starting"  # shown while there is no trial

    @property
    def name(self) -> str:
        """Name of the trial."""
        if self.trial is None:
            return "trial ?"
        if self.trial.contender is not None:
            return finalist_name(self.trial.contender, self.trial.repeat or 0)
        return self.trial.reference or f"trial {self.trial.number}"

    @property
    def is_reference(self) -> bool:
        """True while a reference is trained."""
        return self.trial is not None and self.trial.reference is not None

    @property
    def seconds_left(self) -> float | None:
        """Of the trial."""
        spent = time.monotonic() - self.started
        return spent / self.share_done - spent if self.trial and self.share_done > 0.02 else None

    def parts(self, is_int8: bool, images: int | None, metric: str = ACCURACY) -> list[str]:
        """The text of the worker's line, in parts.

        Args:
            is_int8: the study ranks int8 networks, whose accuracy is measured after the last epoch.
            images: number of validation images, which decides the decimals; None if it is unknown.
        """
        if self.trial is None:
            return [self.text]
        parts = [self.name, f"{self.trial.params:,} params"]
        if self.epoch:
            measure = f"{'float ' if is_int8 else ''}{MEASURES[metric].label}"
            score = format_percent(self.epoch.score(metric), images)
            return [*parts, f"epoch {self.epoch.epoch}/{self.epoch.epochs}, {measure} {score}"]
        return [*parts, f"first epoch ({self.share_done:.0%} of the trial)"]


class NotebookLive:
    """Lines in the output of a Jupyter cell that are replaced in place; rich's `Live` needs ipywidgets there."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._updated = 0.0

    def start(self) -> None:
        """Reserve the place of the lines."""
        from IPython.display import display

        self._handle = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def update(self, lines: RenderableType) -> None:
        """Replace the lines, unless they were replaced a moment ago."""
        if self._handle is None or time.monotonic() - self._updated < NOTEBOOK_SECONDS:
            return
        self._updated = time.monotonic()
        text = io.StringIO()
        Console(file=text, width=NOTEBOOK_WIDTH, force_jupyter=False).print(lines)
        self._handle.update({"text/plain": text.getvalue().rstrip()}, raw=True)

    def stop(self) -> None:
        """Remove the lines."""
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)


class RunView:
    """Follows the events of a run; without a terminal or a notebook only the lines of finished trials are printed."""

    def __init__(self, console: Console, workers: int = 1) -> None:
        self.console = console
        self.is_live = console.is_terminal or console.is_jupyter
        self.live: Live | NotebookLive = NotebookLive()
        if not console.is_jupyter:
            self.live = Live(console=console, refresh_per_second=4, transient=True, auto_refresh=console.is_terminal)
        self.rows = {worker: Row() for worker in range(workers)}
        self.goal = self.trained = self.rejected = 0
        self.phase = ""  # what is done instead of the search: finals, their control
        self.classes: int | None = None
        self.guess: float | None = None  # value of the measure for always guessing the commonest class
        self.base: float | None = None
        self.best: tuple[float, int] | None = None  # accuracy, number of the trial
        self.device = ""
        self.is_int8 = False  # int8 networks are ranked
        self.metric = ACCURACY  # the measure that ranks them
        self.images: int | None = None  # of validation
        self.other_runs = set[str]()  # lines on trials of other runs that were said
        self.awaited = AwaitedTrials()
        self.away = -AWAY_SECONDS  # when it was last said
        self.seconds: list[float] = []  # that each trained candidate took

    def __enter__(self) -> RunView:
        if self.is_live:
            self.live.start()
            self.live.update(self._lines())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def show(self, event: Event, worker: int = 0) -> None:
        """Show an event of a worker."""
        row = self.rows.setdefault(worker, Row())
        match event:
            case DeviceReady():
                self._device(event)
            case ImagesRead(done, total):
                row.text = f"{done:,} of {total:,} images read"
            case StudyLoaded():
                self._found(event)
            case TrialsAdopted(text) | PriorFitted(text):
                self._other_runs(text)
            case BaseKnown():
                self._base(event)
            case PhaseStarted():
                self._phase(event)
            case TrialStarted():
                self.rows[worker] = Row(event)
                self.rejected += event.refused
            case StepDone():
                row.share_done = event.step / event.steps
            case EpochDone():
                row.epoch = event
                row.best_score = max(event.score(self.metric), row.best_score)
            case TrialEnded():
                self._end(event, row)
            case Waiting():
                row.trial, row.text = None, "waits for others"
                self._waiting(event)
            case TrialReassigned(number):
                row.trial = None
                self._say(f"[yellow]Trial {number} is another worker's now[/], as nothing was heard of this one.")
            case DatabaseUnavailable():
                self._away(event)
            case WorkerLost():
                row.trial, row.text = None, "starting"
                self._say(f"[red]The worker {escape(event.reason)}[/]; another takes its place.")
            case LimitHit():
                self._say(f"[yellow]The study ends here[/]: {escape(event.text)}.")
            case Finishing():
                row.trial, row.text = None, "writing the pages"
                if self.best:
                    self._warn_near_guess(self.best[0], "The best candidate")
        if self.is_live:
            self.live.update(self._lines())

    # --- events ---

    def _device(self, event: DeviceReady) -> None:
        self.is_int8, self.images, self.metric = event.rank_by == "int8", event.val_images, event.metric
        self.classes, self.guess = event.classes, event.guess
        if event.text != self.device:  # every fresh worker reports it again
            self.device = event.text
            self._say(escape(f"{event.text[0].upper()}{event.text[1:]}."))
            self._say(escape(event.data))

    def _base(self, event: BaseKnown) -> None:
        if event.accuracy != self.base:
            self.base = event.accuracy
            if event.is_network:
                self._warn_near_guess(event.accuracy, "The base")
            elif guess := self._guess_below(event.accuracy):
                number = f"{format_percent(event.accuracy, self.images)}{self._kind}"
                self._say(
                    f"[yellow]The base is a low number[/]: {number}, and {guess}, so to beat it says little. "
                    "Another base needs a new --out."
                )

    def _warn_near_guess(self, value: float, subject: str) -> None:
        if guess := self._guess_below(value):
            self._say(
                f"[yellow]{subject} hardly learnt[/]: {format_percent(value, self.images)}{self._kind}, and {guess}, so "
                "comparisons say little; see the logs in the run folder. "
                "More --images or --epochs, or another --seed, need a new --out."
            )

    def _guess_below(self, value: float) -> str | None:
        """Text on always guessing the commonest class; None for a value clearly above that."""
        if self.guess is None or self.classes is None or not is_near_guess(value, self.guess, self.classes):
            return None
        return f"always guessing one class gives {self.guess:.1%}"

    def _waiting(self, event: Waiting) -> None:
        own = {row.name for row in self.rows.values() if row.trial is not None}
        line = self.awaited.line([name for name in event.names if name not in own], event.grace_minutes)
        if line and not self.is_live:
            with contextlib.suppress(OSError):  # standard error may be closed
                print(line, file=sys.stderr, flush=True)

    def _away(self, event: DatabaseUnavailable) -> None:
        if time.monotonic() - self.away > AWAY_SECONDS:
            self.away = time.monotonic()
            self._say(f"[yellow]Database unreachable[/] ({escape(event.reason)}); results are kept in memory, retrying.")

    def _found(self, event: StudyLoaded) -> None:
        self.goal, first = event.trials, not self.goal
        self.trained, self.rejected = event.done, event.rejected
        self.best = event.best
        if first and (self.trained or self.rejected or event.failed):
            rest = "nothing is left to train" if self.trained >= self.goal else f"resuming up to {self.goal}"
            adopted = f", {event.adopted} adopted" if event.adopted else ""
            counts = f"{self.trained} trained candidates, {self.rejected} rejected, {event.failed} failed{adopted}"
            self._say(f"Found {counts}; {rest}.")

    def _other_runs(self, text: str) -> None:
        if text not in self.other_runs:  # every worker reports it
            self.other_runs.add(text)
            self._say(escape(text))

    def _phase(self, event: PhaseStarted) -> None:
        if event.text != self.phase:
            self._say(escape(f"{event.text[0].upper()}{event.text[1:]}."))
            self.best, self.seconds, self.rejected = None, [], 0
        self.phase, self.goal, self.trained = event.text, event.goal, event.done

    def _end(self, event: TrialEnded, row: Row) -> None:
        if event.outcome == Outcome.REJECTED:
            self.rejected += 1
            return
        reason, seconds = escape(event.reason or ""), event.seconds or 0.0
        if event.outcome == Outcome.PRUNED_AT_RUNG:
            self.trained += 1
            self.seconds.append(seconds)
            self._say(f"{self._head(row)}  [dim]pruned, {reason}  {self.trained}/{self.goal}[/]")
        elif event.outcome != Outcome.TRAINED:
            self._say(f"{row.name}: [red]{event.outcome.replace('_', ' ')}[/], {reason}")
        else:
            self._trained(event, row, seconds)
        row.trial, row.text = None, "begins the next"

    def _trained(self, event: TrialEnded, row: Row, seconds: float) -> None:
        """The line of a trial that was trained in full, in columns; of a new best candidate in green."""
        best = row.best_score if event.best_val_accuracy is None else event.best_val_accuracy
        floats = event.float_val_accuracy
        kind = self._kind
        kind += "" if floats is None else f" in int8, {format_percent(floats, self.images)} in float"
        is_leader = False
        if not row.is_reference:
            self.trained += 1
            self.seconds.append(seconds)
            if not self.phase:
                is_leader = self.best is None or best > self.best[0]
                self.best = max(self.best or (0.0, -1), (best, event.number), key=lambda pair: pair[0])
        gap = ""
        if self.base and not row.is_reference:
            gap = f"{format_points(best - self.base, self.images)} vs base"
        count = "" if row.is_reference else f"  [dim]{self.trained}/{self.goal}[/]"
        accuracy = f"best {format_percent(best, self.images):>6}{kind}"
        accuracy = f"[green]{accuracy}[/]" if is_leader else accuracy
        self._say(f"{self._head(row)}  {accuracy}  {gap:>14}  {format_duration(seconds):>10}{count}")

    @property
    def _kind(self) -> str:
        """The measure after a figure, unless it is accuracy."""
        return "" if self.metric == ACCURACY else f" {MEASURES[self.metric].label}"

    def _head(self, row: Row) -> str:
        """Name and size of a trial, in columns."""
        params = f"{row.trial.params:>9,}" if row.trial else f"{'?':>9}"
        return f"{escape(row.name + ':'):<{NAME_WIDTH}} {params} params"

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    # --- the live lines ---

    def _lines(self) -> RenderableType:
        rows = [self.rows[worker] for worker in sorted(self.rows)]
        if not self.goal and not any(row.trial for row in rows):
            reading = next((row.text for row in rows if row.text.endswith("images read")), None)
            return Text(reading or "starting: TensorFlow takes a few seconds to load", style="dim")
        if len(rows) == 1:
            (row,) = rows
            return _line([self._progress(), *self._work(row)])
        shown = [
            _line([f"  {worker}", *row.parts(self.is_int8, self.images, self.metric)], dim=not row.trial)
            for worker, row in enumerate(rows[:MOST_ROWS])
        ]
        more = [_line([f"  and {len(rows) - MOST_ROWS} more workers"], dim=True)] if len(rows) > MOST_ROWS else []
        phase = [self.phase] if self.phase else []
        return Group(_line([self._progress(), *phase, *self._best()]), *shown, *more)

    def _work(self, row: Row) -> list[str]:
        """Text on the only worker."""
        if row.trial:
            return [*row.parts(self.is_int8, self.images, self.metric), *self._best()]
        if row.text.startswith("w"):  # it waits, or writes the pages
            return [row.text]
        if self.phase:
            return [self.phase]
        return ["proposing the next network" + (f", {self.rejected:,} rejected so far" if self.rejected else "")]

    def _progress(self) -> str:
        """Counted trials, the time left and a bar; the first text of a line, where no terminal cuts it."""
        left = self._seconds_left()
        time_left = "" if left is None else f" · {format_clock(left)} left"
        at_work = sum(row.share_done for row in self.rows.values() if row.trial and not row.is_reference)
        done = min((self.trained + at_work) / self.goal, 1.0) if self.goal else 0.0
        ascii_only = self.console.options.ascii_only
        full, empty, time_left = ("#", "-", time_left.replace("·", "-")) if ascii_only else ("━", "╌", time_left)
        filled = round(BAR_WIDTH * done)
        return f"{self.trained}/{self.goal}{time_left} {full * filled}{empty * (BAR_WIDTH - filled)}"

    def _best(self) -> list[str]:
        """Text on the best candidate so far."""
        if not self.best:
            return []
        gap = f" ({format_points(self.best[0] - self.base, self.images)} vs base)" if self.base else ""
        return [f"best {format_percent(self.best[0], self.images)}{self._kind}{' in int8' if self.is_int8 else ''}{gap}"]

    def _seconds_left(self) -> float | None:
        """Of the whole run; None before the first of its trainings was timed."""
        if not self.seconds:
            return None
        at_work = [row for row in self.rows.values() if row.trial and not row.is_reference]
        rests = [row.seconds_left for row in at_work if row.seconds_left is not None]
        each = sum(self.seconds) / len(self.seconds)
        to_come = max(self.goal - self.trained - len(at_work), 0)
        return max(rests, default=each if at_work else 0.0) + each * to_come / len(self.rows)


def _line(parts: list[str], *, dim: bool = False) -> Text:
    return Text("  ".join(parts), no_wrap=True, overflow="ellipsis", style="dim" if dim else "")
