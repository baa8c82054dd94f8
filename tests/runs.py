"""A small finished run on digits, made once for all tests that read one: base, two trained candidates, one rejected."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from search import study as studies
from search.study import Run

ROOT = Path(__file__).parent.parent
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
    """What the command line prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "search", *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has its two candidates, to be read; `copied` makes one to be changed."""
    return _finished(tmp_path_factory.getbasetemp() / "finished")


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Run:
    """The finished run in a folder of its own."""
    shutil.copytree(finished.folder.parent, tmp_path / "copied")
    return studies.find(str(tmp_path / "copied" / "tiny.toml"), None, None)


def study_file(run: Run) -> Path:
    """The study file of one of these runs."""
    return run.folder.parent / "tiny.toml"


@cache  # a fixture that two modules import is set up in each of them, and the run shall be made once
def _finished(folder: Path) -> Run:
    folder.mkdir()
    file = folder / "tiny.toml"
    file.write_text(STUDY)
    search("run", str(file), "--trials", "1")
    study = studies.load(studies.find(str(file), None, None)).candidates
    ranges = study.get_trials(deepcopy=False)[0].distributions.items()
    study.enqueue_trial({name: getattr(one, "high", None) or one.choices[-1] for name, one in ranges})  # over the budget
    search("run", str(file), "--trials", "2")
    return studies.find(str(file), None, None)
