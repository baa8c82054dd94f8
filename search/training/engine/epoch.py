"""What one epoch is made of: order, flips, learning rates and mixing shares, all from (trial seed, epoch)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.seeds import derive, generator
from search.training.recipe import Augment, Recipe, rate_at


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """One epoch of a training; an image is seen once in each pass, and the partial last batch counts."""

    order: npt.NDArray[np.int32]  # (images seen,), indices into the training images
    flipped: npt.NDArray[np.bool_]  # (images seen,), left for right
    rates: npt.NDArray[np.float32]  # (steps,), learning rate of each
    shares: npt.NDArray[np.float32]  # (steps,), of each batch in its mixture with itself reversed; 1 without mixup
    seed: int  # of what is drawn inside the step: crop, warp, cutout, dropout

    @property
    def steps(self) -> int:
        """How many batches there are."""
        return len(self.rates)


def plan_epoch(recipe: Recipe, images: int, seed: int, epoch: int, *, factor: float = 1.0) -> EpochPlan:
    """The epoch (from 0) of a training on so many images; `factor` scales its learning rates."""
    how, passes = recipe.augment, recipe.augment.passes
    steps = math.ceil(images * passes / recipe.batch_size)
    shuffle = generator(seed, "order", epoch)
    order = np.concatenate([shuffle.permutation(images) for _ in range(passes)]).astype(np.int32)
    rates = [rate_at(recipe, epoch * steps + step, steps) * factor for step in range(steps)]
    return EpochPlan(
        order,
        _flipped(how, images, seed, epoch, order),
        np.array(rates, np.float32),
        _shares(how, steps, seed, epoch),
        derive(seed, "step", epoch),
    )


def _flipped(how: Augment, images: int, seed: int, epoch: int, order: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    if not how.flip:
        return np.zeros(len(order), bool)
    if how.flip != "alternating":
        return generator(seed, "flip", epoch).random(len(order)) < 0.5
    first = generator(seed, "flip").random(images) < 0.5
    number = epoch * how.passes + np.arange(len(order)) // images  # of the pass in which each place of the order lies
    flipped: npt.NDArray[np.bool_] = first[order] ^ (number % 2 == 1)
    return flipped


def _shares(how: Augment, steps: int, seed: int, epoch: int) -> npt.NDArray[np.float32]:
    if not how.mixup:
        return np.ones(steps, np.float32)
    drawn = generator(seed, "mixup", epoch).beta(how.mixup, how.mixup, steps)
    return np.maximum(drawn, 1 - drawn).astype(np.float32)  # the batch itself has the larger part, so its labels lead
