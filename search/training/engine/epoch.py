"""Plan of one epoch: order, flips, learning rates and mixing shares, all from (trial seed, epoch)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.seeds import derive, generator
from search.training.recipe import Augment, Recipe, rate_at


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """One epoch of a training; each pass uses every image once, and the partial last batch counts."""

    order: npt.NDArray[np.int32]  # (images seen,), indices into the training images
    flipped: npt.NDArray[np.bool_]  # (images seen,), left for right
    rates: npt.NDArray[np.float32]  # (steps,), learning rate of each
    shares: npt.NDArray[np.float32]  # (steps,), of each batch in its mixture with itself reversed; 1 without mixup
    seed: int  # of random numbers inside the step: crop, warp, cutout, dropout

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self.rates)


def plan_epoch(recipe: Recipe, images: int, seed: int, epoch: int, *, factor: float = 1.0) -> EpochPlan:
    """Plan an epoch (from 0) of a training on `images` images; `factor` scales its learning rates."""
    augment, passes = recipe.augment, recipe.augment.passes
    steps = math.ceil(images * passes / recipe.batch_size)
    shuffle = generator(seed, "order", epoch)
    order = np.concatenate([shuffle.permutation(images) for _ in range(passes)]).astype(np.int32)
    rates = [rate_at(recipe, epoch * steps + step, steps) * factor for step in range(steps)]
    return EpochPlan(
        order,
        _flipped(augment, images, seed, epoch, order),
        np.array(rates, np.float32),
        _shares(augment, steps, seed, epoch),
        derive(seed, "step", epoch),
    )


def _flipped(augment: Augment, images: int, seed: int, epoch: int, order: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    if not augment.flip:
        return np.zeros(len(order), bool)
    if augment.flip != "alternating":
        return generator(seed, "flip", epoch).random(len(order)) < 0.5
    first = generator(seed, "flip").random(images) < 0.5
    number = epoch * augment.passes + np.arange(len(order)) // images  # of the pass that each entry of the order belongs to
    flipped: npt.NDArray[np.bool_] = first[order] ^ (number % 2 == 1)
    return flipped


def _shares(augment: Augment, steps: int, seed: int, epoch: int) -> npt.NDArray[np.float32]:
    if not augment.mixup:
        return np.ones(steps, np.float32)
    sampled = generator(seed, "mixup", epoch).beta(augment.mixup, augment.mixup, steps)
    return np.maximum(sampled, 1 - sampled).astype(np.float32)  # the batch itself has the larger part, so its labels lead
