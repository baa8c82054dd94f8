"""A worker process whose trainings take no time: what is left is all that a study does around a training.

    SEARCH_WORKER=benchmarks.trivial_worker python -m search run STUDY

Proposals, claims, reports, notes, figures, heartbeats and files are the application's own. Environment: TIMES, a file to
which each step is appended with its seconds and the process's CPU-seconds so far; TOGETHER, how many workers wait for each
other before their first trial.
"""

from __future__ import annotations

import json
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from search.cli import worker
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.runner import trial
from search.training.recipe import Recipe
from search.training.result import Epoch, Training
from search.tuning import sampler

TIMES = Path(os.environ["TIMES"])
TOGETHER = int(os.environ.get("TOGETHER", "1"))


def fit(
    architecture: Architecture, data: Any, recipe: Recipe, *, seed: int, on_epoch: Any, on_step: Any, **_: Any
) -> Training:
    """An accuracy out of a hat for each epoch."""
    note("train")
    chance, history = random.Random(seed), list[Epoch]()
    for number in range(1, recipe.epochs + 1):
        on_step(number, recipe.epochs)
        accuracy = chance.uniform(0.5, 0.9)
        history.append(Epoch(number, 1.0, accuracy, 1.0, accuracy, 0.01, 0.001))
        if on_epoch(history[-1]):
            break
    best = max(history, key=lambda one: one.val_accuracy)
    note("trained")
    return Training(tuple(history), best, (np.zeros(1, np.float32),), Pixels(), "float32", 0.0, 0.0)


def note(step: str, seconds: float | None = None) -> None:
    """Append a step."""
    told = {"step": step, "worker": os.getpid(), "at": time.time(), "cpu": time.process_time(), "seconds": seconds}
    told["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with TIMES.open("a") as stream:
        stream.write(json.dumps(told) + "\n")


def timed(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, each of which is noted."""

    def wrapped(*words: Any, **options: Any) -> Any:
        began = time.perf_counter()
        found = call(*words, **options)
        note(step, time.perf_counter() - began)
        return found

    return wrapped


def together() -> str:
    """Wait until all workers have come so far."""
    note("ready")
    (TIMES.with_suffix(".ready")).mkdir(exist_ok=True)
    (TIMES.with_suffix(".ready") / str(os.getpid())).touch()
    while len(list(TIMES.with_suffix(".ready").iterdir())) < TOGETHER:
        time.sleep(0.05)
    note("go")
    return "training nothing"


class TrivialTrainer:
    """Trains with `fit`."""

    fit = staticmethod(fit)
    prepare = staticmethod(together)


class NotesAndFigures(worker.ReportPublisher):
    """Publishes all but the winner and the report."""

    def finish(self, run: Any, studies: Any) -> None: ...


def main() -> None:
    """As `python -m search worker`, with nothing to take away at the end."""
    trial.begin = timed("begin", trial.begin)
    trial._tell = timed("tell", trial._tell)
    sampler.BudgetedSampler.sample_relative = timed("propose", sampler.BudgetedSampler.sample_relative)  # type: ignore[method-assign]
    worker.main(NotesAndFigures(), TrivialTrainer())


if __name__ == "__main__":
    main()
