"""Convolutions and paddings of Keras in a row, turned into the layers here that compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from search.keras_import.options import Pair
from search.keras_import.steps import Check, Convolution, Findings, Item, Problem, Step, Zeros
from search.networks.geometry import Resolved
from search.networks.layers import (
    Activation,
    ArchitectureError,
    BatchNorm,
    Conv,
    Dropout,
    Layer,
    Padding,
    SeparableConv,
    SpatialSeparableConv,
)

_NONE = ((0, 0), (0, 0))
_SMALL = BatchNorm | Activation | Dropout


def fuse(items: Sequence[Item], findings: Findings) -> tuple[Step, ...]:
    """The steps of a chain, in the order in which they are computed."""
    steps: list[Step] = []
    rest = list(items)
    while rest:
        match rest:
            case [Step() as read, *rest]:
                steps.append(read)
            case [Zeros(around=around), *rest] if around == _NONE:
                pass
            case [Zeros() as zeros, Convolution(padding="valid", around=None) as first, *rest]:
                rest.insert(0, replace(first, around=zeros.around))
            case [Zeros() as zeros, *rest]:
                rule = "stands before no convolution with padding='valid'"
                findings.problems.append(Problem(zeros.origin, rule, "padding='same' in the convolution", mended=False))
            case [Convolution() as first, *rest]:
                rest = _without_between(first, rest, findings)
                taken, step = _step(first, _convolutions(rest), findings)
                rest = rest[taken:]
                steps += [step] if step else []
    return tuple(steps)


def _without_between(first: Convolution, rest: list[Item], findings: Findings) -> list[Item]:
    """The rest without what stands between a depthwise convolution and its 1x1 convolution, which is told as a problem."""
    between = list(takewhile(lambda item: isinstance(item, Step) and isinstance(item.layer, _SMALL), rest))
    after = rest[len(between) :]
    if first.kind != "depthwise" or not between or not after or not _is_pointwise(after[0]):
        return rest
    names = " and ".join(dict.fromkeys(item.origin for item in between if isinstance(item, Step)))
    rule = f"parted from the 1x1 convolution after it by {names}"
    findings.problems.append(Problem(first.origin, rule, "the two without them between, which are one SeparableConv2D"))
    return after


def _convolutions(items: Sequence[Item]) -> list[Convolution]:
    """Those that follow straight on."""
    return [item for item in takewhile(lambda item: isinstance(item, Convolution), items) if isinstance(item, Convolution)]


def _step(first: Convolution, following: Sequence[Convolution], findings: Findings) -> tuple[int, Step | None]:
    """How many of those that follow belong to the layer, and the layer."""
    try:
        match following:
            case _ if first.kind != "depthwise":
                return 0, _alone(_squared(first, findings))
            case [second, *_] if second.kind == "separable" and _is_spatial(first, second):
                return 1, _spatial(first, second, second, findings)
            case [second, last, *_] if second.kind == "depthwise" and _is_pointwise(last) and _is_spatial(first, second):
                findings.read_as.append(f"{first.origin}, {second.origin} and {last.origin} as one spatial_separable_conv")
                _note_bias(second, last, findings)
                return 2, _spatial(first, second, last, findings)
            case [last, *_] if _is_pointwise(last):
                findings.read_as.append(f"{first.origin} and {last.origin} as one separable_conv")
                _note_bias(first, last, findings)
                _note_sharing((first, last), findings)
                whole = replace(first, kind="separable", filters=last.filters, use_bias=last.use_bias, weights=last.weights)
                return 1, _alone(_squared(replace(whole, origin=f"{first.origin} and {last.origin}"), findings))
            case _:
                rule, edit = "known only with a 1x1 Conv2D straight after it", "SeparableConv2D"
                findings.problems.append(Problem(first.origin, rule, edit, mended=False))
    except ArchitectureError as error:
        findings.problems.append(Problem(first.origin, str(error), "a value that Keras takes too", mended=False))
    return 0, None


def _alone(one: Convolution) -> Step:
    kernel, stride, dilation = one.kernel[0], one.stride[0], one.dilation[0]
    padding: Padding = "same" if one.around else one.padding
    layer: Layer
    if one.kind == "plain":
        layer = Conv(one.filters, kernel, stride, padding, dilation, one.use_bias, one.weights)
    else:
        layer = SeparableConv(
            one.filters, kernel, stride, padding, dilation, one.depth_multiplier, one.use_bias, one.weights
        )
    return Step(layer, one.origin, check=_pads_alike(one) if one.around else None)


def _spatial(first: Convolution, second: Convolution, last: Convolution, findings: Findings) -> Step:
    _note_bias(first, second, findings)
    _note_sharing((first, second, last), findings)
    layer = SpatialSeparableConv(
        last.filters, first.kernel[0], second.stride[0], first.padding, first.dilation[0], last.use_bias, last.weights
    )
    return Step(layer, f"{first.origin} and {last.origin}")


def _is_pointwise(one: Item) -> bool:
    return isinstance(one, Convolution) and one.kind == "plain" and one.kernel == one.stride == (1, 1) and one.around is None


def _is_spatial(first: Convolution, second: Convolution) -> bool:
    """Whether the two are the k x 1 and the 1 x k half."""
    (kernel, width), (height, other) = first.kernel, second.kernel
    along, across = first.dilation, second.dilation
    return (
        (width, height, other) == (1, 1, kernel)
        and first.stride == (1, 1)
        and second.stride[0] == second.stride[1]
        and (along[1], across[0], across[1]) == (1, 1, along[0])
        and first.padding == second.padding
        and first.depth_multiplier == second.depth_multiplier == 1
        and first.around is second.around is None
    )


def _note_bias(first: Convolution, last: Convolution, findings: Findings) -> None:
    if first.use_bias:
        findings.problems.append(Problem(first.origin, f"a bias before {last.origin}", "use_bias=False"))


def _note_sharing(parts: Sequence[Convolution], findings: Findings) -> None:
    """The parts of one layer share their weights together or not at all."""
    for part in parts:
        if part.times != parts[-1].times:
            rule = f"called {part.times} times with the same weights, and {parts[-1].origin} {parts[-1].times}"
            findings.problems.append(Problem(part.origin, rule, "a layer of its own for each call"))


def _squared(one: Convolution, findings: Findings) -> Convolution:
    for name, value in (("kernel_size", one.kernel), ("strides", one.stride), ("dilation_rate", one.dilation)):
        if value[0] != value[1]:
            rule, side = f"{name} {value[0]}x{value[1]}", max(value)
            pair = "; DepthwiseConv2D k x 1 and SeparableConv2D 1 x k go together" if name == "kernel_size" else ""
            findings.problems.append(Problem(one.origin, rule, f"{side}x{side}{pair}"))
    kernel, stride, dilation = ((max(value), max(value)) for value in (one.kernel, one.stride, one.dilation))
    return replace(one, kernel=kernel, stride=stride, dilation=dilation)


def _pads_alike(one: Convolution) -> Check:
    """Whether the zeros around are those of padding="same"."""

    def check(row: Resolved) -> tuple[str, str] | None:
        usual = tuple(
            _same(size, (kernel - 1) * dilation + 1, stride)
            for size, kernel, stride, dilation in zip(row.input, one.kernel, one.stride, one.dilation, strict=False)
        )
        if one.around == usual:
            return None
        return f"padded by {one.around}, and padding='same' pads by {usual}", "padding='same', and no ZeroPadding2D"

    return check


def _same(size: int, reach: int, stride: int) -> Pair:
    """Zeros before and after, as TensorFlow pads."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2
