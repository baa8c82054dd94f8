"""Fusion of consecutive Keras convolutions and paddings into layers that compute the same."""

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
    AveragePool,
    BatchNorm,
    Conv,
    Dropout,
    Layer,
    MaxPool,
    Padding,
    SeparableConv,
    SpatialSeparableConv,
)

_NONE = ((0, 0), (0, 0))
_SMALL = BatchNorm | Activation | Dropout


def fuse(items: Sequence[Item], findings: Findings) -> tuple[Step, ...]:
    """Steps of a chain, in the order of computation."""
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
            case [
                Zeros() as zeros,
                Step(layer=MaxPool(padding="valid") | AveragePool(padding="valid") as pool) as step,
                *rest,
            ]:
                rule = f"adds zeros {zeros.around} before a pool, {step.origin}; only a convolution can take them"
                edit = f"padding='same' in {step.origin}, and no {zeros.origin}"
                findings.problems.append(Problem(zeros.origin, rule, edit))
                steps.append(replace(step, layer=replace(pool, padding="same")))
            case [Zeros() as zeros, *rest]:
                rule = f"adds zeros {zeros.around} before {_described(rest)}, not before a convolution with padding='valid'"
                findings.problems.append(Problem(zeros.origin, rule, "padding='same' in the convolution", mended=False))
            case [Convolution() as first, *rest]:
                rest = _without_between(first, rest, findings)
                taken, made = _step(first, _convolutions(rest), findings)
                rest = rest[taken:]
                if made:
                    steps.append(made)
    return tuple(steps)


def _described(items: Sequence[Item]) -> str:
    """The first of the items, for a message."""
    match items:
        case [Convolution() as first, *_]:
            return f"{first.origin} with padding='{first.padding}'"
        case [first, *_]:
            return first.origin
        case _:
            return "the end of a branch"


def _without_between(first: Convolution, rest: list[Item], findings: Findings) -> list[Item]:
    """The rest without the layers between a depthwise convolution and its 1x1 convolution, recorded as a problem."""
    between = list(takewhile(lambda item: isinstance(item, Step) and isinstance(item.layer, _SMALL), rest))
    after = rest[len(between) :]
    if first.kind != "depthwise" or not between or not after or not _is_pointwise(after[0]):
        return rest
    names = " and ".join(dict.fromkeys(item.origin for item in between if isinstance(item, Step)))
    rule = f"separated from the 1x1 convolution after it by {names}"
    findings.problems.append(Problem(first.origin, rule, "the two without them between, which are one SeparableConv2D"))
    return after


def _convolutions(items: Sequence[Item]) -> list[Convolution]:
    """Convolutions at the beginning of the items."""
    return [item for item in takewhile(lambda item: isinstance(item, Convolution), items) if isinstance(item, Convolution)]


def _step(first: Convolution, following: Sequence[Convolution], findings: Findings) -> tuple[int, Step | None]:
    """Number of following convolutions that belong to the layer of the first, and the layer.

    The layer is None where none computes the same, which is recorded as a problem.
    """
    try:
        match following:
            case _ if first.kind != "depthwise":
                return 0, _single(_squared(first, findings), (first,))
            case [second, *_] if second.kind == "separable" and _is_spatial(first, second):
                return 1, _spatial((first, second), findings)
            case [second, last, *_] if second.kind == "depthwise" and _is_pointwise(last) and _is_spatial(first, second):
                findings.read_as.append(f"{first.origin}, {second.origin} and {last.origin} as one spatial_separable_conv")
                _check_bias(second, last, findings)
                return 2, _spatial((first, second, last), findings)
            case [last, *_] if _is_pointwise(last):
                findings.read_as.append(f"{first.origin} and {last.origin} as one separable_conv")
                _check_bias(first, last, findings)
                whole = replace(
                    first,
                    origin=f"{first.origin} and {last.origin}",
                    kind="separable",
                    filters=last.filters,
                    use_bias=last.use_bias,
                )
                return 1, _single(_squared(whole, findings), (first, last))
            case _:
                rule, edit = "known only with a 1x1 Conv2D straight after it", "SeparableConv2D"
                findings.problems.append(Problem(first.origin, rule, edit, mended=False))
    except ArchitectureError as error:
        findings.problems.append(Problem(first.origin, str(error), "a value that Keras takes too", mended=False))
    return 0, None


def _single(conv: Convolution, parts: tuple[Convolution, ...]) -> Step:
    """The layer of a convolution with square options, made of these parts."""
    kernel, stride, dilation = conv.kernel[0], conv.stride[0], conv.dilation[0]
    padding: Padding = "same" if conv.around else conv.padding
    layer: Layer
    if conv.kind == "plain":
        layer = Conv(conv.filters, kernel, stride, padding, dilation, conv.use_bias)
    else:
        layer = SeparableConv(conv.filters, kernel, stride, padding, dilation, conv.depth_multiplier, conv.use_bias)
    return Step(layer, conv.origin, check=_padding_check(conv) if conv.around else None, parts=parts)


def _spatial(parts: tuple[Convolution, ...], findings: Findings) -> Step:
    """The spatially separable layer of a k x 1 and a 1 x k convolution, and of a 1x1 convolution if there is a third."""
    first, second, last = parts[0], parts[1], parts[-1]
    _check_bias(first, second, findings)
    layer = SpatialSeparableConv(
        last.filters,
        first.kernel[0],
        second.stride[0],
        first.padding,
        first.dilation[0],
        last.use_bias,
    )
    return Step(layer, f"{first.origin} and {last.origin}", parts=parts)


def _is_pointwise(item: Item) -> bool:
    return (
        isinstance(item, Convolution)
        and item.kind == "plain"
        and item.kernel == item.stride == (1, 1)
        and item.around is None
    )


def _is_spatial(first: Convolution, second: Convolution) -> bool:
    """True if the two are a k x 1 and a 1 x k depthwise convolution."""
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


def _check_bias(first: Convolution, last: Convolution, findings: Findings) -> None:
    if first.use_bias:
        findings.problems.append(Problem(first.origin, f"a bias before {last.origin}", "use_bias=False"))


def _squared(conv: Convolution, findings: Findings) -> Convolution:
    """The convolution with square options: of unequal sides, recorded as a problem, the larger is taken."""
    for name, value in (("kernel_size", conv.kernel), ("strides", conv.stride), ("dilation_rate", conv.dilation)):
        if value[0] != value[1]:
            rule, side = f"{name} {value[0]}x{value[1]}", max(value)
            pair = "; DepthwiseConv2D k x 1 and SeparableConv2D 1 x k go together" if name == "kernel_size" else ""
            findings.problems.append(Problem(conv.origin, rule, f"{side}x{side}{pair}"))
    kernel, stride, dilation = ((max(value), max(value)) for value in (conv.kernel, conv.stride, conv.dilation))
    return replace(conv, kernel=kernel, stride=stride, dilation=dilation)


def _padding_check(conv: Convolution) -> Check:
    """A check that the zeros around are those of padding="same"."""

    def check(row: Resolved) -> tuple[str, str] | None:
        usual = tuple(
            _same_padding(size, (kernel - 1) * dilation + 1, stride)
            for size, kernel, stride, dilation in zip(row.input, conv.kernel, conv.stride, conv.dilation, strict=False)
        )
        if conv.around == usual:
            return None
        return f"padded by {conv.around}, and padding='same' pads by {usual}", "padding='same', and no ZeroPadding2D"

    return check


def _same_padding(size: int, reach: int, stride: int) -> Pair:
    """Zeros before and after an axis, as TensorFlow pads for padding="same"."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2
