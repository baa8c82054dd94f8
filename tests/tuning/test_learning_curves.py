"""Forecasts of final accuracies from those at a rung."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from search.tuning.learning_curves import forecast, pairs_at

FULL = [(0.30, 0.50), (0.40, 0.58), (0.35, 0.54), (0.45, 0.62)]


def test_a_pruned_trial_is_forecast_by_the_line_through_the_trials_in_full() -> None:
    mean, variance = forecast([0.25, 0.10], FULL)
    assert mean == pytest.approx([0.46, 0.34], abs=0.011)
    assert 0 < variance[0] < 0.03**2
    assert variance[1] > variance[0]  # further from what was seen


def test_with_few_trials_in_full_their_gain_is_added() -> None:
    mean, variance = forecast(0.25, FULL[:1])
    assert (float(mean), float(variance)) == (pytest.approx(0.45), pytest.approx(0.03**2))
    mean, variance = forecast(0.25, [])
    assert (float(mean), float(variance)) == (0.25, pytest.approx(0.05**2))


def test_its_intervals_cover_what_comes() -> None:
    """95 % intervals of normal data on a line of slope 0.8: between 90 and 99 % of 400, from 6 trials in full each."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        early = generator.normal(0.4, 0.05, 7)
        final = 0.3 + 0.8 * early + generator.normal(0, 0.015, 7)
        mean, variance = forecast(early[-1], list(zip(early[:-1], final[:-1], strict=True)))
        covered += abs(final[-1] - mean) < 1.96 * np.sqrt(variance)
    assert 0.90 < covered / 400 < 0.99


def test_pairs_are_of_trials_trained_in_full_that_reported_that_epoch() -> None:
    curve = {1: 0.2, 2: 0.3}
    trials = [
        create_trial(value=0.4, intermediate_values=curve),
        create_trial(value=0.5, intermediate_values={1: 0.25}),
        create_trial(state=TrialState.PRUNED, intermediate_values=curve),
    ]
    assert pairs_at(2, trials) == [(0.3, 0.4)]
    assert pairs_at(1, trials) == [(0.2, 0.4), (0.25, 0.5)]
