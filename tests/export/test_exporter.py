"""Source, card and trained model read back: the same network in each form, and nothing half-written."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings

from search.budget.summary import summarize
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export.exporter import Exported, export
from search.export.keras_source import add_source, is_stack, keras_source
from search.files import draft_of, read_weights, write_weights
from search.networks.architecture import Architecture, fingerprint, from_json, identifier, load, to_dict
from search.networks.geometry import flatten, resolve
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.seeds import generator
from search.training.model import build
from tests.support.strategies import architectures

# Keras 3.15 hands its variables to NumPy 2 in a way that NumPy calls outdated, whenever a model is saved.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")

ROOT = Path(__file__).parents[2]
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
NORMALISED = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def net(*layers: Layer, input: tuple[int, int, int] = (12, 11, 3), name: str = "net") -> Architecture:
    return Architecture(input, 2, (*layers, GlobalAveragePool(), Dense(2), Softmax()), name)


EXPLICIT = {
    "convolutions": net(
        SeparableConv(4, 3, dilation=2, depth_multiplier=2, use_bias=True),
        SeparableConv(4, 2, stride=2, padding="valid"),
        Conv(6, 3, use_bias=True),
        Conv(6, 1, stride=2),
        Conv(4, 2, dilation=2, padding="valid"),
    ),
    "spatial": net(
        SpatialSeparableConv(8, 3, stride=2, use_bias=True),
        SpatialSeparableConv(8, 1),
        SpatialSeparableConv(6, 2, dilation=2, padding="valid"),
    ),
    "elementwise": net(
        BatchNorm(0.9, 1e-5), Activation("hard_silu"), Dropout(0.0), Dropout(0.3), BatchNorm(), Activation("gelu")
    ),
    "pools": net(
        MaxPool(3, 1), MaxPool(3, 1, "same"), AveragePool(2, 2), AveragePool(3, 2, "same"), MaxPool(1), SeparableConv(3)
    ),
    "vector": Architecture((4, 5, 1), 3, (Flatten(), Dense(7, use_bias=False), Activation("relu6"),
                                          Flatten(), Dense(6), Gate(), Softmax())),
    "no classifier": Architecture((4, 5, 1), 20, (Flatten(), Softmax())),
    "gates": net(SeparableConv(8), Gate("silu"), SpatialSeparableConv(4), Gate(), Residual((SeparableConv(4), Gate()))),
    "residuals": net(
        Conv(4),
        Residual((SeparableConv(4), BatchNorm(), Activation("relu"))),
        Residual((SeparableConv(6, stride=2),), (AveragePool(2, padding="same"), Conv(6, 1))),
        Residual(
            (SeparableConv(6), Residual((SpatialSeparableConv(6), Gate("tanh"), Conv(6, 1)))),
            (Residual((BatchNorm(),), (BatchNorm(0.5),)), Residual((), (Conv(6, 1),))),
        ),
        Residual((), ()),
    ),
    "shared weights": net(
        SeparableConv(4, 5, weights="a"),
        *(Residual((SeparableConv(4, 3, weights="b"), BatchNorm(), SpatialSeparableConv(4, weights="c"))),) * 2,
        Conv(4, 1, weights="d"), BatchNorm(), Conv(4, 1, weights="d"), SpatialSeparableConv(4, weights="c"),
    ),
    "shared weights, no branch": net(SeparableConv(3, weights="a"), BatchNorm(), SeparableConv(3, weights="a")),
}  # fmt: skip


def references() -> dict[str, Architecture]:
    return {path.stem: load(path) for path in sorted((ROOT / "studies" / "references").glob("*.json"))}


NETWORKS = references() | EXPLICIT


def some_weights(architecture: Architecture) -> list[Any]:
    """Weights of which no two arrays are alike, so that an exchange of two of them shows."""
    random = generator(1, "weights")
    own = build(architecture).get_weights()
    return [array * random.uniform(0.8, 1.2, array.shape) + random.uniform(0, 0.05, array.shape) for array in own]


def exported(architecture: Architecture, folder: Path, **changes: Any) -> Exported:
    """An export, of a trained network in the formats that Keras reads if no others are asked for."""
    arguments: dict[str, Any] = {"weights": None, "facts": {}, "pixels": Pixels(), "recipe": None} | changes
    if arguments["weights"] is not None:
        arguments = {"formats": ["py", "keras", *(["add"] if is_stack(architecture) else [])]} | arguments
    return export(architecture, folder, **arguments)


def take_away(architecture: Architecture, folder: Path, **changes: Any) -> dict[str, Path]:
    """The first file of each format of an export in which none fails."""
    done = exported(architecture, folder, **changes)
    assert not done.failed
    return {name: paths[0] for name, paths in done.paths.items()}


def run(source: str, name: str = "exported") -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, "best_model.py", "exec"), module.__dict__)
    return module


def images(architecture: Architecture) -> Any:
    return generator(2, "images").integers(0, 256, (3, *architecture.input), dtype=np.uint8)


def outputs(model: Any, inputs: Any) -> Any:
    return np.asarray(model(inputs, training=False))


def test_references_are_six() -> None:
    assert len(references()) == 6


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("base", "eip-b", *EXPLICIT))  # the other references have no other kinds of layers
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
def test_pixels_of_something_else_are_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^pixels: .*expected mean and std"):
        Pixels.from_dict(plain)


def test_pixels_of_other_channels_are_refused() -> None:
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
def test_what_cannot_be_exported_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        take_away(NETWORKS["eip-b"], tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = some_weights(EXPLICIT["vector"])
    weights[1][0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        take_away(EXPLICIT["vector"], tmp_path, weights=weights)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
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


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "named.npz", kernel=np.ones(3))
    np.savez(tmp_path / "pickled.npz", w0000=np.array([None]))
    for name in ("one.npy", "named.npz", "pickled.npz", "missing.npz", "."):
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            read_weights(tmp_path / name)


def test_a_card_is_read_as_the_architecture_it_holds(tmp_path: Path) -> None:
    network = load(ROOT / "studies" / "references" / "eip-b.json")
    assert load(take_away(network, tmp_path, formats=["json"])["json"]) == network
