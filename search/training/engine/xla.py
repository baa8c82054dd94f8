"""The TensorFlow engine with its loop of steps compiled by XLA, for GPUs.

Not the default: compiling takes half a minute a network, and on a CPU XLA's step is several times slower. Which form is the
faster on a GPU is measured by `benchmarks/gpu_speed.py`. Its random numbers are not those of the other form.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.networks.architecture import Architecture
from search.training.engine.layers import SHIFTED, dropout_of, fast_layers
from search.training.engine.tensorflow import TensorFlowEngine
from search.training.engine.tensorflow_layers import FusedBatchNormalization
from search.training.recipe import Recipe


class XlaEngine(TensorFlowEngine):
    """Depthwise convolutions and max pools are sums and comparisons of shifted images, as on JAX.

    Raises:
        UserError: the recipe shifts, zooms or rotates images, which XLA cannot compile.
    """

    _is_jit = True
    _seed_device = None  # a compiled program reads variables of its own device only

    def __init__(
        self,
        architecture: Architecture,
        data: Dataset,
        recipe: Recipe,
        pixels: Pixels,
        *,
        seed: int,
        dtype: str = "float32",
        confusion: bool = False,
    ) -> None:
        if recipe.augment.shift or recipe.augment.zoom or recipe.augment.rotation:
            raise UserError("XLA cannot compile shift, zoom and rotation; leave them out of the recipe's augment")
        super().__init__(architecture, data, recipe, pixels, seed=seed, dtype=dtype, confusion=confusion)

    def _layers(self) -> Any:
        return fast_layers(BatchNormalization=FusedBatchNormalization, Dropout=dropout_of(self.draws), **SHIFTED)

    def _batch_sizes(self) -> list[int | None]:
        return [size for size in (self.recipe.batch_size * bool(self.full_steps), self.remainder) if size]

    def _part(self, values: Any, first: Any, count: Any) -> Any:
        rest = values.shape[1:]
        return tf.slice(values, [first, *[0] * len(rest)], [count, *rest])
