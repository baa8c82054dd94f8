"""Runs for tests: a small finished one on digits, shared by all tests that read one, and some with simulated trainings.

The finished run has its base, two trained candidates and a rejected one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

import objective
from objective import Context, Objective
from search.data.dataset import Dataset, load_dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.networks.layers import Dense, GlobalAveragePool, SeparableConv, Softmax
from search.runner import trial
from search.runner.events import Done, Event, Recycle, decode_event, encode_event
from search.runner.loop import SearchLoop
from search.runner.reporter import NullPublisher, Reporter
from search.runner.trial import run_candidate
from search.storage.claims import claims_of
from search.storage.urls import sqlite_url
from search.study import records as study_records
from search.study import run as studies
from search.study.records import Record
from search.study.run import Run, Studies
from search.study.study_file import parse
from search.training.recipe import Recipe
from search.tuning import stopping as limits
from search.tuning.stopping import Limits
from tests.support import commands
from tests.support.sharing import shared

ROOT = Path(__file__).parents[2]
STUDY = f"""
protocol = "holdout"
base = "{ROOT}/studies/quickstart/base.json"
data = {{ name = "digits" }}
budget = {{ params = 8_000 }}

[space]
kind = "pyramid"
blocks = {{ low = 2, high = 4 }}
width = {{ low = 16, high = 96, step = 8 }}
kernel = [3, 5]
dropout = {{ low = 0.05, high = 0.2, step = 0.05 }}
order = ["conv-bn-act", "conv-dropout-bn-act"]
pools = {{ low = 1, high = 2 }}

[recipe]
epochs = 4
batch_size = 32
learning_rate = 0.004
"""


def search(*words: str) -> str:
    """Output of a command, which must succeed; one that trains gets a process of its own."""
    if words[0] in ("top", "show", "export", "report"):
        ended = commands.search(*words)
        assert ended.status == 0, ended.err
        return ended.out
    done = subprocess.run(
        [sys.executable, "-m", "search", *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its two candidates, for reading only; `copied` gives one that may be changed."""
    return studies.find(str(shared(tmp_path_factory, "finished", _finished) / "tiny.toml"), None, None)


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Run:
    """The finished run in a folder of its own."""
    shutil.copytree(finished.folder.parent, tmp_path / "copied")
    return studies.find(str(tmp_path / "copied" / "tiny.toml"), None, None)


def study_file(run: Run) -> Path:
    """The study file of one of these runs."""
    return run.folder.parent / "tiny.toml"


def _finished(folder: Path) -> None:
    file = folder / "tiny.toml"
    file.write_text(STUDY)
    search("run", str(file), "--trials", "1")
    study = studies.load(studies.find(str(file), None, None)).candidates
    ranges = study.get_trials(deepcopy=False)[0].distributions.items()
    study.enqueue_trial({name: getattr(one, "high", None) or one.choices[-1] for name, one in ranges})  # over the budget
    search("run", str(file), "--trials", "2")


# --- simulated trainings ---------------------------------------------------------------------------------------------

SMALL = Architecture((8, 8, 1), 10, (SeparableConv(8), GlobalAveragePool(), Dense(10), Softmax()), "small")


@cache
def digits() -> Dataset:
    """A hundred images."""
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=100)


def small_run(folder: Path, **changes: Any) -> Run:
    """A run on digits before its start: small networks under 1,200 parameters, two epochs each."""
    raw = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 1200}, "recipe": {"epochs": 2}} | changes
    raw.setdefault("space", {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 48, "step": 8}, "pools": 1})
    return Run("tiny", folder, parse(raw, "test"), sqlite_url(folder))


class Pretence:
    """Replaces trainings and the clock."""

    def __init__(self) -> None:
        self.plays: list[float | Sequence[float] | Callable[[], float | Sequence[float]]] = []  # accuracies, one for each
        self.seconds = 0.0  # on the clock
        self.seconds_an_epoch = 1.0

    def fit(self, architecture: Architecture, data: Dataset, recipe: Recipe, **hooks: Any) -> Any:
        """Replace `search.training.train.fit`; the accuracies are those of the next play, or 0.5."""
        from search.training.train import Epoch, Training

        play = self.plays.pop(0) if self.plays else 0.5
        accuracies = play() if callable(play) else play
        history: list[Epoch] = []
        for number in range(1, recipe.epochs + 1):
            self.seconds += self.seconds_an_epoch
            hooks["on_step"](number, recipe.epochs)
            value = accuracies if isinstance(accuracies, float) else accuracies[number - 1]
            history.append(Epoch(number, 1.0, value, 1.0, value, 0.1, self.seconds_an_epoch))
            if hooks["on_epoch"](history[-1]):
                break
        best = max(history, key=lambda epoch: epoch.val_accuracy)
        return Training(tuple(history), best, (np.zeros(1, np.float32),), Pixels(), "float32", 0.0, 0.0)


class Bench:
    """A run with simulated trainings, in this process."""

    def __init__(self, run: Run, pretence: Pretence, seconds_left: float | None = None) -> None:
        self.run, self.pretence, self.plays = run, pretence, pretence.plays
        self.studies: Studies = studies.create(run, digits())
        self.events: list[Event] = []
        self.reporter = Reporter(self._receive)
        self.objective = Objective(
            Context(run.config, digits(), run.folder, base_accuracy=0.5),
            claims_of(self.studies.candidates),
            Limits(run.config.stop, seconds_left, run.config.cost_metrics),
            self.reporter,
        )

    def _receive(self, event: Event) -> None:
        self.events.append(decode_event(encode_event(event)))  # as it reaches a supervisor

    @property
    def study(self) -> optuna.Study:
        """The Optuna study of the candidates."""
        return self.studies.candidates

    def one_trial(self) -> FrozenTrial:
        """Run the next candidate, a queued one first."""
        begun = {trial.number for trial in self.study.trials if trial.state != optuna.trial.TrialState.WAITING}
        run_candidate(self.study, self.objective)
        (new,) = [trial for trial in self.study.trials if trial.state.is_finished() and trial.number not in begun]
        return new

    def train_candidates(self) -> Done | Recycle:
        """Train what the worker of this run would train; how it ends."""
        return SearchLoop(self.run, self.studies, self.objective, self.reporter, NullPublisher()).train_candidates()

    @property
    def records(self) -> list[Record]:
        """Records of the candidates."""
        return study_records.records(self.study)


@pytest.fixture
def pretence(monkeypatch: pytest.MonkeyPatch) -> Pretence:
    """Simulated trainings, and the clock that limits are checked by."""
    return pretend(monkeypatch)


def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretence:
    """The fixture `pretence` for fixtures of a wider scope."""
    from search.training import train

    found = Pretence()
    clock = SimpleNamespace(monotonic=lambda: found.seconds)
    monkeypatch.setattr(train, "fit", found.fit)
    monkeypatch.setattr(objective, "time", clock)
    monkeypatch.setattr(limits, "time", clock)
    monkeypatch.setattr(trial, "gc", SimpleNamespace(collect=lambda: 0))  # a quarter of a second, and nothing was trained
    return found


@pytest.fixture
def bench(tmp_path: Path, pretence: Pretence) -> Bench:
    """A small run with simulated trainings."""
    return Bench(small_run(tmp_path / "run"), pretence)
