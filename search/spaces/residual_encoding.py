"""The parameters of a given network in a space of residual stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product

from search.networks.architecture import Architecture, canonical
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
from search.spaces.domains import Value
from search.spaces.encoding import Needs, NotInSpace
from search.spaces.residual import Block, ResidualStages, build, hidden_width

NO_STAGES = "the layers are no stem, residual stages and a head"


@dataclass(frozen=True)
class _Stage:
    """What leads into a stage, and its residual blocks."""

    entry: tuple[Layer, ...]
    blocks: tuple[Residual, ...]

    @property
    def convolutions(self) -> tuple[SeparableConv, SeparableConv]:
        """Those of the first block."""
        found = [layer for layer in self.blocks[0].branch if isinstance(layer, SeparableConv)]
        if len(found) != 2:
            raise NotInSpace(f"{NO_STAGES}: a block has {len(found)} separable convolutions")
        return found[0], found[1]

    def kinds(self) -> list[Block]:
        """What its blocks may be; one of two convolutions, the first of them 1x1, can be read in two ways."""
        if any(isinstance(layer, Gate) for layer in self.blocks[0].branch):
            return ["gated"]
        return ["plain", "inverted"] if self.convolutions[0].kernel == 1 else ["plain"]


def encode(space: ResidualStages, architecture: Architecture) -> dict[str, Value]:
    """The sampled parameters with which `build` gives this network back (in canonical form).

    Raises:
        NotInSpace: no parameters do; names the nearest reason found.
    """
    layers = canonical(architecture).layers
    stages, tail = _stages(layers)
    reason = NotInSpace(NO_STAGES)
    for kinds in product(*(stage.kinds() for stage in stages)):
        try:
            values = _read(space, stages, kinds, tail)
        except NotInSpace as error:
            reason = error
            continue
        if canonical(build(space, values, architecture.input, architecture.classes)).layers == layers:
            return values
    raise reason


def _stages(layers: tuple[Layer, ...]) -> tuple[list[_Stage], tuple[Layer, ...]]:
    """The layers cut into stages, and what follows the last block."""
    groups = [tuple(group) for _, group in groupby(layers, key=lambda layer: isinstance(layer, Residual))]
    if len(groups) % 2 == 0 or len(groups) < 3:
        raise NotInSpace(NO_STAGES)
    stages = []
    for entry, blocks in zip(groups[0:-1:2], groups[1::2], strict=True):
        stages.append(_Stage(entry, tuple(block for block in blocks if isinstance(block, Residual))))
    return stages, groups[-1]


def _read(space: ResidualStages, stages: list[_Stage], kinds: Sequence[Block], tail: tuple[Layer, ...]) -> dict[str, Value]:
    needs = Needs(space.layout)
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
    _expansion(needs, stages, kinds)
    match [layer for layer in tail if not isinstance(layer, BatchNorm | Activation)]:
        case [SeparableConv(), GlobalAveragePool(), Softmax()]:
            needs.need("head", 0, "conv")
        case [GlobalAveragePool(), Dense(), Softmax()]:
            needs.need("head", 0, "dense")
        case _:
            raise NotInSpace("head: neither a convolution and a global pool, nor a global pool and a dense layer")
    return needs.complete()


def _entry(needs: Needs, index: int, stage: _Stage) -> None:
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


def _blocks(needs: Needs, index: int, stage: _Stage, kind: Block) -> None:
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


def _expansion(needs: Needs, stages: list[_Stage], kinds: Sequence[Block]) -> None:
    """The first declared expansion that makes the hidden channels of every stage that it is for."""
    hidden = {}
    for index, (stage, kind) in enumerate(zip(stages, kinds, strict=True)):
        first, second = stage.convolutions
        if kind != "plain":
            hidden[index] = (second.filters, first.filters // (2 if kind == "gated" else 1))

    def holds(index: int, value: Value) -> bool:
        width, channels = hidden[index]
        return hidden_width(width, float(value)) == channels

    told = ", ".join(f"{width} to {channels} channels in stage {index + 1}" for index, (width, channels) in hidden.items())
    needs.need_such("expansion", list(hidden), holds, told)


def _everything(stages: list[_Stage], tail: tuple[Layer, ...]) -> Iterator[Layer]:
    for stage in stages:
        yield from stage.entry
        for block in stage.blocks:
            yield from block.branch
    yield from tail
