"""How long a study takes on this machine: a few networks timed on the real engine, over a few seconds of their steps.

A training takes compiling + epochs * (training images * seconds each + validation images * seconds each). Three candidates
are timed, a cheap, a middling and a dear one by multiply-adds; a line through them, seconds = a + b * multiply-adds, gives
the mean over many draws. What that leaves out: a sampler comes to prefer some sizes of network, the limits of [stop] end a
study early, and starting TensorFlow, checkpoints and the report take some seconds more.
"""

from __future__ import annotations

import gc
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
from search.tuning.candidate import Candidate, DataFacts, fits, judge
from search.tuning.scaling import largest_that_fits

if TYPE_CHECKING:
    from search.training.engine.base import Engine

DRAWS = 3_000  # proposals that are judged for the mean
SCALED = 300  # of them where their widths are scaled to fit, which costs ten times as much
LEAST = 30  # candidates among them; where fewer fit, the sampler scales too
TIMED = (0.05, 0.5, 0.95)  # of the candidates by multiply-adds: what is timed, and the range that is told
STEP_SECONDS = 2.0  # of steps that a network is timed over, after the first
VALIDATION_IMAGES = 500  # that it is timed over, at most: one batch of the engine


@dataclass(frozen=True, slots=True)
class Timing:
    """What a training of one network takes on this machine, in seconds."""

    compiling: float
    training_image: float  # forward, back and update, as part of a batch
    validation_image: float

    def training(self, data: Dataset, recipe: Recipe, epochs: float) -> float:
        """Seconds of a whole training."""
        seen = len(data.x_train) * recipe.augment.passes * self.training_image
        return self.compiling + epochs * (seen + len(data.x_val) * self.validation_image)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long a study takes on this machine, in seconds; rough, as a few networks stand for all."""

    trials: int
    seconds_per_trial: float  # mean; with rungs, of the epochs that a trial trains on average
    cheap: float  # one trial in twenty takes less
    dear: float  # and one in twenty more
    seconds_of_base: float | None  # None where the base is an accuracy

    @property
    def seconds(self) -> float:
        """Of the base and all trials."""
        return (self.seconds_of_base or 0.0) + self.trials * self.seconds_per_trial

    def to_dict(self) -> dict[str, float | None]:
        """As `plan --probe --json` prints it."""
        return {
            "seconds_per_trial": self.seconds_per_trial,
            "seconds_of_base": self.seconds_of_base,
            "forecast_seconds": self.seconds,
        }


def forecast(config: StudyConfig, data: Dataset, watch: Callable[[str], None] = lambda doing: None) -> Forecast:
    """Time the base and a few candidates of a study on this machine: about a minute on a CPU.

    Args:
        watch: told what is being done.

    Raises:
        UserError: the base is no network for this data, or nothing that was drawn from the space fits.
    """
    base, drawn = base_of(config, data), candidates(config, data)
    watch("loading TensorFlow")
    _prepare_device()  # the first import of Keras: after all that can be refused without it
    short = replace(data, x_val=data.x_val[:VALIDATION_IMAGES], y_val=data.y_val[:VALIDATION_IMAGES])
    of_base = None
    if base:
        watch(f"timing the base, {compute_cost(base.architecture).macs:,} multiply-adds")
        recipe = references.recipe_of(config, base)
        of_base = time_training(base.architecture, short, recipe).training(data, recipe, recipe.epochs)
    points = []
    for place in sorted({round(share * (len(drawn) - 1)) for share in TIMED}):
        one = drawn[place]
        watch(f"timing a candidate, {one.cost.macs:,} multiply-adds")
        timing = time_training(one.architecture, short, one.recipe)
        points.append((one.cost.macs, timing.training(data, one.recipe, mean_epochs(config))))
    a, b = line(points)
    mean = sum(a + b * one.cost.macs for one in drawn) / len(drawn)
    return Forecast(config.trials, mean, a + b * points[0][0], a + b * points[-1][0], of_base)


def base_of(config: StudyConfig, data: Dataset) -> Reference | None:
    """The base of a study, None where it is an accuracy to beat.

    Raises:
        UserError: there is no such network, or it is for other images.
    """
    if not isinstance(config.base, str):
        return None
    found = references.named(config.base)
    references.check(found, data.name, data.input_shape, data.classes)
    return found


def candidates(config: StudyConfig, data: Dataset) -> list[Candidate]:
    """What a study would train whose sampler has learnt nothing yet, the cheapest first by multiply-adds.

    Raises:
        UserError: none was found.
    """
    facts = DataFacts(data.input_shape, data.classes, data.fingerprint)
    generator = random.Random(derive(config.search.seed, "probe"))
    points = [{name: domain.draw(generator) for name, domain in config.parameters.items()} for _ in range(DRAWS)]
    found = []
    if config.search.fit == "reject":
        found = [one for one in (judge(config, facts, values) for values in points) if isinstance(one, Candidate)]
    if len(found) < LEAST:
        scaled = (largest_that_fits(config.space, values, partial(fits, config, facts)) for values in points[:SCALED])
        found += [one for one in (judge(config, facts, values) for values in scaled if values) if isinstance(one, Candidate)]
    if not found:
        raise UserError(
            f"budget.params: none of {DRAWS:,} random draws of the space fits under {config.budget.params:,}, however "
            "narrow; raise it, or lower the blocks of the space"
        )
    return sorted(found, key=lambda one: one.cost.macs)


def mean_epochs(config: StudyConfig) -> float:
    """The epochs that a trial trains on average, where one in `factor` goes on at each rung."""
    factor = config.search.rungs.factor if config.search.rungs else 1
    mean, begin, share = 0.0, 0, 1.0
    for end in (*config.rungs, config.recipe.epochs):
        mean, begin, share = mean + share * (end - begin), end, share / factor
    return mean


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(a, b), neither of them negative, of the line y = a + b * x nearest to the points by least squares."""
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
    """Compile a training and time it: some of its steps, and one evaluation of the validation images given."""
    from search.training.device import dtype_policy
    from search.training.train import open_engine, pixels_of

    engine = open_engine(architecture, data, recipe, pixels_of(data, recipe), seed=0, dtype=dtype_policy(recipe.precision))
    plan = plan_epoch(recipe, len(data.x_train), seed=0, epoch=0)
    engine.begin(plan)
    engine.train(0, 1)
    engine.evaluate()  # so that what only the first of each costs is not counted
    training_image = _seconds_an_image(engine, plan, recipe.batch_size, clock)
    started = clock()
    engine.evaluate()
    if recipe.ema:
        engine.evaluate(averaged=True)
    timing = Timing(engine.compile_seconds, training_image, (clock() - started) / len(data.x_val))
    del engine
    gc.collect()  # a network and its compiled functions hold each other
    return timing


def _prepare_device() -> None:
    """As a worker does, without what C++ libraries print on standard error as they start: a worker's goes to its log."""
    from search.training.device import load_backend, prepare_device

    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        prepare_device()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    load_backend()  # the first operation, with which the last of them speak


def _seconds_an_image(engine: Engine, plan: EpochPlan, batch_size: int, clock: Callable[[], float]) -> float:
    """Over calls of more and more steps, one epoch after another, until they have taken STEP_SECONDS."""
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
