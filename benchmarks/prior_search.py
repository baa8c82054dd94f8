"""A prior from another study, in picks from the table of trainings: real accuracies, no model between.

    python benchmarks/prior_search.py [--seeds 60] [--trials 40]       # writes prior_search.json

The prior is 40 random networks of one space under 40,000 and 100,000 parameters; each search picks from the networks under
6,000 and 15,000 without replacement, and sees the accuracy of their first training, noise included. Eight picks are random,
two with a prior; "early" has two and no prior. Other priors: "scaled", as of another data set, accuracies halved, with noise
of 1 point; "shuffled", its accuracies in random order, which tells nothing; "unrelated", a random linear function of the
features; "negated", the order of the accuracies reversed. Differences from no prior are paired by seed.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from accuracy_model import rows_of_space
from ground_spaces import BUDGETS, SPACES
from search_contenders import described_by

from search.files import write_json
from search.finals.statistics import compare
from search.tuning.bayes.acquisition import expected_improvement
from search.tuning.bayes.features import Features
from search.tuning.bayes.prior import Prior, Trend
from search.tuning.bayes.sampler import STARTUP, STARTUP_WITH_PRIOR
from search.tuning.bayes.surrogate import Scaling, Surrogate

OUT = Path(__file__).resolve().parent / "prior_search.json"
MARKS = (5, 10, 15, 20, 40)
PRIOR_TRIALS = 40
KINDS = ("none", "early", "true", "scaled", "shuffled", "unrelated", "negated")


@cache
def halves(space: str) -> tuple[list[tuple[Features, float]], list[tuple[Features, float]]]:
    """Networks of the larger budgets, and those of the smaller ones that are picked from: features and accuracy."""
    rows = [(row["budget"], (described_by(space, row["values"]), row["accuracy"]["0"])) for row in rows_of_space(space)]
    return [pair for budget, pair in rows if budget in BUDGETS[2:]], [pair for budget, pair in rows if budget in BUDGETS[:2]]


def prior_of(space: str, kind: str, seed: int) -> Prior | None:
    """The prior of one search."""
    if kind in ("none", "early"):
        return None
    generator = np.random.default_rng((seed, 1))
    pool, _ = halves(space)
    chosen = [pool[index] for index in generator.permutation(len(pool))[:PRIOR_TRIALS]]
    scores = np.array([score for _, score in chosen])
    match kind:
        case "scaled":
            scores = scores / 2 + 0.01 * generator.normal(size=len(scores))
        case "shuffled":
            scores = generator.permutation(scores)
        case "unrelated":
            table = Scaling.of([features for features, _ in chosen])([features for features, _ in chosen])
            direction = table @ generator.normal(size=table.shape[1])
            scores = scores.mean() + scores.std() * direction / direction.std()
        case "negated":
            scores = 2 * scores.mean() - scores
    prior = Prior([Trend.of(kind, [features for features, _ in chosen], scores)])
    return prior if prior.runs else None


def search(space: str, kind: str, seed: int, trials: int) -> list[float]:
    """Best accuracy after each pick of one search."""
    _, pool = halves(space)
    features, accuracies = [pair[0] for pair in pool], [pair[1] for pair in pool]
    scaling = Scaling.of(features)
    table = scaling(features)
    prior = prior_of(space, kind, seed)
    startup = STARTUP if prior is None and kind != "early" else STARTUP_WITH_PRIOR
    trends = np.zeros((len(pool), 0)) if prior is None else prior.trends(features)
    borrowed = None if prior is None else prior.deviation
    left = [int(index) for index in np.random.default_rng(seed).permutation(len(pool))]
    picked, scores = list[int](), list[float]()
    for _ in range(min(trials, len(left))):
        index = left[0]
        if len(picked) >= startup:
            surrogate = Surrogate(scaling, table[picked], np.array(scores), None, trends[picked], borrowed)
            best = float(surrogate.predict(table[picked], trends[picked]).mean.max())
            predicted = surrogate.predict(table[left], trends[left])
            index = left[int(np.argmax(expected_improvement(predicted, best)))]
        left.remove(index)
        picked.append(index)
        scores.append(accuracies[index])
    return [float(best) for best in np.maximum.accumulate(scores)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=60)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--trials", type=int, default=40)
    options.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    options.add_argument("--processes", type=int, default=os.cpu_count())
    asked = options.parse_args()
    results = []
    with ProcessPoolExecutor(asked.processes) as executor:
        for space in SPACES:
            before, pool = halves(space)
            print(f"{space}: prior of {min(PRIOR_TRIALS, len(before))} of {len(before)}, picks from {len(pool)}", flush=True)
            curves = {}
            for kind in asked.kinds:
                seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
                jobs = [executor.submit(search, space, kind, seed, asked.trials) for seed in seeds]
                curves[kind] = np.array([job.result() for job in jobs])
                results.append(_summary(space, kind, curves))
                print(_line(results[-1]), flush=True)
    write_json(OUT, results)


def _summary(space: str, kind: str, curves: dict[str, Any]) -> dict[str, Any]:
    marks = [mark for mark in MARKS if mark <= curves[kind].shape[1]]
    differences = {}
    if kind != "none" and "none" in curves:
        for mark in marks:
            scores = {name: curves[name][:, mark - 1].tolist() for name in ("none", kind)}
            (comparison,) = compare(scores, "none")
            differences[str(mark)] = {key: round(asdict(comparison)[key], 5) for key in ("difference", "low", "high")}
    best = {str(mark): round(float(curves[kind][:, mark - 1].mean()), 5) for mark in marks}
    return {"space": space, "prior": kind, "searches": len(curves[kind]), "best": best, "against_none": differences}


def _line(row: dict[str, Any]) -> str:
    scores = " / ".join(f"{100 * value:.2f}" for value in row["best"].values())
    differences = ", ".join(
        f"{100 * d['difference']:+.2f} ({100 * d['low']:.2f} to {100 * d['high']:.2f})" for d in row["against_none"].values()
    )
    return f"  {row['prior']:9} n {row['searches']:>4}  {scores}  {differences}"


if __name__ == "__main__":
    main()
