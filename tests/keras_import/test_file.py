"""Files that are imported: both forms of Keras are read without Keras, other files and hostile ones end in one line.

python -m pytest tests/keras_import/test_file.py
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from search import __main__ as command_line
from search.errors import UserError
from search.keras_import import file as keras_file
from search.keras_import.convert import convert, read_model
from search.keras_import.graph import read_graph
from search.networks.architecture import load
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
)
from tests.support.keras_archives import written
from tests.support.keras_files import chain2, residual2, residual3, zipped

ROOT = Path(__file__).parents[2]
SMALL = SeparableConv(4)
RESIDUAL = (SMALL, Residual((SeparableConv(8), Gate("silu")), ()), GlobalAveragePool(), Dense(4), Softmax())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """`python -m search WORDS` in this process: status, standard output, standard error."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["search", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return call


# --- what Keras writes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("description", [residual2(), residual3()], ids=["keras 2", "keras 3"])
def test_graphs_of_both_forms_are_read(description: dict[str, Any], tmp_path: Path) -> None:
    for path in (written(tmp_path / "a.json", description), zipped(tmp_path / "a.keras", description)):
        found = read_model(path)
        assert found.problems == ()
        assert found.architecture is not None
        assert (found.architecture.layers, found.architecture.input, found.architecture.name) == (
            RESIDUAL,
            (16, 16, 3),
            "mine",
        )


def test_a_chain_of_keras_2_is_read() -> None:
    found = convert(read_graph(chain2()), "x")
    assert [one.where for one in found.problems] == ["LeakyReLU leaky"]
    assert found.architecture is not None
    assert found.architecture.layers == (
        Conv(8, 3, padding="valid", use_bias=True),
        Activation("relu"),
        BatchNorm(0.9, 1e-5),
        MaxPool(),
        Activation("relu"),
        Dropout(0.25),
        Flatten(),
        Dense(4),
        Softmax(),
    )


def test_older_ways_to_write_the_same_are_read(tmp_path: Path) -> None:
    bare = {"class_name": "Sequential", "config": chain2()["config"]["layers"]}  # as Keras 1 did
    twice = json.dumps(json.dumps(chain2()))  # json.dump(model.to_json(), file)
    (tmp_path / "twice.json").write_text(twice, encoding="utf-8")
    expected = convert(read_graph(chain2()), "x").architecture
    assert expected is not None
    for path in (written(tmp_path / "bare.json", bare), tmp_path / "twice.json"):
        found = read_model(path).architecture
        assert found is not None and found.layers == expected.layers


def test_a_call_that_keras_2_counted_outside_the_model_is_found() -> None:
    description = residual2()
    description["config"]["layers"][-1]["inbound_nodes"][0][0][1] = 1
    assert convert(read_graph(description), "x").problems == ()


# --- other files -----------------------------------------------------------------------------------------------------


WEIGHTS = b"\x89HDF\r\n\x1a\n" + bytes(64)


HDF5 = WEIGHTS + b"model_config" + bytes(64)


