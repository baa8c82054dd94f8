"""How much each choice matters for being among the best tenth: Optuna's PED-ANOVA, beside what chance alone gives.

Of few trials PED-ANOVA gives large figures to choices that do nothing. So the accuracies are shuffled among the trials k
times, which leaves the choices as they were and nothing for them to do. A choice stands out where it is above all of its own
figures from the shuffles; one that does nothing does so with a chance of 1 in k + 1 (a permutation test).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

FEWEST = 20  # trained trials, of which two are the best tenth
STEADY = 50  # from which on Optuna calls it stable: five are
SHUFFLES = 49
REPEAT = "repeat"  # the seed of a grid's cell, which is no choice
WORK = 20_000  # trials times shuffles, at most: about 2 seconds


@dataclass(frozen=True)
class Importance:
    """Of one choice, as a share of that of all choices."""

    name: str
    share: float
    chance: float  # the most that a shuffle gave it

    @property
    def stands_out(self) -> bool:
        return self.share > self.chance


def trained(study: optuna.Study) -> int:
    """How many trials it can be told from: those that were trained in full."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def shuffles(n_trials: int) -> int:
    """How often the accuracies of so many trials are shuffled."""
    return max(9, min(SHUFFLES, WORK // n_trials))


def importances(study: optuna.Study, seed: int = 0) -> list[Importance]:
    """The choices of a study, the most important first; none where the trials are too few, or nothing is chosen."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = sorted({name for trial in trials for name in trial.params} - {REPEAT})
    if len(trials) < FEWEST or not names:
        return []
    numbers, accuracies = [trial.number for trial in trials], [trial.values[0] for trial in trials]
    found, generator = _evaluated(study, names, dict(zip(numbers, accuracies, strict=True))), random.Random(seed)
    shuffled = []
    for _ in range(shuffles(len(trials))):
        generator.shuffle(accuracies)
        shuffled.append(_evaluated(study, names, dict(zip(numbers, accuracies, strict=True))))
    whole = sum(found.values()) or 1.0
    return [Importance(name, value / whole, max(one[name] for one in shuffled) / whole) for name, value in found.items()]


def _evaluated(study: optuna.Study, names: list[str], accuracies: Mapping[int, float]) -> dict[str, float]:
    """PED-ANOVA of the study's trials with these accuracies, by number; the most important first."""
    from optuna.importance import PedAnovaImportanceEvaluator  # with scikit-learn, a second

    evaluator = PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a target is to be minimised, which it is
        return evaluator.evaluate(study, names, target=lambda trial: -accuracies[trial.number])
