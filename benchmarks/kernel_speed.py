"""A training step with and without the arrangements of `search.training.engine.onednn` and `fused`, in turn in one process.

    python benchmarks/kernel_speed.py --data CIFAR.npz [--study cifar10_100k_night] [--networks 6] [--rounds 3] [--json FILE]

First single operations: the gradient of a depthwise kernel by its columns, plain and in strips; batch norm by its channels,
plain and on groups of pixels; elementwise functions and gates, plain and compiled; medians of nine calls, ms. Then random
networks of a study that fill its budget, and the published ones that --references names, each trained by two engines that
differ in nothing else; CPU time of an epoch of --images images, medians over rounds. One core, if that is wanted, by
`taskset -c 1`.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from search.files import write_json
from search.training.device import dtype_policy, prepare_device


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz")
    options.add_argument("--study", default="cifar10_100k_night")
    options.add_argument("--networks", type=int, default=6, help="number of random ones")
    options.add_argument("--references", nargs="*", default=["eip-b", "eip-d"])
    options.add_argument("--images", type=int, default=1280)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    prepare_device()
    operations = {**depthwise_gradients(), **batch_norms(), **elementwise()}
    data = data_of(asked)
    rows = []
    for name, network, recipe in [*published(asked.references), *drawn(asked, data)]:
        row = {"network": name, **compared(network, recipe, data, asked.rounds)}
        rows.append(row)
        print(f"{name:60} {row['plain']:6.2f} {row['arranged']:6.2f} CPU-ms an image, {row['ratio']:.2f} times", flush=True)
    print(f"mean ratio {statistics.geometric_mean(row['ratio'] for row in rows):.2f}")
    if asked.json:
        write_json(
            asked.json, {"operations_ms": operations, "images": asked.images, "rounds": asked.rounds, "networks": rows}
        )


def depthwise_gradients(images: int = 64, side: int = 32, channels: int = 48) -> dict[str, list[float]]:
    """[plain, in strips] of a kernel of 5 rows, by columns; in strips from 4 columns on."""
    import tensorflow as tf

    from search.training.engine import onednn

    x, slope = (tf.random.normal((images, side, side, channels)) for _ in range(2))
    times = {}
    for columns in (1, 2, 3, 4, 5, 7):
        shape = [5, columns, channels, 1]

        def plain(x: Any, slope: Any, shape: list[int] = shape) -> Any:
            return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x, filter_sizes=shape, out_backprop=slope, strides=[1] * 4, padding="SAME"
            )

        def strips(x: Any, slope: Any, shape: list[int] = shape) -> Any:
            return onednn.kernel_gradient(x, slope, shape, 1, "same")

        kinds = (plain, strips) if columns > onednn.STRIP else (plain,)
        times[f"gradient of a depthwise kernel, 5 x {columns}"] = [milliseconds(kind, x, slope) for kind in kinds]
    return shown(times)


def batch_norms(images: int = 128, side: int = 32) -> dict[str, list[float]]:
    """[plain, on groups of pixels] by channels, in training: forward, then its gradients."""
    import tensorflow as tf

    from search.training.engine import onednn

    times = {}
    for channels in (16, 17, 18, 20, 24, 28, 32, 34, 36, 40, 48, 56, 64, 76, 80, 156):
        x, scale, offset = tf.random.normal((images, side, side, channels)), tf.ones(channels), tf.zeros(channels)
        group = onednn.group_of(channels, side * side)

        def plain(x: Any, scale: Any = scale, offset: Any = offset) -> Any:
            return tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=1e-3).y

        def grouped(x: Any, scale: Any = scale, offset: Any = offset, group: int = group) -> Any:
            return onednn.grouped_batch_norm(x, scale, offset, 1e-3, group)[0]

        kinds = (plain, grouped) if group > 1 else (plain,)
        times[f"batch norm of {channels} channels"] = [milliseconds(kind, x) for kind in kinds]
        times[f"batch norm of {channels} channels, both ways"] = [milliseconds(both_ways(kind), x) for kind in kinds]
    return shown(times)


def elementwise(shape: tuple[int, ...] = (128, 32, 32, 80)) -> dict[str, list[float]]:
    """[plain, compiled] of functions and of gates, both ways."""
    import keras
    import tensorflow as tf

    from search.training.engine.fused import COMPOSED, fused
    from search.training.engine.layers import gate_of

    x, times = tf.random.normal(shape), {}
    functions = {name: keras.activations.get(name) for name in sorted(COMPOSED)}
    for name, function in (functions | {f"gate of {name}": gate_of(name) for name in ("sigmoid", "silu")}).items():
        kinds = (function, functools.partial(fused, function))
        times[f"{name}, both ways"] = [milliseconds(both_ways(kind), x) for kind in kinds]
    return shown(times)


def both_ways(function: Any) -> Any:
    import tensorflow as tf

    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, y)

    return run


def milliseconds(function: Any, *inputs: Any, calls: int = 9) -> float:
    import tensorflow as tf

    compiled, times = tf.function(lambda *inputs: tf.reshape(function(*inputs), [-1])[0], autograph=False), []
    for _ in range(calls + 1):
        started = time.perf_counter()
        compiled(*inputs).numpy()
        times.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(times[1:]), 2)


def shown(times: dict[str, list[float]]) -> dict[str, list[float]]:
    for name, values in times.items():
        print(f"{name:45} {' '.join(f'{value:6.1f}' for value in values)} ms", flush=True)
    return times


def data_of(asked: argparse.Namespace) -> Any:
    from search.data.dataset import load_dataset

    return load_dataset("cifar10", asked.data, protocol="holdout", holdout=0.1, images=asked.images)


def published(names: list[str]) -> list[tuple[str, Any, Any]]:
    from search.study.references import named
    from search.training.recipe import Recipe

    return [(name, named(name).architecture, Recipe()) for name in names]


def drawn(asked: argparse.Namespace, data: Any) -> list[tuple[str, Any, Any]]:
    """Random networks of the study, with the parameters that matter here in their names."""
    from search.study import study_file
    from search.tuning.bayes.candidates import Candidates
    from search.tuning.candidate import Candidate, DataFacts, judge

    config, facts = study_file.load(study_file.find(asked.study)[1]), DataFacts.of(data)
    source, networks = Candidates(config, facts, random.Random(asked.seed), {}), []
    while len(networks) < asked.networks:
        values = source.random(is_alone=True)
        if values is None or not isinstance(candidate := judge(config, facts, values), Candidate):
            continue
        parts = [f"{name}={value}" for name, value in values.items() if name.startswith(("block", "width", "kernel"))]
        networks.append((" ".join(parts), candidate.architecture, candidate.recipe))
    return networks


def compared(network: Any, recipe: Any, data: Any, rounds: int) -> dict[str, float]:
    """Median CPU time in ms an image without and with the arrangements, and their ratio."""
    from search.training.engine import tensorflow_layers

    arranged = epochs_of(network, recipe, data)
    with (
        mock.patch.object(tensorflow_layers, "has_strips", lambda: False),
        mock.patch.object(tensorflow_layers, "group_of", lambda *_: 1),
        mock.patch.object(tensorflow_layers, "is_fused", lambda _: False),
    ):
        plain = epochs_of(network, recipe, data)
    seconds: dict[str, list[float]] = {"plain": [], "arranged": []}
    for turn in range(rounds + 1):
        for name, epoch in (("plain", plain), ("arranged", arranged)):
            started = time.process_time()
            epoch(turn % recipe.epochs)
            seconds[name].append(time.process_time() - started)
    medians = {name: 1000 * statistics.median(values[1:]) / len(data.x_train) for name, values in seconds.items()}
    return {**medians, "ratio": medians["plain"] / medians["arranged"]}


def epochs_of(network: Any, recipe: Any, data: Any) -> Any:
    """A function that trains an epoch of an engine of its own."""
    from search.data.preprocessing import Pixels
    from search.training.engine.epoch import plan_epoch
    from search.training.train import CallLength, open_engine

    engine = open_engine(network, data, recipe, Pixels(), seed=0, dtype=dtype_policy(recipe.precision))
    length = CallLength()

    def epoch(number: int) -> None:
        plan = plan_epoch(recipe, len(data.x_train), 0, number)
        engine.begin(plan)
        for first, last in length.calls(plan.steps):
            engine.train(first, last)

    return epoch


if __name__ == "__main__":
    main()