OTHERS: dict[str, tuple[str, bytes, str]] = {
    "HDF5": ("net.h5", HDF5, "keras.models.load_model('net.h5').save('net.keras')"),
    "HDF5 under another name": ("net.keras", HDF5, "HDF5 is not imported"),
    "HDF5 of weights": ("weights.h5", WEIGHTS, "holds no layers; pass the .keras file of the whole model"),
    "pickle": ("net.pkl", pickle.dumps({"class_name": "Sequential"}), "never loaded, as loading runs the code in it"),
    "pickle under another name": ("net.json", pickle.dumps([1]), "pickle is not imported"),
    "PyTorch": ("net.pt", b"x", "PyTorch is not imported"),
    "ONNX": ("net.onnx", b"x", "holds operations and no layers"),
    "source": ("net.py", b"import os", "never run"),
    "empty": ("net.keras", b"", "no JSON"),
    "text": ("net.json", b"hello", "no JSON"),
    "a list": ("net.json", b"[1, 2]", "describes no Keras model"),
    "an architecture": ("net.json", b'{"name": "x", "input": [1, 1, 1], "classes": 2, "layers": []}', "file already"),
    "a card": ("net.json", b'{"architecture": {}}', "the card of an export"),
    "deep": ("net.json", b"[" * 100_000, "no JSON"),
    "a subclass": ("net.json", b'{"class_name": "Mine", "config": {}}', "Mine is a custom class"),
    "bytes": ("net.keras", bytes(range(256)), "no JSON"),
    "half a zip": ("net.keras", b"PK\x03\x04" + bytes(60), "damaged"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_rejected_with_the_remedy(case: str, tmp_path: Path, run: Any) -> None:
    name, content, hint = OTHERS[case]
    (tmp_path / name).write_bytes(content)
    status, out, err = run("import", tmp_path / name)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert hint in err and str(tmp_path / name) in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_of_keras_in_hdf5_get_the_remedy_that_works(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    model.save(tmp_path / "model.h5")
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(UserError, match=r"load_model\('model.h5'\)"):
        read_model(tmp_path / "model.h5")
    with pytest.raises(UserError, match="HDF5 of weights alone is not imported; it holds no layers"):
        read_model(tmp_path / "model.weights.h5")


def test_folders_pipes_and_what_is_not_there_are_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.keras")
    (tmp_path / "saved_model").mkdir()
    for name, hint in (("pipe.keras", "not a file"), ("saved_model", "SavedModel"), ("none.keras", "no such file")):
        with pytest.raises(UserError, match=hint):
            read_model(tmp_path / name)


def test_bombs_and_strange_zips_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zipped(tmp_path / "bomb.keras", b" " * (4 * 2**20))
    with pytest.raises(UserError, match="looks like a bomb"):
        read_model(bomb)
    monkeypatch.setattr(keras_file, "LARGEST", 1000)
    with pytest.raises(UserError, match="unpacks to 4,194,304 bytes"):
        read_model(bomb)
    with pytest.raises(UserError, match="a description has at most 1,000"):
        read_model(written(tmp_path / "large.json", [0] * 1000))
    with pytest.raises(UserError, match="PyTorch"):
        read_model(zipped(tmp_path / "torch.keras", {}, **{"archive/data.pkl": b""}))
    with zipfile.ZipFile(tmp_path / "none.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(UserError, match="in 1 members"):
        read_model(tmp_path / "none.keras")
    with zipfile.ZipFile(tmp_path / "packed.keras", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("config.json", b"{}")
    with pytest.raises(UserError, match="packed with method 14"):
        read_model(tmp_path / "packed.keras")


def test_nothing_of_the_file_is_run_and_tensorflow_is_not_loaded(tmp_path: Path) -> None:
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
    description = chain2()
    description["config"]["layers"][3] = {"class_name": "Lambda", "config": {"name": "code", "function": code}}
    path = zipped(tmp_path / "mine.keras", description)
    script = (
        "import sys; from search.__main__ import main; sys.argv = ['search', 'import', sys.argv[1]]\n"
        "try: main()\n"
        "finally: print(*({'tensorflow', 'keras', 'optuna', 'plotly'} & sys.modules.keys()), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert "Lambda code: code, which is never run" in ended.stdout
    assert ended.stderr.splitlines()[-1] == ""
    assert not (ROOT / "mine.json").exists()


# --- the verb --------------------------------------------------------------------------------------------------------


def test_the_file_is_written_where_it_is_asked_for_and_over_nothing(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = zipped(tmp_path / "my net.keras", residual3())
    status, out, err = run("import", model)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "The architecture file: my_net.json"
    assert load(tmp_path / "my_net.json").layers == RESIDUAL
    assert run("import", model)[0] == 0  # the same again
    (tmp_path / "my_net.json").write_text("kept", encoding="utf-8")
    status, _, err = run("import", model)
    assert status == 2 and "is there already and holds something else" in err
    assert (tmp_path / "my_net.json").read_text(encoding="utf-8") == "kept"
    assert run("import", model, "--replace")[0] == 0
    assert load(tmp_path / "my_net.json").layers == RESIDUAL
    assert run("import", model, "--to", tmp_path / "sub" / "other.json")[0] == 0
    assert load(tmp_path / "sub" / "other.json").name == "mine"
    assert "call it other.json" in run("import", model, "--to", "other.txt")[2]
    described = written(tmp_path / "described.json", residual3())
    assert run("import", described)[0] == 0
    assert json.loads(described.read_text(encoding="utf-8")) == residual3()
    assert load(tmp_path / "described-architecture.json").layers == RESIDUAL


def test_unknown_layers_write_nothing_unless_the_nearest_is_requested(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = written(tmp_path / "chain.json", chain2())
    status, out, err = run("import", model, "--to", "net.json")
    assert status == 2 and "--nearest" in err and err.count("\n") == 1
    assert "LeakyReLU leaky" in out
    assert not (tmp_path / "net.json").exists()
    assert run("import", model, "--to", "net.json", "--nearest")[0] == 0
    assert Activation("relu") in load(tmp_path / "net.json").layers


def test_json_has_the_rules_and_the_network(tmp_path: Path, run: Any) -> None:
    model = zipped(tmp_path / "net.keras", residual3())
    status, out, err = run("import", model, "--to", tmp_path / "net.json", "--json", "--budget", "100")
    assert (status, err.startswith("The architecture file")) == (0, True)
    shown = json.loads(out)
    assert shown.keys() == {"network", "rules", "read_as", "left_out"}
    assert shown["network"]["params"] == 27 + 12 + 36 + 32 + 20
    rules = {one["rule"]: one["holds"] for one in shown["rules"]}
    assert rules == {
        "known layers": True,
        "input": False,
        "separable only": True,
        "batch norm": False,
        "dropout": False,
        "softmax": True,
        "budget": False,
    }


def test_show_and_export_say_how_a_keras_model_becomes_a_network(tmp_path: Path, run: Any) -> None:
    model = zipped(tmp_path / "net.keras", residual3())
    for verb in ("show", "export"):
        status, _, err = run(verb, model)
        assert status == 2 and f"python -m search import {model}" in err
