"""The engine on JAX, in processes of their own, since Keras has one backend in each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from search.training.engine.layers import ShiftedDepthwiseConv2D, ShiftedMaxPooling2D, ShiftedSeparableConv2D
from tests.support import jax_side

ROOT = Path(__file__).parents[3]
CHECKS = ("adam", "resident")
LONG_CHECKS = ("sgd", "adamw", "continued", "measured", "small")
QUICK = {  # compiled once for all engines of a network, and without effort
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PLATFORMS": "cpu",
    "KERAS_BACKEND": "jax",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jax")


@pytest.fixture(scope="module")
def failures(folder: Path) -> Any:
    return run_checks(folder, *CHECKS)


@pytest.fixture(scope="module")
def long_failures(folder: Path) -> Any:
    return run_checks(folder, str(folder / "jax.npz"), *LONG_CHECKS)


def run_checks(folder: Path, *names: str) -> Any:
    """Failure or None by name; see jax_side.py."""
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests" / "support" / "jax_side.py"), *names],
        env=os.environ | QUICK | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("check", CHECKS)
def test_on_jax(failures: dict[str, str | None], check: str) -> None:
    """See the function of that name in jax_side.py; `adam` checks steps against Keras' own."""
    assert set(failures) == set(CHECKS)
    assert failures[check] is None, failures[check]


@pytest.mark.long
@pytest.mark.parametrize("check", LONG_CHECKS)
def test_the_rest_on_jax(long_failures: dict[str, str | None], check: str) -> None:
    """`sgd` and `adamw` check steps against Keras' own."""
    assert set(long_failures) == set(LONG_CHECKS)
    assert {*CHECKS, *LONG_CHECKS} == set(jax_side.CHECKS)
    assert long_failures[check] is None, long_failures[check]


@pytest.mark.long
@pytest.mark.usefixtures("long_failures")
def test_both_backends_train_on_the_same_images(folder: Path) -> None:
    """On JAX without TensorFlow."""
    ours, theirs = np.load(folder / "jax.npz"), jax_side.batches()
    assert ours["modules"].tolist() == ["search.training.engine.jax"]
    assert (ours["x_0"].shape, ours["x_5"].shape) == ((15, 9, 7, 3), (5, 9, 7, 3))
    for part in ("x_0", "y_0", "x_5", "y_5"):
        np.testing.assert_allclose(ours[part], theirs[part], atol=1e-6)
    np.testing.assert_allclose(ours["sums"][0], theirs["sums"][0], rtol=0.1)  # only dropout's masks differ


CASES = [
    (kernel, {"strides": stride, "dilation_rate": dilation, "padding": padding})
    for kernel in (1, 2, 3, 4, 7, (3, 1), (1, 4))
    for stride, dilation in ((1, 1), (2, 1), (3, 1), (1, 2))
    if stride < 3 or kernel in (3, 4)
    for padding in ("same", "valid")
]


@pytest.mark.parametrize(("kernel", "how"), CASES)
def test_shifted_convolutions_are_the_standard_ones(kernel: Any, how: dict[str, Any]) -> None:
    number = CASES.index((kernel, how))
    rest = {"depth_multiplier": 1 + number % 3, "use_bias": number // 3 % 2 == 1, "bias_initializer": "normal", **how}
    x = np.random.default_rng(0).normal(size=(2, 15, 14, 3)).astype(np.float32)
    pairs = [
        (ShiftedDepthwiseConv2D(kernel, **rest), keras.layers.DepthwiseConv2D(kernel, **rest)),
        (ShiftedSeparableConv2D(5, kernel, **rest), keras.layers.SeparableConv2D(5, kernel, **rest)),
    ]
    for ours, theirs in pairs:
        ours.build(x.shape), theirs.build(x.shape)
        ours.set_weights(theirs.get_weights())
        assert ours(x).shape == theirs(x).shape
        np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_shifted_pooling_is_the_standard_one_with_its_gradient(size: int, stride: int, padding: str) -> None:
    x = tf.round(tf.random.stateless_normal((2, 9, 10, 3), (1, 2)))  # many neighbours are equal: one has the gradient
    found = []
    for layer in (ShiftedMaxPooling2D, keras.layers.MaxPooling2D):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(size, stride, padding=padding)(x)
            loss = tf.reduce_sum(y * tf.random.stateless_normal(y.shape, (3, 4)))
        found.append((y.numpy(), tape.gradient(loss, x).numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)
