"""Quality of the search spaces: random networks of each and the known networks, trained alike.

    python benchmarks/spaces.py train --data CIFAR.npz --out benchmarks/spaces.json
    python benchmarks/spaces.py tell --out benchmarks/spaces.json

Of the pyramid space (`studies/cifar10_100k`) and of the residual one (`studies/cifar10_100k_residual`) networks are drawn
at random, their widths scaled to what 100,000 parameters and MACS multiply-adds allow. Each is trained once, and the best
of each space again on fresh seeds, beside the references and the residual space's first point. One recipe for all, but for
the base, which has no batch norm and keeps its own. Batch norm's momentum is 0.9 everywhere: 0.99, the references' own, lags
behind in so few steps. What is finished in OUT is not trained again.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from search.study import study_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from search.budget.cost import compute_cost
from search.files import read_json, write_json
from search.finals.statistics import rank
from search.networks import architecture as architectures
from search.networks.architecture import Architecture
from search.networks.layers import BatchNorm
from search.study import config as configs
from search.study import references
from search.training.recipe import Recipe
from search.tuning.candidate import Candidate, DataFacts, fits, judge
from search.tuning.scaling import largest_that_fits

STUDIES = {"pyramid": "cifar10_100k", "residual": "cifar10_100k_residual"}
KNOWN = ("eip-b", "eip-c-late", "base", "eip-d")
MACS = 45_000_000  # for both spaces alike: what a CPU can train a few of
IMAGES = 2_560  # to train on; of the test images 512 are taken, in proportion
RECIPE = Recipe.model_validate(
    {
        "epochs": 8, "batch_size": 64, "optimizer": "adamw", "learning_rate": 0.005, "weight_decay": 0.01,
        "schedule": {"kind": "linear", "warmup": 0.2}, "augment": {"flip": "alternating", "crop": 4}, "normalize": True,
        "clip_norm": 1.0,
    }
)  # fmt: skip


class Contender(NamedTuple):
    """A network to train under a recipe."""

    name: str
    architecture: Architecture
    recipe: Recipe = RECIPE


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("train", "tell"))
    options.add_argument("--data", type=Path, help="CIFAR-10 as .npz; without it Keras downloads it")
    options.add_argument("--draws", type=int, default=5, help="of each space")
    options.add_argument("--seeds", type=int, default=3, help="fresh ones")
    options.add_argument("--out", type=Path, required=True)
    asked = options.parse_args()
    if asked.what == "train":
        train(asked.data, asked.draws, asked.seeds, asked.out)
    tell(read_json(asked.out)["trainings"])


# --- the contenders --------------------------------------------------------------------------------------------------


def drawn(kind: str, count: int) -> list[Contender]:
    """Random networks of a space, the same ones whenever this is asked."""
    raw = study_file.load(study_file.find(STUDIES[kind])[1]).dump()
    raw["budget"]["macs"] = MACS
    config = study_file.parse(raw, kind)
    facts, generator, found = DataFacts((32, 32, 3), 10, "-"), random.Random(0), []
    while len(found) < count:
        values = {name: domain.draw(generator) for name, domain in config.parameters.items()}
        widest = largest_that_fits(config.space, values, partial(fits, config, facts))
        one = judge(config, facts, widest) if widest else None
        if isinstance(one, Candidate):
            found.append(Contender(f"{kind}-{len(found)}", one.architecture))
    return found


def known() -> list[Contender]:
    """The references under the one recipe, the base under its own, and the residual space's first point."""
    found = []
    for one in map(references.find, KNOWN):
        own = one.recipe.model_copy(update={"epochs": RECIPE.epochs}) if one.name == "base" and one.recipe else RECIPE
        found.append(Contender(one.name, quicker(one.architecture), own))
    path = configs.ROOT / "studies" / STUDIES["residual"] / "gated-97k.json"
    return [Contender("gated-97k", architectures.load(path)), *found]


def quicker(network: Architecture) -> Architecture:
    """With batch norm that forgets in ten steps and not in a hundred."""
    layers = tuple(replace(one, momentum=0.9) if isinstance(one, BatchNorm) else one for one in network.layers)
    return replace(network, layers=layers)


# --- training --------------------------------------------------------------------------------------------------------


def train(path: Path | None, draws: int, seeds: int, out: Path) -> None:
    from search.data.dataset import load_dataset
    from search.training.device import prepare_device

    device = prepare_device().description
    data = load_dataset("cifar10", path, protocol="course", holdout=0.1, images=IMAGES)
    found: dict[str, Any] = read_json(out) if out.exists() else {"trainings": []}
    about = {"images": len(data.x_train), "validation": len(data.x_val), "macs": MACS, "recipe": RECIPE.model_dump()}
    found |= {"device": device} | about
    pyramids, residuals, others = drawn("pyramid", draws), drawn("residual", draws), known()

    def once(one: Contender, seed: int) -> float:
        for row in found["trainings"]:
            if (row["name"], row["seed"]) == (one.name, seed):
                return float(row["best"])
        found["trainings"].append(trained(one, seed, data))
        write_json(out, found)
        return float(found["trainings"][-1]["best"])

    first = {one.name: once(one, 0) for pair in zip(pyramids, residuals, strict=True) for one in pair}
    best = [max(each, key=lambda one: first[one.name]) for each in (pyramids, residuals)]
    contenders = [*best, *others]
    for part in (contenders[:5], contenders[5:]):  # those that answer the question first
        for seed in range(1, seeds + 1):
            for one in part:
                once(one, seed)


def trained(one: Contender, seed: int, data: Any) -> dict[str, Any]:
    """One training: what the network costs and how it went."""
    from search.training.train import fit

    started, cpu = time.perf_counter(), time.process_time()
    history = [epoch.val_accuracy for epoch in fit(one.architecture, data, one.recipe, seed=seed).history]
    cost = compute_cost(one.architecture)
    row: dict[str, Any] = {"name": one.name, "seed": seed, "params": cost.params, "macs": cost.macs}
    row |= {"best": max(history), "last": history[-1], "val_accuracy": history}
    row |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    said = f"{one.name:12} seed {seed}  {cost.params:9,} params  {cost.macs / 1e6:5.1f} M  "
    print(f"{said}best {max(history):.2%}  last {history[-1]:.2%}  {row['seconds']:.0f} s", flush=True)
    return row


# --- telling ---------------------------------------------------------------------------------------------------------


def tell(trainings: list[dict[str, Any]]) -> None:
    for kind in STUDIES:
        best = [row["best"] for row in trainings if row["name"].startswith(f"{kind}-") and row["seed"] == 0]
        print(f"{kind}: {len(best)} draws, mean {statistics.fmean(best):.2%}, best {max(best):.2%}, worst {min(best):.2%}")
    fresh: dict[str, list[dict[str, Any]]] = {}
    for row in trainings:
        if row["seed"] > 0:
            fresh.setdefault(row["name"], []).append(row)
    whole = max(map(len, fresh.values()), default=0)
    even = {name: rows for name, rows in fresh.items() if len(rows) == whole >= 2}
    if not even:
        return
    found = rank({name: [row["best"] for row in rows] for name, rows in even.items()}, "eip-b")
    for one in found.summaries:
        row, each = even[one.name][0], statistics.fmean(row["cpu_seconds"] for row in even[one.name])
        cost = f"{row['params']:9,} params  {row['macs'] / 1e6:5.1f} M  {each:4.0f} CPU-s"
        print(f"{one.name:12} {cost}  {one.mean:.2%} [{one.low:.2%}, {one.high:.2%}] of {whole} seeds")


if __name__ == "__main__":
    main()
