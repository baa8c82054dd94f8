"""Ranked in integers: what a study tells of a network is what the exported int8 file does on the same images."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import interpreter

from objective import Context
from search.data.dataset import load_dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export import int8 as integers
from search.files import Weights, read_json, read_weights
from search.finals import run as finals
from search.networks.architecture import Architecture, from_json
from search.networks.layers import Activation, Dense, Flatten, SeparableConv, Softmax
from search.runner.reporter import Reporter
from search.study.run import Opened, open_study
from search.study.study_file import parse
from search.training import device
from search.training.measures import MEASURES
from search.training.model import build
from search.training.recipe import Recipe
from tests.support import commands
from tests.support.runs import ROOT

STUDY = f"""
base = "{ROOT}/studies/quickstart/base.json"
data = {{ name = "digits" }}
budget = {{ params = 2_000 }}
space = {{ blocks = {{ low = 1, high = 2 }}, width = {{ low = 8, high = 32, step = 8 }}, pools = 1 }}
recipe = {{ epochs = 3, batch_size = 32, learning_rate = 0.01 }}
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
    assert "in int8: of the converted network" in said and "against base: in int8" in said
    exported = commands.search("export", folder / "small.toml", "--out", folder / "run", "--form", "int8", "--to", folder)
    assert exported.status == 0, exported.err
    search("finals", folder / "small.toml", "--out", folder / "run", "--top", "1", "--seeds", "1")
    return folder


@pytest.fixture
def opened(ranked: Path) -> Opened:
    return open_study(str(ranked / "small.toml"), ranked / "run")


@pytest.mark.long
def test_the_winners_accuracy_is_that_of_its_exported_file(ranked: Path, opened: Opened) -> None:
    best = max((one for one in opened.candidates if one.outcome == "trained"), key=lambda one: one.best_val_accuracy or 0)
    card = json.loads((ranked / "best_model.json").read_text(encoding="utf-8"))
    assert card["scores"]["best_val_accuracy"] == card["forms"]["int8"]["val_accuracy"] == best.best_val_accuracy
    assert card["scores"]["float_val_accuracy"] == best.float_val_accuracy == max(best.curve) > 0.25


def by_hand(folder: Path, part: str) -> float:
    """Accuracy in int8 of the weights that a training left in its folder, on the validation or the test images."""
    data, about = (
        load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None),
        read_json(folder / "training.json"),
    )
    network, pixels = from_json(json.dumps(about["architecture"])), Pixels.from_dict(about["pixels"])
    images, labels = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
    converted = integers.Int8Network(network, read_weights(folder / "weights.npz"), pixels, data)
    return MEASURES["accuracy"].compute(integers.int8_confusion(converted, images, labels))


@pytest.mark.long
def test_the_base_is_measured_in_integers_too(ranked: Path, opened: Opened) -> None:
    (base,) = opened.references
    assert base.float_val_accuracy == max(base.curve)
    assert base.best_val_accuracy == by_hand(ranked / "run" / "references" / "base", "val")


@pytest.mark.long
def test_finals_read_the_test_images_in_integers(ranked: Path) -> None:
    told = json.loads(search("finals", ranked / "small.toml", "--out", ranked / "run", "--show", "--json"))
    (row,) = [one for one in told["finalists"] if one["name"] != "base"]
    assert told["measure"] == "test_accuracy"
    assert row["test"] == [by_hand(ranked / "run" / "finals" / f"{row['name']}-0", "test")]


@pytest.fixture
def brittle() -> tuple[Architecture, Weights]:
    """A classifier of digits, right in floats and lost in integers: a channel a thousand times as wide sets the scale."""
    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    x, y = data.x_train.reshape(len(data.x_train), -1) / 255, np.eye(10)[data.y_train]
    solved = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0].astype(np.float32)
    kernel = np.zeros((64, 2, 10), np.float32)
    kernel[:, 0] = 10 * solved[:-1]
    network = Architecture((8, 8, 1), 10, (SeparableConv(2, kernel=1), Flatten(), Dense(10), Softmax()))
    wide = np.array([1, 1000], np.float32).reshape(1, 1, 1, 2)
    return network, [np.ones((1, 1, 1, 1), np.float32), wide, kernel.reshape(128, 10), 10 * solved[-1]]


