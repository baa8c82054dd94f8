"""Parser of pyramids: reads the layers of a network as blocks, pools and a head, and finds the parameters for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product

from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    ConvLayer,
    Dense,
    Dropout,
    GlobalAveragePool,
    Layer,
    MaxPool,
    SeparableConv,
    SpatialSeparableConv,
)
from search.spaces.base import NotInSpace
from search.spaces.domains import Choices, Value
from search.spaces.layout import ValueCollector

MOST_COMBINATIONS = 100_000  # of pool positions that are tried


def pool_places(positions: Sequence[int], depth: int, deepest: int) -> tuple[int, ...]:
    """The blocks that a pool follows, ascending: positions scaled from the deepest net to `depth`, no two the same."""
    places: list[int] = []
    for position in sorted(-(-position * depth // deepest) for position in positions):
        places.append(max(position, places[-1] + 1) if places else position)
    for back, index in enumerate(reversed(range(len(places)))):  # positions pushed beyond the last block move back
        places[index] = min(places[index], depth - back)
    return tuple(places)


@dataclass
class Segment:
    """A convolution with what follows it up to the next one, and the pool that closes it."""

    conv: ConvLayer
    after: list[Layer]
    pool: MaxPool | AveragePool | None = None
    pool_dropout: float = 0.0

    def matches(self, order: str) -> bool:
        """True if the layers after the convolution are in this order; a dropout at rate 0 may be missing."""
        parts = [part for part in order.split("-")[1:] if part != "dropout" or self.dropout > 0]
        kinds = {"bn": BatchNorm, "act": Activation, "dropout": Dropout}
        return len(parts) == len(self.after) and all(
            isinstance(layer, kinds[part]) for part, layer in zip(parts, self.after, strict=True)
        )

    @property
    def dropout(self) -> float:
        """Dropout rate after the convolution; 0 if there is no dropout."""
        return next((layer.rate for layer in self.after if isinstance(layer, Dropout)), 0.0)


def splits(layers: tuple[Layer, ...], classes: int) -> list[tuple[str, list[Segment], Segment | None]]:
    """The ways to read the layers as (kind of head, blocks, convolution of the head or None)."""
    body = list(layers[:-1])
    has_dense = bool(body) and body[-1] == Dense(classes)
    body = body[:-1] if has_dense else body
    if not body or not isinstance(body.pop(), GlobalAveragePool):
        return []
    segments: list[Segment] = []
    for layer in body:
        match layer:
            case SeparableConv() | SpatialSeparableConv():
                segments.append(Segment(layer, []))
            case _ if not segments:
                return []
            case MaxPool() | AveragePool() if segments[-1].pool is None:
                segments[-1].pool = layer
            case Dropout(rate) if segments[-1].pool and not segments[-1].pool_dropout:
                segments[-1].pool_dropout = rate
            case BatchNorm() | Activation() | Dropout() if segments[-1].pool is None:
                segments[-1].after.append(layer)
            case _:
                return []
    splits: list[tuple[str, list[Segment], Segment | None]] = []
    if len(segments) > 1 and segments[-1].conv.filters == classes and segments[-1].pool is None:
        splits.append(("conv-dense" if has_dense else "conv", segments[:-1], segments[-1]))
    return [*splits, ("dense", segments, None)] if has_dense and segments else splits


def _plainest(segment: Segment, orders: Sequence[str]) -> str | None:
    """The first order that the segment matches, one without dropout before one whose dropout would have to be 0."""
    return min((order for order in orders if segment.matches(order)), key=lambda order: "dropout" in order, default=None)


class Encoder(ValueCollector):
    """Collects the parameters of a network that was read as segments."""

    @property
    def most_blocks(self) -> int:
        """Number of blocks of the deepest network."""
        return len(self.layout.keys["width"])

    def encode(self, head: str, blocks: list[Segment], scores: Segment | None, order: str | None) -> dict[str, Value]:
        """Find a value for every sampled parameter.

        Args:
            head: kind of the head.
            scores: the head's convolution; None if it has none.
            order: of the layers in every block; None if each block may have its own.

        Raises:
            NotInSpace: there are none.
        """
        self.need("blocks", 0, len(blocks))
        for index, segment in enumerate(blocks):
            self.block(index, segment, order)
        self.pools(blocks)
        self.need("head", 0, head)
        if scores:
            self.head(scores, len(blocks))
        return self.complete()

    def block(self, index: int, segment: Segment, order: str | None) -> None:
        conv = segment.conv
        if conv.use_bias:
            raise NotInSpace(f"block {index + 1}: a convolution with bias")
        self.convolution(index, conv)
        key, domain = self.domain("order", min(index, self.most_blocks - 1))
        assert isinstance(domain, Choices)
        orders = [order] if order else [str(value) for value in domain.values]
        fitting = _plainest(segment, orders)
        if fitting is None:
            raise NotInSpace(f"{key}: no declared order puts block {index + 1} so")
        self.need("order", index, fitting)
        if "dropout" in fitting:
            self.need("dropout", index, segment.dropout)
        self.after(index, segment)

    def convolution(self, index: int, conv: ConvLayer) -> None:
        self.need("width", index, conv.filters)
        self.need("kernel", index, conv.kernel)
        self.need("stride", index, conv.stride)
        if conv.kernel > 1:
            self.need("padding", index, conv.padding)
        self.need("convolution", index, "separable" if isinstance(conv, SeparableConv) else "spatial_separable")

    def after(self, index: int, segment: Segment) -> None:
        for layer in segment.after:
            if isinstance(layer, Activation):
                self.need("activation", index, layer.function)
            elif isinstance(layer, BatchNorm):
                self.need("momentum", 0, layer.momentum)
                self.need("epsilon", 0, layer.epsilon)

    def pools(self, blocks: list[Segment]) -> None:
        pooled = [(index + 1, segment) for index, segment in enumerate(blocks) if segment.pool]
        self.need("pools", 0, len(pooled))
        self.positions(tuple(place for place, _ in pooled), len(blocks))
        for pool, (_, segment) in enumerate(pooled):
            self.need("pool_kind", pool, "max" if isinstance(segment.pool, MaxPool) else "average")
            self.need("pool_dropout", pool, segment.pool_dropout)

    def positions(self, places: tuple[int, ...], depth: int) -> None:
        """Set positions that give these pools: each on its own if possible, else by trying the declared ones together."""
        keys = self.layout.keys["pool_position"][: len(places)]
        declared = {key: self._positions_of(key) for key in keys}
        singly = {
            key: [position for position in declared[key] if -(-position * depth // self.most_blocks) == place]
            for key, place in zip(keys, places, strict=True)
        }
        for choices in (singly, declared):
            for combination in islice(product(*choices.values()), MOST_COMBINATIONS):
                at = dict(zip(choices, combination, strict=True))
                if pool_places([at[key] for key in keys], depth, self.most_blocks) == places:
                    self.values.update(at)
                    return
        raise NotInSpace(f"pool_position: no declared positions put pools behind blocks {', '.join(map(str, places))}")

    def _positions_of(self, key: str) -> list[int]:
        domain = self.layout.domain(key)
        return [position for position in range(1, self.most_blocks + 1) if domain.find(position) is not None]

    def head(self, scores: Segment, depth: int) -> None:
        self.need("head_kernel", 0, scores.conv.kernel)
        if scores.conv.kernel > 1:
            self.need("head_padding", 0, scores.conv.padding)
        self.need("head_bias", 0, scores.conv.use_bias)
        order = _plainest(scores, [str(value) for value in self.domain("head_order", 0)[1].declared()])
        if order is None:
            raise NotInSpace("head_order: no declared order puts the head so")
        self.need("head_order", 0, order)
        if "dropout" in order:
            self.need("head_dropout", 0, scores.dropout)
        self.after(depth - 1, scores)
