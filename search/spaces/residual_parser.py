"""Parser of residual networks: reads the layers as stages of blocks and a head, and finds the parameters for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Dense,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
)
from search.spaces.base import NotInSpace
from search.spaces.domains import Value
from search.spaces.layout import Layout, ValueCollector

Block = Literal["plain", "inverted", "gated"]

NO_STAGES = "the layers are no stem, residual stages and a head"


def hidden_width(width: int, expansion: float) -> int:
    """The channels inside a block that expands its input."""
    return max(1, round(width * expansion))


@dataclass(frozen=True)
class Stage:
    """The layers that lead into a stage, and its residual blocks."""

    entry: tuple[Layer, ...]
    blocks: tuple[Residual, ...]

    @property
    def convolutions(self) -> tuple[SeparableConv, SeparableConv]:
        """The two convolutions of the first block."""
        convolutions = [layer for layer in self.blocks[0].branch if isinstance(layer, SeparableConv)]
        if len(convolutions) != 2:
            raise NotInSpace(f"{NO_STAGES}: a block has {len(convolutions)} separable convolutions")
        return convolutions[0], convolutions[1]

    def kinds(self) -> list[Block]:
        """Kinds that its blocks may have; two convolutions, the first of them 1x1, can be either of two kinds."""
        if any(isinstance(layer, Gate) for layer in self.blocks[0].branch):
            return ["gated"]
        return ["plain", "inverted"] if self.convolutions[0].kernel == 1 else ["plain"]


def split_stages(layers: tuple[Layer, ...]) -> tuple[list[Stage], tuple[Layer, ...]]:
    """Split the layers into stages and the layers after the last block."""
    groups = [tuple(group) for _, group in groupby(layers, key=lambda layer: isinstance(layer, Residual))]
    if len(groups) % 2 == 0 or len(groups) < 3:
        raise NotInSpace(NO_STAGES)
    stages = []
    for entry, blocks in zip(groups[0:-1:2], groups[1::2], strict=True):
        stages.append(Stage(entry, tuple(block for block in blocks if isinstance(block, Residual))))
    return stages, groups[-1]


def find_values(layout: Layout, stages: list[Stage], kinds: Sequence[Block], tail: tuple[Layer, ...]) -> dict[str, Value]:
    """Find a value for every sampled parameter of a network that was read as stages and a tail.

    Args:
        kinds: of the blocks of each stage.

    Raises:
        NotInSpace: there are none.
    """
    needs = ValueCollector(layout)
    needs.need("stages", 0, len(stages))
    first = stages[0].blocks[0].branch
    needs.need("norm", 0, "before" if first and isinstance(first[0], BatchNorm) else "after")
    for index, (stage, kind) in enumerate(zip(stages, kinds, strict=True)):
        _entry(needs, index, stage)
        _blocks(needs, index, stage, kind)
    for layer in _everything(stages, tail):
        if isinstance(layer, BatchNorm):
            needs.need("momentum", 0, layer.momentum)
            needs.need("epsilon", 0, layer.epsilon)
    _set_expansion(needs, stages, kinds)
    match [layer for layer in tail if not isinstance(layer, BatchNorm | Activation)]:
        case [SeparableConv(), GlobalAveragePool(), Softmax()]:
            needs.need("head", 0, "conv")
        case [GlobalAveragePool(), Dense(), Softmax()]:
            needs.need("head", 0, "dense")
        case _:
            raise NotInSpace("head: neither a convolution and a global pool, nor a global pool and a dense layer")
    return needs.complete()


def _entry(needs: ValueCollector, index: int, stage: Stage) -> None:
    conv = next((layer for layer in stage.entry if isinstance(layer, SeparableConv)), None)
    if conv is None:
        raise NotInSpace(f"{NO_STAGES}: no separable convolution leads into stage {index + 1}")
    needs.need("width", index, conv.filters)
    for layer in stage.entry:
        if isinstance(layer, Activation):
            needs.need("activation", index, layer.function)
    if index == 0:
        needs.need("stem_kernel", 0, conv.kernel)
        needs.need("stem_stride", 0, conv.stride)
        needs.need("stem_multiplier", 0, conv.depth_multiplier)
        return
    pool = next((layer for layer in stage.entry if isinstance(layer, MaxPool | AveragePool)), None)
    kind = "stride" if pool is None else "max" if isinstance(pool, MaxPool) else "average"
    needs.need("downsample", index - 1, kind)
    needs.need("downsample_kernel", 0, conv.kernel)


def _blocks(needs: ValueCollector, index: int, stage: Stage, kind: Block) -> None:
    first, second = stage.convolutions
    uses = sum(_weights(block) == first.weights for block in stage.blocks) if first.weights else 1
    needs.need("uses", index, uses)
    needs.need("blocks", index, len(stage.blocks) // uses)
    needs.need("block", index, kind)
    main = second if kind == "inverted" else first
    needs.need("kernel", index, main.kernel)
    if main.kernel > 1:
        needs.need("dilation", index, main.dilation)
    if kind != "inverted":
        needs.need("second_kernel", index, second.kernel)
    for layer in stage.blocks[0].branch:
        if isinstance(layer, Activation | Gate):
            needs.need("activation", index, layer.function)


def _weights(block: Residual) -> str:
    return next((layer.weights for layer in block.branch if isinstance(layer, SeparableConv)), "")


def _set_expansion(needs: ValueCollector, stages: list[Stage], kinds: Sequence[Block]) -> None:
    """Set the first declared expansion that makes the hidden channels of every stage that it is for."""
    channels = {}
    for index, (stage, kind) in enumerate(zip(stages, kinds, strict=True)):
        first, second = stage.convolutions
        if kind != "plain":
            channels[index] = (second.filters, first.filters // (2 if kind == "gated" else 1))

    def makes(width: int, hidden: int, expansion: Value) -> bool:
        return hidden_width(width, float(expansion)) == hidden

    need = ", ".join(f"{width} to {hidden} channels in stage {index + 1}" for index, (width, hidden) in channels.items())
    needs.need_first("expansion", {index: partial(makes, *pair) for index, pair in channels.items()}, need)


def _everything(stages: list[Stage], tail: tuple[Layer, ...]) -> Iterator[Layer]:
    for stage in stages:
        yield from stage.entry
        for block in stage.blocks:
            yield from block.branch
    yield from tail
