"""The search of a run as one of its workers sees it: what it may train next, beside what others train.

One worker trains the base. Others do not wait for it: they go on with candidates, which are compared with it when it is
there. A worker without room for another trial waits, as one of those at work may fail and leave its room; it ends when the
study has its trials, or when nothing more may be begun and nobody is at work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from objective import Emit, Task
from search.runner.job import StudyStopped
from search.runner.references import train_reference
from search.runner.trial import run_candidate, tidy
from search.storage.claims import Claims
from search.storage.recovery import recover
from search.study import survey as plan
from search.study.records import Record, base_accuracy, progress, ranked, records
from search.study.references import Reference
from search.study.run import Run, Studies
from search.training.result import Outcome
from search.tuning.sampler import Exhausted
from search.tuning.stopping import Enough, Limits

WAIT_SECONDS = 1.0  # between two looks at what others do

Redraw = Callable[[Run, Studies], None]


class Search:
    """One worker's part in a search.

    Args:
        redraw: called after each trained trial, to bring the study's own notes and figures up to date.
        opponents: the references to train.
    """

    def __init__(
        self, run: Run, studies: Studies, task: Task, claims: Claims, limits: Limits, redraw: Redraw,
        opponents: Sequence[Reference] = (),
    ) -> None:  # fmt: skip
        self.run, self.studies, self.task, self.claims, self.limits = run, studies, task, claims, limits
        self.redraw, self.opponents = redraw, opponents
        self.left = run.config.search.recycle_after  # trials until a fresh process goes on
        self.exhausted: Exhausted | None = None

    def references(self) -> str:
        """Train the references; how it ends."""
        try:
            while not self._train_opponents():
                wait(self.task.emit)
        except Enough as reached:
            return self._enough(f"{reached}")
        self.redraw(self.run, self.studies)
        return "done"

    def candidates(self) -> str:
        """Train the base and candidates until the study has its trials: "done", or "recycle".

        Raises:
            StudyStopped: nothing more can be trained.
        """
        try:
            settled = self._train_opponents()
            self.redraw(self.run, self.studies)
            while (end := self._round(settled)) is None:
                settled = settled or self._train_opponents()
            tidy(self.task, (self.studies.references, self.studies.candidates))
            return end
        except Enough as reached:
            return self._enough(f"{reached}")

    def _round(self, settled: bool) -> str | None:
        """Train a candidate, or wait for others; how the search ends, if it does."""
        recover(self.studies.candidates, self.run.folder)
        self._know_base()
        found = records(self.studies.candidates)
        is_complete = progress(found) >= self.run.config.trials
        reason = None if is_complete else self.limits.reached(found, [*found, *records(self.studies.references)])
        if not is_complete and not reason:
            if self.left <= 0:
                return "recycle"
            if self._train_candidate():
                return None
            found = records(self.studies.candidates)
        if settled and (is_complete or not any(record.outcome == Outcome.RUNNING for record in found)):
            if is_complete:
                return "done"
            if reason:
                return self._enough(reason)
            if self.exhausted:
                return self._no_more(self.exhausted)
        wait(self.task.emit)
        return None

    def _train_candidate(self) -> bool:
        """Train one, if there is room for it and something to train."""
        try:
            began = run_candidate(self.studies.candidates, self.task, self.claims, new=self.exhausted is None)
        except Exhausted as exhausted:  # others may still be at what is left, and leave it
            self.exhausted = exhausted
            return False
        if began:
            self.left -= 1
            self.redraw(self.run, self.studies)
        return began

    def _train_opponents(self) -> bool:
        """Train the references that nobody trains; whether all of them are settled."""
        settled = True
        for opponent in self.opponents:
            self.limits.count(_spent(self.studies))
            settled = train_reference(self.run, self.studies, opponent, self.task) and settled
        return settled

    def _know_base(self) -> None:
        accuracy = base_accuracy(self.run.config, records(self.studies.references))
        if accuracy is not None and accuracy != self.task.base_accuracy:
            self.task = replace(self.task, base_accuracy=accuracy)
            self.task.emit({"event": "base", "accuracy": accuracy, "classes": self.task.data.classes})

    def _enough(self, reason: str) -> str:
        return enough(self.studies, self.task.emit, reason)

    def _no_more(self, exhausted: Exhausted) -> str:
        """Nothing is left of the space, and nobody is at work on it."""
        if self.run.config.search.sampler == "grid":
            return self._enough("every cell of the grid was tried")
        least = plan.smallest(self.run.config.space, self.task.data.input_shape, self.task.data.classes)
        fewer = f", or ask for {done} trials" if (done := progress(records(self.studies.candidates))) else ""
        raise StudyStopped(
            f"{exhausted}; the smallest network of the space has {least:,}: raise the budget, widen the space{fewer}"
        )


def enough(studies: Studies, emit: Emit, reason: str) -> str:
    """The study ends here; without a trained candidate there is nothing to show for it.

    Raises:
        StudyStopped: there is none.
    """
    if not ranked(records(studies.candidates)):
        raise StudyStopped(
            f"{reason} before a candidate was trained; raise that limit in [stop], and the same command goes on"
        )
    emit({"event": "enough", "text": reason})
    return "done"


def wait(emit: Emit) -> None:
    """Let others go on for a moment; a sign of life."""
    emit({"event": "waiting"})
    time.sleep(WAIT_SECONDS)


def _spent(studies: Studies) -> list[Record]:
    return [*records(studies.candidates), *records(studies.references)]
