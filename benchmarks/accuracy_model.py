"""Accuracy of every point of the table's spaces: trees and neural networks fitted to the table of trainings.

    python benchmarks/accuracy_model.py        # cross-validated fit of every model, per space

The features are the sampled parameters as they are, those that the network does not use missing, and the resolved network
as a profile over its relative depth. The sampler under test uses a Gaussian process on summaries of the
network, so that neither the family of models nor the features are shared.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from ground_spaces import EPOCHS, IMAGES, SIDE, SPACES, candidate, study
from table import read_table

from search.budget.cost import compute_layer_cost
from search.networks.geometry import flatten
from search.spaces.domains import Choices, Value
from search.tuning.candidate import Candidate

PROFILE = (0.0, 0.25, 0.5, 0.75, 1.0)  # relative depths at which width, resolution and cost are described
FOLDS, REPEATED_FOLDS = 10, 1
BOOSTINGS, NETWORKS = 3, 5
MISSING, EXTREME = -5.0, 4.0

Row = dict[str, Any]
Predict = Callable[[Any], Any]  # features (n, d) to accuracies (n,)


@dataclass(frozen=True)
class AccuracyModel:
    """Accuracy after the table's epochs as a function of a candidate of one space."""

    space: str
    predict: Predict
    noise: float  # standard deviation between trainings of one network

    def accuracy(self, proposal: Candidate, values: Mapping[str, Value]) -> float:
        """Accuracy of this candidate without noise."""
        return float(self.predict(np.array([features(self.space, proposal, values)]))[0])


@cache
def accuracy_model(space: str) -> AccuracyModel:
    """The model of one space, fitted to all its networks."""
    rows = rows_of_space(space)
    x, y = data(space, rows)
    return AccuracyModel(space, ensemble(x, y), seed_deviation(rows))


@dataclass(frozen=True)
class LongModel:
    """Accuracy at the end of a long training from the true accuracy at its rung: a line, and a deviation of the network."""

    offset: float
    slope: float
    own_deviation: float
    noise: float  # of the final accuracy; the table holds no repeats of it, and half of that at the rung is assumed


@cache
def long_model(space: str) -> LongModel:
    """The line through the long trainings of one space, corrected for the noise of the accuracies at the rung."""
    rows = rows_of_space(space)
    at_rung, final = np.array([(row["long"][1], row["long"][-1]) for row in rows if row["long"]]).T
    noise = seed_deviation(rows)
    covariance = np.cov(at_rung, final)
    slope = covariance[0, 1] / max(covariance[0, 0] - noise**2, covariance[0, 0] / 4)
    own = covariance[1, 1] - slope * covariance[0, 1] - (noise / 2) ** 2
    return LongModel(
        float(final.mean() - slope * at_rung.mean()), float(slope), math.sqrt(max(own, (noise / 4) ** 2)), noise / 2
    )


def rows_of_space(space: str) -> list[Row]:
    """Networks of the table in one space."""
    return [row for row in read_table() if row["space"] == space]


def data(space: str, rows: Sequence[Row]) -> tuple[Any, Any]:
    """Features (n, d) and mean accuracies (n,) of rows."""
    x = np.array([features(space, candidate(space, row["values"]), row["values"]) for row in rows])
    return x, np.array([statistics.mean(row["accuracy"].values()) for row in rows])


def seed_deviation(rows: Sequence[Row]) -> float:
    """Pooled standard deviation between seeds within a network; a rung of a longer training is a seed of its own."""
    squares = degrees = 0.0
    for row in rows:
        scores = list(row["accuracy"].values()) + ([row["long"][1]] if row["long"] else [])
        if len(scores) > 1:
            squares += (len(scores) - 1) * statistics.variance(scores)
            degrees += len(scores) - 1
    return math.sqrt(squares / degrees)


def features(space: str, proposal: Candidate, values: Mapping[str, Value]) -> list[float]:
    """The parameters in use and the convolutions of a candidate; NaN where there is none."""
    config = study(space, 10**9)
    used = _used(space, values)
    numbers = []
    for name, domain in config.parameters.items():
        value = values[name] if used(name) else math.nan
        if isinstance(domain, Choices) and used(name):
            value = domain.values.index(value)
        numbers.append(math.log(value) if getattr(domain, "log", False) and used(name) else float(value))
    rows = [row for _, row in flatten(proposal.cost.resolved)]
    weighted = [row for row in rows if compute_layer_cost(row).macs][:-1]
    for share in PROFILE:
        row = weighted[round(share * (len(weighted) - 1))]
        numbers += [math.log2(row.output[-1]), math.log2(row.output[0]), math.log2(compute_layer_cost(row).macs)]
    recipe, cost = proposal.recipe, proposal.cost
    steps = IMAGES * EPOCHS / recipe.batch_size
    totals = [math.log2(cost.params), math.log2(cost.macs), len(weighted), math.log2(cost.largest_activation)]
    pace = [math.log2(recipe.learning_rate), math.log2(recipe.learning_rate * steps), float(recipe.optimizer == "sgd")]
    return [*numbers, *totals, *pace, math.log2(cost.receptive_field or SIDE)]


