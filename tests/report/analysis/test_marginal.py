"""report.analysis.marginal: against arithmetic by hand, fits that leave one out, and a study whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import space
from report.analysis.findings import gather
from report.analysis.marginal import SPARE, Marginal, TooFew, channels, least_squares, marginal
from report.analysis.parts import nets
from search.budget.cost import compute_cost
from search.networks.architecture import Architecture
from search.networks.geometry import resolve
from search.networks.layers import Residual, SeparableConv
from search.study.config import STUDIES
from tests.support.synthetic import Score, fill, noise_images, storages_in_memory, synthetic_run

RESIDUAL = STUDIES / "cifar10_100k_residual" / "study.toml"
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
def test_the_effect_of_a_channel_is_recovered(fit: str, tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, search__fit=fit, **SHALLOW)
        found = gather(run, fill(run, noise_images(), 60, score=worth(2e-3, -1e-3)))
        told = marginal(found, nets(found))
    assert isinstance(told, Marginal) and told.n == 60 and told.kind == ("moved" if fit == "fill" else "added")
    assert told.controls == ("blocks",)
    assert [gain.named("block") for gain in told.gains] == [f"block {n}" for n in range(1, 6)]
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
        told, grown = marginal(found, nets(found)), []
        for one in nets(found):
            wide, narrow = (
                compute_cost(
                    space.build(run.config.space, {**one.drawn, "width_2": one.parts[1].width + more}, (32, 32, 3), 10)
                )
                for more in (1, 0)
            )
            grown.append(wide.params - narrow.params)
    assert isinstance(told, Marginal) and told.controls == ()
    assert told.gains[1].cost == pytest.approx(np.mean(grown))
    assert told.gains[1].width == pytest.approx(np.mean([one.parts[1].width for one in nets(found)]))


def test_effects_are_compared_at_equal_widths(tmp_path: Path) -> None:
    """If every network fills the budget, deeper ones are narrower: depth, not width, pays here."""
    known = {"stages": 2, "blocks": {"low": 1, "high": 4}, "kernel": [3, 5], "block": ["gated", "plain"]}
    fixed = {"second_kernel": 3, "dilation": 1, "expansion": 1.0, "activation": "silu", "norm": "after", "uses": 1}
    fixed |= {"downsample": "stride", "stem_multiplier": 1, "head": "conv"}
    changes = {f"space__{name}": value for name, value in (known | fixed).items()}

    def depth(network: Architecture) -> float:
        return 0.5 + 0.02 * sum(isinstance(layer, Residual) for layer in network.layers)

    with storages_in_memory():
        run = synthetic_run(tmp_path, RESIDUAL, recipe__epochs=2, search__rungs=None, search__warm_start=[], **changes)
        found = gather(run, fill(run, noise_images(), 60, score=depth))
        told = marginal(found, nets(found))
    assert isinstance(told, Marginal)
    assert told.controls == ("blocks_1", "blocks_2", "kernel_1", "kernel_2", "block")
    assert [gain.named("stage") for gain in told.gains] == ["stage 1", "stage 2"]
    assert not any(gain.is_clear for gain in told.gains)


def test_too_few_networks_tell_nothing(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, **SHALLOW | {"space__blocks": 3})
        found = gather(run, fill(run, noise_images(), SPARE + 4))
        assert marginal(found, nets(found)[:-1]) == TooFew(SPARE + 3, SPARE + 4), "a constant and three widths"
        assert isinstance(marginal(found, nets(found)), Marginal)


def test_blocks_that_hardly_any_network_has_are_taken_together(tmp_path: Path) -> None:
    with storages_in_memory():
        run = synthetic_run(tmp_path, recipe__epochs=2)
        found = gather(run, fill(run, noise_images(), 80))
        deep = [net for net in nets(found) if len(net.parts) == 10]
        others = [net for net in nets(found) if len(net.parts) < 10]
        few, many = (marginal(found, [*others, *deep[:count]]) for count in (4, 8))
    assert len(deep) >= 8 and isinstance(few, Marginal) and isinstance(many, Marginal)
    assert [gain.named("block") for gain in few.gains][-2:] == ["block 8", "blocks 9 to 10"]
    assert [gain.named("block") for gain in many.gains][-2:] == ["block 9", "block 10"]
