"""A .keras file holds only what Keras 3.10 knows, so that every Keras from there on loads it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from search.export.keras_archive import ARGUMENTS, TRIED_WITH, save_model
from search.training.model import build, load
from tests.export.test_source import outputs
from tests.support.exports import EXPLICIT, images, some_weights

# Arguments of the constructors in Keras 3.10.0, read with `inspect`; of Functional, the keys that its `from_config` reads.
KERAS_3_10: dict[str, list[str]] = json.loads((Path(__file__).parent / "keras_3_10.json").read_text(encoding="utf-8"))


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every serialised object inside a configuration."""
    if isinstance(value, list):
        for entry in value:
            yield from objects(entry)
    elif isinstance(value, dict):
        if "registered_name" in value:
            yield value
        for entry in value.values():
            yield from objects(entry)


def config_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        return json.loads(archive.read("config.json"))


@pytest.mark.parametrize("name", EXPLICIT)
def test_a_file_holds_only_arguments_that_keras_3_10_knows(name: str, tmp_path: Path) -> None:
    network = EXPLICIT[name]
    model = build(network)
    model.set_weights(some_weights(network))
    save_model(model, tmp_path / "net.keras")
    for entry in objects(config_of(tmp_path / "net.keras")):
        unknown = entry["config"].keys() - set(KERAS_3_10[entry["class_name"]])
        assert not unknown, entry["class_name"]
    inputs = images(network).astype(np.float32) / 255
    np.testing.assert_array_equal(outputs(load(tmp_path / "net.keras"), inputs), outputs(model, inputs))


def test_archives_of_keras_itself_are_unknown_to_3_10(tmp_path: Path) -> None:
    """The reason for the module; once it fails, the module can go."""
    build(EXPLICIT["vector"]).save(tmp_path / "net.keras")
    entries = list(objects(config_of(tmp_path / "net.keras")))
    assert any(entry["config"].keys() - set(KERAS_3_10[entry["class_name"]]) for entry in entries)


def test_the_list_of_arguments_is_part_of_keras_3_10s() -> None:
    assert ARGUMENTS.keys() == KERAS_3_10.keys()
    for name, arguments in ARGUMENTS.items():
        assert arguments <= {*KERAS_3_10[name]}


def test_a_layer_that_is_not_listed_is_rejected(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.LeakyReLU()])
    with pytest.raises(ValueError, match=r"^LeakyReLU is not in the list of Keras 3\.10's constructor arguments$"):
        save_model(model, tmp_path / "net.keras")


def test_the_present_keras_is_among_those_that_files_were_tried_with() -> None:
    """After an upgrade: load exported files of every kind of layer in the versions of TRIED_WITH, then add the new one."""
    assert keras.__version__ in TRIED_WITH
