"""Geometry of a network: each layer with its input and output shape, jump and receptive field.

Costs (`search.budget.cost`) and Keras models (`search.training.model`) are both derived from it; no geometry is computed
anywhere else. The receptive field follows r <- r + (k - 1) * dilation * j, j <- j * stride, from r = j = 1, not clipped to
the image (Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019). Behind a sum
it is the union of the windows of both branches, which may be centred differently: wider than the wider of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, assert_never

from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    ArchitectureError,
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
    Padding,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)

Shape = tuple[int, ...]  # (height, width, channels), or (features,) from global pooling, flatten or dense on


class Resolved(NamedTuple):
    """A layer of a network with its geometry: shapes without the batch axis, jump and receptive field in input pixels."""

    name: str
    layer: Layer
    input: Shape
    output: Shape
    jump: int
    receptive_field: int | None  # the larger of height and width; None from global pooling, flatten or dense on
    branch: tuple[Resolved, ...] = ()
    shortcut: tuple[Resolved, ...] = ()
    first: str = ""  # name of the earlier convolution that this one shares its weights with; "" if none


def resolve(architecture: Architecture) -> tuple[Resolved, ...]:
    """Compute the geometry of each layer.

    Raises:
        ArchitectureError: a layer does not fit its input, or the output is not one score per class.
    """
    resolved = _resolve(architecture.layers, architecture.input, 1, 1, _Seen({}, {}))
    if resolved[-1].output != (architecture.classes,):
        raise ArchitectureError(
            f"the output is {list(resolved[-1].output)}, it must be one score for each of {architecture.classes} classes"
        )
    return resolved


def output_shape(layers: tuple[Layer, ...], image: Shape) -> Shape:
    """Shape of the last layer's output for an image of this shape, when the number of classes is not known yet.

    Raises:
        ArchitectureError: a layer does not fit its input.
    """
    return _resolve(layers, image, 1, 1, _Seen({}, {}))[-1].output


def flatten(resolved: tuple[Resolved, ...], depth: int = 0) -> Iterator[tuple[int, Resolved]]:
    """Yield (depth, layer) for every layer; those inside a residual precede the sum that closes it."""
    for row in resolved:
        if row.branch or row.shortcut:
            yield from flatten(row.branch, depth + 1)
            yield from flatten(row.shortcut, depth + 1)
        yield depth, row


def receptive_field(resolved: tuple[Resolved, ...]) -> int:
    """Receptive field of the network: the last one before global pooling, flatten or dense; 1 if there is none."""
    return next((row.receptive_field for row in reversed(resolved) if row.receptive_field is not None), 1)


def first_half_positions(row: Resolved) -> tuple[int, int]:
    """(height, width) after the k x 1 half of a spatially separable convolution, which has stride 1."""
    assert isinstance(row.layer, SpatialSeparableConv)
    height, width, _ = row.input
    reach = (row.layer.kernel - 1) * row.layer.dilation
    return height - (reach if row.layer.padding == "valid" else 0), width


class _Seen(NamedTuple):
    """Layers passed so far: their number by kind, and the first convolution of each set of shared weights."""

    kinds: dict[str, int]
    weights: dict[str, Resolved]


def _resolve(layers: tuple[Layer, ...], shape: Shape, jump: int, field: int | None, seen: _Seen) -> tuple[Resolved, ...]:
    rows = []
    for layer in layers:
        seen.kinds[layer.kind] = number = seen.kinds.get(layer.kind, 0) + 1
        name = f"{layer.kind}_{number}"
        try:
            row = _resolve_layer(name, layer, shape, jump, field, seen)
        except ArchitectureError as error:
            raise (error if error.layer else ArchitectureError(str(error), name)) from None
        rows.append(row)
        shape, jump, field = row.output, row.jump, row.receptive_field
    return tuple(rows)


def _resolve_layer(name: str, layer: Layer, shape: Shape, jump: int, field: int | None, seen: _Seen) -> Resolved:
    match layer:
        case BatchNorm() | Activation() | Dropout():
            return Resolved(name, layer, shape, shape, jump, field)
        case SeparableConv() | SpatialSeparableConv() | Conv():
            reach = (layer.kernel - 1) * layer.dilation + 1
            output = (*_positions(shape, reach, layer.stride, layer.padding), layer.filters)
            row = Resolved(name, layer, shape, output, jump * layer.stride, _grown(field, reach, jump))
            return _shared(row, layer.weights, seen) if layer.weights else row
        case MaxPool() | AveragePool():
            stride = layer.stride or layer.size
            output = (*_positions(shape, layer.size, stride, layer.padding), shape[2])
            return Resolved(name, layer, shape, output, jump * stride, _grown(field, layer.size, jump))
        case GlobalAveragePool():
            return Resolved(name, layer, shape, (_map(shape)[2],), jump, None)
        case Flatten():
            size = 1
            for extent in shape:
                size *= extent
            return Resolved(name, layer, shape, (size,), jump, None)
        case Dense():
            _vector(shape)
            return Resolved(name, layer, shape, (layer.units,), jump, None)
        case Softmax():
            _vector(shape)
            return Resolved(name, layer, shape, shape, jump, None)
        case Gate():
            if shape[-1] % 2:
                raise ArchitectureError(f"a gate halves its channels, and {shape[-1]} is odd")
            return Resolved(name, layer, shape, (*shape[:-1], shape[-1] // 2), jump, field)
        case Residual():
            branch = _resolve(layer.branch, shape, jump, field, seen)
            shortcut = _resolve(layer.shortcut, shape, jump, field, seen)
            return _sum(name, layer, shape, jump, field, branch, shortcut)
        case _:
            assert_never(layer)


def _shared(row: Resolved, weights: str, seen: _Seen) -> Resolved:
    first = seen.weights.setdefault(weights, row)
    if first is row:
        return row
    if first.layer != row.layer or first.input[-1] != row.input[-1]:
        raise ArchitectureError(f"shares the weights {weights!r} with {first.name}, which is not the same convolution")
    return row._replace(first=first.name)


def _sum(
    name: str,
    layer: Residual,
    shape: Shape,
    jump: int,
    field: int | None,
    branch: tuple[Resolved, ...],
    shortcut: tuple[Resolved, ...],
) -> Resolved:
    ends = [(rows[-1].output, rows[-1].jump, rows[-1].receptive_field) if rows else (shape, jump, field)
            for rows in (branch, shortcut)]  # fmt: skip
    (left, left_jump, left_field), (right, right_jump, right_field) = ends
    if left != right:
        raise ArchitectureError(f"the branch ends in {list(left)} and the shortcut in {list(right)}: they cannot be added")
    union = None
    if field is not None and left_field is not None and right_field is not None:
        if left_jump == right_jump and field in (left_field, right_field):
            union = max(left_field, right_field)  # one side sees a single pixel, which every window includes
        else:
            windows = [_union(branch, shortcut, axis, left[axis]) for axis in (0, 1)]
            union = field + max(window.last - window.first for window in windows) * jump
    return Resolved(name, layer, shape, left, max(left_jump, right_jump), union, branch, shortcut)


class _Window(NamedTuple):
    """Inputs along one axis that an output depends on: at position p those from p * jump + first to p * jump + last."""

    first: int
    last: int
    jump: int


def _union(branch: tuple[Resolved, ...], shortcut: tuple[Resolved, ...], axis: int, size: int) -> _Window:
    """Window of a sum: from the first to the last input that either side depends on.

    Args:
        axis: 0 for height, 1 for width.
        size: of the output along this axis. Sides of different jumps, which equal outputs of small maps admit, are compared
            at its centre.
    """
    left, right, centre = _window(branch, axis), _window(shortcut, axis), size // 2
    jump = max(left.jump, right.jump)
    first = min(window.first + centre * (window.jump - jump) for window in (left, right))
    last = max(window.last + centre * (window.jump - jump) for window in (left, right))
    return _Window(first, last, jump)


def _window(rows: tuple[Resolved, ...], axis: int) -> _Window:
    """Window of the last row's output over the first row's input."""
    first, last, jump = 0, 0, 1
    for row in rows:
        window = _layer_window(row, axis)
        if window is not None:
            first += window.first * jump
            last += window.last * jump
            jump *= window.jump
    return _Window(first, last, jump)


def _layer_window(row: Resolved, axis: int) -> _Window | None:
    """Window of one layer; None if an output depends on its own position alone, or has no position."""
    match row.layer:
        case SeparableConv(kernel=size) | SpatialSeparableConv(kernel=size) | Conv(kernel=size) as layer:
            reach, stride = (size - 1) * layer.dilation + 1, layer.stride
            # the k x 1 half of a spatially separable convolution pads the height, and has stride 1
            padded_stride = 1 if axis == 0 and isinstance(layer, SpatialSeparableConv) else stride
        case MaxPool(size=size) | AveragePool(size=size) as layer:
            reach, stride = size, layer.stride or size
            padded_stride = stride
        case Residual():
            return _union(row.branch, row.shortcut, axis, row.output[axis])
        case BatchNorm() | Activation() | Dropout() | Gate():
            return None
        case GlobalAveragePool() | Flatten() | Dense() | Softmax():
            return None
        case _:
            assert_never(row.layer)
    before = _padding_before(row.input[axis], reach, padded_stride) if layer.padding == "same" else 0
    return _Window(-before, reach - 1 - before, stride)


def _padding_before(size: int, reach: int, stride: int) -> int:
    """Padding that TensorFlow's `same` puts before an axis; of an odd total the larger half goes behind."""
    total = (-(-size // stride) - 1) * stride + reach - size
    return max(total, 0) // 2


def _positions(shape: Shape, reach: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Height and width after a window of `reach` pixels slides over the map, as TensorFlow counts them."""
    height, width, _ = _map(shape)
    if padding == "same":
        return -(-height // stride), -(-width // stride)
    if reach > height or reach > width:
        raise ArchitectureError(f"a window of {reach}x{reach} does not fit its {height}x{width} input")
    return (height - reach) // stride + 1, (width - reach) // stride + 1


def _grown(field: int | None, reach: int, jump: int) -> int | None:
    return None if field is None else field + (reach - 1) * jump


def _map(shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ArchitectureError(f"needs a map (height, width, channels), and a vector of {shape[0]} reaches it")
    return shape


def _vector(shape: Shape) -> None:
    if len(shape) != 1:
        raise ArchitectureError(f"needs a vector, and {list(shape)} reaches it; put global_average_pool or flatten before")
