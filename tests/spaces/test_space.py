"""The spaces: every declared value can be reached, and a table is read or refused with its reason."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from search.budget.cost import compute_cost
from search.errors import first_place, first_problem
from search.networks.architecture import Architecture, fingerprint, to_dict
from search.networks.layers import (
    Activation,
    ArchitectureError,
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
from search.spaces.domains import Choices, Domain, Range, Value
from search.spaces.pyramid import pool_places
from space import AnySpace, Fixed, Pyramid, Space, build, parameters, record_of, suggest, widths
from tests.support.strategies import ORDERS, architectures, drawn_points, net, reference, space_tables

INPUT, CLASSES = (32, 32, 3), 10

WIDE = Pyramid.model_validate(
    {
        "blocks": {"low": 6, "high": 11},
        "width": {"low": 16, "high": 256, "step": 4},
        "kernel": {"choices": [1, 3], "per": "block"},
        "stride": [1, 2],
        "padding": {"choices": ["same", "valid"], "per": "block"},
        "dropout": [0.0, 0.05, 0.07, 0.1],
        "order": {"choices": list(ORDERS), "per": "block"},
        "pools": {"low": 0, "high": 3},
        "pool_dropout": {"low": 0.0, "high": 0.25, "step": 0.05},
        "head": ["conv", "dense", "conv-dense"],
        "head_kernel": [1, 3, 4],
        "head_padding": ["same", "valid"],
        "head_order": ["conv", "conv-dropout-bn-act"],
        "head_dropout": [0.0, 0.05],
        "head_bias": [True, False],
        "momentum": [0.9, 0.99],
    }
)


def space(**table: Any) -> Pyramid:
    """A small space: two blocks of 8 filters, no pools, unless the table says otherwise."""
    return Pyramid.model_validate({"blocks": 2, "width": 8, "pools": 0, **table})


def given_networks(*names: str, **changes: Any) -> Fixed:
    """A choice among known networks."""
    known = {name: to_dict(reference(name)) for name in names}
    return Fixed.model_validate({"kind": "fixed", "network": list(names), "networks": known, **changes})


def built(of: Space, values: dict[str, Value]) -> Architecture:
    return build(of, values, INPUT, CLASSES)


def values_of(domain: Domain) -> list[Value]:
    """Every value of choices or of a stepped range, counted up by hand."""
    if isinstance(domain, Choices):
        return list(domain.values)
    assert domain.step is not None
    found: list[Value] = []
    while (value := round(domain.low + len(found) * domain.step, 10)) <= domain.high:
        found.append(value if isinstance(domain.low, float) else int(value))
    return found


def points(of: Pyramid) -> Iterator[dict[str, Value]]:
    """Every point of a small space."""
    domains = parameters(of)
    for values in itertools.product(*map(values_of, domains.values())):
        yield dict(zip(domains, values, strict=True))


def networks(of: Pyramid) -> dict[str, Architecture]:
    """The distinct networks of a small space."""
    return {fingerprint(one): one for one in (built(of, values) for values in points(of))}


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
def test_what_was_found_can_be_queued(point: tuple[Pyramid, dict[str, Value]]) -> None:
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


# --- networks that are given -----------------------------------------------------------------------------------------


def test_one_given_network_leaves_nothing_to_sample() -> None:
    of = given_networks("eip-c")
    assert parameters(of) == {}
    assert widths(of) == ()
    assert built(of, {}) == reference("eip-c")
    assert suggest(of, optuna.trial.FixedTrial({}), INPUT, CLASSES) == reference("eip-c")


def test_several_given_networks_are_chosen_by_name() -> None:
    of = given_networks("eip-c", "eip-c-late", "eip-d")
    assert parameters(of) == {"network": Choices(("eip-c", "eip-c-late", "eip-d"))}
    assert widths(of) == ()
    for name in ("eip-c", "eip-c-late", "eip-d"):
        assert built(of, {"network": name, "recipe.learning_rate": 0.1}) == reference(name)
        assert suggest(of, optuna.trial.FixedTrial({"network": name}), INPUT, CLASSES) == reference(name)
    with pytest.raises(KeyError, match="network"):
        built(of, {})


def test_a_given_network_is_read_once() -> None:
    of = given_networks("eip-c", "eip-d")
    assert built(of, {"network": "eip-d"}) is built(of, {"network": "eip-d"})


@pytest.mark.parametrize(
    ("shape", "classes", "told"),
    [
        ((28, 28, 1), 10, "eip-c: takes images of 32x32x3 in 10 classes, not 28x28x1 in 10"),
        ((32, 32, 3), 100, "eip-c: takes images of 32x32x3 in 10 classes, not 32x32x3 in 100"),
    ],
)
def test_a_given_network_for_other_images_is_refused(shape: tuple[int, int, int], classes: int, told: str) -> None:
    with pytest.raises(ArchitectureError, match=told):
        build(given_networks("eip-c"), {}, shape, classes)


def test_a_name_that_was_not_filled_in_is_told() -> None:
    """By an error that nobody takes for a network that cannot exist, or for a missing parameter."""
    with pytest.raises(ValueError, match=r"networks: 'eip-c' is not there") as caught:
        built(given_networks("eip-c", networks={}), {})
    assert caught.type is ValueError


@given(st.dictionaries(st.text("abc-.é ", min_size=1, max_size=4), architectures(), min_size=1, max_size=3))
@settings(max_examples=50)
def test_given_networks_are_written_as_they_are_read(known: dict[str, Architecture]) -> None:
    networks = {name: to_dict(architecture) for name, architecture in known.items()}
    of = Fixed.model_validate({"kind": "fixed", "network": list(known), "networks": networks})
    written = json.loads(json.dumps(of.model_dump(mode="json")))
    names = list(known) if len(known) > 1 else min(known)
    assert written == {"kind": "fixed", "network": names, "networks": networks, "momentum": None}
    again = Fixed.model_validate(written)
    assert again == of
    assert again.architectures == of.architectures == known


EIP_C = to_dict(reference("eip-c"))

BAD_FIXED: dict[str, tuple[dict[str, Any], str]] = {
    "no network": ({}, "network: is missing and required; add it"),
    "empty list": ({"network": []}, "network: an empty list has no value to choose"),
    "twice": ({"network": ["eip-c", "eip-c"]}, "network: ['eip-c', 'eip-c'] names a value twice"),
    "a number": ({"network": 3}, 'network: must be the name of a network, such as "eip-c", not 3'),
    "no name": ({"network": ["eip-c", ""]}, "network: must be the name of a network, such as \"eip-c\", not ''"),
    "a range": ({"network": {"low": 1, "high": 2}}, "network: takes a name or a list of names"),
    "choices": ({"network": {"choices": ["eip-c"]}}, "network: takes a name or a list of names"),
    "not given": (
        {"network": ["eip-c", "eip-d"], "networks": {"eip-c": EIP_C}},
        "network: no 'eip-d' among the networks given, did you mean 'eip-c'?",
    ),
    "unknown key": ({"network": "eip-c", "netwoks": {}}, "netwoks: unknown key, did you mean 'networks'?"),
    "dimension": ({"network": "eip-c", "width": 8}, "width: unknown key"),
    "networks no table": ({"network": "a", "networks": 3}, "networks: Input should be a valid dictionary, not 3"),
    "network no table": ({"network": "a", "networks": {"a": 3}}, "networks.a: Input should be a valid dictionary, not 3"),
    "no JSON": ({"network": "a", "networks": {"a": {"name": {1}}}}, "networks.a.name: "),
    "empty": ({"network": "a", "networks": {"a": {}}}, "networks.a: input: is missing and required; add it"),
    "bad size": ({"network": "a", "networks": {"a": EIP_C | {"classes": 0}}}, "networks.a: input [32, 32, 3], classes 0"),
    "bad layer": (
        {"network": "a", "networks": {"a": EIP_C | {"layers": [{"kind": "conv", "filers": 3}]}}},
        "networks.a: layers.0.conv.filers: unknown key, did you mean 'filters'?",
    ),
    "bad layer of one not chosen": (
        {"network": "eip-c", "networks": {"eip-c": EIP_C, "a": EIP_C | {"layers": []}}},
        "networks.a: the last layer must be a softmax",
    ),
}


@pytest.mark.parametrize("case", BAD_FIXED)
def test_a_bad_table_of_given_networks_is_told_in_one_line(case: str) -> None:
    table, told = BAD_FIXED[case]
    with pytest.raises(ValidationError) as caught:
        Fixed.model_validate({"kind": "fixed"} | table)
    line = first_problem(caught.value, Fixed.model_fields)
    assert told in line
    assert len(line.splitlines()) == 1


# --- spaces of either kind -------------------------------------------------------------------------------------------


class Holder(BaseModel):
    """A configuration that holds a space, strict as that of a study."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    space: AnySpace


