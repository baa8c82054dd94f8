"""The space of residual stages: every declared value is reached and found again, priced as Keras counts, written out."""

from __future__ import annotations

import json
import random
from dataclasses import replace
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
from search.networks.architecture import Architecture, canonical, fingerprint, from_json, to_json
from search.networks.geometry import resolve
from search.networks.layers import (
    Activation,
    ArchitectureError,
    AveragePool,
    BatchNorm,
    Dense,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    walk,
)
from search.spaces.domains import Choices, Value
from search.study.survey import smallest
from search.training.model import build as build_model
from search.tuning.scaling import largest_that_fits
from space import NotInSpace, Pyramid, ResidualStages, build, depths, encode, parameters, record_of, suggest, widths
from tests.budget.test_cost import check_against_keras
from tests.support.pyramids import CLASSES, INPUT, built, check_round_trip, points
from tests.support.strategies import draw_values, reference, residual_points, residual_tables

NOTED = {  # the proposal of the notes on training: two resolutions, three gated blocks each
    "stages": 2,
    "blocks": 3,
    "width": {"each": [48, 76]},
    "kernel": 5,
    "stem_multiplier": 9,
}
WIDE = ResidualStages.model_validate(
    {
        "stages": [1, 2, 3],
        "blocks": {"low": 1, "high": 4},
        "width": {"low": 16, "high": 96, "step": 4},
        "second_kernel": [3, 5],
        "dilation": [1, 2],
        "block": {"choices": ["plain", "inverted", "gated"], "per": "stage"},
        "expansion": {"low": 0.5, "high": 4.0, "step": 0.5, "per": "stage"},
        "activation": {"choices": ["relu", "silu", "gelu"], "per": "stage"},
        "norm": ["after", "before"],
        "uses": {"choices": [1, 2], "per": "stage"},
        "downsample": {"choices": ["stride", "max", "average"], "per": "stage"},
        "downsample_kernel": [2, 3],
        "stem_kernel": [3, 5],
        "stem_stride": [1, 2],
        "stem_multiplier": [1, 3, 9],
        "head": ["conv", "dense"],
        "momentum": [0.9, 0.99],
        "epsilon": [1e-3, 1e-5],
    }
)


def space(**table: Any) -> ResidualStages:
    """A small space: two stages of one plain block of 8 channels, unless the table says otherwise."""
    small = {"stages": 2, "blocks": 1, "width": 8, "kernel": 3, "block": "plain", "activation": "relu"}
    return ResidualStages.model_validate(small | table)


# --- the network of the notes ----------------------------------------------------------------------------------------


def test_the_noted_network_is_a_point_to_the_parameter() -> None:
    of = ResidualStages.model_validate(NOTED)
    cost = compute_cost(built(of, {}))
    assert (cost.params, round(cost.macs, -6)) == (96_793, 44_000_000)
    check_against_keras(built(of, {}))
    values = encode(WIDE_ENOUGH, built(of, {}))
    assert values["stem_multiplier"] == 9
    assert [values[name] for name in ("width_1", "width_2", "kernel_1", "kernel_2")] == [48, 76, 5, 5]
    assert fingerprint(built(WIDE_ENOUGH, values)) == fingerprint(built(of, {}))


WIDE_ENOUGH = WIDE.model_copy(update={"activation": ResidualStages().activation})  # silu


def test_the_noted_network_layer_by_layer() -> None:
    bn = BatchNorm(0.9)

    def block(width: int) -> Residual:
        return Residual((SeparableConv(2 * width, 5), bn, Gate("silu"), SeparableConv(width), bn))

    assert built(ResidualStages.model_validate(NOTED), {}).layers == (
        SeparableConv(48, 3, depth_multiplier=9),
        bn,
        Activation("silu"),
        *(block(48),) * 3,
        SeparableConv(76, 3, 2),
        bn,
        Activation("silu"),
        *(block(76),) * 3,
        SeparableConv(10, 1, use_bias=True),
        GlobalAveragePool(),
        Softmax(),
    )


# --- every declared value --------------------------------------------------------------------------------------------

