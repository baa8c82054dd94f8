"""Whole searches with real trainings in place of a model: random, TPE and the Bayesian sampler on small CIFAR-10.

    python benchmarks/real_searches.py run CIFAR.npz --out RUNS/real [--seeds 3] [--minutes 60]
    python benchmarks/real_searches.py report --out RUNS/real            # writes benchmarks/real_searches.json

The images, epochs, spaces and recipes of `table.py`, under 15,000 parameters. Each study trains 30 networks; then its
winner, the network of the highest accuracy, is trained again on three fresh seeds; beside their mean stand its score in the
search and what `search.tuning.bayes.expectation` expects of another training of it. A study is a process on one core.
Trainings are appended to RUNS/real/trainings.jsonl one by one; a study that was stopped proposes the same networks again
and goes on after the last that is stored.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import optuna
from ground_spaces import EPOCHS, FACTS, IMAGES, SIDE, SPACES, VALIDATION
from ground_spaces import study as study_of
from search_contenders import BASE, CONTENDERS, ContenderStudy
from small_images import small_images
from table import append, limit_tensorflow, rows_in
from table import run as train

from search.files import write_json
from search.finals.statistics import compare, rank
from search.tuning.bayes.expectation import expect

OUT = Path(__file__).resolve().parent / "real_searches.json"
BUDGET, TRIALS = 15_000, 30
COMPARED = (BASE, "TPE, fill", "bayes")
FINAL_SEEDS = (101, 102, 103)
MARKS = (10, 20, 30)

Row = dict[str, Any]
Key = tuple[str, str, int]  # space, contender, seed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("run", "report"))
    options.add_argument("data", type=Path, nargs="?", help="CIFAR-10 as .npz, for run")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--processes", type=int, default=os.cpu_count())
    options.add_argument("--minutes", type=float, default=1e6, help="no training begins after this time")
    asked = options.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / "trainings.jsonl"
    if asked.what == "report":
        report(rows_in(path))
        return
    end = time.time() + 60 * asked.minutes
    studies = [(space, name, seed) for seed in range(asked.seeds) for space in SPACES for name in COMPARED]
    context = multiprocessing.get_context("spawn")  # TensorFlow keeps some memory of each training
    with ProcessPoolExecutor(asked.processes, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(search, key, asked.data, path, end): key for key in studies}
        for count, future in enumerate(as_completed(futures), 1):
            print(f"{count} of {len(studies)}: {futures[future]}, {future.result()} trainings new", flush=True)


def search(key: Key, data_path: Path, path: Path, end: float) -> int:
    """Train what is missing of one study and of its winner until the time `end`; number of trainings."""
    space, name, seed = key
    own = [row for row in rows_in(path) if key_of(row) == key]
    contender = next(contender for contender in CONTENDERS if contender.name == name)
    proposals, data, new = ContenderStudy(contender, space, BUDGET, seed), None, 0

    def trained(trial: int, values: Row, final_seed: int) -> Row | None:
        nonlocal data, new
        stored = next((row for row in own if (row["trial"], row["final_seed"]) == (trial, final_seed)), None)
        if stored is not None:
            return stored
        if time.time() > end:
            return None
        if data is None:
            limit_tensorflow()
            data = small_images(data_path, IMAGES, VALIDATION, SIDE)
        job = {"space": space, "values": values, "network": 1_000 * (seed + 1) + trial, "seed": final_seed, "epochs": EPOCHS}
        row = {"space": space, "contender": name, "study_seed": seed, "trial": trial, "final_seed": final_seed}
        row |= {"values": values} | train(job, data)
        append(path, row)
        new += 1
        return row

    rows = list[Row]()
    for number in range(TRIALS):
        trial, _, values = proposals.ask()
        row = trained(number, values, 0)
        if row is None:
            return new
        proposals.tell(trial, row["accuracy"][-1])
        rows.append(row)
    winner = max(rows, key=lambda row: row["accuracy"][-1])
    for final_seed in FINAL_SEEDS:
        trained(winner["trial"], winner["values"], final_seed)
    return new


def key_of(row: Row) -> Key:
    return row["space"], row["contender"], row["study_seed"]


def report(rows: list[Row]) -> None:
    """Print and write the best accuracy over trials and the winner's mean on fresh seeds, of all complete studies."""
    studies: dict[Key, dict[str, Any]] = {}
    for key in sorted({key_of(row) for row in rows}):
        own = [row for row in rows if key_of(row) == key]
        scores = {row["trial"]: row["accuracy"][-1] for row in own if row["final_seed"] == 0}
        finals = [row["accuracy"][-1] for row in own if row["final_seed"] != 0]
        if len(scores) == TRIALS and len(finals) == len(FINAL_SEEDS):
            best = np.maximum.accumulate([scores[number] for number in range(TRIALS)])
            seconds = sum(row["cpu_s"] for row in own if row["final_seed"] == 0)
            studies[key] = {"best": [float(value) for value in best], "winner": statistics.mean(finals), "cpu_s": seconds}
            studies[key]["expected"] = expected_of(key, [row for row in own if row["final_seed"] == 0])
    cells = []
    for space in SPACES:
        seeds = [
            {key[2] for key in studies if key[:2] == (space, name)} for name in COMPARED
        ]  # compared are those that all have completed
        shared = sorted(set.intersection(*seeds))
        if len(shared) < 2:
            continue
        winners = {name: [studies[space, name, seed]["winner"] for seed in shared] for name in COMPARED}
        differences = {comparison.name: asdict(comparison) for comparison in compare(winners, BASE)}
        summaries = {summary.name: summary for summary in rank(winners).summaries}
        for name in COMPARED:
            own_studies = [studies[space, name, seed] for seed in shared]
            best = {str(mark): statistics.mean(study["best"][mark - 1] for study in own_studies) for mark in MARKS}
            cell = {"space": space, "contender": name, "studies": len(shared), "best": best, "winners": winners[name]}
            cell |= {"cpu_s": statistics.mean(study["cpu_s"] for study in own_studies), "mean": summaries[name].mean}
            if name in differences:
                cell["against_random"] = [differences[name][part] for part in ("difference", "low", "high")]
            cells.append(cell)
            print(_line(cell))
    biases = {name: bias_of(name, studies.values()) for name in ("score", "expected")}
    for name, bias in biases.items():
        print(f"{name:8} less the mean on fresh seeds: {bias}")
    head = {"budget": BUDGET, "trials": TRIALS, "final_seeds": len(FINAL_SEEDS)}
    write_json(OUT, head | {"cells": cells, "bias": biases})


