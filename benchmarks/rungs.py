"""Epochs saved and candidates lost by rungs: the same candidates trained in full and with rungs, on CIFAR-10.

    python benchmarks/rungs.py train --data CIFAR.npz --out benchmarks/rungs.json
    python benchmarks/rungs.py tell --out benchmarks/rungs.json

`train` gives each candidate one schedule over all epochs, and a second training whose schedule decays to zero by each rung
and begins anew; none is stopped, so that what Optuna's successive halving would have done can be told in any order of the
candidates (`tell`). Images are averaged down to 16x16 so that a CPU can train enough of them; what is finished in OUT is not
trained again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from small_images import small_images

from search.files import read_json, write_json

RUNGS, EPOCHS, FACTOR = (3, 9), 27, 3
IMAGES, VALIDATION = 3_000, 2_000
BUDGET = 30_000
ORDERS = 200  # in which candidates may come
SPACE: dict[str, Any] = {
    "blocks": {"low": 3, "high": 7},
    "width": {"low": 16, "high": 160, "step": 8},
    "dropout": {"low": 0.0, "high": 0.3, "step": 0.05},
    "pools": {"low": 1, "high": 2},
    "kernel": [3, 5],
    "order": ["conv-bn-act", "conv-act-bn", "conv-dropout-bn-act"],
}
RECIPE: dict[str, Any] = {
    "batch_size": 64, "optimizer": "adam", "learning_rate": 0.005, "schedule": {"kind": "one-cycle"}, "ema": 0.95,
    "augment": {"flip": True, "crop": 2},
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("train", "tell"))
    options.add_argument("--data", type=Path, help="CIFAR-10 as .npz; without it Keras downloads it")
    options.add_argument("--candidates", type=int, default=12)
    options.add_argument("--out", type=Path, required=True)
    asked = options.parse_args()
    if asked.what == "tell":
        tell(read_json(asked.out))
        return
    found: list[dict[str, Any]] = read_json(asked.out) if asked.out.exists() else []
    from search.training.device import prepare_device

    print(prepare_device().description)
    data = small_images(asked.data, IMAGES, VALIDATION)
    for number, values in enumerate(candidates(asked.candidates)):
        if number >= len(found):
            found.append({"values": values} | both(values, number, data))
            write_json(asked.out, found)
            print(
                number,
                json.dumps({key: value[-1] if isinstance(value, list) else value for key, value in found[-1].items()}),
                flush=True,
            )


# --- training --------------------------------------------------------------------------------------------------------


def candidates(count: int) -> list[dict[str, Any]]:
    """Uniform draws of the space that fit the budget, the same ones whenever this is asked."""
    from search.budget.cost import compute_cost
    from search.networks.layers import ArchitectureError
    from space import Pyramid, build, parameters

    space, generator, found = Pyramid.model_validate(SPACE), random.Random(0), []
    while len(found) < count:
        values = {name: domain.draw(generator) for name, domain in parameters(space).items()}
        try:
            fits = compute_cost(build(space, values, (16, 16, 3), 10)).params < BUDGET
        except ArchitectureError:
            continue
        if fits:
            found.append(values)
    return found


def both(values: dict[str, Any], number: int, data: Any) -> dict[str, Any]:
    """The curves of one candidate: in full, and with rungs."""
    full, rungs = curve(values, number, data, EPOCHS, ()), curve(values, number, data, EPOCHS, RUNGS)
    return {
        "params": full["params"],
        "full": full["curve"],
        "rungs": rungs["curve"],
        "seconds": full["seconds"] + rungs["seconds"],
    }


def curve(values: dict[str, Any], number: int, data: Any, epochs: int, restarts: tuple[int, ...]) -> dict[str, Any]:
    from search.budget.cost import compute_cost
    from search.training.recipe import Recipe
    from search.training.train import fit
    from space import Pyramid, build

    network = build(Pyramid.model_validate(SPACE), values, data.input_shape, data.classes)
    recipe = Recipe.model_validate(RECIPE | {"epochs": epochs, "restarts": restarts})
    training = fit(network, data, recipe, seed=number)
    accuracies = [round(epoch.val_accuracy, 4) for epoch in training.history]
    return {"params": compute_cost(network).params, "curve": accuracies, "seconds": round(training.seconds, 1)}


# --- telling ---------------------------------------------------------------------------------------------------------


def tell(found: list[dict[str, Any]]) -> None:
    """Summarize the curves: rank correlations, and savings and losses of halving over many candidate orders."""
    from scipy.stats import spearmanr

    full, rungs = ([np.array(one[kind]) for one in found] for kind in ("full", "rungs"))
    end = [curve.max() for curve in full]
    print(f"{len(found)} candidates, {EPOCHS} epochs, best validation accuracy {min(end):.1%} to {max(end):.1%} in full")
    for rung in (*RUNGS, EPOCHS):
        decayed = spearmanr([curve[rung - 1] for curve in rungs], end).statistic
        plain = spearmanr([curve[rung - 1] for curve in full], end).statistic
        print(
            f"rank correlation with the end after {rung} epochs: {decayed:.2f} decayed by then, {plain:.2f} in one schedule"
        )
    cost = 100 * (np.array([curve.max() for curve in rungs]) - end)
    print(
        f"restarts against one schedule: {cost.mean():+.2f} points, standard error {cost.std(ddof=1) / len(cost) ** 0.5:.2f}"
    )
    spent, lost, kept = zip(*(halving(rungs, end, order) for order in orders(len(found))), strict=True)
    all_epochs = EPOCHS * len(found)
    print(
        f"successive halving at {RUNGS}, {ORDERS} orders: {np.mean(spent) / all_epochs:.0%} of the epochs ({min(spent)} to "
        f"{max(spent)} of {all_epochs}); the best is kept in {np.mean(kept):.0%} of the orders, the best kept one is "
        f"{100 * np.mean(lost):.2f} points behind it on average (at worst {100 * max(lost):.2f})"
    )


def orders(count: int) -> Any:
    generator = np.random.default_rng(0)
    return [generator.permutation(count) for _ in range(ORDERS)]


def halving(rungs: list[Any], end: list[float], order: Any) -> tuple[int, float, bool]:
    """(epochs spent, points lost, best kept) by Optuna's pruner on candidates that come in this order."""
    import optuna

    from search.study.tables import Rungs
    from search.tuning.pruner import RungPruner

    study = optuna.create_study(direction="maximize", pruner=RungPruner(Rungs(first=RUNGS[0], factor=FACTOR)))
    spent, kept = 0, []
    for number in order:
        trial = study.ask()
        epochs = EPOCHS
        for rung in RUNGS:
            trial.report(float(rungs[number][rung - 1]), rung)
            if trial.should_prune():
                epochs = rung
                break
        spent += epochs
        study.tell(trial, state=optuna.trial.TrialState.PRUNED) if epochs < EPOCHS else study.tell(
            trial, float(rungs[number].max())
        )
        kept += [end[number]] if epochs == EPOCHS else []
    best = max(end)
    return spent, best - max(kept), best in kept


if __name__ == "__main__":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
