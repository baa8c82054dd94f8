"""A study that ranks by macro F1, from the training's log to every page, with simulated trainings."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import objective
from report import rows
from report.analysis.findings import gather
from report.analysis.mistakes import class_table, summarize
from report.analysis.verdict import judge
from report.dashboard.notes import study_note, trial_note
from report.figures import curves as figures
from report.figures.progress import progress
from report.html.leaderboard import section
from report.rows import epochs
from report.tables import accuracy_columns, leaderboard
from search.cli.progress import RunView
from search.cli.tables import print_leaderboard
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.finals.results import FinalsRecord, read_records, to_json
from search.finals.statistics import chance_gap, wilson
from search.networks.architecture import Architecture
from search.runner.events import DeviceReady, EpochDone
from search.study import run as studies
from search.study import study_file
from search.study.dataset import data_facts, majority_note
from search.study.run import Opened, sibling
from search.training.measures import MEASURES, effective_images, measure_all
from search.training.recipe import Recipe
from search.training.result import Epoch, Training
from tests.support.finals import FinalsBench
from tests.support.finals import Trainer as FinalsTrainer
from tests.support.finals import trainer as trainer
from tests.support.runs import Bench, Pretence, digits, small_run
from tests.support.runs import pretence as pretence

Matrix = Any


def matrix(common: int, rare: int) -> Matrix:
    """So many of 200 images of one class, and of 10 of each of nine others, are classified correctly."""
    confusion = np.diag([200, *[10] * 9])
    confusion[0, 0], confusion[0, 1] = common, 200 - common
    for label in range(1, 10):
        confusion[label, label], confusion[label, 0] = rare, 10 - rare
    return confusion


ACCURATE, FAIR = matrix(200, 5), matrix(176, 7)  # the first is more accurate, the second has the higher macro F1


@dataclass
class MeasuredTrainings:
    """Replaces `search.training.train.fit`; the confusion matrices of each epoch are those of the next play."""

    plays: list[tuple[Matrix, ...]] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)

    def fit(self, architecture: Architecture, data: Any, recipe: Recipe, **hooks: Any) -> Training:
        self.metrics.append(hooks["metric"])
        history, confusions = list[Epoch](), self.plays.pop(0)
        for number, confusion in enumerate(confusions, 1):
            values = {f"val_{name}": value for name, value in measure_all(confusion).items()}
            history.append(
                Epoch(epoch=number, loss=1.0, accuracy=0.5, val_loss=1.0, learning_rate=0.1, seconds=1.0, **values)
            )
            if hooks["on_epoch"](history[-1]):
                break
        best = max(history, key=lambda epoch: epoch.score(hooks["metric"]))
        weights = (np.zeros(1, np.float32),)
        return Training(tuple(history), best, weights, Pixels(), "float32", 0.0, 0.0, confusions[best.epoch - 1])


def test_the_two_networks_are_ranked_in_opposite_order() -> None:
    accuracy, macro_f1 = MEASURES["accuracy"].compute, MEASURES["macro_f1"].compute
    assert accuracy(ACCURATE) > accuracy(FAIR) and macro_f1(ACCURATE) < macro_f1(FAIR)


@pytest.fixture
def trainings(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> MeasuredTrainings:
    from search.training import train

    found = MeasuredTrainings()
    monkeypatch.setattr(train, "fit", found.fit)
    return found


@pytest.fixture
def ranked(tmp_path: Path, pretence: Pretence, trainings: MeasuredTrainings) -> Bench:
    """Trial 0 is the most accurate, trial 1 has the best macro F1, in its first epoch."""
    bench = Bench(small_run(tmp_path / "run", search={"metric": "macro_f1", "trials": 2}, base=0.5), pretence)
    trainings.plays += [(matrix(180, 3), ACCURATE), (FAIR, ACCURATE)]
    for _ in range(2):
        bench.one_trial()
    assert trainings.metrics == ["macro_f1"] * 2
    return bench


def test_a_trial_stores_the_measure_by_which_it_is_ranked_and_the_others(ranked: Bench) -> None:
    expected = MEASURES["macro_f1"].compute(FAIR)
    second = ranked.study.trials[1]
    assert ranked.study.best_trial.number == 1 and second.value == second.user_attrs["best_val_accuracy"] == expected
    assert second.user_attrs["final_val_accuracy"] == MEASURES["macro_f1"].compute(ACCURATE)
    assert second.user_attrs["measures"] == measure_all(FAIR)
    assert second.user_attrs["effective_images"] == effective_images("macro_f1", FAIR)
    assert second.user_attrs["delta_vs_base"] == expected - 0.5
    assert ranked.records[1].curve == (expected, MEASURES["macro_f1"].compute(ACCURATE))
    log = json.loads((ranked.run.folder / "trials/1/history.json").read_text())
    assert log[0]["val_accuracy"] == MEASURES["accuracy"].compute(FAIR) and log[0]["val_macro_f1"] == expected
    assert "raw_val_macro_f1" not in log[0], "no moving average in the recipe"


def test_a_study_of_accuracy_stores_what_it_always_did(tmp_path: Path, pretence: Pretence) -> None:
    bench = Bench(small_run(tmp_path / "run"), pretence)
    bench.one_trial()
    (trial,) = bench.study.trials
    assert not {"measures", "effective_images"} & trial.user_attrs.keys()
    assert "metric" not in bench.run.config.dump()["search"]
    log = json.loads((bench.run.folder / "trials/0/history.json").read_text())
    assert [*log[0]] == [
        *("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"),
        *("raw_val_loss", "raw_val_accuracy"),
    ]
    board = leaderboard(bench.run, bench.records, [])
    assert "metric" not in board and "measures" not in board["trials"][0]
    assert "other_test" not in FinalsRecord((), 1).to_dict()


def test_the_leaderboard_and_the_verdict_name_the_measure_and_tell_the_others(ranked: Bench) -> None:
    board = leaderboard(ranked.run, ranked.records, [], 180)
    first = board["trials"][0]
    assert (board["metric"], first["number"], first["measures"]) == ("macro_f1", 1, measure_all(FAIR))
    console = Console(file=io.StringIO(), width=160)
    print_leaderboard(console, board, ranked.run.config)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "best macro F1" in text and "accuracy" not in text
    low, high = wilson(first["best_val_accuracy"], first["effective_images"])
    assert f"{100 * low:.1f} to {100 * high:.1f}" in text
    verdict = judge(ranked.run, board, None, data_facts(digits()))
    assert "best validation macro F1" in verdict.measure and "validation macro F1" in verdict.sentence
    assert "Other measures of trial 1 in that epoch: accuracy 82.4%, balanced accuracy 71.8%." in verdict.remarks
    assert verdict.score is not None and verdict.score.interval == (low, high)
    assert verdict.noise == chance_gap(first["best_val_accuracy"], None, first["effective_images"])


def test_every_page_says_macro_f1(ranked: Bench) -> None:
    run, records = ranked.run, ranked.records
    opened = studies.load(run)
    assert "macro F1 (accuracy 82.4%, balanced accuracy 71.8%) in epoch 1 of 2" in studies.verdict(run, None)
    note = trial_note(None, ranked.study.trials[1].user_attrs, run.config.budget, 180, "macro_f1")
    assert "** validation macro F1 in epoch 1 of 2, accuracy 82.4%, balanced accuracy 71.8%" in note
    page = study_note(run, records, [], data_facts(digits()))
    assert "is the best validation macro F1 of one training" in page and "a macro F1 to beat" in page
    assert figures.learning_curves(run, records, []).layout.yaxis.title.text == "validation macro F1"
    assert progress(run, records, []).layout.yaxis.title.text == "best validation macro F1"
    assert figures.accuracy_by_cost(run, records, []).layout.title.text == "Macro F1 against parameters"
    assert {curve.name for curve in figures.rows.curves(run, records, [])} >= {"macro F1 to beat"}
    table = section(gather(run, opened)).body
    assert "best macro F1" in table and "Macro F1 is the mean over classes of F1" in table
    first, second = (row for row in rows.leaderboard(Opened(run, records, [])) if row["rank"])
    assert {name: first[name] for name in MEASURES} == measure_all(FAIR) and second["accuracy"] > first["accuracy"]
    assert [row["val_macro_f1"] for row in epochs(Opened(run, records, []))] == [
        value for record in records for value in record.curve
    ]


def test_the_live_line_says_macro_f1(ranked: Bench) -> None:
    done = [event for event in ranked.events if isinstance(event, EpochDone)]
    assert done[2].val_macro_f1 == MEASURES["macro_f1"].compute(FAIR)
    view = RunView(Console(file=io.StringIO(), width=160, force_terminal=False))
    view.show(DeviceReady("the CPU", "digits", "float", 180, "macro_f1"))
    for event in ranked.events:
        view.show(event)
    text = view.console.file.getvalue()  # type: ignore[attr-defined]
    assert f"best {MEASURES['macro_f1'].compute(FAIR):>6.1%} macro F1" in text
    assert view.best == (MEASURES["macro_f1"].compute(FAIR), 1)
    assert f"{MEASURES['macro_f1'].compute(FAIR):.1%} macro F1" in view._best()[0]


def test_rungs_and_stopping_rules_see_the_measure(tmp_path: Path, pretence: Pretence, trainings: MeasuredTrainings) -> None:
    search = {"metric": "macro_f1", "rungs": {"first": 1}, "sampler": "random", "trials": 9}
    recipe = {"epochs": 2, "schedule": {"kind": "cosine"}}
    changes: dict[str, Any] = {"search": search, "recipe": recipe, "stop": {"accuracy": 0.85}}
    bench = Bench(small_run(tmp_path / "run", **changes), pretence)
    trainings.plays += [(FAIR, FAIR), (ACCURATE, ACCURATE), (matrix(190, 8),) * 2]
    bench.train_candidates()
    outcomes = [record.outcome for record in bench.records]
    assert outcomes == ["trained", "pruned_at_rung", "trained"], "the second is more accurate than the first"
    assert f"{MEASURES['macro_f1'].compute(ACCURATE):.2%} after 1 of 2 epochs" in (bench.records[1].reason or "")


def test_with_directions_the_first_objective_is_the_measure(
    tmp_path: Path, pretence: Pretence, trainings: MeasuredTrainings
) -> None:
    directions = {"accuracy": "maximize", "params": "minimize"}
    bench = Bench(small_run(tmp_path / "run", search={"metric": "macro_f1", "directions": directions}), pretence)
    trainings.plays.append((FAIR, FAIR))
    trial = bench.one_trial()
    assert bench.study.metric_names == ["macro_f1", "params"]
    assert trial.values[0] == MEASURES["macro_f1"].compute(FAIR)


def test_int8_networks_are_ranked_by_the_measure_too(
    tmp_path: Path, pretence: Pretence, trainings: MeasuredTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "int8_confusion", lambda *arguments: ACCURATE)
    bench = Bench(small_run(tmp_path / "run", search={"metric": "macro_f1", "rank_by": "int8"}), pretence)
    trainings.plays.append((FAIR, FAIR))
    trial = bench.one_trial()
    assert trial.value == MEASURES["macro_f1"].compute(ACCURATE)
    assert trial.user_attrs["float_val_accuracy"] == MEASURES["macro_f1"].compute(FAIR)
    assert trial.user_attrs["measures"] == measure_all(ACCURATE)
    board = leaderboard(bench.run, bench.records, [], 180)
    assert accuracy_columns(board) == ("best macro F1 in int8", "best in float", "epoch", "last in float")


def test_another_measure_is_another_study(tmp_path: Path) -> None:
    plain, other = (small_run(tmp_path, search=search).config for search in ({}, {"metric": "balanced_accuracy"}))
    assert study_file.differences(plain, other) == ['search.metric is "accuracy" here, not "balanced_accuracy"']
    assert study_file.differences(other, plain) == ['search.metric is "balanced_accuracy" here, not "accuracy"']
    assert plain.digest != other.digest and other.measure == "validation balanced accuracy"
    with pytest.raises(UserError, match="metric"):
        small_run(tmp_path, search={"metric": "f1"})


def test_finals_compare_test_macro_f1_and_tell_the_others(
    tmp_path: Path, trainer: FinalsTrainer, trainings: MeasuredTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.training import train

    trainings.plays += [(matrix(190 - number, 5),) * 2 for number in range(40)]
    monkeypatch.setattr(train, "fit", trainings.fit)
    read = iter([FAIR, ACCURATE] * 10)
    monkeypatch.setattr(train, "confusion_of", lambda *arguments: next(read))
    bench = FinalsBench(tmp_path / "run", trainer, search={"metric": "macro_f1", "trials": 2}, base=0.5)
    bench.hold(1, 2)
    result = bench.found
    (finalist,) = result.finalists
    macro_f1 = MEASURES["macro_f1"].compute
    assert (result.measure, result.measure_label, result.is_test) == ("test_macro_f1", "test macro F1", True)
    assert finalist.test == (macro_f1(FAIR), macro_f1(ACCURATE))
    means = {name: (measure_all(FAIR)[name] + measure_all(ACCURATE)[name]) / 2 for name in MEASURES}
    assert finalist.measures == pytest.approx(means)
    assert "a mean test macro F1 of" in to_json(bench.run, result)["verdict"]
    assert f"(accuracy {means['accuracy']:.2%}, balanced accuracy" in to_json(bench.run, result)["verdict"]
    (record,) = read_records(sibling(bench.run, "finals"))
    assert record.other_test is not None and record.other_test[finalist.name][0] == measure_all(FAIR)


def test_a_winner_that_only_guesses_is_named_by_the_measure() -> None:
    facts = {"majority": {"class": "cat", "share": 0.8}, "classes": 4, "images": {"validation": 100}}
    assert majority_note(facts, 0.26, "balanced_accuracy") is None
    note = majority_note(facts, 0.25, "balanced_accuracy")
    assert note == "The best candidate is no better than always guessing 'cat', with a balanced accuracy of 25.0%."
    assert majority_note(facts, 0.8) is not None and majority_note(facts, 0.81) is None


def test_recall_of_each_class_the_lowest_first() -> None:
    data = digits()
    scores = np.eye(10, dtype=np.float32)[np.where(data.y_val == 3, 8, data.y_val)]
    predictions = summarize(scores, data)
    table = class_table(predictions)
    assert table.columns == ("class", "images", "recall", "95 % interval", "precision", "F1")
    threes, eights = ((data.y_val == label).sum() for label in (3, 8))
    assert table.rows[0][:3] == ("3", str(threes), "0.0%") and table.rows[0][4:] == ("", "0.0%")
    by_name = {row[0]: row for row in table.rows}
    assert by_name["8"][2] == "100.0%" and by_name["8"][4] == f"{eights / (threes + eights):.1%}"
    assert predictions.measures == measure_all(predictions.confusion)
