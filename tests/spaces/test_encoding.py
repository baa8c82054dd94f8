"""Every network that a space can build is found again in it, and any other is refused with its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.budget.cost import compute_cost
from search.networks.architecture import Architecture, fingerprint
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.spaces.domains import Value
from space import NotInSpace, Pyramid, encode, parameters
from tests.support.pyramids import CLASSES, INPUT, WIDE, built, check_round_trip, given_networks, points, space
from tests.support.strategies import draw_values, drawn_points, reference


@pytest.mark.parametrize("name", ["eip-b", "eip-c", "eip-c-late", "eip-d"])
def test_a_reference_is_a_point_of_a_wide_pyramid(name: str) -> None:
    architecture = reference(name)
    values = encode(WIDE, architecture)
    again = built(WIDE, values)
    assert fingerprint(again) == fingerprint(architecture)
    assert compute_cost(again).params == compute_cost(architecture).params
    assert values.keys() == parameters(WIDE).keys()
    assert all(parameters(WIDE)[key].find(value) == value for key, value in values.items())


@pytest.mark.parametrize("name", ["base", "eip-a"])
def test_a_reference_with_plain_convolutions_is_in_no_pyramid(name: str) -> None:
    with pytest.raises(NotInSpace):
        encode(WIDE, reference(name))


@given(drawn_points())
@settings(max_examples=150)
def test_a_built_network_is_encoded_as_its_values(point: tuple[Pyramid, dict[str, Value]]) -> None:
    check_round_trip(*point)


@given(st.integers(0, 2**20))
@settings(max_examples=200)
def test_a_network_of_the_wide_pyramid_is_encoded_as_its_values(seed: int) -> None:
    check_round_trip(WIDE, draw_values(WIDE, seed))


SMALL: dict[str, dict[str, Any]] = {
    "orders that differ by a dropout": {
        "order": {"choices": ["conv-dropout-bn-act", "conv-bn-act"], "per": "block"},
        "dropout": [0.1, 0.2],
    },
    "one dropout for orders that differ by it": {
        "order": {"choices": ["conv-act-dropout-bn", "conv-act-bn"], "per": "block"},
        "dropout": {"low": 0.0, "high": 0.2, "step": 0.1, "per": "net"},
    },
    "head orders that differ by a dropout": {
        "head_order": ["conv-dropout-bn-act", "conv-bn-act"],
        "head_dropout": [0.1, 0.2],
    },
    "few positions": {"blocks": 4, "pools": 2, "pool_position": [2, 4]},
    "positions of each pool": {"blocks": 4, "pools": 2, "pool_position": {"each": [[3, 4], [1, 2]]}},
    "one position for the net": {"blocks": 4, "pools": 2, "pool_position": {"choices": [2, 4], "per": "net"}},
    "a dense head or a block as wide as the classes": {"width": [8, 10], "head": ["conv", "dense", "conv-dense"]},
    "kernels of 1": {"kernel": {"choices": [1, 3], "per": "block"}, "padding": ["same", "valid"]},
    "pools": {"blocks": {"low": 2, "high": 4}, "pools": {"low": 0, "high": 2}, "pool_dropout": [0.0, 0.1]},
    "activations": {"activation": {"choices": ["relu", "silu"], "per": "block"}, "head_order": ["conv", "conv-act"]},
    "nothing to sample": {},
}


@pytest.mark.parametrize("case", SMALL)
def test_every_network_of_a_small_space_is_found_again(case: str) -> None:
    for values in points(space(**SMALL[case])):
        check_round_trip(space(**SMALL[case]), values)


S8, BLOCK, HEAD = (
    SeparableConv(8),
    (SeparableConv(8), BatchNorm(0.9), Activation("relu")),
    SeparableConv(10, 1, use_bias=True),
)
END = (GlobalAveragePool(), Softmax())

ELSEWHERE: dict[str, tuple[tuple[Any, ...], str]] = {
    "one block": ((*BLOCK, HEAD, *END), "blocks"),
    "three blocks": ((*BLOCK * 3, HEAD, *END), "blocks"),
    "width": ((*BLOCK, SeparableConv(9), *BLOCK[1:], HEAD, *END), "width"),
    "kernel": ((*BLOCK, SeparableConv(8, 5), *BLOCK[1:], HEAD, *END), "kernel"),
    "stride": ((*BLOCK, SeparableConv(8, 3, 2), *BLOCK[1:], HEAD, *END), "stride"),
    "padding": ((*BLOCK, SeparableConv(8, padding="valid"), *BLOCK[1:], HEAD, *END), "padding"),
    "spatially separable": ((*BLOCK, SpatialSeparableConv(8), *BLOCK[1:], HEAD, *END), "convolution"),
    "bias": ((*BLOCK, SeparableConv(8, use_bias=True), *BLOCK[1:], HEAD, *END), "bias"),
    "order": ((*BLOCK, S8, Activation("relu"), BatchNorm(0.9), HEAD, *END), "order"),
    "dropout": ((*BLOCK, S8, Dropout(0.1), *BLOCK[1:], HEAD, *END), "order"),
    "activation": ((*BLOCK, S8, BatchNorm(0.9), Activation("silu"), HEAD, *END), "activation"),
    "momentum": ((*BLOCK, S8, BatchNorm(), Activation("relu"), HEAD, *END), "momentum"),
    "epsilon": ((*BLOCK, S8, BatchNorm(0.9, 0.01), Activation("relu"), HEAD, *END), "epsilon"),
    "pool": ((*BLOCK, MaxPool(), *BLOCK, HEAD, *END), "pools"),
    "head kernel": ((*BLOCK * 2, SeparableConv(10, 3, use_bias=True), *END), "head_kernel"),
    "head bias": ((*BLOCK * 2, SeparableConv(10, 1), *END), "head_bias"),
    "head order": ((*BLOCK * 2, HEAD, Activation("relu"), *END), "head_order"),
    "dense head": ((*BLOCK * 2, GlobalAveragePool(), Dense(10), Softmax()), "head"),
    "dense after the scores": ((*BLOCK * 2, HEAD, GlobalAveragePool(), Dense(10), Softmax()), "blocks"),
    "no global pool": ((*BLOCK * 2, HEAD, Flatten(), Softmax()), "no stack"),
    "no block": ((*END,), "no stack"),
    "hidden dense": ((*BLOCK * 2, GlobalAveragePool(), Dense(8), Dense(10), Softmax()), "no stack"),
    "dilation": ((*BLOCK, SeparableConv(8, dilation=2), *BLOCK[1:], HEAD, *END), "no stack"),
    "depth multiplier": ((*BLOCK, SeparableConv(8, depth_multiplier=2), *BLOCK[1:], HEAD, *END), "no stack"),
    "residual": ((*BLOCK, Residual(BLOCK), HEAD, *END), "no stack"),
    "plain convolution": ((*BLOCK, Conv(8), *BLOCK[1:], HEAD, *END), "no stack"),
    "starts with a pool": ((MaxPool(), *BLOCK * 2, HEAD, *END), "no stack"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_network_elsewhere_is_rejected_with_its_reason(case: str) -> None:
    layers, told = ELSEWHERE[case]
    with pytest.raises(NotInSpace, match=told) as caught:
        encode(space(), Architecture(INPUT, CLASSES, layers))
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_one_step_from_those_is_in_the_space() -> None:
    """So that the refusals above have one cause each."""
    assert encode(space(), Architecture(INPUT, CLASSES, (*BLOCK * 2, HEAD, *END))) == {}


def test_pools_of_other_sizes_are_rejected() -> None:
    of = space(pools=1, pool_kind=["max", "average"])
    for pool in (MaxPool(3), MaxPool(2, 1), AveragePool(2, padding="same")):
        with pytest.raises(NotInSpace):
            encode(of, Architecture(INPUT, CLASSES, (*BLOCK, pool, *BLOCK, HEAD, *END)))
    found = encode(of, Architecture(INPUT, CLASSES, (*BLOCK, AveragePool(), *BLOCK, HEAD, *END)))
    assert found == {"pool_position_1": 1, "pool_kind": "average"}


def test_a_given_network_is_found_by_its_layers() -> None:
    of = given_networks("eip-c", "base", "eip-d")
    for name in ("eip-c", "base", "eip-d"):
        renamed = replace(reference(name), name="another")
        assert encode(of, renamed) == {"network": name}
    assert encode(given_networks("eip-d"), reference("eip-d")) == {}


@pytest.mark.parametrize(
    "other", [reference("eip-b"), replace(reference("eip-c"), classes=100), replace(reference("eip-c"), input=(28, 28, 1))]
)
def test_a_network_that_is_not_among_those_given_is_rejected(other: Architecture) -> None:
    for names in (["eip-c", "eip-d"], ["eip-c"]):
        with pytest.raises(NotInSpace, match=f"network: not one of {', '.join(names)}"):
            encode(given_networks(*names), other)
