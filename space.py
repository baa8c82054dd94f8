"""What can be built: the search space, its parameters, and the architecture that each choice of them makes.

A `Pyramid` is a plain stack of separable-convolution blocks with pools between them and a small head. Its parameters are
static - the same names and ranges for every trial, a block beyond the depth is ignored - so that a sampler sees one joint
space. `suggest` asks a trial for them and builds the architecture; `encode` finds the parameters of a given one.

Edit the [space] table of a study file to search elsewhere; the records of layers are in `search.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice, product
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, field_serializer, model_validator

from search.architecture import Architecture, canonical
from search.domain import Choices, Dimension, Domain, Range, Trial, Value, dimension, fixed, fraction, one_of, whole
from search.layers import (
    LARGEST,
    Activation,
    AveragePool,
    BatchNorm,
    ConvLayer,
    Dense,
    Dropout,
    Function,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Padding,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)

Order = Literal["conv-bn-act", "conv-act-bn", "conv-dropout-bn-act", "conv-act-dropout-bn", "conv-act", "conv"]
Convolution = Literal["separable", "spatial_separable"]
Pool = Literal["max", "average"]
Head = Literal["conv", "dense", "conv-dense"]

MOST_BLOCKS = 64
MOST_COMBINATIONS = 100_000  # of pool positions that `encode` tries


class NotInSpace(ValueError):
    """The architecture is no point of the space: the message names the parameter and the value it does not take."""


_SIZE = whole(1, LARGEST)
_BLOCKS = Annotated[Dimension, dimension(whole(1, MOST_BLOCKS), "net")]
_WIDTH = Annotated[Dimension, dimension(_SIZE, "block")]
_KERNEL = Annotated[Dimension, dimension(whole(1, 64), "block", "net")]
_STRIDE = Annotated[Dimension, dimension(whole(1, 8), "block")]
_PADDING = Annotated[Dimension, dimension(one_of(get_args(Padding)), "block", "net")]
_RATE = Annotated[Dimension, dimension(fraction, "block")]
_ORDER = Annotated[Dimension, dimension(one_of(get_args(Order)), "block", "net")]
_CONVOLUTION = Annotated[Dimension, dimension(one_of(get_args(Convolution)), "block", "net")]
_FUNCTION = Annotated[Dimension, dimension(one_of(get_args(Function)), "block", "net")]
_POOLS = Annotated[Dimension, dimension(whole(0, MOST_BLOCKS), "net")]
_POSITION = Annotated[Dimension, dimension(whole(1, MOST_BLOCKS), "pool")]
_POOL = Annotated[Dimension, dimension(one_of(get_args(Pool)), "pool", "net")]
_POOL_RATE = Annotated[Dimension, dimension(fraction, "pool")]


class Pyramid(BaseModel):
    """Blocks of one separable convolution each, pools between them, a head; every dimension sampled or fixed.

    `width`, `stride`, `dropout`, `pool_position` and `pool_dropout` are sampled for each block or pool, the others once for
    the net; `per` says otherwise. Pool positions are block numbers of the deepest net (the pool follows that block) and
    scale with the depth, so that every set of positions can be reached at every depth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pyramid"] = "pyramid"
    blocks: _BLOCKS = Dimension((Range(4, 8, 1),), "net")
    width: _WIDTH = Dimension((Range(16, 128, 8),), "block")
    kernel: _KERNEL = fixed(3)
    stride: _STRIDE = fixed(1)
    padding: _PADDING = fixed("same")
    dropout: _RATE = fixed(0.0)
    order: _ORDER = fixed("conv-bn-act")
    convolution: _CONVOLUTION = fixed("separable")
    activation: _FUNCTION = fixed("relu")
    pools: _POOLS = fixed(2)
    pool_position: _POSITION | None = None  # None: anywhere
    pool_kind: _POOL = fixed("max")
    pool_dropout: _POOL_RATE = fixed(0.0)
    head: Annotated[Dimension, dimension(one_of(get_args(Head)), "net")] = fixed("conv")
    head_kernel: Annotated[Dimension, dimension(whole(1, 64), "net")] = fixed(1)
    head_padding: Annotated[Dimension, dimension(one_of(get_args(Padding)), "net")] = fixed("same")
    head_order: Annotated[Dimension, dimension(one_of(get_args(Order)), "net")] = fixed("conv")
    head_dropout: Annotated[Dimension, dimension(fraction, "net")] = fixed(0.0)
    head_bias: Annotated[Dimension, dimension(one_of((True, False)), "net")] = fixed(True)
    momentum: Annotated[Dimension, dimension(fraction, "net")] = fixed(0.9)
    epsilon: Annotated[Dimension, dimension(fraction, "net")] = fixed(1e-3)

    @field_serializer("*")
    def _plain(self, value: Any) -> Any:
        return value.plain() if isinstance(value, Dimension) else value

    @model_validator(mode="after")
    def _consistent(self) -> Pyramid:
        self._check_lengths()
        fewest = min(int(value) for value in self.blocks.values)
        if self.most_pools > fewest:
            raise ValueError(f"pools: {self.most_pools} pools need as many blocks, and blocks goes down to {fewest}")
        if self.pool_position and max(int(value) for value in self.pool_position.values) > self.most_blocks:
            raise ValueError(f"pool_position: there is no block past {self.most_blocks}, the deepest net")
        if 0.0 in self.epsilon.values:
            raise ValueError("epsilon: must be above 0, not 0.0")
        for rate, order in (("dropout", "order"), ("head_dropout", "head_order")):
            if any(getattr(self, rate).values) and not any("dropout" in str(one) for one in getattr(self, order).values):
                raise ValueError(f"{rate}: has no effect, as no {order} holds a dropout; add conv-dropout-bn-act")
        return self

    def _check_lengths(self) -> None:
        for name in type(self).model_fields:
            dimension = getattr(self, name)
            if not isinstance(dimension, Dimension) or not dimension.each:
                continue
            most = self.most_pools if dimension.per == "pool" else self.most_blocks
            if len(dimension.domains) != most:
                what = f"{most} {dimension.per}s"
                raise ValueError(f"{name}: each has {len(dimension.domains)} entries, there are up to {what}")

    @property
    def most_blocks(self) -> int:
        return max(int(value) for value in self.blocks.values)

    @property
    def most_pools(self) -> int:
        return max(int(value) for value in self.pools.values)

    @cached_property
    def layout(self) -> Layout:
        """Where the value of every dimension is found for every block and pool."""
        return _layout(self)


