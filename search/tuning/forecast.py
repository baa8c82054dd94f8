"""Forecast of a study's duration on this machine, from a few networks timed on the real engine for a few seconds.

A training takes compiling + epochs * (training images * seconds each + validation images * seconds each). Three candidates
are timed, at a low, a middle and a high number of multiply-adds; a line through them, seconds = a + b * multiply-adds, gives
the mean over many samples. Not included: a sampler comes to prefer some sizes of network, the limits of [stop] end a study
early, and starting TensorFlow, checkpoints and the report take some seconds more.
"""

from __future__ import annotations

import gc
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from search.budget.cost import compute_cost
from search.data.dataset import Dataset
from search.errors import UserError
from search.networks.architecture import Architecture
from search.seeds import derive
from search.study import references
from search.study.config import StudyConfig
from search.study.references import Reference
from search.training.engine.epoch import EpochPlan, plan_epoch
from search.training.recipe import Recipe
from search.tuning.candidate import Candidate, DataFacts, Rejection, fits, judge
from search.tuning.scaling import largest_that_fits

if TYPE_CHECKING:
    from search.training.engine.base import Engine

DRAWS = 3_000  # proposals that are judged for the mean
SCALED = 300  # proposals whose widths are scaled to fit, which takes ten times as long
CONTINUING = 0.2  # share of the trials that continue at a rung; 0.15 to 0.19 of 67 and 81 in `benchmarks/rung_rules.py`
LEAST = 30  # candidates, below which proposals are scaled, as the sampler does
TIMED = (0.05, 0.5, 0.95)  # quantiles of the candidates by multiply-adds that are timed, the outer ones for the range
STEP_SECONDS = 2.0  # of steps for which a network is timed, after the first
VALIDATION_IMAGES = 500  # at most, for the timing: one batch of the engine


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of training one network on this machine, in seconds."""

    compiling: float
    training_image: float  # forward, back and update, as part of a batch
    validation_image: float

    def training(self, data: Dataset, recipe: Recipe, epochs: float) -> float:
        """Seconds of a whole training, or of one in each fold that so many epochs begin."""
        training = len(data.x_train) * recipe.augment.passes * self.training_image
        compiling = self.compiling * (max(1, math.ceil(epochs / recipe.epochs)) if data.folds else 1)
        return compiling + epochs * (training + len(data.x_val) * self.validation_image)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Duration of a study on this machine, in seconds, estimated from a few networks."""

    trials: int
    seconds_per_trial: float  # mean; with rungs, of the epochs that a trial trains on average
    cheap: float  # 5 % quantile of a trial
    dear: float  # 95 % quantile
    seconds_of_base: float | None  # None where the base is an accuracy

    @property
    def seconds(self) -> float:
        """Of the base and all trials."""
        return (self.seconds_of_base or 0.0) + self.trials * self.seconds_per_trial

    def to_dict(self) -> dict[str, float | None]:
        """The forecast as `plan --probe --json` prints it."""
        return {
            "seconds_per_trial": self.seconds_per_trial,
            "seconds_of_base": self.seconds_of_base,
            "forecast_seconds": self.seconds,
        }


def forecast(config: StudyConfig, data: Dataset, watch: Callable[[str], None] = lambda doing: None) -> Forecast:
    """Time the base and a few candidates of a study on this machine: about a minute on a CPU.

    Args:
        watch: called with a description of each step.

    Raises:
        UserError: the base is no network for this data, or no sample of the space fits.
    """
    base, sampled = base_of(config, data), sample_candidates(config, data)
    watch("loading TensorFlow")
    _prepare_device()  # the first import of Keras, after all checks
    short = replace(data, x_val=data.x_val[:VALIDATION_IMAGES], y_val=data.y_val[:VALIDATION_IMAGES])
    of_base = None
    if base:
        watch(f"timing the base, {compute_cost(base.architecture).macs:,} multiply-adds")
        recipe = references.recipe_of(config, base)
        of_base = time_training(base.architecture, short, recipe).training(data, recipe, config.planned_epochs)
    points = []
    for index in sorted({round(share * (len(sampled) - 1)) for share in TIMED}):
        candidate = sampled[index]
        watch(f"timing a candidate, {candidate.cost.macs:,} multiply-adds")
        timing = time_training(candidate.architecture, short, candidate.recipe)
        points.append((candidate.cost.macs, timing.training(data, candidate.recipe, mean_epochs(config))))
    a, b = fit_line(points)
    mean = sum(a + b * candidate.cost.macs for candidate in sampled) / len(sampled)
    return Forecast(config.trials, mean, a + b * points[0][0], a + b * points[-1][0], of_base)


