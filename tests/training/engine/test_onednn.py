"""Operations arranged for oneDNN against the plain ones and against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from search import system
from search.data.dataset import load_dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Dense,
    Gate,
    GlobalAveragePool,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.training import device
from search.training.engine import onednn, tensorflow_layers
from search.training.engine.epoch import plan_epoch
from search.training.engine.tensorflow import TensorFlowEngine
from search.training.recipe import Recipe

CLOSE = 1e-5


def normal(seed: int, *shape: int) -> Any:
    return tf.constant(np.random.default_rng(seed).normal(1, 2, shape), tf.float32)


def with_gradients(function: Any, *inputs: Any) -> list[Any]:
    """The results of a function, and the gradients of a sum of the first, each value weighted, by its inputs."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        results = function(*inputs)
        total = tf.reduce_sum(results[0] * normal(9, *results[0].shape))
    return [*results, *tape.gradient(total, list(inputs))]


def assert_close(ours: list[Any], theirs: list[Any], close: float = CLOSE) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert np.abs(mine - other).max() <= close * np.abs(other).max()


class TestDepthwise:
    @pytest.mark.parametrize("padding", ["same", "valid"])
    @pytest.mark.parametrize(
        ("size", "kernel", "stride", "channels", "multiplier"),
        [
            ((12, 12), 5, 1, 16, 1),
            ((9, 11), 5, 1, 3, 3),
            ((12, 11), 5, 2, 16, 1),
            ((13, 12), 7, 1, 8, 1),
            ((13, 12), 7, 2, 8, 1),
            ((10, 10), 4, 1, 8, 1),
            ((9, 9), 9, 1, 5, 1),
            ((8, 8), 5, 3, 5, 2),
        ],
    )
    def test_equals_plain(
        self, size: tuple[int, int], kernel: int, stride: int, channels: int, multiplier: int, padding: str
    ) -> None:
        x, weights = normal(0, 4, *size, channels), normal(1, kernel, kernel, channels, multiplier)

        def plain(x: Any, weights: Any) -> tuple[Any]:
            return (tf.nn.depthwise_conv2d(x, weights, [1, stride, stride, 1], padding.upper()),)

        ours = with_gradients(lambda x, weights: (onednn.depthwise(x, weights, stride, padding),), x, weights)
        assert_close(ours, with_gradients(plain, x, weights))

    def test_compiled(self) -> None:
        x, weights = normal(0, 8, 16, 16, 32), normal(1, 5, 5, 32, 1)

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 16, 16, 32])])
        def ours(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(weights)
                y = tf.reduce_sum(onednn.depthwise(x, weights, 1, "same") ** 2)
            return tape.gradient(y, weights)

        with tf.GradientTape() as tape:
            tape.watch(weights)
            y = tf.reduce_sum(tf.nn.depthwise_conv2d(x, weights, [1, 1, 1, 1], "SAME") ** 2)
        assert_close([ours(x)], [tape.gradient(y, weights)])


class TestGroupedBatchNorm:
    @pytest.mark.parametrize(
        ("shape", "group"),
        [
            *(((8, 8, 8, 24), 2), ((8, 7, 6, 8), 2), ((3, 2, 1, 40), 2), ((1, 2, 3, 8), 2)),
            *(((8, 8, 8, 12), 4), ((2, 2, 6, 76), 4), ((8, 8, 8, 22), 8), ((3, 4, 2, 2), 8)),
            *(((8, 8, 8, 9), 16), ((2, 4, 4, 33), 16), ((1, 4, 4, 1), 16)),
        ],
    )
    def test_equals_plain(self, shape: tuple[int, ...], group: int) -> None:
        x, scale, offset = normal(0, *shape), normal(1, shape[3]), normal(2, shape[3])
        n = np.prod(shape[:3])

        def plain(x: Any, scale: Any, offset: Any) -> tuple[Any, Any, Any]:
            all_of_it = tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=1e-3)
            return all_of_it.y, all_of_it.batch_mean, all_of_it.batch_variance * ((n - 1) / n)

        ours = with_gradients(lambda *inputs: onednn.grouped_batch_norm(*inputs, 1e-3, group), x, scale, offset)
        assert_close(ours, with_gradients(plain, x, scale, offset))

    def test_statistics_of_shifted_values_are_exact(self) -> None:
        """Values far from 0: the variance is no difference of two large numbers."""
        x = normal(0, 16, 16, 16, 24) + 1000.0
        _, mean, variance = onednn.grouped_batch_norm(x, tf.ones(24), tf.zeros(24), 1e-3, 2)
        exact = x.numpy().astype(np.float64)
        assert np.allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
        assert np.allclose(variance, exact.var((0, 1, 2)), rtol=1e-3)


