"""Architecture record: input, classes and layers of a network, read and written as JSON.

Shapes in between are computed by `search.networks.geometry`, costs by `search.budget.cost`. The fingerprint identifies a
network independently of its name and of how it was written.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from search.errors import UserError, first_place, first_problem
from search.networks.layers import (
    LARGEST,
    STRICT,
    ArchitectureError,
    AveragePool,
    BatchNorm,
    Conv,
    ConvLayer,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    SpatialSeparableConv,
    walk,
)

DEEPEST = 8  # nesting of residuals in a file
MOST_LAYERS = 5_000  # in a file


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network: its input (height, width, channels), its number of classes, and its layers in order."""

    input: tuple[int, int, int]
    classes: int
    layers: tuple[Layer, ...]
    name: str = ""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not all(1 <= size <= LARGEST for size in (*self.input, self.classes)):
            raise ArchitectureError(f"input {list(self.input)}, classes {self.classes}: must be 1 to {LARGEST}")
        if not self.layers or self.layers[-1].kind != "softmax":
            raise ArchitectureError("the last layer must be a softmax")


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
    """The architecture as JSON text with one layer per line."""
    plain = to_dict(architecture)
    layers = ",\n  ".join(json.dumps(layer) for layer in plain.pop("layers"))
    return json.dumps(plain)[:-1] + f', "layers": [\n  {layers}\n]}}\n'


def from_json(text: str | bytes) -> Architecture:
    """Read an architecture.

    Raises:
        UserError: the text is no JSON, or breaks a rule of a record; the message names the first such rule.
    """
    try:
        architecture = _adapter().validate_json(text)
    except ValidationError as error:
        raise UserError(f"architecture: {first_problem(error, _keys(error))}") from None
    if (depth := _depth(architecture.layers)) > DEEPEST:
        raise UserError(f"architecture: residuals nest {depth} deep, at most {DEEPEST} are allowed")
    if (count := sum(1 for _ in walk(architecture.layers))) > MOST_LAYERS:
        raise UserError(f"architecture: {count:,} layers, at most {MOST_LAYERS:,} are read; take some out")
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
    """The architecture in a card that `search.export.exporter` wrote, else the text itself."""
    try:
        network = json.loads(text)["architecture"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
    return json.dumps(network)


def _keys(error: ValidationError) -> list[str]:
    """Keys of the record in which the problem is."""
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
    """The same network without parts that have no effect: its name, dropout at rate 0, 1x1 pools, flattened vectors.

    Shared weights are renamed to 1, 2, ... in the order of their first use.
    """
    layers = _canonical_layers(architecture.layers)
    uses = Counter(layer.weights for layer in walk(layers) if isinstance(layer, ConvLayer) and layer.weights)
    if uses:
        shared = [name for name, count in uses.items() if count > 1]
        layers = _renamed(layers, {name: str(number) for number, name in enumerate(shared, 1)})
    return replace(architecture, name="", layers=layers)


def fingerprint(architecture: Architecture) -> str:
    """16 hexadecimal digits of the SHA-256 of the canonical form."""
    plain = json.dumps(to_dict(canonical(architecture)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def _renamed(layers: tuple[Layer, ...], names: Mapping[str, str]) -> tuple[Layer, ...]:
    """The layers with the names of shared weights replaced; a name that is not in `names` is dropped."""

    def changed(layer: Layer) -> Layer:
        if isinstance(layer, Residual):
            return Residual(_renamed(layer.branch, names), _renamed(layer.shortcut, names))
        return replace(layer, weights=names.get(layer.weights, "")) if isinstance(layer, ConvLayer) else layer

    return tuple(map(changed, layers))


def _canonical_layers(layers: tuple[Layer, ...], is_vector: bool = False) -> tuple[Layer, ...]:
    """The layers in canonical form.

    Args:
        is_vector: True after global pooling, flatten or dense.
    """
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
        is_vector = is_vector or any(isinstance(inner, GlobalAveragePool | Flatten | Dense) for inner in walk((layer,)))
        kept.append(layer)
    return tuple(kept)


LONGEST_NAME = 60


def identifier(name: str) -> str:
    """A name that Keras accepts for a model: ASCII letters, digits and, except at the beginning, underscores."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return kept.strip("_")[:LONGEST_NAME] or "network"
