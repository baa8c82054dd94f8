"""What a network is: a closed set of frozen layer records, and the Architecture that holds them.

An architecture says nothing of sizes in between (see `search.geometry`), prices (`search.cost`) or training. It round-trips
through JSON, and its fingerprint names the network whatever it is called and however it was written down.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from search.errors import UserError, first_place, first_problem

Padding = Literal["same", "valid"]
Function = Literal["relu", "relu6", "silu", "gelu", "elu", "tanh", "sigmoid", "hard_silu"]

LARGEST = 65_536  # of any size in a record: keeps a hostile file from asking for the arithmetic of the impossible
DEEPEST = 8  # residuals inside residuals

_STRICT = ConfigDict(extra="forbid", strict=True)


class ArchitectureError(ValueError):
    """A network that cannot exist: the message names the layer and the rule it breaks."""

    def __init__(self, rule: str, layer: str = "") -> None:
        super().__init__(f"{layer}: {rule}" if layer else rule)
        self.layer = layer


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
    kind: Literal["separable_conv"] = field(default="separable_conv", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _sizes(self, "filters", "kernel", "stride", "dilation", "depth_multiplier")
        _stride_or_dilation(self)


@dataclass(frozen=True, slots=True)
class SpatialSeparableConv:
    """A k x 1 depthwise convolution, a 1 x k depthwise convolution, then a 1x1 convolution to `filters` channels.

    The stride is taken by the second of the three, in both directions.
    """

    filters: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    dilation: int = 1
    use_bias: bool = False
    kind: Literal["spatial_separable_conv"] = field(default="spatial_separable_conv", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _sizes(self, "filters", "kernel", "stride", "dilation")
        _stride_or_dilation(self)


@dataclass(frozen=True, slots=True)
class Conv:
    """A plain k x k convolution; no candidate of a separable-only study may hold one."""

    filters: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    dilation: int = 1
    use_bias: bool = False
    kind: Literal["conv"] = field(default="conv", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _sizes(self, "filters", "kernel", "stride", "dilation")
        _stride_or_dilation(self)


def _stride_or_dilation(layer: SeparableConv | SpatialSeparableConv | Conv) -> None:
    if layer.stride > 1 and layer.dilation > 1:  # Keras refuses the two together
        raise ArchitectureError(f"stride {layer.stride} with dilation {layer.dilation}: one of them must be 1")


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch normalisation over the channels; the defaults are Keras' own."""

    momentum: float = 0.99
    epsilon: float = 1e-3
    kind: Literal["batch_norm"] = field(default="batch_norm", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT

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

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Dropout:
    """Drops single values with probability `rate` while training."""

    rate: float
    kind: Literal["dropout"] = field(default="dropout", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT

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

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _sizes(self, "size", *(["stride"] if self.stride is not None else []))


@dataclass(frozen=True, slots=True)
class AveragePool:
    """The mean of each size x size window; windows do not overlap unless a stride is given."""

    size: int = 2
    stride: int | None = None
    padding: Padding = "valid"
    kind: Literal["average_pool"] = field(default="average_pool", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _sizes(self, "size", *(["stride"] if self.stride is not None else []))


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """The mean of each channel: (height, width, channels) to (channels,)."""

    kind: Literal["global_average_pool"] = field(default="global_average_pool", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Flatten:
    """All values in one vector."""

    kind: Literal["flatten"] = field(default="flatten", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Dense:
    """A fully connected layer on a vector."""

    units: int
    use_bias: bool = True
    kind: Literal["dense"] = field(default="dense", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _sizes(self, "units")


@dataclass(frozen=True, slots=True)
class Softmax:
    """Scores to probabilities; always the last layer."""

    kind: Literal["softmax"] = field(default="softmax", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Gate:
    """Halves a, b of the channels -> f(a) * b (a gated linear unit when f is the sigmoid)."""

    function: Function = "sigmoid"
    kind: Literal["gate"] = field(default="gate", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class Residual:
    """The sum of two branches of equal output; an empty branch passes its input on."""

    branch: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()
    kind: Literal["residual"] = field(default="residual", kw_only=True, repr=False)

    __pydantic_config__ = _STRICT


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


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network: its input (height, width, channels), its number of classes, and its layers in order."""

    input: tuple[int, int, int]
    classes: int
    layers: tuple[Layer, ...]
    name: str = ""

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not all(1 <= size <= LARGEST for size in (*self.input, self.classes)):
            raise ArchitectureError(f"input {list(self.input)}, classes {self.classes}: must be 1 to {LARGEST}")
        if not self.layers or self.layers[-1].kind != "softmax":
            raise ArchitectureError("the last layer must be a softmax")


def walk(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """Every layer, those inside residuals included, in the order in which they are computed."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from walk(layer.branch)
            yield from walk(layer.shortcut)
        yield layer


# --- JSON ------------------------------------------------------------------------------------------------------------


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """The architecture as plain JSON values, defaults left out."""
    return {
        "name": architecture.name,
        "input": list(architecture.input),
        "classes": architecture.classes,
        "layers": [_layer_dict(layer) for layer in architecture.layers],
    }


def to_json(architecture: Architecture) -> str:
    """The architecture as a JSON file for people: one layer a line."""
    plain = to_dict(architecture)
    layers = ",\n  ".join(json.dumps(layer) for layer in plain.pop("layers"))
    return json.dumps(plain)[:-1] + f', "layers": [\n  {layers}\n]}}\n'


def from_json(text: str | bytes) -> Architecture:
    """Read an architecture.

    Raises:
        UserError: the text is no JSON, or breaks a rule of a record; names the first rule that is broken.
    """
    try:
        architecture = _adapter().validate_json(text)
    except ValidationError as error:
        raise UserError(f"architecture: {first_problem(error, _keys(error))}") from None
    if (depth := _depth(architecture.layers)) > DEEPEST:
        raise UserError(f"architecture: residuals nest {depth} deep, at most {DEEPEST} are allowed")
    return architecture


def load(path: Path) -> Architecture:
    """Read an architecture file, or the card of an export, which holds one; its name defaults to the file's.

    Raises:
        UserError: the file cannot be read or does not hold an architecture.
    """
    try:
        architecture = from_json(_of_card(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); pass an architecture file (JSON)") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return architecture if architecture.name else replace(architecture, name=path.stem)


def _of_card(text: bytes) -> bytes | str:
    """The architecture in a card that `search.export` wrote, else the text itself."""
    try:
        held = json.loads(text)["architecture"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
    return json.dumps(held)


def _keys(error: ValidationError) -> list[str]:
    """The keys that the record takes where the problem is."""
    kinds = [part for part in first_place(error)[:-1] if isinstance(part, str)]
    records = {entry.default: record for record in get_args(get_args(Layer)[0]) for entry in fields(record)}
    return [entry.name for entry in fields(records.get(kinds[-1], Architecture) if kinds else Architecture)]


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Architecture]:
    return TypeAdapter(Architecture)


def _layer_dict(layer: Layer) -> dict[str, Any]:
    plain: dict[str, Any] = {"kind": layer.kind}
    for entry in fields(layer):
        value = getattr(layer, entry.name)
        if entry.name == "kind" or value == entry.default:
            continue
        plain[entry.name] = [_layer_dict(inner) for inner in value] if isinstance(value, tuple) else value
    return plain


def _depth(layers: tuple[Layer, ...]) -> int:
    return max((1 + max(_depth(x.branch), _depth(x.shortcut)) for x in layers if isinstance(x, Residual)), default=0)


# --- canonical form --------------------------------------------------------------------------------------------------


def canonical(architecture: Architecture) -> Architecture:
    """The same network with what cannot matter dropped: its name, dropout at rate 0, 1x1 pools, flattened vectors."""
    return replace(architecture, name="", layers=_canonical_layers(architecture.layers))


def fingerprint(architecture: Architecture) -> str:
    """16 hexadecimal digits that two architectures share exactly when their canonical forms are equal."""
    plain = json.dumps(to_dict(canonical(architecture)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def _canonical_layers(layers: tuple[Layer, ...], is_vector: bool = False) -> tuple[Layer, ...]:
    """`is_vector`: whether global pooling, flatten or dense came before."""
    kept: list[Layer] = []
    for layer in layers:
        match layer:
            case Dropout(rate=0):
                continue
            case MaxPool(size=1, stride=None | 1) | AveragePool(size=1, stride=None | 1):
                continue
            case Flatten() if is_vector:
                continue
            case SeparableConv() | SpatialSeparableConv() | Conv() if layer.kernel == 1:
                layer = replace(layer, padding="same", dilation=1)
            case MaxPool() | AveragePool() if layer.stride == layer.size:
                layer = replace(layer, stride=None)
            case Residual():
                layer = Residual(_canonical_layers(layer.branch, is_vector), _canonical_layers(layer.shortcut, is_vector))
            case BatchNorm():
                layer = BatchNorm(float(layer.momentum), float(layer.epsilon))
            case _:
                pass
        is_vector = is_vector or any(isinstance(one, GlobalAveragePool | Flatten | Dense) for one in walk((layer,)))
        kept.append(layer)
    return tuple(kept)


def describe(layer: Layer) -> str:
    """One layer in the words of a table: `separable_conv 64 3x3 stride 2`."""
    match layer:
        case SeparableConv() | SpatialSeparableConv() | Conv():
            words = [f"{layer.filters} filters, {layer.kernel}x{layer.kernel}"]
            words += [f"stride {layer.stride}"] if layer.stride > 1 else []
            words += ["valid"] if layer.padding == "valid" else []
            words += [f"dilation {layer.dilation}"] if layer.dilation > 1 else []
            if isinstance(layer, SeparableConv) and layer.depth_multiplier > 1:
                words += [f"depth multiplier {layer.depth_multiplier}"]
            words += ["bias"] if layer.use_bias else []
            return ", ".join(words)
        case BatchNorm():
            return f"momentum {layer.momentum:g}"
        case Activation() | Gate():
            return layer.function
        case Dropout():
            return f"rate {layer.rate:g}"
        case MaxPool() | AveragePool():
            stride = layer.stride or layer.size
            return f"{layer.size}x{layer.size}" + (f", stride {stride}" if stride != layer.size else "")
        case Dense():
            return f"{layer.units} units" + ("" if layer.use_bias else ", no bias")
        case Residual():
            return "sum of the branch and " + ("its shortcut" if layer.shortcut else "the input")
        case GlobalAveragePool() | Flatten() | Softmax():
            return ""
        case _:
            assert_never(layer)
