"""Studies in processes of their own, as a user runs them: `python -m search run STUDY` on digits.

Trainings are real, or those of `tests.support.numpy_worker` where a worker starts without TensorFlow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from optuna.trial import FrozenTrial

from search.networks.architecture import to_dict
from search.study import run as studies
from search.study.run import Run, load
from search.study.study_file import parse
from space import build, parameters
from tests.support.storms import children

ROOT = Path(__file__).parents[2]
SECONDS = 180  # that a step may take on a machine that has other work
NUMPY = {"SEARCH_WORKER": "tests.support.numpy_worker"}  # environment of a run that trains in NumPy

BASE = """{"name": "base", "input": [8, 8, 1], "classes": 10, "layers": [
  {"kind": "conv", "filters": 16}, {"kind": "activation", "function": "relu"}, {"kind": "max_pool"},
  {"kind": "flatten"}, {"kind": "dense", "units": 10}, {"kind": "softmax"}]}"""
STUDY = """
base = "base.json"
data = { name = "digits", images = 300 }
budget = { params = 1_200 }

[space]
blocks = { low = 1, high = 3 }
width = { low = 8, high = 48, step = 8 }
dropout = { low = 0.0, high = 0.2, step = 0.05 }
order = ["conv-bn-act", "conv-dropout-bn-act"]
pools = 1

[recipe]
epochs = 6
batch_size = 32
learning_rate = 0.02
augment = { crop = 1 }

[search]
trials = 2
"""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def write_study(folder: Path, text: str = STUDY) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "base.json").write_text(BASE, encoding="utf-8")
    (folder / "tiny.toml").write_text(text, encoding="utf-8")
    return folder / "tiny.toml"


def begin(study: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "search", "run", str(study), *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=SECONDS)
    return Ended(process.returncode, out, err)


def start(study: Path, *words: str, **environment: str) -> Ended:
    """`python -m search run STUDY`, to its end."""
    return end(begin(study, *words, **environment))


def reopened(study: Path) -> Run:
    return studies.find(str(study), None, None)


def candidates(study: Path) -> list[FrozenTrial]:
    return load(reopened(study)).candidates.get_trials()


def trained(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.user_attrs.get("outcome") == "trained"]


def outcomes(trials: list[FrozenTrial]) -> dict[int, list[str]]:
    """Outcomes by logical index, in the order of the attempts."""
    found: dict[int, list[str]] = {}
    for trial in trials:
        found.setdefault(trial.user_attrs["index"], []).append(trial.user_attrs.get("outcome", trial.state.name))
    return found


def worker_of(process: subprocess.Popen[str]) -> int:
    """The process id of a run's worker."""
    (child,) = children(process.pid)
    return child


def board(study: Path) -> dict[str, Any]:
    """The output of `python -m search top STUDY --json`."""
    words = [sys.executable, "-m", "search", "top", str(study), "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- with rungs, known networks and patience -------------------------------------------------------------------------

CLIMBING = (
    STUDY.split("[recipe]")[0].replace("images = 300", "images = 800")
    + """
[recipe]
epochs = 4
batch_size = 16
learning_rate = 0.02
schedule = { kind = "one-cycle" }

[search]
trials = 30
warm_start = ["good.json", "poor.json"]
rungs = { first = 1, factor = 2 }

[stop]
patience = 4
"""
)


class Climbed(NamedTuple):
    """A study that ended by its patience, of which some candidates were pruned at rungs."""

    study: Path
    ended: Ended
    after: list[FrozenTrial]
    board: dict[str, Any]


def write_climbing(folder: Path) -> Path:
    """Write that study; one of its warm starts scores above most candidates and one below."""
    study = write_study(folder, CLIMBING)
    of = parse(tomllib.loads(STUDY) | {"base": 0.5}, "study").space
    first = {name: domain.first for name, domain in parameters(of).items()}
    for name, values in (("good", {"blocks": 2, "width_1": 16, "width_2": 24}), ("poor", {"blocks": 1, "width_1": 8})):
        network = to_dict(build(of, first | values, (8, 8, 1), 10))
        (folder / f"{name}.json").write_text(json.dumps(network), encoding="utf-8")
    return study


@pytest.fixture(scope="session")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Climbed:
    """To be read; trained in NumPy."""
    return _climbed(tmp_path_factory.getbasetemp() / "climbed")


@cache  # a fixture that two modules import is set up in each of them
def _climbed(folder: Path) -> Climbed:
    study = write_climbing(folder)
    ended = start(study, **NUMPY)
    return Climbed(study, ended, candidates(study), board(study))
