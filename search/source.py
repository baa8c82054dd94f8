"""An architecture as annotated Keras 3 source that stands alone: what `export` and `show` hand to people.

No Keras is imported here. Options and layer names are those of `search.model`, so that weights of the one fit the other;
sizes and prices in the comments are those of `search.geometry` and `search.cost`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, assert_never

import numpy as np

from search.architecture import Architecture
from search.cost import Price, price_layer, price_resolved
from search.geometry import Resolved, Shape, first_half_positions, flatten, resolve
from search.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
    walk,
)
from search.pixels import Pixels

WIDTH = 120  # of a line, where one layer a line allows it
LONGEST_NAME = 60

_INITIALIZERS = ("kernel_initializer", "depthwise_initializer", "pointwise_initializer")
_KERAS_DEFAULTS: dict[str, object] = {
    "strides": 1,
    "padding": "valid",
    "dilation_rate": 1,
    "depth_multiplier": 1,
    "use_bias": True,
    "momentum": 0.99,
    "epsilon": 1e-3,
} | dict.fromkeys(_INITIALIZERS, "glorot_uniform")


class _Line(NamedTuple):
    """A statement or an element of a list, with the columns of its comment: output, receptive field, parameters."""

    code: str
    columns: tuple[str, str, str] | None = None


def keras_source(
    architecture: Architecture,
    *,
    heading: Sequence[str] = (),
    pixels: Pixels | None = None,
    initializer: str = "glorot_uniform",
) -> str:
    """Source with `prepare(images)` and `build_model()`; lines of the heading go into its docstring.

    Raises:
        ArchitectureError: the network cannot exist, see `search.geometry.resolve`.
        ValueError: the pixels are normalised for another number of channels than the input has.
    """
    pixels = pixels or Pixels()
    channels = architecture.input[-1]
    if len(pixels.mean) not in (0, channels):
        raise ValueError(f"pixels are normalised for {len(pixels.mean)} channels, the input has {channels}")
    resolved = resolve(architecture)
    docstring = "\n".join(_docstring(architecture, price_resolved(resolved), heading, pixels))
    body = [*_prepare(architecture, pixels), "", "", *_build_model(architecture, resolved, initializer)]
    wide = "# ruff: noqa: E501\n\n" if any(len(line) > WIDTH for line in body) else ""
    code = "\n".join(["import keras", "import numpy as np", "from keras import layers", "", *body])
    return f'{docstring}\n\n{wide}{code}\n\n\nif __name__ == "__main__":\n    build_model().summary()\n'


def identifier(name: str) -> str:
    """The name as Keras takes it for a model: TensorFlow admits ASCII letters, digits and, not in front, underscores."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return kept.strip("_")[:LONGEST_NAME] or "network"


# --- the parts of the file -------------------------------------------------------------------------------------------


def _docstring(architecture: Architecture, price: Price, heading: Sequence[str], pixels: Pixels) -> Iterator[str]:
    name = " ".join(_printable(architecture.name).replace('"', "'").split()) or "network"
    name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
    field = price.receptive_field
    facts = {
        "Parameters": f"{price.params:,} ({price.trainable_params:,} trainable)",
        "Multiply-adds": f"{price.macs:,} for one image",
        "Receptive field": f"{field}x{field} pixels" if field else "the whole image",
        "Pixels": f"{pixels.describe()}; see `prepare`",
    }
    title = f"{name}: {_by(architecture.input)} images in, probabilities of {architecture.classes} classes out."
    yield f'"""{_escaped(title)}'
    yield ""
    for key, words in facts.items():
        yield from textwrap.wrap(f"{key:<17}{words}", WIDTH, subsequent_indent=" " * 17)
    if heading:
        yield ""
    for line in heading:
        yield from textwrap.wrap(_escaped(_printable(line)).rstrip(), WIDTH, break_long_words=False) or [""]
    yield '"""'


def _prepare(architecture: Architecture, pixels: Pixels) -> Iterator[str]:
    for constant, values in {"MEAN": pixels.mean, "STD": pixels.std}.items():
        if values:
            line = f'{constant} = np.array([{", ".join(str(np.float32(value)) for value in values)}], dtype="float32")'
            yield line if len(line) <= WIDTH else f"{line}  # fmt: skip"
    yield from ("", "") if pixels.mean else ("",)
    yield "def prepare(images: np.ndarray) -> np.ndarray:"
    shape = ", ".join(map(str, ("n", *architecture.input)))
    yield f'    """Make the network\'s float32 input ({shape}) of uint8 images of the same shape."""'
    if pixels.mean:
        yield '    return (images.astype("float32") / 255 - MEAN) / STD'
    else:
        yield '    return images.astype("float32") / 255'


