"""What the shipped prior tells of other data and longer trainings than those it was made of; real trainings.

    python benchmarks/prior_transfer.py run --out RUNS/transfer --data CIFAR.npz [--trials 20] [--seeds 8]
    python benchmarks/prior_transfer.py report --out RUNS/transfer      # writes prior_transfer.json

"cifar10": random networks of the table's spaces under 60,000 parameters on 4,900 images of 32 x 32 pixels, 8 epochs; the
rank correlation of their accuracies with what the trend of either kind of space predicts. "digits": whole studies of 16
trials of scikit-learn's digits (8 x 8, grey, 4 epochs) by the Bayesian sampler, with the prior and without, a pair for each
seed. `run` resumes; it is `python -m search run` throughout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from ground_spaces import RECIPES, SPACES
from scipy.stats import spearmanr
from shipped_prior import NAME

from search.api.study_toml import study_text
from search.files import read_json, write_json, write_text
from search.finals.statistics import compare
from search.study import open_study, study_file
from search.study.study_file import PRIORS
from search.tuning.bayes.prior import PriorStudy, Trend
from search.tuning.sources import open_prior

ROOT = Path(__file__).resolve().parent.parent
MARKS = (3, 5, 8, 12, 16)
DIGITS: dict[str, Any] = {
    "base": 0.1,
    "data": {"name": "digits", "holdout": 0.2},
    "budget": {"params": 4_000},
    "space": {
        "kind": "pyramid",
        "blocks": {"low": 2, "high": 5},
        "width": {"low": 8, "high": 64, "step": 4},
        "kernel": {"choices": [3, 5], "per": "net"},
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.05},
        "order": ["conv-bn-act", "conv-act-bn", "conv-dropout-bn-act", "conv-act-dropout-bn"],
        "activation": ["relu", "silu"],
        "pools": {"low": 0, "high": 2},
        "pool_kind": ["max", "average"],
        "head": ["conv", "dense"],
    },
    "recipe": {
        "epochs": 4,
        "optimizer": "adam",
        "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
        "batch_size": [32, 64],
        "schedule": {"kind": "one-cycle"},
    },
    "search": {"trials": 16, "sampler": "bayes", "fit": "fill"},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("run", "report"))
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--data", type=Path, help="CIFAR-10 as .npz")
    options.add_argument("--trials", type=int, default=20, help="networks of each kind of space on CIFAR-10")
    options.add_argument("--seeds", type=int, default=8, help="pairs of studies of digits")
    asked = options.parse_args()
    if asked.what == "run":
        for kind in SPACES:
            search(asked.out / kind, cifar_study(kind, asked.trials), "--data", str(asked.data))
        for seed in range(asked.seeds):
            for prior in ("none", "shipped"):
                given = {"seed": seed} | ({"prior": NAME} if prior == "shipped" else {})
                search(asked.out / "digits" / f"{prior}-{seed}", DIGITS | {"search": DIGITS["search"] | given})
        return
    result = {
        "cifar10": [correlations(asked.out / kind) for kind in SPACES],
        "digits": studies_of_digits(asked.out / "digits"),
    }
    print(json.dumps(result, indent=1))
    write_json(ROOT / "benchmarks" / "prior_transfer.json", result)


def cifar_study(kind: str, trials: int) -> dict[str, Any]:
    """The study of random networks of one kind of space."""
    return {
        "base": 0.1,
        "data": {"name": "cifar10", "holdout": 0.3, "images": 7_000, "normalize": True},
        "budget": {"params": 60_000, "macs": 2_500_000},
        "space": SPACES[kind],
        "recipe": RECIPES[kind] | {"epochs": 8},
        "search": {"trials": trials, "sampler": "random", "fit": "reject", "seed": 5},
    }


def search(out: Path, study: dict[str, Any], *options: str) -> None:
    """Run a study, or resume it."""
    path = out.with_suffix(".toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, study_text(out.name, study))
    command = [sys.executable, "-m", "search", "run", str(path), "--out", str(out), "--workers", "1", *options]
    subprocess.run(command, cwd=ROOT, check=True)


def correlations(folder: Path) -> dict[str, Any]:
    """Rank correlation of accuracies with the prediction of the trend of each kind of space."""
    study = cifar_study(folder.name, 1)
    study["search"] = {"sampler": "bayes", "prior": str(folder)}
    (trained,) = open_prior(study_file.parse(study, str(folder)))
    features, accuracies, _ = trained.sample()
    row: dict[str, Any] = {"space": folder.name, "networks": len(features)}
    row |= {"lowest": float(accuracies.min()), "highest": float(accuracies.max())}
    for trend in trends():
        assert trend.surrogate is not None
        predicted = trend.surrogate.standardised_mean(trend.surrogate.scaling(features))
        row[f"by {trend.run}"] = round(float(spearmanr(predicted, accuracies).statistic), 3)
        row[f"first by {trend.run}"] = float(accuracies[np.argmax(predicted)])
    return row


def trends() -> list[Trend]:
    """The trend of each kind of space of the shipped prior, named after it."""
    studies = [PriorStudy.from_dict(plain) for plain in read_json(PRIORS / f"{NAME}.json")["studies"]]
    return [Trend.of(study.config["space"]["kind"], *study.sample()) for study in studies]


def studies_of_digits(folder: Path) -> dict[str, Any]:
    """Best accuracy so far with and without the prior, after some trials, and the paired difference."""
    scores = {prior: [curve(path) for path in sorted(folder.glob(f"{prior}-*.toml"))] for prior in ("none", "shipped")}
    result: dict[str, Any] = {"pairs": len(scores["none"])}
    for prior, curves in scores.items():
        result[prior] = {mark: round(statistics.mean(best[mark - 1] for best in curves), 4) for mark in MARKS}
    result["difference"] = {}
    for mark in MARKS:
        after = {prior: [best[mark - 1] for best in curves] for prior, curves in scores.items()}
        (compared,) = compare(after, "none")
        result["difference"][mark] = [round(value or 0.0, 4) for value in (compared.difference, compared.low, compared.high)]
    return result


def curve(path: Path) -> Sequence[float]:
    """Best accuracy after each trial of a study."""
    trained = [one for one in open_study(str(path), path.with_suffix("")).candidates if one.outcome == "trained"]
    return [float(best) for best in np.maximum.accumulate([one.best_val_accuracy or 0.0 for one in trained])]


if __name__ == "__main__":
    main()
