"""open_study and report.rows: what a person in a notebook gets of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from report import rows
from report.figures import curves as figures
from report.tables import leaderboard
from search.budget.cost import compute_cost
from search.errors import UserError
from search.files import read_json
from search.study import run as studies
from search.study.run import Opened, Run, create, network_of, open_study
from search.study.study_file import parse
from tests.finals.test_results import BESTS, TESTS, Kept
from tests.support.runs import digits, finished, small_run, study_file

__all__ = ["finished"]


@pytest.fixture(scope="module")
def opened(finished: Run) -> Opened:
    return open_study(str(study_file(finished)))


def is_a_table(found: list[rows.Row]) -> bool:
    """True if rows have equal keys and scalar cells, as a DataFrame needs."""
    plain = all(isinstance(cell, str | int | float | bool | None) for row in found for cell in row.values())
    return plain and len({tuple(row) for row in found}) == 1


def test_everything_is_a_table(opened: Opened) -> None:
    for read in (rows.leaderboard, rows.trials, rows.epochs, rows.layers):
        assert is_a_table(read(opened)), read.__name__
    assert rows.finals(opened) == []


def test_the_leaderboard_is_that_of_top(opened: Opened) -> None:
    board, found = leaderboard(*opened), rows.leaderboard(opened)
    base, *ranked = found
    assert base["name"] == "base"
    assert (base["rank"], base["delta_vs_base"], base["outcome"]) == (None, 0, "trained")
    assert base["epochs"] == 4
    assert {key: base[key] for key in board["base"]} == board["base"]
    assert [{key: row[key] for key in board["trials"][0]} for row in ranked] == board["trials"]


def test_every_trial_is_there_with_what_was_searched(opened: Opened) -> None:
    found = {row["number"]: row for row in rows.trials(opened)}
    assert sorted(found) == [one.number for one in opened.candidates]
    assert {row["outcome"] for row in found.values()} == {"trained", "rejected"}
    for number, row in found.items():
        searched = opened.run.config.parameters
        assert row.keys() > searched.keys()
        assert row["blocks"] in (2, 3, 4)
        assert (row["rank"] is None) == (row["outcome"] == "rejected") == (row["delta_vs_base"] is None)
        assert row["params"] == compute_cost(network_of(opened.run, number)).params
        assert (row["reason"] is None) == (row["outcome"] == "trained")


def test_the_epochs_are_those_of_the_logs(opened: Opened) -> None:
    found = rows.epochs(opened)
    trained = ["base", *(one.number for one in opened.candidates if one.outcome == "trained")]
    assert list(dict.fromkeys(row["trial"] for row in found)) == trained
    log = read_json(opened.run.folder / "references" / "base" / "history.json")
    assert [row for row in found if row["trial"] == "base"] == [{"trial": "base"} | epoch for epoch in log]
    for one in opened.candidates:
        assert tuple(row["val_accuracy"] for row in found if row["trial"] == one.number) == one.curve


def test_the_layers_are_those_of_the_best_or_of_a_trial(opened: Opened) -> None:
    best = leaderboard(*opened)["trials"][0]
    assert sum(row["params"] for row in rows.layers(opened)) == best["params"]
    other = next(one for one in opened.candidates if one.number != best["number"])
    assert sum(row["params"] for row in rows.layers(opened, other.number)) == other.params
    assert rows.layers(opened)[-1] == {
        "name": "softmax_1", "kind": "softmax", "options": "", "output": "10", "receptive_field": None, "params": 0,
        "macs": 0,
    }  # fmt: skip
    with pytest.raises(UserError, match="no trial of this number"):
        rows.layers(opened, 99)


def test_an_opened_study_is_what_figures_take(opened: Opened) -> None:
    assert len(figures.learning_curves(*opened).data) >= 3
    for cost in ("params", "macs"):
        assert json.loads(figures.accuracy_by_cost(*opened, cost).to_json())["data"]


def test_finals_are_a_row_for_each_finalist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = optuna.storages.InMemoryStorage()
    monkeypatch.setattr(studies, "open_storage", lambda url, **rest: memory)
    kept = Kept(tmp_path)
    kept.train(BESTS)
    kept.hold(list(BESTS), 3, test_read="today", test=TESTS)
    found = rows.finals(Opened(kept.run, [], []))
    assert is_a_table(found)
    assert [row["name"] for row in found] == [one.name for one in kept.found.finalists]
    for row, one in zip(found, kept.found.finalists, strict=True):
        assert (row["measure"], row["seeds"]) == ("test_accuracy", 3)
        assert (row["mean"], row["spread"], (row["low"], row["high"])) == (one.mean, one.spread, one.interval)
        against = one.against_base
        assert row["against_base"] == (against and against.difference)
        told = (row["against_base_low"], row["against_base_high"], row["against_base_is_tie"])
        assert told == ((against.low, against.high, against.is_tie) if against else (None, None, None))
        assert row["winners_curse"] == one.winners_curse
    assert sum(row["against_leader"] is None for row in found) == 2, "the leader and the base"


def test_a_study_is_opened_by_folder_and_storage_as_on_the_command_line(finished: Run, tmp_path: Path) -> None:
    file = str(study_file(finished))
    assert open_study(file, str(finished.folder), finished.storage_url).candidates == open_study(file).candidates
    with pytest.raises(UserError, match="nothing has run in"):
        open_study(file, tmp_path)


def test_a_study_without_a_trial_or_a_base_has_empty_tables(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    create(run, digits())
    opened = Opened(run, [], [])
    assert [row["name"] for row in rows.leaderboard(opened)] == ["accuracy to beat"]
    assert rows.trials(opened) == rows.epochs(opened) == rows.finals(opened) == []
    untrained: Any = run.config.model_dump() | {"base": "base"}
    assert rows.leaderboard(Opened(replace(run, config=parse(untrained, "test")), [], [])) == []
    assert optuna.get_all_study_names(run.storage_url)
