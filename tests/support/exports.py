"""Shared by the tests of exporter and source."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from search.data.preprocessing import Pixels
from search.export.exporter import Exported, export
from search.export.keras_source import is_stack
from search.networks.architecture import Architecture, load
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.seeds import generator
from search.training.model import build

ROOT = Path(__file__).parents[2]
NORMALISED = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def net(*layers: Layer, input: tuple[int, int, int] = (12, 11, 3), name: str = "net") -> Architecture:
    return Architecture(input, 2, (*layers, GlobalAveragePool(), Dense(2), Softmax()), name)


EXPLICIT = {
    "convolutions": net(
        SeparableConv(4, 3, dilation=2, depth_multiplier=2, use_bias=True),
        SeparableConv(4, 2, stride=2, padding="valid"),
        Conv(6, 3, use_bias=True),
        Conv(6, 1, stride=2),
        Conv(4, 2, dilation=2, padding="valid"),
    ),
    "spatial": net(
        SpatialSeparableConv(8, 3, stride=2, use_bias=True),
        SpatialSeparableConv(8, 1),
        SpatialSeparableConv(6, 2, dilation=2, padding="valid"),
    ),
    "elementwise": net(
        BatchNorm(0.9, 1e-5), Activation("hard_silu"), Dropout(0.0), Dropout(0.3), BatchNorm(), Activation("gelu")
    ),
    "pools": net(
        MaxPool(3, 1), MaxPool(3, 1, "same"), AveragePool(2, 2), AveragePool(3, 2, "same"), MaxPool(1), SeparableConv(3)
    ),
    "vector": Architecture((4, 5, 1), 3, (Flatten(), Dense(7, use_bias=False), Activation("relu6"),
                                          Flatten(), Dense(6), Gate(), Softmax())),
    "no classifier": Architecture((4, 5, 1), 20, (Flatten(), Softmax())),
    "gates": net(SeparableConv(8), Gate("silu"), SpatialSeparableConv(4), Gate(), Residual((SeparableConv(4), Gate()))),
    "residuals": net(
        Conv(4),
        Residual((SeparableConv(4), BatchNorm(), Activation("relu"))),
        Residual((SeparableConv(6, stride=2),), (AveragePool(2, padding="same"), Conv(6, 1))),
        Residual(
            (SeparableConv(6), Residual((SpatialSeparableConv(6), Gate("tanh"), Conv(6, 1)))),
            (Residual((BatchNorm(),), (BatchNorm(0.5),)), Residual((), (Conv(6, 1),))),
        ),
        Residual((), ()),
    ),
    "shared weights": net(
        SeparableConv(4, 5, weights="a"),
        *(Residual((SeparableConv(4, 3, weights="b"), BatchNorm(), SpatialSeparableConv(4, weights="c"))),) * 2,
        Conv(4, 1, weights="d"), BatchNorm(), Conv(4, 1, weights="d"), SpatialSeparableConv(4, weights="c"),
    ),
    "shared weights, no branch": net(SeparableConv(3, weights="a"), BatchNorm(), SeparableConv(3, weights="a")),
}  # fmt: skip


def references() -> dict[str, Architecture]:
    return {path.stem: load(path) for path in sorted((ROOT / "studies" / "references").glob("*.json"))}


NETWORKS = references() | EXPLICIT


def some_weights(architecture: Architecture) -> list[Any]:
    """Weights of which no two arrays are alike, so that an exchange of two of them shows."""
    random = generator(1, "weights")
    own = build(architecture).get_weights()
    return [array * random.uniform(0.8, 1.2, array.shape) + random.uniform(0, 0.05, array.shape) for array in own]


def exported(architecture: Architecture, folder: Path, **changes: Any) -> Exported:
    """An export, of a trained network in the formats that Keras reads if no others are asked for."""
    arguments: dict[str, Any] = {"weights": None, "facts": {}, "pixels": Pixels(), "recipe": None} | changes
    if arguments["weights"] is not None:
        arguments = {"formats": ["py", "keras", *(["add"] if is_stack(architecture) else [])]} | arguments
    return export(architecture, folder, **arguments)


def take_away(architecture: Architecture, folder: Path, **changes: Any) -> dict[str, Path]:
    """The first file of each format of an export in which none fails."""
    done = exported(architecture, folder, **changes)
    assert not done.failed
    return {name: paths[0] for name, paths in done.paths.items()}


def run(source: str, name: str = "exported") -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, "best_model.py", "exec"), module.__dict__)
    return module


def images(architecture: Architecture) -> Any:
    return generator(2, "images").integers(0, 256, (3, *architecture.input), dtype=np.uint8)
