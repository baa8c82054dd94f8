"""Edits of a network: replace layers, separate convolutions, scale all widths to fit a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from search.budget.cost import compute_cost
from search.budget.limits import Budget
from search.networks.architecture import Architecture
from search.networks.layers import (
    ArchitectureError,
    Conv,
    Dense,
    Gate,
    Layer,
    Residual,
    SeparableConv,
    SpatialSeparableConv,
    walk,
)

Change = Callable[[Layer], tuple[Layer, ...]]

_HALVINGS = 60  # of an interval of scales: to the last bit of a float


def scaled_to_fit(network: Architecture, budget: Budget) -> tuple[Architecture, dict[int, int]] | None:
    """Scale all widths but the head's by the largest factor that fits the budget; returns network and widths.

    Equal widths stay equal, and multiples of 8 where all are. With gates, which halve, they keep their proportions exactly.

    Returns:
        None where the narrowest does not fit, or cannot exist.
    """
    last = head_of(network)
    old = sorted({one for layer in walk(network.layers) if layer is not last and (one := width_of(layer))})
    gated = any(isinstance(layer, Gate) for layer in walk(network.layers))
    unit, common = 8 if all(width % 8 == 0 for width in old) else 1, math.gcd(*old)

    def at(scale: float) -> tuple[Architecture, dict[int, int]]:
        if gated:
            widths = {width: width // common * max(2, 2 * int(common * scale / 2)) for width in old}
        else:
            widths = {width: max(unit, unit * int(width * scale / unit)) for width in old}

        def change(layer: Layer) -> tuple[Layer, ...]:
            own = width_of(layer)
            return (layer if layer is last or not own else widened(layer, widths[own]),)

        return rebuilt(network, change), widths

    def fits(scale: float) -> bool:
        return compute_cost(at(scale)[0]).params < budget.params

    low, high = 0.0, 1.0
    try:
        if not old or not fits(low):
            return None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return at(low)
    except ArchitectureError:  # a residual that adds the image itself, whose channels do not scale
        return None


def head_of(network: Architecture) -> Layer | None:
    """The last layer with a width, which gives one value per class; None if there is none."""
    return next((layer for layer in reversed(network.layers) if width_of(layer)), None)


def width_of(layer: Layer) -> int:
    match layer:
        case SeparableConv(filters) | SpatialSeparableConv(filters) | Conv(filters):
            return filters
        case Dense(units):
            return units
        case _:
            return 0


def widened(layer: Layer, width: int) -> Layer:
    match layer:
        case SeparableConv() | SpatialSeparableConv() | Conv():
            return replace(layer, filters=width)
        case Dense():
            return replace(layer, units=width)
        case _:
            return layer


def separated(layer: Conv) -> SeparableConv:
    return SeparableConv(layer.filters, layer.kernel, layer.stride, layer.padding, layer.dilation, use_bias=layer.use_bias)


def rebuilt(network: Architecture, change: Change) -> Architecture:
    """The network with each layer, except residuals, replaced by the result of `change`."""

    def chain(layers: tuple[Layer, ...]) -> Iterator[Layer]:
        for layer in layers:
            if isinstance(layer, Residual):
                yield Residual(tuple(chain(layer.branch)), tuple(chain(layer.shortcut)))
            else:
                yield from change(layer)

    return replace(network, layers=tuple(chain(network.layers)))
