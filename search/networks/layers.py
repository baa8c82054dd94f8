"""Layers of a network: a closed set of frozen records, validated on construction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, assert_never

from pydantic import ConfigDict, Field

Padding = Literal["same", "valid"]
Function = Literal["relu", "relu6", "silu", "gelu", "elu", "tanh", "sigmoid", "hard_silu"]

LARGEST = 65_536  # of any size in a record, so that a hostile file cannot cause huge computations

STRICT = ConfigDict(extra="forbid", strict=True)


class ArchitectureError(ValueError):
    """Raised for a network that cannot exist; the message names the layer and the rule that it breaks."""

    def __init__(self, rule: str, layer: str = "") -> None:
        super().__init__(f"{layer}: {rule}" if layer else rule)
        self.rule, self.layer = rule, layer


def _sizes(layer: object, *names: str) -> None:
    for name in names:
        value = getattr(layer, name)
        if not 1 <= value <= LARGEST:
            raise ArchitectureError(f"{name} is {value}, it must be between 1 and {LARGEST}")


@dataclass(frozen=True, slots=True)
class SeparableConv:
    """A k x k depthwise convolution, then a 1x1 convolution to `filters` channels."""

    filters: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    dilation: int = 1
    depth_multiplier: int = 1
    use_bias: bool = False
    weights: str = ""  # convolutions of equal, non-empty `weights` share one set of weights
    kind: Literal["separable_conv"] = field(default="separable_conv", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _sizes(self, "filters", "kernel", "stride", "dilation", "depth_multiplier")
        _check_convolution(self)


@dataclass(frozen=True, slots=True)
class SpatialSeparableConv:
    """A k x 1 depthwise convolution, a 1 x k depthwise convolution, then a 1x1 convolution to `filters` channels.

    The second of the three has the stride, in both directions.
    """

    filters: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    dilation: int = 1
    use_bias: bool = False
    weights: str = ""
    kind: Literal["spatial_separable_conv"] = field(default="spatial_separable_conv", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _sizes(self, "filters", "kernel", "stride", "dilation")
        _check_convolution(self)


@dataclass(frozen=True, slots=True)
class Conv:
    """A plain k x k convolution, which budgets with `separable_only` exclude."""

    filters: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    dilation: int = 1
    use_bias: bool = False
    weights: str = ""
    kind: Literal["conv"] = field(default="conv", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _sizes(self, "filters", "kernel", "stride", "dilation")
        _check_convolution(self)


def _check_convolution(layer: SeparableConv | SpatialSeparableConv | Conv) -> None:
    if layer.weights and not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", layer.weights):
        raise ArchitectureError(f"weights is {layer.weights[:60]!r}, it must be up to 60 letters, digits or _ . -")
    if layer.stride > 1 and layer.dilation > 1:  # Keras rejects the combination
        raise ArchitectureError(f"stride {layer.stride} with dilation {layer.dilation}: one of them must be 1")


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch normalisation over the channels, with Keras' defaults."""

    momentum: float = 0.99
    epsilon: float = 1e-3
    kind: Literal["batch_norm"] = field(default="batch_norm", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ArchitectureError(f"momentum is {self.momentum}, it must be at least 0 and below 1")
        if not 0 < self.epsilon <= 1:
            raise ArchitectureError(f"epsilon is {self.epsilon}, it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function."""

    function: Function
    kind: Literal["activation"] = field(default="activation", kw_only=True, repr=False)

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Dropout:
    """Zeroes single values with probability `rate` during training."""

    rate: float
    kind: Literal["dropout"] = field(default="dropout", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ArchitectureError(f"rate is {self.rate}, it must be at least 0 and below 1")


@dataclass(frozen=True, slots=True)
class MaxPool:
    """The largest of each size x size window; windows do not overlap unless a stride is given."""

    size: int = 2
    stride: int | None = None
    padding: Padding = "valid"
    kind: Literal["max_pool"] = field(default="max_pool", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _sizes(self, "size", *(["stride"] if self.stride is not None else []))


@dataclass(frozen=True, slots=True)
class AveragePool:
    """The mean of each size x size window; windows do not overlap unless a stride is given."""

    size: int = 2
    stride: int | None = None
    padding: Padding = "valid"
    kind: Literal["average_pool"] = field(default="average_pool", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _sizes(self, "size", *(["stride"] if self.stride is not None else []))


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """The mean of each channel: (height, width, channels) to (channels,)."""

    kind: Literal["global_average_pool"] = field(default="global_average_pool", kw_only=True, repr=False)

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Flatten:
    """All values in one vector."""

    kind: Literal["flatten"] = field(default="flatten", kw_only=True, repr=False)

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Dense:
    """A fully connected layer on a vector."""

    units: int
    use_bias: bool = True
    kind: Literal["dense"] = field(default="dense", kw_only=True, repr=False)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        _sizes(self, "units")


@dataclass(frozen=True, slots=True)
class Softmax:
    """Scores to probabilities; always the last layer."""

    kind: Literal["softmax"] = field(default="softmax", kw_only=True, repr=False)

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Gate:
    """Halves a, b of the channels -> f(a) * b (a gated linear unit when f is the sigmoid)."""

    function: Function = "sigmoid"
    kind: Literal["gate"] = field(default="gate", kw_only=True, repr=False)

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Residual:
    """Sum of two branches with outputs of equal shape; an empty branch is the identity."""

    branch: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()
    kind: Literal["residual"] = field(default="residual", kw_only=True, repr=False)

    __pydantic_config__ = STRICT


ConvLayer = SeparableConv | SpatialSeparableConv | Conv
Layer = Annotated[
    SeparableConv
    | SpatialSeparableConv
    | Conv
    | BatchNorm
    | Activation
    | Dropout
    | MaxPool
    | AveragePool
    | GlobalAveragePool
    | Flatten
    | Dense
    | Softmax
    | Gate
    | Residual,
    Field(discriminator="kind"),
]


def walk(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """Yield every layer in the order of computation; those inside a residual precede it."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from walk(layer.branch)
            yield from walk(layer.shortcut)
        yield layer


def describe(layer: Layer) -> str:
    """Settings of a layer for a table: `64 filters, 3x3, stride 2`."""
    match layer:
        case SeparableConv() | SpatialSeparableConv() | Conv():
            settings = [f"{layer.filters} filters, {layer.kernel}x{layer.kernel}"]
            settings += [f"stride {layer.stride}"] if layer.stride > 1 else []
            settings += ["valid"] if layer.padding == "valid" else []
            settings += [f"dilation {layer.dilation}"] if layer.dilation > 1 else []
            if isinstance(layer, SeparableConv) and layer.depth_multiplier > 1:
                settings += [f"depth multiplier {layer.depth_multiplier}"]
            settings += ["bias"] if layer.use_bias else []
            settings += [f"weights {layer.weights}"] if layer.weights else []
            return ", ".join(settings)
        case BatchNorm():
            return f"momentum {layer.momentum:g}" + (f", epsilon {layer.epsilon:g}" if layer.epsilon != 1e-3 else "")
        case Activation() | Gate():
            return layer.function
        case Dropout():
            return f"rate {layer.rate:g}"
        case MaxPool() | AveragePool():
            stride = layer.stride or layer.size
            settings = [f"{layer.size}x{layer.size}", *([f"stride {stride}"] if stride != layer.size else [])]
            return ", ".join([*settings, *(["same"] if layer.padding == "same" else [])])
        case Dense():
            return f"{layer.units} units" + ("" if layer.use_bias else ", no bias")
        case Residual():
            return "branch + shortcut" if layer.shortcut else "branch + input"
        case GlobalAveragePool() | Flatten() | Softmax():
            return ""
        case _:
            assert_never(layer)
