"""report.marginal: against arithmetic by hand, fits that leave one out, and a study whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import space
from report.findings import gather
from report.marginal import SPARE, channels, least_squares, marginal, needed
from report.nets import Block, Net, nets
from search.architecture import Architecture
from search.cost import price
from search.geometry import resolve
from search.layers import SeparableConv
from tests.synthetic import Score, fill, noise_images, storages_in_memory, synthetic_run

SHALLOW = {"recipe__epochs": 2, "space__blocks": {"low": 3, "high": 5}, "space__pools": 1}


def test_errors_are_those_of_fits_that_leave_one_out() -> None:
    """HC3 weighs each network by how far a line through all others misses it."""
    draws = np.random.default_rng(0)
    design = np.column_stack([np.ones(30), draws.normal(size=30), 100 * draws.normal(size=30)])
    response = design @ [1.0, 2.0, 0.03] + draws.normal(size=30) * np.abs(design[:, 1])
    fitted = least_squares(design, response)
    assert fitted
    coefficients, covariance = fitted
    assert coefficients == pytest.approx(np.linalg.lstsq(design, response)[0])
    missed = []
    for place in range(30):
        others = np.arange(30) != place
        line = np.linalg.lstsq(design[others], response[others])[0]
        missed.append((response[place] - design[place] @ line) ** 2)
    bread = np.linalg.inv(design.T @ design)
    assert covariance == pytest.approx(bread @ design.T @ np.diag(missed) @ design @ bread)


def test_columns_that_depend_on_each_other_are_not_fitted() -> None:
    one = np.arange(10.0)
    assert least_squares(np.column_stack([np.ones(10), one, 2 * one + 1]), one) is None


def test_a_thousand_parameters_are_added_or_moved() -> None:
    widths, costs = np.array([10.0, 20.0, 40.0]), np.array([100.0, 200.0, 50.0])
    assert channels(widths, costs, "added") == pytest.approx(np.diag([10.0, 5.0, 20.0]))
    moved = channels(widths, costs, "moved")
    assert moved @ costs == pytest.approx(np.zeros(3)), "no network grows"
    assert np.diag(moved) == pytest.approx([10, 5, 20])
    assert moved[0, 1] / moved[0, 2] == pytest.approx(20 / 40), "the others shrink in proportion"


def worth(first: float, last: float) -> Score:
    """An accuracy that a channel of the first block raises by this much, one of the third by that."""

    def score(network: Architecture) -> float:
        widths = [row.layer.filters for row in resolve(network) if isinstance(row.layer, SeparableConv)]
        return 0.4 + first * widths[0] + last * widths[2]

    return score


@pytest.mark.parametrize("fit", ["fill", "reject"])
def test_what_a_channel_is_worth_is_found_again(fit: str, tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, search__fit=fit, **SHALLOW)
        found = gather(run, fill(run, noise_images(), 60, score=worth(2e-3, -1e-3)))
        told = marginal(found, nets(found))
    assert told and told.n == 60 and told.kind == ("moved" if fit == "fill" else "added")
    assert [gain.name for gain in told.gains] == [f"block {n}" for n in range(1, 6)]
    first, third = told.gains[0], told.gains[2]
    assert first.is_clear and first.gain == max(gain.gain for gain in told.gains) and first.low < first.gain < first.high
    assert third.is_clear and third.gain == min(gain.gain for gain in told.gains)
    if fit == "reject":
        for gain, slope in zip(told.gains, (2e-3, 0, -1e-3, 0, 0), strict=True):
            assert gain.low <= 1_000 * slope / gain.cost <= gain.high


def test_a_channel_costs_what_the_network_grows_by(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, search__fit="reject", space__blocks=3, space__pools=1, recipe__epochs=2)
        found = gather(run, fill(run, noise_images(), 30))
        told = marginal(found, nets(found))
        grown = []
        for one in nets(found):
            wide, narrow = (
                price(space.build(run.config.space, {**one.drawn, "width_2": one.blocks[1].width + more}, (32, 32, 3), 10))
                for more in (1, 0)
            )
            grown.append(wide.params - narrow.params)
    assert told
    assert told.gains[1].cost == pytest.approx(np.mean(grown))
    assert told.gains[1].width == pytest.approx(np.mean([one.blocks[1].width for one in nets(found)]))


def test_too_few_networks_tell_nothing(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, **SHALLOW)
        found = gather(run, fill(run, noise_images(), SPARE + 2))
        assert marginal(found, nets(found)) is None
        assert needed(nets(found)) > SPARE + 2


def test_blocks_that_hardly_any_network_has_are_taken_together() -> None:
    def net(depth: int) -> Net:
        return Net(0, True, 2, 0.5, (Block(8, 0.0, 100, False),) * depth, {})

    assert needed([net(3)] * 10) == SPARE + 2 + 3
    assert needed([net(3)] * 10 + [net(7)] * 4) == SPARE + 2 + 3, "the third is the third to the seventh"
    assert needed([net(3)] * 10 + [net(7)] * 5) == SPARE + 2 + 7