def expected_of(key: Key, rows: list[Row]) -> float | None:
    """Accuracy expected of another training of a study's winner."""
    space, _, _ = key
    config, study = study_of(space, BUDGET), optuna.create_study(direction="maximize")
    ordered = sorted(rows, key=lambda row: row["trial"])
    for row in ordered:
        given = {name: domain.distribution() for name, domain in config.parameters.items()}
        study.add_trial(optuna.trial.create_trial(params=row["values"], distributions=given, value=row["accuracy"][-1]))
    found = expect(config, FACTS, study.trials, max(study.trials, key=lambda trial: trial.value).number)
    return None if found is None else found.mean


def bias_of(name: str, studies: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Bias of a figure of the winners, less their means on fresh seeds: mean, its standard error, root mean square."""
    figures = [(study["best"][-1] if name == "score" else study["expected"], study["winner"]) for study in studies]
    errors = [figure - winner for figure, winner in figures if figure is not None]
    error, square = statistics.stdev(errors) / len(errors) ** 0.5, statistics.mean(value**2 for value in errors) ** 0.5
    values = {"mean": statistics.mean(errors), "standard_error": error, "rms": square}
    return {"studies": len(errors)} | {key: round(value, 5) for key, value in values.items()}


def _line(cell: Row) -> str:
    best = " / ".join(f"{100 * value:.2f}" for value in cell["best"].values())
    against = [f"{100 * value:+.2f}" for value in cell.get("against_random", ())]
    interval = f", {against[0]} ({against[1]} to {against[2]}) against random" if against else ""
    winners = ", ".join(f"{100 * value:.2f}" for value in cell["winners"])
    head = f"{cell['space']:9} {cell['contender']:13} n {cell['studies']}: best after {MARKS} {best}"
    return f"{head}; winners' means {winners}: {100 * cell['mean']:.2f}{interval}; {cell['cpu_s']:.0f} CPU-s"


if __name__ == "__main__":
    main()
