"""Limits of a study and of one trial, and the error that a study's limit raises inside a trial."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from search.errors import StudyStopped
from search.study.pareto import Costs, dominates
from search.study.records import Record, ranked
from search.study.tables import StopConfig
from search.training.result import Outcome, TrialOver

FORESEEN = 3  # proposals in a row whose expected gain must be below the limit


class LimitReached(StudyStopped):
    """Raised inside a trial when a limit of the study is reached; the trial is requeued."""


class Limits:
    """The [stop] table of a study, checked by one worker.

    Args:
        seconds_left: of the run that the worker belongs to, None without a limit.
        metrics: costs that the study minimises beside accuracy.
    """

    def __init__(self, stop: StopConfig, seconds_left: float | None, metrics: Sequence[str] = ()) -> None:
        self._stop, self._metrics = stop, metrics
        self._deadline = None if seconds_left is None else time.monotonic() + seconds_left
        self._device_seconds = 0.0  # of all trials that have ended

    def reached(self, candidates: list[Record], trials: Iterable[Record]) -> str | None:
        """The limit that keeps a further candidate from starting; None if there is none.

        Args:
            trials: every trial whose training counts as device time.
        """
        stop, best = self._stop, ranked(candidates)
        self.update(trials)
        if stop.accuracy is not None and best and (best[0].best_val_accuracy or 0.0) >= stop.accuracy:
            return f"{stop.accuracy:.2%} was reached"
        if stop.patience is not None and trials_since_best(candidates, self._metrics) >= stop.patience:
            subject = "no candidate joined the front" if self._metrics else "no better candidate came"
            return f"{subject} in {stop.patience} trained trials"
        if stop.expected_gain is not None and _largest_expected_gain(candidates) < stop.expected_gain:
            points = f"{100 * stop.expected_gain:g} points"
            return f"each of the last {FORESEEN} trials was expected to gain less than {points}"
        return self._time_limit(0.0)

    def update(self, trials: Iterable[Record]) -> None:
        """Set the device time used by all trials that have ended; that of adopted ones was another run's."""
        self._device_seconds = sum(record.seconds or 0.0 for record in trials if record.adopted is None)

    def check_study(self, trial_seconds: float) -> None:
        """Check the study's time limits inside a trial that has run for so long.

        Raises:
            LimitReached: one is reached.
        """
        if reason := self._time_limit(trial_seconds):
            raise LimitReached(reason)

    def check_trial(self, trial_seconds: float) -> None:
        """Check the time limit of one trial.

        Raises:
            TrialOver: it is reached.
        """
        minutes = self._stop.trial_minutes
        if minutes is not None and trial_seconds >= 60 * minutes:
            raise TrialOver(Outcome.TIMED_OUT, f"took longer than {minutes:g} minutes")

    def _time_limit(self, trial_seconds: float) -> str | None:
        stop = self._stop
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"the run had its {stop.hours:g} hours"
        if stop.device_hours is not None and self._device_seconds + trial_seconds >= 3600 * stop.device_hours:
            return f"the study had its {stop.device_hours:g} device-hours"
        return None


def _largest_expected_gain(candidates: Sequence[Record]) -> float:
    """Largest gain that was expected of the last FORESEEN counted candidates; infinite if one of them has none."""
    counted = sorted((record for record in candidates if record.is_counted), key=lambda record: record.number)
    last = [record.proposal.get("expected_gain", math.inf) for record in counted[-FORESEEN:]]
    return max(last) if len(last) == FORESEEN else math.inf


def trials_since_best(candidates: Sequence[Record], metrics: Sequence[str] = ()) -> int:
    """Number of counted candidates after the best one or, with cost metrics, after the last that joined the front.

    Adopted candidates may be the best one, or join the front.
    """
    front, count = list[tuple[Costs, float]](), 0
    for record in sorted(candidates, key=lambda record: record.number):
        if not record.is_counted and record.adopted is None:
            continue
        cost, accuracy = tuple(record.cost(name) or 0 for name in metrics), record.best_val_accuracy or 0.0
        is_dominated = any(dominates(*point, cost, accuracy) for point in front)
        if record.outcome == Outcome.TRAINED and accuracy and not is_dominated:
            front = [point for point in front if not dominates(cost, accuracy, *point)] + [(cost, accuracy)]
            count = 0
        else:
            count += record.is_counted
    return count
