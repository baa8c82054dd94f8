"""Exported source: its layers, comments and names, and the same network again."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings

from search.budget.summary import summarize
from search.data.preprocessing import Pixels
from search.export.keras_source import add_source, is_stack, keras_source
from search.networks.architecture import Architecture, fingerprint, from_json, identifier
from search.networks.geometry import flatten, resolve
from search.networks.layers import (
    Conv,
    Dense,
    Flatten,
    Softmax,
    SpatialSeparableConv,
)
from search.training.model import build
from tests.support.exports import EXPLICIT, NETWORKS, NORMALISED, images, net, run, some_weights, take_away
from tests.support.strategies import architectures
from tests.support.tiers import tiered

# Keras 3.15 hands its variables to NumPy 2 in a way that NumPy calls outdated, whenever a model is saved.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
RULES = "E,F,W,I,B,UP,C4,SIM,PTH,RUF,N,TID"
HOSTILE = [
    '"""',
    '""""',
    '"',
    "\\",
    '\\"""',
    "a\nimport os",
    "a\r\n'''",
    "\\N{x} \\x",
    "_under",
    "日本",
    "\u202e\x00",
    "x" * 999,
    "{n}",
]


def outputs(model: Any, inputs: Any) -> Any:
    return np.asarray(model(inputs, training=False))


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(  # the other references have no other kinds of layers
    "name", tiered(("base", "eip-b", *EXPLICIT), quick=("eip-b", "residuals", "gates", "vector"))
)
def test_every_form_is_the_same_network(name: str, tmp_path: Path) -> None:
    architecture, weights = NETWORKS[name], some_weights(NETWORKS[name])
    paths = take_away(architecture, tmp_path, weights=weights)
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())
    trained = build(architecture)
    trained.set_weights(weights)
    module = run(paths["py"].read_text(encoding="utf-8"))
    inputs = module.prepare(images(architecture))
    expected = outputs(trained, inputs)
    loaded = keras.models.load_model(paths["keras"])
    np.testing.assert_allclose(outputs(loaded, inputs), expected, atol=1e-5)
    by_file, by_name, by_order = module.build_model(), module.build_model(), module.build_model()
    added = run(paths["add"].read_text(encoding="utf-8")).model if "add" in paths else module.build_model()
    added.load_weights(paths["keras"])
    by_file.load_weights(paths["keras"])  # as the source says in its docstring
    by_order.set_weights(weights)
    for layer in trained.layers:
        if layer.weights:
            by_name.get_layer(layer.name).set_weights(layer.get_weights())
    for model in (by_file, by_name, by_order, added):
        assert model.count_params() == summarize(architecture)["params"]
        np.testing.assert_allclose(outputs(model, inputs), expected, atol=1e-5)
    card = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert fingerprint(from_json(json.dumps(card["architecture"]))) == fingerprint(architecture)


@pytest.mark.filterwarnings("ignore:.*a softmax over axis -1:UserWarning")  # of one class
@given(architectures())
@settings(max_examples=8)
def test_source_of_any_network_is_the_same_network(architecture: Architecture) -> None:
    model, sources = build(architecture), [run(keras_source(architecture)).build_model()]
    model.set_weights(some_weights(architecture))
    sources += [run(add_source(architecture)).model] if is_stack(architecture) else []
    inputs = images(architecture).astype(np.float32) / 255
    for built in sources:
        assert built.count_params() == model.count_params() == summarize(architecture)["params"]
        built.set_weights(model.get_weights())
        np.testing.assert_allclose(outputs(built, inputs), outputs(model, inputs), atol=1e-5)


@pytest.mark.parametrize("initializer", ["glorot_uniform", "he_normal"])
@pytest.mark.parametrize("name", EXPLICIT)
def test_layers_have_the_options_of_the_model(name: str, initializer: str) -> None:
    def options(model: Any) -> dict[str, Any]:
        found = {}
        for layer in model.layers:
            config = {key: value for key, value in layer.get_config().items() if key != "seed"}
            for key, value in config.items():
                if key.endswith("initializer"):
                    config[key] = value["class_name"] if isinstance(value, dict) else value
            if not isinstance(layer, keras.layers.InputLayer) and "get_item" not in layer.name:
                found[layer.name] = config
        return found

    source = keras_source(EXPLICIT[name], initializer=initializer)
    assert options(run(source).build_model()) == options(build(EXPLICIT[name], initializer=initializer))
    if initializer == "glorot_uniform":
        assert "initializer" not in source  # Keras' own is left out


# --- the source as people read it ------------------------------------------------------------------------------------


COMMENT = re.compile(r"# (?P<output>[\dx]+) +(receptive field +(?P<field>[\dx]+) +)?(?P<params>[\d,]+) params$")


def comments(source: str) -> dict[str, tuple[list[int], str | None, int]]:
    """By the name of the layer; what is used again counts on: `conv_1`, `conv_1 again`, ..."""
    found: dict[str, tuple[list[int], str | None, int]] = {}
    for line in source.splitlines():
        if match := COMMENT.search(line):
            (name,) = re.findall(r'name="(\w+)"', line) or re.findall(r"x = (\w+)\(x\)", line)
            while name in found:
                name += " again"
            output = [int(size) for size in match["output"].split("x")]
            found[name] = (output, match["field"], int(match["params"].replace(",", "")))
    return found


