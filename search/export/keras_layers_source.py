"""The layers of a network as lines of Keras source, each with a comment on its output.

No Keras is imported here. Options and layer names are those of `search.training.model`, so that weights of the one fit the
other; sizes and costs in the comments are those of `search.networks.geometry` and `search.budget.cost`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, assert_never

from search.budget.cost import compute_layer_cost
from search.networks.geometry import Resolved, first_half_positions, flatten
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
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.text import format_shape

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


class Line(NamedTuple):
    """A statement or an element of a list, with the columns of its comment: output, receptive field, parameters."""

    code: str
    columns: tuple[str, str, str] | None = None


def statements(rows: tuple[Resolved, ...], x: str, initializer: str) -> Iterator[Line]:
    """Statements of the functional API that take the variable `x` through the rows."""
    shared = {row.first for _, row in flatten(rows) if row.first}
    yield from _statements(rows, x, _Writing(initializer, shared), 1)


def calls(rows: tuple[Resolved, ...], initializer: str) -> Iterator[Line]:
    """The constructors of a plain stack of layers in their order."""
    for field, row in _with_field(rows, 1):
        yield from _calls(row, field, initializer)


def commented(lines: Sequence[Line], indent: str) -> Iterator[str]:
    """The lines with their comments in aligned columns."""
    columns = [line.columns for line in lines if line.columns]
    code = max(len(line.code) for line in lines if line.columns)
    output, field, params = (max(len(row[index]) for row in columns) for index in range(3))
    for line in lines:
        if line.columns is None:
            yield indent + line.code if line.code else ""
            continue
        cells = [line.columns[0].ljust(output), f"{line.columns[2].rjust(params)} params"]
        if field:
            label = "receptive field" if line.columns[1] else ""
            cells.insert(1, f"{label:<15} {line.columns[1].rjust(field)}")
        yield f"{indent}{line.code:<{code}}  # {'  '.join(cells)}"


class _Writing(NamedTuple):
    """Shared settings of all statements."""

    initializer: str
    shared: set[str]  # names of the convolutions that later ones share their weights with


def _statements(rows: tuple[Resolved, ...], x: str, writing: _Writing, field: int | None, depth: int = 1) -> Iterator[Line]:
    """Statements of the functional API that take the variable `x` through the rows."""
    for before, row in _with_field(rows, field):
        match row.layer:
            case Residual():
                skip = "shortcut" if depth == 1 else f"shortcut_{depth}"
                yield Line(f"{skip} = {x}")
                yield from _statements(row.branch, x, writing, before, depth + 1)
                yield from _statements(row.shortcut, skip, writing, before, depth + 1)
                yield Line(f"{x} = {_call('Add', row.name)}([{x}, {skip}])", _columns(row))
            case Gate(function):
                half = row.output[-1]
                opened = _call("Activation", f"{row.name}_{function}", _quoted(function))
                yield Line(f"opened = {opened}({x}[..., :{half}])", _columns(row))
                yield Line(f"{x} = {_call('Multiply', row.name)}([opened, {x}[..., {half}:]])", _columns(row))
            case _:
                variable = row.first or (row.name if row.name in writing.shared else "")
                for line, name in zip(_calls(row, before, writing.initializer), _variables(row, variable), strict=True):
                    if variable and not row.first:
                        yield Line(f"{name} = {line.code}")
                    yield Line(f"{x} = {name or line.code}({x})", line.columns)


def _variables(row: Resolved, variable: str) -> list[str]:
    """The variables of the layers that a row becomes, where they are kept to be called again."""
    parts = ["_vertical", ""] if isinstance(row.layer, SpatialSeparableConv) else [""]
    return [variable and variable + part for part in parts]


def _with_field(rows: Iterable[Resolved], field: int | None) -> Iterator[tuple[int | None, Resolved]]:
    """Each row with the receptive field of its input."""
    for row in rows:
        yield field, row
        field = row.receptive_field


def _calls(row: Resolved, field: int | None, initializer: str) -> Iterator[Line]:
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
            yield Line(call, columns)
        case SpatialSeparableConv():
            yield from _spatial(row, layer, field, initializer)
        case BatchNorm():
            yield Line(_call("BatchNormalization", name, momentum=layer.momentum, epsilon=layer.epsilon), columns)
        case Activation():
            yield Line(_call("Activation", name, _quoted(layer.function)), columns)
        case Dropout():
            yield Line(_call("Dropout", name, layer.rate), columns)
        case MaxPool() | AveragePool():
            sizes = (layer.size,) if layer.stride is None else (layer.size, layer.stride)
            kind = "MaxPooling2D" if isinstance(layer, MaxPool) else "AveragePooling2D"
            yield Line(_call(kind, name, *sizes, padding=layer.padding), columns)
        case GlobalAveragePool():
            yield Line(_call("GlobalAveragePooling2D", name), columns)
        case Flatten():
            yield Line(_call("Flatten", name), columns)
        case Dense():
            call = _call("Dense", name, layer.units, use_bias=layer.use_bias, kernel_initializer=initializer)
            yield Line(call, columns)
        case Softmax():
            yield Line(_call("Activation", name, '"softmax"', dtype="float32"), columns)
        case Residual() | Gate():
            raise AssertionError(f"{name} takes the functional API")
        case _:
            assert_never(layer)


def _spatial(row: Resolved, layer: SpatialSeparableConv, field: int | None, initializer: str) -> Iterator[Line]:
    """The k x 1 half, whose receptive field is no square, and the rest, which carries the other parameters."""
    kernel, dilation, channels = layer.kernel, layer.dilation, row.input[-1]
    options: dict[str, object] = {"padding": layer.padding, "dilation_rate": (dilation, 1) if dilation > 1 else 1}
    options |= {"use_bias": False, "depthwise_initializer": initializer}
    half = kernel * channels
    count = compute_layer_cost(row).params
    seen = str(field) if field == row.receptive_field else f"{row.receptive_field}x{field}"
    columns = format_shape((*first_half_positions(row), channels)), seen, f"{half if count else 0:,}"
    yield Line(_call("DepthwiseConv2D", f"{row.name}_vertical", (kernel, 1), **options), columns)
    options |= {"dilation_rate": (1, dilation) if dilation > 1 else 1, "strides": layer.stride}
    options |= {"use_bias": layer.use_bias, "pointwise_initializer": initializer}
    call = _call("SeparableConv2D", row.name, layer.filters, (1, kernel), **options)
    yield Line(call, (*_columns(row)[:2], f"{max(count - half, 0):,}"))


def _call(kind: str, name: str, *sizes: object, **options: object) -> str:
    """`layers.Kind(sizes, option=value, name="name")`, without options that equal Keras' defaults."""
    arguments = [str(size) for size in sizes]
    for option, value in options.items():
        if value != _KERAS_DEFAULTS.get(option):
            arguments.append(f"{option}={_quoted(value) if isinstance(value, str) else value}")
    return f"layers.{kind}({', '.join([*arguments, f'name={_quoted(name)}'])})"


def _columns(row: Resolved) -> tuple[str, str, str]:
    return (
        format_shape(row.output),
        "" if row.receptive_field is None else str(row.receptive_field),
        f"{compute_layer_cost(row).params:,}",
    )


def _quoted(text: str) -> str:
    return json.dumps(text)