def base_of(config: StudyConfig, data: Dataset) -> Reference | None:
    """The base of a study; None if it is an accuracy to beat.

    Raises:
        UserError: there is no such network, or it is for other images.
    """
    if not isinstance(config.base, str):
        return None
    base = references.named(config.base)
    references.check(base, data.name, data.input_shape, data.classes)
    return base


def sample_candidates(config: StudyConfig, data: Dataset) -> list[Candidate]:
    """Sample candidates as a study does before its sampler has results, in ascending order of multiply-adds.

    Raises:
        UserError: none was found.
    """
    facts = DataFacts.of(data)
    generator = random.Random(derive(config.search.seed, "probe"))
    points = [{name: domain.draw(generator) for name, domain in config.parameters.items()} for _ in range(DRAWS)]
    proposals: list[Candidate | Rejection] = []
    if config.search.fit == "reject":
        proposals += [judge(config, facts, values) for values in points]
    if sum(isinstance(proposal, Candidate) for proposal in proposals) < LEAST:
        scaled = [largest_that_fits(config.space, values, partial(fits, config, facts)) for values in points[:SCALED]]
        proposals += [judge(config, facts, values) for values in scaled if values]
    candidates = [proposal for proposal in proposals if isinstance(proposal, Candidate)]
    if not candidates:
        raise UserError(
            f"budget.params: none of {DRAWS:,} random draws of the space fits under {config.budget.params:,}, however "
            "narrow; raise it, or lower the blocks of the space"
        )
    return sorted(candidates, key=lambda candidate: candidate.cost.macs)


def mean_epochs(config: StudyConfig) -> float:
    """Mean number of epochs of a trial, if a share CONTINUING passes each rung."""
    mean, begin, share = 0.0, 0, 1.0
    for end in (*config.rungs, config.planned_epochs):
        mean, begin, share = mean + share * (end - begin), end, share * CONTINUING
    return mean


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least-squares line y = a + b * x through the points, with a and b at least 0; returns (a, b)."""
    n = len(points)
    middle_x, middle_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    b = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
    if b <= 0:
        return middle_y, 0.0
    if b * middle_x > middle_y:
        return 0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    return middle_y - b * middle_x, b


def time_training(
    architecture: Architecture, data: Dataset, recipe: Recipe, clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Compile a training and time some of its steps, and one evaluation of the validation images."""
    from search.training.device import dtype_policy
    from search.training.train import open_engine, pixels_of

    engine = open_engine(architecture, data, recipe, pixels_of(data, recipe), seed=0, dtype=dtype_policy(recipe.precision))
    plan = plan_epoch(recipe, len(data.x_train), seed=0, epoch=0)
    engine.begin(plan)
    engine.train(0, 1)
    engine.evaluate()  # untimed: the first call of each takes longer
    training_image = _seconds_an_image(engine, plan, recipe.batch_size, clock)
    started = clock()
    engine.evaluate()
    if recipe.ema:
        engine.evaluate(averaged=True)
    timing = Timing(engine.compile_seconds, training_image, (clock() - started) / len(data.x_val))
    del engine
    gc.collect()  # a network and its compiled functions refer to each other
    return timing


def _prepare_device() -> None:
    """Set up the device as a worker does, and discard the start-up messages of C++ libraries."""
    from search.training.device import prepare_device, start_backend

    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        prepare_device()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    start_backend()


def _seconds_an_image(engine: Engine, plan: EpochPlan, batch_size: int, clock: Callable[[], float]) -> float:
    """Seconds of training for one image, over calls of more and more steps until they have taken STEP_SECONDS."""
    seconds, steps, images, first, length = 0.0, 0, 0, 0, 1
    while seconds < STEP_SECONDS:
        last = min(first + length, plan.steps)
        started = clock()
        engine.train(first, last)
        seconds += clock() - started
        steps += last - first
        images += min(last * batch_size, len(plan.order)) - first * batch_size
        first = last % plan.steps
        length = max(1, min(2 * length, int((STEP_SECONDS - seconds) * steps / max(seconds, 1e-9))))
    return seconds / images