class TestWhereUsed:
    def test_groups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onednn, "has_avx512", lambda: True)
        groups = {channels: onednn.group_of(channels, 1024) for channels in (8, 9, 12, 16, 18, 20, 24, 48, 156)}
        assert groups == {8: 2, 9: 16, 12: 4, 16: 1, 18: 8, 20: 4, 24: 2, 48: 1, 156: 4}
        assert [onednn.group_of(channels, 64) for channels in (12, 24, 156)] == [1, 2, 4]
        assert [onednn.group_of(channels, 36) for channels in (9, 18, 24, 252)] == [1, 1, 2, 4]
        monkeypatch.setattr(device, "is_accelerated", lambda: True)
        assert onednn.group_of(24, 64) == 1
        assert not onednn.has_strips()

    def test_processor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onednn, "has_avx512", lambda: False)
        assert onednn.group_of(24, 64) == 1
        monkeypatch.setattr("platform.machine", lambda: "arm64")
        assert not onednn.has_strips()

    def test_avx512_of_an_unknown_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(*_: Any, **__: Any) -> str:
            raise FileNotFoundError

        monkeypatch.setattr("pathlib.Path.read_text", absent)
        assert system.has_avx512.__wrapped__() is False


def test_engine_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of a network with wide kernels and channels that are no multiples of 16, arranged and plain."""
    network = Architecture(
        (8, 8, 1),
        10,
        (
            *(SeparableConv(24, 5, depth_multiplier=2), BatchNorm(), Activation("silu")),
            *(SeparableConv(24, 7, stride=2), BatchNorm(), SpatialSeparableConv(38, 5), BatchNorm(), Gate("silu")),
            *(SeparableConv(9, 5, dilation=2), BatchNorm(), GlobalAveragePool(), Dense(10), Softmax()),
        ),
    )
    data = load_dataset("digits", None, protocol="holdout", holdout=0.2, images=48)
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=1e-2)
    trained = {}
    monkeypatch.setattr(onednn, "has_avx512", lambda: True)
    grouped = tensorflow_layers.group_of
    for is_arranged in (True, False):
        monkeypatch.setattr(tensorflow_layers, "has_strips", lambda is_arranged=is_arranged: is_arranged)
        monkeypatch.setattr(tensorflow_layers, "group_of", grouped if is_arranged else lambda *_: 1)
        monkeypatch.setattr(tensorflow_layers, "is_fused", lambda _, is_arranged=is_arranged: is_arranged)
        engine = TensorFlowEngine(network, data, recipe, Pixels(), seed=0)
        kinds = {type(layer).__name__ for layer in engine.model.layers}
        assert ("StripSeparableConv2D" in kinds) == is_arranged
        trained[is_arranged] = trained_weights(engine, recipe, len(data.x_train))
    for ours, plain in zip(trained[True], trained[False], strict=True):
        assert np.allclose(ours, plain, rtol=1e-3, atol=1e-4)


def trained_weights(engine: TensorFlowEngine, recipe: Recipe, images: int) -> list[Any]:
    for number in range(recipe.epochs):
        plan = plan_epoch(recipe, images, 0, number)
        engine.begin(plan)
        engine.train(0, plan.steps)
    return list(engine.weights())
