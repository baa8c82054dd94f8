"""Proposal of a study for given images: size, space, base and recipe, each with its reason.

The rules are rough and made to be overruled: their result is written into a study file with its reasons. For the data sets
of the shipped studies they propose nearly those studies.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.budget.cost import compute_cost
from search.data.inspection import ImageFacts
from search.errors import UserError
from search.networks.architecture import Architecture
from search.networks.layers import Activation, BatchNorm, Conv, Dense, Dropout, Flatten, Layer, MaxPool, Softmax
from search.training.measures import ACCURACY, BALANCED_ACCURACY, constant_guess

SIDES = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96)  # to which images are resized
LARGE = 48  # shorter side in pixels from which on the first block halves the image
ALIKE = 0.05  # relative difference of the images' aspect ratios, up to which the input takes their ratio
COMMON = 1 / 3  # share of the commonest class, beyond which accuracy says little about the others
OVER = 10  # parameters of the base as a multiple of the budget, as in the shipped studies

_CHARACTERS = {"left", "right"}  # words in names of classes that a flip turns into each other


@dataclass(frozen=True)
class Proposal:
    """A study for some images under a budget."""

    size: tuple[int, int] | None  # (height, width) to resize to, None where the images are as they should be
    input: tuple[int, int, int]  # (height, width, channels) that the networks take
    grayscale: bool
    blocks: tuple[int, int]
    width: tuple[int, int]  # in steps of 8
    pools: tuple[int, int]
    halves: bool  # True if the first block has stride 2
    batch_size: int
    epochs: int
    flip: bool
    crop: int
    base: Architecture
    metric: str  # the measure to rank by
    why: dict[str, str]  # the reason of each setting, in words


def propose(facts: ImageFacts, budget: int) -> Proposal:
    """Propose a study from the facts of the images and the budget of parameters.

    Raises:
        UserError: no image is as large as a network can take.
    """
    why: dict[str, str] = {}
    shape = _input(facts, budget, why)
    size = None if facts.sizes.keys() == {shape} else shape
    grayscale = facts.is_grey and facts.channels == 3
    channels = 1 if facts.is_grey else facts.channels
    if facts.is_grey:
        why["grayscale"] = "all images of the sample are grey" if grayscale else "the images have one channel"
    side = min(shape)
    halves = side >= LARGE
    pools = _pools(side // 2 if halves else side)
    blocks = _blocks(budget, pools)
    middle = math.sqrt(budget / (sum(blocks) / 2))
    width = (16 if middle >= 32 else 8, max(24, 8 * round(2.1 * middle / 8)))
    channels_that_fill = 8 * max(1, round(middle / 8))
    why["space"] = f"{sum(blocks) // 2} blocks of {channels_that_fill} channels each would about fill the budget"
    trained_on = facts.training_images
    batch_size = 128 if trained_on >= 20_000 else 64 if trained_on >= 5_000 else 32
    epochs = 50 if trained_on >= 5_000 else 80
    why["recipe"] = f"{trained_on:,} training images are {-(-trained_on // batch_size):,} steps an epoch"
    return Proposal(
        size=size,
        input=(*shape, channels),
        grayscale=grayscale,
        blocks=blocks,
        width=width,
        pools=pools,
        halves=halves,
        batch_size=batch_size,
        epochs=epochs,
        flip=_flip(facts, why),
        crop=side // 8,
        base=_base((*shape, channels), len(facts.classes), OVER * budget),
        metric=_metric(facts, why),
        why=why,
    )


def _input(facts: ImageFacts, budget: int, why: dict[str, str]) -> tuple[int, int]:
    """(height, width) of the networks' input: the images' median, up to a limit that grows with the budget."""
    largest = 32 if budget < 20_000 else 64 if budget < 250_000 else 96
    heights, widths = (np.repeat([size[axis] for size in facts.sizes], list(facts.sizes.values())) for axis in (0, 1))
    median = int(np.median(np.minimum(heights, widths)))
    if median < SIDES[0]:
        raise UserError(
            f"{facts.path}: half of the images are {median} pixels or fewer across, at least {SIDES[0]} are needed"
        )
    side = max(side for side in SIDES if side <= min(median, largest))
    only = next(iter(facts.sizes)) if len(facts.sizes) == 1 else None
    if only and max(only) <= 2 * min(only) and min(only) <= largest:
        why["size"] = "all images have it"
        return only
    reason = (
        f"near the images' median of {median}" if median <= largest else f"the largest proposed for {budget:,} parameters"
    )
    ratios = widths / heights
    ratio = float(np.median(ratios))
    if np.quantile(np.abs(ratios / ratio - 1), 0.95) > ALIKE or max(ratio, 1 / ratio) > 2:
        why["size"] = f"{reason}; images of other shapes are squashed to it"
        return side, side
    why["size"] = f"{reason}, in the shape that nearly all images have"
    if 0.95 < ratio < 1.05:
        return side, side
    return 4 * round(side * max(1 / ratio, 1) / 4), 4 * round(side * max(ratio, 1) / 4)


def _pools(side: int) -> tuple[int, int]:
    """The number of halvings after which a side has about 4 pixels, or up to two fewer."""
    most = max(2, round(math.log2(side / 4)))
    return max(1, most - 2), most


def _blocks(budget: int, pools: tuple[int, int]) -> tuple[int, int]:
    low, high = (2, 5) if budget < 20_000 else (3, 7) if budget < 50_000 else (5, 10) if budget < 500_000 else (6, 14)
    return max(low, pools[1]), max(high, pools[1] + 2)


def _flip(facts: ImageFacts, why: dict[str, str]) -> bool:
    """True for images that are likely photographs: a mirrored letter, sign or arrow may be of another class."""
    names = [name.lower() for name in facts.classes]
    if any(len(name) == 1 or name.isdecimal() or _CHARACTERS & set(name.replace("-", "_").split("_")) for name in names):
        if facts.is_folder:
            why["augment"] = "no flip, as the classes look like characters or directions, which mirroring changes"
            return False
        why["augment"] = "no flip, as the file does not name its classes; true is right for photographs"
        return False
    if facts.is_grey or facts.transparent > facts.images / 2:
        why["augment"] = "no flip, as these look drawn or written; true where a mirrored image is of the same class"
        return False
    why["augment"] = "flip left and right, as these look like photographs; false for letters, signs, arrows"
    return True


def _metric(facts: ImageFacts, why: dict[str, str]) -> str:
    """Balanced accuracy where classes are unbalanced and the commonest has more than COMMON of the images."""
    counts = facts.by_class
    share = float(counts.max() / counts.sum())
    if not facts.imbalance or share <= COMMON:
        return ACCURACY
    guess = constant_guess(BALANCED_ACCURACY, share, len(counts))
    why["metric"] = f"the mean recall of the classes: that guess has {guess:.1%} of it, and {share:.1%} accuracy"
    return BALANCED_ACCURACY


def _base(shape: tuple[int, int, int], classes: int, params: int) -> Architecture:
    """Plain convolutions in stages of doubling width, as in the shipped base, at the width nearest to `params`.

    Batch norm is added: without it four stages learn nothing in a few hundred steps (`benchmarks/LOG.md`).
    """
    side = min(shape[:2])
    stages = min(4, max(1, round(math.log2(side / 4))))
    widths = range(4, 257, 4)
    first = min(
        bisect_left(widths, params, key=lambda width: compute_cost(_stages(shape, classes, stages, width)).params), 63
    )
    nearest = (_stages(shape, classes, stages, widths[index]) for index in (max(first - 1, 0), first))
    return min(nearest, key=lambda network: abs(math.log(compute_cost(network).params / params)))


def _stages(shape: tuple[int, int, int], classes: int, stages: int, width: int) -> Architecture:
    layers: list[Layer] = []
    for stage in range(stages):
        filters = width * 2**stage
        for number in range(2):
            stride = 2 if min(shape[:2]) >= LARGE and stage == number == 0 else 1
            layers += [Conv(filters, stride=stride), BatchNorm(momentum=0.9), Activation("relu")]
        layers += [MaxPool(), Dropout(0.25)]
    layers += [Flatten(), Dense(4 * width), Activation("relu"), Dropout(0.5), Dense(classes), Softmax()]
    return Architecture(shape, classes, tuple(layers), "base")


def space_table(proposal: Proposal) -> dict[str, Any]:
    """The [space] table of the study."""
    stride = {"stride": {"each": [2] + [1] * (proposal.blocks[1] - 1)}} if proposal.halves else {}
    return {
        "kind": "pyramid",
        "blocks": _range(*proposal.blocks),
        "width": {"low": proposal.width[0], "high": proposal.width[1], "step": 8},
        "kernel": [3, 5],
        **stride,
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.05},
        "order": ["conv-bn-act", "conv-act-bn", "conv-dropout-bn-act"],
        "pools": _range(*proposal.pools),
    }


def _range(low: int, high: int) -> Any:
    return {"low": low, "high": high} if low < high else low


def sizes_of(sizes: Counter[tuple[int, int]]) -> str:
    """The sizes of images in words: the only one, or the smallest and largest by area and their number."""
    if len(sizes) == 1:
        return "x".join(map(str, next(iter(sizes))))
    smallest, largest = (pick(sizes, key=lambda size: (size[0] * size[1], size)) for pick in (min, max))
    return f"{smallest[0]}x{smallest[1]} to {largest[0]}x{largest[1]} ({len(sizes):,} different)"
