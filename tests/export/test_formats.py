"""Every form that applies is written, measured, told of in the card, and goes when the network does."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.artifacts import get_all_artifact_meta

from search.budget.cost import compute_cost
from search.budget.footprint import arena_to_allocate
from search.budget.lowering import registration
from search.data.dataset import load_dataset
from search.data.preprocessing import Pixels
from search.errors import StudyStopped, UserError
from search.export import litert
from search.export.card import files_of
from search.export.exporter import FORMATS, QUICK, Exported, export
from search.export.formats import INT8
from search.networks.architecture import Architecture
from search.networks.layers import Activation, BatchNorm, Dense, GlobalAveragePool, Layer, Residual, SeparableConv, Softmax
from search.seeds import generator
from search.study import records as study_records
from search.study import run as studies
from search.study import trained as winner
from search.study.run import Run
from search.text import format_percent
from search.training.model import build
from tests.support.pictures import picture_set
from tests.support.runs import copied as copied
from tests.support.runs import finished as finished
from tests.support.runs import search, small_run, study_file

NORMALISED = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def net(*layers: Layer, input: tuple[int, int, int]) -> Architecture:
    return Architecture(input, 2, (*layers, GlobalAveragePool(), Dense(2), Softmax()), "net")


STACK = net(SeparableConv(8), BatchNorm(), Activation("relu"), SeparableConv(6), input=(8, 8, 3))
GRAPH = net(SeparableConv(6), Residual((SeparableConv(6), Activation("elu"))), input=(8, 8, 3))


def some_weights(architecture: Architecture) -> list[Any]:
    random = generator(1, "weights")
    own = build(architecture).get_weights()
    return [array * random.uniform(0.8, 1.2, array.shape) + random.uniform(0, 0.05, array.shape) for array in own]


def everything(folder: Path, architecture: Architecture = STACK, **changes: Any) -> Exported:
    data = picture_set(architecture)
    arguments: dict[str, Any] = {"facts": {"data": {"class_names": list(data.class_names)}}, "recipe": None}
    arguments |= {"weights": some_weights(architecture), "pixels": NORMALISED, "images": lambda: data} | changes
    return export(architecture, folder, **arguments)


def card_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "best_model.json").read_text(encoding="utf-8")))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported, list[str]]:
    """An export of every form, to be read; what was told of it."""
    folder, told = tmp_path_factory.mktemp("whole"), list[str]()
    return folder, everything(folder, on_format=lambda format: told.append(format.name)), told


@pytest.fixture
def copy(whole: tuple[Path, Exported, list[str]], tmp_path: Path) -> Path:
    shutil.copytree(whole[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_every_applicable_format_is_written_and_listed(whole: tuple[Path, Exported, list[str]]) -> None:
    folder, done, told = whole
    assert list(done.paths) == list(FORMATS) == told
    names = ["keras", "py", "_add.py", "tflite", "_int8.tflite", "_int8.cc", "_int8.h", "_int8_test.h", "onnx", "json"]
    endings = [name if name.startswith("_") else f".{name}" for name in names]
    assert [path.name for paths in done.paths.values() for path in paths] == [f"best_model{one}" for one in endings]
    assert sorted(path for paths in done.paths.values() for path in paths) == sorted(folder.iterdir())
    assert (done.left_out, done.removed) == ({}, ())


def test_the_card_says_what_was_measured(whole: tuple[Path, Exported, list[str]]) -> None:
    folder, done, _ = whole
    card, data = card_of(folder), picture_set(STACK)
    assert card["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix != ".json"
    }
    assert card["forms"] == done.facts and list(card["forms"]) == ["keras", "tflite", "int8", "c", "onnx"]
    model = build(STACK)
    model.set_weights(some_weights(STACK))
    expected = np.asarray(model(NORMALISED.apply(data.x_val), training=False)).argmax(axis=1)
    content = (folder / "best_model_int8.tflite").read_bytes()
    given = litert.read(content).input
    table = NORMALISED.quantized(3, given.scale, given.zero_point)
    found = {
        "tflite": litert.outputs((folder / "best_model.tflite").read_bytes(), data.x_val, NORMALISED.apply),
        "int8": litert.outputs(content, data.x_val, lambda some: table[np.arange(3), some], reference_kernels=True),
    }
    for form, some in found.items():
        told, path = card["forms"][form], folder / card["forms"][form]["file"]
        assert (told["bytes"], told["val_images"]) == (path.stat().st_size, 160)
        assert told["val_accuracy"] == np.mean(some.argmax(axis=1) == data.y_val)
        assert told["keras_val_accuracy"] == np.mean(expected == data.y_val)
    told = card["forms"]["int8"]
    assert told["same_class_as_keras"] == np.mean(found["int8"].argmax(axis=1) == expected)
    assert (told["input"]["scale"], told["input"]["zero_point"]) == (given.scale, given.zero_point)
    assert (told["output"]["scale"], told["output"]["zero_point"]) == (1 / 256, -128)
    assert told["calibration_images"] == 128 and "CONV_2D" in told["operators"]
    assert told["input"]["pixels"].startswith("int8 = round((pixel / 255 - mean) / std per channel with mean [0.4914,")
    for form in ("tflite", "onnx"):
        assert card["forms"][form]["input"]["pixels"] == NORMALISED.describe()
    header = (folder / "best_model_int8.h").read_text(encoding="utf-8")
    assert f"After int8 conversion {format_percent(told['val_accuracy'], told['val_images'])} on the same images" in header
    code = card["forms"]["c"]
    assert f"best_model_int8_arena_bytes = {code['arena_bytes']};" in header
    assert code["arena_bytes"] == arena_to_allocate(compute_cost(STACK).lowered)
    assert code["resolver"] == [registration(operator) for operator in told["operators"]]
    vectors = code["test_vectors"]
    assert (vectors["val_images"], vectors["labels"], vectors["tolerance"]) == ([0, 1], [0, 1], 2)
    real = (np.array(vectors["outputs"]) + 128) / 256
    np.testing.assert_array_equal(real, found["int8"][:2])
    assert card["int8_note"].endswith("forms.int8.bytes is the file's size")
    assert told["kernels"].startswith("LiteRT reference kernels (BUILTIN_REF)")


def test_inapplicable_formats_are_left_out_or_rejected(tmp_path: Path) -> None:
    done = everything(tmp_path, GRAPH)
    assert list(done.paths) == ["keras", "py", "tflite", "onnx", "json"]
    elu = "TensorFlow Lite computes elu in floats only; take a network with another activation"
    branches = "the network branches or calls a layer twice, which a Sequential model cannot express; take py"
    kernel = "TensorFlow Lite Micro has no integer kernel for ELU; take a network with relu or silu"
    assert done.left_out == {"add": branches, "int8": elu, "c": kernel}
    for form, reason in done.left_out.items():
        with pytest.raises(UserError, match=f"^--form {form}: {reason}"):
            everything(tmp_path, GRAPH, formats=[form])


def test_without_its_images_a_network_is_not_put_in_integers(tmp_path: Path) -> None:
    def gone() -> Any:
        raise UserError("/old/set.npz: no such file; pass an .npz with x_train")

    done = everything(tmp_path, images=gone, formats=None)
    why = "/old/set.npz: no such file; pass the images that it was trained on with --data"
    assert done.left_out == {"int8": why, "c": why}
    assert done.facts["tflite"]["val_accuracy"] is None and "val_images" not in done.facts["tflite"]
    with pytest.raises(UserError, match=r"^--form c: /old/set\.npz: no such file; .*--data$"):
        everything(tmp_path, images=gone, formats=["c"])


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    absent = {"tf2onnx", "onnxruntime", "ai_edge_litert"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else found(name))
    for form, packages in (("onnx", "tf2onnx onnxruntime"), ("tflite", "ai-edge-litert"), ("c", "ai-edge-litert")):
        with pytest.raises(UserError, match=f"^--form {form}: .* not installed; install with: pip install {packages}$"):
            everything(tmp_path, formats=[form])
    monkeypatch.setattr("search.training.device.backend", lambda: "jax")
    for form in ("onnx", "tflite", "int8"):
        with pytest.raises(UserError, match=f"^--form {form}: needs Keras on TensorFlow, not jax; set KERAS_BACKEND"):
            everything(tmp_path, formats=[form])
    assert not list(tmp_path.iterdir())


def test_the_array_comes_with_its_file_and_its_card(tmp_path: Path) -> None:
    done = everything(tmp_path, formats=["c"], stem="7 net")
    assert list(done.paths) == ["int8", "c", "json"]
    text = (tmp_path / "7 net_int8.cc").read_text(encoding="utf-8")
    assert text.startswith('#include "7 net_int8.h"\n') and "unsigned char model_7_net_int8[]" in text


def test_weights_of_another_epoch_are_reported(tmp_path: Path) -> None:
    done = everything(tmp_path, formats=["tflite"], facts={"scores": {"best_val_accuracy": 0.95}})
    assert "and 95.00% was recorded in its best epoch" in done.failed["tflite"]
    assert not list(tmp_path.iterdir())


# --- beside files of an earlier export -------------------------------------------------------------------------------


def test_the_card_still_lists_files_of_an_earlier_export(copy: Path) -> None:
    before = card_of(copy)
    (copy / "best_model.onnx").write_bytes(b"changed by hand")
    (copy / "best_model_int8.h").unlink()
    done = everything(copy, formats=["add"])
    card = card_of(copy)
    assert (list(done.paths), done.removed) == (["add", "json"], ())
    assert card["sha256"].keys() == before["sha256"].keys() - {"best_model.onnx", "best_model_int8.h"}
    assert card["forms"] == {form: before["forms"][form] for form in ("keras", "tflite", "int8", "c")}
    assert 'load_weights("best_model.keras")' in (copy / "best_model_add.py").read_text(encoding="utf-8")


def test_files_of_another_network_go(copy: Path) -> None:
    (copy / "best_model.onnx").write_bytes(b"changed by hand")
    (copy / "mine.tflite").write_bytes(b"mine")
    weights = [array + 0.01 for array in some_weights(STACK)]
    done = everything(copy, formats=QUICK, weights=weights)
    kept = {"best_model.py", "best_model.keras", "best_model.json", "best_model.onnx", "mine.tflite"}
    assert {path.name for path in copy.iterdir()} == kept
    gone = {"best_model_add.py", "best_model.tflite", "best_model_int8.tflite"}
    gone |= {f"best_model_int8{ending}" for ending in (".cc", ".h", "_test.h")}
    assert {path.name for path in done.removed} == gone
    assert list(card_of(copy)["forms"]) == ["keras"]


@pytest.mark.parametrize(
    "text",
    [
        b"no JSON", b"[1]", b"{}", b'{"sha256": 3}', b'{"sha256": {}, "forms": [], "network_sha256": 1}',
        b'{"sha256": {"../outside": "DIGEST", "other.keras": "DIGEST"}, "forms": {}, "network_sha256": "1"}', b"[" * 99_999,
    ],
)  # fmt: skip
def test_a_card_that_anyone_may_have_written_removes_nothing(text: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "to"
    folder.mkdir()
    others = [tmp_path / "outside", folder / "other.keras"]
    for path in others:
        path.write_bytes(b"not ours")
    digest = hashlib.sha256(b"not ours").hexdigest().encode()
    (folder / "best_model.json").write_bytes(text.replace(b"DIGEST", digest))
    assert "../outside" not in files_of(folder / "best_model.json").sha256
    everything(folder, formats=["py"])
    assert all(path.exists() for path in others)
    assert list(card_of(folder)["sha256"]) == ["best_model.py"]


def other_weights(architecture: Architecture) -> list[Any]:
    return [array * -1 for array in some_weights(architecture)]


@pytest.mark.parametrize(
    ("form", "target", "wrong"),
    [
        (
            "tflite",
            "search.export.tflite.float_tflite",
            lambda made: lambda net, _, **options: made(net, other_weights(net), **options),
        ),
        (
            "int8",
            "search.export.tflite.int8_tflite",
            lambda made: lambda net, _, *rest, **options: made(net, other_weights(net), *rest, **options),
        ),
        ("c", "search.export.c_array.source_text", lambda made: lambda source: made(source).replace("0x1", "0x2")),
        (
            "onnx",
            "search.export.onnx_model.onnx_model",
            lambda made: lambda net, _, **told: made(net, other_weights(net), **told),
        ),
        (
            "add",
            "search.export.formats.add_source",
            lambda made: lambda **options: made(**options).replace("relu", "tanh"),
        ),
    ],
)
def test_a_wrong_form_leaves_the_old_files(form: str, target: str, wrong: Any, copy: Path, monkeypatch: Any) -> None:
    before = contents(copy)
    module, _, name = target.rpartition(".")
    monkeypatch.setattr(target, wrong(getattr(importlib.import_module(module), name)))
    done = everything(copy, formats=[form])
    assert list(done.failed) == [form] and done.failed[form].startswith("read back, it is not the network (")
    if form != "c":  # which brings int8
        assert (dict(done.paths), contents(copy)) == ({}, before)
    assert contents(copy).items() >= {name: content for name, content in before.items() if name != "best_model.json"}.items()
    assert not list(copy.glob(".*"))


def test_int8_files_that_hold_floats_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "int8", replace(INT8, missing=lambda subject: None))
    done = everything(tmp_path, GRAPH, formats=["int8"])
    assert done.failed == {"int8": "read back, it is not the network (holds float32 values, and all must be integers)"}


def test_a_form_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*network: Any, **options: Any) -> bytes:
        raise RuntimeError("TensorFlow Lite's converter cannot express it")

    monkeypatch.setattr("search.export.tflite.float_tflite", broken)
    done = everything(tmp_path, formats=["tflite"])
    assert done.failed == {"tflite": "cannot be written (TensorFlow Lite's converter cannot express it)"}
    assert not list(tmp_path.iterdir())
    with pytest.raises(StudyStopped, match=r"^export: tflite: cannot be written \(TensorFlow Lite's converter"):
        done.require_all()


def test_the_other_formats_are_written_where_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data on which int8 is far from the network: was a traceback and an empty folder."""

    def far(*arguments: Any) -> float:
        raise ValueError("outputs miss 77% of how the network's vary")

    monkeypatch.setattr("search.export.formats.require_alike", far)
    done = everything(tmp_path)
    assert dict(done.failed) == {
        "int8": "read back, it is not the network (outputs miss 77% of how the network's vary)",
        "c": "needs int8, which failed",
    }
    written = {"best_model.keras", "best_model.py", "best_model_add.py", "best_model.tflite", "best_model.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == {*written, "best_model.json"}
    card = card_of(tmp_path)
    assert card["sha256"].keys() == written and list(card["forms"]) == ["keras", "tflite", "onnx"]
    monkeypatch.undo()
    assert everything(tmp_path, formats=["c"]).failed == {}
    assert card_of(tmp_path)["sha256"].keys() > written


def test_an_unexpected_error_is_a_failed_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.export.onnx_model.properties", lambda content: {}["pixels"])
    done = everything(tmp_path, formats=["onnx", "py"])
    assert dict(done.failed) == {"onnx": "read back, it is not the network (KeyError: 'pixels')"}
    assert list(done.paths) == ["py", "json"]


# --- of a run --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_the_quick_forms_and_the_verb_all_of_them(copied: Run, tmp_path: Path) -> None:
    left = {path.name for path in copied.folder.glob("best_model*")}
    assert left == {"best_model.py", "best_model.json", "best_model.keras"}
    assert list(card_of(copied.folder)["forms"]) == ["keras"]
    told = search("export", str(study_file(copied)))  # to the run folder, so the dashboard offers it
    card = card_of(copied.folder)
    assert list(card["forms"]) == ["keras", "tflite", "int8", "c", "onnx"]
    int8 = card["forms"]["int8"]
    assert int8["input"]["pixels"] == "int8 = pixel - 128" and int8["val_images"] == 359
    assert abs(int8["val_accuracy"] - card["scores"]["best_val_accuracy"]) < 0.03
    assert card["forms"]["tflite"]["keras_val_accuracy"] == pytest.approx(card["scores"]["best_val_accuracy"], abs=0.003)
    lines = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line.strip()}
    written = sorted(copied.folder.glob("best_model*"))
    for path in written:
        assert lines[str(path)][0] == f"{path.stat().st_size:,}"
    assert lines[str(copied.folder / "best_model_int8.tflite")][1] == format_percent(int8["val_accuracy"], 359)
    offered = {meta.filename for meta in get_all_artifact_meta(studies.load(copied).candidates)}
    assert {path.name for path in written} <= offered
    best = studies.best(copied, study_records.records(studies.load(copied).candidates)).number
    search("export", str(study_file(copied)), "--trial", str(best), "--form", "json", "--to", str(tmp_path / "one"))
    assert card_of(tmp_path / "one")["network_sha256"] == card["network_sha256"]


def test_images_that_moved_are_named_anew_and_others_rejected(tmp_path: Path) -> None:
    digits = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=200)
    arrays = {"x_train": digits.x_train, "y_train": digits.y_train, "x_test": digits.x_val, "y_test": digits.y_val}
    np.savez(tmp_path / "set.npz", **arrays)
    run = small_run(tmp_path / "run", data={"path": str(tmp_path / "set.npz")}, protocol="course")
    studies.create(run, winner.dataset.load_study_data(run.config))
    assert winner.images(run).fingerprint == winner.dataset.load_study_data(run.config).fingerprint
    (tmp_path / "set.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(UserError, match=r"set\.npz: no such file"):
        winner.images(run)
    np.testing.assert_array_equal(winner.images(run, tmp_path / "moved.npz").x_val, digits.x_val)
    np.savez(tmp_path / "set.npz", **arrays | {"x_train": 255 - digits.x_train})
    with pytest.raises(UserError, match=r"set\.npz: other images than this run has .*--data"):
        winner.images(run)
