"""The pyramid space: every declared value, pools, suggested trials, tables."""

from __future__ import annotations

import itertools
import re
from typing import Any

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from search.budget.cost import compute_cost
from search.errors import first_problem
from search.networks.architecture import Architecture, fingerprint, to_dict
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Dense,
    Dropout,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.spaces.domains import Range, Value
from search.spaces.pyramid_parser import pool_places
from space import Fixed, Pyramid, build, parameters, suggest, widths
from tests.support.pyramids import CLASSES, INPUT, WIDE, built, networks, points, space
from tests.support.strategies import ORDERS, drawn_points, net, space_tables

# --- every declared value --------------------------------------------------------------------------------------------


COUNTED: dict[str, tuple[dict[str, Any], int]] = {  # a table, and how many networks it stands for
    "blocks": ({"blocks": {"low": 1, "high": 5}}, 5),
    "blocks, a list": ({"blocks": [1, 4]}, 2),
    "width": ({"width": {"low": 8, "high": 32, "step": 8}}, 4**2),
    "width of the net": ({"width": {"low": 8, "high": 32, "step": 8, "per": "net"}}, 4),
    "width of each": ({"width": {"each": [[8, 16], {"low": 4, "high": 12, "step": 4}]}}, 2 * 3),
    "kernel": ({"kernel": [1, 3, 5, 4]}, 4),
    "kernel of each block": ({"kernel": {"choices": [1, 3], "per": "block"}}, 4),
    "stride": ({"stride": [1, 2]}, 4),
    "padding": ({"padding": ["same", "valid"]}, 2),
    "dropout": ({"dropout": {"low": 0.0, "high": 0.3, "step": 0.1}, "order": "conv-dropout-bn-act"}, 4**2),
    "order": ({"order": list(ORDERS), "dropout": 0.1}, 6),
    "order of each block": ({"order": {"choices": list(ORDERS), "per": "block"}, "dropout": 0.1}, 6**2),
    "convolution": ({"convolution": ["separable", "spatial_separable"]}, 2),
    "activation": ({"activation": ["relu", "silu", "gelu"]}, 3),
    "pools": ({"blocks": 3, "pools": {"low": 0, "high": 3}}, 1 + 3 + 3 + 1),
    "pools at every depth": ({"blocks": {"low": 2, "high": 4}, "pools": {"low": 0, "high": 2}}, 4 + 7 + 11),
    "pool position": ({"blocks": 4, "pools": 1, "pool_position": [1, 3]}, 2),
    "pool position of each": ({"blocks": 4, "pools": 2, "pool_position": {"each": [[1, 2], [3, 4]]}}, 4),
    "pool kind": ({"pools": 2, "pool_kind": ["max", "average"]}, 2),
    "pool kind of each": ({"pools": 2, "pool_kind": {"choices": ["max", "average"], "per": "pool"}}, 4),
    "pool dropout": ({"pools": 2, "pool_dropout": [0.0, 0.1, 0.2]}, 9),
    "head": ({"head": ["conv", "dense", "conv-dense"]}, 3),
    "head kernel": ({"head_kernel": [1, 3]}, 2),
    "head padding": ({"head_kernel": 3, "head_padding": ["same", "valid"]}, 2),
    "head order": ({"head_order": list(ORDERS), "head_dropout": 0.1}, 6),
    "head dropout": ({"head_order": "conv-dropout-bn-act", "head_dropout": {"low": 0.0, "high": 0.5, "step": 0.25}}, 3),
    "head bias": ({"head_bias": [True, False]}, 2),
    "momentum": ({"momentum": [0.9, 0.99, 0.0]}, 3),
    "epsilon": ({"epsilon": [1e-3, 1e-5]}, 2),
}


@pytest.mark.parametrize("case", COUNTED)
def test_every_declared_value_makes_its_own_network(case: str) -> None:
    table, count = COUNTED[case]
    assert len(networks(space(**table))) == count


