"""When a study ends before it has its trials, and a trial before its epochs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from search.study.config import StopConfig
from search.study.pareto import Costs, dominates
from search.study.records import COUNTED, Record, ranked
from search.training.result import Outcome


class Enough(BaseException):
    """A limit of the study was reached inside a trial, which stays as it is, to be gone on with by a later run.

    No `Exception`: Optuna would close the trial as failed.
    """


class Limits:
    """The [stop] table of a study, watched by one worker.

    Args:
        seconds_left: of the run that the worker belongs to, None without a limit.
        prices: what the study minimises beside accuracy.
    """

    def __init__(self, stop: StopConfig, seconds_left: float | None, prices: Sequence[str] = ()) -> None:
        self._stop, self._prices = stop, prices
        self._deadline = None if seconds_left is None else time.monotonic() + seconds_left
        self._device_seconds = 0.0  # spent by trials that have ended

    def reached(self, candidates: list[Record], spent: Iterable[Record]) -> str | None:
        """Why no further candidate is begun, None where one is.

        Args:
            spent: every trial whose training counts as device time.
        """
        stop, found = self._stop, ranked(candidates)
        self.count(spent)
        if stop.accuracy is not None and found and (found[0].best_val_accuracy or 0.0) >= stop.accuracy:
            return f"{stop.accuracy:.2%} was reached"
        if stop.patience is not None and since_the_best(candidates, self._prices) >= stop.patience:
            what = "no candidate joined the front" if self._prices else "no better candidate came"
            return f"{what} in {stop.patience} trained trials"
        return self._spent(0.0)

    def count(self, spent: Iterable[Record]) -> None:
        """Take in what all trials that have ended took."""
        self._device_seconds = sum(record.seconds or 0.0 for record in spent)

    def check(self, trial_seconds: float) -> None:
        """Called inside a trial.

        Raises:
            Enough: a limit of the study is reached.
        """
        if reason := self._spent(trial_seconds):
            raise Enough(reason)

    def trial_is_over(self, trial_seconds: float) -> str | None:
        """Why the trial ends here, None where it goes on."""
        minutes = self._stop.trial_minutes
        return None if minutes is None or trial_seconds < 60 * minutes else f"took longer than {minutes:g} minutes"

    def _spent(self, trial_seconds: float) -> str | None:
        stop = self._stop
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"the run had its {stop.hours:g} hours"
        if stop.device_hours is not None and self._device_seconds + trial_seconds >= 3600 * stop.device_hours:
            return f"the study had its {stop.device_hours:g} device-hours"
        return None


def since_the_best(candidates: Sequence[Record], prices: Sequence[str] = ()) -> int:
    """How many candidates came to a verdict after the best of all or, with prices, after the last that joined the front."""
    front, count = list[tuple[Costs, float]](), 0
    for record in sorted(candidates, key=lambda one: one.number):
        if record.outcome not in COUNTED:
            continue
        cost, accuracy = tuple(record.cost(name) or 0 for name in prices), record.best_val_accuracy or 0.0
        if record.outcome == Outcome.TRAINED and accuracy and not any(dominates(*one, cost, accuracy) for one in front):
            front = [one for one in front if not dominates(cost, accuracy, *one)] + [(cost, accuracy)]
            count = 0
        else:
            count += 1
    return count