COUNTED: dict[str, tuple[dict[str, Any], int]] = {  # a table, and how many networks it stands for
    "stages": ({"stages": {"low": 1, "high": 4}}, 4),
    "blocks": ({"blocks": {"low": 1, "high": 3}}, 3**2),
    "blocks of the net": ({"blocks": {"low": 1, "high": 3, "per": "net"}}, 3),
    "blocks of each": ({"blocks": {"each": [1, [1, 2, 5]]}}, 3),
    "width": ({"width": {"low": 8, "high": 16, "step": 4}}, 3**2),
    "kernel": ({"kernel": [3, 5, 7]}, 3**2),
    "kernel of the net": ({"kernel": {"choices": [3, 5, 7], "per": "net"}}, 3),
    "second_kernel": ({"second_kernel": [1, 3]}, 2**2),
    "dilation": ({"dilation": [1, 2, 4]}, 3**2),
    "block": ({"block": ["plain", "inverted", "gated"]}, 3),
    "block of each": ({"block": {"choices": ["plain", "inverted", "gated"], "per": "stage"}}, 3**2),
    "expansion": ({"block": "inverted", "expansion": {"low": 0.5, "high": 3.0, "step": 0.5}}, 6),
    "expansion of gates": ({"block": "gated", "expansion": {"choices": [0.5, 1, 2], "per": "stage"}}, 3**2),
    "activation": ({"activation": ["relu", "silu", "gelu"]}, 3),
    "activation of gates": ({"block": "gated", "activation": {"choices": ["relu", "silu"], "per": "stage"}}, 2**2),
    "norm": ({"norm": ["after", "before"]}, 2),
    "norm of gates": ({"block": "gated", "norm": ["after", "before"]}, 2),
    "uses": ({"uses": [1, 2, 3]}, 3),
    "uses of each": ({"uses": {"choices": [1, 2], "per": "stage"}, "blocks": [1, 2]}, 2**4),
    "downsample": ({"downsample": ["stride", "max", "average"]}, 3),
    "downsample of each": ({"stages": 3, "downsample": {"choices": ["stride", "max"], "per": "stage"}}, 4),
    "downsample_kernel": ({"downsample_kernel": [1, 3]}, 2),
    "stem_kernel": ({"stem_kernel": [1, 3, 5]}, 3),
    "stem_stride": ({"stem_stride": [1, 2, 4]}, 3),
    "stem_multiplier": ({"stem_multiplier": [1, 3, 9]}, 3),
    "head": ({"head": ["conv", "dense"]}, 2),
    "momentum": ({"momentum": [0.9, 0.99, 0.0]}, 3),
    "epsilon": ({"epsilon": [1e-3, 1e-5]}, 2),
}


@pytest.mark.parametrize("case", COUNTED)
def test_every_declared_value_makes_its_own_network_and_is_found_again(case: str) -> None:
    table, count = COUNTED[case]
    of = space(**table)
    networks = {fingerprint(built(of, values)): values for values in points(of)}
    assert len(networks) == count
    for values in points(of):
        check_round_trip(of, values)


def test_every_dimension_is_counted() -> None:
    assert set(ResidualStages.model_fields) - {"kind"} == {name for table, _ in COUNTED.values() for name in table}


def branch(**table: Any) -> tuple[Layer, ...]:
    first = next(layer for layer in built(space(**table), {}).layers if isinstance(layer, Residual))
    assert first.shortcut == ()
    return first.branch


def test_blocks_are_what_the_module_says() -> None:
    bn, relu = BatchNorm(0.9), Activation("relu")
    of = {"kernel": 7, "dilation": 2}
    wide, narrow = SeparableConv(8, 7, dilation=2), SeparableConv(8, 5)
    assert branch(second_kernel=5, **of) == (wide, bn, relu, narrow, bn)
    assert branch(second_kernel=5, norm="before", **of) == (bn, relu, wide, bn, relu, narrow)
    gated = {"block": "gated", "expansion": 1.5, "second_kernel": 5}
    opened = replace(wide, filters=24)
    assert branch(**gated, **of) == (opened, bn, Gate("relu"), narrow, bn)
    assert branch(**gated, norm="before", **of) == (bn, opened, Gate("relu"), bn, narrow)
    expanded = SeparableConv(32, 1)
    assert branch(block="inverted", expansion=4, **of) == (expanded, bn, relu, wide, bn)
    assert branch(block="inverted", expansion=4, norm="before", **of) == (bn, relu, expanded, bn, relu, wide)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("stride", (SeparableConv(8, 5, 2),)),
        ("max", (MaxPool(), SeparableConv(8, 5))),
        ("average", (AveragePool(), SeparableConv(8, 5))),
    ],
)
def test_a_stage_leads_into_half_the_resolution(kind: str, layers: tuple[Layer, ...]) -> None:
    bn = (BatchNorm(0.9), Activation("relu"))
    of = {"downsample": kind, "downsample_kernel": 5}
    between = built(space(**of), {}).layers[4:-4]
    assert between == (*layers, *bn)
    before = built(space(**of, norm="before"), {}).layers
    assert (before[0], *before[2:-6]) == (SeparableConv(8), *bn, *layers)
    assert before[-5:] == (*bn, SeparableConv(10, 1, use_bias=True), GlobalAveragePool(), Softmax())
    sides = [row.output[0] for row in resolve(built(space(stages=4, **of), {})) if isinstance(row.layer, Residual)]
    assert sides == [32, 16, 8, 4]


