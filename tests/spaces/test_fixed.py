"""Spaces of given networks, and tables of either kind of space."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from search.errors import first_place, first_problem
from search.networks.architecture import Architecture, to_dict
from search.networks.layers import (
    ArchitectureError,
)
from search.spaces.domains import Choices
from space import AnySpace, Fixed, Pyramid, Space, build, parameters, record_of, suggest, widths
from tests.support.pyramids import CLASSES, INPUT, WIDE, built, given_networks
from tests.support.strategies import architectures, reference


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
def test_a_given_network_for_other_images_is_rejected(shape: tuple[int, int, int], classes: int, told: str) -> None:
    with pytest.raises(ArchitectureError, match=told):
        build(given_networks("eip-c"), {}, shape, classes)


def test_an_empty_name_is_reported() -> None:
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
def test_a_bad_table_of_given_networks_is_reported_in_one_line(case: str) -> None:
    table, told = BAD_FIXED[case]
    with pytest.raises(ValidationError) as caught:
        Fixed.model_validate({"kind": "fixed"} | table)
    line = first_problem(caught.value, Fixed.model_fields)
    assert told in line
    assert len(line.splitlines()) == 1


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
def test_a_fault_is_reported_at_its_key_whatever_the_kind(table: Any, place: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"space": table})
    assert caught.value.error_count() == 1
    assert first_place(caught.value) == place
    assert first_problem(caught.value, record_of(table).model_fields).startswith(told)
