"""Shared Hypothesis strategies: random networks that exist, random [space] tables with parameters for them.

Sizes are followed here by hand (`window`), so that what the strategies promise does not rest on `search.networks.geometry`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, get_args

from hypothesis import strategies as st

from search.networks.architecture import Architecture, load
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
    Padding,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.spaces.domains import Value
from search.spaces.pyramid import Head, Order
from search.training.recipe import Augment, Constant, Cosine, InverseTime, Linear, OneCycle, Plateau, Recipe
from space import Pyramid, ResidualStages, Space, parameters

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

ROOT = Path(__file__).parents[2]
REFERENCES = ("base", "eip-a", "eip-b", "eip-c", "eip-c-late", "eip-d")
FUNCTIONS: tuple[Function, ...] = get_args(Function)
ORDERS: tuple[Order, ...] = get_args(Order)
TAIL: tuple[Layer, ...] = (GlobalAveragePool(), Dense(2), Softmax())


def reference(name: str) -> Architecture:
    return load(ROOT / "studies" / "references" / f"{name}.json")


def net(*layers: Layer, side: int = 12, channels: int = 3, tail: tuple[Layer, ...] = TAIL, name: str = "") -> Architecture:
    """The layers under a head for two classes."""
    return Architecture((side, side, channels), 2, (*layers, *tail), name)


# --- architectures ---------------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """Effect of a layer on height and width."""

    reach: int
    stride: int
    padding: Padding


class Map(NamedTuple):
    height: int
    width: int
    channels: int


def window(size: int, taken: Window) -> int:
    """Number of windows that start within `size` pixels, by enumeration (and inside it entirely where padding is valid)."""
    last = size - 1 if taken.padding == "same" else size - taken.reach
    return len(range(0, last + 1, taken.stride))


def _through(shape: Map, taken: Window, channels: int) -> Map:
    return Map(window(shape.height, taken), window(shape.width, taken), channels)


def _draw_window(draw: Draw, shape: Map, *, dilates: bool, widest: int = 5) -> tuple[int, int, int, Padding]:
    """(kernel, stride, dilation, padding) that fit the map."""
    padding: Padding = draw(st.sampled_from(("same", "same", "valid")))
    least = min(shape.height, shape.width)
    kernel = draw(st.integers(1, widest if padding == "same" else min(widest, least)))
    dilation = draw(st.integers(1, 3)) if dilates and draw(st.booleans()) else 1
    if padding == "valid" and (kernel - 1) * dilation + 1 > least:
        dilation = 1
    stride = draw(st.sampled_from((1, 1, 2, 3))) if dilation == 1 else 1
    return kernel, stride, dilation, padding


def _draw_conv(draw: Draw, shape: Map) -> tuple[Layer, Map, list[Window]]:
    kind = draw(st.sampled_from(("separable", "spatial", "conv")))
    kernel, stride, dilation, padding = _draw_window(draw, shape, dilates=True)
    filters, use_bias = draw(st.integers(1, 6)), draw(st.booleans())
    layer: Layer
    if kind == "separable":
        layer = SeparableConv(filters, kernel, stride, padding, dilation, draw(st.sampled_from((1, 1, 2, 3))), use_bias)
    elif kind == "spatial":
        layer = SpatialSeparableConv(filters, kernel, stride, padding, dilation, use_bias)
    else:
        layer = Conv(filters, kernel, stride, padding, dilation, use_bias)
    taken = Window((kernel - 1) * dilation + 1, stride, padding)
    return layer, _through(shape, taken, filters), [taken]


def _draw_pool(draw: Draw, shape: Map) -> tuple[Layer, Map, list[Window]]:
    kernel, stride, _, padding = _draw_window(draw, shape, dilates=False, widest=3)
    declared = draw(st.sampled_from((None, stride)))
    taken = Window(kernel, declared or kernel, padding)
    pool = draw(st.sampled_from((MaxPool, AveragePool)))
    return pool(kernel, declared, padding), _through(shape, taken, shape.channels), [taken]


def _draw_projection(draw: Draw, windows: Sequence[Window], channels: int) -> tuple[Layer, ...]:
    """A shortcut that takes the same windows as its branch, and ends in as many channels."""
    layers: list[Layer] = []
    for reach, stride, padding in windows:
        if padding == "valid" or (reach > 1 and draw(st.booleans())):
            layers.append(draw(st.sampled_from((MaxPool, AveragePool)))(reach, stride, padding))
        elif stride > 1:
            layers.append(SeparableConv(draw(st.integers(1, 4)), 1, stride))
    return (*layers, draw(st.sampled_from((SeparableConv, Conv)))(channels, 1))


def _draw_residual(draw: Draw, shape: Map, depth: int, functions: Sequence[Function]) -> tuple[Layer, Map, list[Window]]:
    branch, end, windows = _draw_map_layers(draw, shape, draw(st.integers(0, 3)), depth + 1, functions)
    shortcut: tuple[Layer, ...] = ()
    if end != shape or draw(st.booleans()):
        shortcut = _draw_projection(draw, windows, end.channels)
    if draw(st.booleans()):
        branch, shortcut = shortcut, branch
    return Residual(branch, shortcut), end, windows


def _draw_map_layers(
    draw: Draw, shape: Map, count: int, depth: int, functions: Sequence[Function]
) -> tuple[tuple[Layer, ...], Map, list[Window]]:
    layers: list[Layer] = []
    windows: list[Window] = []
    for _ in range(count):
        kinds = ["conv", "conv", "pool", "batch_norm", "activation", "dropout"]
        kinds += ["gate", "gate"] if shape.channels % 2 == 0 else []
        kinds += ["residual"] * 2 if depth < 3 else []
        kind = draw(st.sampled_from(kinds))
        if kind == "conv":
            layer, shape, taken = _draw_conv(draw, shape)
        elif kind == "pool":
            layer, shape, taken = _draw_pool(draw, shape)
        elif kind == "residual":
            layer, shape, taken = _draw_residual(draw, shape, depth, functions)
        elif kind == "gate":
            layer, shape, taken = Gate(draw(st.sampled_from(functions))), shape._replace(channels=shape.channels // 2), []
        else:
            layer, taken = draw(plain_layers(functions)), []
        layers.append(layer)
        windows += taken
    return tuple(layers), shape, windows


def _draw_shared(draw: Draw, channels: int) -> tuple[Layer, ...]:
    """A convolution that is used two or three times on the same weights, each time with a batch norm of its own."""
    kind = draw(st.sampled_from((SeparableConv, SpatialSeparableConv, Conv)))
    dilation, use_bias = draw(st.integers(1, 2)), draw(st.booleans())
    conv = kind(channels, draw(st.integers(1, 3)), dilation=dilation, use_bias=use_bias, weights="shared")
    block = (conv, BatchNorm())
    return (block if draw(st.booleans()) else (Residual(block),)) * draw(st.integers(2, 3))


@st.composite
def plain_layers(draw: Draw, functions: Sequence[Function] = FUNCTIONS) -> Layer:
    """A layer that fits any shape and keeps it."""
    kind = draw(st.sampled_from(("batch_norm", "activation", "dropout")))
    if kind == "batch_norm":
        return BatchNorm(draw(st.sampled_from((0.9, 0.99, 0.0))), draw(st.sampled_from((1e-3, 1e-5, 1.0))))
    if kind == "activation":
        return Activation(draw(st.sampled_from(functions)))
    return Dropout(draw(st.sampled_from((0.0, 0.1, 0.5))))


def _draw_vector_layers(draw: Draw, features: int) -> tuple[tuple[Layer, ...], int]:
    layers: list[Layer] = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(("dense", "plain", "gate", "flatten", "residual")))
        if kind == "dense":
            features = draw(st.integers(1, 6))
            layers.append(Dense(features, draw(st.booleans())))
        elif kind == "gate" and features % 2 == 0:
            layers.append(Gate(draw(st.sampled_from(FUNCTIONS))))
            features //= 2
        elif kind == "flatten":
            layers.append(Flatten())
        elif kind == "residual":
            layers.append(Residual((Dense(features), draw(plain_layers()))))
        else:
            layers.append(draw(plain_layers()))
    return tuple(layers), features


@st.composite
def architectures(draw: Draw, most_layers: int = 5, functions: Sequence[Function] = FUNCTIONS) -> Architecture:
    """A network of a few small layers of every kind that resolves."""
    shape = Map(draw(st.integers(5, 11)), draw(st.integers(5, 11)), draw(st.integers(1, 4)))
    classes = draw(st.integers(2, 4))  # Keras warns of a softmax over one
    layers, end, _ = _draw_map_layers(draw, shape, draw(st.integers(1, most_layers)), 0, functions)
    layers += _draw_shared(draw, end.channels) if draw(st.integers(0, 2)) == 0 else ()
    head = draw(st.sampled_from(("conv", "pooled", "flattened")))
    tail: tuple[Layer, ...]
    if head == "conv":
        kernel = draw(st.integers(1, min(end.height, end.width, 3)))
        scores = SeparableConv(
            classes, kernel, padding=draw(st.sampled_from(("same", "valid"))), use_bias=draw(st.booleans())
        )
        tail = (scores, GlobalAveragePool(), *draw(st.sampled_from(((), (Flatten(),)))))
    else:
        features = end.channels if head == "pooled" else math.prod(end)
        vector, _ = _draw_vector_layers(draw, features)
        tail = (GlobalAveragePool() if head == "pooled" else Flatten(), *vector, Dense(classes, draw(st.booleans())))
    name = draw(st.sampled_from(("", "net", "a-b")))
    return Architecture(tuple(shape), classes, (*layers, *tail, Softmax()), name)


@st.composite
def bodies(draw: Draw) -> Architecture:
    """A network whose map is only computed by increasing functions of positive values, as a receptive field is measured."""
    layers, _, _ = _draw_map_layers(draw, Map(24, 24, 2), draw(st.integers(2, 6)), 0, ("relu",))
    return Architecture((24, 24, 2), 2, (*layers, *TAIL))


def narrow(layers: tuple[Layer, ...], filters: int = 2) -> tuple[Layer, ...]:
    """The same windows in the same order with that many filters in each convolution."""
    return tuple(
        replace(layer, filters=filters) if isinstance(layer, SeparableConv | SpatialSeparableConv | Conv) else layer
        for layer in layers
    )


# --- recipes ---------------------------------------------------------------------------------------------------------

DECAYS = (Cosine(), OneCycle(), OneCycle(warmup=0.6, start=3.0), Linear(), Linear(warmup=0.5), Linear(warmup=0.999))
SCHEDULES = (Constant(), InverseTime(rate=0.3), Cosine(), OneCycle(), Linear(), Linear(warmup=0.4), Plateau())


@st.composite
def recipes(draw: Draw) -> Recipe:
    """A training of few epochs, in what its epochs are made of: batches, passes, schedule, flips, mixing."""
    return Recipe(
        epochs=draw(st.integers(1, 4)),
        batch_size=draw(st.integers(1, 70)),
        learning_rate=draw(st.sampled_from((1e-3, 0.1, 3.0))),
        schedule=draw(st.sampled_from(SCHEDULES)),
        augment=Augment(
            passes=draw(st.integers(1, 3)),
            flip=draw(st.sampled_from((False, True, "alternating"))),
            mixup=draw(st.sampled_from((0.0, 0.2, 1.0))),
        ),
    )


# --- spaces ----------------------------------------------------------------------------------------------------------

_WHOLE: list[Any] = [
    4,
    {"low": 4, "high": 12, "step": 4},
    {"low": 3, "high": 11},
    {"low": 2, "high": 32, "log": True},
    [3, 10, 8],  # 10 as many as the classes: a block that looks like a head
]
_RATES: list[Any] = [{"low": 0.0, "high": 0.3, "step": 0.05}, {"low": 0.0, "high": 0.5}, [0.0, 0.07, 0.2], 0.15]


def _one_or_per(draw: Draw, choices: list[Any], part: str) -> Any:
    """One fixed value, or a choice among some of them for the net or for each part."""
    some = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=len(choices), unique=True))
    return draw(st.sampled_from((some[0], some, {"choices": some, "per": part}, {"choices": some, "per": "net"})))


def _draw_widths(draw: Draw, blocks: int) -> Any:
    way = draw(st.sampled_from(("shared", "net", "each")))
    if way == "each":
        return {"each": draw(st.lists(st.sampled_from(_WHOLE), min_size=blocks, max_size=blocks))}
    widths = draw(st.sampled_from(_WHOLE))
    return {**widths, "per": "net"} if way == "net" and isinstance(widths, dict) else widths


def _draw_positions(draw: Draw, blocks: int, pools: int) -> Any:
    places = st.lists(st.integers(1, blocks), min_size=1, max_size=blocks, unique=True)
    way = draw(st.sampled_from(("shared", "net", "each")))
    if way == "each" and pools:
        return {"each": draw(st.lists(places, min_size=pools, max_size=pools))}
    return draw(places) if way == "shared" else {"choices": draw(places), "per": "net"}


@st.composite
def space_tables(draw: Draw) -> dict[str, Any]:
    """A [space] table as a study file writes it."""
    fewest = draw(st.integers(1, 4))
    deepest = fewest + draw(st.integers(0, 3))
    pools = draw(st.integers(0, fewest))
    some_pools: list[Any] = [pools, {"low": 0, "high": pools}] if pools else [0]
    table: dict[str, Any] = {
        "blocks": {"low": fewest, "high": deepest} if fewest < deepest else fewest,
        "width": _draw_widths(draw, deepest),
        "kernel": _one_or_per(draw, [1, 3, 5, 4], "block"),
        "stride": _one_or_per(draw, [1, 2], "block"),
        "padding": _one_or_per(draw, ["same", "valid"], "block"),
        "convolution": _one_or_per(draw, ["separable", "spatial_separable"], "block"),
        "activation": _one_or_per(draw, ["relu", "silu", "gelu"], "block"),
        "order": _one_or_per(draw, list(ORDERS), "block"),
        "pools": draw(st.sampled_from(some_pools)),
        "pool_kind": _one_or_per(draw, ["max", "average"], "pool"),
        "pool_dropout": draw(st.sampled_from(_RATES)),
        "head": _one_or_per(draw, list(get_args(Head)), "net"),
        "head_kernel": draw(st.sampled_from((1, [1, 3, 4]))),
        "head_padding": draw(st.sampled_from(("same", "valid", ["same", "valid"]))),
        "head_order": _one_or_per(draw, list(ORDERS), "net"),
        "head_bias": draw(st.sampled_from((True, False, [True, False]))),
        "momentum": draw(st.sampled_from((0.9, [0.9, 0.99]))),
    }
    if draw(st.booleans()):
        table["pool_position"] = _draw_positions(draw, deepest, pools)
    if "dropout" in str(table["order"]):
        table["dropout"] = draw(st.sampled_from([*_RATES, {"low": 0.0, "high": 0.3, "step": 0.05, "per": "net"}]))
    if "dropout" in str(table["head_order"]):
        table["head_dropout"] = draw(st.sampled_from(_RATES))
    return table


@st.composite
def drawn_points(draw: Draw) -> tuple[Pyramid, dict[str, Value]]:
    """A space, and a value for each of its parameters."""
    space = Pyramid.model_validate(draw(space_tables()))
    return space, draw_values(space, draw(st.integers(0, 2**20)))


@st.composite
def residual_tables(draw: Draw) -> dict[str, Any]:
    """A [space] table of kind "residual" as a study file writes it; small networks."""
    stages = draw(st.integers(1, 3))
    kinds = draw(st.sampled_from((["plain"], ["inverted"], ["gated"], ["plain", "inverted", "gated"])))
    blocks: list[Any] = [1, {"low": 1, "high": 2}, {"each": [draw(st.sampled_from((1, [1, 2]))) for _ in range(stages)]}]
    table: dict[str, Any] = {
        "kind": "residual",
        "stages": draw(st.sampled_from((stages, {"low": 1, "high": stages} if stages > 1 else 1))),
        "blocks": draw(st.sampled_from(blocks)),
        "width": _draw_widths(draw, stages),
        "kernel": _one_or_per(draw, [1, 3, 5], "stage"),
        "dilation": _one_or_per(draw, [1, 2], "stage"),
        "block": draw(st.sampled_from((kinds, {"choices": kinds, "per": "stage"}))),
        "activation": _one_or_per(draw, ["relu", "silu", "gelu"], "stage"),
        "norm": _one_or_per(draw, ["after", "before"], "net"),
        "uses": _one_or_per(draw, [1, 2], "stage"),
        "stem_kernel": draw(st.sampled_from((1, [3, 5]))),
        "stem_multiplier": draw(st.sampled_from((1, [2, 9]))),
        "stem_stride": draw(st.sampled_from((1, [1, 2]))),
        "head": _one_or_per(draw, ["conv", "dense"], "net"),
        "momentum": draw(st.sampled_from((0.9, [0.9, 0.99]))),
    }
    if kinds != ["plain"]:
        some: list[Any] = [0.5, [1, 3], {"low": 1.0, "high": 2.0, "step": 0.25}]
        table["expansion"] = draw(st.sampled_from([*some, {"choices": [0.5, 1, 2], "per": "stage"}]))
    if kinds != ["inverted"]:
        table["second_kernel"] = _one_or_per(draw, [1, 3], "stage")
    if stages > 1:
        table["downsample"] = draw(st.sampled_from(("stride", ["stride", "max", "average"])))
        table["downsample_kernel"] = draw(st.sampled_from((3, [1, 2])))
    return table


@st.composite
def residual_points(draw: Draw) -> tuple[ResidualStages, dict[str, Value]]:
    """A space of residual stages, and a value for each of its parameters."""
    space = ResidualStages.model_validate(draw(residual_tables()))
    return space, draw_values(space, draw(st.integers(0, 2**20)))


def draw_values(space: Space, seed: int) -> dict[str, Value]:
    generator = random.Random(seed)
    return {name: domain.draw(generator) for name, domain in parameters(space).items()}
