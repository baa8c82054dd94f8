"""Search methods under a budget: whole simulated studies on a model of accuracy fitted to a table of real trainings.

    python benchmarks/search_methods.py run --out RUNS/search [--seeds 100] [--trials 40] [--contenders "TPE, fill" bayes]
    python benchmarks/search_methods.py report --out RUNS/search      # writes benchmarks/search_methods.json and .html

Every contender has the same number of trained trials on the same seeds: what a network's training adds or takes by chance
depends on the seed and the network alone. Settings: "table", the noise of the table; "quiet", that of a training of 50
epochs; "rungs", long trainings with a rung, where results are counted by epochs, in units of a training in full. `run`
appends each study to RUNS/search/studies.jsonl and skips those that are in it, so that it can be stopped and started again;
seeds come in order over all cells. The model is `accuracy_model.py`, the table `table.py`, the contenders
`search_contenders.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a study a process, a process a core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from accuracy_model import about
from ground_spaces import BUDGETS, SPACES
from search_contenders import BASE, CONTENDERS, Contender
from search_report import page, text
from simulated_search import SETTINGS, Setting, simulate
from table import append

from search.files import write_json, write_text
from search.finals.statistics import compare, rank

HERE = Path(__file__).resolve().parent
SEARCHED_BUDGETS = BUDGETS[:3]
MARKS = (10, 20, 40, 80)
TARGET_TRIALS = 40  # of the base: what it has then is what others are to reach

Cell = tuple[str, int, str]  # space, budget, name of the setting
Row = dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("run", "report"))
    options.add_argument("--out", type=Path, required=True, help="folder of the studies")
    options.add_argument("--seeds", type=int, default=100)
    options.add_argument("--trials", type=int, default=40)
    options.add_argument("--contenders", nargs="*", default=[contender.name for contender in CONTENDERS])
    options.add_argument("--settings", nargs="*", default=[setting.name for setting in SETTINGS])
    options.add_argument("--budgets", nargs="*", type=int, default=SEARCHED_BUDGETS)
    options.add_argument("--processes", type=int, default=os.cpu_count())
    options.add_argument("--minutes", type=float, default=1e6, help="no study begins after this time")
    asked = options.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.what == "run":
        run(asked)
        return
    result = summarized(stored(asked.out / "studies.jsonl"))
    print(text(result))
    write_json(HERE / "search_methods.json", result)
    write_text(HERE / "search_methods.html", page(result, CONTENDERS))


def run(asked: argparse.Namespace) -> None:
    """Simulate all studies that are not stored yet, on all cores."""
    path = asked.out / "studies.jsonl"
    done = {(*cell_of(row), row["contender"], row["seed"]) for row in stored(path) if len(row["best"]) >= asked.trials}
    wanted = [
        (contender, space, budget, setting, seed)
        for seed in range(asked.seeds)
        for setting in SETTINGS
        if setting.name in asked.settings
        for space in SPACES
        for budget in asked.budgets
        for contender in CONTENDERS
        if contender.name in asked.contenders and (setting.is_long or not contender.pruner)
        if (space, budget, setting.name, contender.name, seed) not in done
    ]
    end, started = time.time() + 60 * asked.minutes, time.monotonic()
    with ProcessPoolExecutor(asked.processes) as pool:
        futures = {pool.submit(_one, *job, asked.trials, end): job for job in wanted}
        for count, future in enumerate(as_completed(futures), 1):
            row = future.result()
            if row is not None:
                append(path, row)
            if count % max(1, len(wanted) // 50) == 0:
                print(f"{count} of {len(wanted)} studies, {time.monotonic() - started:.0f} s", flush=True)


def _one(contender: Contender, space: str, budget: int, setting: Setting, seed: int, trials: int, end: float) -> Row | None:
    if time.time() > end:
        return None
    described = {"space": space, "budget": budget, "setting": setting.name, "contender": contender.name, "seed": seed}
    return described | simulate(contender, space, budget, setting, seed, trials)


def stored(path: Path) -> list[Row]:
    """Stored studies, the longest of each; a line that a kill has cut is left out."""
    studies: dict[Any, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        key = (*cell_of(row), row["contender"], row["seed"])
        if key not in studies or len(row["best"]) > len(studies[key]["best"]):
            studies[key] = row
    return list(studies.values())


def cell_of(row: Row) -> Cell:
    return row["space"], row["budget"], row["setting"]


# --- summary ---------------------------------------------------------------------------------------------------------


def summarized(rows: list[Row]) -> dict[str, Any]:
    """Curves of every contender in every cell, its differences from the base, and its trials to the base's result."""
    cells = []
    for cell in sorted({cell_of(row) for row in rows}):
        own = [row for row in rows if cell_of(row) == cell]
        base = {row["seed"]: row["best"] for row in own if row["contender"] == BASE}
        if not base:
            continue
        target = statistics.mean(best[min(TARGET_TRIALS, len(best)) - 1] for best in base.values())
        for contender in CONTENDERS:
            studies = {row["seed"]: row for row in own if row["contender"] == contender.name}
            if len(studies) > 1:
                cells.append(_summary(cell, contender.name, studies, base, target))
    return {"models": {space: about(space) for space in SPACES}, "target_trials": TARGET_TRIALS, "cells": cells}


def _summary(cell: Cell, name: str, studies: dict[int, Row], base: dict[int, list[float]], target: float) -> Row:
    length = min(len(row["best"]) for row in studies.values())
    curve = [_interval([row["best"][index] for row in studies.values()]) for index in range(length)]
    reached = next((index + 1 for index, (mean, _, _) in enumerate(curve) if mean >= target), None)
    space, budget, setting = cell
    return {
        "space": space,
        "budget": budget,
        "setting": setting,
        "contender": name,
        "seeds": len(studies),
        "curve": curve,
        "against_base": {str(mark): _difference(studies, base, mark) for mark in MARKS if mark <= length},
        "trials_to_target": reached,
        "target": round(target, 5),
        **{key: statistics.mean(row[key] for row in studies.values()) for key in ("mean", "trials", "params", "macs", "ms")},
    }


def _difference(studies: dict[int, Row], base: dict[int, list[float]], mark: int) -> Row | None:
    """Difference from the base after a number of trials, paired by seed."""
    shared = sorted(seed for seed in studies.keys() & base.keys() if len(base[seed]) >= mark)
    if len(shared) < 2:
        return None
    scores = {"": [studies[seed]["best"][mark - 1] for seed in shared], BASE: [base[seed][mark - 1] for seed in shared]}
    (comparison,) = compare(scores, BASE)
    return {key: value for key, value in asdict(comparison).items() if key in ("difference", "low", "high", "p")}


def _interval(values: list[float]) -> tuple[float, float, float]:
    """Mean, and the 95 % interval of the mean."""
    (summary,) = rank({"": values}).summaries
    low, high = (summary.mean if value is None else value for value in (summary.low, summary.high))
    return round(summary.mean, 5), round(low, 5), round(high, 5)


if __name__ == "__main__":
    main()