def test_every_dimension_is_counted() -> None:
    assert set(Pyramid.model_fields) - {"kind"} == set().union(*(table for table, _ in COUNTED.values()))


def test_declared_values_stand_in_the_layers() -> None:
    of = space(
        blocks=2,
        width={"each": [16, 24]},
        kernel={"each": [5, 3]},
        stride={"each": [2, 1]},
        padding={"each": ["valid", "same"]},
        dropout={"each": [0.1, 0.2]},
        order={"each": ["conv-act-dropout-bn", "conv-dropout-bn-act"]},
        convolution={"each": ["spatial_separable", "separable"]},
        activation={"each": ["silu", "gelu"]},
        pools=2,
        pool_kind={"each": ["average", "max"]},
        pool_dropout={"each": [0.3, 0.0]},
        head="conv-dense",
        head_kernel=4,
        head_padding="valid",
        head_order="conv-dropout-bn-act",
        head_dropout=0.4,
        head_bias=False,
        momentum=0.8,
        epsilon=0.01,
    )
    assert built(of, {"pool_position_1": 2, "pool_position_2": 1}).layers == (
        SpatialSeparableConv(16, 5, 2, "valid"),
        Activation("silu"),
        Dropout(0.1),
        BatchNorm(0.8, 0.01),
        AveragePool(),
        Dropout(0.3),
        SeparableConv(24, 3),
        Dropout(0.2),
        BatchNorm(0.8, 0.01),
        Activation("gelu"),
        MaxPool(),
        SeparableConv(10, 4, padding="valid"),
        Dropout(0.4),
        BatchNorm(0.8, 0.01),
        Activation("gelu"),
        GlobalAveragePool(),
        Dense(10),
        Softmax(),
    )


def test_the_defaults_make_a_network_under_the_budget() -> None:
    of = Pyramid()
    values = {name: domain.first for name, domain in parameters(of).items()}
    assert compute_cost(built(of, values)).params < 100_000


def test_no_dropout_is_built_at_rate_zero() -> None:
    of = space(order="conv-dropout-bn-act", dropout=[0.0, 0.1], pools=1, pool_dropout=0.0)
    for values in points(of):
        rates = [layer.rate for layer in built(of, values).layers if isinstance(layer, Dropout)]
        assert len(rates) == sum(values[f"dropout_{block}"] == 0.1 for block in (1, 2))


# --- pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deepest", [1, 2, 3, 5, 7])
def test_every_set_of_places_is_reached_at_every_depth(deepest: int) -> None:
    for depth in range(1, deepest + 1):
        for pools in range(min(depth, 4) + 1):
            reached = {
                pool_places(drawn, depth, deepest) for drawn in itertools.product(range(1, deepest + 1), repeat=pools)
            }
            assert reached == set(itertools.combinations(range(1, depth + 1), pools))


@given(st.data())
@settings(max_examples=300)
def test_pools_stand_behind_different_blocks_whatever_is_drawn(data: st.DataObject) -> None:
    deepest = data.draw(st.integers(1, 64))
    depth = data.draw(st.integers(1, deepest))
    positions = data.draw(st.lists(st.integers(1, deepest), max_size=min(depth, 8)))
    places = pool_places(positions, depth, deepest)
    assert len(places) == len(positions)
    assert all(1 <= place <= depth for place in places)
    assert list(places) == sorted(set(places))
    assert places == pool_places(positions[::-1], depth, deepest)
    if depth == deepest and len(set(positions)) == len(positions):
        assert list(places) == sorted(positions)


def test_positions_scale_with_the_depth() -> None:
    assert pool_places([4, 8], 8, 8) == (4, 8)
    assert pool_places([4, 8], 4, 8) == (2, 4)
    assert pool_places([3, 6, 9], 3, 9) == (1, 2, 3)
    assert pool_places([8, 8, 8], 4, 8) == (2, 3, 4)
    assert pool_places([1, 1], 8, 8) == (1, 2)
    assert pool_places([], 3, 8) == ()


