"""Search space of residual networks: a stem, stages of residual blocks at falling resolution, a small head.

Every convolution is separable. A block of two convolutions adds what it computes to its input:

    plain     S width k       BN  act    S width second_kernel  BN
    gated     S 2 * hidden k  BN  gate   S width second_kernel  BN     gate: halves a, b of the channels -> act(a) * b
    inverted  S hidden 1      BN  act    S width k              BN     hidden: expansion * width

With norm "before", batch norm and activation come before each convolution instead of after it (a gate stays where it is). A
stage after the first begins with a down-sampling convolution to its own width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import product
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from search.networks.architecture import Architecture, canonical
from search.networks.layers import (
    LARGEST,
    Activation,
    AveragePool,
    BatchNorm,
    Dense,
    Function,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
)
from search.spaces.base import NotInSpace
from search.spaces.domains import Choices, Dimension, Domain, Range, Value, dimension, fixed, fraction, one_of, whole
from search.spaces.layout import Layout, Parts, layout_of
from search.spaces.residual_parser import NO_STAGES, Block, find_values, hidden_width, split_stages

Norm = Literal["after", "before"]
Downsample = Literal["stride", "max", "average"]
Head = Literal["conv", "dense"]

MOST_STAGES = 8
MOST_BLOCKS = 32  # of a stage
MOST_USES = 8  # of a block
LARGEST_EXPANSION = 16.0


def _expansion(value: Any) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST_EXPANSION:
        raise ValueError(f"must be a number above 0, up to {LARGEST_EXPANSION:g}, not {value!r}")
    return float(value)


_WIDTH = Annotated[Dimension, dimension(whole(1, LARGEST // 64), "stage")]
_BLOCKS = Annotated[Dimension, dimension(whole(1, MOST_BLOCKS), "stage")]
_KERNEL = Annotated[Dimension, dimension(whole(1, 64), "stage")]
_NET_KERNEL = Annotated[Dimension, dimension(whole(1, 64), "net")]
_DILATION = Annotated[Dimension, dimension(whole(1, 16), "stage")]
_BLOCK = Annotated[Dimension, dimension(one_of(get_args(Block)), "stage", "net")]
_EXPANSION = Annotated[Dimension, dimension(_expansion, "stage", "net")]
_FUNCTION = Annotated[Dimension, dimension(one_of(get_args(Function)), "stage", "net")]
_USES = Annotated[Dimension, dimension(whole(1, MOST_USES), "stage", "net")]
_DOWNSAMPLE = Annotated[Dimension, dimension(one_of(get_args(Downsample)), "stage", "net")]


class ResidualStages(BaseModel):
    """Stages of residual blocks; every dimension sampled or fixed.

    `blocks`, `width`, `kernel`, `second_kernel` and `dilation` are sampled for each stage, the others once for the net;
    `per` says otherwise. `uses` is how many times each block is applied, every time with the same convolutions and with
    batch norms of its own. `downsample` of a stage is what leads into it, so the first has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["residual"] = Field(default="residual", description="Stages of residual blocks at falling resolution.")
    stages: Annotated[Dimension, dimension(whole(1, MOST_STAGES), "net")] = Field(
        default=fixed(2), description="Number of stages."
    )
    blocks: _BLOCKS = Field(
        default=Dimension((Range(1, 4, 1),), "stage"), description="Number of residual blocks of each stage."
    )
    width: _WIDTH = Field(default=Dimension((Range(16, 96, 4),), "stage"), description="Output channels of each stage.")
    kernel: _KERNEL = Field(
        default=Dimension((Choices((3, 5, 7)),), "stage"),
        description="Side in pixels of the window of a block's first spatial convolution.",
    )
    second_kernel: _KERNEL = Field(
        default=fixed(3), description="Side in pixels of the second convolution's window, in plain and gated blocks."
    )
    dilation: _DILATION = Field(default=fixed(1), description="Dilation of the spatial convolutions of each stage.")
    block: _BLOCK = Field(default=fixed("gated"), description="Kind of residual block: plain, inverted or gated.")
    expansion: _EXPANSION = Field(
        default=fixed(1.0), description="Hidden channels of an inverted or gated block, as a multiple of its width."
    )
    activation: _FUNCTION = Field(default=fixed("silu"), description="Activation function of blocks and gates.")
    norm: Annotated[Dimension, dimension(one_of(get_args(Norm)), "net")] = Field(
        default=fixed("after"), description="Batch normalisation after or before each convolution."
    )
    uses: _USES = Field(
        default=fixed(1),
        description="Times that each block is applied in a row with shared convolutions and batch norms of its own.",
    )
    downsample: _DOWNSAMPLE = Field(
        default=fixed("stride"),
        description="Reduction of the resolution between stages: a strided convolution, or a max or average pool.",
    )
    downsample_kernel: _NET_KERNEL = Field(
        default=fixed(3), description="Side in pixels of the window of the convolution between stages."
    )
    stem_kernel: _NET_KERNEL = Field(default=fixed(3), description="Side in pixels of the stem convolution's window.")
    stem_stride: Annotated[Dimension, dimension(whole(1, 8), "net")] = Field(
        default=fixed(1), description="Stride of the stem convolution."
    )
    stem_multiplier: Annotated[Dimension, dimension(whole(1, 64), "net")] = Field(
        default=fixed(1), description="Depth multiplier of the stem convolution."
    )
    head: Annotated[Dimension, dimension(one_of(get_args(Head)), "net")] = Field(
        default=fixed("conv"), description="A 1 x 1 convolution before, or a dense layer after, global average pooling."
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
    def _consistent(self) -> ResidualStages:
        for name, (declared, numbers) in self._parts.items():
            if declared.each and len(declared.domains) != len(numbers):
                what = "stages after the first" if name == "downsample" else "stages"
                raise ValueError(f"{name}: each has {len(declared.domains)} entries, there are up to {len(numbers)} {what}")
        if 0.0 in self.epsilon.values:
            raise ValueError("epsilon: must be above 0, not 0.0")
        if any(isinstance(domain, Range) and domain.step is None for domain in self.expansion.domains):
            raise ValueError("expansion: a range needs a step here, such as 0.5, as widths are whole")
        kinds = set(self.block.values)
        if kinds == {"plain"} and self.expansion != fixed(1.0):
            raise ValueError("expansion: has no effect, as plain blocks have none; add inverted or gated to block")
        if kinds == {"inverted"} and self.second_kernel != fixed(3):
            raise ValueError("second_kernel: has no effect, as inverted blocks have none; add plain or gated to block")
        if self.most_stages == 1 and (self.downsample, self.downsample_kernel) != (fixed("stride"), fixed(3)):
            raise ValueError("downsample: has no effect, as there is only one stage")
        return self

    @property
    def most_stages(self) -> int:
        return max(int(value) for value in self.stages.values)

    @property
    def _parts(self) -> dict[str, Parts]:
        names = (name for name in type(self).model_fields if name != "kind")
        first = {"downsample": 2}
        return {name: Parts(getattr(self, name), range(first.get(name, 1), self.most_stages + 1)) for name in names}

    @cached_property
    def layout(self) -> Layout:
        """Parameter names of every dimension, for every stage; those of `downsample` begin with the second."""
        return layout_of(self._parts)

    @property
    def parameters(self) -> dict[str, Domain]:
        """Sampled parameters by name."""
        return self.layout.sampled

    @property
    def widths(self) -> tuple[str, ...]:
        """Sampled numbers of channels, stage by stage."""
        return self.layout.sampled_keys("width")

    @property
    def depths(self) -> tuple[str, ...]:
        """Sampled numbers of stages, of blocks in each, and of uses of a block."""
        return self.layout.sampled_keys("stages", "blocks", "uses")

    def build(self, values: Mapping[str, Value], input_shape: tuple[int, int, int], classes: int) -> Architecture:
        """Build the architecture of these parameters.

        Raises:
            KeyError: a sampled parameter is missing.
        """
        at: Any = {**self.layout.fixed, **values}
        keys = self.layout.keys
        norm, momentum, epsilon = at["norm"], at["momentum"], at["epsilon"]
        layers: list[Layer] = []
        act: Function = "relu"
        for index in range(at["stages"]):
            width, act = at[keys["width"][index]], at[keys["activation"][index]]
            if index == 0:
                conv = SeparableConv(width, at["stem_kernel"], at["stem_stride"], depth_multiplier=at["stem_multiplier"])
                layers += (conv,) if norm == "before" else (conv, BatchNorm(momentum, epsilon), Activation(act))
            else:
                kind = at[keys["downsample"][index - 1]]
                layers += _downsampling(kind, width, at["downsample_kernel"], act, norm, momentum, epsilon)
            layers += self._stage(at, index)
        if norm == "before":
            layers += (BatchNorm(momentum, epsilon), Activation(act))
        return Architecture(input_shape, classes, (*layers, *_head(at["head"], classes)))

    def _stage(self, at: Any, index: int) -> Iterator[Residual]:
        """The residual blocks of a stage (from 0)."""
        keys = self.layout.keys
        width, act = at[keys["width"][index]], at[keys["activation"][index]]
        kind, uses = at[keys["block"][index]], at[keys["uses"][index]]
        hidden = width if kind == "plain" else hidden_width(width, at[keys["expansion"][index]])
        kernels = (at[keys["kernel"][index]], at[keys["second_kernel"][index]], at[keys["dilation"][index]])
        for number in range(at[keys["blocks"][index]]):
            weights = f"{index + 1}.{number + 1}" if uses > 1 else ""
            block = _block(kind, width, hidden, *kernels, act, at["norm"], at["momentum"], at["epsilon"], weights)
            yield from (block,) * uses

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """Find the parameters from which `build` gives this architecture, up to canonical form.

        Raises:
            NotInSpace: there are none; the message gives the reason of the last attempt.
        """
        layers = canonical(architecture).layers
        stages, tail = split_stages(layers)
        reason = NotInSpace(NO_STAGES)
        for kinds in product(*(stage.kinds() for stage in stages)):
            try:
                values = find_values(self.layout, stages, kinds, tail)
            except NotInSpace as error:
                reason = error
                continue
            if canonical(self.build(values, architecture.input, architecture.classes)).layers == layers:
                return values
        raise reason


# --- layers ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=65_536)  # blocks repeat a thousandfold over a study, and records are frozen
def _block(
    kind: Block,
    width: int,
    hidden: int,
    kernel: int,
    second_kernel: int,
    dilation: int,
    act: Function,
    norm: Norm,
    momentum: float,
    epsilon: float,
    weights: str,
) -> Residual:
    bn = BatchNorm(momentum, epsilon)
    first_weights, second_weights = (f"{weights}.{place}" if weights else "" for place in (1, 2))
    between: Layer = Gate(act) if kind == "gated" else Activation(act)
    if kind == "inverted":
        first = SeparableConv(hidden, 1, weights=first_weights)
        second = SeparableConv(width, kernel, dilation=dilation, weights=second_weights)
    else:
        filters = 2 * hidden if kind == "gated" else hidden
        first = SeparableConv(filters, kernel, dilation=dilation, weights=first_weights)
        second = SeparableConv(width, second_kernel, weights=second_weights)
    if norm == "after":
        return Residual((first, bn, between, second, bn))
    return Residual((bn, first, between, bn, second) if kind == "gated" else (bn, between, first, bn, between, second))


@lru_cache(maxsize=4096)
def _downsampling(
    kind: Downsample, width: int, kernel: int, act: Function, norm: Norm, momentum: float, epsilon: float
) -> tuple[Layer, ...]:
    conv = SeparableConv(width, kernel, 2 if kind == "stride" else 1)
    pools: dict[str, tuple[Layer, ...]] = {"stride": (), "max": (MaxPool(),), "average": (AveragePool(),)}
    bn = (BatchNorm(momentum, epsilon), Activation(act))
    return (*bn, *pools[kind], conv) if norm == "before" else (*pools[kind], conv, *bn)


def _head(kind: Head, classes: int) -> tuple[Layer, ...]:
    if kind == "dense":
        return GlobalAveragePool(), Dense(classes), Softmax()
    return SeparableConv(classes, 1, use_bias=True), GlobalAveragePool(), Softmax()
