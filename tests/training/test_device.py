"""Backend settings and the choice of device, by simulation: no test here needs a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.errors import StudyStopped, UserError
from search.training import device

ROOT = Path(__file__).parents[2]
BUILD = """
import os
from search.training.device import load_backend, prepare_device
{setup}
import keras, numpy as np
from search.networks.architecture import Architecture
from search.networks.layers import BatchNorm, Conv, Dense, GlobalAveragePool, Softmax
from search.training.model import build
network = Architecture((6, 5, 3), 4, (Conv(2), BatchNorm(), GlobalAveragePool(), Dense(4), Softmax()), "net")
model = build(network)
assert model.input_shape == (None, 6, 5, 3)
assert all(weight.dtype == "float32" for weight in model.weights)
assert model(np.zeros((1, 6, 5, 3), "float32")).dtype == "float32"
print(keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code]
    outside = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES")}
    return subprocess.run(
        words, cwd=ROOT, env=outside | environment, capture_output=True, text=True, timeout=300, check=False
    )


def keras_home(folder: Path, **settings: object) -> str:
    """A folder with Keras' settings file."""
    (folder / "keras.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(folder)


# --- Keras' settings -------------------------------------------------------------------------------------------------


def odd_keras_home(folder: Path) -> str:
    """A folder with settings that no network may be built by."""
    return keras_home(folder, image_data_format="channels_first", floatx="float16", epsilon=0.5, backend="tensorflow")


KERAS = ["channels_last", "float32", "1e-07"]  # what BUILD prints


@pytest.mark.long
def test_settings_of_keras_json_do_not_reach_the_networks(tmp_path: Path) -> None:
    """Here Keras is imported before the application sets it up; the tests of devices have both ways of setting it up."""
    done = run(BUILD.format(setup=""), KERAS_HOME=odd_keras_home(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == KERAS


@pytest.mark.parametrize("name", ["torch", "numpy", "openvino", "theano"])
def test_a_backend_without_an_engine_is_rejected_by_name(name: str, tmp_path: Path) -> None:
    code = "from search.training.device import backend; backend()"
    refused = "has no training engine; set KERAS_BACKEND=tensorflow, or jax"
    done = run(code, KERAS_BACKEND=name)
    assert f"UserError: KERAS_BACKEND={name}: the backend '{name}' {refused}" in done.stderr
    done = run(code, KERAS_HOME=keras_home(tmp_path, backend=name))
    assert f"UserError: {tmp_path / 'keras.json'}: the backend '{name}' {refused}" in done.stderr


def test_settings_that_keras_refuses_are_named(tmp_path: Path) -> None:
    code = "from search.training.device import configure_keras; configure_keras()"
    done = run(code, KERAS_HOME=keras_home(tmp_path, floatx="float8"))
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError: Keras on tensorflow cannot be imported" in last and str(tmp_path / "keras.json") in last


@pytest.mark.parametrize("name", [pytest.param("torch", marks=pytest.mark.long), "numpy"])
def test_a_run_on_such_a_backend_ends_with_status_2_before_anything_is_stored(name: str, tmp_path: Path) -> None:
    words = ["run", "quickstart", "--epochs", "1", "--trials", "1", "--out", str(tmp_path / "run")]
    done = run(
        f"import sys; sys.argv = ['search', *{words!r}]; from search.__main__ import main; main()", KERAS_BACKEND=name
    )
    assert done.returncode == 2, done.stderr
    assert f"the backend '{name}' has no training engine" in done.stderr
    assert not (tmp_path / "run").exists()


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a driver and a backend built for GPUs."""
    (tmp_path / "version").touch()
    monkeypatch.setattr(device, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(device, "WSL_DEVICE", tmp_path / "dxg")
    monkeypatch.setattr(device, "has_gpu_build", lambda: True)
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    monkeypatch.setattr(device, "_tensorflow_devices", lambda: ("TensorFlow 2.21.0", []))
    for name in ("CUDA_VISIBLE_DEVICES", device.ASSIGNED):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_cause_of_a_missing_gpu_is_named(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found_none = "the driver is there, but CUDA found no usable GPU; see nvidia-smi"
    assert device.missing_gpu_cause().startswith(found_none)
    for hidden in ("", "-1"):
        machine.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert device.missing_gpu_cause() == f"CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs"
    machine.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert device.missing_gpu_cause().startswith(found_none)
    machine.setattr(device, "has_gpu_build", lambda: False)
    assert "is built for the CPU; make GPU=1 venv" in device.missing_gpu_cause()
    (tmp_path / "version").unlink()
    assert device.missing_gpu_cause() == "the system has no NVIDIA driver"
    (tmp_path / "dxg").touch()  # Windows' subsystem for Linux
    assert device.missing_gpu_cause() != "the system has no NVIDIA driver"


def test_a_worker_without_the_gpu_that_it_was_assigned_does_not_train(machine: pytest.MonkeyPatch) -> None:
    machine.setenv(device.ASSIGNED, "1")
    with pytest.raises(
        StudyStopped, match=r"GPU 1 was assigned to this worker, but TensorFlow .* found none: the driver is"
    ):
        device.prepare_device()
    machine.delenv(device.ASSIGNED)
    assert device.prepare_device().kind == "cpu"


def test_the_description_names_device_and_cause_and_claims_nothing_of_other_data(machine: pytest.MonkeyPatch) -> None:
    description = device.prepare_device().description
    assert "no GPU was found: the driver is there" in description and "CIFAR" not in description
    machine.setattr(device, "_tensorflow_devices", lambda: ("TensorFlow 2.21.0", ["NVIDIA A100", "NVIDIA A100"]))
    assert device.prepare_device() == device.Device("gpu", "training on NVIDIA A100 with TensorFlow 2.21.0")


@pytest.mark.parametrize(
    ("packages", "backend", "expected"),
    [
        (["tensorflow-cpu"], "tensorflow", False),
        (["tensorflow"], "tensorflow", True),
        (["tensorflow_cpu", "tensorflow"], "tensorflow", True),
        (["tensorflow", "jax"], "jax", False),
        (["jax", "jax-cuda13-plugin"], "jax", True),
    ],
)
def test_a_build_for_gpus_is_known_by_its_packages(
    packages: list[str], backend: str, expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in packages:  # importlib.metadata finds an installed package by this folder
        folder = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    monkeypatch.setattr(device.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(device, "backend", lambda: backend)
    assert device.has_gpu_build() is expected


def test_onednn_takes_the_calling_thread_unless_the_user_says_otherwise(machine: pytest.MonkeyPatch) -> None:
    name = "TF_ONEDNN_THREADPOOL_USE_CALLER_THREAD"
    for before, after in ((None, "1"), ("0", "0")):
        machine.delenv(name, raising=False)
        if before is not None:
            machine.setenv(name, before)
        device.prepare_device()
        assert os.environ[name] == after


@pytest.mark.long
def test_every_layer_and_option_trains_with_deterministic_kernels(tmp_path: Path) -> None:
    """TensorFlow refuses an operation that has none at its first use; the choice holds for the process."""
    code = """
from tensorflow.python.framework.config import is_op_determinism_enabled
assert is_op_determinism_enabled()
from search.training.engine.epoch import plan_epoch
from tests.support.programs import cases, engine_for
for case in cases():
    if case.name in ("residual", "pools") and case.policy == "float32":
        engine = engine_for(case)
        engine.begin(plan_epoch(case.recipe, 20, 0, 0))
        assert np.isfinite(engine.train(0, 2).loss)
"""
    setup = "from search.training.device import set_deterministic; prepare_device(); set_deterministic()"
    done = run(BUILD.format(setup=setup) + code, KERAS_HOME=odd_keras_home(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == KERAS


def test_verbs_that_look_or_export_leave_gpus_alone(tmp_path: Path) -> None:
    """They load neither scikit-learn nor JAX, which stay importable."""
    setup = """
import sys
from search.training.device import configure_keras
configure_keras()
assert not {"sklearn", "jax"} & set(sys.modules)
import sklearn.base
import tensorflow as tf
hidden = []
tf.config.set_visible_devices = lambda devices, kind: hidden.append((devices, kind))
load_backend()
assert hidden == [([], "GPU")]
"""
    done = run(BUILD.format(setup=setup), KERAS_HOME=odd_keras_home(tmp_path))
    assert done.stdout.split() == KERAS, done.stderr


def test_each_verb_that_imports_keras_without_training_hides_the_gpus() -> None:
    """All of them load it by `load_backend`; `prepare_device` is for a worker and for a forecast by timing."""
    users = [
        str(path.relative_to(ROOT))
        for folder in ("search", "report")
        for path in (ROOT / folder).rglob("*.py")
        if "prepare_device" in path.read_text(encoding="utf-8")
    ]
    assert sorted(users) == [
        *("search/training/device.py", "search/training/trainer.py"),
        "search/tuning/forecast.py",
    ]


def test_the_needs_of_a_converter_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.no_tensorflow() is None
    monkeypatch.setattr(device, "backend", lambda: "jax")
    assert device.no_tensorflow() == "needs Keras on TensorFlow, not jax; set KERAS_BACKEND=tensorflow"
    assert device.not_installed("json") is None
    assert device.not_installed("no_such") == "no-such not installed; install with: pip install no-such"


def test_a_loaded_keras_says_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UserError, match="the backend 'torch' has no training engine"):
        device.backend()
