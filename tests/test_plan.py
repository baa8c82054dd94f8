"""What a space holds, against a space small enough to be counted out."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from search import plan
from search.cost import Budget, price
from search.data import load_dataset, shape_of
from search.errors import UserError
from space import Pyramid, build

ROOT = Path(__file__).parent.parent
SHAPE, CLASSES = (8, 8, 1), 10
TINY = {"blocks": 2, "width": {"low": 8, "high": 32, "step": 8}, "pools": 1}


def all_sizes(table: dict[str, object]) -> list[int]:
    space = Pyramid.model_validate(table)
    widths, places = range(8, 33, 8), (1, 2)
    return [
        price(build(space, {"width_1": one, "width_2": two, "pool_position_1": place}, SHAPE, CLASSES)).params
        for one, two, place in itertools.product(widths, widths, places)
    ]


def test_a_survey_agrees_with_counting_a_small_space_out() -> None:
    sizes = all_sizes(TINY)
    limit = sorted(sizes)[len(sizes) // 2]
    found = plan.survey(Pyramid.model_validate(TINY), Budget(params=limit), SHAPE, CLASSES, draws=4_000)
    share = sum(size < limit for size in sizes) / len(sizes)
    assert found.interval[0] <= share <= found.interval[1]
    assert found.interval[0] < found.share_that_fits < found.interval[1]
    assert found.smallest_params == min(sizes)
    assert found.largest_params_that_fit == max(size for size in sizes if size < limit)
    assert found.largest_params == max(sizes)
    assert set(found.sizes) == set(sizes)


@pytest.mark.parametrize(
    ("hits", "draws", "interval"),
    [(10, 100, (0.05522914, 0.17436566)), (0, 50, (0.0, 0.07134759)), (50, 50, (0.92865241, 1.0))],  # SciPy's binomtest
)
def test_the_interval_of_a_share_is_wilsons(hits: int, draws: int, interval: tuple[float, float]) -> None:
    assert plan.wilson(hits, draws) == pytest.approx(interval, abs=1e-6)


def test_a_budget_out_of_reach_is_refused_with_the_nearest_that_would_do() -> None:
    least = min(all_sizes(TINY))
    space = Pyramid.model_validate(TINY)
    with pytest.raises(UserError, match=f"at least {least + 1:,}"):
        plan.check(space, Budget(params=least), SHAPE, CLASSES)
    assert plan.check(space, Budget(params=least + 1), SHAPE, CLASSES) == least


def test_a_space_that_fits_no_image_is_refused() -> None:
    space = Pyramid.model_validate({"blocks": 4, "width": 8, "pools": 4})
    with pytest.raises(UserError, match="none of its networks fits images of 8x8x1"):
        plan.survey(space, Budget(params=10**6), SHAPE, CLASSES, draws=10)


def test_the_shape_of_a_named_set_is_that_of_its_images() -> None:
    digits = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    assert shape_of("digits", None, "holdout", 0.1) == (digits.input_shape, digits.classes)


def test_plan_prints_the_keys_of_its_contract() -> None:
    command = [sys.executable, "-m", "search", "plan", "quickstart", "--json"]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert list(found) == ["share_that_fits", "smallest_params", "largest_params_that_fit", "proposals_per_second"]
    assert 0 < found["smallest_params"] < found["largest_params_that_fit"] < 8_000
