"""Compiled programs of the TensorFlow engine over all layer kinds and recipe options, traced as for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args
from unittest import mock

import numpy as np
import tensorflow as tf

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Function,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.training.engine.tensorflow import TensorFlowEngine
from search.training.recipe import Recipe

POLICIES = ("float32", "mixed_bfloat16")
FUNCTIONS: tuple[Function, ...] = get_args(Function)
SIZE, CLASSES = (16, 16, 3), 10


@dataclass(frozen=True)
class Case:
    """A network under a recipe and a Keras dtype policy."""

    name: str
    network: Architecture
    recipe: Recipe
    policy: str = "float32"


def network(name: str, *layers: Layer, size: tuple[int, int, int] = SIZE) -> Architecture:
    return Architecture(size, CLASSES, (*layers, GlobalAveragePool(), Dense(CLASSES), Softmax()), name)


def networks() -> list[Architecture]:
    """Networks that hold, together, every layer kind with each of its options."""
    functions: list[Layer] = []
    gates: list[Layer] = []
    for function in FUNCTIONS:
        functions += [SeparableConv(8, 3), BatchNorm(), Activation(function)]
        gates += [SeparableConv(16, 3), Gate(function), BatchNorm()]
    norm, wide, narrow = BatchNorm(momentum=0.9), SeparableConv(32, 5), SeparableConv(16, 3)
    block = Residual((wide, norm, Gate("silu"), narrow, norm, Dropout(0.1)))
    return [
        network("functions", *functions),
        network("gates", *gates),
        network("pools", SeparableConv(8), MaxPool(), AveragePool(), MaxPool(3, 2, "same"), AveragePool(2, 1, "same")),
        network(
            "separable",
            *(
                SeparableConv(8, 3, depth_multiplier=4),
                SeparableConv(8, 3, padding="valid"),
                SeparableConv(8, 3, dilation=2),
            ),
            *(SeparableConv(8, 5, dilation=3), SeparableConv(8, 5, stride=2), SeparableConv(8, 2), SeparableConv(8, 1)),
            SeparableConv(8, 3, stride=3, padding="valid", use_bias=True),
        ),
        network(
            "spatial",
            *(SpatialSeparableConv(8, 3), SpatialSeparableConv(8, 5, stride=2), SpatialSeparableConv(8, 3, dilation=2)),
            SpatialSeparableConv(8, 3, padding="valid", use_bias=True),
        ),
        network(
            "conv",
            *(Conv(8, 3), Conv(8, 3, stride=2), Conv(8, 3, dilation=2), Conv(8, 1, use_bias=True)),
            Conv(8, 3, padding="valid"),
        ),
        network("shared", SeparableConv(8), *[SeparableConv(8, weights="a"), BatchNorm()] * 2, size=(12, 12, 1)),
        network(
            "residual",
            *(SeparableConv(16, 3, depth_multiplier=9), norm, block, block),
            Residual((SeparableConv(24, 3, stride=2), norm), (AveragePool(2), SeparableConv(24, 1))),
        ),
        Architecture(
            SIZE,
            CLASSES,
            (
                *(Conv(8, 3), BatchNorm(epsilon=1e-6), MaxPool(4), Flatten(), Dense(32), BatchNorm(), Activation("gelu")),
                *(Gate("silu"), Dropout(0.5), Dense(CLASSES), Softmax()),
            ),
            "flat",
        ),
    ]


AUGMENTED = {"flip": True, "crop": 4, "shift": 0.2, "zoom": 0.2, "rotation": 20.0, "cutout": 8, "mixup": 0.2}
EVERYTHING: dict[str, Any] = {
    **{"optimizer": "adamw", "augment": AUGMENTED, "ema": 0.99, "clip_norm": 1.0, "weight_decay": 0.01},
    **{"class_weights": "balanced", "label_smoothing": 0.1, "normalize": True},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    **{name: {"augment": {name: value}} for name, value in AUGMENTED.items()},
    "alternating, 2 passes": {"augment": {"flip": "alternating", "passes": 2}},
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "sgd": {"optimizer": "sgd", "weight_decay": 0.01},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
    **{name: {name: EVERYTHING[name]} for name in ("ema", "clip_norm", "class_weights", "label_smoothing", "normalize")},
    "cosine": {"schedule": {"kind": "cosine"}},
}


def cases() -> Iterator[Case]:
    """Every network under a recipe with everything in both precisions, and a small network under each option alone."""
    plain = {"epochs": 2, "batch_size": 10}
    for architecture in networks():
        for policy in POLICIES:
            yield Case(architecture.name, architecture, Recipe.model_validate(plain | EVERYTHING), policy)
    small = network("small", SeparableConv(16), BatchNorm(), Activation("relu"), MaxPool(), Dropout(0.2), size=(8, 8, 3))
    for name, options in OPTIONS.items():
        yield Case(name, small, Recipe.model_validate(plain | options))


def noise(architecture: Architecture, images: int) -> Dataset:
    """Random images of the network's size for training and validation."""
    x = np.random.default_rng(0).integers(0, 256, (images, *architecture.input), dtype=np.uint8)
    y = np.arange(images) % architecture.classes
    names = tuple(str(label) for label in range(architecture.classes))
    return Dataset("noise", x, y, x, y, None, None, names, "course", "0" * 16)


def engine_for(case: Case, images: int = 20) -> TensorFlowEngine:
    """An engine on random images, for the device that `search.training.device.is_accelerated` reports."""
    channels = case.network.input[2]
    pixels = Pixels((0.5,) * channels, (0.25,) * channels) if case.recipe.normalize else Pixels()
    return TensorFlowEngine(case.network, noise(case.network, images), case.recipe, pixels, seed=0, dtype=case.policy)


def nodes_for_a_gpu(case: Case) -> Iterator[Any]:
    """Nodes of the training and evaluation programs with the functions they call, as they are traced on a GPU; none runs."""

    def trace(engine: TensorFlowEngine, function: Any, arguments: int) -> Any:
        scalar = tf.TensorSpec([], tf.int32)
        return tf.function(function, autograph=False).get_concrete_function(*[scalar] * arguments)

    with (
        mock.patch("search.training.device.is_accelerated", return_value=True),
        mock.patch.object(TensorFlowEngine, "_compile", trace),
    ):
        engine = engine_for(case)
    for program in [*engine._train.values(), engine._evaluate]:
        graph = program.graph.as_graph_def()
        yield from graph.node
        for function in graph.library.function:
            yield from function.node_def
