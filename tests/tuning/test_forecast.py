"""The forecast of a study's time: its arithmetic on a clock of our own, its draws, and the verb on real trainings."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.optimize import nnls

from search.budget.cost import compute_cost
from search.cli.tables import print_survey
from search.data.dataset import Dataset, load_dataset
from search.errors import UserError
from search.networks.architecture import Architecture
from search.study import survey as plan
from search.study.config import StudyConfig
from search.study.study_file import parse
from search.training.engine.base import Evaluation, Sums
from search.training.engine.epoch import EpochPlan
from search.training.recipe import Augment, Recipe
from search.tuning import forecast as probe
from search.tuning.forecast import Forecast, Timing
from tests.support.commands import search
from tests.support.runs import STUDY

ROOT = Path(__file__).parents[2]
BASE = ROOT / "studies" / "quickstart" / "base.json"
SPACE = {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 64, "step": 8}, "pools": 1}
RECIPE = Recipe(batch_size=100, precision="float32")


def configured(**tables: Any) -> StudyConfig:
    plain = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 2_000}, "space": SPACE}
    return parse(plain | {"recipe": {"epochs": 20}, "search": {"trials": 7}} | tables, "test")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)


# --- a training timed, on a clock of our own -------------------------------------------------------------------------


@dataclass
class SlowEngine:
    """Takes the seconds that it is told to, on a clock of its own; what only a first call takes is 1,000."""

    data: Dataset
    recipe: Recipe
    image: float
    validation_image: float
    compile_seconds: float = 3.0
    now: float = 0.0
    plan: EpochPlan | None = None
    begun: list[str] = field(default_factory=list)

    def begin(self, plan: EpochPlan) -> None:
        self.plan = plan

    def train(self, first: int, last: int) -> Sums:
        assert self.plan and 0 <= first < last <= self.plan.steps
        size = self.recipe.batch_size
        self._take("train", self.image * len(self.plan.order[first * size : last * size]))
        return Sums(0.0, 0.0)

    def evaluate(self, *, averaged: bool = False) -> Evaluation:
        self._take("evaluate", self.validation_image * len(self.data.x_val))
        return Evaluation(0.0, 0.0)

    def _take(self, what: str, seconds: float) -> None:
        self.now += seconds + (1_000 if what not in self.begun else 0)
        self.begun.append(what)


@pytest.fixture(scope="module")
def network(digits: Dataset) -> Architecture:
    return probe.sample_candidates(configured(), digits)[0].architecture


@pytest.fixture
def slow(
    monkeypatch: pytest.MonkeyPatch, digits: Dataset, network: Architecture
) -> Callable[..., tuple[Timing, SlowEngine]]:
    def time_it(image: float, recipe: Recipe, images: int) -> tuple[Timing, SlowEngine]:
        data = replace(digits, x_train=digits.x_train[:images], y_train=digits.y_train[:images])
        engine = SlowEngine(data, recipe, image, image / 4)
        monkeypatch.setattr("search.training.train.open_engine", lambda *_, **__: engine)
        return probe.time_training(network, data, recipe, clock=lambda: engine.now), engine

    return time_it


@pytest.mark.parametrize("image", [1e-3, 1e-2, 4.0], ids=["several epochs", "some steps", "a step is too long"])
@pytest.mark.parametrize("images", [1, 100, 430])  # of batches of 100: a partial one, a whole one, five
@pytest.mark.parametrize("passes", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_training_is_timed_by_the_image(slow: Any, image: float, images: int, passes: int) -> None:
    timing, _ = slow(image, RECIPE.model_copy(update={"augment": Augment(passes=passes)}), images)
    assert timing == Timing(3.0, pytest.approx(image), pytest.approx(image / 4))


def test_about_two_seconds_of_steps_are_timed(slow: Any) -> None:
    _, engine = slow(1e-4, RECIPE, 430)  # an epoch of 0.043 seconds, in five steps
    rest = 2_000 + 100 * 1e-4 + 2 * len(engine.data.x_val) * 1e-4 / 4  # the first calls, and the evaluation
    assert probe.STEP_SECONDS <= engine.now - rest <= probe.STEP_SECONDS + 430 * 1e-4
    assert engine.begun.count("train") < 1.5 * probe.STEP_SECONDS / (430 * 1e-4)  # mostly of a whole epoch each


def test_a_moving_average_is_evaluated_too(slow: Any) -> None:
    timing, _ = slow(1e-3, RECIPE.model_copy(update={"ema": 0.9}), 430)
    assert timing.validation_image == pytest.approx(2 * 1e-3 / 4)


def test_a_whole_training_is_compiled_once_and_validated_each_epoch(digits: Dataset) -> None:
    recipe = Recipe.model_validate({"augment": {"passes": 2}})
    n, n_val = len(digits.x_train), len(digits.x_val)
    assert Timing(5.0, 0.01, 0.001).training(digits, recipe, 4) == pytest.approx(5 + 4 * (2 * n * 0.01 + n_val * 0.001))


# --- from a few trainings to the study -------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(st.integers(1, 100), st.floats(0.125, 100)), min_size=1, max_size=5)


@given(POINTS)
def test_the_line_is_the_nearest_of_those_that_never_fall(points: list[tuple[float, float]]) -> None:
    a, b = probe.fit_line(points)
    assert a >= 0 and b >= 0
    matrix, y = np.array([(1.0, x) for x, _ in points]), np.array([y for _, y in points])
    _, error = nnls(matrix, y)
    assert np.linalg.norm(matrix @ (a, b) - y) == pytest.approx(error, abs=1e-6)


def test_the_forecast_is_the_mean_over_what_fits_and_the_base(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    config = configured(base=str(BASE), recipe={"epochs": 20, "batch_size": 32})
    base, drawn = probe.base_of(config, digits), probe.sample_candidates(config, digits)
    seen, doing = [], []

    def time_training(architecture: Any, data: Dataset, recipe: Recipe) -> Timing:
        seen.append((compute_cost(architecture).macs, recipe.batch_size, len(data.x_train), len(data.x_val)))
        return Timing(2.0, compute_cost(architecture).macs * 1e-6, compute_cost(architecture).macs * 1e-7)

    def seconds(macs: float) -> float:
        return 2.0 + 20 * macs * (len(digits.x_train) * 1e-6 + len(digits.x_val) * 1e-7)

    monkeypatch.setattr(probe, "time_training", time_training)
    monkeypatch.setattr(probe, "_prepare_device", lambda: None)
    monkeypatch.setattr(probe, "VALIDATION_IMAGES", 100)
    found = probe.forecast(config, digits, doing.append)
    macs = [one.cost.macs for one in drawn]
    timed = [macs[round(share * (len(macs) - 1))] for share in (0.05, 0.5, 0.95)]
    assert base and seen == [(one, 32, len(digits.x_train), 100) for one in (compute_cost(base.architecture).macs, *timed)]
    assert found.seconds_per_trial == pytest.approx(sum(map(seconds, macs)) / len(macs))
    assert (found.cheap, found.dear) == pytest.approx((seconds(timed[0]), seconds(timed[-1])))
    assert found.seconds_of_base == pytest.approx(seconds(compute_cost(base.architecture).macs))
    assert found.seconds == pytest.approx(found.seconds_of_base + 7 * found.seconds_per_trial)
    assert len(doing) == 5 and f"{timed[1]:,} multiply-adds" in doing[3]


def test_a_base_is_timed_under_its_own_recipe_for_the_epochs_of_the_study(
    monkeypatch: pytest.MonkeyPatch, digits: Dataset, tmp_path: Path
) -> None:
    shutil.copy(BASE, tmp_path / "own.json")
    (tmp_path / "own.toml").write_text("[recipe]\nepochs = 7\nbatch_size = 64\naugment = { passes = 3 }\n")
    sizes = []
    monkeypatch.setattr(
        probe, "time_training", lambda _, __, recipe: sizes.append(recipe.batch_size) or Timing(0, 0.5, 0.25)
    )
    monkeypatch.setattr(probe, "_prepare_device", lambda: None)
    found = probe.forecast(configured(base=str(tmp_path / "own.json")), digits)
    n, n_val = len(digits.x_train), len(digits.x_val)
    assert sizes == [64, 128, 128, 128]
    assert found.seconds_of_base == pytest.approx(20 * (3 * n * 0.5 + n_val * 0.25))
    assert found.seconds_per_trial == pytest.approx(20 * (n * 0.5 + n_val * 0.25))


def test_trials_are_shorter_if_one_in_five_passes_each_rung() -> None:
    assert probe.mean_epochs(configured()) == 20
    table = {"recipe": {"epochs": 20, "schedule": {"kind": "cosine"}}, "search": {"rungs": {"first": 2, "factor": 3}}}
    assert probe.mean_epochs(configured(**table)) == pytest.approx(2 + 4 / 5 + 12 / 25 + 2 / 125)  # rungs after 2, 6 and 18


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_sampled_networks_fit_and_are_the_same_each_time(digits: Dataset) -> None:
    drawn = probe.sample_candidates(configured(), digits)
    macs = [one.cost.macs for one in drawn]
    assert len(drawn) > 100 and macs == sorted(macs) and max(one.cost.params for one in drawn) < 2_000
    assert drawn == probe.sample_candidates(configured(), digits)
    assert drawn != probe.sample_candidates(configured(search={"seed": 1}), digits)


def test_a_search_that_fills_the_budget_is_of_larger_networks(digits: Dataset) -> None:
    as_drawn, filled = (probe.sample_candidates(configured(search={"fit": fit}), digits) for fit in ("reject", "fill"))
    means = [sum(one.cost.params for one in drawn) / len(drawn) for drawn in (as_drawn, filled)]
    assert means[0] < means[1] < 2_000


def test_widths_are_scaled_as_by_the_sampler_if_hardly_a_sample_fits(digits: Dataset) -> None:
    least = plan.smallest(configured().space, digits.input_shape, digits.classes)
    assert least
    tight = probe.sample_candidates(configured(budget={"params": least + 1}), digits)
    assert {one.cost.params for one in tight} == {least}
    with pytest.raises(UserError, match=f"none of 3,000 random draws of the space fits under {least:,}"):
        probe.sample_candidates(configured(budget={"params": least}), digits)


def test_the_base_is_a_network_or_an_accuracy(digits: Dataset) -> None:
    assert probe.base_of(configured(base=0.9), digits) is None
    found = probe.base_of(configured(base=str(BASE)), digits)
    assert found and compute_cost(found.architecture).params == 82_090


# --- the verb --------------------------------------------------------------------------------------------------------

FAULTS = {  # what is changed in the study file, options, what is told
    "no such data": ("", "", "--data {folder}/none.npz", "none.npz: no such file"),
    "more images than there are": ("", "", "--images 5000", "images is 5000"),
    "base for other images": (str(BASE), "eip-b", "", "eip-b: takes images of 32x32x3 in 10 classes, and digits has 8x8x1"),
    "budget out of reach": ("8_000", "80", "", "budget.params: 80 is out of reach"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_as_by_run(fault: str, tmp_path: Path) -> None:
    old, new, words, hint = FAULTS[fault]
    assert old in STUDY
    (tmp_path / "tiny.toml").write_text(STUDY.replace(old, new) if old else STUDY)
    options = words.format(folder=tmp_path).split()
    planned = search("plan", tmp_path / "tiny.toml", "--probe", *options)
    assert (planned.status, planned.out, planned.err.count("\n")) == (2, "", 1), planned
    assert hint in planned.err
    run = search("run", tmp_path / "tiny.toml", "--out", tmp_path / "out", *options)
    assert (run.status, run.err) == (2, planned.err)


@pytest.mark.long
def test_plan_probes_a_study_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(STUDY)
    words = ["plan", tmp_path / "tiny.toml", "--probe", "--json", "--trials", "3", "--epochs", "2", "--images", "500"]
    done = search(*words)
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert list(found)[4:] == ["seconds_per_trial", "seconds_of_base", "forecast_seconds"]
    assert found["seconds_per_trial"] > 0 and found["seconds_of_base"] > 0
    assert found["forecast_seconds"] == pytest.approx(found["seconds_of_base"] + 3 * found["seconds_per_trial"])


def test_without_a_network_to_beat_there_are_only_trials() -> None:
    told = Forecast(3, 20.0, 10.0, 30.0, None).to_dict()
    assert told == {"seconds_per_trial": 20.0, "seconds_of_base": None, "forecast_seconds": 60.0}


NOON = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))
MINUTE, HOUR, DAY = 60, 3_600, 86_400
TOLD: dict[str, tuple[Forecast, str, str]] = {
    "some hours": (
        Forecast(40, 4.7 * MINUTE, 4 * MINUTE, 9 * MINUTE, 12 * MINUTE),
        "about 3 h 20 min on this machine (40 trials of 4 to 9 min, the base 12 min)",
        "at 15:20",
    ),
    "one trial, no base": (Forecast(1, 20, 20.2, 19.9, None), "about 20 s on this machine (1 trial of 20 s)", "at 12:00"),
    "past midnight": (
        Forecast(10, 2 * HOUR, 80, 2.5 * HOUR, HOUR),
        "about 21 h on this machine (10 trials of 80 s to 2 h 30 min, the base 60 min)",
        "on Sunday 22 November at 09:00",
    ),
    "days": (
        Forecast(1_000, 0.01225 * DAY, 10 * MINUTE, 22 * HOUR, None),
        "about 12 days 6 h on this machine (1,000 trials of 10 min to 22 h)",
        "on Thursday 03 December at 18:00",
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_forecast_is_put_in_words(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forecast, words, end = TOLD[case]
    monkeypatch.setattr("search.cli.tables.time.time", lambda: NOON)
    config = configured()
    found = plan.survey_space(config.space, config.budget, (8, 8, 1), 10, draws=100)
    console = Console(record=True, width=80, file=io.StringIO())
    print_survey(console, "study", 2_000, found, forecast)
    assert console.export_text().splitlines()[-2:] == [words, f"started now, it would end {end}"]
