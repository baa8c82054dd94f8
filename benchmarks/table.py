"""Table of real trainings of random networks: the ground on which search methods are compared.

    python benchmarks/table.py train CIFAR.npz --out RUNS/table --part 1/2 --minutes 120     # resumable, one per core
    python benchmarks/table.py status --out RUNS/table
    python benchmarks/table.py pack --out RUNS/table            # writes benchmarks/table.json

CIFAR-10 averaged to 16x16, 1,500 training images, 4 epochs with a decayed schedule, one evaluation on 2,000 test images at
the end. Networks alternate between the two spaces of `ground_spaces`, under four budgets; 55 % fill the budget, 45 % do not,
and later every third is a neighbour of one of the best so far, as a good search looks there. One of 9 is trained on four
seeds; one of 6 is trained in rungs as well: 12 epochs, the schedule decayed by epoch 4 and begun anew. Each part appends
rows to its own file, and begins where that ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from ground_spaces import (
    BUDGETS,
    EPOCHS,
    IMAGES,
    LONG_EPOCHS,
    MACS,
    RECIPES,
    SIDE,
    SPACES,
    VALIDATION,
    candidate,
    draw,
    mutate,
)
from small_images import small_images

from search.files import read_json, write_json

HERE = Path(__file__).resolve().parent
TABLE = HERE / "table.json"
REPEATED, REPEATS = (18, (5, 14)), (1, 2, 3)  # of every 18 networks two, one in each of two parts; seeds beside 0
LONG, LONG_SEED = (12, (3, 8)), 4  # of every 12 networks two, one in each of two parts
EVOLVED_FROM, EVOLVED = 100, 3  # networks of a space; from then on every third is a neighbour of one of the best
RECYCLED = 120  # trainings of a process, which keeps 7 MB of each

Row = dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("train", "status", "pack"))
    options.add_argument("data", type=Path, nargs="?", help="CIFAR-10 as .npz, for train")
    options.add_argument("--out", type=Path, required=True, help="folder of the rows")
    options.add_argument("--part", default="1/1", help="which of how many processes this is")
    options.add_argument("--networks", type=int, default=840)
    options.add_argument("--minutes", type=float, default=120.0)
    asked = options.parse_args()
    match asked.what:
        case "train":
            number, parts = map(int, asked.part.split("/"))
            train(asked.data, asked.out, number, parts, asked.networks, time.time() + 60 * asked.minutes)
        case "status":
            print(status(asked.out))
        case "pack":
            write_json(TABLE, packed(rows_of(asked.out)))
            print(f"{TABLE}: {TABLE.stat().st_size:,} bytes")


# --- training --------------------------------------------------------------------------------------------------------


def train(data_path: Path, out: Path, number: int, parts: int, networks: int, end: float) -> None:
    """Train the first `networks` of one part until the time `end`, in this process or its successors."""
    limit_tensorflow()
    data = small_images(data_path, IMAGES, VALIDATION, SIDE)
    out.mkdir(parents=True, exist_ok=True)
    trained = 0
    for network in range(number - 1, networks, parts):
        for job in jobs(network, rows_of(out)):
            if time.time() > end:
                return
            append(out / f"part-{number}.jsonl", job | run(job, data))
            trained += 1
        if trained >= RECYCLED:
            left = f"{max(0.0, (end - time.time()) / 60):.2f}"
            own = [sys.executable, __file__, "train", str(data_path), "--out", str(out), "--part", f"{number}/{parts}"]
            os.execv(sys.executable, [*own, "--networks", str(networks), "--minutes", left])


def limit_tensorflow() -> None:
    """One thread for this process, of which one runs on each core, and no graph optimizer."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # 0.4 s less a network, trained as fast


def jobs(network: int, rows: list[Row]) -> Iterator[Row]:
    """The trainings of a network that no row holds yet."""
    own = [row for row in rows if row["network"] == network]
    done = {(row["seed"], row["epochs"]) for row in own}
    wanted = [(0, EPOCHS)]
    if network % LONG[0] in LONG[1]:
        wanted.append((LONG_SEED, LONG_EPOCHS))
    if network % REPEATED[0] in REPEATED[1]:
        wanted += [(seed, EPOCHS) for seed in REPEATS]
    if done.issuperset(wanted):
        return
    shared = ("network", "space", "origin", "budget", "values")
    described = {name: own[0][name] for name in shared} if own else proposed(network, rows)
    for seed, epochs in wanted:
        if (seed, epochs) not in done:
            yield described | {"seed": seed, "epochs": epochs}