# --- suggest ---------------------------------------------------------------------------------------------------------


def found(of: Pyramid, params: dict[str, Value]) -> dict[str, Value]:
    """Optuna's record of a trial, in the declared values."""
    declared = {name: parameters(of)[name].find(value) for name, value in params.items()}
    assert None not in declared.values()
    return {name: value for name, value in declared.items() if value is not None}


@given(space_tables(), st.integers(0, 2**20))
@settings(max_examples=30)
def test_suggest_builds_what_the_trial_was_asked_for(table: dict[str, Any], seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    of = Pyramid.model_validate(table)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(4):
        trial = study.ask()
        suggested = suggest(of, trial, INPUT, CLASSES)
        assert list(trial.params) == list(parameters(of))
        assert suggested == built(of, found(of, trial.params))
    assert len({str(trial.distributions) for trial in study.trials}) == 1


@given(drawn_points())
@settings(max_examples=100)
def test_suggest_builds_what_a_fixed_trial_holds(point: tuple[Pyramid, dict[str, Value]]) -> None:
    of, values = point
    assert suggest(of, optuna.trial.FixedTrial(dict(values)), INPUT, CLASSES) == built(of, values)


@given(drawn_points())
@settings(max_examples=50)
def test_encoded_values_can_be_queued(point: tuple[Pyramid, dict[str, Value]]) -> None:
    """A known network is tried first in a study by `enqueue_trial`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    of, values = point
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(dict(values))
    assert suggest(of, study.ask(), INPUT, CLASSES) == built(of, values)


def test_parameters_are_the_same_whatever_was_drawn() -> None:
    names = list(parameters(WIDE))
    assert names[0] == "blocks"
    assert [name for name in names if name.startswith("width")] == [f"width_{i}" for i in range(1, 12)]
    assert [name for name in names if name.startswith("pool_position")] == [f"pool_position_{i}" for i in range(1, 4)]
    assert "momentum" in names
    assert "epsilon" not in names
    assert all(not domain.is_fixed for domain in parameters(WIDE).values())
    assert parameters(space()) == {}


def test_a_missing_parameter_is_an_error() -> None:
    with pytest.raises(KeyError, match="width_2"):
        built(space(width=[8, 16]), {"width_1": 8})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"width": [8, 16]}, ("width_1", "width_2")),
        ({"width": 8}, ()),
        ({"width": {"low": 8, "high": 16, "per": "net"}}, ("width",)),
        ({"width": {"each": [8, [8, 16]]}}, ("width_2",)),
        ({"width": {"each": [{"low": 8, "high": 16}, 8]}, "kernel": [1, 3]}, ("width_1",)),
        ({"blocks": {"low": 1, "high": 3}, "width": [8, 16]}, ("width_1", "width_2", "width_3")),
    ],
)
def test_widths_are_the_sampled_ones(table: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert widths(space(**table)) == expected


@given(drawn_points())
@settings(max_examples=100)
def test_widths_are_what_the_blocks_are_as_wide_as(point: tuple[Pyramid, dict[str, Value]]) -> None:
    of, values = point
    wide = built(of, values | dict.fromkeys(widths(of), 999))
    depth = int(values.get("blocks", of.most_blocks))
    sampled = [not of.width.domain(index).is_fixed for index in range(depth)]
    found = [layer.filters for layer in wide.layers if isinstance(layer, SeparableConv | SpatialSeparableConv)]
    assert [size == 999 for size in found[:depth]] == sampled
    assert found[depth:] in ([], [CLASSES])


# --- tables ----------------------------------------------------------------------------------------------------------


@given(space_tables())
@settings(max_examples=100)
@example({"width": {"choices": [8], "per": "block"}})
def test_a_space_is_written_as_it_is_read(table: dict[str, Any]) -> None:
    of = Pyramid.model_validate(table)
    written = of.model_dump(mode="json")
    again = Pyramid.model_validate(written)
    assert again.model_dump(mode="json") == written
    assert list(parameters(again)) == list(parameters(of))
    assert parameters(again) == parameters(of)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"widht": 3}, "widht: unknown key, did you mean 'width'?"),
    "unknown key with a line break": ({"wid\nth": 3}, "unknown key"),
    "unknown kind": ({"kind": "resnet"}, "kind"),
    "no value": ({"width": None}, "width"),
    "empty list": ({"width": []}, "width"),
    "empty table": ({"width": {}}, "width: a range needs 'low'"),
    "a list in a list": ({"width": [[8]]}, "width"),
    "twice the same": ({"width": [8, 8]}, "width"),
    "twice the same rate": ({"dropout": [0, 0.0]}, "dropout"),
    "a word": ({"width": "wide"}, "width"),
    "a word with a line break": ({"width": "wi\nde"}, "width"),
    "a bool": ({"width": True}, "width"),
    "a fraction": ({"width": 8.5}, "width"),
    "zero": ({"width": 0}, "width"),
    "too wide": ({"width": 65_537}, "width"),
    "NaN": ({"width": float("nan")}, "width"),
    "no high": ({"width": {"low": 8}}, "width: a range needs 'high'"),
    "unknown key in a range": ({"width": {"low": 8, "high": 16, "stp": 8}}, "width: unknown key 'stp'"),
    "upside down": ({"width": {"low": 16, "high": 8}}, "width: low must be below high"),
    "one value": ({"width": {"low": 8, "high": 8}}, "width: low must be below high"),
    "step past the top": ({"width": {"low": 8, "high": 17, "step": 8}}, "width: steps of 8 from 8 do not reach 17"),
    "step of zero": ({"width": {"low": 8, "high": 16, "step": 0}}, "width: step"),
    "step below zero": ({"width": {"low": 8, "high": 16, "step": -8}}, "width: step"),
    "step too large": ({"width": {"low": 8, "high": 16, "step": 16}}, "width: step"),
    "step a bool": ({"width": {"low": 8, "high": 16, "step": True}}, "width: step"),
    "step a word": ({"width": {"low": 8, "high": 16, "step": "8"}}, "width: step"),
    "step NaN": ({"width": {"low": 8, "high": 16, "step": float("nan")}}, "width: step"),
    "half a filter": ({"width": {"low": 16, "high": 32, "step": 0.5}}, "width"),
    "whole steps with a point": ({"blocks": {"low": 4, "high": 8, "step": 1.0}}, "blocks"),
    "half a block": ({"blocks": {"low": 4, "high": 8, "step": 0.5}}, "blocks"),
    "step and log": ({"width": {"low": 8, "high": 64, "step": 8, "log": True}}, "width"),
    "log a number": ({"width": {"low": 8, "high": 64, "log": 2}}, "width: log"),
    "log from zero": (
        {"dropout": {"low": 0.0, "high": 0.3, "log": True}, "order": "conv-dropout-bn-act"},
        "dropout",
    ),
    "steps past counting": (
        {"dropout": {"low": 0.0, "high": 0.3, "step": 5e-324}, "order": "conv-dropout-bn-act"},
        "dropout",
    ),
    "range of words": ({"order": {"low": "conv", "high": "conv-act"}}, "order"),
    "range of bools": ({"head_bias": {"low": False, "high": True}}, "head_bias"),
    "choices no list": ({"width": {"choices": 8}}, 'width: "choices" takes a list'),
    "choices and a step": ({"width": {"choices": [8], "step": 8}}, 'width: "choices" takes a list'),
    "per what it has not": ({"width": {"low": 8, "high": 16, "per": "pool"}}, "width: per must be block or net"),
    "per a list": ({"width": {"low": 8, "high": 16, "per": ["net"]}}, "width: per"),
    "pool kind per block": ({"pool_kind": {"choices": ["max", "average"], "per": "block"}}, "pool_kind: per"),
    "each for the net": ({"blocks": {"each": [4, 5]}}, "blocks"),
    "each too few": ({"width": {"each": [8, 16]}}, "width: each has 2 entries"),
    "each only one": ({"width": {"each": [8]}}, "width: each has 1 entries"),
    "each too many": ({"blocks": 2, "width": {"each": [8, 8, 8]}}, "width: each has 3 entries"),
    "each of too few pools": ({"pools": 3, "pool_dropout": {"each": [0.1, 0.2]}}, "pool_dropout: each has 2 entries"),
    "each empty": ({"width": {"each": []}}, "width"),
    "each and more": ({"width": {"each": [8] * 8, "per": "block"}}, "width"),
    "kernel": ({"kernel": 65}, "kernel"),
    "stride": ({"stride": 9}, "stride"),
    "padding": ({"padding": "full"}, "padding"),
    "order": ({"order": "bn-conv"}, "order"),
    "activation": ({"activation": ["relu", "relu9"]}, "activation"),
    "convolution": ({"convolution": "conv"}, "convolution"),
    "head": ({"head": "global"}, "head"),
    "bias a number": ({"head_bias": 1}, "head_bias"),
    "dropout of 1": ({"dropout": 1.0, "order": "conv-dropout-bn-act"}, "dropout"),
    "dropout negative": ({"dropout": -0.1, "order": "conv-dropout-bn-act"}, "dropout"),
    "momentum of 1": ({"momentum": 1}, "momentum"),
    "epsilon of 0": ({"epsilon": 0}, "epsilon"),
    "blocks": ({"blocks": 65}, "blocks"),
    "more pools than blocks": ({"blocks": 2, "pools": 3}, "pools: 3 pools need as many blocks"),
    "more pools than the fewest blocks": ({"blocks": {"low": 2, "high": 8}, "pools": {"low": 1, "high": 3}}, "pools"),
    "pool past the end": ({"pool_position": [9]}, "pool_position: there is no block past 8"),
    "dropout without effect": ({"dropout": 0.2}, "dropout: has no effect"),
    "head dropout without effect": ({"head_dropout": 0.2}, "head_dropout: has no effect"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_reported_in_one_line(case: str) -> None:
    table, told = BAD[case]
    with pytest.raises(ValidationError) as caught:
        Pyramid.model_validate(table)
    line = first_problem(caught.value, Pyramid.model_fields)
    assert told in line
    assert len(line.splitlines()) == 1


def test_unusual_tables_are_read() -> None:
    assert len(parameters(space(blocks={"low": 1, "high": 4}, width=[8]))) == 1
    assert space(dropout=0, order="conv-bn-act").dropout.domain(0).first == 0.0
    assert space(width={"low": 8, "high": 64, "log": True}).width.domain(0) == Range(8, 64, 1, True)
    assert isinstance(space(width={"low": 8, "high": 64}).width.domain(0), Range)
    assert re.fullmatch("[0-9a-f]{16}", fingerprint(net()))


def test_a_fixed_space_can_set_the_momentum_of_every_batch_norm() -> None:
    inner = Residual((SeparableConv(8), BatchNorm(0.99)), (BatchNorm(0.5),))
    layers = (BatchNorm(0.99, 1e-4), inner, GlobalAveragePool(), Dense(10), Softmax())
    network = Architecture((8, 8, 8), 10, layers, name="net")
    table = {"kind": "fixed", "network": "net", "networks": {"net": to_dict(network)}}
    assert build(Fixed.model_validate(table), {}, (8, 8, 8), 10) == network
    first, residual, *_ = build(Fixed.model_validate(table | {"momentum": 0.9}), {}, (8, 8, 8), 10).layers
    assert first == BatchNorm(0.9, 1e-4)
    assert residual == Residual((SeparableConv(8), BatchNorm(0.9)), (BatchNorm(0.9),))
