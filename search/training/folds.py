"""Cross-validation of a network: one training for each fold, resumed fold by fold, and the mean of their logs.

The mean over folds at the same epoch is the curve that is ranked, and its best epoch is the best of the trial: one epoch for
all folds, chosen on all images. The best epoch of each fold for itself would flatter more, the fewer images a fold has.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import numpy as np

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.files import read_arrays, write_arrays
from search.networks.architecture import Architecture, fingerprint
from search.seeds import derive
from search.training.checkpoint import fold_path
from search.training.recipe import Recipe
from search.training.result import Epoch, Training
from search.training.trainer import Trainer

ROUNDING = 1e-9  # values that differ by less are equal
NORMAL_95 = 1.959964  # the two-sided 95 % quantile of the normal distribution


def fit_folds(
    trainer: Trainer,
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
    """Train the network once for each fold of the data, and return the mean.

    Args:
        seed: of the trial; that of each fold is derived from it.
        checkpoint: of the fold in progress; each fold that is trained has a file beside it.
        on_epoch: called after each epoch with the mean over the folds so far at that epoch, numbered through all folds; no
            further epoch or fold is trained if it returns True.
        on_step: called with (steps done, steps in all) of all folds.

    Returns:
        A training with the mean log and the log of each fold; weights and preprocessing are those of the first fold.

    Raises:
        TrialOver: one of the trainings ended so.
    """
    trained: list[Training] = []
    for index in range(data.folds):
        fold, rows = data.fold(index), list[Epoch]()
        before, is_stopped = [training.history for training in trained], False

        def report(epoch: Epoch, index: int = index, rows: list[Epoch] = rows, before: list[Any] = before) -> bool:
            nonlocal is_stopped
            rows.append(epoch)
            mean = _mean([*(log[epoch.epoch - 1] for log in before), epoch])
            is_stopped = on_epoch(replace(mean, epoch=index * recipe.epochs + epoch.epoch, seconds=epoch.seconds))
            return is_stopped

        def report_steps(step: int, steps: int, index: int = index) -> None:
            on_step(index * steps + step, data.folds * steps)

        fold_seed = derive(seed, "fold", index)
        path, identity = fold_path(checkpoint, index), _identity(architecture, fold, recipe, fold_seed, metric)
        training = _read(path, identity)
        if training is None:
            training = trainer.fit(
                architecture,
                fold,
                recipe,
                seed=fold_seed,
                metric=metric,
                checkpoint=checkpoint,
                on_epoch=report,
                on_step=report_steps,
            )
            if index:  # of the others than the first only the log is needed
                training = replace(training, best_weights=(), confusion=None)
            if len(training.history) == recipe.epochs and index + 1 < data.folds:
                _write(path, identity, training)
            gc.collect()  # a network and its compiled functions refer to each other
        else:
            for epoch in training.history:
                report(epoch)
        trained.append(training)
        if is_stopped:
            break
    return _joined(trained, metric)


def effective_images(values: Sequence[float], images: int) -> float:
    """Number of images on which an accuracy of this mean would vary as the mean over folds does; at most `images`.

    Folds that agree by accident say no more than their images do.
    """
    mean, error = fmean(values), half_interval(values) / NORMAL_95
    return min(float(images), mean * (1 - mean) / error**2) if error and 0 < mean < 1 else images


def half_interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean over folds, or of a mean difference; 0 for one fold, or where all are equal.

    Student's t with k - 1 degrees of freedom and the standard error s * sqrt(1 / k + 1 / (k - 1)), as the trainings share
    images (Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003).
    """
    k = len(values)
    if k < 2 or max(values) - min(values) < ROUNDING:
        return 0.0
    from scipy import special  # here, as it is heavy

    return float(special.stdtrit(k - 1, 0.975)) * math.sqrt(variance(values) * (1 / k + 1 / (k - 1)))


def _joined(trained: Sequence[Training], metric: str) -> Training:
    logs = tuple(training.history for training in trained)
    history = tuple(_mean(rows) for rows in zip(*logs, strict=True))
    return replace(
        trained[0],
        history=history,
        best=max(history, key=lambda epoch: epoch.score(metric)),  # the first of equal ones
        compile_seconds=sum(training.compile_seconds for training in trained),
        checkpoint_seconds=sum(training.checkpoint_seconds for training in trained),
        folds=logs,
    )


def _mean(rows: Sequence[Epoch]) -> Epoch:
    """The same epoch of several folds as one; it took as long as all of them."""
    values: dict[str, Any] = {}
    for key in asdict(rows[0]):
        column = [getattr(row, key) for row in rows]
        values[key] = None if None in column else fmean(column)
    return Epoch(**values | {"epoch": rows[0].epoch, "seconds": sum(row.seconds for row in rows)})


def _identity(architecture: Architecture, data: Dataset, recipe: Recipe, seed: int, metric: str) -> str:
    parts = [fingerprint(architecture), recipe.model_dump(mode="json"), data.fingerprint, seed, metric]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write(path: Path, identity: str, training: Training) -> None:
    """Keep the result of a fold.

    Raises:
        OSError: it could not be written.
    """
    about = {
        "identity": identity,
        "history": [epoch.to_dict() for epoch in training.history],
        "best": training.best.epoch,
        "pixels": training.pixels.to_dict(),
        "precision": training.precision,
        "seconds": [training.compile_seconds, training.checkpoint_seconds],
    }
    arrays = {f"weights{index:04}": array for index, array in enumerate(training.best_weights)}
    confusion = {} if training.confusion is None else {"confusion": training.confusion}
    path.parent.mkdir(exist_ok=True)  # not the run folder above, see `checkpoint.write`
    write_arrays(path, {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)} | arrays | confusion)


def _read(path: Path, identity: str) -> Training | None:
    """The result of a fold; None where it has not been trained, or the file is of another training or damaged."""
    if not path.exists():
        return None
    try:
        arrays = read_arrays(path)
        about = json.loads(arrays.pop("about").tobytes())
        if about["identity"] != identity:
            return None
        history = tuple(Epoch(**row) for row in about["history"])
        compile_seconds, checkpoint_seconds = about["seconds"]
        return Training(
            history=history,
            best=history[about["best"] - 1],
            best_weights=tuple(arrays[key] for key in sorted(arrays) if key.startswith("weights")),
            pixels=Pixels.from_dict(about["pixels"]),
            precision=about["precision"],
            compile_seconds=compile_seconds,
            checkpoint_seconds=checkpoint_seconds,
            confusion=arrays.get("confusion"),
        )
    except (UserError, LookupError, ValueError, TypeError, AttributeError) as error:  # the last two: other contents
        print(f"{path}: skipped, the fold is trained again, as its file is damaged ({error})", file=sys.stderr)
        return None
