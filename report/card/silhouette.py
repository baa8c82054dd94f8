"""Silhouette of a network: its layers from left to right, boxes as wide as their channels and as high as their maps."""

from __future__ import annotations

from collections.abc import Iterator

from report.card.scene import Box
from report.colours import COLOURS, GREY
from search.budget.summary import LayerRow, layer_rows
from search.networks.architecture import Architecture
from search.networks.layers import Conv, Dense, SeparableConv, SpatialSeparableConv

GAP = 2.0  # units between two boxes
LOWEST = 3.0  # height of a vector
_BRIGHT = {"separable_conv": COLOURS[1], "spatial_separable_conv": COLOURS[5], "conv": COLOURS[0], "dense": COLOURS[0]}


def weighted(network: Architecture) -> list[LayerRow]:
    """Layers with kernels, in order: the convolutions and the dense layers."""
    kinds = Conv | SeparableConv | SpatialSeparableConv | Dense
    return [row for row in layer_rows(network) if isinstance(row.layer, kinds)]


def channels(network: Architecture) -> int:
    """Sum of the channels of all layers with kernels."""
    return sum(row.output[-1] for row in weighted(network))


def common_scale(networks: list[Architecture], width: float) -> float:
    """Width of a channel with which the widest of these networks fills a width."""
    needed = (
        (width - GAP * len(weighted(network))) / max(channels(network), 1) for network in networks if weighted(network)
    )
    return max(min(needed, default=1.0), 0.01)


def silhouette(network: Architecture, scale: float, height: float, x: float = 0.0, y: float = 0.0) -> Iterator[Box]:
    """Boxes of a network, centred vertically in `height` below y.

    Args:
        scale: width of a channel.
        height: of a map as high as the image.
    """
    side = network.input[0]
    image = max(height * 1.0, LOWEST)
    yield Box(x, y + (height - image) / 2, 2.0, image, GREY, 0.5)
    left = x + 2.0 + GAP
    for row in weighted(network):
        share = row.output[0] / side if len(row.output) == 3 else 0.0
        tall, wide = max(height * min(share, 1.0), LOWEST), max(scale * row.output[-1], 0.6)
        yield Box(left, y + (height - tall) / 2, wide, tall, _BRIGHT[row.layer.kind], 1)
        left += wide + GAP
