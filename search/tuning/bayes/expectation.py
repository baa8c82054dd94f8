"""Accuracy to expect of another training of a network, from all trainings of its study.

The best of many scores is high by chance too: over 37 real searches of 30 trainings the winner's score was 1.4 points above
its mean on fresh seeds, what is computed here 0.3 (`benchmarks/real_searches.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from search.study.config import StudyConfig
from search.tuning.bayes.candidates import Candidates
from search.tuning.bayes.observations import observe
from search.tuning.bayes.sampler import NORMAL_95, STARTUP
from search.tuning.bayes.surrogate import Scaling, Surrogate
from search.tuning.candidate import DataFacts


@dataclass(frozen=True)
class Expectation:
    """Accuracy of another training: its mean and 95 % interval, fractions.

    Attributes:
        trainings: number of those that it rests on.
    """

    mean: float
    low: float
    high: float
    trainings: int


def expect(config: StudyConfig, data: DataFacts, trials: Sequence[FrozenTrial], number: int) -> Expectation | None:
    """Expectation for the network of a trained trial; None where the trials tell nothing about each other.

    Args:
        trials: of the study.
        number: of the trial.
    """
    observations = observe(config, trials, own=None)
    trained = sum(observation.is_final for observation in observations.ended)
    if trained < STARTUP:
        return None
    candidates = Candidates(config, data, random.Random(0), {})
    points = [candidates.observed(observation.values) for observation in observations.ended]
    kept = [index for index, point in enumerate(points) if point is not None]
    features = [point.features for point in points if point is not None]
    numbers = [observations.ended[index].number for index in kept]
    if number not in numbers:
        return None
    scaling = Scaling.of(features)
    x = scaling(features)
    surrogate = Surrogate(scaling, x, observations.accuracies[kept], observations.variances[kept])
    if not surrogate.is_informative:
        return None
    row = numbers.index(number)
    prediction = surrogate.predict(x[row : row + 1])
    mean, half = float(prediction.mean[0]), NORMAL_95 * math.hypot(float(prediction.deviation[0]), surrogate.noise)
    return Expectation(mean, max(mean - half, 0.0), min(mean + half, 1.0), trained)
