"""Search methods that pick from the table of trainings itself: real accuracies, no model between.

    python benchmarks/table_search.py [--seeds 40] [--trials 80]       # writes table_search.json

Each search picks networks of one space without replacement, the first ten at random, and sees the accuracy of their first
training, noise included. Picked from: all networks of the table, or only those that were drawn at random.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from accuracy_model import rows_of_space
from ground_spaces import SPACES
from search_contenders import GOOD_SHARE, density, described_by

from search.files import write_json
from search.tuning.bayes.acquisition import expected_improvement
from search.tuning.bayes.surrogate import Prediction, Scaling, Surrogate
from search.tuning.sampler import STARTUP_TRIALS

OUT = Path(__file__).resolve().parent / "table_search.json"
MARKS = (10, 15, 20, 30, 40, 80)
TARGET_TRIALS = 40  # of random picks


@dataclass(frozen=True)
class Pool:
    """Networks that are picked from: the product's features, in its scaling, and accuracies of the first training."""

    scaling: Scaling
    table: Any  # (networks, columns)
    accuracies: list[float]


Pick = Callable[
    [Pool, list[int], list[float], list[int]], int
]  # picked networks, their scores, those left: the next of them


def by_gaussian_process(pool: Pool, picked: list[int], scores: list[float], left: list[int]) -> int:
    """The largest expected improvement of the product's surrogate."""
    surrogate = Surrogate(pool.scaling, pool.table[picked], np.array(scores))
    best = float(surrogate.predict(pool.table[picked]).mean.max())
    return left[int(np.argmax(expected_improvement(surrogate.predict(pool.table[left]), best)))]


def by_parzen(pool: Pool, picked: list[int], scores: list[float], left: list[int]) -> int:
    """The largest ratio of the densities of good and other networks."""
    ranked = [picked[place] for place in np.argsort(-np.array(scores), kind="stable")]
    good = max(2, round(GOOD_SHARE * len(ranked)))
    table = pool.table
    ratio = density(table[ranked[:good]], table[left]) - density(table[ranked[good:]], table[left])
    return left[int(np.argmax(ratio))]


def by_forest(pool: Pool, picked: list[int], scores: list[float], left: list[int]) -> int:
    """The largest expected improvement of a forest, whose spread over trees is taken for its uncertainty."""
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(60, min_samples_leaf=2, max_features=0.5, random_state=len(picked))
    forest.fit(pool.table[picked], scores)
    trees = np.array([tree.predict(pool.table[left]) for tree in forest.estimators_])
    prediction = Prediction(trees.mean(axis=0), trees.std(axis=0) + 1e-6)
    return left[int(np.argmax(expected_improvement(prediction, float(forest.predict(pool.table[picked]).max()))))]


WAYS: dict[str, Pick | None] = {
    "random": None,
    "bayes surrogate": by_gaussian_process,
    "TPE on features": by_parzen,
    "forest on features": by_forest,
}


def search(space: str, name: str, way: str, seed: int, trials: int) -> list[float]:
    """Best accuracy after each pick of one search."""
    pool, pick = pool_of(space, name), WAYS[way]
    left = [int(index) for index in np.random.default_rng(seed).permutation(len(pool.accuracies))]
    picked, scores = list[int](), list[float]()
    for _ in range(min(trials, len(left))):
        index = left[0] if pick is None or len(picked) < STARTUP_TRIALS else pick(pool, picked, scores, left)
        left.remove(index)
        picked.append(index)
        scores.append(pool.accuracies[index])
    return [float(best) for best in np.maximum.accumulate(scores)]


@cache
def pool_of(space: str, name: str) -> Pool:
    """All networks of a space, or only those that were drawn at random."""
    rows = [row for row in rows_of_space(space) if name == "all" or row["origin"] != "neighbour"]
    features = [described_by(space, row["values"]) for row in rows]
    scaling = Scaling.of(features)
    return Pool(scaling, scaling(features), [row["accuracy"]["0"] for row in rows])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=40)
    options.add_argument("--random-seeds", type=int, default=200)
    options.add_argument("--forest-seeds", type=int, default=10, help="fewer, as a forest takes 5 s a search; 0: none")
    options.add_argument("--trials", type=int, default=80)
    options.add_argument("--spaces", nargs="*", default=list(SPACES), choices=SPACES)
    options.add_argument("--pools", nargs="*", default=["random draws", "all"], choices=("random draws", "all"))
    options.add_argument("--processes", type=int, default=os.cpu_count())
    asked = options.parse_args()
    results = []
    with ProcessPoolExecutor(asked.processes) as executor:
        for space in asked.spaces:
            for pool in asked.pools:
                curves = {}
                for way in WAYS:
                    seeds = range(
                        {"random": asked.random_seeds, "forest on features": asked.forest_seeds}.get(way, asked.seeds)
                    )
                    jobs = [executor.submit(search, space, pool, way, seed, asked.trials) for seed in seeds]
                    if jobs:
                        curves[way] = np.array([job.result() for job in jobs])
                target = float(curves["random"][:, TARGET_TRIALS - 1].mean())
                accuracies = pool_of(space, pool).accuracies
                print(
                    f"{space}, {pool}: {len(accuracies)} networks, best {max(accuracies):.2%}, target {target:.2%}",
                    flush=True,
                )
                for way, curve in curves.items():
                    results.append(_summary(space, pool, way, curve, target))
                    print(_line(results[-1]), flush=True)
    write_json(OUT, results)


def _summary(space: str, pool: str, way: str, curves: Any, target: float) -> dict[str, Any]:
    mean = curves.mean(axis=0)
    reached = np.flatnonzero(mean >= target - 1e-9)
    return {
        "space": space,
        "pool": pool,
        "way": way,
        "searches": len(curves),
        "best": {str(mark): round(float(mean[mark - 1]), 5) for mark in MARKS if mark <= len(mean)},
        "standard_error": {
            str(mark): round(statistics.stdev(curves[:, mark - 1].tolist()) / len(curves) ** 0.5, 5)
            for mark in MARKS
            if mark <= len(mean)
        },
        "trials_to_target": int(reached[0]) + 1 if len(reached) else None,
    }


def _line(row: dict[str, Any]) -> str:
    scores = " / ".join(f"{100 * value:.2f}" for value in row["best"].values())
    errors = " / ".join(f"{100 * value:.2f}" for value in row["standard_error"].values())
    return f"  {row['way']:20} n {row['searches']:>4}  {scores}  (s.e. {errors})  target after {row['trials_to_target']}"


if __name__ == "__main__":
    main()
