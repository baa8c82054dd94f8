"""What can be built: the search space, its parameters, and the architecture that each choice of them makes.

A `Pyramid` is a plain stack of separable-convolution blocks with pools between them and a small head. Its parameters are
static - the same names and ranges for every trial, a block beyond the depth is ignored - so that a sampler sees one joint
space. A `Fixed` space holds networks that are given, so that a study can search the recipe alone.

`suggest` asks a trial for the parameters and builds the architecture; `search.encode` finds those of a given one. Edit the
[space] table of a study file to search elsewhere; the records of layers are in `search.layers`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, assert_never, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_serializer, model_validator

from search.architecture import Architecture, from_json
from search.domain import (
    Choices,
    Dimension,
    Domain,
    Range,
    Trial,
    Value,
    dimension,
    fixed,
    fraction,
    one_of,
    parse_domain,
    whole,
)
from search.errors import UserError, nearest
from search.layers import (
    LARGEST,
    Activation,
    ArchitectureError,
    AveragePool,
    BatchNorm,
    Dense,
    Dropout,
    Function,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Padding,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)

Order = Literal["conv-bn-act", "conv-act-bn", "conv-dropout-bn-act", "conv-act-dropout-bn", "conv-act", "conv"]
Convolution = Literal["separable", "spatial_separable"]
Pool = Literal["max", "average"]
Head = Literal["conv", "dense", "conv-dense"]

MOST_BLOCKS = 64

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


def _network_names(raw: object) -> Domain:
    def check(value: Any) -> Value:
        if not isinstance(value, str) or not value:
            raise ValueError(f'must be the name of a network, such as "eip-c", not {value!r}')
        return value

    if isinstance(raw, Mapping):
        raise ValueError(f'takes a name or a list of names, such as ["eip-c", "eip-d"], not {dict(raw)!r}')
    return raw if isinstance(raw, Choices) else parse_domain(raw, check)


class Fixed(BaseModel):
    """A network that is given, or several to choose from by name, for a study that searches the recipe alone.

    `networks` holds each of them as `search.architecture.to_dict` writes it, so that a stored configuration needs no other
    file. It is left out of a study file, and filled in where that is read. `momentum` is that of every batch norm, instead
    of the networks' own: the averages of one at 0.99 lag behind a run of a few hundred steps, which then ranks the lag.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["fixed"] = "fixed"
    network: Annotated[Choices, BeforeValidator(_network_names)]
    networks: dict[str, dict[str, JsonValue]] = {}
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)] | None = None

    @field_serializer("network")
    def _plain(self, value: Choices) -> Any:
        return value.plain()

    @model_validator(mode="after")
    def _consistent(self) -> Fixed:
        missing = [str(name) for name in self.network.values if self.networks and name not in self.networks]
        if missing:
            raise ValueError(f"network: no {missing[0]!r} among the networks given, {nearest(missing[0], self.networks)}")
        _ = self.architectures  # a bad one is told now
        return self

    @cached_property
    def architectures(self) -> dict[str, Architecture]:
        """The networks by name.

        Raises:
            ValueError: one of them is no architecture.
        """
        return {name: _architecture(name, plain) for name, plain in self.networks.items()}

    def given(self, name: Value) -> Architecture:
        """The network of this name.

        Raises:
            ValueError: it has not been filled in.
        """
        if name not in self.architectures:
            raise ValueError(f"networks: {name!r} is not there; they are filled in where a study file is read")
        found = self.architectures[str(name)]
        return found if self.momentum is None else replace(found, layers=_with_momentum(found.layers, self.momentum))


def _with_momentum(layers: tuple[Layer, ...], momentum: float) -> tuple[Layer, ...]:
    def changed(layer: Layer) -> Layer:
        if isinstance(layer, Residual):
            return Residual(_with_momentum(layer.branch, momentum), _with_momentum(layer.shortcut, momentum))
        return replace(layer, momentum=momentum) if isinstance(layer, BatchNorm) else layer

    return tuple(map(changed, layers))


def _architecture(name: str, plain: Mapping[str, JsonValue]) -> Architecture:
    try:
        return from_json(json.dumps(plain))
    except UserError as error:
        problem = str(error).removeprefix("architecture: ").removeprefix("file: ")
        raise ValueError(f"networks.{name}: {problem}") from None


# --- spaces of either kind -------------------------------------------------------------------------------------------

Space = Pyramid | Fixed


class _Kind(BaseModel):
    kind: Literal["pyramid", "fixed"] = "pyramid"


def record_of(table: object) -> type[Pyramid] | type[Fixed]:
    """The record that a [space] table is read as: by its kind, a pyramid where it tells none."""
    return Fixed if isinstance(table, Mapping) and table.get("kind") == "fixed" else Pyramid


def _read(raw: object) -> Space:
    if isinstance(raw, Pyramid | Fixed):
        return raw
    if isinstance(raw, Mapping):
        _Kind.model_validate(raw)  # tells of an unknown kind with those that there are
    return record_of(raw).model_validate(raw)


# Not pydantic's own union: that puts the kind into the place of a fault, `space.pyramid.width`.
AnySpace = Annotated[Space, BeforeValidator(_read)]


# --- from parameters to a network ------------------------------------------------------------------------------------


def parameters(space: Space) -> dict[str, Domain]:
    """The sampled parameters, by name, in a fixed order: the same for every trial."""
    match space:
        case Pyramid():
            return space.layout.sampled
        case Fixed():
            return {} if space.network.is_fixed else {"network": space.network}
        case _:
            assert_never(space)


def widths(space: Space) -> tuple[str, ...]:
    """The sampled parameters that are numbers of channels, in the order of the blocks."""
    match space:
        case Pyramid():
            return tuple(name for name in dict.fromkeys(space.layout.keys["width"]) if name in space.layout.sampled)
        case Fixed():
            return ()
        case _:
            assert_never(space)


def suggest(space: Space, trial: Trial, input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """Ask the trial for every parameter of the space and build the architecture."""
    values = {name: domain.suggest(trial, name) for name, domain in parameters(space).items()}
    return build(space, values, input_shape, classes)


def build(space: Space, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """The architecture that the sampled parameters stand for; it may not fit its input, which resolving it tells.

    Raises:
        KeyError: a sampled parameter is missing.
        ArchitectureError: a given network is for other images.
    """
    match space:
        case Pyramid():
            return _pyramid(space, values, input_shape, classes)
        case Fixed():
            return _given(space, values, input_shape, classes)
        case _:
            assert_never(space)


def _given(space: Fixed, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
    name = space.network.first if space.network.is_fixed else values["network"]
    found = space.given(name)
    if (found.input, found.classes) != (input_shape, classes):
        needs, has = (f"{'x'.join(map(str, shape))}" for shape in (found.input, input_shape))
        raise ArchitectureError(f"takes images of {needs} in {found.classes} classes, not {has} in {classes}", str(name))
    return found


def _pyramid(space: Pyramid, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
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


def _head(space: Pyramid, at: Any, classes: int) -> tuple[Layer, ...]:
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
