"""Expected growth of a front against its mean over draws."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from search.tuning.bayes.acquisition import Front
from search.tuning.bayes.surrogate import Prediction


def cost(params: int) -> tuple[float, ...]:
    return (params,)


def area(points: list[tuple[int, float]], floor: float, low: float, high: float) -> float:
    """Mean over log2 of the parameters of the best accuracy up to there."""
    grid = np.linspace(low, high, 4_001)[:-1] + (high - low) / 8_000
    best = np.full(len(grid), floor)
    for params, accuracy in points:
        best = np.where(grid >= math.log2(params + 1), np.maximum(best, accuracy), best)
    return float(best.mean())


@pytest.mark.parametrize(("params", "mean"), [(1_200, 0.42), (3_000, 0.55), (6_000, 0.50), (800, 0.30)])
def test_the_expected_growth_of_a_front_equals_its_mean_over_draws(params: int, mean: float) -> None:
    known = [(1_000, 0.40), (2_000, 0.50), (4_000, 0.48), (8_000, 0.60)]
    costs, accuracies = [cost(size) for size, _ in known], [accuracy for _, accuracy in known]
    pool = [cost(500), cost(10_000)]
    front = Front.of(costs, accuracies, pool, random.Random(0))
    grown = front.expected_growth([cost(params)], Prediction(np.array([mean]), np.array([0.05])))[0]
    low, high = math.log2(501), math.log2(10_001)
    draws = mean + 0.05 * np.random.default_rng(0).normal(size=400)
    before = area(known, 0.40, low, high)
    expected = np.mean([area([*known, (params, float(draw))], 0.40, low, high) - before for draw in draws])
    assert grown == pytest.approx(expected, abs=0.0015)


def test_a_proposal_weighs_several_costs_anew() -> None:
    costs, pool = [(1_000, 10_000), (2_000, 20_000)], [(4_000, 40_000)]
    fronts = [Front.of(costs, [0.4, 0.5], pool, random.Random(seed)) for seed in range(5)]
    assert all(sum(front.weights) == pytest.approx(1) for front in fronts)
    assert len({front.weights for front in fronts}) == 5
