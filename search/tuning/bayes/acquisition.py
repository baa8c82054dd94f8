"""Value of a candidate before it is trained: expected improvement of the accuracy, or of the front beside costs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.tuning.bayes.surrogate import Array, Prediction

Costs = Sequence[float]


def expected_improvement(prediction: Prediction, best: float | Array) -> Array:
    """Expected improvement over `best` (Jones, Schonlau and Welch, 1998), in units of accuracy; shape as the prediction."""
    from scipy.special import ndtr

    z = (prediction.mean - best) / prediction.deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    improvement: Array = prediction.deviation * (z * ndtr(z) + density)
    return np.maximum(improvement, 0.0)


@dataclass(frozen=True)
class Front:
    """Expected growth of the area under a front, accuracy over the logarithm of a cost that is known exactly.

    With several metrics a proposal takes one random weighting of them, as in ParEGO (Knowles, 2006).

    Costs are given as one value for each metric that the study minimises.

    Attributes:
        weights: of the metrics.
        low, high: of the weighted cost over which the area extends.
        steps: costs of the front, ascending, each with the accuracy that is reached up to it.
        floor: accuracy below the front's first point.
    """

    weights: tuple[float, ...]
    low: float
    high: float
    steps: tuple[tuple[float, float], ...]
    floor: float

    @classmethod
    def of(
        cls,
        costs: Sequence[Costs],
        accuracies: Sequence[float],
        pool: Sequence[Costs],
        generator: random.Random,
    ) -> Front:
        """The front of observed networks.

        Args:
            accuracies: posterior means of the observed networks.
            pool: candidates, which bound the costs together with the observed networks.
        """
        shares = [generator.expovariate(1.0) for _ in costs[0]]
        weights = tuple(share / sum(shares) for share in shares)
        weighted = [_weighted(cost, weights) for cost in costs]
        every = weighted + [_weighted(cost, weights) for cost in pool]
        steps = list[tuple[float, float]]()
        for cost, accuracy in sorted(zip(weighted, accuracies, strict=True)):
            if not steps or accuracy > steps[-1][1]:
                steps.append((cost, accuracy))
        return cls(weights, min(every), max(every), tuple(steps), min(accuracies))

    def expected_growth(self, costs: Sequence[Costs], prediction: Prediction) -> Array:
        """Expected growth of the mean accuracy over all admitted costs: expected improvement over each step of the front.

        A candidate can raise the front from its own cost on only.
        """
        own = np.array([_weighted(cost, self.weights) for cost in costs])
        starts = [self.low, *(cost for cost, _ in self.steps)]
        levels = [self.floor, *(accuracy for _, accuracy in self.steps)]
        ends = [*starts[1:], self.high]
        growth = np.zeros(len(own))
        for start, end, level in zip(starts, ends, levels, strict=True):
            length = np.maximum(end - np.maximum(start, own), 0.0)
            growth += length * expected_improvement(prediction, level)
        return growth / max(self.high - self.low, 1e-9)


def _weighted(costs: Costs, weights: Sequence[float]) -> float:
    return sum(weight * math.log2(cost + 1) for cost, weight in zip(costs, weights, strict=True))