def test_a_block_used_twice_shares_its_convolutions_and_has_its_own_batch_norms() -> None:
    once, twice = (compute_cost(built(space(uses=uses, blocks=2, stages=1), {})) for uses in (1, 2))
    convolutions, norms = 2 * (72 + 64), 2 * 4 * 8  # of a block
    assert twice.params - once.params == 2 * norms
    assert twice.macs - once.macs == 2 * 1024 * convolutions
    names = [layer.weights for layer in walk(built(space(uses=2, blocks=2), {}).layers) if isinstance(layer, SeparableConv)]
    used = {name: names.count(name) for name in names if name}
    assert set(used.values()) == {2}
    assert len(used) == 2 * 2 * 2  # convolutions of a block, blocks, stages


def test_images_that_run_out_of_resolution_are_no_networks() -> None:
    of = space(stages=[5, 6], downsample="max")
    assert compute_cost(built(of, {"stages": 6})).params
    with pytest.raises(ArchitectureError, match="max_pool_4"):
        compute_cost(build(of, {"stages": 6}, (8, 8, 3), CLASSES))


# --- the way back ----------------------------------------------------------------------------------------------------


@given(residual_points())
@settings(max_examples=100)
def test_a_built_network_is_encoded_as_its_values(point: tuple[ResidualStages, dict[str, Value]]) -> None:
    check_round_trip(*point)


@given(st.integers(0, 2**20))
@settings(max_examples=150)
def test_a_network_of_the_wide_space_is_encoded_as_its_values(seed: int) -> None:
    check_round_trip(WIDE, draw_values(WIDE, seed))


BN, RELU = BatchNorm(0.9), Activation("relu")
STEM = (SeparableConv(8), BN, RELU)
PLAIN = Residual((SeparableConv(8), BN, RELU, SeparableConv(8), BN))
DOWN = (SeparableConv(8, 3, 2), BN, RELU)
HEAD = (SeparableConv(10, 1, use_bias=True), GlobalAveragePool(), Softmax())


def plain(first: SeparableConv | None = None, act: Layer = RELU, second: SeparableConv | None = None) -> Residual:
    return Residual((first or SeparableConv(8), BN, act, second or SeparableConv(8), BN))