@pytest.mark.parametrize(
    "of", [Pyramid(), WIDE, given_networks("eip-c"), given_networks("eip-c", "eip-d")], ids=["default", "wide", "one", "two"]
)
def test_a_space_of_either_kind_is_read_by_its_table(of: Space) -> None:
    assert Holder(space=of).space is of
    written = Holder(space=of).model_dump(mode="json")
    assert written == {"space": of.model_dump(mode="json")}
    for again in (Holder.model_validate(written), Holder.model_validate_json(json.dumps(written))):
        assert type(again.space) is type(of) is record_of(written["space"])
        assert again.space == of


def test_a_table_of_no_kind_is_a_pyramid() -> None:
    assert Holder.model_validate({"space": {"width": 8}}).space == Pyramid.model_validate({"width": 8})
    assert record_of({"width": 8}) is record_of({"kind": ["fixed"]}) is record_of(3) is Pyramid


NO_KIND = "Input should be 'pyramid', 'residual', 'fixed' or 'FILE.py:CLASS'"


@pytest.mark.parametrize(
    ("table", "place", "told"),
    [
        ({"widht": 8}, ("space", "widht"), "space.widht: unknown key, did you mean 'width'?"),
        ({"kind": "pyramid", "width": 0}, ("space", "width"), "space.width: must be a whole number"),
        ({"pools": 9}, ("space",), "space: pools: 9 pools need as many blocks"),
        ({"kind": "fixed"}, ("space", "network"), "space.network: is missing and required; add it"),
        (
            {"kind": "fixed", "network": "a", "networks": {"a": {}}},
            ("space",),
            "space: networks.a: input: is missing and required; add it",
        ),
        (
            {"kind": "fixd"},
            ("space", "kind"),
            f"space.kind: {NO_KIND}, not 'fixd'",
        ),
        (
            {"kind": None},
            ("space", "kind"),
            f"space.kind: {NO_KIND}, not None",
        ),
        (3, ("space",), "space: Input should be a valid dictionary"),
    ],
)
def test_a_fault_is_told_at_its_key_whatever_the_kind(table: Any, place: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"space": table})
    assert caught.value.error_count() == 1
    assert first_place(caught.value) == place
    assert first_problem(caught.value, record_of(table).model_fields).startswith(told)


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
def test_a_bad_table_is_told_in_one_line(case: str) -> None:
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
