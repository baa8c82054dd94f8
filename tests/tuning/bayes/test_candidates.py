"""Random candidates fit the budget at the shares that they ask for, and neighbours differ in a little."""

from __future__ import annotations

import random
from typing import Any

import pytest

from search.spaces.domains import Choices, Range
from search.study.study_file import parse
from search.tuning.bayes.candidates import Candidates
from search.tuning.candidate import DataFacts, fits

FACTS = DataFacts((16, 16, 3), 10, "0" * 16)
SPACE: dict[str, Any] = {"blocks": {"low": 2, "high": 4}, "width": {"low": 8, "high": 128, "step": 8}, "pools": 1}


def source(fit: str, params: int = 6_000, fixed: dict[str, Any] | None = None) -> Candidates:
    raw = {"base": 0.5, "data": {"name": "cifar10"}, "budget": {"params": params}, "space": SPACE}
    raw["recipe"] = {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    config = parse(raw | {"search": {"sampler": "bayes", "fit": fit}}, "test")
    return Candidates(config, FACTS, random.Random(0), fixed or {})


@pytest.mark.parametrize("fit", ["fill", "reject"])
def test_random_candidates_fit_at_many_shares_of_the_budget(fit: str) -> None:
    candidates = source(fit)
    shares = []
    for _ in range(40):
        values = candidates.random()
        assert values is not None and fits(candidates._config, FACTS, values)
        point = candidates.point(values)
        assert point is not None
        shares.append(2 ** point.features["size.params"] / 6_000)
    assert min(shares) < 0.6
    filled = sum(share > 0.85 for share in shares)
    assert filled >= 12 if fit == "fill" else filled < 20


def test_a_trained_network_has_the_features_of_a_candidate_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, other = source("fill"), source("fill", params=100)
    values = candidates.random()
    assert values is not None
    point = candidates.point(values)
    assert candidates.observed(values) == point and other.observed(values) == point and other.point(values) is None
    monkeypatch.setattr(candidates, "_build", None)
    assert candidates.observed(dict(values)) == point, "it is not built again"


def test_fixed_parameters_are_those_of_every_candidate() -> None:
    candidates = source("fill", fixed={"blocks": 3, "width_1": 8})
    drawn = [candidates.random() for _ in range(10)]
    assert {(values["blocks"], values["width_1"]) for values in drawn if values} == {(3, 8)}


def test_no_candidate_where_nothing_fits() -> None:
    assert source("fill", params=100).random() is None


def test_neighbours_are_in_their_domains_and_near() -> None:
    candidates = source("fill")
    start = candidates.random()
    assert start is not None
    changes, steps = [], []
    for _ in range(200):
        values = candidates.neighbour(start)
        changed = [name for name in values if values[name] != start[name]]
        changes.append(len(changed))
        for name in changed:
            domain = candidates._domains[name]
            assert domain.find(values[name]) is not None
            if isinstance(domain, Range) and domain.step and len(changed) == 1:
                steps.append(abs(float(values[name]) - float(start[name])) / domain.step)
    assert 0 < sum(changes) / len(changes) < 4
    assert sorted(steps)[len(steps) // 2] <= 2


def test_a_choice_moves_to_another_value() -> None:
    candidates = source("fill")
    assert {candidates._moved(Choices(("a", "b", "c")), "b") for _ in range(30)} == {"a", "c"}
    assert candidates._moved(Choices(("a",)), "a") == "a"
    low, high = 0.001, 0.1
    moved = [candidates._moved(Range(low, high, None, True), 0.01) for _ in range(50)]
    assert all(low <= float(value) <= high for value in moved)
