"""A search space of a user's own, in one file: a chain of strided separable convolutions, each of a sampled width."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from search.networks.architecture import Architecture
from search.networks.layers import Activation, Dense, GlobalAveragePool, SeparableConv, Softmax
from search.spaces.base import NotInSpace
from search.spaces.domains import Domain, Range, Value


class Cells(BaseModel):
    """Two convolutions of `lowest` to `highest` channels, each of which halves the image."""

    lowest: int = 4
    highest: int = 16

    @property
    def parameters(self) -> dict[str, Domain]:
        return dict.fromkeys(self.widths, Range(self.lowest, self.highest, 2))

    @property
    def widths(self) -> tuple[str, ...]:
        return ("width_0", "width_1")

    @property
    def depths(self) -> tuple[str, ...]:
        return ()

    def build(self, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
        blocks = [(SeparableConv(int(values[name]), stride=2), Activation("relu")) for name in self.widths]
        layers = (*(layer for block in blocks for layer in block), GlobalAveragePool(), Dense(classes), Softmax())
        return Architecture(input_shape, classes, layers)

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        convolutions = [layer for layer in architecture.layers if isinstance(layer, SeparableConv)]
        if len(convolutions) != len(self.widths):
            raise NotInSpace(f"{len(convolutions)} convolutions, not {len(self.widths)}")
        return {name: layer.filters for name, layer in zip(self.widths, convolutions, strict=True)}
