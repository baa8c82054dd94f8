"""Successive halving at a study's rungs, by Optuna's own pruner."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial

from search.storage.attributes import OUTCOME
from search.storage.optuna_internals import StudyView
from search.study.tables import Rungs
from search.training.result import Outcome


class RungPruner(optuna.pruners.SuccessiveHalvingPruner):
    """Optuna's asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020).

    At each rung about one in `factor` of the candidates that have reached it continues. An interrupted trial is left out, as
    its retry counts.
    """

    def __init__(self, rungs: Rungs) -> None:
        super().__init__(min_resource=rungs.first, reduction_factor=rungs.factor)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """True if the trial, which has just reported the last epoch of a rung, is pruned there."""
        return super().prune(StudyView(study, _without_interrupted), trial)  # type: ignore[arg-type]


def _without_interrupted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.user_attrs.get(OUTCOME) != Outcome.INTERRUPTED]
