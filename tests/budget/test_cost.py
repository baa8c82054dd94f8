"""Costs, compared with Keras on hundreds of random networks and with the published table of the references."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import pytest
from hypothesis import given, settings

from search.budget.cost import Cost, LayerCost, compute_cost, compute_layer_cost, compute_resolved_cost
from search.budget.limits import Budget
from search.budget.summary import summarize
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, flatten, resolve
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
)
from search.training.model import build
from tests.support.strategies import REFERENCES, TAIL, architectures, net, reference

TABLE = {  # reference_networks: parameters, of them not trained
    "base": (1_172_410, 0),
    "eip-a": (32_261, 1_088),
    "eip-b": (94_911, 1_096),
    "eip-c": (80_203, 1_312),
    "eip-c-late": (76_995, 1_588),
    "eip-d": (96_009, 2_144),  # not in the table: 48 + 96 + 192 + 32 twice, 48 + 96 + 192 once, two moving statistics each
}


@pytest.mark.parametrize("name", TABLE)
def test_a_reference_costs_what_its_author_counted(name: str) -> None:
    params, frozen = TABLE[name]
    cost = compute_cost(reference(name))
    assert (cost.params, cost.params - cost.trainable_params) == (params, frozen)


# --- against Keras ---------------------------------------------------------------------------------------------------


def counted(model: Any) -> tuple[int, int]:
    return model.count_params(), sum(math.prod(weight.shape) for weight in model.trainable_weights)


def keras_layers(model: Any, row: Resolved) -> Iterator[Any]:
    """The Keras layers that one resolved layer became."""
    for layer in model.layers:
        name = row.first or row.name
        if layer.name == name or (layer.name.startswith(f"{name}_") and not layer.name[len(name) + 1].isdigit()):
            yield layer


def keras_macs(model: Any, row: Resolved) -> int:
    """Multiply-adds counted from the built layers: each kernel's size times the positions of its layer's output."""
    return sum(
        math.prod(weight.shape) * math.prod(_output(layer)[:-1])
        for layer in keras_layers(model, row)
        if not isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
        if not weight.path.endswith("/bias")
    )


def _output(layer: Any) -> tuple[int, ...]:
    """The shape of what a layer puts out, without the batch axis; of one that is used several times, of the first use."""
    return tuple(layer._inbound_nodes[0].output_tensors[0].shape[1:])


def check_against_keras(architecture: Architecture) -> None:
    model = build(architecture)
    cost = compute_cost(architecture)
    assert (cost.params, cost.trainable_params) == counted(model)
    rows = [row for _, row in flatten(resolve(architecture))]
    for row in rows:
        assert _output(model.get_layer(row.first or row.name)) == row.output, row.name
        own = compute_layer_cost(row)
        layers = list(keras_layers(model, row))
        assert own.macs == keras_macs(model, row), row.name
        assert own.activations == math.prod(row.output), row.name
        if row.first:  # counted where the weights are used first
            assert (own.params, own.frozen) == (0, 0), row.name
            continue
        assert own.params == sum(layer.count_params() for layer in layers), row.name
        trained = sum(math.prod(weight.shape) for layer in layers for weight in layer.trainable_weights)
        assert own.params - own.frozen == trained, row.name
    assert cost.macs == sum(keras_macs(model, row) for row in rows)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_costs_what_keras_counts(name: str) -> None:
    check_against_keras(reference(name))


@given(architectures(most_layers=6))
@settings(max_examples=40)
def test_a_network_costs_what_keras_counts(architecture: Architecture) -> None:
    check_against_keras(architecture)


# --- by hand ---------------------------------------------------------------------------------------------------------

BY_HAND: dict[str, tuple[Layer, LayerCost]] = {  # on a 12x12x3 map
    "separable": (SeparableConv(8), LayerCost(27 + 24, 0, 51 * 144, 8 * 144)),
    "separable with bias": (SeparableConv(8, use_bias=True), LayerCost(59, 0, 51 * 144, 8 * 144)),
    "separable 1x1": (SeparableConv(8, 1), LayerCost(3 + 24, 0, 27 * 144, 8 * 144)),
    "separable, multiplied": (SeparableConv(8, 5, depth_multiplier=2), LayerCost(150 + 48, 0, 198 * 144, 8 * 144)),
    "separable, strided": (SeparableConv(8, 3, 2), LayerCost(51, 0, 51 * 36, 8 * 36)),
    "separable, valid": (SeparableConv(8, 3, padding="valid"), LayerCost(51, 0, 51 * 100, 8 * 100)),
    "separable, dilated": (SeparableConv(8, 3, padding="valid", dilation=2), LayerCost(51, 0, 51 * 64, 8 * 64)),
    "spatial": (SpatialSeparableConv(8, 5), LayerCost(15 + 15 + 24, 0, 54 * 144, 8 * 144)),
    "spatial with bias": (SpatialSeparableConv(8, 5, use_bias=True), LayerCost(62, 0, 54 * 144, 8 * 144)),
    "spatial, strided": (SpatialSeparableConv(8, 5, 2), LayerCost(54, 0, 15 * 144 + 39 * 36, 8 * 36)),
    "spatial, valid": (SpatialSeparableConv(8, 5, padding="valid"), LayerCost(54, 0, 15 * 8 * 12 + 39 * 64, 8 * 64)),
    "spatial, both": (SpatialSeparableConv(8, 5, 2, "valid"), LayerCost(54, 0, 15 * 8 * 12 + 39 * 16, 8 * 16)),
    "spatial, dilated": (
        SpatialSeparableConv(8, 5, padding="valid", dilation=2),
        LayerCost(54, 0, 15 * 4 * 12 + 39 * 16, 8 * 16),
    ),
    "spatial, dilated, same": (SpatialSeparableConv(8, 3, dilation=2), LayerCost(18 + 24, 0, 42 * 144, 8 * 144)),
    "conv": (Conv(8), LayerCost(216, 0, 216 * 144, 8 * 144)),
    "conv with bias": (Conv(8, 1, use_bias=True), LayerCost(32, 0, 24 * 144, 8 * 144)),
    "batch norm": (BatchNorm(), LayerCost(12, 6, 0, 432)),
    "activation": (Activation("gelu"), LayerCost(0, 0, 0, 432)),
    "dropout": (Dropout(0.5), LayerCost(0, 0, 0, 432)),
    "max pool": (MaxPool(), LayerCost(0, 0, 0, 108)),
    "average pool": (AveragePool(3, 1), LayerCost(0, 0, 0, 300)),
    "global pool": (GlobalAveragePool(), LayerCost(0, 0, 0, 3)),
    "flatten": (Flatten(), LayerCost(0, 0, 0, 432)),
    "empty residual": (Residual(()), LayerCost(0, 0, 0, 432)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_one_layer_costs(case: str) -> None:
    layer, expected = BY_HAND[case]
    vector = isinstance(layer, GlobalAveragePool | Flatten)
    assert compute_layer_cost(resolve(net(layer, tail=TAIL[vector:]))[0]) == expected


def test_layers_of_a_vector_cost() -> None:
    rows = resolve(net(Conv(6), tail=(GlobalAveragePool(), Gate(), Dense(5), Dense(7, False), BatchNorm(), *TAIL[1:])))
    assert [compute_layer_cost(row) for row in rows[2:]] == [
        LayerCost(0, 0, 0, 3),
        LayerCost(20, 0, 15, 5),
        LayerCost(35, 0, 35, 7),
        LayerCost(28, 14, 0, 7),
        LayerCost(16, 0, 14, 2),
        LayerCost(0, 0, 0, 2),
    ]


def test_a_residual_costs_its_branches_once() -> None:
    inner = (SeparableConv(3), BatchNorm())
    alone, both = compute_cost(net(*inner)), compute_cost(net(Residual(inner)))
    assert (alone.params, alone.trainable_params, alone.macs) == (both.params, both.trainable_params, both.macs)
    twice = compute_cost(net(Residual(inner, (Residual(inner),))))
    rest = compute_cost(net())
    assert twice.params - rest.params == 2 * (alone.params - rest.params)
    assert twice.macs - rest.macs == 2 * (alone.macs - rest.macs)


def test_the_largest_activation_is_found_inside_a_residual() -> None:
    assert compute_cost(net(Residual((SeparableConv(50), SeparableConv(3))))).largest_activation == 50 * 144


def test_spatially_separable_kernels_are_the_cheaper_the_larger_they_are() -> None:
    for kernel in (3, 5, 7):
        square, halves = compute_cost(net(SeparableConv(8, kernel))), compute_cost(net(SpatialSeparableConv(8, kernel)))
        assert square.params - halves.params == 3 * kernel * (kernel - 2)
        assert square.macs - halves.macs == 3 * kernel * (kernel - 2) * 144


@given(architectures())
@settings(max_examples=100)
def test_wider_and_deeper_costs_more(architecture: Architecture) -> None:
    cost = compute_cost(architecture)
    assert cost.trainable_params <= cost.params
    assert cost == compute_resolved_cost(resolve(architecture))
    for index, layer in enumerate(architecture.layers):
        if isinstance(layer, SeparableConv | SpatialSeparableConv | Conv):
            wider = replace(layer, filters=layer.filters + 2)
            try:
                changed = compute_cost(_with(architecture, index, wider))
            except ArchitectureError:  # the head counts the classes, and a branch its channels
                continue
            assert changed.params > cost.params
            assert changed.macs > cost.macs
    with_one_more = Architecture(
        architecture.input, architecture.classes, (SeparableConv(architecture.input[2], 1), *architecture.layers)
    )
    assert compute_cost(with_one_more).params > cost.params


def _with(architecture: Architecture, index: int, layer: Layer) -> Architecture:
    layers = (*architecture.layers[:index], layer, *architecture.layers[index + 1 :])
    return replace(architecture, layers=layers)


@pytest.mark.parametrize("width", range(1, 40))
def test_params_and_macs_rise_with_every_filter(width: int) -> None:
    for make in (SeparableConv, SpatialSeparableConv, Conv):
        less, more = (compute_cost(net(make(width + extra), BatchNorm(), make(4))) for extra in (0, 1))
        assert less.params < more.params
        assert less.trainable_params < more.trainable_params
        assert less.macs < more.macs


# --- budget ----------------------------------------------------------------------------------------------------------


def test_a_budget_is_strict() -> None:
    budget = Budget(params=100_000)
    cost = Cost(99_999, 99_999, 0, 0, None)
    assert budget.breach(net(), cost) is None
    breach = budget.breach(net(), replace(cost, params=100_000))
    assert breach is not None
    assert "100,000 parameters" in breach.reason
    assert budget.breach(net(), replace(cost, params=100_001, trainable_params=5)) is not None


def test_a_budget_is_strict_for_a_network() -> None:
    """4 + units * 2 + 2 parameters, of one channel: 99,999 fits and 100,000 does not."""
    just = Architecture((1, 1, 1), 1, (Flatten(), Dense(33_333), Dense(1), Softmax()))
    assert compute_cost(just).params == 2 * 33_333 + 33_333 + 1 == 100_000
    below = Architecture((1, 1, 1), 1, (Flatten(), Dense(33_333), Dense(1, False), Softmax()))
    assert compute_cost(below).params == 99_999
    assert Budget(params=100_000).breach(below, compute_cost(below)) is None
    breach = Budget(params=100_000).breach(just, compute_cost(just))
    assert breach is not None
    assert breach.reason == "100,000 parameters, the budget is under 100,000"
    assert Budget(params=100_001).breach(just, compute_cost(just)) is None


@pytest.mark.parametrize(
    "architecture",
    [
        net(Conv(4)),
        net(Conv(3, 1)),
        net(Residual((Conv(3),))),
        net(Residual((), (Conv(3, 1),))),
        net(Residual((Residual((), (SeparableConv(3), Conv(3, 1))),))),
        reference("eip-a"),
    ],
    ids=lambda architecture: architecture.name or "-".join(layer.kind for layer in architecture.layers[:1]),
)
def test_separable_only_rejects_every_plain_convolution(architecture: Architecture) -> None:
    cost = compute_cost(architecture)
    breach = Budget(params=2_000_000).breach(architecture, cost)
    assert breach is not None
    assert "plain convolution" in breach.reason
    assert Budget(params=2_000_000, separable_only=False).breach(architecture, cost) is None


def test_separable_only_admits_both_separable_convolutions_pools_gates_and_a_dense_head() -> None:
    architecture = net(
        SeparableConv(4, 1), SpatialSeparableConv(4), Residual((SeparableConv(8), Gate())), MaxPool(), AveragePool()
    )
    assert Budget(params=100_000).breach(architecture, compute_cost(architecture)) is None


@pytest.mark.parametrize("name", REFERENCES)
def test_which_references_fit(name: str) -> None:
    architecture = reference(name)
    fits = Budget(params=100_000).breach(architecture, compute_cost(architecture)) is None
    assert fits == (name not in ("base", "eip-a"))


# --- table -----------------------------------------------------------------------------------------------------------


@given(architectures())
@settings(max_examples=50)
def test_the_table_adds_up(architecture: Architecture) -> None:
    shown, cost = summarize(architecture), compute_cost(architecture)
    assert shown["params"] == sum(row["params"] for row in shown["layers"]) == cost.params
    assert shown["macs"] == sum(row["macs"] for row in shown["layers"]) == cost.macs
    assert shown["trainable_params"] == cost.trainable_params
    assert shown["name"] == architecture.name
    assert shown["output"] == shown["layers"][-1]["output"] == [architecture.classes]
    fields = [row["receptive_field"] for row in shown["layers"]]
    assert all(field is None or (len(field) == 2 and field[0] == field[1]) for field in fields)
    assert shown["receptive_field"] == (None if cost.receptive_field is None else [cost.receptive_field] * 2)


def test_the_table_is_that_of_the_design() -> None:
    shown = summarize(net(SeparableConv(4, 3, 2), name="tiny"))
    assert list(shown) == ["name", "params", "trainable_params", "macs", "receptive_field", "output", "int8", "layers"]
    assert shown["layers"][0] == {
        "name": "separable_conv_1",
        "kind": "separable_conv",
        "output": [6, 6, 4],
        "receptive_field": [3, 3],
        "params": 39,
        "macs": 39 * 36,
    }
    assert shown["layers"][1]["receptive_field"] is None
