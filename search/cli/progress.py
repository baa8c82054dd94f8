"""A run as it goes: a line for each trial that has ended, and on a terminal what every worker is at.

What other supervisors of the same study train is not followed here; the number of trials is right again with every fresh
worker.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from search.study.config import hardly_learnt
from search.text import format_clock

MOST_ROWS = 8  # of workers that are shown
AWAY_SECONDS = 60.0  # between two lines that say that the database is away

Event = dict[str, Any]


@dataclass
class Row:
    """What one worker is at."""

    trial: Event = field(default_factory=dict)
    epoch: Event = field(default_factory=dict)
    share_done: float = 0.0  # of the trial
    started: float = field(default_factory=time.monotonic)
    text: str = "starting"  # where it is at no trial

    @property
    def name(self) -> str:
        """The trial's, for people."""
        if "contender" in self.trial:
            return f"{self.trial['contender']}, seed {self.trial['repeat'] + 1}"
        return self.trial.get("reference") or f"trial {self.trial.get('number', '?')}"

    @property
    def seconds_left(self) -> float | None:
        """Of the trial."""
        spent = time.monotonic() - self.started
        return spent / self.share_done - spent if self.trial and self.share_done > 0.02 else None

    def parts(self) -> list[str]:
        """What is said of the trial."""
        if not self.trial:
            return [self.text]
        parts = [self.name, f"{self.trial['params']:,} params"]
        if self.epoch:
            return [*parts, f"epoch {self.epoch['epoch']}/{self.epoch['epochs']}, accuracy {self.epoch['val_accuracy']:.2%}"]
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
        self.away = -AWAY_SECONDS  # when it was last said
        self.seconds: list[float] = []  # that each trained candidate took

    def __enter__(self) -> RunView:
        if self.console.is_terminal:
            self.live.start()
            self.live.update(self._lines())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def show(self, event: Event) -> None:
        """Take one event of a worker in."""
        row = self.rows.setdefault(event.get("worker", 0), Row())
        event = event | {
            key: escape(event[key]) for key in ("data", "reason", "text") if event.get(key)
        }  # [/x] is no markup
        match event["event"]:
            case "device":
                self._device(event)
            case "reading":
                row.text = f"{event['done']:,} of {event['total']:,} images read"
            case "found":
                self._found(event)
            case "base":
                self._base(event)
            case "phase":
                self._phase(event)
            case "trial":
                self.rows[event.get("worker", 0)] = Row(event)
                self.rejected += event["refused"]
            case "step":
                row.share_done = event["step"] / event["steps"]
            case "epoch":
                top = max(event["val_accuracy"], row.epoch.get("top", 0.0))
                row.epoch = event | {"top": top}
            case "end":
                self._end(event, row)
            case "waiting":
                row.trial, row.text = {}, "waits for others"
            case "refused":
                row.trial = {}
                self._say(f"[yellow]Trial {event['number']} is another worker's now[/], as nothing was heard of this one.")
            case "away":
                self._away(event)
            case "lost":
                row.trial, row.text = {}, "starting"
                self._say(f"[red]The worker {event['reason']}[/]; another takes its place.")
            case "enough":
                self._say(f"[yellow]The study ends here[/]: {event['text']}.")
            case "finishing":
                row.trial, row.text = {}, "writing the winner and the report"
                if self.best:
                    self._warn_near_chance(self.best[0], "The best candidate")
        if self.console.is_terminal:
            self.live.update(self._lines())

    # --- events ---

    def _device(self, event: Event) -> None:
        if event["text"] != self.device:  # the same again of every other and every fresh worker
            self.device = event["text"]
            self._say(f"{event['text'][0].upper()}{event['text'][1:]}.")
            self._say(event["data"])

    def _base(self, event: Event) -> None:
        if event["accuracy"] != self.base:
            self.base, self.classes = event["accuracy"], event["classes"]
            self._warn_near_chance(event["accuracy"], "The base")

    def _warn_near_chance(self, accuracy: float, what: str) -> None:
        if hardly_learnt(accuracy, self.classes):
            self._say(
                f"[yellow]{what} hardly learnt[/]: {accuracy:.2%}, and chance is {1 / self.classes:.1%}, so comparisons say "
                "little; see the logs in the run folder. More --images or --epochs, or another --seed, need a new --out."
            )

    def _away(self, event: Event) -> None:
        if time.monotonic() - self.away > AWAY_SECONDS:
            self.away = time.monotonic()
            self._say(f"[yellow]The database is away[/] ({event['reason']}); what is told is kept until it is back.")

    def _found(self, event: Event) -> None:
        self.goal, first = event["trials"], not self.goal
        self.trained, self.rejected = event["done"], event["rejected"]
        self.best = tuple(event["best"]) if event["best"] else None
        if first and (self.trained or self.rejected or event["failed"]):
            rest = "nothing is left to train" if self.trained >= self.goal else f"resuming up to {self.goal}"
            self._say(
                f"Found {self.trained} trained candidates, {self.rejected} rejected, {event['failed']} failed; {rest}."
            )

    def _phase(self, event: Event) -> None:
        if event["text"] != self.phase:
            self._say(f"{event['text'][0].upper()}{event['text'][1:]}.")
            self.best, self.seconds, self.rejected = None, [], 0
        self.phase, self.goal, self.trained = event["text"], event["goal"], event["done"]

    def _end(self, event: Event, row: Row) -> None:
        number, outcome = event["number"], event["outcome"]
        if outcome == "rejected":
            self.rejected += 1
            return
        name, reference = row.name, row.trial.get("reference")
        if outcome == "pruned_at_rung":
            self.trained += 1
            self.seconds.append(event["seconds"])
            count = f"  [dim]{self.trained}/{self.goal}[/]"
            self._say(f"{name}: {row.trial['params']:,} params, pruned, {event['reason']}{count}")
        elif outcome != "trained":
            self._say(f"{name}: [red]{outcome.replace('_', ' ')}[/], {event['reason']}")
        else:
            top, seconds = row.epoch["top"], event["seconds"]
            if not reference:
                self.trained += 1
                self.seconds.append(seconds)
                if not self.phase:
                    self.best = max(self.best or (0.0, -1), (top, number), key=lambda pair: pair[0])
            against = f", {100 * (top - self.base):+.2f} against the base" if self.base and not reference else ""
            tally = "" if self.phase else f", {self.rejected} rejected"
            count = "" if reference else f"  [dim]{self.trained}/{self.goal}{tally}[/]"
            self._say(
                f"{name}: {row.trial['params']:,} params, best {top:.2%}{against}, {seconds:.0f} s "
                f"({event['compile_seconds']:.0f} s to compile){count}"
            )
        row.trial, row.text = {}, "begins the next"

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
            return _line([*row.parts(), *self._whole()])
        shown = [_line([f"  {worker}", *row.parts()], dim=not row.trial) for worker, row in enumerate(rows[:MOST_ROWS])]
        more = [_line([f"  and {len(rows) - MOST_ROWS} more workers"], dim=True)] if len(rows) > MOST_ROWS else []
        return Group(*shown, *more, _line([*([self.phase] if self.phase else []), *self._whole()]))

    def _whole(self) -> list[str]:
        """What is said of the whole run."""
        parts = []
        if self.best:
            gap = f" ({100 * (self.best[0] - self.base):+.2f} against the base)" if self.base else ""
            parts.append(f"best so far {self.best[0]:.2%}{gap}")
        parts.append(f"{self.trained}/{self.goal} trained")
        if (left := self._seconds_left()) is not None:
            parts.append(f"about {format_clock(left)} left")
        return parts

    def _seconds_left(self) -> float | None:
        """Of the whole run, as far as the trials so far tell."""
        at_work = [row for row in self.rows.values() if row.trial]
        rests = [row.seconds_left for row in at_work if row.seconds_left is not None]
        if at_work and all(row.trial.get("reference") for row in at_work):
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
