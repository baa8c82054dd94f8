"""Ranked in integers: what a study tells of a network is what the exported int8 file does on the same images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from search import integers
from search.architecture import from_json
from search.config import parse
from search.data import load_dataset
from search.errors import UserError
from search.files import read_json, read_weights
from search.pixels import Pixels
from search.study import Opened, open_study
from tests import commands
from tests.runs import ROOT

STUDY = f"""
base = "{ROOT}/studies/quickstart/base.json"
data = {{ name = "digits", images = 300 }}
budget = {{ params = 2_000 }}
space = {{ blocks = {{ low = 1, high = 2 }}, width = {{ low = 8, high = 32, step = 8 }}, pools = 1 }}
recipe = {{ epochs = 2, batch_size = 32, learning_rate = 0.01 }}
search = {{ trials = 2, rank_by = "int8" }}
"""


def search(*words: str | Path) -> str:
    command = [sys.executable, "-m", "search", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has run, in `run`, and its winner exported beside it."""
    folder = tmp_path_factory.mktemp("integers")
    (folder / "small.toml").write_text(STUDY, encoding="utf-8")
    said = search("run", folder / "small.toml", "--out", folder / "run")
    assert "best and against base: of the networks in int8" in said
    exported = commands.search("export", folder / "small.toml", "--out", folder / "run", "--form", "int8", "--to", folder)
    assert exported.status == 0, exported.err
    search("finals", folder / "small.toml", "--out", folder / "run", "--top", "1", "--seeds", "1")
    return folder


@pytest.fixture
def opened(ranked: Path) -> Opened:
    return open_study(str(ranked / "small.toml"), ranked / "run")


@pytest.mark.slow
def test_the_winners_accuracy_is_that_of_its_exported_file(ranked: Path, opened: Opened) -> None:
    best = max((one for one in opened.candidates if one.outcome == "trained"), key=lambda one: one.best_val_accuracy or 0)
    card = json.loads((ranked / "best_model.json").read_text(encoding="utf-8"))
    assert card["scores"]["best_val_accuracy"] == card["forms"]["int8"]["val_accuracy"] == best.best_val_accuracy
    assert card["scores"]["float_val_accuracy"] == best.float_val_accuracy == max(best.curve)


def by_hand(folder: Path, part: str) -> float:
    """How right what a training left in its folder is in integers, on the validation or the test images."""
    data, about = (
        load_dataset("digits", None, protocol="holdout", holdout=0.1, images=300),
        read_json(folder / "training.json"),
    )
    network, pixels = from_json(json.dumps(about["architecture"])), Pixels.from_dict(about["pixels"])
    images, labels = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
    return integers.int8_accuracy(network, read_weights(folder / "weights.npz"), pixels, data, images, labels)


@pytest.mark.slow
def test_the_base_is_measured_in_integers_too(ranked: Path, opened: Opened) -> None:
    (base,) = opened.references
    assert base.float_val_accuracy == max(base.curve)
    assert base.best_val_accuracy == by_hand(ranked / "run" / "references" / "base", "val")


@pytest.mark.slow
def test_finals_read_the_test_images_in_integers(ranked: Path) -> None:
    told = json.loads(search("finals", ranked / "small.toml", "--out", ranked / "run", "--show", "--json"))
    (row,) = [one for one in told["finalists"] if one["name"] != "base"]
    assert told["measure"] == "test_accuracy"
    assert row["test"] == [by_hand(ranked / "run" / "finals" / f"{row['name']}-0", "test")]


def test_what_cannot_be_ranked_in_integers_is_refused() -> None:
    raw = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 2000}, "search": {"rank_by": "int8"}}
    raw["space"] = {"blocks": {"low": 1, "high": 2}, "width": 8, "pools": 1, "activation": ["relu", "elu"]}
    with pytest.raises(UserError, match=r"search.rank_by: elu is computed in floats only"):
        parse(raw, "test")


def test_without_the_interpreter_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "not_installed", lambda *modules: "ai-edge-litert not installed")
    with pytest.raises(UserError, match=r'search.rank_by: "int8" ai-edge-litert not installed; or rank by "float"'):
        integers.refuse_without_converter()
