"""Settings of `[data] folds`: what goes with it, the forecast of its time, and what `new` proposes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.data.dataset import load_dataset
from search.errors import UserError
from search.study.config import StudyConfig
from search.study.study_file import parse
from search.study.template import _folds
from search.training.recipe import Recipe
from search.tuning.forecast import Timing, mean_epochs


def study(**changes: Any) -> StudyConfig:
    raw = {"base": 0.5, "data": {"name": "digits", "folds": 5}, "budget": {"params": 2000}, "recipe": {"epochs": 10}}
    return parse(raw | {"space": {"blocks": {"low": 1, "high": 3}, "width": 8, "pools": 1}} | changes, "study")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"name": "digits", "folds": 1}}, "data.folds: Input should be greater than or equal to 2"),
        ({"data": {"name": "digits", "folds": 5, "holdout": 0.2}}, "each fold is held out in turn"),
        ({"protocol": "course"}, "validates on the test images"),
        ({"search": {"rank_by": "int8"}}, "the int8 accuracy is measured on the network of one epoch"),
        ({"search": {"flip_average": True}}, "leave one of them out"),
        ({"search": {"rungs": {"first": 41}}}, "in the last of 5 folds of 10 epochs; take a lower first"),
        ({"search": {"rungs": {"first": 3}}}, "the constant schedule does not decay to zero by a rung"),
    ],
)
def test_what_does_not_go_with_folds_is_rejected_in_a_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        study(**changes)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("study: ")


def test_rungs_count_the_epochs_of_all_folds_and_end_folds() -> None:
    ends = study(search={"rungs": {"first": 10, "factor": 2}})
    assert (ends.rungs, ends.restarts, ends.planned_epochs) == ((10, 20, 40), (), 50)
    assert study(search={"rungs": {"first": 40}}).rungs == (40,)
    early = study(search={"rungs": {"first": 4}}, recipe={"epochs": 10, "schedule": {"kind": "cosine"}})
    assert (early.rungs, early.restarts) == ((4, 20, 40), (4,))  # after 12 and 36 epochs, moved to the ends of their folds
    assert mean_epochs(study()) == 50 and mean_epochs(ends) == pytest.approx(10 + 10 / 5 + 20 / 25 + 10 / 125)


def test_the_forecast_has_a_training_for_each_fold() -> None:
    timing, recipe = Timing(3.0, 0.01, 0.001), Recipe(epochs=10)
    plain = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=100)
    folded = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=100, folds=5)
    assert timing.training(folded, recipe, 50) == pytest.approx(5 * 3 + 50 * (80 * 0.01 + 20 * 0.001))
    assert timing.training(plain, recipe, 10) == 3.0 + 10 * (100 * 0.01 + len(plain.x_val) * 0.001)


@pytest.mark.parametrize(
    ("counts", "holdout", "line"),
    [
        ({"all": (400, 500)}, None, "each of 720 images validates once; one of 180 is 0.6 points"),
        ({"train": (400, 500), "test": (50, 50)}, 0.1, "each of 900 images validates once; one of 90 is 1.1 points"),
        ({"all": (600, 500)}, None, ""),
        ({"train": (40, 50), "val": (9, 9), "test": (9, 9)}, None, ""),
    ],
)
def test_new_proposes_folds_where_an_image_is_half_a_point(counts: dict[str, Any], holdout: float | None, line: str) -> None:
    images = sum(map(sum, counts.values()))
    facts: Any = SimpleNamespace(counts=counts, images=images, holdout=holdout, path=Path("a"))
    found = _folds(facts)
    assert line in "".join(found) and bool(found) == bool(line)
    assert all(text.startswith("# folds = 5") for text in found)
