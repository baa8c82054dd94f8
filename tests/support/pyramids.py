"""Pyramid spaces for tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from search.networks.architecture import Architecture, fingerprint, to_dict
from search.spaces.domains import Choices, Domain, Value
from space import Fixed, Pyramid, Space, build, encode, parameters
from tests.support.strategies import ORDERS, reference

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


def points(of: Space) -> Iterator[dict[str, Value]]:
    """Every point of a small space."""
    domains = parameters(of)
    for values in itertools.product(*map(values_of, domains.values())):
        yield dict(zip(domains, values, strict=True))


def networks(of: Pyramid) -> dict[str, Architecture]:
    """The distinct networks of a small space."""
    return {fingerprint(one): one for one in (built(of, values) for values in points(of))}


def check_round_trip(of: Space, values: dict[str, Value]) -> None:
    """Assert that a network is encoded as values of the space that build the same network."""
    architecture = built(of, values)
    found = encode(of, architecture)
    assert list(found) == list(parameters(of))
    assert all(parameters(of)[key].find(value) is not None for key, value in found.items())
    assert fingerprint(built(of, found)) == fingerprint(architecture)
