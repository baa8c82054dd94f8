"""Successive halving at a study's rungs, by Optuna's own pruner."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial

from search.storage.attributes import OUTCOME
from search.study.config import Rungs
from search.training.result import Outcome


class RungPruner(optuna.pruners.SuccessiveHalvingPruner):
    """Optuna's asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020).

    At each rung about one in `factor` of the candidates that came so far goes on. A trial that was interrupted and is there
    again as a retry counts once.
    """

    def __init__(self, rungs: Rungs) -> None:
        super().__init__(min_resource=rungs.first, reduction_factor=rungs.factor)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial, which has just reported a rung's last epoch, ends there."""
        return super().prune(_WithoutInterrupted(study), trial)  # type: ignore[arg-type]


class _WithoutInterrupted:
    """The part of a study that the pruner looks at."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._storage = study._storage
        self.direction = study.direction

    def get_trials(self, deepcopy: bool = True) -> list[Any]:
        trials = self._study.get_trials(deepcopy=deepcopy)
        return [trial for trial in trials if trial.user_attrs.get(OUTCOME) != Outcome.INTERRUPTED]