Space = Pyramid


@dataclass(frozen=True)
class Layout:
    """The names of a space's parameters: `keys[dimension][index]`, the sampled domains, and the fixed values."""

    keys: dict[str, tuple[str, ...]]
    sampled: dict[str, Domain]
    fixed: dict[str, Value]


def _layout(space: Pyramid) -> Layout:
    keys: dict[str, tuple[str, ...]] = {}
    domains: dict[str, Domain] = {}
    anywhere = Dimension((Range(1, space.most_blocks, 1) if space.most_blocks > 1 else Choices((1,)),), "pool")
    for name in type(space).model_fields:
        if name == "kind":
            continue
        dimension = getattr(space, name) or anywhere
        count = space.most_pools if name in ("pool_position", "pool_kind", "pool_dropout") else space.most_blocks
        if dimension.per == "net":
            keys[name] = (name,) * max(count, 1)
            domains[name] = dimension.domain(0)
        else:
            keys[name] = tuple(f"{name}_{index + 1}" for index in range(count))
            domains.update({key: dimension.domain(index) for index, key in enumerate(keys[name])})
    sampled = {key: domain for key, domain in domains.items() if not domain.is_fixed}
    return Layout(keys, sampled, {key: domain.first for key, domain in domains.items() if domain.is_fixed})


# --- from parameters to a network ------------------------------------------------------------------------------------


def parameters(space: Space) -> dict[str, Domain]:
    """The sampled parameters, by name, in a fixed order: the same for every trial."""
    return space.layout.sampled