ELSEWHERE: dict[str, tuple[tuple[Layer, ...], str]] = {
    "one stage": ((*STEM, PLAIN, *HEAD), "stages: 1 is not"),
    "two blocks": ((*STEM, PLAIN, PLAIN, *DOWN, PLAIN, *HEAD), "blocks: 2 is not"),
    "no block": ((*STEM, *HEAD), "no stem"),
    "no stem": ((BN, PLAIN, *DOWN, PLAIN, *HEAD), "no separable convolution leads into stage 1"),
    "width": ((SeparableConv(9), *STEM[1:], plain(second=SeparableConv(9)), *DOWN, PLAIN, *HEAD), "width: 9 is not"),
    "kernel": ((*STEM, plain(SeparableConv(8, 5)), *DOWN, PLAIN, *HEAD), "kernel: 5 is not"),
    "second kernel": ((*STEM, plain(second=SeparableConv(8, 5)), *DOWN, PLAIN, *HEAD), "second_kernel: 5 is not"),
    "dilation": ((*STEM, plain(SeparableConv(8, dilation=2)), *DOWN, PLAIN, *HEAD), "dilation: 2 is not"),
    "hidden channels": ((*STEM, plain(SeparableConv(16)), *DOWN, PLAIN, *HEAD), "no stem"),
    "inverted": ((*STEM, plain(SeparableConv(16, 1)), *DOWN, PLAIN, *HEAD), "block: inverted is not"),
    "gate": ((*STEM, plain(SeparableConv(16), Gate()), *DOWN, PLAIN, *HEAD), "block: gated is not"),
    "activation": ((*STEM, plain(act=Activation("silu")), *DOWN, PLAIN, *HEAD), "activation: silu"),
    "norm": ((SeparableConv(8), Residual((BN, RELU, SeparableConv(8), BN, RELU, SeparableConv(8))),
              *DOWN, PLAIN, *HEAD), "norm: before is not"),
    "momentum": ((*STEM, PLAIN, DOWN[0], BatchNorm(), RELU, PLAIN, *HEAD), "momentum"),
    "epsilon": ((*STEM, PLAIN, DOWN[0], BatchNorm(0.9, 0.1), RELU, PLAIN, *HEAD), "epsilon"),
    "shortcut": ((*STEM, replace(PLAIN, shortcut=(BN,)), *DOWN, PLAIN, *HEAD), "no stem"),
    "three convolutions": ((*STEM, Residual((*PLAIN.branch, SeparableConv(8))), *DOWN, PLAIN, *HEAD), "3 separable"),
    "shared": ((*STEM, *(plain(SeparableConv(8, weights="a"), second=SeparableConv(8, weights="b")),) * 2,
                *DOWN, PLAIN, *HEAD), "uses: 2 is not"),
    "half shared": ((*STEM, *(plain(SeparableConv(8, weights="a")),) * 2, *DOWN, PLAIN, *HEAD), "uses: 2 is not"),
    "pool": ((*STEM, PLAIN, MaxPool(), SeparableConv(8), *DOWN[1:], PLAIN, *HEAD), "downsample: max is not"),
    "down-sampling kernel": ((*STEM, PLAIN, SeparableConv(8, 5, 2), *DOWN[1:], PLAIN, *HEAD), "downsample_kernel: 5"),
    "no down-sampling": ((*STEM, PLAIN, SeparableConv(8), *DOWN[1:], PLAIN, *HEAD), "no stem"),
    "stem kernel": ((SeparableConv(8, 5), *STEM[1:], PLAIN, *DOWN, PLAIN, *HEAD), "stem_kernel: 5 is not"),
    "stem stride": ((SeparableConv(8, 3, 2), *STEM[1:], PLAIN, *DOWN, PLAIN, *HEAD), "stem_stride: 2 is not"),
    "stem multiplier": (
        (SeparableConv(8, depth_multiplier=2), *STEM[1:], PLAIN, *DOWN, PLAIN, *HEAD), "stem_multiplier: 2 is not"
    ),
    "head": ((*STEM, PLAIN, *DOWN, PLAIN, GlobalAveragePool(), Dense(10), Softmax()), "head: dense is not"),
    "another head": ((*STEM, PLAIN, *DOWN, PLAIN, GlobalAveragePool(), Dense(8), Dense(10), Softmax()), "head: neither"),
    "a pyramid": (reference("eip-c").layers, "no stem"),
}  # fmt: skip


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_network_elsewhere_is_refused_with_its_reason(case: str) -> None:
    layers, told = ELSEWHERE[case]
    with pytest.raises(NotInSpace, match=told) as caught:
        encode(space(), Architecture(INPUT, CLASSES, layers))
    assert len(str(caught.value).splitlines()) == 1
    assert encode(space(), Architecture(INPUT, CLASSES, (*STEM, PLAIN, *DOWN, PLAIN, *HEAD))) == {}


def test_a_block_that_can_be_read_in_two_ways_is_read_as_the_space_has_it() -> None:
    narrow = plain(SeparableConv(8, 1))
    layers = (*STEM, narrow, *DOWN, narrow, *HEAD)
    for table in ({"kernel": 1}, {"block": "inverted"}, {"block": ["plain", "inverted"], "kernel": [1, 3]}):
        of = space(**table)
        assert built(of, encode(of, Architecture(INPUT, CLASSES, layers))).layers == layers


def test_one_expansion_for_the_net_makes_the_channels_of_every_stage() -> None:
    of = space(block="inverted", width={"each": [8, 9]}, expansion={"low": 1.0, "high": 2.0, "step": 0.1})
    *front, last = built(of, {"expansion": 1.5}).layers[:-3]
    assert encode(of, Architecture(INPUT, CLASSES, (*front, last, *HEAD))) == {"expansion": 1.5}
    assert isinstance(last, Residual)
    wider = replace(last, branch=(SeparableConv(16, 1), *last.branch[1:]))
    with pytest.raises(NotInSpace, match="expansion: 8 to 12 channels in stage 1, 9 to 16 channels in stage 2, which no"):
        encode(of, Architecture(INPUT, CLASSES, (*front, wider, *HEAD)))


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


def test_a_price_grows_with_each_width() -> None:
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
def test_a_bad_table_is_told_in_one_line(case: str) -> None:
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