def _used(space: str, values: Mapping[str, Value]) -> Callable[[str], bool]:
    """True for a parameter that the network or the recipe depends on."""
    config = study(space, 10**9)
    depth = int(values["blocks"] if space == "pyramid" else values["stages"])

    def used(name: str) -> bool:
        base, _, number = name.rpartition("_")
        if number.isdigit() and int(number) > (int(values["pools"]) if "pool" in base else depth):
            return False
        if name.startswith("recipe.learning_rate."):
            return name.endswith(f".{values['recipe.optimizer']}")
        if name.startswith("dropout"):
            return "dropout" in str(values["order"])
        return name in config.parameters

    return used


# --- models ----------------------------------------------------------------------------------------------------------


def boosting(x: Any, y: Any) -> Predict:
    """Gradient boosting of shallow trees, averaged over a few seeds; missing values below every other."""
    from sklearn.ensemble import GradientBoostingRegressor

    settings = {"n_estimators": 300, "learning_rate": 0.05, "max_depth": 3, "min_samples_leaf": 4}
    settings |= {"subsample": 0.6, "max_features": 0.2}
    filled = np.nan_to_num(x, nan=MISSING)
    models = [GradientBoostingRegressor(random_state=seed, **settings).fit(filled, y) for seed in range(BOOSTINGS)]
    return lambda rows: np.mean([model.predict(np.nan_to_num(rows, nan=MISSING)) for model in models], axis=0)


def neural_networks(x: Any, y: Any) -> Predict:
    """Small regularised neural networks, averaged; a missing value is the mean of the others and a feature of its own."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    missing = np.isnan(x)
    means, can_miss = np.nan_to_num(np.nanmean(np.where(missing.all(axis=0), 0.0, x), axis=0)), missing.any(axis=0)

    def table(rows: Any) -> Any:
        absent = np.isnan(rows)
        return np.hstack([np.where(absent, means, rows), absent[:, can_miss]])

    known = table(x)
    middle, deviation = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-9)

    def scaled(rows: Any) -> Any:
        return np.clip((table(rows) - middle) / deviation, -EXTREME, EXTREME)

    offset, unit = y.mean(), y.std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is a setting
        models = [
            MLPRegressor(
                hidden_layer_sizes=(64, 32), alpha=1.0, max_iter=120, learning_rate_init=0.003, random_state=seed
            ).fit(scaled(x), (y - offset) / unit)
            for seed in range(NETWORKS)
        ]
    return lambda rows: offset + unit * np.mean([model.predict(scaled(rows)) for model in models], axis=0)


def ensemble(x: Any, y: Any) -> Predict:
    """Mean of boosting and neural networks."""
    parts = [boosting(x, y), neural_networks(x, y)]
    return lambda rows: np.mean([part(rows) for part in parts], axis=0)


def cross_validated(x: Any, y: Any, fit: Callable[[Any, Any], Predict]) -> dict[str, float]:
    """R2 and rank correlation of predictions for networks that the fit has not seen."""
    from scipy.stats import spearmanr

    r2, ranks, errors = [], [], []
    for repeat in range(REPEATED_FOLDS):
        order = np.random.default_rng(repeat).permutation(len(y))
        predicted = np.empty(len(y))
        for fold in range(FOLDS):
            left_out = order[fold::FOLDS]
            kept = np.setdiff1d(order, left_out)
            predicted[left_out] = fit(x[kept], y[kept])(x[left_out])
        r2.append(1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        ranks.append(spearmanr(y, predicted).statistic)
        errors.append(math.sqrt(((y - predicted) ** 2).mean()))
    return {"r2": float(np.mean(r2)), "spearman": float(np.mean(ranks)), "rmse": float(np.mean(errors))}


def about(space: str) -> dict[str, Any]:
    """Properties of the table and of the model of one space."""
    rows = rows_of_space(space)
    x, y = data(space, rows)
    noise = seed_deviation(rows)
    return {
        "networks": len(rows),
        "features": x.shape[1],
        "accuracy": {"mean": float(y.mean()), "sd": float(y.std(ddof=1)), "highest": float(y.max())},
        "seed_sd": noise,
        "largest_possible_r2": 1 - noise**2 / float(y.var(ddof=1)),
        "cross_validation": cross_validated(x, y, ensemble) | {"folds": FOLDS},
    }


def main() -> None:
    for space in SPACES:
        rows = rows_of_space(space)
        x, y = data(space, rows)
        noise = seed_deviation(rows)
        print(f"{space}: n {len(y)}, mean {y.mean():.3f}, sd {y.std(ddof=1):.4f}, best {y.max():.3f}, seed sd {noise:.4f}")
        print(f"  largest possible R2 {1 - noise**2 / y.var(ddof=1):.3f}")
        for name, fit in (("boosting", boosting), ("networks", neural_networks), ("ensemble", ensemble)):
            print(" ", name, {key: round(value, 3) for key, value in cross_validated(x, y, fit).items()}, flush=True)


if __name__ == "__main__":
    main()
