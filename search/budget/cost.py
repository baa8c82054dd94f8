"""Cost of a network from the geometry of its layers, with no model built: parameters, multiply-adds, int8 memory.

Parameters equal Keras' `count_params()`; shared weights count once, at their first use. Multiply-adds of a convolution are
its weights without bias times the output positions, those of a dense layer its weights; other layers count as 0. Bytes are
those of the int8 form (`search.budget.lowering`), computed on first access.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, assert_never

from search.budget.footprint import arena_bytes, flash_bytes, peak_activation_bytes
from search.budget.lowering import Lowered, lower
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, first_half_positions, flatten, receptive_field, resolve
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
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)


class LayerCost(NamedTuple):
    """Cost of one layer; a residual does not include the layers inside it."""

    params: int
    frozen: int  # the parameters that are not trained: moving statistics of batch norm
    macs: int  # multiply-adds per image
    activations: int  # values in the output per image


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one image."""

    params: int
    trainable_params: int
    macs: int
    largest_activation: int  # values in the largest layer output
    receptive_field: int | None
    resolved: tuple[Resolved, ...] = field(default=(), compare=False, repr=False)

    @cached_property
    def lowered(self) -> Lowered:
        """Operators and tensors of the int8 form."""
        return lower(self.resolved)

    @property
    def flash_bytes(self) -> int:
        """Bytes of the int8 .tflite file."""
        return flash_bytes(self.lowered)

    @property
    def peak_activation_bytes(self) -> int:
        """Bytes of the computed int8 tensors alive at once, in the best order of the operators."""
        return peak_activation_bytes(self.lowered)

    @property
    def arena_bytes(self) -> int:
        """Bytes that TensorFlow Lite Micro allocates to run the int8 file."""
        return arena_bytes(self.lowered)


def compute_cost(architecture: Architecture) -> Cost:
    """Compute the cost of a network.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    return compute_resolved_cost(resolve(architecture))


def compute_resolved_cost(resolved: tuple[Resolved, ...]) -> Cost:
    """Compute the cost of a network from its geometry."""
    params = frozen = macs = 0
    largest = math.prod(resolved[0].input)
    for _, row in flatten(resolved):
        layer_params, layer_frozen, layer_macs, activations = compute_layer_cost(row)
        params += layer_params
        frozen += layer_frozen
        macs += layer_macs
        largest = max(largest, activations)
    return Cost(params, params - frozen, macs, largest, receptive_field(resolved), resolved)


def compute_layer_cost(row: Resolved) -> LayerCost:
    """Compute the cost of one layer from its geometry."""
    channels = row.input[-1]
    match row.layer:
        case BatchNorm():
            return LayerCost(4 * channels, 2 * channels, 0, math.prod(row.output))
        case Activation() | Dropout() | MaxPool() | AveragePool() | GlobalAveragePool() | Flatten() | Softmax() | Gate():
            return LayerCost(0, 0, 0, math.prod(row.output))
        case SeparableConv(filters, kernel) as layer:
            positions = row.output[0] * row.output[1]
            weights = (kernel * kernel + filters) * channels * layer.depth_multiplier
            params = 0 if row.first else weights + filters * layer.use_bias
            return LayerCost(params, 0, weights * positions, positions * filters)
        case SpatialSeparableConv(filters, kernel) as layer:
            positions = row.output[0] * row.output[1]
            half = kernel * channels
            macs = half * math.prod(first_half_positions(row)) + (half + channels * filters) * positions
            params = 0 if row.first else 2 * half + channels * filters + filters * layer.use_bias
            return LayerCost(params, 0, macs, positions * filters)
        case Conv(filters, kernel) as layer:
            positions = row.output[0] * row.output[1]
            weights = kernel * kernel * channels * filters
            params = 0 if row.first else weights + filters * layer.use_bias
            return LayerCost(params, 0, weights * positions, positions * filters)
        case Dense(units) as layer:
            return LayerCost(channels * units + units * layer.use_bias, 0, channels * units, units)
        case Residual():
            return LayerCost(0, 0, 0, math.prod(row.output))
        case _:
            assert_never(row.layer)
