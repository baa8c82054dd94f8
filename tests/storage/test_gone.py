"""A study, its database or its folder that disappears during a run: noticed by the next call, and nothing is recreated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from search.storage import locks
from search.storage.attributes import watch
from search.storage.database import open_storage, storage_of
from search.storage.failures import StudyGone
from search.storage.queue import begin
from search.storage.recovery import recover
from search.storage.urls import sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "run") if request.param == "sqlite" else request.getfixturevalue("postgres").new_storage()


def open_study(url: str) -> optuna.Study:
    return optuna.create_study(storage=open_storage(url, patience=60, grace_seconds=60), study_name="s", load_if_exists=True)


def begun(study: optuna.Study) -> optuna.Trial:
    trial = begin(study, "w")
    assert trial is not None
    return trial


def delete(url: str) -> None:
    optuna.delete_study(study_name="s", storage=open_storage(url))


def rename(url: str) -> None:
    with open_storage(url).engine.begin() as connection:
        connection.execute(text("UPDATE studies SET study_name = 't'"))


def replace(url: str) -> None:
    """As a person does who deletes it and starts anew: SQLite even gives it the same id."""
    delete(url)
    watch(open_study(url))


CALLS: dict[str, Callable[[optuna.Study, optuna.Trial], Any]] = {
    "begin": lambda study, trial: begin(study, "v"),
    "recover": lambda study, trial: recover(study, Path("/nowhere")) or begin(study, "v"),
    "epoch": lambda study, trial: trial.report(0.5, 1),
    "attribute": lambda study, trial: trial.set_user_attr("a", 1),
    "tell": lambda study, trial: study.tell(trial, 0.5),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_study_that_was_deleted_stops_a_run_at_its_next_call(call: str, url: str) -> None:
    study = open_study(url)
    watch(study)
    trial = begun(study)
    delete(url)
    with pytest.raises(StudyGone, match="study 's' was deleted from the database"):
        CALLS[call](study, trial)
    assert optuna.get_all_study_names(open_storage(url)) == []


@pytest.mark.parametrize("change", [rename, replace])
def test_a_study_that_was_replaced_or_renamed_gets_no_more_trials(change: Callable[[str], None], url: str) -> None:
    study = open_study(url)
    watch(study)
    study.tell(begun(study), state=TrialState.FAIL)
    change(url)
    with pytest.raises(StudyGone, match="study 's'"):
        begin(study, "w")


def test_two_processes_watch_the_same_study(url: str) -> None:
    studies = [open_study(url), open_study(url)]
    for study in studies:
        watch(study)
    for worker, study in zip("ab", studies, strict=True):
        assert begin(study, worker) is not None


def test_a_study_that_is_not_watched_is_missing_as_optuna_says(url: str) -> None:
    study = open_study(url)
    delete(url)
    with pytest.raises(KeyError):
        begin(study, "w")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_file_that_was_deleted_or_replaced_is_noticed(replaced: bool, tmp_path: Path) -> None:
    study, trial = (opened := open_study(sqlite_url(tmp_path))), begun(opened)
    path = tmp_path / "study.db"
    path.rename(tmp_path / "moved.db")
    if replaced:
        shutil.copy(tmp_path / "moved.db", path)
    expected = "another file has replaced the database" if replaced else "the database was deleted or renamed"
    for call in CALLS.values():
        with pytest.raises(StudyGone, match=expected):
            call(study, trial)
    assert path.exists() == replaced, "a new database was made in silence"


def test_a_run_folder_that_was_deleted_renamed_or_replaced_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locks.supervisor_lock(folder) as name, locks.worker_lock(folder, name) as (worker, _):
        (folder / "config.json").touch()
        locks.check_folder(folder, worker)
        folder.rename(tmp_path / "moved")
        for _ in ("gone", "replaced by another run"):
            with pytest.raises(StudyGone, match="the run folder was deleted, renamed or replaced"):
                locks.check_folder(folder, worker)
            folder.mkdir(exist_ok=True)
            (folder / "config.json").touch()
        shutil.rmtree(folder)
        (tmp_path / "moved").rename(folder)
        locks.check_folder(folder, worker)


def test_a_storage_checks_the_folder_before_each_call(tmp_path: Path) -> None:
    study = open_study(sqlite_url(tmp_path))
    storage_of(study).guards.append(partial(locks.check_folder, tmp_path, "w"))
    with pytest.raises(StudyGone, match=r"config\.json is missing"):
        begin(study, "w")