@pytest.mark.parametrize(("rank_by", "low", "high"), [("float", 0.85, 1.0), ("int8", 0.0, 0.4)])
def test_candidates_and_finals_are_measured_as_the_study_is_ranked(
    rank_by: str, low: float, high: float, brittle: tuple[Architecture, Weights], tmp_path: Path
) -> None:
    (network, weights), config = brittle, parse(tomllib.loads(STUDY) | {"search": {"rank_by": rank_by}}, "test")
    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    context = Context(config, data, tmp_path)
    confusion = context.confusion(network, weights, Pixels(), data.x_val, data.y_val)
    assert low <= MEASURES["accuracy"].compute(confusion) <= high
    finalist = finals.Finalist("trial-0", 0, None, 0, network, Recipe())
    reporter = Reporter(lambda event: None)
    (found,) = finals._test_measures({"trial-0": [weights]}, [finalist], context, reporter)["trial-0"]
    assert low <= found["accuracy"] <= high


def test_int8_accuracy_is_measured_with_the_reference_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimised ones round differently than TensorFlow Lite Micro."""
    used = set()

    class Recording(interpreter.Interpreter):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.kernels = options["experimental_op_resolver_type"]

        def invoke(self) -> None:
            used.add(self.kernels)
            super().invoke()

    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    layers = (SeparableConv(8), Activation("relu"), Flatten(), Dense(10), Softmax())
    network = Architecture((8, 8, 1), 10, layers)
    converted = integers.Int8Network(network, build(network, seed=1).get_weights(), Pixels(), data)
    images, labels = data.x_val[:40], data.y_val[:40]
    monkeypatch.setattr(interpreter, "Interpreter", Recording)
    measured = MEASURES["accuracy"].compute(integers.int8_confusion(converted, images, labels))
    assert used == {interpreter.OpResolverType.BUILTIN_REF}
    runner = interpreter.Interpreter(
        model_content=converted.content, experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_REF
    )
    runner.allocate_tensors()
    (given,), (output,) = runner.get_input_details(), runner.get_output_details()
    classes = []
    for image in images:
        runner.set_tensor(given["index"], (image[None].astype(int) - 128).astype(np.int8))
        runner.invoke()
        classes.append(runner.get_tensor(output["index"])[0].argmax())
    assert measured == np.mean(np.array(classes) == labels)


def test_studies_that_cannot_be_ranked_by_int8_are_rejected() -> None:
    raw = {"base": 0.5, "data": {"name": "digits"}, "budget": {"params": 2000}, "search": {"rank_by": "int8"}}
    raw["space"] = {"blocks": {"low": 1, "high": 2}, "width": 8, "pools": 1, "activation": ["relu", "elu"]}
    with pytest.raises(UserError, match=r"search.rank_by: elu is computed in floats only"):
        parse(raw, "test")


def test_without_the_interpreter_it_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "not_installed", lambda *modules: "ai-edge-litert not installed")
    with pytest.raises(UserError, match=r'search.rank_by: "int8" ai-edge-litert not installed; or rank by "float"'):
        integers.require_converter()


def test_a_backend_that_cannot_convert_is_rejected_before_anything_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(STUDY, encoding="utf-8")
    monkeypatch.setattr(device, "backend", lambda: "jax")
    ended = commands.search("run", tmp_path / "small.toml", "--out", tmp_path / "run")
    commands.assert_refused(ended, 'search.rank_by: "int8" needs Keras on TensorFlow, not jax', 'or rank by "float"')
    assert not (tmp_path / "run").exists()
