"""Search space of pyramids: a stack of separable convolutions with pools between them, and a small head.

`Pyramid` declares the dimensions; below it are the layers that each choice builds. `search.spaces.pyramid_parser` reads them
back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from search.networks.architecture import Architecture, canonical
from search.networks.layers import (
    LARGEST,
    Activation,
    AveragePool,
    BatchNorm,
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
from search.spaces.base import NotInSpace
from search.spaces.domains import Choices, Dimension, Domain, Range, Value, dimension, fixed, fraction, one_of, whole
from search.spaces.layout import Layout, Parts, layout_of
from search.spaces.pyramid_parser import Encoder, pool_places, splits

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

    kind: Literal["pyramid"] = Field(
        default="pyramid", description="A plain stack of separable-convolution blocks with pools between them."
    )
    blocks: _BLOCKS = Field(
        default=Dimension((Range(4, 8, 1),), "net"), description="Number of blocks, each with one separable convolution."
    )
    width: _WIDTH = Field(default=Dimension((Range(16, 128, 8),), "block"), description="Output channels of each block.")
    kernel: _KERNEL = Field(default=fixed(3), description="Side of the convolution's window in pixels.")
    stride: _STRIDE = Field(default=fixed(1), description="Stride of each block's convolution.")
    padding: _PADDING = Field(default=fixed("same"), description="Padding of the convolutions.")
    dropout: _RATE = Field(
        default=fixed(0.0), description="Dropout rate of each block; takes effect in orders that contain a dropout."
    )
    order: _ORDER = Field(default=fixed("conv-bn-act"), description="Order of the layers inside a block.")
    convolution: _CONVOLUTION = Field(
        default=fixed("separable"),
        description="Kind of convolution: depthwise k x k and pointwise, or k x 1 and 1 x k depthwise and pointwise.",
    )
    activation: _FUNCTION = Field(default=fixed("relu"), description="Activation function of the blocks.")
    pools: _POOLS = Field(default=fixed(2), description="Number of pools.")
    pool_position: _POSITION | None = Field(
        default=None,
        description="Block of the deepest network that each pool follows; scaled with the depth. Left out: any block.",
    )
    pool_kind: _POOL = Field(default=fixed("max"), description="Kind of each pool.")
    pool_dropout: _POOL_RATE = Field(default=fixed(0.0), description="Dropout rate after each pool.")
    head: Annotated[Dimension, dimension(one_of(get_args(Head)), "net")] = Field(
        default=fixed("conv"),
        description="Layers after the blocks: a convolution before or a dense layer after global average pooling, or both.",
    )
    head_kernel: Annotated[Dimension, dimension(whole(1, 64), "net")] = Field(
        default=fixed(1), description="Side of the head convolution's window in pixels."
    )
    head_padding: Annotated[Dimension, dimension(one_of(get_args(Padding)), "net")] = Field(
        default=fixed("same"), description="Padding of the head convolution."
    )
    head_order: Annotated[Dimension, dimension(one_of(get_args(Order)), "net")] = Field(
        default=fixed("conv"), description="Order of the layers around the head convolution."
    )
    head_dropout: Annotated[Dimension, dimension(fraction, "net")] = Field(
        default=fixed(0.0), description="Dropout rate of the head; takes effect in head orders that contain a dropout."
    )
    head_bias: Annotated[Dimension, dimension(one_of((True, False)), "net")] = Field(
        default=fixed(True), description="Bias of the head convolution and of the dense layer."
    )
    momentum: Annotated[Dimension, dimension(fraction, "net")] = Field(
        default=fixed(0.9), description="Momentum of the moving averages of batch normalisation."
    )
    epsilon: Annotated[Dimension, dimension(fraction, "net")] = Field(
        default=fixed(1e-3), description="Epsilon of batch normalisation."
    )

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
        """Parameter names of every dimension, for every block and pool."""
        anywhere = Dimension((Range(1, self.most_blocks, 1) if self.most_blocks > 1 else Choices((1,)),), "pool")
        of_pools = ("pool_position", "pool_kind", "pool_dropout")
        numbers = {True: range(1, self.most_pools + 1), False: range(1, self.most_blocks + 1)}
        names = (name for name in type(self).model_fields if name != "kind")
        return layout_of({name: Parts(getattr(self, name) or anywhere, numbers[name in of_pools]) for name in names})

    @property
    def parameters(self) -> dict[str, Domain]:
        """Sampled parameters by name."""
        return self.layout.sampled

    @property
    def widths(self) -> tuple[str, ...]:
        """Sampled numbers of channels, block by block."""
        return self.layout.sampled_keys("width")

    @property
    def depths(self) -> tuple[str, ...]:
        """The number of blocks, if sampled."""
        return self.layout.sampled_keys("blocks")

    def build(self, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
        """Build the architecture of these parameters.

        Raises:
            KeyError: a sampled parameter is missing.
        """
        at: Any = {**self.layout.fixed, **values}
        keys = self.layout.keys
        depth = at["blocks"]
        positions = [at[keys["pool_position"][index]] for index in range(at["pools"])]
        pooled_blocks = pool_places(positions, depth, self.most_blocks)
        layers: list[Layer] = []
        pool = 0
        for index in range(depth):
            layers += _block(
                at[keys["order"][index]],
                at[keys["convolution"][index]],
                at[keys["width"][index]],
                at[keys["kernel"][index]],
                at[keys["stride"][index]],
                at[keys["padding"][index]],
                at[keys["dropout"][index]],
                at[keys["activation"][index]],
                at["momentum"],
                at["epsilon"],
            )
            if index + 1 in pooled_blocks:
                layers += _pool(at[keys["pool_kind"][pool]], at[keys["pool_dropout"][pool]])
                pool += 1
        return Architecture(input_shape, classes, (*layers, *_head(self, at, classes)))

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """Find the parameters from which `build` gives this architecture, up to canonical form.

        Raises:
            NotInSpace: there are none; the message gives the reason of the last attempt.
        """
        layers = canonical(architecture).layers
        reason = NotInSpace("the layers are no stack of convolution blocks, pools and a head")
        is_shared = self.order.per == "net"
        orders = [str(value) for value in self.order.values] if is_shared else [None]  # None: each block has its own
        for head, blocks, scores in splits(layers, architecture.classes):
            for order in orders:
                try:
                    values = Encoder(self.layout).encode(head, blocks, scores, order)
                except NotInSpace as error:
                    reason = error
                    continue
                if canonical(self.build(values, architecture.input, architecture.classes)).layers == layers:
                    return values
        raise reason


# --- layers ----------------------------------------------------------------------------------------------------------


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
