"""Live progress of a run: a line for each finished trial, and on a terminal the state of every worker.

What other supervisors of the same study train is not followed here; the number of trials is right again with every fresh
worker.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

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
    StepDone,
    StudyLoaded,
    TrialEnded,
    TrialReassigned,
    TrialStarted,
    Waiting,
    WorkerLost,
)
from search.study.config import hardly_learnt
from search.text import format_clock
from search.training.result import Outcome

MOST_ROWS = 8  # of workers that are shown
AWAY_SECONDS = 60.0  # between two lines that say that the database is unreachable


@dataclass
class Row:
    """The state of one worker."""

    trial: TrialStarted | None = None
    epoch: EpochDone | None = None  # the last one
    best_accuracy: float = 0.0  # of its epochs
    share_done: float = 0.0  # of the trial
    started: float = field(default_factory=time.monotonic)
    text: str = "starting"  # shown while there is no trial

    @property
    def name(self) -> str:
        """Name of the trial."""
        if self.trial is None:
            return "trial ?"
        if self.trial.contender is not None:
            return f"{self.trial.contender}, seed {(self.trial.repeat or 0) + 1}"
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

    def parts(self, is_int8: bool) -> list[str]:
        """The text of the worker's line, in parts.

        Args:
            is_int8: the study ranks by int8 accuracy, which is measured after the last epoch.
        """
        if self.trial is None:
            return [self.text]
        parts = [self.name, f"{self.trial.params:,} params"]
        if self.epoch:
            measure = "float accuracy" if is_int8 else "accuracy"
            return [*parts, f"epoch {self.epoch.epoch}/{self.epoch.epochs}, {measure} {self.epoch.val_accuracy:.2%}"]
        return [*parts, f"first epoch ({self.share_done:.0%} of the trial)"]


class RunView:
    """Follows the events of a run; without a terminal only the lines of finished trials are printed."""

    def __init__(self, console: Console, workers: int = 1) -> None:
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=True, auto_refresh=console.is_terminal)
        self.rows = {worker: Row() for worker in range(workers)}
        self.goal = self.trained = self.rejected = 0
        self.phase = ""  # what is done instead of the search: finals, their control
        self.classes = 2
        self.base: float | None = None
        self.best: tuple[float, int] | None = None  # accuracy, number of the trial
        self.device = ""
        self.is_int8 = False  # ranked by int8 accuracy
        self.away = -AWAY_SECONDS  # when it was last said
        self.seconds: list[float] = []  # that each trained candidate took

    def __enter__(self) -> RunView:
        if self.console.is_terminal:
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
                row.best_accuracy = max(event.val_accuracy, row.best_accuracy)
            case TrialEnded():
                self._end(event, row)
            case Waiting():
                row.trial, row.text = None, "waits for others"
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
                row.trial, row.text = None, "writing the winner and the report"
                if self.best:
                    self._warn_near_chance(self.best[0], "The best candidate")
        if self.console.is_terminal:
            self.live.update(self._lines())

    # --- events ---

    def _device(self, event: DeviceReady) -> None:
        self.is_int8 = event.rank_by == "int8"
        if event.text != self.device:  # every fresh worker reports it again
            self.device = event.text
            self._say(escape(f"{event.text[0].upper()}{event.text[1:]}."))
            self._say(escape(event.data))

    def _base(self, event: BaseKnown) -> None:
        if event.accuracy != self.base:
            self.base, self.classes = event.accuracy, event.classes
            self._warn_near_chance(event.accuracy, "The base")

    def _warn_near_chance(self, accuracy: float, subject: str) -> None:
        if hardly_learnt(accuracy, self.classes):
            self._say(
                f"[yellow]{subject} hardly learnt[/]: {accuracy:.2%}, and chance is {1 / self.classes:.1%}, so comparisons "
                "say little; see the logs in the run folder. More --images or --epochs, or another --seed, need a new --out."
            )

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
            self._say(f"Found {self.trained} trained candidates, {self.rejected} rejected, {event.failed} failed; {rest}.")

    def _phase(self, event: PhaseStarted) -> None:
        if event.text != self.phase:
            self._say(escape(f"{event.text[0].upper()}{event.text[1:]}."))
            self.best, self.seconds, self.rejected = None, [], 0
        self.phase, self.goal, self.trained = event.text, event.goal, event.done

    def _end(self, event: TrialEnded, row: Row) -> None:
        if event.outcome == Outcome.REJECTED:
            self.rejected += 1
            return
        params = f"{row.trial.params:,} params" if row.trial else "? params"
        reason, seconds = escape(event.reason or ""), event.seconds or 0.0
        if event.outcome == Outcome.PRUNED_AT_RUNG:
            self.trained += 1
            self.seconds.append(seconds)
            self._say(f"{row.name}: {params}, pruned, {reason}  [dim]{self.trained}/{self.goal}[/]")
        elif event.outcome != Outcome.TRAINED:
            self._say(f"{row.name}: [red]{event.outcome.replace('_', ' ')}[/], {reason}")
        else:
            best = row.best_accuracy if event.best_val_accuracy is None else event.best_val_accuracy
            kind = "" if event.float_val_accuracy is None else f" in int8, {event.float_val_accuracy:.2%} in float"
            if not row.is_reference:
                self.trained += 1
                self.seconds.append(seconds)
                if not self.phase:
                    self.best = max(self.best or (0.0, -1), (best, event.number), key=lambda pair: pair[0])
            against = f", {100 * (best - self.base):+.2f} against the base" if self.base and not row.is_reference else ""
            tally = "" if self.phase else f", {self.rejected} rejected"
            count = "" if row.is_reference else f"  [dim]{self.trained}/{self.goal}{tally}[/]"
            compiling = f"{event.compile_seconds or 0.0:.0f} s to compile"
            self._say(f"{row.name}: {params}, best {best:.2%}{kind}{against}, {seconds:.0f} s ({compiling}){count}")
        row.trial, row.text = None, "begins the next"

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
            if not row.trial:
                idle = (
                    row.text if row.text.startswith("w") else f"{self.trained}/{self.goal} trained, {self.rejected} rejected"
                )
                return Text(self.phase or idle, style="dim")
            return _line([*row.parts(self.is_int8), *self._whole()])
        shown = [
            _line([f"  {worker}", *row.parts(self.is_int8)], dim=not row.trial)
            for worker, row in enumerate(rows[:MOST_ROWS])
        ]
        more = [_line([f"  and {len(rows) - MOST_ROWS} more workers"], dim=True)] if len(rows) > MOST_ROWS else []
        return Group(*shown, *more, _line([*([self.phase] if self.phase else []), *self._whole()]))

    def _whole(self) -> list[str]:
        """Text on the run as a whole."""
        parts = []
        if self.best:
            gap = f" ({100 * (self.best[0] - self.base):+.2f} against the base)" if self.base else ""
            parts.append(f"best so far {self.best[0]:.2%}{' in int8' if self.is_int8 else ''}{gap}")
        parts.append(f"{self.trained}/{self.goal} trained")
        if (left := self._seconds_left()) is not None:
            parts.append(f"about {format_clock(left)} left")
        return parts

    def _seconds_left(self) -> float | None:
        """Estimated share of the whole run, from the trials so far."""
        at_work = [row for row in self.rows.values() if row.trial]
        rests = [row.seconds_left for row in at_work if row.seconds_left is not None]
        if at_work and all(row.is_reference for row in at_work):
            return max(rests, default=None)
        first = next((row for row in at_work if row.seconds_left is not None), None)
        begun = None if first is None else time.monotonic() - first.started + (first.seconds_left or 0.0)
        each = sum(self.seconds) / len(self.seconds) if self.seconds else begun
        if each is None:
            return None
        to_come = max(self.goal - self.trained - len(at_work), 0)
        return max(rests, default=each) + each * to_come / len(self.rows)


def _line(parts: list[str], *, dim: bool = False) -> Text:
    return Text("  ".join(parts), no_wrap=True, overflow="ellipsis", style="dim" if dim else "")
