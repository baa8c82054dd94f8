"""Source, card and trained model read back: the same network in each form, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from search.budget.summary import summarize
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export.keras_source import keras_source
from search.files import draft_of, read_weights, write_weights
from search.networks.architecture import load, to_dict
from search.seeds import generator
from search.training.model import build
from tests.support.exports import (
    EXPLICIT,
    NETWORKS,
    NORMALISED,
    ROOT,
    exported,
    images,
    references,
    run,
    some_weights,
    take_away,
)

# Keras 3.15 hands its variables to NumPy 2 in a way that NumPy calls outdated, whenever a model is saved.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")


def test_references_are_six() -> None:
    assert len(references()) == 6


# --- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [Pixels(), NORMALISED, Pixels((1 / 3, 1e-7, 0.0), (1e-6, 1.0, 1 / 7))])
def test_prepare_is_what_the_training_did(pixels: Pixels) -> None:
    module, raw = run(keras_source(NETWORKS["eip-b"], pixels=pixels)), images(NETWORKS["eip-b"])
    prepared = module.prepare(raw)
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared, pixels.apply(raw))
    mean, std = pixels.mean or (0, 0, 0), pixels.std or (1, 1, 1)
    np.testing.assert_allclose(prepared, (raw / 255 - np.array(mean)) / np.array(std), rtol=1e-4, atol=1e-4)


def test_pixels_round_trip() -> None:
    for pixels in (Pixels(), NORMALISED):
        assert Pixels.from_dict(json.loads(json.dumps(pixels.to_dict()))) == pixels
    assert "divided by 255" in Pixels().describe() and "mean" not in Pixels().describe()
    assert "mean [0.4914, 0.4822, 0.4465]" in NORMALISED.describe()


@pytest.mark.parametrize(
    "plain", [{}, {"mean": [1]}, {"mean": 3, "std": [1]}, {"mean": ["a"], "std": [1]}, {"mean": [0], "std": [0]}]
)
def test_pixels_of_something_else_are_rejected(plain: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^pixels: .*expected mean and std"):
        Pixels.from_dict(plain)


def test_pixels_of_other_channels_are_rejected() -> None:
    with pytest.raises(ValueError, match="3 channels, the input has 1"):
        keras_source(EXPLICIT["vector"], pixels=NORMALISED)


# --- the card, and what is refused -----------------------------------------------------------------------------------


def test_the_card_says_what_was_done(tmp_path: Path) -> None:
    architecture = NETWORKS["eip-b"]
    facts = {"scores": {"best_val_accuracy": 0.836, "best_epoch": 43}, "seeds": {"trial": 7}, "data": "cifar10"}
    recipe = {"initializer": "he_normal", "epochs": 50}
    paths = take_away(
        architecture, tmp_path, weights=some_weights(architecture), facts=facts, recipe=recipe, pixels=NORMALISED
    )
    text = paths["json"].read_text(encoding="utf-8")
    card = json.loads(text)
    assert card.items() >= (summarize(architecture) | facts | {"recipe": recipe}).items()
    assert Pixels.from_dict(card["pixels"]) == NORMALISED
    assert card["versions"]["keras"] == keras.__version__ and {"python", "numpy", "optuna"} <= card["versions"].keys()
    digests = {paths[form].name: hashlib.sha256(paths[form].read_bytes()).hexdigest() for form in ("py", "keras", "add")}
    assert card["sha256"] == digests
    assert '\n      {"kind": "batch_norm"},\n' in text  # one layer a line
    assert 'depthwise_initializer="he_normal"' in paths["py"].read_text(encoding="utf-8")


def test_facts_cannot_replace_the_cards_own(tmp_path: Path) -> None:
    done = exported(NETWORKS["eip-b"], tmp_path, formats=["json"], facts={"params": 1})
    assert done.failed == {"json": "cannot be written (facts: params are the card's own)"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": ["pyy"]}, "--form pyy: no such format, did you mean 'py'?"),
        ({"formats": ["int8"]}, "eip-b has not been trained; --form py, add or json"),
        ({"weights": []}, "weights: 0 arrays, the network has 34"),
        ({"weights": [np.zeros(1)] * 34}, r"depthwise_kernel is \[3, 3, 3, 1\], not \[1\]"),
    ],
)
def test_bad_exports_are_rejected(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        take_away(NETWORKS["eip-b"], tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_rejected(tmp_path: Path) -> None:
    weights = some_weights(EXPLICIT["vector"])
    weights[1][0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        take_away(EXPLICIT["vector"], tmp_path, weights=weights)


def test_a_folder_that_is_a_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"taken: the export cannot be written .*another folder"):
        take_away(NETWORKS["eip-b"], tmp_path / "taken", formats=["py"])


def test_forms_of_a_trained_network_come_with_its_card_alone(tmp_path: Path) -> None:
    weights = some_weights(NETWORKS["eip-b"])
    for form in ("py", "add", "keras", "json"):
        paths = take_away(NETWORKS["eip-b"], tmp_path / form, weights=weights, formats=[form, form], stem="net")
        assert paths.keys() == {form, "json"}
        assert sorted((tmp_path / form).iterdir()) == sorted(paths.values())
        assert {path.name for path in paths.values()} <= {"net.py", "net_add.py", "net.keras", "net.json"}


def test_an_untrained_network_is_exported_without_keras(tmp_path: Path) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from search.networks.architecture import load
        from search.export.exporter import Exported, export
        from search.data.preprocessing import Pixels
        network = load(Path("studies/references/eip-b.json"))
        folder = Path({str(tmp_path)!r})
        export(network, folder, weights=None, facts={{}}, pixels=Pixels(), recipe=None)
        export(network, folder, weights=[], facts={{}}, pixels=Pixels(), recipe=None, formats=["json"])
        assert not {{"keras", "tensorflow"}} & sys.modules.keys()
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=ROOT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best_model.json", "best_model.py", "best_model_add.py"]


# --- all or nothing --------------------------------------------------------------------------------------------------


def break_source(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    def broken(*arguments: Any, **options: Any) -> str:
        return keras_source(*arguments, **options).replace(old, new)

    monkeypatch.setattr("search.export.formats.keras_source", broken)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"hard_silu"', '"relu"', "outputs differ"),
        ("Dense(2,", "Dense(2, use_bias=False,", "parameters instead of"),
        ("/ 255", "/ 256", "other pixels"),
        ("return keras", "return 1 / 0; keras", "division by zero"),
        ("def prepare", "def prepare prepare", "invalid syntax|expected"),
    ],
)
def test_a_wrong_source_leaves_the_old_files(old: str, new: str, why: str, tmp_path: Path, monkeypatch: Any) -> None:
    architecture = EXPLICIT["elementwise"]
    weights = some_weights(architecture)
    take_away(architecture, tmp_path, weights=weights)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    break_source(monkeypatch, old, new)
    done = exported(architecture, tmp_path, weights=weights)
    assert list(done.failed) == ["py"] and re.search(why, done.failed["py"])
    unchanged = {path: content for path, content in before.items() if path.suffix == ".py"}
    assert {path: path.read_bytes() for path in tmp_path.iterdir()}.keys() == before.keys()
    assert {path: path.read_bytes() for path in unchanged} == unchanged


def test_an_untrained_source_must_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_source(monkeypatch, "def prepare", "def")
    assert list(exported(NETWORKS["eip-b"], tmp_path, formats=["py"]).failed) == ["py"]
    assert not list(tmp_path.iterdir())


def test_a_wrong_card_or_model_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = EXPLICIT["vector"]
    weights = some_weights(architecture)
    paths = take_away(architecture, tmp_path, weights=weights)
    before = {path: path.read_bytes() for path in paths.values()}
    with monkeypatch.context() as patch:
        patch.setattr("search.export.card.to_dict", lambda given: to_dict(EXPLICIT["spatial"]))
        done = exported(architecture, tmp_path, weights=weights)
        assert dict(done.paths) == {} and list(done.failed) == ["json"] and "another fingerprint" in done.failed["json"]
    with monkeypatch.context() as patch:
        patch.setattr(keras.models, "load_model", lambda path, compile: build(architecture, seed=9))
        done = exported(architecture, tmp_path, weights=weights, formats=["keras"])
        assert list(done.failed) == ["keras"] and "outputs differ" in done.failed["keras"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_export_removes_the_drafts_that_a_killed_one_has_left(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours = draft_of(tmp_path / "best_model.py")
    process = f"-{os.getpid()}-"
    left = [draft_of(tmp_path / name) for name in ("best_model.py", "best_model.keras", "best_model_int8.tflite")]
    left = [path.with_name(path.name.replace(process, f"-{dead.pid}-")) for path in left]
    other = tmp_path / f".notes.part-{'0' * 8}-{dead.pid}-00000000.txt"
    for path in (ours, other, *left):
        path.touch()
    take_away(EXPLICIT["vector"], tmp_path, formats=["py"])
    assert not any(path.exists() for path in left)
    assert ours.exists() and other.exists(), "of a process that lives, and of another program"


def test_the_card_is_replaced_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, true_replace = [], Path.replace

    def replace_and_note(path: Path, target: Path) -> Path:
        done.append(target.name)
        return true_replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_and_note)
    take_away(EXPLICIT["vector"], tmp_path, weights=some_weights(EXPLICIT["vector"]))
    assert sorted(done[:-1]) == ["best_model.keras", "best_model.py"] and done[-1] == "best_model.json"


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 10_001])
def test_weights_round_trip(count: int, tmp_path: Path) -> None:
    random = generator(3, "weights")
    arrays: list[Any] = [random.standard_normal(shape).astype(np.float32) for shape in ((3, 3, 2, 1), (4,), ())][:count]
    arrays += [np.array([index], np.float32) for index in range(count - len(arrays))]
    write_weights(tmp_path / "best.npz", arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["best.npz"]
    same(read_weights(tmp_path / "best.npz"), arrays)


def same(found: Sequence[Any], wanted: Sequence[Any]) -> None:
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(left, right)


def test_failing_to_write_weights_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.npz"
    write_weights(path, [np.ones(3)])
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_weights(path, [np.zeros(3), np.array([None])])
    assert [path.name for path in tmp_path.iterdir()] == ["best.npz"]
    same(read_weights(path), [np.ones(3)])


def test_damaged_weights_are_the_users_to_hear_of(tmp_path: Path) -> None:
    path = tmp_path / "best.npz"
    write_weights(path, [np.ones((3, 3), np.float32), np.zeros(5, np.float32)])
    whole, random = path.read_bytes(), generator(4, "damage")
    for attempt in range(600):
        damaged = bytearray(whole[: random.integers(len(whole))] if attempt % 3 == 0 else whole)
        for _ in range(attempt % 3 and 3):
            damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_other_files_than_weights_are_rejected(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "named.npz", kernel=np.ones(3))
    np.savez(tmp_path / "pickled.npz", w0000=np.array([None]))
    for name in ("one.npy", "named.npz", "pickled.npz", "missing.npz", "."):
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            read_weights(tmp_path / name)


def test_a_card_is_read_as_the_architecture_it_holds(tmp_path: Path) -> None:
    network = load(ROOT / "studies" / "references" / "eip-b.json")
    assert load(take_away(network, tmp_path, formats=["json"])["json"]) == network