@pytest.mark.parametrize("style", [keras_source, add_source])
@pytest.mark.parametrize("name", NETWORKS)
def test_comments_say_what_the_table_says(name: str, style: Callable[[Architecture], str]) -> None:
    if style is add_source and not is_stack(NETWORKS[name]):
        with pytest.raises(ValueError, match="the network branches or calls a layer twice"):
            style(NETWORKS[name])
        return
    source = style(NETWORKS[name])
    found, priced = comments(source), summarize(NETWORKS[name])
    uses: Counter[str] = Counter()
    for (_, resolved), row in zip(flatten(resolve(NETWORKS[name])), priced["layers"], strict=True):
        own = resolved.first or resolved.name
        again = " again" * uses[own]
        uses[own] += 1
        output, field, params = found[own + again]
        params += found.get(f"{own}_vertical{again}", ([], None, 0))[2]
        pair = None if field is None else [int(field)] * 2
        assert (output, pair, params) == (row["output"], row["receptive_field"], row["params"]), row["name"]
    assert sum(params for _, _, params in found.values()) == priced["params"]
    assert f"{priced['params']:,} ({priced['trainable_params']:,} trainable)" in source
    columns = {line.index("  # ") for line in source.splitlines() if COMMENT.search(line)}
    assert len(columns) == 1
    made = [line for line in source.splitlines() if "layers." in line]
    assert {line.count("layers.") for line in made if COMMENT.search(line)} <= {1}
    assert all(COMMENT.search(line) or re.match(r" +(\w+) = layers\.\w+\(.*name=\"\1\"\)$", line) for line in made)


def test_halves_of_a_spatially_separable_convolution_have_their_own_shapes() -> None:
    found = comments(keras_source(net(SpatialSeparableConv(8, 5, stride=2, padding="valid"))))
    assert found["spatial_separable_conv_1_vertical"] == ([8, 11, 3], "5x1", 15)
    assert found["spatial_separable_conv_1"] == ([4, 4, 8], "5", 15 + 24)
    assert comments(keras_source(EXPLICIT["gates"]))["spatial_separable_conv_1_vertical"] == ([12, 11, 4], "5x3", 12)
    model = build(net(SpatialSeparableConv(8, 5, stride=2, padding="valid")))
    assert model.get_layer("spatial_separable_conv_1_vertical").output.shape == (None, 8, 11, 3)


def test_a_plain_stack_is_sequential_and_a_graph_is_functional() -> None:
    assert "keras.Sequential([\n        keras.Input((32, 32, 3)" in keras_source(NETWORKS["eip-b"])
    source = keras_source(EXPLICIT["residuals"])
    assert "Sequential" not in source
    assert "    shortcut = x\n" in source and "([x, shortcut])" in source and "    shortcut_2 = shortcut\n" in source


def test_a_script_adds_one_layer_a_line() -> None:
    tree = ast.parse(add_source(NETWORKS["eip-b"]))
    calls = [one.value.func for one in tree.body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Call)]
    assert [ast.unparse(call) for call in calls] == ["model.add"] * (1 + len(summarize(NETWORKS["eip-b"])["layers"]))


def test_ruff_has_no_complaint(tmp_path: Path) -> None:
    many = Architecture((4, 4, 16), 2, (Flatten(), Dense(2), Softmax()), "sixteen")
    for name, architecture in NETWORKS.items():
        pixels = NORMALISED if architecture.input[-1] == 3 else None
        source = keras_source(
            architecture, pixels=pixels, heading=["Best of 40.", "", "word " * 60], initializer="he_normal"
        )
        (tmp_path / f"{identifier(name)}.py").write_text(source, encoding="utf-8")
        if is_stack(architecture):
            adds = add_source(architecture, pixels=pixels, heading=["word " * 60], initializer="he_normal")
            (tmp_path / f"{identifier(name)}_add.py").write_text(adds, encoding="utf-8")
    sixteen = keras_source(many, pixels=Pixels((1 / 3,) * 16, (1 / 7,) * 16))
    (tmp_path / "sixteen.py").write_text(sixteen, encoding="utf-8")
    (tmp_path / "plain.py").write_text(keras_source(NETWORKS["eip-b"]), encoding="utf-8")
    for i, name in enumerate(HOSTILE):
        (tmp_path / f"hostile_{i}.py").write_text(keras_source(net(Conv(2), name=name), heading=[name]), encoding="utf-8")
    options = ["--isolated", "--no-cache", "--line-length", "120", str(tmp_path)]
    for arguments in (["check", "--select", RULES], ["format", "--diff"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *arguments, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_inside_its_string(name: str) -> None:
    architecture = replace(EXPLICIT["elementwise"], name=name)
    source = keras_source(architecture, heading=[name, f"x{name}"])
    tree = ast.parse(source)
    kinds = ["Expr", "Import", "Import", "ImportFrom", "FunctionDef", "FunctionDef", "If"]
    assert [type(statement).__name__ for statement in tree.body] == kinds
    assert run(source).build_model().name == identifier(name)
    docstring = ast.get_docstring(tree)
    assert docstring is not None and "Multiply-adds" in docstring


@pytest.mark.parametrize("name", HOSTILE)
def test_an_identifier_is_a_name_that_tensorflow_takes(name: str) -> None:
    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9_]*", identifier(name))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_exported(name: str, tmp_path: Path) -> None:
    architecture = Architecture((2, 2, 1), 2, (Flatten(), Dense(2), Softmax()), name)
    paths = take_away(architecture, tmp_path, weights=some_weights(architecture))
    assert json.loads(paths["json"].read_text(encoding="utf-8"))["name"] == name


@pytest.mark.parametrize("style", [keras_source, add_source])
def test_main_prints_the_summary(style: Callable[[Architecture], str], capsys: pytest.CaptureFixture[str]) -> None:
    run(style(NETWORKS["eip-b"]), "__main__")
    assert "94,911" in capsys.readouterr().out