def _build_model(architecture: Architecture, resolved: tuple[Resolved, ...], initializer: str) -> Iterator[str]:
    name = f'name="{identifier(architecture.name)}"'
    image = f'keras.Input({architecture.input}, name="image")'
    yield "def build_model() -> keras.Model:"
    classes = architecture.classes
    yield f'    """Build the network, not trained: what `prepare` returns in, probabilities (n, {classes}) out."""'
    yield "    # fmt: off"
    shared = {row.first for _, row in flatten(resolved) if row.first}
    if shared or any(isinstance(layer, Residual | Gate) for layer in walk(architecture.layers)):
        statements = list(_statements(resolved, "x", _Writing(initializer, shared), 1))
        yield f"    x = image = {image}"
        yield from _commented(statements, "    ")
        yield f"    return keras.Model(image, x, {name})"
    else:
        yield "    return keras.Sequential(["
        yield f"        {image},"
        calls = (line for field, row in _with_field(resolved, 1) for line in _calls(row, field, initializer))
        yield from _commented([_Line(f"{line.code},", line.columns) for line in calls], "        ")
        yield f"    ], {name})"
    yield "    # fmt: on"


def _commented(lines: Sequence[_Line], indent: str) -> Iterator[str]:
    """The lines with their comments in aligned columns."""
    columns = [line.columns for line in lines if line.columns]
    code = max(len(line.code) for line in lines if line.columns)
    output, field, params = (max(len(row[index]) for row in columns) for index in range(3))
    for line in lines:
        if line.columns is None:
            yield indent + line.code if line.code else ""
            continue
        words = [line.columns[0].ljust(output), f"{line.columns[2].rjust(params)} params"]
        if field:
            label = "receptive field" if line.columns[1] else ""
            words.insert(1, f"{label:<15} {line.columns[1].rjust(field)}")
        yield f"{indent}{line.code:<{code}}  # {'  '.join(words)}"


# --- layers ----------------------------------------------------------------------------------------------------------


class _Writing(NamedTuple):
    """What all statements are written with."""

    initializer: str
    shared: set[str]  # names of the convolutions that later ones share their weights with


def _statements(rows: tuple[Resolved, ...], x: str, writing: _Writing, field: int | None, depth: int = 1) -> Iterator[_Line]:
    """Statements of the functional API that take the variable `x` through the rows."""
    for before, row in _with_field(rows, field):
        match row.layer:
            case Residual():
                skip = "shortcut" if depth == 1 else f"shortcut_{depth}"
                yield _Line(f"{skip} = {x}")
                yield from _statements(row.branch, x, writing, before, depth + 1)
                yield from _statements(row.shortcut, skip, writing, before, depth + 1)
                yield _Line(f"{x} = {_call('Add', row.name)}([{x}, {skip}])", _columns(row))
            case Gate(function):
                half = row.output[-1]
                opened = _call("Activation", f"{row.name}_{function}", _quoted(function))
                yield _Line(f"opened = {opened}({x}[..., :{half}])", _columns(row))
                yield _Line(f"{x} = {_call('Multiply', row.name)}([opened, {x}[..., {half}:]])", _columns(row))
            case _:
                kept = row.first or (row.name if row.name in writing.shared else "")
                for line, name in zip(_calls(row, before, writing.initializer), _variables(row, kept), strict=True):
                    if kept and not row.first:
                        yield _Line(f"{name} = {line.code}")
                    yield _Line(f"{x} = {name or line.code}({x})", line.columns)


def _variables(row: Resolved, kept: str) -> list[str]:
    """The variables of the layers that a row becomes, where they are kept to be called again."""
    parts = ["_vertical", ""] if isinstance(row.layer, SpatialSeparableConv) else [""]
    return [kept and kept + part for part in parts]


def _with_field(rows: Iterable[Resolved], field: int | None) -> Iterator[tuple[int | None, Resolved]]:
    """Each row with the receptive field of its input."""
    for row in rows:
        yield field, row
        field = row.receptive_field


