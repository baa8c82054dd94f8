"""Costs, models, widths and tables of the residual space."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from search.budget.cost import compute_cost
from search.errors import first_problem
from search.export.keras_source import keras_source
from search.networks.architecture import canonical, from_json, to_json
from search.networks.layers import (
    Gate,
    walk,
)
from search.spaces.domains import Choices, Value
from search.study.survey import smallest
from search.training.model import build as build_model
from search.tuning.scaling import largest_that_fits
from space import Pyramid, ResidualStages, build, depths, parameters, record_of, suggest, widths
from tests.budget.test_cost import check_against_keras
from tests.support.pyramids import CLASSES, INPUT, built, points
from tests.support.residual import WIDE, space
from tests.support.strategies import draw_values, residual_points, residual_tables

# --- prices, models, files -------------------------------------------------------------------------------------------


@given(residual_points())
@settings(max_examples=25)
def test_a_draw_costs_what_keras_counts(point: tuple[ResidualStages, dict[str, Value]]) -> None:
    check_against_keras(build(*point, (8, 10, 2), 3))


@given(residual_points())
@settings(max_examples=100)
def test_a_draw_survives_its_file_and_its_canonical_form(point: tuple[ResidualStages, dict[str, Value]]) -> None:
    architecture = built(*point)
    assert from_json(to_json(architecture)) == architecture
    assert canonical(canonical(architecture)) == canonical(architecture)
    assert compute_cost(canonical(architecture)) == compute_cost(architecture)
    assert json.loads(to_json(architecture))["layers"][-1] == {"kind": "softmax"}


@given(residual_points())
@settings(max_examples=6)
def test_the_source_of_a_draw_is_the_same_network(point: tuple[ResidualStages, dict[str, Value]]) -> None:
    architecture = build(*point, (8, 8, 2), 3)
    module = ModuleType("exported")
    source = keras_source(architecture)
    assert "Sequential" not in source and "layers.Add" in source
    exec(compile(source, "best_model.py", "exec"), module.__dict__)
    own, exported = build_model(architecture, seed=1), module.build_model()
    exported.set_weights(own.get_weights())
    images = np.random.default_rng(0).random((2, 8, 8, 2), dtype=np.float32)
    np.testing.assert_allclose(exported(images), own(images), atol=1e-6)
    assert exported.count_params() == compute_cost(architecture).params


def test_a_cost_grows_with_each_width() -> None:
    generator = random.Random(0)
    for seed in range(100):
        values = draw_values(WIDE, seed)
        cost = compute_cost(built(WIDE, values))
        name = generator.choice(widths(WIDE))
        wider = compute_cost(built(WIDE, values | {name: int(values[name]) + 4}))
        assert (wider.params, wider.macs) >= (cost.params, cost.macs)
        assert wider.receptive_field == cost.receptive_field


# --- widths, depths, fill --------------------------------------------------------------------------------------------


def test_widths_and_depths_are_the_sampled_ones() -> None:
    assert widths(WIDE) == ("width_1", "width_2", "width_3")
    assert depths(WIDE) == ("stages", "blocks_1", "blocks_2", "blocks_3", "uses_1", "uses_2", "uses_3")
    assert widths(space()) == depths(space()) == ()
    assert widths(space(width={"choices": [8, 16], "per": "net"})) == ("width",)
    assert depths(Pyramid.model_validate({"blocks": [4, 5]})) == ("blocks",)


@given(st.integers(0, 2**20), st.integers(2_000, 400_000))
@settings(max_examples=20)
def test_widths_are_scaled_to_the_largest_network_that_fits(seed: int, limit: int) -> None:
    values = draw_values(WIDE, seed)

    def fits(at: Any) -> bool:
        return compute_cost(built(WIDE, dict(at))).params < limit

    def scaled(scale: Fraction) -> dict[str, Value]:
        at = {name: max([16, *(w for w in range(16, 97, 4) if w <= scale * int(values[name]))]) for name in widths(WIDE)}
        return values | at

    scales = sorted({Fraction(w, int(values[name])) for name in widths(WIDE) for w in range(16, 97, 4)})
    fitting = [made for made in map(scaled, scales) if fits(made)]
    assert largest_that_fits(WIDE, values, fits) == (fitting[-1] if fitting else None)


def test_the_smallest_network_is_the_smallest() -> None:
    of = space(stages=[1, 2], blocks=[1, 2, 3], width=[8, 16], block=["plain", "gated"], kernel=[3, 5], uses=[1, 2])
    least = min(compute_cost(built(of, values)).params for values in points(of))
    assert smallest(of, INPUT, CLASSES) == least


# --- reading a table -------------------------------------------------------------------------------------------------


def test_a_table_is_read_by_its_kind() -> None:
    assert record_of({"kind": "residual"}) is ResidualStages
    assert record_of({"kind": "residuals"}) is Pyramid
    assert record_of({}) is record_of({"kind": 3}) is record_of(None) is Pyramid


@given(residual_tables())
@settings(max_examples=50)
def test_a_table_is_written_as_it_is_read(table: dict[str, Any]) -> None:
    of = ResidualStages.model_validate(table)
    written = of.model_dump(mode="json")
    again = ResidualStages.model_validate(written)
    assert again.model_dump(mode="json") == written
    assert list(parameters(again).items()) == list(parameters(of).items())


def test_parameters_are_asked_for_by_stage() -> None:
    names = list(parameters(WIDE))
    assert names[:4] == ["stages", "blocks_1", "blocks_2", "blocks_3"]
    assert {"downsample_2", "downsample_3", "downsample_kernel"} < {*names}
    assert "downsample_1" not in names
    assert parameters(WIDE)["kernel_3"] == Choices((3, 5, 7))
    assert parameters(space()) == {}
    import optuna

    values = draw_values(WIDE, 3)
    assert suggest(WIDE, optuna.trial.FixedTrial(dict(values)), INPUT, CLASSES) == built(WIDE, values)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"widht": 3}, "widht: unknown key, did you mean 'width'?"),
    "no stage": ({"stages": 0}, "stages: must be a whole number from 1 to 8"),
    "too wide": ({"width": 65_536}, "width"),
    "no block": ({"blocks": 0}, "blocks"),
    "block": ({"block": "dense"}, "block: must be one of plain, inverted, gated"),
    "norm": ({"norm": "none"}, "norm: must be one of after, before"),
    "norm of each": ({"norm": {"choices": ["after", "before"], "per": "stage"}}, "norm: per must be net"),
    "per block": ({"kernel": {"choices": [3, 5], "per": "block"}}, "kernel: per must be net or stage"),
    "activation": ({"activation": "swish"}, "activation"),
    "downsample": ({"downsample": "conv"}, "downsample: must be one of stride, max, average"),
    "each too few": ({"stages": 3, "width": {"each": [8, 16]}}, "width: each has 2 entries, there are up to 3 stages"),
    "each way into the first": (
        {"downsample": {"each": ["max", "max"]}},
        "downsample: each has 2 entries, there are up to 1 stages after the first",
    ),
    "expansion of 0": ({"expansion": 0}, "expansion: must be a number above 0"),
    "expansion of a word": ({"expansion": "wide"}, "expansion: must be a number above 0"),
    "expansion too large": ({"expansion": 17}, "expansion"),
    "expansion without a step": ({"expansion": {"low": 1.0, "high": 4.0}}, "expansion: a range needs a step here"),
    "expansion of plain blocks": ({"block": "plain", "expansion": [1, 2]}, "expansion: has no effect"),
    "second kernel of inverted blocks": ({"block": "inverted", "second_kernel": [3, 5]}, "second_kernel: has no effect"),
    "down-sampling in one stage": ({"stages": 1, "downsample": ["max", "stride"]}, "downsample: has no effect"),
    "epsilon of 0": ({"epsilon": 0}, "epsilon: must be above 0"),
    "uses": ({"uses": 9}, "uses"),
    "dilation": ({"dilation": 0}, "dilation"),
    "multiplier": ({"stem_multiplier": 0}, "stem_multiplier"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_reported_in_one_line(case: str) -> None:
    table, told = BAD[case]
    with pytest.raises(ValidationError) as caught:
        ResidualStages.model_validate(table)
    line = first_problem(caught.value, ResidualStages.model_fields)
    assert told in line
    assert len(line.splitlines()) == 1


def test_the_defaults_are_gated_blocks_under_the_budget_of_the_notes() -> None:
    of = ResidualStages()
    architecture = built(of, {name: domain.first for name, domain in parameters(of).items()})
    gates = [layer.function for layer in walk(architecture.layers) if isinstance(layer, Gate)]
    assert gates == ["silu"] * 2
    assert compute_cost(architecture).params < 100_000
