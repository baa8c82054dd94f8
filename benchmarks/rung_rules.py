"""Rules of promotion at a rung, by the epochs that they need to a target, on the long trainings of the table.

    python benchmarks/rung_rules.py [--orders 400]        # writes benchmarks/rung_rules.json

Networks that were trained for all epochs come in random orders. At the rung a rule sees the accuracy there (of a schedule
decayed to zero by then), those of all networks before it, and the final accuracies of those that it has let through. A rule
is judged by the epochs until a network within a margin of the pool's best has been trained in full, and by the best final
accuracy for a given number of epochs.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from accuracy_model import rows_of_space
from ground_spaces import EPOCHS, FACTOR, LONG_EPOCHS, SPACES

from search.files import write_json
from search.finals.statistics import compare
from search.tuning.learning_curves import forecast

OUT = Path(__file__).resolve().parent / "rung_rules.json"
AT_RUNG = 1  # index of the rung's accuracy in a long training
MARGINS = (0.0, 0.01, 0.02)  # below the pool's best final accuracy
SPENT = 0.5  # of the epochs of all: what the best so far is compared at


@dataclass
class Seen:
    """Networks so far: accuracies at the rung of all, and (at the rung, final) of those trained in full."""

    rungs: list[float] = field(default_factory=list)
    finished: list[tuple[float, float]] = field(default_factory=list)


Rule = Callable[[float, Seen], bool]  # True if the network continues


def full(score: float, seen: Seen) -> bool:
    """All continue."""
    return True


def halving(score: float, seen: Seen) -> bool:
    """Optuna's asynchronous successive halving: the best third of those at the rung so far, the first always."""
    rungs = sorted([*seen.rungs, score], reverse=True)
    return score >= rungs[max(len(rungs) // FACTOR, 1) - 1]


def median(score: float, seen: Seen) -> bool:
    """Those at or above the median of the rung, after five."""
    return len(seen.rungs) < 5 or score >= statistics.median(seen.rungs)


def posterior(least: float, first: int) -> Rule:
    """Those whose final accuracy exceeds the best so far with a probability of at least `least`, and the `first` ones.

    The final accuracy is a linear function of that at the rung, with a normal prior of slope 1, and normal noise.
    """

    def rule(score: float, seen: Seen) -> bool:
        if len(seen.finished) < first:
            return True
        mean, deviation = final_accuracy(score, seen.finished)
        best = max(final for _, final in seen.finished)
        return 0.5 * math.erfc((best - mean) / (deviation * math.sqrt(2))) >= least

    return rule


def final_accuracy(score: float, finished: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard deviation of the final accuracy of a network with this accuracy at the rung, as in the product."""
    mean, variance = forecast(score, finished)
    return float(mean), math.sqrt(variance)


def gain(least: float) -> Rule:
    """Those whose expected improvement is at least so many times the mean of that of the others at the rung."""

    def rule(score: float, seen: Seen) -> bool:
        if not seen.finished:
            return True
        best = max(final for _, final in seen.finished)
        own, *others = [improvement(*final_accuracy(rung, seen.finished), best) for rung in (score, *seen.rungs)]
        return own >= least * statistics.mean(others)

    return rule


def improvement(mean: float, deviation: float, best: float) -> float:
    """Expected improvement of a normal accuracy over `best`."""
    z = (mean - best) / deviation
    return deviation * (z * 0.5 * math.erfc(-z / math.sqrt(2)) + math.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))


RULES: dict[str, Rule] = {
    "all in full": full,
    **{f"gain {least:g}": gain(least) for least in (0.3, 1.0, 1.7)},
    "halving": halving,
    "median": median,
    **{
        f"posterior {least:g}, first {first}": posterior(least, first)
        for first in (1, 3)
        for least in (0.02, 0.05, 0.1, 0.2)
    },
}


def searched(curves: Sequence[Sequence[float]], order: Sequence[int], rule: Rule) -> tuple[list[tuple[int, float]], int]:
    """((epochs spent, best final accuracy) after each network, networks trained in full)."""
    seen, spent, best, path = Seen(), 0, 0.0, list[tuple[int, float]]()
    for index in order:
        score, final = curves[index][AT_RUNG], curves[index][-1]
        spent += EPOCHS
        if rule(score, seen):
            spent += LONG_EPOCHS - EPOCHS
            best = max(best, final)
            seen.finished.append((score, final))
        seen.rungs.append(score)
        path.append((spent, best))
    return path, len(seen.finished)


def judged(curves: Sequence[Sequence[float]], orders: Sequence[Any]) -> list[dict[str, Any]]:
    """Every rule on all orders."""
    top = max(curve[-1] for curve in curves)
    limit = SPENT * LONG_EPOCHS * len(curves)
    results, bests = [], dict[str, list[float]]()
    for name, rule in RULES.items():
        runs = [searched(curves, order, rule) for order in orders]
        everything = LONG_EPOCHS * len(curves)  # counted where the target is never met
        epochs = {
            f"{margin:g}": statistics.mean(
                next((spent for spent, best in path if best >= top - margin), everything) for path, _ in runs
            )
            for margin in MARGINS
        }
        bests[name] = [max((best for spent, best in path if spent <= limit), default=0.0) for path, _ in runs]
        results.append(
            {
                "rule": name,
                "epochs_to_within": epochs,
                "best_kept": statistics.mean(path[-1][1] == top for path, _ in runs),
                "epochs": statistics.mean(path[-1][0] for path, _ in runs),
                "in_full": statistics.mean(count for _, count in runs),
                "best_at_half": statistics.mean(bests[name]),
            }
        )
    for comparison in compare(bests, "halving"):
        row = next(row for row in results if row["rule"] == comparison.name)
        row["best_at_half_minus_halving"] = [comparison.difference, comparison.low, comparison.high]
    return results


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--orders", type=int, default=400)
    asked = options.parse_args()
    results = {}
    for space in SPACES:
        curves = [row["long"] for row in rows_of_space(space) if row["long"]]
        correlation = np.corrcoef(np.array(curves)[:, AT_RUNG], np.array(curves)[:, -1])[0, 1]
        orders = [np.random.default_rng(seed).permutation(len(curves)) for seed in range(asked.orders)]
        results[space] = {"networks": len(curves), "correlation": float(correlation), "rules": judged(curves, orders)}
        print(f"{space}: {len(curves)} networks, correlation of rung and final {correlation:.2f}")
        for row in results[space]["rules"]:
            epochs = " / ".join(f"{value:.0f}" for value in row["epochs_to_within"].values())
            margins = " / ".join(f"{margin:.0%}" for margin in MARGINS)
            print(
                f"  {row['rule']:26} epochs to within {margins}: {epochs:18} all {row['epochs']:.0f}"
                f", in full {row['in_full']:.1f}, best kept {row['best_kept']:.0%}, best at half {row['best_at_half']:.2%}"
            )
    write_json(OUT, results)


if __name__ == "__main__":
    main()
