"""Importance of each choice for reaching the best tenth: Optuna's PED-ANOVA with a permutation test.

With few trials PED-ANOVA assigns large values to choices without effect. The accuracies are therefore shuffled among the
trials k times, which removes every effect and keeps the choices. A choice is significant if its value exceeds all of its own
values from the shuffles; a choice without effect does so with probability 1 / (k + 1).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

FEWEST = 20  # fewest trained trials, of which two are the best tenth
STEADY = 50  # the best tenth has five trials, which Optuna calls stable
SHUFFLES = 49
REPEAT = "repeat"  # the seed of a grid cell is not a choice
WORK = 20_000  # most trials times shuffles: about 2 seconds


@dataclass(frozen=True)
class Importance:
    """Importance of one choice, as a share of the importance of all choices."""

    name: str
    share: float
    chance: float  # largest value from a shuffle

    @property
    def stands_out(self) -> bool:
        return self.share > self.chance


def trained(study: optuna.Study) -> int:
    """Number of trials that importance is computed from: those trained in full."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def shuffles(n_trials: int) -> int:
    """Number of shuffles for this number of trials."""
    return max(9, min(SHUFFLES, WORK // n_trials))


def importances(study: optuna.Study, seed: int = 0) -> list[Importance]:
    """Importances of all choices, largest first; empty if trials are too few or nothing is searched."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = sorted({name for trial in trials for name in trial.params} - {REPEAT})
    if len(trials) < FEWEST or not names:
        return []
    numbers, accuracies = [trial.number for trial in trials], [trial.values[0] for trial in trials]
    evaluated, generator = _evaluated(study, names, dict(zip(numbers, accuracies, strict=True))), random.Random(seed)
    shuffled = []
    for _ in range(shuffles(len(trials))):
        generator.shuffle(accuracies)
        shuffled.append(_evaluated(study, names, dict(zip(numbers, accuracies, strict=True))))
    whole = sum(evaluated.values()) or 1.0
    return [Importance(name, value / whole, max(one[name] for one in shuffled) / whole) for name, value in evaluated.items()]


def _evaluated(study: optuna.Study, names: list[str], accuracies: Mapping[int, float]) -> dict[str, float]:
    """PED-ANOVA of the trials with these accuracies (by trial number), largest first."""
    from optuna.importance import PedAnovaImportanceEvaluator  # imports scikit-learn, which takes a second

    evaluator = PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warns that a target is minimised, which is intended
        return evaluator.evaluate(study, names, target=lambda trial: -accuracies[trial.number])
