"""report.markdown.effects, on studies whose trials are written by hand with effects that are known."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest

from report.markdown.effects import effects_section, finals_section
from search.finals.results import FinalistResult, FinalsResult
from search.finals.statistics import rank, winners_curse
from search.storage.database import open_storage
from search.storage.urls import sqlite_url
from search.study import study_file
from search.study.run import Run

TABLE: dict[str, Any] = {
    "base": 0.5,
    "data": {"name": "digits"},
    "budget": {"params": 8_000},
    "space": {"blocks": 1, "width": 16, "pools": 0},
    "recipe": {"normalize": [False, True], "schedules": [{"kind": "constant"}, {"kind": "cosine"}], "epochs": 2},
    "search": {"sampler": "grid", "repeats": 3},
}
NOISE = (0.0, 0.02, -0.01)  # of the seeds, the same in every cell


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("grid", tmp_path, study_file.parse(TABLE, "test"), sqlite_url(tmp_path))


def trained(run: Run, cells: int | None = None) -> optuna.Study:
    """A study in which normalisation costs ten points, and only under a constant schedule; the first `cells` of it."""
    study = optuna.create_study(storage=open_storage(run.storage_url), study_name="grid", direction="maximize")
    distributions = {name: domain.distribution() for name, domain in run.config.parameters.items()}
    grid = itertools.product(range(3), ("constant", "cosine"), (False, True))
    for index, (seed, schedule, normalize) in enumerate(itertools.islice(grid, cells)):
        score = 0.6 + NOISE[seed] - (0.1 if normalize and schedule == "constant" else 0.0) + 1e-4 * (index % 5)
        params = {"repeat": seed, "recipe.schedule": schedule, "recipe.normalize": normalize}
        attributes = {"index": index, "outcome": "trained", "best_val_accuracy": score, "best_epoch": 2}
        study.add_trial(
            optuna.trial.create_trial(value=score, params=params, distributions=distributions, user_attrs=attributes)
        )
    return study


def row(text: str, begins: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {begins}"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_each_factor_has_its_effect_and_what_goes_with_it(run: Run) -> None:
    text = effects_section(run, trained(run))
    assert text and text.startswith("4 cells, each trained on the same 3 seeds.")
    _, effect, interval, verdict = row(text, "normalize: yes against no")
    assert float(effect) == pytest.approx(-5.0, abs=0.05)
    low, high = map(float, interval.split(" to "))
    assert low < float(effect) < high < 0
    assert verdict == "less"
    assert float(row(text, "schedule: cosine against constant")[1]) == pytest.approx(5.0, abs=0.05)
    assert float(row(text, "normalize (yes) and schedule (cosine)")[1]) == pytest.approx(10.0, abs=0.05)
    by_schedule = text.partition("normalize by the value of each other factor")[2]
    assert float(row(by_schedule, "schedule = constant")[1]) == pytest.approx(-10.0, abs=0.05)
    assert row(by_schedule, "schedule = cosine")[3] == "may be chance"


def test_only_seeds_that_all_cells_have_count(run: Run) -> None:
    text = effects_section(run, trained(run, cells=9))  # two seeds, and one cell of the third
    assert text and text.startswith("4 cells, each trained on the same 2 seeds.")


def test_one_seed_says_that_nothing_is_known_and_none_says_nothing(run: Run) -> None:
    study = trained(run, cells=4)
    text = effects_section(run, study)
    assert text and row(text, "normalize: yes")[2:] == ["", "unknown: one seed"]
    optuna.delete_study(study_name="grid", storage=study._storage)
    assert effects_section(run, trained(run, cells=3)) is None


def test_a_study_that_is_no_grid_has_no_effects(run: Run) -> None:
    study = trained(run)
    table = TABLE | {"search": {"sampler": "random"}}
    assert effects_section(Run("grid", run.folder, study_file.parse(table, "test"), run.storage_url), study) is None


def test_finals_are_shown_with_intervals_ties_and_the_bias_of_the_search() -> None:
    scores = {"base": [0.80, 0.81, 0.82], "trial-3": [0.90, 0.91, 0.925], "trial-7": [0.90, 0.915, 0.915]}
    found = rank(scores, "base")
    against_base = {one.name: one for one in found.against_base}
    against_leader = {one.name: one for one in found.against_leader}
    finalists = tuple(
        FinalistResult(
            name=one.name,
            number=None,
            params=1_234,
            search_score=0.95,
            best_val=tuple(scores[one.name]),
            final_val=(),
            test=(),
            mean=one.mean,
            spread=one.spread,
            interval=(one.low or 0, one.high or 0),
            winners_curse=winners_curse(0.95, scores[one.name]),
            against_base=against_base.get(one.name),
            against_leader=against_leader.get(one.name),
        )
        for one in found.summaries
    )
    text = finals_section(
        FinalsResult("test_accuracy", 3, finalists, found.leader, ("2026-01-02T03:04:05+00:00",), {"trial-9": "diverged"})
    )
    leader = row(text, "trial-3")
    assert [leader[1], leader[5]] == ["91.17%", "1,234"] and leader[8] == "+3.83"
    assert leader[3].startswith("+10.17 (") and not leader[3].endswith("tie")
    assert row(text, "trial-7")[4].endswith("tie")
    assert "2026-01-02 03:04 UTC" in text and "trial-9 is compared with none: diverged." in text
