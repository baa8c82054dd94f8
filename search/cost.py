"""What a network costs, from its resolved layers, with no model built: parameters, multiply-adds, activation sizes.

Counts are Keras' own `count_params()`, exact; shared weights count once, at their first use. Multiply-adds of a
convolution are its weights without bias times the output positions they are applied at, those of a dense layer its weights;
everything else counts as 0. A Budget holds strict limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, assert_never

from pydantic import BaseModel, ConfigDict, Field

from search.architecture import Architecture
from search.geometry import Resolved, flatten, receptive_field, resolve
from search.layers import (
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
    walk,
)


class LayerPrice(NamedTuple):
    """What one layer costs, layers inside a residual not included."""

    params: int
    frozen: int  # of them not trained: the moving statistics of batch norm
    macs: int  # multiply-adds for one image
    activations: int  # values in the output for one image


@dataclass(frozen=True, slots=True)
class Price:
    """What a network costs for one image."""

    params: int
    trainable_params: int
    macs: int
    largest_activation: int  # values in the largest layer output
    receptive_field: int | None


class Budget(BaseModel):
    """Strict limits: `params = 100_000` means that 99,999 fits and 100,000 does not."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    params: Annotated[int, Field(ge=1, le=10**15)]
    separable_only: bool = True

    def refusal(self, architecture: Architecture, price: Price) -> str | None:
        """Why the network is not admitted, or None where it is."""
        if self.separable_only and any(isinstance(layer, Conv) for layer in walk(architecture.layers)):
            return "holds a plain convolution, and the budget admits separable convolutions only"
        if price.params >= self.params:
            return f"{price.params:,} parameters, the budget is under {self.params:,}"
        return None


def price(architecture: Architecture) -> Price:
    """The price of a network.

    Raises:
        ArchitectureError: the network cannot exist, see `search.geometry.resolve`.
    """
    return price_resolved(resolve(architecture))


def price_resolved(resolved: tuple[Resolved, ...]) -> Price:
    """The price of a network whose geometry is already known."""
    params = frozen = macs = 0
    largest = math.prod(resolved[0].input)
    for _, row in flatten(resolved):
        layer_params, layer_frozen, layer_macs, activations = price_layer(row)
        params += layer_params
        frozen += layer_frozen
        macs += layer_macs
        largest = max(largest, activations)
    return Price(params, params - frozen, macs, largest, receptive_field(resolved))


def price_layer(row: Resolved) -> LayerPrice:
    """The price of one resolved layer."""
    channels = row.input[-1]
    match row.layer:
        case BatchNorm():
            return LayerPrice(4 * channels, 2 * channels, 0, math.prod(row.output))
        case Activation() | Dropout() | MaxPool() | AveragePool() | GlobalAveragePool() | Flatten() | Softmax() | Gate():
            return LayerPrice(0, 0, 0, math.prod(row.output))
        case SeparableConv(filters, kernel) as layer:
            positions = row.output[0] * row.output[1]
            weights = (kernel * kernel + filters) * channels * layer.depth_multiplier
            params = 0 if row.first else weights + filters * layer.use_bias
            return LayerPrice(params, 0, weights * positions, positions * filters)
        case SpatialSeparableConv(filters, kernel) as layer:
            positions = row.output[0] * row.output[1]
            half = kernel * channels
            macs = half * math.prod(first_half_positions(row)) + (half + channels * filters) * positions
            params = 0 if row.first else 2 * half + channels * filters + filters * layer.use_bias
            return LayerPrice(params, 0, macs, positions * filters)
        case Conv(filters, kernel) as layer:
            positions = row.output[0] * row.output[1]
            weights = kernel * kernel * channels * filters
            params = 0 if row.first else weights + filters * layer.use_bias
            return LayerPrice(params, 0, weights * positions, positions * filters)
        case Dense(units) as layer:
            return LayerPrice(channels * units + units * layer.use_bias, 0, channels * units, units)
        case Residual():
            return LayerPrice(0, 0, 0, math.prod(row.output))
        case _:
            assert_never(row.layer)


def first_half_positions(row: Resolved) -> tuple[int, int]:
    """(height, width) after the k x 1 half of a spatially separable convolution, which does not stride."""
    assert isinstance(row.layer, SpatialSeparableConv)
    height, width, _ = row.input
    reach = (row.layer.kernel - 1) * row.layer.dilation
    return height - (reach if row.layer.padding == "valid" else 0), width


def table(architecture: Architecture) -> dict[str, Any]:
    """The network layer by layer, as `show --json` prints it; receptive fields are [height, width], unclipped."""
    resolved = resolve(architecture)
    total = price_resolved(resolved)
    return {
        "name": architecture.name,
        "params": total.params,
        "trainable_params": total.trainable_params,
        "macs": total.macs,
        "receptive_field": _pair(total.receptive_field),
        "output": [architecture.classes],
        "layers": [_row(row) for _, row in flatten(resolved)],
    }


def _row(row: Resolved) -> dict[str, Any]:
    cost = price_layer(row)
    return {
        "name": row.name,
        "kind": row.layer.kind,
        "output": list(row.output),
        "receptive_field": _pair(row.receptive_field),
        "params": cost.params,
        "macs": cost.macs,
    }


def _pair(value: int | None) -> list[int] | None:
    return None if value is None else [value, value]
