"""The space of residual stages: every declared value is reached and found again, priced as Keras counts, written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.budget.cost import compute_cost
from search.networks.architecture import Architecture, fingerprint
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
from search.spaces.domains import Value
from space import NotInSpace, ResidualStages, build, encode
from tests.budget.test_cost import check_against_keras
from tests.support.pyramids import CLASSES, INPUT, built, check_round_trip, points
from tests.support.residual import WIDE, space
from tests.support.strategies import draw_values, reference, residual_points

NOTED = {  # the proposal of the notes on training: two resolutions, three gated blocks each
    "stages": 2,
    "blocks": 3,
    "width": {"each": [48, 76]},
    "kernel": 5,
    "stem_multiplier": 9,
}


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
def test_a_network_elsewhere_is_rejected_with_its_reason(case: str) -> None:
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
