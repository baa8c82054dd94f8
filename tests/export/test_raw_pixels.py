"""Exports that take pixels from 0 to 255: every form says so, and computes what the trained network computes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.budget.cost import compute_cost
from search.data.preprocessing import RAW, Pixels
from search.errors import UserError
from search.export import int8, litert
from search.export.exporter import Exported
from search.export.verification import sample_images
from search.training.model import load
from tests.export.test_formats import GRAPH, NORMALISED, STACK, everything, some_weights
from tests.support.commands import search


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    folder = tmp_path_factory.mktemp("raw")
    return folder, everything(folder, is_raw=True, opset=17)


def expected(images: Any) -> Any:
    """Probabilities of the network for these pixels, prepared outside it."""
    from search.training.model import build

    model = build(STACK)
    model.set_weights(some_weights(STACK))
    return np.asarray(model(NORMALISED.apply(images), training=False))


def test_every_form_is_written_beside_those_of_prepared_pixels(raw: tuple[Path, Exported]) -> None:
    folder, exported = raw
    assert not exported.failed
    names = {path.name for path in folder.iterdir()}
    assert names == {f"best_model_raw{ending}" for ending in (
        ".keras", ".py", "_add.py", ".tflite", "_int8.tflite", "_int8.cc", "_int8.h", "_int8_test.h", ".onnx",
        ".json",
    )}  # fmt: skip
    card = json.loads((folder / "best_model_raw.json").read_text(encoding="utf-8"))
    assert card["pixels"]["raw"] is True and "from 0 to 255 as they are" in card["pixels"]["description"]
    assert Pixels.from_dict(card["pixels"]) == RAW
    assert "from 0 to 255 as they are" in card["forms"]["tflite"]["input"]["pixels"]
    assert card["forms"]["int8"]["input"]["pixels"] == "int8 = pixel - 128"
    assert card["forms"]["onnx"]["opset"] == 17


def test_the_forms_compute_what_the_network_computes(raw: tuple[Path, Exported]) -> None:
    import onnx

    folder, _ = raw
    images = sample_images(STACK.input)
    wanted = expected(images)
    model = load(folder / "best_model_raw.keras")
    assert np.abs(np.asarray(model(images.astype("float32"), training=False)) - wanted).max() < 1e-5
    content = (folder / "best_model_raw.tflite").read_bytes()
    assert np.abs(litert.outputs(content, images, lambda batch: batch.astype("float32")) - wanted).max() < 1e-4
    content = (folder / "best_model_raw_int8.tflite").read_bytes()
    assert np.abs(int8.outputs(content, images, RAW) - wanted).max() < 0.05
    metadata = {prop.key: json.loads(prop.value) for prop in onnx.load(folder / "best_model_raw.onnx").metadata_props}
    assert metadata["pixels"] == {"mean": [], "std": [], "raw": True}


def test_a_microcontroller_subtracts_128_and_no_more(raw: tuple[Path, Exported]) -> None:
    header = (raw[0] / "best_model_raw_int8.h").read_text(encoding="utf-8")
    assert "return static_cast<int8_t>(value - 128);" in header
    content = (raw[0] / "best_model_raw_int8.tflite").read_bytes()
    given = litert.read(content).input
    assert (given.scale, given.zero_point) == (1.0, -128)


def test_the_arena_in_the_header_counts_the_layer_that_normalises(raw: tuple[Path, Exported]) -> None:
    header = (raw[0] / "best_model_raw_int8.h").read_text(encoding="utf-8")
    assert int(header.split("_arena_bytes = ")[1].split(";")[0]) > compute_cost(STACK).arena_bytes


def test_the_saved_model_holds_a_standard_layer(raw: tuple[Path, Exported]) -> None:
    with zipfile.ZipFile(raw[0] / "best_model_raw.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert layers[1]["class_name"] == "Rescaling" and layers[1]["module"] == "keras.layers"


def test_pixels_that_are_only_divided_need_no_layer_in_integers(tmp_path: Path) -> None:
    formats = ["int8"]
    everything(tmp_path / "raw", pixels=Pixels(), is_raw=True, formats=formats)
    everything(tmp_path / "prepared", pixels=Pixels(), formats=formats)
    raw_file, prepared = tmp_path / "raw" / "best_model_raw_int8.tflite", tmp_path / "prepared" / "best_model_int8.tflite"
    assert raw_file.read_bytes() == prepared.read_bytes()
    card = json.loads((tmp_path / "raw" / "best_model_raw.json").read_text(encoding="utf-8"))
    assert card["forms"]["int8"]["input"]["pixels"] == "int8 = pixel - 128"


def test_a_network_with_branches_takes_raw_pixels_too(tmp_path: Path) -> None:
    exported = everything(tmp_path, GRAPH, is_raw=True, formats=["py", "keras", "onnx"])
    assert not exported.failed
    source = (tmp_path / "best_model_raw.py").read_text(encoding="utf-8")
    assert "x = layers.Rescaling([" in source and 'return images.astype("float32")\n' in source


def test_both_kinds_of_export_stand_in_one_folder(tmp_path: Path) -> None:
    everything(tmp_path, formats=["keras"])
    everything(tmp_path, is_raw=True, formats=["keras"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "best_model.keras", "best_model.json", "best_model_raw.keras", "best_model_raw.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pixels", "ray"), "--pixels ray: must be raw"),
        (("--form", "submission", "--pixels", "raw"), "--form submission: has no --pixels"),
        (("--opset", "3"), "--opset: must be"),
    ],
)
def test_other_words_are_rejected(words: tuple[str, ...], message: str) -> None:
    ended = search("export", "eip-b", *words)
    assert ended.status == 2 and message in ended.err


def test_raw_pixels_have_no_mean() -> None:
    with pytest.raises(UserError, match="raw pixels have no mean"):
        Pixels.from_dict({"mean": [0.5], "std": [0.5], "raw": True})
