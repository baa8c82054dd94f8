"""Forecast of the final accuracy of a training from what it has reached at a rung."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

KNOWN = 3  # trials trained in full, from which on the accuracy at a rung is mapped by its own slope
GAIN_DEVIATION = 0.03  # of the gain from a rung to the end, before several trials show it
UNKNOWN_DEVIATION = 0.05  # of the final accuracy around that at the rung, before any trial was trained in full
LEAST_VARIANCE = 1e-6

Array = npt.NDArray[np.float64]
Pairs = Sequence[tuple[float, float]]  # accuracies (after some epochs, in the end)


def pairs_at(epoch: int, trials: Sequence[FrozenTrial]) -> Pairs:
    """(accuracy after `epoch` epochs, final accuracy) of the trials that were trained in full."""
    return [
        (trial.intermediate_values[epoch], trial.values[0])
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.values and epoch in trial.intermediate_values
    ]


def forecast(reached: npt.ArrayLike, pairs: Pairs) -> tuple[Array, Array]:
    """Mean and variance of the final accuracy of trainings that have reached these accuracies after some epochs.

    A line through other trainings, final accuracy over that after as many epochs; with fewer than KNOWN of them, their
    mean gain is added. Choice by the accuracy at the rung does not bias such a line, which is a function of it.
    """
    now = np.asarray(reached, float)
    if not pairs:
        return now, np.full(now.shape, UNKNOWN_DEVIATION**2)
    early, final = np.array(pairs).T
    if len(pairs) < KNOWN or early.std() < 1e-6:
        gains = final - early
        return now + gains.mean(), np.full(now.shape, max(gains.var(), GAIN_DEVIATION**2))
    centred = early - early.mean()
    ridge = len(pairs) * 0.02**2  # the slope is drawn towards 1 where the accuracies at the rung are alike
    slope = (centred @ (final - final.mean()) + ridge) / (centred @ centred + ridge)
    residuals = final - final.mean() - slope * centred
    spread = (residuals @ residuals + 0.02**2) / (len(pairs) - 1)
    distance = (now - early.mean()) ** 2 / (centred @ centred + ridge)
    variance = spread * (1 / len(pairs) + distance) + spread
    return final.mean() + slope * (now - early.mean()), np.maximum(variance, LEAST_VARIANCE)
