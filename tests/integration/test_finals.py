"""`python -m search finals` with real trainings: undisturbed, interrupted and killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from search.data.dataset import load_dataset
from search.files import read_weights
from search.study.run import Run, find, load, sibling
from tests.support.runs import ROOT, copied, finished, search, study_file
from tests.support.storms import children

__all__ = ["copied", "finished"]


SECONDS = 180  # that a step may take on a machine that has other work


STATES = """
SELECT state, EXISTS (SELECT 1 FROM trial_user_attributes held WHERE held.trial_id = trials.trial_id AND held.key = 'seed')
FROM trials JOIN studies USING (study_id) WHERE study_name = 'tiny.finals'
"""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def begin(run: Run, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "search", "finals", str(study_file(run)), "--top", "1", "--seeds", "1", *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=SECONDS)
    return Ended(process.returncode, out, err)


def wait_for_training(run: Run, process: subprocess.Popen[str], trained: int) -> None:
    """Returns while finals train, after that many trainings."""
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        with (
            contextlib.suppress(sqlite3.OperationalError),
            sqlite3.connect(f"file:{run.folder}/study.db?mode=ro", uri=True) as db,
        ):
            states = Counter(map(tuple, db.execute(STATES)))
            if sum(states["COMPLETE", flag] for flag in (0, 1)) >= trained and states["RUNNING", 1]:
                return
        time.sleep(0.02)


class Real(NamedTuple):
    """Finals of a small run, undisturbed."""

    calm: Run
    before: tuple[str, str]  # what top and report had to say
    ended: Ended


class Stormy(NamedTuple):
    """Finals of the same run, interrupted and killed."""

    interrupted: Ended
    last: Ended
    tries: list[FrozenTrial]


def copy_of(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder.parent, folder)
    return find(str(folder / "tiny.toml"), None, None)


@pytest.fixture(scope="module")
def real(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Real:
    calm = copy_of(finished, tmp_path_factory.mktemp("finals") / "calm")
    before = (search("top", str(study_file(calm)), "--json"), leaderboard_of(calm))
    return Real(calm, before, end(begin(calm, "--json")))


@pytest.fixture(scope="module")
def stormy(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Stormy:
    stormy = copy_of(finished, tmp_path_factory.mktemp("finals") / "stormy")
    process = begin(stormy)
    wait_for_training(stormy, process, trained=0)
    process.send_signal(signal.SIGINT)
    interrupted = end(process)
    process = begin(stormy)
    wait_for_training(stormy, process, trained=1)
    (child,) = children(process.pid)
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    end(process)
    last = end(begin(stormy, "--json"))
    return Stormy(interrupted, last, sibling(stormy, "finals").get_trials())


def leaderboard_of(run: Run) -> str:
    return (run.folder / "report.md").read_text().split("## Leaderboard")[1].split("\n## ")[0]


@pytest.mark.long
def test_json_is_one_document_and_progress_goes_to_standard_error(real: Real) -> None:
    assert real.ended.status == 0, real.ended
    told = json.loads(real.ended.out)
    assert (told["study"], told["protocol"], told["measure"], told["seeds"]) == ("tiny", "holdout", "test_accuracy", 1)
    assert {one["name"] for one in told["finalists"]} == {"base", told["leader"]}
    assert re.search(r"^base, seed 1: +82,090 params ", real.ended.err, re.MULTILINE)
    assert "Reading the test images." in real.ended.err


@pytest.mark.long
def test_test_accuracies_are_those_of_a_plain_keras_model_with_the_weights_that_were_kept(real: Real) -> None:
    import keras
    from keras import layers

    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    same: dict[str, Any] = {"padding": "same", "activation": "relu"}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *(layers.Conv2D(32, 3, **same), layers.Conv2D(32, 3, **same), layers.MaxPooling2D()),
            *(layers.Conv2D(64, 3, **same), layers.Conv2D(64, 3, **same), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax")),
        ]
    )
    base = next(one for one in json.loads(real.ended.out)["finalists"] if one["name"] == "base")
    folder = real.calm.folder / "finals" / "base-0"
    model.set_weights(read_weights(folder / "weights.npz"))
    for name, images, labels in (("test", data.x_test, data.y_test), ("best_val", data.x_val, data.y_val)):
        assert images is not None
        predicted = np.argmax(model.predict(images.astype("float32") / 255, verbose=0), axis=-1)
        assert base[name] == pytest.approx([np.mean(predicted == labels)])
    history = json.loads((folder / "history.json").read_text())
    assert base["best_val"] == [max(row["val_accuracy"] for row in history)]
    assert base["final_val"] == [history[-1]["val_accuracy"]]
    assert base["test"] != base["best_val"]


@pytest.mark.long
def test_interrupted_and_killed_the_same_command_reaches_the_same_numbers(real: Real, stormy: Stormy) -> None:
    assert (stormy.interrupted.status, stormy.interrupted.out.count("Traceback")) == (130, 0)
    assert stormy.interrupted.err.count("\n") == 1
    assert "the same command resumes" in stormy.interrupted.err
    assert stormy.last.status == 0, stormy.last
    outcomes = Counter(trial.user_attrs["outcome"] for trial in stormy.tries)
    assert outcomes == {"interrupted": 2, "trained": 2}
    ours, theirs = json.loads(stormy.last.out), json.loads(real.ended.out)
    assert len(ours.pop("test_read")) == len(theirs.pop("test_read")) == 1
    assert ours == theirs


@pytest.mark.long
def test_finals_change_nothing_in_the_search(real: Real) -> None:
    path = str(study_file(real.calm))
    before, after = (json.loads(text) for text in (real.before[0], search("top", path, "--json")))
    assert before.pop("standing")["standing"] in ("level in one training", "behind in one training")
    assert after.pop("standing") == json.loads(real.ended.out)["standing"], "the verdict alone is that of the finals now"
    assert before == after
    search("report", path)
    assert leaderboard_of(real.calm) == real.before[1]


@pytest.mark.long
def test_the_dashboards_note_tells_what_the_finals_came_to(real: Real) -> None:
    from optuna_dashboard import get_note

    told = json.loads(real.ended.out)["verdict"]
    assert f"## On fresh seeds\n\n{told[0].upper()}{told[1:]}" in get_note(load(real.calm).candidates)


@pytest.mark.long
def test_a_second_reading_is_rejected_in_one_line(real: Real) -> None:
    ended = end(begin(real.calm, "--json"))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    (read,) = json.loads(real.ended.out)["test_read"]
    assert read in ended.err and "--again" in ended.err


@pytest.mark.long
def test_show_trains_nothing_and_starts_without_tensorflow(real: Real) -> None:
    code = "import sys; from search.cli.commands import app; app(sys.argv[1:], standalone_mode=False)"
    code += "\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    words = ["finals", str(study_file(real.calm)), "--show", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(real.ended.out)


def test_without_finals_or_a_trained_candidate_there_is_one_line(copied: Run) -> None:
    ended = end(begin(copied, "--show"))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"python -m search finals {study_file(copied)}" in ended.err
    with contextlib.closing(sqlite3.connect(copied.folder / "study.db")) as db:
        db.execute("UPDATE trial_user_attributes SET value_json = '\"rejected\"' WHERE key = 'outcome'")
        db.commit()
    ended = end(begin(copied))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "no candidate has been trained yet" in ended.err
