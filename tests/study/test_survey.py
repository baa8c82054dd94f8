"""Surveys, compared with the enumeration of a small space."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from search.budget.cost import compute_cost
from search.budget.limits import Budget
from search.cli.tables import print_survey
from search.data.dataset import load_dataset, shape_of
from search.errors import UserError
from search.networks.architecture import to_dict
from search.study import survey as plan
from space import Fixed, Pyramid, ResidualStages, build
from tests.support import commands

ROOT = Path(__file__).parents[2]
SHAPE, CLASSES = (8, 8, 1), 10
TINY = {"blocks": 2, "width": {"low": 8, "high": 32, "step": 8}, "pools": 1}


def all_sizes(table: dict[str, object]) -> list[int]:
    space = Pyramid.model_validate(table)
    widths, places = range(8, 33, 8), (1, 2)
    return [
        compute_cost(build(space, {"width_1": one, "width_2": two, "pool_position_1": place}, SHAPE, CLASSES)).params
        for one, two, place in itertools.product(widths, widths, places)
    ]


def test_a_survey_agrees_with_counting_a_small_space_out() -> None:
    sizes = all_sizes(TINY)
    limit = sorted(sizes)[len(sizes) // 2]
    found = plan.survey_space(Pyramid.model_validate(TINY), Budget(params=limit), SHAPE, CLASSES, draws=4_000)
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


def test_a_budget_out_of_reach_is_rejected_with_the_nearest_possible_one() -> None:
    least = min(all_sizes(TINY))
    space = Pyramid.model_validate(TINY)
    with pytest.raises(UserError, match=f"at least {least + 1:,}"):
        plan.check(space, Budget(params=least), SHAPE, CLASSES)
    plan.check(space, Budget(params=least + 1), SHAPE, CLASSES)


def test_a_space_that_fits_no_image_is_rejected() -> None:
    space = Pyramid.model_validate({"blocks": 4, "width": 8, "pools": 4})
    with pytest.raises(UserError, match="none of its networks fits images of 8x8x1"):
        plan.survey_space(space, Budget(params=10**6), SHAPE, CLASSES, draws=10)


def test_the_shape_of_a_named_set_is_that_of_its_images() -> None:
    digits = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    assert shape_of("digits", None, "holdout", 0.1) == (digits.input_shape, digits.classes)


def test_draws_follow_the_seed() -> None:
    space = Pyramid.model_validate(TINY)
    drawn = [plan.survey_space(space, Budget(params=10**6), SHAPE, CLASSES, draws=50, seed=seed).sizes for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_network_for_other_images_among_those_given_is_one_that_does_not_fit() -> None:
    here = build(Pyramid.model_validate(TINY), {"width_1": 8, "width_2": 8, "pool_position_1": 1}, SHAPE, CLASSES)
    networks = {"here": to_dict(here), "elsewhere": to_dict(replace(here, input=(32, 32, 3)))}
    space = Fixed.model_validate({"network": list(networks), "networks": networks})
    found = plan.survey_space(space, Budget(params=10**6), SHAPE, CLASSES, draws=200)
    assert set(found.sizes) == {compute_cost(here).params}
    assert found.interval[0] < 0.5 < found.interval[1]


def test_fewer_draws_of_networks_with_thousands_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute, where all draws of the deepest space would take an hour."""
    monkeypatch.setattr(plan, "MOST_LAYERS", 20_000)
    deepest = {"kind": "residual", "stages": 8, "blocks": 32, "uses": 8, "block": "gated", "width": [8, 16]}
    found = plan.survey_space(ResidualStages.model_validate(deepest), Budget(params=10**9), (32, 32, 3), CLASSES)
    assert found.draws == len(found.sizes) == 2  # of 12,315 layers each


def test_a_space_of_which_only_the_least_exist_is_shown() -> None:
    space = Pyramid.model_validate(TINY)
    found = replace(plan.survey_space(space, Budget(params=10**6), SHAPE, CLASSES, draws=5), sizes=(), share_that_fits=0.0)
    print_survey(Console(file=io.StringIO()), "least", 10**6, found)


# --- the verb --------------------------------------------------------------------------------------------------------

LOOK = """
import sys
from search.__main__ import main
try:
    main()
finally:
    print(sorted({"tensorflow", "keras", "jax"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npz"
    x, y = np.random.default_rng(0).integers(0, 256, (1_100, 8, 8), np.uint8), np.arange(1_100) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return path


def test_plan_takes_the_options_of_run_and_does_not_load_tensorflow(images: Path) -> None:
    options = ["--epochs", "2", "--trials", "3", "--batch-size", "16", "--data", str(images), "--images", "1050"]
    command = [sys.executable, "-c", LOOK, "plan", "quickstart", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "--probe" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--data none.npz", "none.npz: no such file"),
        ("--data {images} --images 1101", "images is 1101, digits takes"),
        ("--trials 0", "--trials: search.trials"),
        ("--batch-size 0", "--batch-size: recipe.batch_size"),
        ("--seed -1", "--seed: search.seed"),
    ],
)
def test_a_bad_option_is_rejected_in_one_line(options: str, told: str, images: Path) -> None:
    ended = commands.search("plan", "quickstart", *options.format(images=images).split())
    assert ended.out == ""
    commands.assert_refused(ended, told)


def test_plan_prints_the_keys_of_its_contract() -> None:
    found = json.loads(commands.search("plan", "quickstart", "--json").out)
    assert list(found) == ["share_that_fits", "smallest_params", "largest_params_that_fit", "proposals_per_second"]
    assert 0 < found["smallest_params"] < found["largest_params_that_fit"] < 8_000
