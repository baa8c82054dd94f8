"""A small study file's run and its Optuna study, without a data set on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.data.dataset import Dataset, load_dataset
from search.storage.urls import sqlite_url
from search.study.config import StudyConfig
from search.study.run import Run, create
from search.study.study_file import parse
from space import parameters

STUDY: dict[str, Any] = {
    "base": 0.5,
    "data": {"name": "digits"},
    "budget": {"params": 2000},
    "space": {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 48, "step": 8}, "pools": 1},
    "recipe": {"epochs": 2, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}},
}
TRAINED = {"outcome": "trained", "best_val_accuracy": 0.5, "best_epoch": 1, "final_val_accuracy": 0.4, "params": 300}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def make_run(folder: Path, **changes: Any) -> Run:
    return Run("tiny", folder, parse(STUDY | changes, "test"), sqlite_url(folder))


@pytest.fixture
def study(run: Run, digits: Dataset) -> optuna.Study:
    return create(run, digits).candidates


def begin_trial(study: optuna.Study, config: StudyConfig | None = None, **attributes: Any) -> optuna.Trial:
    """A trial that runs, with all its parameters where a configuration is given."""
    trial = study.ask()
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    if config:
        for name, domain in parameters(config.space).items():
            domain.suggest(trial, name)
        config.recipe.domains["learning_rate"].suggest(trial, "recipe.learning_rate")
    return trial


def queued_trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