def suggest(space: Space, trial: Trial, input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """Ask the trial for every parameter of the space and build the architecture."""
    values = {name: domain.suggest(trial, name) for name, domain in parameters(space).items()}
    return build(space, values, input_shape, classes)


def build(space: Space, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """The architecture that the sampled parameters stand for; it may not fit its input, which resolving it tells.

    Raises:
        KeyError: a sampled parameter is missing.
    """
    at: Any = {**space.layout.fixed, **values}
    keys = space.layout.keys
    depth = at["blocks"]
    places = pool_places([at[keys["pool_position"][i]] for i in range(at["pools"])], depth, space.most_blocks)
    layers: list[Layer] = []
    pool = 0
    for i in range(depth):
        layers += _block(
            at[keys["order"][i]],
            at[keys["convolution"][i]],
            at[keys["width"][i]],
            at[keys["kernel"][i]],
            at[keys["stride"][i]],
            at[keys["padding"][i]],
            at[keys["dropout"][i]],
            at[keys["activation"][i]],
            at["momentum"],
            at["epsilon"],
        )
        if i + 1 in places:
            layers += _pool(at[keys["pool_kind"][pool]], at[keys["pool_dropout"][pool]])
            pool += 1
    return Architecture(input_shape, classes, (*layers, *_head(space, at, classes)))


def pool_places(positions: Sequence[int], depth: int, deepest: int) -> tuple[int, ...]:
    """The blocks that a pool follows, ascending: positions scaled from the deepest net to `depth`, no two the same."""
    places: list[int] = []
    for position in sorted(-(-position * depth // deepest) for position in positions):
        places.append(max(position, places[-1] + 1) if places else position)
    for back, index in enumerate(reversed(range(len(places)))):  # those pushed past the end come back from it
        places[index] = min(places[index], depth - back)
    return tuple(places)


@lru_cache(maxsize=65_536)  # blocks repeat a thousandfold over a study, and records are frozen
def _block(
    order: str,
    convolution: str,
    filters: int,
    kernel: int,
    stride: int,
    padding: Padding,
    dropout: float,
    activation: Function,
    momentum: float,
    epsilon: float,
    bias: bool = False,
) -> tuple[Layer, ...]:
    conv = SeparableConv if convolution == "separable" else SpatialSeparableConv
    parts: dict[str, Layer] = {
        "conv": conv(filters, kernel, stride, padding, use_bias=bias),
        "bn": BatchNorm(momentum, epsilon),
        "act": Activation(activation),
        "dropout": Dropout(dropout),
    }
    return tuple(parts[part] for part in order.split("-") if part != "dropout" or dropout > 0)


@lru_cache(maxsize=1024)
def _pool(kind: str, dropout: float) -> tuple[Layer, ...]:
    pool = MaxPool() if kind == "max" else AveragePool()
    return (pool, Dropout(dropout)) if dropout > 0 else (pool,)


def _head(space: Space, at: Any, classes: int) -> tuple[Layer, ...]:
    dense = (Dense(classes),) if at["head"] != "conv" else ()
    if at["head"] == "dense":
        return GlobalAveragePool(), *dense, Softmax()
    scores = _block(
        at["head_order"],
        "separable",
        classes,
        at["head_kernel"],
        1,
        at["head_padding"],
        at["head_dropout"],
        at[space.layout.keys["activation"][at["blocks"] - 1]],
        at["momentum"],
        at["epsilon"],
        at["head_bias"],
    )
    return *scores, GlobalAveragePool(), *dense, Softmax()


# --- from a network to its parameters --------------------------------------------------------------------------------


def encode(space: Space, architecture: Architecture) -> dict[str, Value]:
    """The sampled parameters with which `build` gives this network back (in canonical form).

    Raises:
        NotInSpace: no parameters do; names the nearest reason found.
    """
    layers = canonical(architecture).layers
    reason = NotInSpace("the layers are no stack of convolution blocks, pools and a head")
    for head, blocks, scores in _splits(layers, architecture.classes):
        for order in _shared_orders(space):
            try:
                values = _Encoder(space).encode(head, blocks, scores, order)
            except NotInSpace as error:
                reason = error
                continue
            if canonical(build(space, values, architecture.input, architecture.classes)).layers == layers:
                return values
    raise reason


@dataclass
class _Segment:
    """A convolution with what follows it up to the next one, and the pool that closes it."""

    conv: ConvLayer
    after: list[Layer]
    pool: MaxPool | AveragePool | None = None
    pool_dropout: float = 0.0

    def matches(self, order: str) -> bool:
        """Whether the layers after the convolution stand in this order, a dropout at rate 0 left out."""
        parts = [part for part in order.split("-")[1:] if part != "dropout" or self.dropout > 0]
        kinds = {"bn": BatchNorm, "act": Activation, "dropout": Dropout}
        return len(parts) == len(self.after) and all(
            isinstance(layer, kinds[part]) for part, layer in zip(parts, self.after, strict=True)
        )

    @property
    def dropout(self) -> float:
        return next((layer.rate for layer in self.after if isinstance(layer, Dropout)), 0.0)


def _splits(layers: tuple[Layer, ...], classes: int) -> list[tuple[str, list[_Segment], _Segment | None]]:
    """The ways to read the layers as (head, blocks, head convolution)."""
    body = list(layers[:-1])
    has_dense = bool(body) and body[-1] == Dense(classes)
    body = body[:-1] if has_dense else body
    if not body or not isinstance(body.pop(), GlobalAveragePool):
        return []
    segments: list[_Segment] = []
    for layer in body:
        match layer:
            case SeparableConv() | SpatialSeparableConv():
                segments.append(_Segment(layer, []))
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
    splits: list[tuple[str, list[_Segment], _Segment | None]] = []
    if len(segments) > 1 and segments[-1].conv.filters == classes and segments[-1].pool is None:
        splits.append(("conv-dense" if has_dense else "conv", segments[:-1], segments[-1]))
    return [*splits, ("dense", segments, None)] if has_dense and segments else splits


def _shared_orders(space: Space) -> tuple[str | None, ...]:
    """The orders to try where one serves the whole net, else None: each block has its own."""
    return tuple(str(value) for value in space.order.values) if space.order.per == "net" else (None,)


def _plainest(segment: _Segment, orders: Sequence[str]) -> str | None:
    """The first order that the segment matches, one without dropout before one whose dropout would have to be 0."""
    return min((one for one in orders if segment.matches(one)), key=lambda one: "dropout" in one, default=None)


class _Encoder:
    """Collects the value that each part of a network needs; a value that nothing needs keeps its domain's first."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.values: dict[str, Value] = {}

    def encode(self, head: str, blocks: list[_Segment], scores: _Segment | None, order: str | None) -> dict[str, Value]:
        self.need("blocks", 0, len(blocks))
        for index, segment in enumerate(blocks):
            self.block(index, segment, order)
        self.pools(blocks)
        self.need("head", 0, head)
        if scores:
            self.head(scores, len(blocks))
        for name, domain in parameters(self.space).items():
            self.values.setdefault(name, domain.first)
        return {name: self.values[name] for name in parameters(self.space)}

    def need(self, dimension: str, index: int, value: Value) -> None:
        layout = self.space.layout
        keys = layout.keys[dimension]
        if index >= len(keys):
            raise NotInSpace(f"{dimension}: there are at most {len(keys)}")
        key = keys[index]
        domain = layout.sampled.get(key) or Choices((layout.fixed[key],))
        found = domain.find(value)
        if found is None:
            raise NotInSpace(f"{key}: {value} is not {domain}")
        if self.values.setdefault(key, found) != found:
            raise NotInSpace(f"{key}: {value} and {self.values[key]} in one net, and it is sampled once for the net")

    def block(self, index: int, segment: _Segment, order: str | None) -> None:
        conv = segment.conv
        if conv.use_bias:
            raise NotInSpace(f"block {index + 1}: a convolution with bias")
        self.convolution(index, conv)
        key = self.space.layout.keys["order"][min(index, self.space.most_blocks - 1)]
        domain = self.space.layout.sampled.get(key) or Choices((self.space.layout.fixed[key],))
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

    def after(self, index: int, segment: _Segment) -> None:
        for layer in segment.after:
            if isinstance(layer, Activation):
                self.need("activation", index, layer.function)
            elif isinstance(layer, BatchNorm):
                self.need("momentum", 0, layer.momentum)
                self.need("epsilon", 0, layer.epsilon)

    def pools(self, blocks: list[_Segment]) -> None:
        pooled = [(index + 1, segment) for index, segment in enumerate(blocks) if segment.pool]
        self.need("pools", 0, len(pooled))
        self.positions(tuple(place for place, _ in pooled), len(blocks))
        for pool, (_, segment) in enumerate(pooled):
            self.need("pool_kind", pool, "max" if isinstance(segment.pool, MaxPool) else "average")
            self.need("pool_dropout", pool, segment.pool_dropout)

    def positions(self, places: tuple[int, ...], depth: int) -> None:
        """Positions that put the pools so: each on its own where that can be, else by trying the declared ones together."""
        space = self.space
        keys = space.layout.keys["pool_position"][: len(places)]
        declared = {key: self._positions_of(key) for key in keys}
        singly = {
            key: [position for position in declared[key] if -(-position * depth // space.most_blocks) == place]
            for key, place in zip(keys, places, strict=True)
        }
        for choices in (singly, declared):
            for combination in islice(product(*choices.values()), MOST_COMBINATIONS):
                at = dict(zip(choices, combination, strict=True))
                if pool_places([at[key] for key in keys], depth, space.most_blocks) == places:
                    self.values.update(at)
                    return
        raise NotInSpace(f"pool_position: no declared positions put pools behind blocks {', '.join(map(str, places))}")

    def _positions_of(self, key: str) -> list[int]:
        domain = self.space.layout.sampled.get(key) or Choices((self.space.layout.fixed[key],))
        return [position for position in range(1, self.space.most_blocks + 1) if domain.find(position) is not None]

    def head(self, scores: _Segment, depth: int) -> None:
        self.need("head_kernel", 0, scores.conv.kernel)
        if scores.conv.kernel > 1:
            self.need("head_padding", 0, scores.conv.padding)
        self.need("head_bias", 0, scores.conv.use_bias)
        order = _plainest(scores, [str(one) for one in self.space.head_order.values])
        if order is None:
            raise NotInSpace("head_order: no declared order puts the head so")
        self.need("head_order", 0, order)
        if "dropout" in order:
            self.need("head_dropout", 0, scores.dropout)
        self.after(depth - 1, scores)
