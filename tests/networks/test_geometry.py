"""Shapes, jumps and receptive fields; the fields are measured on built models, one row or column of pixels at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, flatten, receptive_field, resolve
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
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
    walk,
)
from search.training.model import build
from tests.support.strategies import REFERENCES, TAIL, Draw, Window, architectures, bodies, narrow, net, reference, window
from tests.support.tiers import tiered


def last(*layers: Layer, side: int = 12) -> Resolved:
    """The last of these layers, resolved."""
    tail = (Flatten(), *TAIL[1:]) if any(isinstance(layer, GlobalAveragePool) for layer in layers) else TAIL
    return resolve(net(*layers, side=side, tail=tail))[len(layers) - 1]


# --- the receptive field, measured -----------------------------------------------------------------------------------


def make_positive(model: Any) -> None:
    """Every weight of a convolution the same positive number: each output is then an increasing function of its inputs."""
    for layer in model.layers:
        for variable in layer.trainable_variables:
            if "kernel" in variable.path and len(variable.shape) == 4:
                variable.assign(np.full(variable.shape, 1 / np.prod(variable.shape[:3]), np.float32))
            elif variable.path.endswith("/bias"):
                variable.assign(np.zeros(variable.shape, np.float32))


def measured(architecture: Architecture) -> Iterator[tuple[Resolved, tuple[int, int]]]:
    """Each map with the extent (height, width) of the pixels that its central output depends on."""
    rows = [row for _, row in flatten(resolve(architecture)) if row.receptive_field is not None]
    model = build(architecture)
    make_positive(model)
    maps = keras.Model(model.input, {row.name: model.get_layer(row.name).output for row in rows})
    height, width, channels = architecture.input
    images = np.ones((1 + height + width, height, width, channels), np.float32)
    for line in range(height):
        images[1 + line, line] = 1e6
    for line in range(width):
        images[1 + height + line, :, line] = 1e6
    values = maps(images)
    for row in rows:
        array = np.asarray(keras.ops.convert_to_numpy(values[row.name]))
        centre = array[:, array.shape[1] // 2, array.shape[2] // 2].max(axis=-1)
        changed = np.abs(centre[1:] - centre[0]) > 1e-4 * abs(centre[0])
        yield row, (extent(changed[:height]), extent(changed[height:]))


def extent(changed: Any) -> int:
    lines = np.flatnonzero(changed)
    return int(lines[-1] - lines[0] + 1)


def reach(layers: tuple[Layer, ...]) -> tuple[int, int]:
    """The largest receptive field and the largest jump of these layers."""
    rows = [row for _, row in flatten(resolve(net(*layers, side=400, channels=2))) if row.receptive_field is not None]
    return max(row.receptive_field or 0 for row in rows), max(row.jump for row in rows)


def check_measured(layers: tuple[Layer, ...]) -> None:
    farthest, jump = reach(layers)
    side = farthest + 6 * jump + 8  # so that no border clips what the centre sees
    is_square = not any(isinstance(layer, SpatialSeparableConv) for layer in walk(layers))  # each half pads one axis
    for row, extents in measured(net(*layers, side=side, channels=2)):
        assert max(extents) == row.receptive_field, row.name
        assert extents[0] == extents[1] or not is_square, row.name


@given(bodies())
@settings(max_examples=25)
def test_a_receptive_field_is_what_a_pixel_reaches(architecture: Architecture) -> None:
    layers = architecture.layers[: -len(TAIL)]
    farthest, jump = reach(layers)
    assume(farthest <= 64 and jump <= 9)
    check_measured(layers)


@st.composite
def sums(draw: Draw) -> tuple[Layer, ...]:
    """Residuals with windows on both sides, of even and odd kernels and strides, centred in every way."""
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, 2))):
        stride = draw(st.integers(1, 3))
        layers.append(Residual(draw_side(draw, stride, 1), draw_side(draw, stride, 1)))
    return tuple(layers)


def draw_side(draw: Draw, stride: int, depth: int) -> tuple[Layer, ...]:
    """Up to three layers with `same` padding, one of which has the stride."""
    layers: list[Layer] = []
    count = draw(st.integers(1, 3))
    strided = draw(st.integers(0, count - 1))
    for index in range(count):
        step = stride if index == strided else 1
        kernel = draw(st.integers(1, 5))
        kind = draw(st.sampled_from(("conv", "separable", "spatial", "pool", "residual")[: 4 + depth]))
        if kind == "conv":
            layers.append(Conv(2, kernel, step))
        elif kind == "separable":
            layers.append(SeparableConv(2, kernel, step, dilation=draw(st.integers(1, 2)) if step == 1 else 1))
        elif kind == "spatial":
            layers.append(SpatialSeparableConv(2, kernel, step))
        elif kind == "pool":
            layers.append(MaxPool(kernel, step, "same"))
        else:
            layers.append(Residual(draw_side(draw, step, 0), draw_side(draw, step, 0)))
    return tuple(layers)


@given(sums())
@settings(max_examples=20)
def test_a_sum_sees_the_union_of_both_windows(layers: tuple[Layer, ...]) -> None:
    farthest, jump = reach(layers)
    assume(farthest <= 64 and jump <= 9)
    check_measured(layers)


MEASURED: dict[str, tuple[tuple[Layer, ...], int]] = {
    "one convolution": ((Conv(2),), 3),
    "even kernel": ((SeparableConv(2, 4),), 4),
    "dilation": ((SeparableConv(2, 3, dilation=4),), 9),
    "dilation of both halves": ((SpatialSeparableConv(2, 3, dilation=3),), 7),
    "stride counts from the next layer on": ((Conv(2, 3, 3),), 3),
    "stride": ((SeparableConv(2, 3, 2), SeparableConv(2)), 7),
    "strides multiply": ((Conv(2, 3, 2), SpatialSeparableConv(2, 3, 3), Conv(2, 2)), 13),
    "stride over the kernel": ((Conv(2, 1, 4), Conv(2)), 9),
    "valid": ((Conv(2, 5, padding="valid"), Conv(2, 3, 2, "valid"), Conv(2, 3, padding="valid")), 11),
    "max pool": ((Conv(2), MaxPool(), Conv(2)), 8),
    "average pool": ((Conv(2), AveragePool(), Conv(2)), 8),
    "overlapping pool": ((MaxPool(3, 2, "same"), AveragePool(3, 1), Conv(2)), 11),
    "elementwise": ((Conv(2), BatchNorm(), Activation("relu"), Dropout(0.5), Gate("silu")), 3),
    "residual": ((Conv(2), Residual((Conv(2, 5), Conv(2)))), 9),
    "longer shortcut": ((Conv(2), Residual((Conv(2),), (Conv(2, 7),)), Conv(2)), 11),
    "strided residual": ((Residual((Conv(2, 3, 2), Conv(2)), (Conv(2, 1, 2),)), Conv(2)), 11),
    "nested residual": ((Residual((Conv(2), Residual((Conv(2),)), Conv(2)), (Conv(2, 1),)), Conv(2)), 9),
    "even kernels beside an odd one": ((Residual((Conv(2, 2), Conv(2, 2)), (Conv(2),)),), 4),
    "even kernels in a nested sum": ((Conv(2), Residual((Residual((Conv(2, 2), Conv(2, 2)), (Conv(2),)),), ())), 6),
    "strides that pad to one side": ((Residual((Conv(2, 3, 2),), (Conv(2), Conv(2, 1, 2))), Conv(2)), 8),
    "residual that passes all on": ((Residual(()), Conv(2)), 3),
}


@pytest.mark.parametrize("case", MEASURED)
def test_the_receptive_field_of(case: str) -> None:
    layers, expected = MEASURED[case]
    assert last(*layers, side=60).receptive_field == expected
    check_measured(layers)


@pytest.mark.parametrize(
    ("name", "expected"), [("base", 36), ("eip-a", 32), ("eip-b", 52), ("eip-c", 34), ("eip-c-late", 33), ("eip-d", 50)]
)
def test_the_receptive_fields_of_the_references(name: str, expected: int) -> None:
    resolved = resolve(reference(name))
    assert receptive_field(resolved) == expected
    fields = [row.receptive_field for _, row in flatten(resolved)]
    ends = next(i for i, (_, row) in enumerate(flatten(resolved)) if len(row.output) == 1)
    assert all(field is not None for field in fields[:ends])
    assert all(field is None for field in fields[ends:])


@pytest.mark.parametrize("name", tiered(REFERENCES, quick=("eip-b", "eip-d")))
def test_the_receptive_fields_of_the_references_are_what_a_pixel_reaches(name: str) -> None:
    resolved = resolve(reference(name))
    body = tuple(row.layer for row in resolved if len(row.output) == 3)
    check_measured(narrow(body))


def test_the_receptive_field_is_not_clipped_to_the_image() -> None:
    assert last(Conv(2, 5), Conv(2, 5), side=3).receptive_field == 9


def test_a_network_without_maps_sees_one_pixel_at_a_time() -> None:
    """The rule starts from r = 1, so a layer that does nothing changes nothing."""
    assert receptive_field(resolve(net())) == receptive_field(resolve(net(Dropout(0.0)))) == 1


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_windows_are_counted_one_by_one(kernel: int, stride: int, padding: Any) -> None:
    for side in range(kernel, 14):
        expected = window(side, Window(kernel, stride, padding))
        for layer in (
            SeparableConv(4, kernel, stride, padding),
            SpatialSeparableConv(4, kernel, stride, padding),
            Conv(4, kernel, stride, padding),
        ):
            assert last(layer, side=side).output == (expected, expected, 4)
        assert last(MaxPool(kernel, stride, padding), side=side).output == (expected, expected, 3)
        assert last(AveragePool(kernel, stride, padding), side=side).output == (expected, expected, 3)


def test_height_and_width_are_independent() -> None:
    rows = resolve(Architecture((9, 14, 3), 2, (Conv(4, 3, 2, "valid"), MaxPool(), Flatten(), Dense(2), Softmax())))
    assert [row.output for row in rows] == [(4, 6, 4), (2, 3, 4), (24,), (2,), (2,)]
    assert [row.input for row in rows] == [(9, 14, 3), (4, 6, 4), (2, 3, 4), (24,), (2,)]


def test_dilation_widens_the_window() -> None:
    assert last(Conv(4, 3, padding="valid", dilation=4)).output == (4, 4, 4)
    assert last(SpatialSeparableConv(4, 3, padding="valid", dilation=4)).output == (4, 4, 4)
    assert last(SeparableConv(4, 3, dilation=40)).output == (12, 12, 4)


def test_pools_do_not_overlap_unless_a_stride_is_given() -> None:
    assert last(MaxPool(3)).output == (4, 4, 3)
    assert last(MaxPool(3, 1)).output == (10, 10, 3)
    assert last(AveragePool(3, 2)).output == (5, 5, 3)


def test_a_gate_halves_the_channels_of_a_map_and_of_a_vector() -> None:
    assert last(Conv(6), Gate()).output == (12, 12, 3)
    assert last(GlobalAveragePool(), Dense(6), Gate(), Residual((Dense(3),))).output == (3,)


@given(architectures())
@settings(max_examples=200)
def test_layers_follow_one_another(architecture: Architecture) -> None:
    resolved = resolve(architecture)
    assert tuple(row.layer for row in resolved) == architecture.layers
    assert resolved[-1].output == (architecture.classes,)

    def check(rows: tuple[Resolved, ...], shape: tuple[int, ...], jump: int) -> None:
        for row in rows:
            assert row.input == shape
            assert row.jump >= jump
            if isinstance(row.layer, Residual):
                assert tuple(inner.layer for inner in row.branch) == row.layer.branch
                assert tuple(inner.layer for inner in row.shortcut) == row.layer.shortcut
                check(row.branch, shape, jump)
                check(row.shortcut, shape, jump)
            shape, jump = row.output, row.jump

    check(resolved, architecture.input, 1)


@given(architectures())
@settings(max_examples=100)
def test_names_are_kinds_numbered_in_the_order_of_the_text(architecture: Architecture) -> None:
    rows = list(flatten(resolve(architecture)))
    assert [row.layer for _, row in rows] == list(walk(architecture.layers))
    names = [row.name for _, row in rows]
    assert len(set(names)) == len(names)
    for kind in {row.layer.kind for _, row in rows}:
        numbers = [int(row.name.removeprefix(f"{kind}_")) for _, row in rows if row.layer.kind == kind]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_depth_counts_the_residuals_around_a_layer() -> None:
    rows = resolve(net(Residual((Conv(3), Residual((Conv(3),))), (Conv(3),))))
    names = [(depth, row.name) for depth, row in flatten(rows)][:5]
    assert names == [(1, "conv_1"), (2, "conv_2"), (1, "residual_2"), (1, "conv_3"), (0, "residual_1")]


# --- what cannot exist -----------------------------------------------------------------------------------------------

CANNOT: dict[str, tuple[Architecture, str]] = {
    "window larger than its map": (
        net(Conv(4, 13, padding="valid")),
        "conv_1: a window of 13x13 does not fit its 12x12 input",
    ),
    "dilated window": (net(SeparableConv(4, 5, padding="valid", dilation=3)), "separable_conv_1: a window of 13x13"),
    "spatial window": (net(SpatialSeparableConv(4, 13, padding="valid")), "spatial_separable_conv_1: a window of 13x13"),
    "max pool": (net(MaxPool(), MaxPool(7)), "max_pool_2: a window of 7x7 does not fit its 6x6 input"),
    "average pool": (net(AveragePool(13)), "average_pool_1: a window of 13x13"),
    "too narrow": (
        Architecture((12, 4, 3), 2, (Conv(4, 5, padding="valid"), *TAIL)),
        "conv_1: a window of 5x5 does not fit its 12x4 input",
    ),
    "too low": (Architecture((4, 12, 3), 2, (Conv(4, 5, padding="valid"), *TAIL)), "does not fit its 4x12 input"),
    "odd gate": (net(Gate()), "gate_1: a gate halves its channels, and 3 is odd"),
    "odd gate of a vector": (net(tail=(GlobalAveragePool(), Gate(), *TAIL[1:])), "gate_1: a gate halves"),
    "branches of other widths": (net(Residual((Conv(4),))), "residual_1: the branch ends in [12, 12, 4]"),
    "branches of other sizes": (net(Residual((MaxPool(),))), "residual_1: the branch ends in [6, 6, 3]"),
    "shortcut of another size": (net(Residual((), (MaxPool(),))), "the shortcut in [6, 6, 3]"),
    "map and vector": (net(Residual((GlobalAveragePool(),))), "residual_1: the branch ends in [3]"),
    "weights of another convolution": (
        net(SeparableConv(3, weights="a"), SeparableConv(3, 5, weights="a")),
        "separable_conv_2: shares the weights 'a' with separable_conv_1, which is not the same convolution",
    ),
    "weights of another kind": (net(Conv(3, weights="a"), SeparableConv(3, weights="a")), "with conv_1, which is not"),
    "weights on other channels": (
        net(Residual((Conv(5, weights="a"), Conv(5, weights="a"))), tail=TAIL),
        "conv_2: shares the weights 'a' with conv_1",
    ),
    "fault in a nested residual": (net(Residual((Residual((Conv(4),)),))), "residual_2: the branch ends in [12, 12, 4]"),
    "fault in a branch": (net(Residual((Conv(3), Gate()))), "gate_1: a gate halves"),
    "fault in a shortcut": (net(Residual((), (Conv(3, 13, padding="valid"),))), "conv_1: a window"),
    "convolution of a vector": (net(Flatten(), Conv(2)), "conv_1: needs a map"),
    "pool of a vector": (net(Flatten(), MaxPool()), "max_pool_1: needs a map"),
    "global pool of a vector": (net(GlobalAveragePool()), "global_average_pool_2: needs a map"),
    "dense on a map": (net(tail=(Dense(2), Softmax())), "dense_1: needs a vector, and [12, 12, 3] reaches it"),
    "softmax of a map": (net(tail=(Softmax(),)), "softmax_1: needs a vector"),
    "other number of classes": (
        net(tail=(GlobalAveragePool(), Softmax())),
        "the output is [3], it must be one score for each of 2",
    ),
}


@pytest.mark.parametrize("case", CANNOT)
def test_the_error_of_an_impossible_network_names_the_layer(case: str) -> None:
    architecture, expected = CANNOT[case]
    with pytest.raises(ArchitectureError) as caught:
        resolve(architecture)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_a_valid_window_fits_exactly_when_it_is_no_larger(side: int, kernel: int, dilation: int) -> None:
    fits = (kernel - 1) * dilation + 1 <= side
    layer = Conv(2, kernel, padding="valid", dilation=dilation)
    if fits:
        assert last(layer, side=side).output[0] == side - (kernel - 1) * dilation
    else:
        with pytest.raises(ArchitectureError, match="does not fit"):
            last(layer, side=side)
