"""Advice: each broken rule is named, edits cost what they say, and the scaled network is the largest that fits.

python -m pytest tests/keras_import/test_advice.py
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.budget.cost import compute_cost
from search.budget.limits import Budget
from search.errors import UserError
from search.keras_import.advice import Finding, Rules, judge, rules_of
from search.keras_import.convert import Imported, convert
from search.keras_import.edits import scaled_to_fit
from search.keras_import.graph import read_graph
from search.keras_import.steps import Problem
from search.networks.architecture import Architecture, to_json
from search.networks.geometry import flatten, resolve
from search.networks.layers import (
    Activation,
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
)
from search.study.config import STUDIES
from search.study.references import find, named, recipe_of
from search.study.study_file import load
from space import build, encode
from tests.support.keras_files import chain_of
from tests.support.strategies import draw_values, net

RULES = Rules(Budget(params=2_000), (12, 12, 3), 2)
GOOD = net(SeparableConv(16), BatchNorm(), Activation("relu"), Dropout(0.1))


def imported(network: Architecture | None, *problems: Problem, softmax_added: bool = False) -> Imported:
    names = [row.name for _, row in flatten(resolve(network))] if network else []
    return Imported(network, tuple(f"Keras {name}" for name in names), problems, {}, (), softmax_added)


def found(network: Architecture, rule: str, rules: Rules = RULES) -> Finding:
    return next(one for one in judge(imported(network), rules) if one.rule == rule)


def figures(edit: str) -> list[int]:
    return [int(figure.replace(",", "")) for figure in re.findall(r"\d[\d,]*", edit)]


def test_a_good_network_keeps_every_rule() -> None:
    rules = judge(imported(GOOD), RULES)
    assert [one.rule for one in rules] == [
        "known layers",
        "input",
        "separable only",
        "batch norm",
        "dropout",
        "softmax",
        "budget",
    ]
    assert all(one.holds and not one.edits for one in rules)


def test_rules_break_one_by_one() -> None:
    broken = {
        "input": replace(GOOD, input=(10, 12, 3)),
        "separable only": net(Conv(8), *GOOD.layers[1:4]),
        "batch norm": net(*GOOD.layers[:1], *GOOD.layers[2:4]),
        "dropout": net(*GOOD.layers[:3], Dropout(0.0)),
        "budget": net(SeparableConv(64), SeparableConv(64), *GOOD.layers[1:4]),
    }
    for rule, network in broken.items():
        rules = judge(imported(network), RULES)
        assert [one.rule for one in rules if not one.holds] == [rule]
        assert all(one.edits for one in rules if not one.holds)
    scores = judge(imported(GOOD, softmax_added=True), RULES)
    assert [one.rule for one in scores if not one.holds] == ["softmax"]


def test_a_budget_is_a_strict_limit() -> None:
    params = compute_cost(GOOD).params
    assert found(GOOD, "budget", replace(RULES, budget=Budget(params=params + 1))).holds
    assert not found(GOOD, "budget", replace(RULES, budget=Budget(params=params))).holds


def test_plain_convolutions_may_be_admitted() -> None:
    rules = judge(
        imported(net(Conv(8), *GOOD.layers[1:4])), replace(RULES, budget=Budget(params=2_000, separable_only=False))
    )
    assert "separable only" not in [one.rule for one in rules]
    assert all(one.holds for one in rules)


def test_each_plain_convolution_is_named_with_what_a_separable_one_saves() -> None:
    network = net(Conv(8), Residual((Conv(8),)), Conv(8), Conv(6, 1))
    edits = found(network, "separable only").edits
    assert len(edits) == 3
    assert edits[0].startswith("Keras conv_1 (3x3, 3 -> 8): ")
    assert edits[1].startswith("Keras conv_2, conv_3 (3x3, 8 -> 8): ") and edits[1].endswith("each")
    assert edits[2].startswith("Keras conv_4 (1x1, 8 -> 6): ") and "takes 8 parameters more" in edits[2]
    separable = net(SeparableConv(8), Residual((SeparableConv(8),)), SeparableConv(8), SeparableConv(6, 1))
    saved = figures(edits[0])[-1] + 2 * figures(edits[1])[-1] - 8
    assert compute_cost(network).params - compute_cost(separable).params == saved


def test_batch_norm_after_each_convolution_costs_what_is_said() -> None:
    network = net(SeparableConv(8), Conv(6), tail=(GlobalAveragePool(), Dense(2), Softmax()))
    normed = net(SeparableConv(8), BatchNorm(), Conv(6), BatchNorm())
    (edit,) = found(network, "batch norm").edits
    assert figures(edit) == [2, compute_cost(normed).params - compute_cost(network).params]
    head = net(SeparableConv(8), tail=(SeparableConv(2, 1), GlobalAveragePool(), Softmax()))
    assert "each of the 1 convolutions" in found(head, "batch norm").edits[0]


def test_another_input_is_costed_or_reported_not_to_fit() -> None:
    rules = replace(RULES, input=(16, 16, 1), classes=5)
    (edit,) = found(GOOD, "input", rules).edits
    expected = Architecture((16, 16, 1), 5, (*GOOD.layers[:-2], Dense(5), Softmax()))
    assert edit.endswith(f"which makes it {compute_cost(expected).params:,} parameters")
    (edit,) = found(net(MaxPool(12)), "input", replace(RULES, input=(8, 8, 3))).edits
    assert "which its layers do not fit (max_pool_1: a window of 12x12 does not fit its 8x8 input)" in edit


def test_the_budget_is_met_by_the_smallest_edit_first() -> None:
    wide = (Flatten(), Dense(32), Dense(2), Softmax())
    network = net(Conv(16), *GOOD.layers[1:4], tail=wide)
    edits = found(network, "budget").edits
    assert [edit.split(":")[0] for edit in edits] == [
        "SeparableConv2D for the plain convolutions",
        "GlobalAveragePooling2D for Keras flatten_1",
    ]
    pooled = net(SeparableConv(16), *GOOD.layers[1:4], tail=(GlobalAveragePool(), *wide[1:]))
    assert edits[1].endswith(f": {compute_cost(pooled).params:,} parameters, which fits")
    (then,) = found(network, "budget", replace(RULES, budget=Budget(params=400))).edits[2:]
    assert then.startswith("then widths in proportion, 16 -> 8, 32 -> 24: ") and then.endswith("parameters, which fits")
    (never,) = found(network, "budget", replace(RULES, budget=Budget(params=20))).edits[2:]
    assert "take fewer layers" in never


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(60, 3_000), st.booleans())
def test_the_scaled_network_is_the_largest_that_fits(widths: list[int], params: int, eights: bool) -> None:
    unit = 8 if eights or all(width % 8 == 0 for width in widths) else 1
    widths = [width * (8 if eights else 1) for width in widths]
    network = net(*(SeparableConv(width) for width in widths))

    def at(scale: float) -> int:
        return compute_cost(net(*(SeparableConv(max(unit, unit * int(width * scale / unit))) for width in widths))).params

    steps = sorted({(unit * count + 1e-6) / width for width in widths for count in range(width // unit)})
    fitting = [count for step in steps if (count := at(step)) < params]
    scaled = scaled_to_fit(network, Budget(params=params))
    if compute_cost(network).params < params:
        return
    assert (scaled is None) == (not fitting)
    if scaled:
        assert compute_cost(scaled[0]).params == max(fitting)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_gates_and_sums_scale_together(share: float) -> None:
    def of(part: int) -> Architecture:
        inner = Residual((SeparableConv(4 * part), Gate(), SeparableConv(2 * part)))
        return net(SeparableConv(2 * part), inner, SeparableConv(3 * part))

    params = int(compute_cost(of(12)).params * share)
    scaled = scaled_to_fit(of(12), Budget(params=params))
    assert scaled is not None
    part = max(part for part in range(2, 13, 2) if compute_cost(of(part)).params < params)
    assert scaled[0] == of(part)
    assert scaled[1] == {24: 2 * part, 36: 3 * part, 48: 4 * part}


def test_a_sum_with_the_image_cannot_be_scaled() -> None:
    network = net(Residual((SeparableConv(3),)), SeparableConv(64))
    assert scaled_to_fit(network, Budget(params=200)) is None


def test_problems_stand_first_and_others_wait_where_nothing_is_near() -> None:
    mended, not_mended = Problem("ReLU a", "odd", "ReLU()"), Problem("Lambda b", "code", "a layer", mended=False)
    first, *others = judge(imported(GOOD, mended, replace(mended, where="ReLU c")), RULES)
    assert (first.rule, first.holds, first.edits) == ("known layers", False, ("ReLU a, c: odd; instead: ReLU()",))
    assert len(others) == 6
    assert len(judge(imported(GOOD, mended, not_mended), RULES)) == 1
    assert len(judge(imported(None, mended), RULES)) == 1


def test_rules_are_those_of_a_study() -> None:
    assert rules_of("cifar10_100k", None) == Rules(Budget(params=100_000), (32, 32, 3), 10)
    assert rules_of("quickstart", 500) == Rules(Budget(params=500), (8, 8, 1), 10)
    with pytest.raises(UserError, match="none"):
        rules_of("none", None)


def test_an_imported_network_is_a_base_a_reference_and_a_warm_start(tmp_path: Path) -> None:
    study = (STUDIES / "cifar10_100k" / "study.toml").read_text(encoding="utf-8")
    study = re.sub(r'base = ".*?"', 'base = "mine.json"', study).replace("[search]", '[search]\nwarm_start = ["mine.json"]')
    (tmp_path / "study.toml").write_text(study, encoding="utf-8")
    config = load(tmp_path / "study.toml")
    values = draw_values(config.space, 3)
    network = convert(read_graph(chain_of(build(config.space, values, (32, 32, 3), 10))), "mine").architecture
    assert network is not None
    (tmp_path / "mine.json").write_text(to_json(network), encoding="utf-8")
    (warm,) = config.search.warm_start
    assert isinstance(config.base, str)
    for known in (named(config.base), find(str(tmp_path / "mine.json")), named(warm)):
        assert known.architecture == network
        assert (
            build(config.space, values | encode(config.space, known.architecture), (32, 32, 3), 10).layers == network.layers
        )
        assert recipe_of(config, known).epochs == config.recipe.epochs
