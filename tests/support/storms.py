"""Studies in worker processes of their own whose trainings are NumPy's (`tests.support.numpy_worker`), to be disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.files import read_arrays
from search.storage.urls import sqlite_url
from search.study.records import COUNTED
from search.study.run import Run, every
from search.study.study_file import parse
from tests.fault_table import record, results
from tests.support.forking import NAME

ROOT = Path(__file__).parents[2]
SECONDS = 120  # that a step may take on a machine that has other work


def write_images(folder: Path) -> Path:
    """Four classes of images (400 for training), on which regression improves a little with each epoch."""
    chance = np.random.default_rng(0)
    labels = np.arange(440) % 4
    centres = chance.integers(60, 190, (4, 8, 8, 1))
    images = np.clip(centres[labels] + chance.normal(0, 220, (440, 8, 8, 1)), 0, 255).astype(np.uint8)
    path = folder / "images.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:40], y_test=labels[:40])
    return path


def write_base(folder: Path) -> str:
    """The path of a base to beat, for these pictures."""
    layers = [{"kind": "flatten"}, {"kind": "dense", "units": 4}, {"kind": "softmax"}]
    (folder / "base.json").write_text(json.dumps({"input": [8, 8, 1], "classes": 4, "layers": layers}))
    return str(folder / "base.json")


class Storm:
    """A study with NumPy trainings in a folder, and the faults that its workers meet."""

    def __init__(self, folder: Path, *faults: dict[str, Any], storage_url: str | None = None, **changes: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        search = {"trials": 4, "sampler": "random", **changes.pop("search", {})}
        raw = {
            "base": 0.5,
            "data": {"path": str(write_images(folder))},
            "budget": {"params": 1200},
            "space": {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 48, "step": 8}, "pools": 1},
            "recipe": {"epochs": 4},
            "search": search,
        } | changes
        (folder / "tiny.toml").write_text(_toml(raw), encoding="utf-8")
        self.run = Run("tiny", folder / "run", parse(raw, "test"), storage_url or sqlite_url(folder / "run"))
        self.environment = {"SEARCH_WORKER": "tests.support.numpy_worker", "FAULTS_FOLDER": str(folder)}
        self.environment["FAULTS"] = json.dumps(faults)
        self.faults = faults
        self.met = Counter[int]()  # what tests do to it themselves, by the row of the table of faults

    def begin(
        self, *words: str, out: Path | None = None, process: Mapping[str, Any] = MappingProxyType({}), **environment: str
    ) -> subprocess.Popen[str]:
        """Start `python -m search run`.

        Args:
            process: options of `subprocess.Popen` that differ from the usual ones.
        """
        command = [
            sys.executable,
            "-m",
            "search",
            "run",
            str(self.folder / "tiny.toml"),
            "--out",
            str(out or self.run.folder),
        ]
        if not self.run.storage_url.startswith("sqlite"):
            environment["SEARCH_STORAGE"] = self.run.storage_url
        options: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        options |= {"start_new_session": True, **process}
        return subprocess.Popen([*command, *words], cwd=ROOT, env=os.environ | self.environment | environment, **options)

    def start(self, *words: str, status: int = 0, **environment: str) -> tuple[str, str]:
        """`python -m search run`, to its end: what it prints on standard output and on standard error."""
        return finish(self.begin(*words, **environment), status)

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study of the candidates, once it exists."""
        return every(self.run)[0]

    @property
    def trials(self) -> list[FrozenTrial]:
        """The candidates."""
        return self.study.get_trials()

    @property
    def log(self) -> str:
        """The workers' log."""
        return (self.run.folder / "worker.log").read_text()

    def wait_for(self, what: Callable[[list[FrozenTrial]], Any], *, seconds: float = SECONDS) -> None:
        """Until it holds of the candidates."""
        deadline = time.monotonic() + seconds
        while not ((self.run.folder / "config.json").exists() and what(self.trials)):
            assert time.monotonic() < deadline, [(one.number, one.state, one.user_attrs) for one in self.trials]
            time.sleep(0.1)

    def go(self) -> None:
        """Let workers go on that wait by a fault."""
        (self.folder / "go").touch()

    @property
    def happened(self) -> Counter[int]:
        """Number of faults that have happened, by the row of the table of faults."""
        return self.met + Counter(
            fault["row"]
            for number, fault in enumerate(self.faults)
            for _ in self.folder.glob(f"fault-{number}-*")
            if "row" in fault
        )

    def check(self, trained: int, known: Mapping[int, FrozenTrial] | None = None) -> None:
        """Check the invariants after any fault: so many trials counted, each network once, none lost, none in progress.

        Args:
            known: trials that had come to their verdicts before, by number.
        """
        trials = self.trials
        record(self.happened, results(trials, trained, known))
        counted = [one for one in trials if one.user_attrs.get("outcome") in COUNTED]
        assert len(counted) == trained, Counter(one.user_attrs.get("outcome") for one in trials)
        assert all(one.state in (TrialState.COMPLETE, TrialState.PRUNED) for one in counted)
        assert all(one.state not in (TrialState.RUNNING, TrialState.WAITING) for one in trials)
        assert len({one.user_attrs["key"] for one in counted}) == trained
        assert len({one.user_attrs["index"] for one in counted}) == trained
        retried = [one.user_attrs["retry_of"] for one in trials if "retry_of" in one.user_attrs]
        assert len(retried) == len(set(retried))
        for one in counted:
            history = json.loads((self.run.folder / "trials" / str(one.number) / "history.json").read_text())
            assert [row["val_accuracy"] for row in history] == [
                one.intermediate_values[step] for step in range(1, len(history) + 1)
            ]
            assert one.state == TrialState.PRUNED or one.values[0] == max(one.intermediate_values.values())

    def scores(self) -> list[tuple[Any, ...]]:
        """The leaderboard."""
        names = ("index", "key", "params", "seed", "best_val_accuracy", "final_val_accuracy", "best_epoch")
        counted = [one for one in self.trials if one.user_attrs.get("outcome") in COUNTED]
        return sorted(tuple(one.user_attrs[name] for name in names) for one in counted)


def finish(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    """Wait for the end of a run: what it printed on standard output and on standard error."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == status, (process.returncode, out, err)
    return out, err


def outcomes(trials: list[FrozenTrial]) -> list[str]:
    """Outcome of each trial."""
    return [one.user_attrs.get("outcome", one.state.name) for one in trials]


def children(process: int) -> list[int]:
    """The processes that it has started, its fork server apart."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found if Path(f"/proc/{child}/comm").read_text().strip() != NAME]


def _toml(raw: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {_value(value)}" for key, value in raw.items()) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


def rows_of_checkpoints(storm: Storm) -> dict[int, list[dict[str, Any]]]:
    """The logs of the checkpoints that are there, by the index of their trials."""
    paths = storm.run.folder.glob("checkpoints/candidate-*.npz")
    return {
        int(path.stem.removeprefix("candidate-")): json.loads(read_arrays(path)["about"].tobytes())["history"]
        for path in paths
    }


def history_of(storm: Storm, trial: FrozenTrial) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((storm.run.folder / "trials" / str(trial.number) / "history.json").read_text())
    return rows


def last_of(trials: list[FrozenTrial], index: int) -> FrozenTrial:
    return [trial for trial in trials if trial.user_attrs["index"] == index][-1]
