"""Elementwise functions of a training step on a CPU, compiled by XLA into one pass over memory each way.

TensorFlow computes the gradient of SiLU in six operations, each of which reads and writes all values; memory is what limits
them. Results are those of the plain operations up to rounding. `benchmarks/kernel_speed.py` measures both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from search.training import device

LARGE = 8_192  # values of an image, from which on the time that compiling takes (0.1 s a shape) is soon saved
COMPOSED = frozenset({"silu", "gelu", "hard_silu"})  # of several operations; the others are one each way


def is_fused(shape: tuple[int | None, ...]) -> bool:
    """True where functions of values (n, ...) are compiled: for large images on a CPU."""
    return math.prod(size or 1 for size in shape[1:]) >= LARGE and not device.is_accelerated() and _has_xla()


def fused(function: Callable[[Any], Any], x: Any) -> Any:
    """Apply a function of a tensor, compiled together with its gradient; of the values only x is kept for the gradient.

    Args:
        function: compiled once for each shape of image, so it must be the same object in each call.
    """
    forward, backward = _compiled(function, tuple(x.shape[1:]), x.dtype)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def apply(x: Any) -> Any:
        return forward(x), lambda slope: backward(x, slope)

    return apply(x)


@functools.cache
def _compiled(function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """The function and its gradient for images of one shape."""
    values = tf.TensorSpec([None, *shape], dtype)

    def gradient(x: Any, slope: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, slope)

    compiled = functools.partial(tf.function, autograph=False, jit_compile=True)
    forward = compiled(function).get_concrete_function(values)
    return forward, compiled(gradient).get_concrete_function(values, tf.TensorSpec(forward.output_shapes, dtype))


@functools.cache
def _has_xla() -> bool:
    """True if this build of TensorFlow can compile for the CPU."""
    try:
        tf.function(tf.negative, autograph=False, jit_compile=True)(tf.zeros(1))
    except tf.errors.OpError:
        return False
    return True