def proposed(network: int, rows: list[Row]) -> Row:
    """A new network by its number, and by the best rows where it is a neighbour of one."""
    generator = random.Random(f"network {network}")
    space = list(SPACES)[generator.randrange(2)]
    budget = generator.choice(BUDGETS)
    origin = generator.choices(("filled", "narrower", "uniform"), (55, 20, 25))[0]
    pool = [row for row in rows if row["space"] == space and row["seed"] == 0]
    if len(pool) >= EVOLVED_FROM and network % (2 * EVOLVED) < 2:  # both of a pair of parts
        origin = "neighbour"
        affordable = [row for row in pool if row["params"] < budget]
        best = sorted(affordable, key=lambda row: -row["accuracy"][-1])[: max(5, len(affordable) // 10)]
        values = mutate(space, budget, generator.choice(best)["values"], generator)
    else:
        values = draw(space, budget, origin, generator)
    return {"network": network, "space": space, "origin": origin, "budget": budget, "values": values}


def run(job: Row, data: Any) -> Row:
    """Accuracies of a training at its evaluated epochs, with its costs."""
    from search.training.engine.epoch import plan_epoch
    from search.training.train import open_engine, pixels_of

    proposal = candidate(job["space"], job["values"])
    is_long = job["epochs"] == LONG_EPOCHS
    recipe = proposal.recipe.model_copy(update={"epochs": job["epochs"], "restarts": (EPOCHS,) if is_long else ()})
    evaluated = (EPOCHS // 2, EPOCHS, 2 * EPOCHS, LONG_EPOCHS) if is_long else (EPOCHS,)
    started, compiled, accuracies = time.process_time(), 0.0, []
    seed = 1000 * job["network"] + job["seed"]
    try:
        engine = open_engine(proposal.architecture, data, recipe, pixels_of(data, recipe), seed=seed, dtype="float32")
        compiled = time.process_time() - started
        for epoch in range(recipe.epochs):
            plan = plan_epoch(recipe, IMAGES, seed, epoch)
            engine.begin(plan)
            engine.train(0, plan.steps)
            if epoch + 1 in evaluated:
                accuracies.append(round(engine.evaluate().accuracy, 4))
    except (ArithmeticError, MemoryError) as error:
        print(job, error, flush=True)
        accuracies = [0.1] * len(evaluated)
    cost = proposal.cost
    return {
        "accuracy": accuracies,
        "params": cost.params,
        "macs": cost.macs,
        "compile_s": round(compiled, 2),
        "cpu_s": round(time.process_time() - started, 2),
    }


# --- rows ------------------------------------------------------------------------------------------------------------


def append(path: Path, row: Row) -> None:
    """Append a row on a line of its own, also after a line that a kill has cut."""
    is_cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * is_cut + json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def rows_of(out: Path) -> list[Row]:
    """All rows of all parts."""
    return [row for path in sorted(out.glob("part-*.jsonl")) for row in rows_in(path)]


def rows_in(path: Path) -> list[Row]:
    """The rows of a file, none if it does not exist; a line that a kill has cut is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def status(out: Path) -> str:
    """Counts and CPU-seconds of the rows, and the rate of the last ten minutes."""
    rows = rows_of(out)
    networks = Counter(row["space"] for row in rows if row["seed"] == 0)
    lines = [
        f"{len(rows)} trainings, {sum(row['cpu_s'] for row in rows):,.0f} CPU-s "
        f"({sum(row['compile_s'] for row in rows):,.0f} compiling); networks: {dict(networks)}; "
        f"long {sum(row['epochs'] == LONG_EPOCHS for row in rows)}, "
        f"repeated {len({row['network'] for row in rows if row['seed'] == REPEATS[-1]})}"
    ]
    for space in SPACES:
        short = [row for row in rows if row["space"] == space and row["seed"] == 0]
        for origin in ("filled", "narrower", "uniform", "neighbour"):
            if scores := [row["accuracy"][-1] for row in short if row["origin"] == origin]:
                spread = np.std(scores, ddof=1) if len(scores) > 1 else 0.0
                lines.append(
                    f"{space} {origin}: n {len(scores)}, mean {np.mean(scores):.3f}, sd {spread:.3f}, best {max(scores):.3f}"
                )
        if short:
            seconds = [row["cpu_s"] for row in short]
            lines.append(f"{space}: {np.mean(seconds):.2f} CPU-s a training, most {max(seconds)}")
    return "\n".join(lines)


def packed(rows: list[Row]) -> dict[str, Any]:
    """The rows in columns, one network a row, with its trainings by seed."""
    networks: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: (row["network"], row["seed"])):
        network = networks.setdefault(
            row["network"],
            {name: row[name] for name in ("network", "space", "origin", "budget", "params", "macs")}
            | {"values": _short(row["values"]), "accuracy": {}, "long": None, "cpu_s": row["cpu_s"]},
        )
        if row["epochs"] == LONG_EPOCHS:
            network["long"] = row["accuracy"]
        else:
            network["accuracy"][str(row["seed"])] = row["accuracy"][-1]
    return {
        "about": {
            "data": "CIFAR-10 (JPEG q75 copy), averaged to 16x16",
            "images": IMAGES,
            "validation": VALIDATION,
            "epochs": EPOCHS,
            "long": {"epochs": LONG_EPOCHS, "restart": EPOCHS, "evaluated": [EPOCHS // 2, EPOCHS, 2 * EPOCHS, LONG_EPOCHS]},
            "macs": MACS,
            "spaces": SPACES,
            "recipes": RECIPES,
        },
        "networks": list(networks.values()),
    }


def _short(values: Row) -> Row:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in values.items()}


def read_table(path: Path = TABLE) -> list[Row]:
    """The networks of the packed table that have their first training."""
    networks: list[Row] = read_json(path)["networks"]
    return [network for network in networks if "0" in network["accuracy"]]


if __name__ == "__main__":
    main()
