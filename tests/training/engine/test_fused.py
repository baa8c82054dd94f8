"""Elementwise functions compiled by XLA against the plain ones."""

from __future__ import annotations

import functools
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from search.networks.layers import Function
from search.training import device
from search.training.engine import fused, tensorflow_layers
from search.training.engine.layers import gate_of

FUNCTIONS = get_args(Function)


EXTREME = [0.0, -0.0, 90.0, -90.0, 200.0, -200.0, 1e-20, -1e-20]  # where exponentials overflow or vanish


def values(*shape: int) -> Any:
    return tf.constant(np.random.default_rng(0).normal(0, 3, shape), tf.float32)


def results(function: Any, x: Any) -> tuple[Any, Any]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    weights = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    return y, tape.gradient(y, x, tf.cast(weights, y.dtype))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_to_plain(name: str) -> None:
    activation, gate = keras.activations.get(name), gate_of(name)
    extreme = tf.constant(EXTREME, shape=[1, 2, 2, 2])
    for function, x in ((activation, values(3, 5, 4, 6)), (activation, extreme), (gate, values(3, 5, 4, 10))):
        compiled = results(functools.partial(fused.fused, function), x)
        for ours, plain in zip(compiled, results(function, x), strict=True):
            assert np.allclose(ours, plain, rtol=1e-5, atol=1e-5)


def test_bfloat16() -> None:
    function, x = keras.activations.silu, tf.cast(values(2, 4, 4, 8), tf.bfloat16)
    for ours, plain in zip(results(functools.partial(fused.fused, function), x), results(function, x), strict=True):
        assert ours.dtype == tf.bfloat16
        assert np.allclose(tf.cast(ours, tf.float32), tf.cast(plain, tf.float32), rtol=0.02, atol=0.02)


def test_any_number_of_images_inside_a_loop() -> None:
    """One graph for batches of any size, as in a training step; the sum over batches of 3, 3 and 2 is that over 8."""
    x = values(8, 4, 4, 8)

    def gradient(batch: Any) -> Any:
        return results_sum(lambda x: fused.fused(keras.activations.silu, x), batch)

    @tf.function(autograph=False)
    def all_of_it() -> Any:
        return tf.while_loop(
            lambda first, _: first < 8,
            lambda first, total: (first + 3, total + gradient(x[first : first + 3])),
            (tf.constant(0), tf.constant(0.0)),
        )[1]

    assert np.allclose(all_of_it(), results_sum(keras.activations.silu, x), rtol=1e-5)


def results_sum(function: Any, x: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tf.reduce_sum(tape.gradient(y, x)) + tf.reduce_sum(y)


def test_compiled_once_for_a_shape() -> None:
    first = fused._compiled(gate_of("silu"), (4, 4, 8), tf.float32)
    assert fused._compiled(gate_of("silu"), (4, 4, 8), tf.float32) is first
    assert fused._compiled(gate_of("silu"), (4, 4, 10), tf.float32) is not first


class TestWhereUsed:
    def test_size_and_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert fused.is_fused((None, 16, 16, 32))
        assert not fused.is_fused((None, 16, 16, 31))
        monkeypatch.setattr(device, "is_accelerated", lambda: True)
        assert not fused.is_fused((None, 16, 16, 32))

    def test_build_without_xla(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: Any, **__: Any) -> Any:
            raise tf.errors.UnimplementedError(None, None, "no XLA")

        monkeypatch.setattr(tf, "function", fails)
        assert fused._has_xla.__wrapped__() is False

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_layers(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[Any] = []
        monkeypatch.setattr(tensorflow_layers, "fused", lambda function, x: calls.append(function) or function(x))
        activation = tensorflow_layers.FusedActivation(name)
        gate = tensorflow_layers.FusedGate(name)
        x = values(2, 32, 32, 8)
        for training in (True, False):
            assert np.allclose(activation(x, training=training), keras.activations.get(name)(x))
            assert np.allclose(gate(x, training=training), gate_of(name)(x))
        assert (keras.activations.get(name) in calls) == (name in fused.COMPOSED)
        assert calls.count(gate_of(name)) == 1
