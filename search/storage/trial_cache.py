"""Trials of the studies that a process has read: finished ones are read once, as they never change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from search.storage.optuna_internals import trial_id_of

ReadTrials = Callable[[Collection[int], int], list[FrozenTrial]]  # by id: those listed, and all above a number


@dataclass
class _Study:
    by_number: dict[int, FrozenTrial] = field(default_factory=dict)
    unfinished: set[int] = field(default_factory=set)  # ids
    newest: int = -1  # highest id that was read


class TrialCache:
    """The trials of each study; may be shared by threads."""

    def __init__(self) -> None:
        self._studies: dict[int, _Study] = {}
        self._lock = threading.Lock()

    def updated(self, study_id: int, read: ReadTrials) -> list[FrozenTrial]:
        """All trials of a study by number, after reading those that are new or were not finished."""
        with self._lock:
            study = self._studies.setdefault(study_id, _Study())
            for trial in read(study.unfinished, study.newest):
                study.by_number[trial.number] = trial
                study.newest = max(study.newest, trial_id_of(trial))
                if trial.state.is_finished():
                    study.unfinished.discard(trial_id_of(trial))
                else:
                    study.unfinished.add(trial_id_of(trial))
            return [study.by_number[number] for number in sorted(study.by_number)]
