"""Seconds an epoch on a GPU, by form of the depthwise convolution, precision and number of parallel trials.

    KERAS_BACKEND=jax python benchmarks/gpu_speed.py --data CIFAR.npz --json OUT.json [--images 50000] [--epochs 3]

trains `eip-b` and a residual net of 44 M multiply-adds, with flip and crop, through the engine of Keras' backend: on JAX
with grouped and with shifted depthwise convolutions, on TensorFlow as a graph and compiled by XLA (shifted). Then trials an
hour of `eip-b` with 1, 4 and 8 processes on the card. Compile time stands apart, and its share of 50 epochs beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SHARED = (1, 4, 8)  # processes on one card


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz")
    options.add_argument("--images", type=int, help="of the training images; all without it")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--nets", default="eip-b,residual")
    options.add_argument("--precisions", default="float32,bfloat16")
    options.add_argument("--processes", default=",".join(map(str, SHARED)))
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--one", help=argparse.SUPPRESS)  # net/form/precision
    asked = options.parse_args()
    if asked.one:
        print(json.dumps(measure(*asked.one.split("/"), asked)), flush=True)
        return
    found: dict[str, Any] = {"backend": os.environ.get("KERAS_BACKEND", "tensorflow"), "alone": {}, "together": {}}
    forms = ("shifted", "grouped") if found["backend"] == "jax" else ("graph", "xla")
    for net in asked.nets.split(","):
        for form in forms:
            for precision in asked.precisions.split(","):
                one = f"{net}/{form}/{precision}"
                found["alone"][one] = finish(begin(one, asked))
                report(one, found["alone"][one])
                asked.json.write_text(json.dumps(found, indent=1) + "\n")  # what is measured stays, whatever comes
    if all("failed" in one for one in found["alone"].values()):
        sys.exit("nothing could be trained")
    best = min((one for one in found["alone"] if one.startswith("eip-b/")), key=lambda one: seconds(found["alone"][one]))
    for count in map(int, asked.processes.split(",")):
        together = [finish(process) for process in [begin(best, asked) for _ in range(count)]]
        slowest = max((seconds(one) for one in together), default=float("inf"))
        hour = count * 3600 / (50 * slowest)
        found["together"][count] = {"net": best, "seconds_an_epoch": slowest, "trials_an_hour": hour, "each": together}
        print(f"{count} processes: {slowest:.2f} s an epoch, {hour:.1f} trials of 50 epochs an hour", flush=True)
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def begin(one: str, asked: argparse.Namespace) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "--data", str(asked.data), "--epochs", str(asked.epochs), "--json", str(asked.json)]
    words += ["--images", str(asked.images)] if asked.images else []
    return subprocess.Popen([*words, "--one", one], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    lines = process.communicate()[0].splitlines()
    return dict(json.loads(lines[-1])) if process.returncode == 0 and lines else {"failed": process.returncode}


def seconds(found: dict[str, Any]) -> float:
    return statistics.median(found["epochs"][1:] or found["epochs"]) if "epochs" in found else float("inf")


def report(one: str, found: dict[str, Any]) -> None:
    if "failed" in found:
        print(f"{one}: failed with exit status {found['failed']}", flush=True)
        return
    share = found["compile_seconds"] / (found["compile_seconds"] + 50 * seconds(found))
    print(
        f"{one}: {seconds(found):.2f} s an epoch, {found['compile_seconds']:.1f} s to compile ({share:.0%} of 50 epochs), "
        f"loss {found['loss']:.4f}, validation {found['val_accuracy']:.2%}, {found['device']}",
        flush=True,
    )


# --- one training, in its process ------------------------------------------------------------------------------------


def measure(net: str, form: str, precision: str, asked: argparse.Namespace) -> dict[str, Any]:
    from search.training.device import dtype_policy, prepare_device

    device = prepare_device().description
    from search.data.dataset import load_dataset
    from search.data.preprocessing import Pixels
    from search.training.engine.epoch import plan_epoch
    from search.training.recipe import Augment, OneCycle, Recipe
    from search.training.train import open_engine

    if os.environ.get("KERAS_BACKEND") == "jax" and form == "grouped":
        from search.training.engine import jax as engine_module

        engine_module.SHIFTED.clear()
    data = load_dataset("cifar10", asked.data, protocol="course", holdout=0.1, images=asked.images)
    recipe = Recipe(learning_rate=0.003, schedule=OneCycle(), augment=Augment(flip=True, crop=4))
    policy = dtype_policy(precision)
    if form == "xla":
        from search.training.engine.xla import XlaEngine

        engine: Any = XlaEngine(network(net), data, recipe, Pixels(), seed=0, dtype=policy)
    else:
        engine = open_engine(network(net), data, recipe, Pixels(), seed=0, dtype=policy)
    epochs = []
    for number in range(asked.epochs):
        started = time.monotonic()
        plan = plan_epoch(recipe, len(data.x_train), 0, number)
        engine.begin(plan)
        sums = engine.train(0, plan.steps)
        accuracy = engine.evaluate().accuracy
        epochs.append(time.monotonic() - started)
    loss = sums.loss / len(plan.order)
    outcome = {"device": device, "loss": loss, "val_accuracy": accuracy}
    return {"epochs": epochs, "compile_seconds": engine.compile_seconds} | outcome


def network(name: str) -> Any:
    from search.networks.architecture import Architecture
    from search.networks.layers import BatchNorm, Gate, GlobalAveragePool, Layer, Residual, SeparableConv, Softmax
    from search.study.references import find

    if name != "residual":
        return find(name).architecture

    def blocks(width: int) -> list[Layer]:
        wide, narrow = SeparableConv(2 * width, 5), SeparableConv(width, 3)
        norm = BatchNorm(momentum=0.9)
        return [Residual((wide, norm, Gate("silu"), narrow, norm)) for _ in range(3)]

    layers = [
        *(SeparableConv(48, 3, depth_multiplier=9), BatchNorm(momentum=0.9), *blocks(48)),
        *(SeparableConv(76, 3, stride=2), *blocks(76), SeparableConv(10, 1, use_bias=True), GlobalAveragePool(), Softmax()),
    ]
    return Architecture((32, 32, 3), 10, tuple(layers), "residual")


if __name__ == "__main__":
    main()
