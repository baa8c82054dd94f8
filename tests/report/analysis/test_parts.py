"""report.analysis.parts, and report.analysis.contrast told from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from report.analysis.contrast import FEWEST, QUARTILES, choices_table, pooled, profile, split_quarters, varies
from report.analysis.findings import gather
from report.analysis.parts import Net, Part, blocks, nets, part_of
from search.networks.architecture import Architecture
from search.networks.geometry import resolve
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
)
from search.study.config import STUDIES
from search.study.run import network_of
from tests.support.synthetic import fill, noise_images, storages_in_memory, synthetic_run

CONV = SeparableConv(8), BatchNorm(), Activation("relu")
RESIDUAL = STUDIES / "cifar10_100k_residual" / "study.toml"


def made(*layers: Layer) -> tuple[Part, ...]:
    return blocks(Architecture((8, 8, 3), 10, layers))


def net(number: int, *widths: int, accuracy: float = 0.5, in_full: bool = True, pool: int = 0, **drawn: object) -> Net:
    found = tuple(Part(width, is_pooled=place == pool) for place, width in enumerate(widths, 1))
    return Net(number, in_full, 9 if in_full else 3, accuracy, found, drawn)  # type: ignore[arg-type]


# --- parts of a network ----------------------------------------------------------------------------------------------


def test_a_block_is_a_convolution_with_what_follows_up_to_a_pool() -> None:
    head = SeparableConv(10, 1), GlobalAveragePool(), Softmax()
    found = made(*CONV, Dropout(0.2), MaxPool(), Dropout(0.5), SeparableConv(16), *head)
    assert found == (Part(8, 0.2, True), Part(16))


def test_the_head_is_no_block_whatever_it_is_made_of() -> None:
    assert [block.width for block in made(*CONV, GlobalAveragePool(), Dense(10), Softmax())] == [8]
    assert [block.width for block in made(*CONV, AveragePool(), Flatten(), Dense(10), Softmax())] == [8]
    head = SeparableConv(10, 1), GlobalAveragePool(), Dense(10), Softmax()
    assert [block.width for block in made(*CONV, *head)] == [8]


def test_the_blocks_of_a_candidate_are_those_that_it_was_drawn_with(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, recipe__epochs=3)
        found = gather(run, fill(run, noise_images(), 12))
        assert part_of(run.config.space) == "block"
        for one in nets(found):
            assert [part.width for part in one.parts] == [one.drawn[f"width_{n}"] for n in range(1, 1 + one.drawn["blocks"])]
            assert sum(part.is_pooled for part in one.parts) == one.drawn["pools"]
            has_dropout = one.drawn["order"] == "conv-dropout-bn-act"
            rates = [one.drawn[f"dropout_{n}"] * has_dropout for n in range(1, 1 + one.drawn["blocks"])]
            assert [part.dropout for part in one.parts] == pytest.approx(rates)


def test_the_stages_of_a_residual_candidate_are_its_parts(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, RESIDUAL, recipe__epochs=20)
        found = gather(run, fill(run, noise_images(), 12))
        assert part_of(run.config.space) == "stage"
        for one in nets(found):
            maps: dict[int, set[int]] = {}
            blocks_at: dict[int, int] = {}
            for row in resolve(network_of(run, one.number, found.studies)):
                if isinstance(row.layer, Residual):
                    maps.setdefault(row.output[0], set()).add(row.output[-1])
                    blocks_at[row.output[0]] = blocks_at.get(row.output[0], 0) + 1
            assert [{part.width} for part in one.parts] == [maps[side] for side in sorted(maps, reverse=True)]
            uses = one.drawn["uses"]
            assert [part.blocks * uses for part in one.parts] == [blocks_at[side] for side in sorted(maps, reverse=True)]


def test_pruned_candidates_stand_below_and_in_the_order_of_how_far_they_came(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, recipe__epochs=9, search__rungs={"first": 3})
        found = gather(run, fill(run, noise_images(), 40))
        lucky = next(one for one in found.candidates if one.outcome == "pruned_at_rung")
        raised = [replace(one, best_val_accuracy=0.99) if one is lucky else one for one in found.candidates]
        found = replace(found, candidates=raised)
        order = [(one.in_full, one.epochs, one.accuracy) for one in nets(found)]
    assert order == sorted(order, reverse=True)
    assert {one[0] for one in order} == {True, False}
    assert order[0][2] == found.board["trials"][0]["best_val_accuracy"]


# --- good and bad ----------------------------------------------------------------------------------------------------


def test_the_quarters_are_the_first_and_the_last() -> None:
    assert split_quarters([net(n, 8) for n in range(FEWEST - 1)]) is None
    one = split_quarters([net(n, 8) for n in range(11)])
    assert one and [net.number for net in one.best] == [0, 1] and [net.number for net in one.worst] == [9, 10]


def test_a_profile_has_the_middle_and_the_quartiles_of_those_that_are_so_deep() -> None:
    group = [net(n, 10 * (n + 1), 5) for n in range(QUARTILES)] + [net(99, 1_000)]
    first, second = profile(group, lambda part: part.width)
    assert (first.middle, first.n, first.span) == (50, QUARTILES + 1, (30, 70))
    assert (second.middle, second.n, second.span) == (5, QUARTILES, (5, 5))
    (few,) = profile(group[-1:], lambda part: part.width)
    assert few.span is None
    assert varies(group, lambda part: part.width) and not varies(group, lambda part: part.dropout)


def test_pools_are_counted_among_all_networks_of_a_group() -> None:
    shares = [
        spot.middle
        for spot in pooled([net(0, 8, 8, pool=1), net(1, 8, 8, 8, pool=1), net(2, 8, pool=0), net(3, 8, 8, pool=2)])
    ]
    assert shares == [0.5, 0.25, 0.0]


def test_choices_of_the_whole_net_are_shown_by_median_and_by_share() -> None:
    drawn = [{"blocks": depth, "order": order, "width_1": 8, "repeat": 1, "recipe.normalize": True} for depth, order in zip(
        (4, 6, 8, 8, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), "abaaxxxxxxxxbbbb", strict=True)]  # fmt: skip
    one = split_quarters([net(n, 8, **row) for n, row in enumerate(drawn)])
    assert one
    table = choices_table(one, "block")
    assert table.columns == ("", "best 4", "worst 4")
    assert table.rows == [
        ("blocks", "8 (50%), 4 (25%), 6 (25%)", "3"),
        ("order", "a (75%), b (25%)", "b (100%)"),
        ("normalize", "True (100%)", "True (100%)"),
    ]


def test_choices_of_a_stage_are_counted_over_networks_that_have_it() -> None:
    drawn = [{"stages": len(widths), "width_1": 8, "blocks_1": 1, "kernel_1": 3, "kernel_2": 5 + 2 * n} for n, widths in
             enumerate(((8, 8), (8,), *[(8,)] * 5, (8, 8)))]  # fmt: skip
    one = split_quarters([net(n, *[8] * int(row["stages"]), **row) for n, row in enumerate(drawn)])
    assert one
    assert choices_table(one, "stage").rows == [
        ("stages", "1 (50%), 2 (50%)", "1 (50%), 2 (50%)"), ("kernel 1", "3", "3"), ("kernel 2", "5", "19"),
    ]  # fmt: skip


@pytest.mark.parametrize("n", [8, 100])
def test_a_single_network_has_no_chance_to_be_in_both_groups(n: int) -> None:
    one = split_quarters([net(number, 8) for number in range(n)])
    assert one and not {net.number for net in one.best} & {net.number for net in one.worst}
