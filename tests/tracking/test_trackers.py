"""Trackers receive what trials report; one that fails is dropped and touches nothing else."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from objective import NullObserver, Observer
from search.errors import UserError
from search.storage import attributes as names
from search.study.study_file import parse
from search.study.tables import LogConfig
from search.tracking.trackers import Observers, TrackerObserver, trial_name, with_trackers
from search.training.result import Epoch, Outcome
from search.tuning.checks import check_before_loading
from tests.support.study_files import plain_study

REQUIRED = "CI_REQUIRE_SERVERS" in os.environ


def needs(package: str) -> Any:
    missing = importlib.util.find_spec(package) is None and not REQUIRED
    return pytest.mark.skipif(missing, reason=f"{package} is not installed (make {package})")


def epoch(number: int, accuracy: float) -> Epoch:
    return Epoch(epoch=number, loss=1.5, accuracy=0.4, val_loss=1.25, val_accuracy=accuracy, learning_rate=0.01, seconds=2.0)


def follow(observer: Observer, *accuracies: float, outcome: Outcome = Outcome.TRAINED) -> optuna.Trial:
    """A trial of one parameter that reports these accuracies."""
    trial = optuna.create_study().ask()
    trial.suggest_int("width", 4, 4)
    for name, value in {"params": 123, names.SEED: 7}.items():
        trial.set_user_attr(name, value)
    observer.trial_started(trial)
    for number, accuracy in enumerate(accuracies, start=1):
        observer.step_done(trial, number, len(accuracies))
        observer.epoch_done(trial, epoch(number, accuracy), len(accuracies))
    trial.set_user_attr(names.BEST_VAL_ACCURACY, max(accuracies))
    trial.set_user_attr(names.OUTCOME, outcome)
    observer.trial_ended(trial, None)
    return trial


class Notebook:
    """A tracker in memory; `fails` names the call that raises."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, list[Any]()

    def _note(self, call: str, *values: Any) -> None:
        self.calls.append((call, *values))
        if call == self.fails:
            raise OSError("disk\nfull")

    def begin(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._note("begin", name, dict(parameters))

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        self._note("epoch", step, values["val_accuracy"])

    def end(self, outcome: str, scores: Mapping[str, float]) -> None:
        self._note("end", outcome, dict(scores))


def test_a_tracker_receives_parameters_epochs_and_scores() -> None:
    tracker = Notebook()
    follow(TrackerObserver("notebook", lambda: tracker), 0.5, 0.75)
    assert tracker.calls == [
        ("begin", "trial-0", {"width": 4, "params": 123, "seed": 7}),
        ("epoch", 1, 0.5),
        ("epoch", 2, 0.75),
        ("end", "trained", {"best_val_accuracy": 0.75}),
    ]


@pytest.mark.parametrize("call", ["open", "begin", "epoch", "end"])
def test_a_tracker_that_fails_is_dropped_and_the_others_continue(call: str, capsys: pytest.CaptureFixture[str]) -> None:
    broken, working = Notebook(call), Notebook()

    def open_broken() -> Notebook:
        broken._note("open")
        return broken

    observer = Observers([TrackerObserver("broken", open_broken), TrackerObserver("working", lambda: working)])
    follow(observer, 0.5)
    follow(observer, 0.5)
    assert [name for name, *_ in broken.calls].count(call) == 1 and broken.calls[-1][0] == call
    assert [name for name, *_ in working.calls] == ["begin", "epoch", "end"] * 2
    assert capsys.readouterr().err == "broken: no more trials are written (OSError: disk full); trainings continue\n"


def test_a_rejected_proposal_is_not_tracked() -> None:
    tracker = Notebook()
    observer = TrackerObserver("notebook", lambda: tracker)
    follow(observer, 0.5)
    trial = optuna.create_study().ask()
    trial.set_user_attr(names.OUTCOME, Outcome.REJECTED)
    observer.trial_ended(trial, None)
    assert [name for name, *_ in tracker.calls] == ["begin", "epoch", "end"]


def test_trials_are_named_as_elsewhere() -> None:
    trial = optuna.create_study().ask()
    assert trial_name(trial) == "trial-0"
    trial.set_user_attr(names.REFERENCE, "eip-b")
    assert trial_name(trial) == "eip-b"
    trial.set_user_attr(names.CONTENDER, "trial-3")
    trial.set_user_attr(names.REPEAT, 2)
    assert trial_name(trial) == "finals-trial-3-2"


def test_without_trackers_the_observer_stays_as_it_is(tmp_path: Path) -> None:
    observer = NullObserver()
    assert with_trackers(observer, LogConfig(), "study", tmp_path) is observer


def test_a_tracker_that_is_not_installed_is_rejected_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"log.to: mlflow is not installed; make mlflow adds it"):
        check_before_loading(parse(plain_study(log={"to": ["mlflow"]}), "study"))


@needs("tensorboard")
def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    follow(with_trackers(NullObserver(), LogConfig(to=("tensorboard",)), "study", tmp_path), 0.5, 0.75)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "trial-0"))
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("val_accuracy")] == [(1, 0.5), (2, 0.75)]
    assert [point.value for point in events.Scalars("hparam/best_val_accuracy")] == [0.75]
    assert "_hparams_/session_start_info" in events.summary_metadata


@needs("mlflow")
@pytest.mark.filterwarnings("ignore::Warning")  # MLflow's own
def test_mlflow_reads_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log = LogConfig(to=("mlflow",))
    follow(with_trackers(NullObserver(), log, "flowers", tmp_path), 0.5, 0.75)
    follow(with_trackers(NullObserver(), log, "flowers", tmp_path), 0.25, outcome=Outcome.DIVERGED)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("flowers")
    first, second = client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
    assert (first.info.status, second.info.status) == ("FINISHED", "FAILED")
    assert first.data.params == {"width": "4", "params": "123", "seed": "7"}
    assert first.data.metrics["best_val_accuracy"] == 0.75 and first.data.tags["outcome"] == "trained"
    history = client.get_metric_history(first.info.run_id, "val_accuracy")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.75)]
