"""Pruning at a study's rungs by the gain that is expected of a training, against that of the candidates so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.storage.attributes import OUTCOME
from search.study.config import StudyConfig
from search.training.result import Outcome
from search.tuning.bayes.acquisition import expected_improvement
from search.tuning.bayes.surrogate import Array, Prediction
from search.tuning.learning_curves import Pairs, forecast, pairs_at


def make_pruner(config: StudyConfig) -> optuna.pruners.BasePruner:
    """The pruner of a study: none without rungs."""
    if config.search.rungs is None:
        return optuna.pruners.NopPruner()
    return RungPruner(config.rungs)


class Gains(NamedTuple):
    """Expected improvements over the best final accuracy so far, fractions: of a training, and of the others on average."""

    own: float
    usual: float


def gains_words(pruner: optuna.pruners.BasePruner) -> str:
    """The gains by which a pruner has just pruned a trial, in points of accuracy, to be read after the reason."""
    if not isinstance(pruner, RungPruner) or pruner.gains is None:
        return ""
    own, usual = (100 * gain for gain in pruner.gains)
    return f": {own:.2g} points expected over the best, {usual:.2g} on average"


class RungPruner(optuna.pruners.BasePruner):
    """Continues a training at a rung if more gain is expected of it than of the candidates so far on average.

    The gain is the expected improvement of the final accuracy over the best one so far. Final accuracies are forecast from
    those at the rung, by a line through the trials trained in full; until there is one, every trial continues. The mean gain
    of all candidates that have reached the first rung stands for that of a new network. So candidates are compared by what
    they may gain and not by rank, as in successive halving (Jamieson and Talwalkar, 2016): the first trials are no
    yardstick, and one that may still win is not pruned for being second. An interrupted trial is left out, as its retry
    counts.

    Args:
        rungs: epochs after which a trial may be pruned, ascending.

    Attributes:
        gains: those that decided last; None before the first.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self._rungs = rungs
        self.gains: Gains | None = None

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """True if the trial, which has just reported the last epoch of a rung, is pruned there."""
        rung = max(trial.intermediate_values, default=0)
        if rung not in self._rungs:
            return False
        others = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and other.user_attrs.get(OUTCOME) != Outcome.INTERRUPTED
        ]
        pairs, first = pairs_at(rung, others), self._rungs[0]
        at_first = [other.intermediate_values[first] for other in others if first in other.intermediate_values]
        if not pairs or not at_first:
            return False
        best = max(other.values[0] for other in others if other.state == TrialState.COMPLETE and other.values)
        own = _expected_gains([trial.intermediate_values[rung]], pairs, best).item()
        usual = _expected_gains(at_first, pairs_at(first, others), best).mean().item()
        self.gains = Gains(own, usual)
        return bool(own <= 0 or own < usual)


def _expected_gains(reached: Sequence[float], pairs: Pairs, best: float) -> Array:
    """Expected improvement over `best` of trainings that have reached these accuracies."""
    mean, variance = forecast(reached, pairs)
    return expected_improvement(Prediction(mean, np.sqrt(variance)), best)