def _calls(row: Resolved, field: int | None, initializer: str) -> Iterator[_Line]:
    """The constructor of a layer of one input; two of them for a spatially separable convolution."""
    name, layer, columns = row.name, row.layer, _columns(row)
    match layer:
        case SeparableConv() | Conv():
            options: dict[str, object] = {
                "strides": layer.stride,
                "padding": layer.padding,
                "dilation_rate": layer.dilation,
                "use_bias": layer.use_bias,
            }
            if isinstance(layer, Conv):
                call = _call("Conv2D", name, layer.filters, layer.kernel, **options, kernel_initializer=initializer)
            else:
                options |= {"depth_multiplier": layer.depth_multiplier}
                options |= {"depthwise_initializer": initializer, "pointwise_initializer": initializer}
                call = _call("SeparableConv2D", name, layer.filters, layer.kernel, **options)
            yield _Line(call, columns)
        case SpatialSeparableConv():
            yield from _spatial(row, layer, field, initializer)
        case BatchNorm():
            yield _Line(_call("BatchNormalization", name, momentum=layer.momentum, epsilon=layer.epsilon), columns)
        case Activation():
            yield _Line(_call("Activation", name, _quoted(layer.function)), columns)
        case Dropout():
            yield _Line(_call("Dropout", name, layer.rate), columns)
        case MaxPool() | AveragePool():
            sizes = (layer.size,) if layer.stride is None else (layer.size, layer.stride)
            kind = "MaxPooling2D" if isinstance(layer, MaxPool) else "AveragePooling2D"
            yield _Line(_call(kind, name, *sizes, padding=layer.padding), columns)
        case GlobalAveragePool():
            yield _Line(_call("GlobalAveragePooling2D", name), columns)
        case Flatten():
            yield _Line(_call("Flatten", name), columns)
        case Dense():
            call = _call("Dense", name, layer.units, use_bias=layer.use_bias, kernel_initializer=initializer)
            yield _Line(call, columns)
        case Softmax():
            yield _Line(_call("Activation", name, '"softmax"', dtype="float32"), columns)
        case Residual() | Gate():
            raise AssertionError(f"{name} takes the functional API")
        case _:
            assert_never(layer)


def _spatial(row: Resolved, layer: SpatialSeparableConv, field: int | None, initializer: str) -> Iterator[_Line]:
    """The k x 1 half, whose receptive field is no square, and the rest, which carries the other parameters."""
    kernel, dilation, channels = layer.kernel, layer.dilation, row.input[-1]
    options: dict[str, object] = {"padding": layer.padding, "dilation_rate": (dilation, 1) if dilation > 1 else 1}
    options |= {"use_bias": False, "depthwise_initializer": initializer}
    half = kernel * channels
    count = price_layer(row).params
    seen = str(field) if field == row.receptive_field else f"{row.receptive_field}x{field}"
    columns = _by((*first_half_positions(row), channels)), seen, f"{half if count else 0:,}"
    yield _Line(_call("DepthwiseConv2D", f"{row.name}_vertical", (kernel, 1), **options), columns)
    options |= {"dilation_rate": (1, dilation) if dilation > 1 else 1, "strides": layer.stride}
    options |= {"use_bias": layer.use_bias, "pointwise_initializer": initializer}
    call = _call("SeparableConv2D", row.name, layer.filters, (1, kernel), **options)
    yield _Line(call, (*_columns(row)[:2], f"{max(count - half, 0):,}"))


def _call(kind: str, name: str, *sizes: object, **options: object) -> str:
    """`layers.Kind(sizes, option=value, name="name")`, without the options at which Keras stands anyway."""
    words = [str(size) for size in sizes]
    for option, value in options.items():
        if value != _KERAS_DEFAULTS.get(option):
            words.append(f"{option}={_quoted(value) if isinstance(value, str) else value}")
    return f"layers.{kind}({', '.join([*words, f'name={_quoted(name)}'])})"


def _columns(row: Resolved) -> tuple[str, str, str]:
    return _by(row.output), "" if row.receptive_field is None else str(row.receptive_field), f"{price_layer(row).params:,}"


# --- text ------------------------------------------------------------------------------------------------------------


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _quoted(text: str) -> str:
    return json.dumps(text)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _escaped(text: str) -> str:
    """The text as it may stand between triple quotes."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
