"""A worker process with trainings of a few milliseconds in NumPy, which learn, checkpoint and resume bit-equal.

    SEARCH_WORKER=tests.support.numpy_worker python -m search run STUDY

Everything but the arithmetic is the application's own. Environment: EPOCH_SECONDS, the least duration of an epoch; FAULTS, a
JSON list of faults to inject, see `Fault`; FAULTS_FOLDER, in which processes count how often each has happened.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.budget.cost import compute_cost
from search.cli import worker
from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture, fingerprint
from search.runner import trial as trials
from search.runner.reporter import NullPublisher
from search.storage.attributes import INDEX
from search.training import checkpoint as checkpoints
from search.training.checkpoint import Checkpoint
from search.training.recipe import Recipe, rate_at
from search.training.result import Epoch, Outcome, Training, TrialOver, memory_ends_the_trial


@dataclass(frozen=True)
class Fault:
    """A fault injected into a worker at a point of its work."""

    at: str  # begun (before its first heartbeat), epoch (in it), checkpoint (after it), tell (before the result is stored)
    do: str  # kill, crash (the supervisor too), abort, hang, wait (for `Storm.go`), halt, memory, exhausted, nan, full, torn
    index: int | None = None  # of the trial; any if None
    epoch: int | None = None
    times: int = 1
    fold: int | None = None  # from 1
    row: int | None = None  # of the table of faults (`tests.fault_table`)


FAULTS = [Fault(**one) for one in json.loads(os.environ.get("FAULTS", "[]"))]
FOLDER = Path(os.environ.get("FAULTS_FOLDER", "."))
EPOCH_SECONDS = float(os.environ.get("EPOCH_SECONDS", "0"))
now_at = {"index": -1, "fold": 0}


def point(at: str, epoch: int | None = None, path: Path | None = None) -> None:
    """Inject the faults of this point."""
    for number, fault in enumerate(FAULTS):
        here = fault.at == at and fault.index in (None, now_at["index"]) and fault.epoch in (None, epoch)
        here = here and fault.fold in (None, now_at["fold"])
        if here and _is_due(number, fault.times):
            _happen(fault.do, path)


def _is_due(number: int, times: int) -> bool:
    """True if the fault has happened less often than it should, in all processes together."""
    for time_ in range(times):
        try:
            os.close(os.open(FOLDER / f"fault-{number}-{time_}", os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            continue
    return False


def _happen(what: str, path: Path | None) -> None:
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            os.abort()
        case "hang":
            time.sleep(600)
        case "wait":
            while not (FOLDER / "go").exists():
                time.sleep(0.05)
        case "halt":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "memory":
            resource.setrlimit(resource.RLIMIT_AS, (2**31, resource.getrlimit(resource.RLIMIT_AS)[1]))
            np.ones(2**32)
        case "exhausted":
            raise type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor")
        case "nan":
            raise TrialOver(Outcome.DIVERGED, "the loss became nan in epoch 1, by step 1")
        case "full":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        case "torn":
            assert path is not None
            path.write_bytes(path.read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            raise ValueError(what)


def fit(
    architecture: Architecture,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    metric: str,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], bool],
    on_step: Callable[[int, int], None],
) -> Training:
    """Softmax regression on pixels by momentum; every draw comes from (seed, epoch), as in `search.training.train`.

    Larger networks learn in larger steps, so that accuracies differ by network; the recipe's schedule scales the steps.
    """
    with memory_ends_the_trial(recipe.batch_size):
        return _fit(architecture, data, recipe, seed, checkpoint, on_epoch, on_step)


def _fit(
    architecture: Architecture, data: Dataset, recipe: Recipe, seed: int, checkpoint: Path, on_epoch: Any, on_step: Any
) -> Training:
    now_at["fold"] = int(data.fingerprint.partition("-")[2] or 0)
    named = f"{fingerprint(architecture)} {recipe.model_dump_json()} {data.fingerprint} {seed}"
    weights = np.random.default_rng(seed).normal(0, 0.1, (int(np.prod(data.input_shape)), data.classes)).astype(np.float32)
    velocity, history, best = np.zeros_like(weights), list[Epoch](), (0, weights.copy())
    step_size = 2e-6 * compute_cost(architecture).params / recipe.learning_rate
    if found := checkpoints.read(checkpoint, named):
        weights, velocity = (array.copy() for array in found.state)
        history, best = [Epoch(**row) for row in found.history], (found.best, found.best_weights[0])
        for epoch in history:
            on_epoch(epoch)
    for number in range(len(history), recipe.epochs):
        started = time.monotonic()
        order = np.random.default_rng([seed, number]).permutation(len(data.x_train))
        steps = len(order) // 12
        for step, index in enumerate(np.array_split(order, steps)):
            rate = rate_at(recipe, number * steps + step, steps)
            images = _pixels(data.x_train[index])
            scores = images @ weights
            gradient = _softmax(scores) - np.eye(data.classes, dtype=np.float32)[data.y_train[index]]
            velocity = np.float32(0.9) * velocity - np.float32(step_size * rate) * (images.T @ gradient)
            weights = weights + velocity
        point("epoch", number + 1)
        time.sleep(max(0.0, EPOCH_SECONDS - (time.monotonic() - started)))
        on_step(number + 1, recipe.epochs)
        hits = (_pixels(data.x_val) @ weights).argmax(axis=1) == data.y_val
        accuracy = float(hits.mean())
        history.append(Epoch(number + 1, 1.0, accuracy, 1.0, accuracy, rate, time.monotonic() - started))
        if accuracy > history[best[0]].val_accuracy or number == 0:
            best = number, weights.copy()
        if number + 1 < recipe.epochs:
            rows = [row.to_dict() for row in history]
            checkpoints.write(checkpoint, named, Checkpoint((weights, velocity), rows, best[0], (best[1],)))
        point("checkpoint", number + 1, checkpoint)
        if on_epoch(history[-1]):
            break
    return Training(tuple(history), history[best[0]], (best[1],), Pixels(), "float32", 0.0, 0.0)


def _pixels(images: Any) -> Any:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _softmax(scores: Any) -> Any:
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


class NumpyTrainer:
    """Trains with `fit`."""

    fit = staticmethod(fit)

    def prepare(self) -> str:
        return "training in NumPy"

    def policy(self, precision: str) -> str:
        return "float32"


def main() -> None:
    """As `python -m search worker`, with this trainer, and nothing published."""
    heartbeat, tell = trials.heartbeat, trials._tell

    def begun(trial: Any) -> Any:
        now_at["index"] = trial.user_attrs[INDEX]
        point("begun")
        return heartbeat(trial)

    def tell_after_faults(*arguments: Any) -> None:
        point("tell")
        tell(*arguments)

    trials.heartbeat = begun
    trials._tell = tell_after_faults
    worker.main(NullPublisher(), NumpyTrainer())


if __name__ == "__main__":
    main()
