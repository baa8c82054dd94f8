"""In a study ranked by int8 accuracy every number says which accuracy it is, and float is never compared with int8."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import objective
from report.markdown.summary import base_table, leaderboard_table, stopped_table
from report.pareto import front_board, front_table
from report.pareto_export import export_front
from report.tables import leaderboard
from search.cli.tables import print_leaderboard
from search.export.exporter import Exported, export
from search.runner.events import TrialEnded
from search.study.run import Opened
from search.study.trained import Trained
from tests.support.runs import Bench, Pretence, small_run
from tests.support.runs import pretence as pretence

INT8 = 0.24


@pytest.fixture
def ranked(tmp_path: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A trained candidate of 26 % in float and 24 % in int8, and one that is pruned at 21 %."""
    confusion = np.array([[INT8, 1 - INT8], [0, 0]])
    monkeypatch.setattr(objective, "int8_confusion", lambda *arguments: confusion)
    search = {"rank_by": "int8", "rungs": {"first": 1}, "trials": 2}
    recipe = {"epochs": 2, "schedule": {"kind": "cosine"}}
    bench = Bench(small_run(tmp_path / "run", search=search, base=0.10, recipe=recipe), pretence)
    bench.plays += [(0.26, 0.25), (0.21, 0.2)]
    monkeypatch.setattr("search.tuning.pruner.RungPruner.prune", lambda pruner, study, trial: trial.number == 1)
    for _ in range(2):
        bench.one_trial()
    return bench


def test_a_trial_stores_and_shows_one_kind_of_accuracy(ranked: Bench) -> None:
    trained, pruned = ranked.records
    assert (trained.outcome, pruned.outcome) == ("trained", "pruned_at_rung")
    assert (trained.best_val_accuracy, trained.float_val_accuracy) == (INT8, 0.26)
    first, second = ranked.study.trials
    assert first.user_attrs["delta_vs_base"] == pytest.approx(INT8 - 0.5)
    assert "delta_vs_base" not in second.user_attrs, "a float accuracy is not compared with the base's int8 accuracy"
    first_end, second_end = [event for event in ranked.events if isinstance(event, TrialEnded)]
    assert (first_end.best_val_accuracy, first_end.float_val_accuracy) == (INT8, 0.26)
    assert second_end.float_val_accuracy is None


def test_tables_say_which_accuracy_it_is(ranked: Bench) -> None:
    board = leaderboard(ranked.run, ranked.records, [])
    trained, pruned = board["trials"]
    assert (trained["best_val_accuracy"], trained["float_val_accuracy"], trained["final_val_accuracy"]) == (INT8, 0.26, 0.25)
    assert (pruned["best_val_accuracy"], pruned["float_val_accuracy"], pruned["delta_vs_base"]) == (None, 0.21, None)
    console = Console(file=io.StringIO(), width=160)
    print_leaderboard(console, board, ranked.run.config)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    heads = ("best in int8", "best in float", "epoch", "last in float")
    assert [word for word in heads if word in shown] == list(heads)
    assert "24.00%" in shown and "26.00%" in shown and "computed as TensorFlow Lite Micro does" in shown
    table = leaderboard_table(board)
    columns = ("best in int8", "best in float", "epoch", "last epoch in float")
    assert table.columns[3:7] == base_table(ranked.run.config, board).columns[2:6] == columns
    assert table.rows[1][3:7] == ("24.00%", "26.00%", "1", "25.00%")
    assert stopped_table(board).rows == [("1", f"{pruned['params']:,}", "1", "21.00%", "pruned at rung")]


def test_the_front_and_its_index_keep_the_float_accuracy(ranked: Bench, tmp_path: Path) -> None:
    front = front_board(Opened(ranked.run, ranked.records, []), ["params"])
    assert front_table(front).columns[3:7] == ("best in int8", "best in float", "epoch", "last in float")

    def card(trained: Trained, folder: Path) -> Exported:
        parts = {"weights": trained.weights, "facts": trained.facts, "pixels": trained.pixels, "recipe": trained.recipe}
        return export(trained.architecture, folder, formats=("json",), **parts)  # type: ignore[arg-type]

    export_front(ranked.run, ["params"], tmp_path / "to", card)
    (row,) = json.loads((tmp_path / "to" / "front.json").read_text())["trials"]
    assert (row["ranked_by"], row["best_val_accuracy"], row["float_val_accuracy"]) == ("int8", INT8, 0.26)
    text = (tmp_path / "to" / "front.md").read_text()
    assert "| accuracy | accuracy in int8 |" in text and "| 26.0% | 24.0% |" in text


def test_a_float_study_is_reported_as_before(tmp_path: Path, pretence: Pretence) -> None:
    bench = Bench(small_run(tmp_path / "run"), pretence)
    bench.one_trial()
    board = leaderboard(bench.run, bench.records, [])
    assert "ranked_by" not in board and "float_val_accuracy" not in board["trials"][0]
    assert leaderboard_table(board).columns[3:6] == ("best", "epoch", "last epoch")
