"""Checkpoints of a training: written atomically after each epoch, and read only by the same training."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import platform
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset
from search.errors import UserError
from search.files import read_arrays, write_arrays
from search.networks.architecture import Architecture, fingerprint
from search.system import cores
from search.training.measures import ACCURACY
from search.training.recipe import Recipe

Arrays = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True)
class Checkpoint:
    """State that the next epochs depend on; their random numbers come from (seed, epoch)."""

    state: Arrays  # of the engine
    history: Sequence[Mapping[str, Any]]  # rows of the log so far
    best: int  # index of the best row
    best_weights: Arrays
    best_confusion: npt.NDArray[np.int64] | None = None  # of the best row on the validation images, where it is measured


def identity(
    architecture: Architecture, data: Dataset, recipe: Recipe, seed: int, policy: str, metric: str = ACCURACY
) -> str:
    """Hash of everything that a training depends on: network, recipe, data, seed, ranked measure, machine and versions."""
    import keras  # here, so that a training without Keras reads and writes checkpoints without loading it

    backend = keras.backend.backend()
    parts = [
        *(fingerprint(architecture), recipe.model_dump(mode="json"), data.fingerprint, seed, policy),
        *(backend, keras.__version__, _version(backend), np.__version__, platform.machine(), cores()),
        *([] if metric == ACCURACY else [metric]),  # so that checkpoints of earlier versions go on
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write(path: Path, named: str, checkpoint: Checkpoint) -> float:
    """Write a checkpoint, keep the previous one beside it, and return the seconds that it took.

    Its folder is created where that is missing, but not the run folder above: that was renamed then, and a checkpoint under
    its old name would be missing when it comes back.

    Raises:
        OSError: it could not be written; the previous one is unchanged.
    """
    started = time.monotonic()
    path.parent.mkdir(exist_ok=True)
    about = {"identity": named, "history": list(checkpoint.history), "best": checkpoint.best}
    arrays = {f"state{index:04}": array for index, array in enumerate(checkpoint.state)}
    arrays |= {f"best{index:04}": array for index, array in enumerate(checkpoint.best_weights)}
    arrays |= {} if checkpoint.best_confusion is None else {"confusion": checkpoint.best_confusion}
    new = _beside(path, f"new{secrets.token_hex(4)}")  # a worker that was presumed dead may write one at the same time
    write_arrays(new, {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)} | arrays)
    with contextlib.suppress(FileNotFoundError):
        _keep(path)
    new.replace(path)
    return time.monotonic() - started


def read(path: Path | None, named: str) -> Checkpoint | None:
    """Read the checkpoint of this identity, or the previous one if it is damaged; None if there is none."""
    if path is None:
        return None
    for candidate in (path, _beside(path, "previous")):
        checkpoint = _read(candidate, named) if candidate.exists() else None
        if checkpoint is not None:
            return checkpoint
    return None


def fold_path(path: Path, index: int) -> Path:
    """The file of a trained fold beside the checkpoint of the fold in progress."""
    return _beside(path, f"fold{index + 1}")


def remove(path: Path) -> None:
    """Remove a checkpoint, the previous one, those of trained folds, and the partial files of killed processes."""
    for file in (path, *path.parent.glob(f".{path.stem}.*"), *path.parent.glob(f"..{path.stem}.*")):
        file.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Make the checkpoint the previous one as well, by a second link, so that its first name never disappears."""
    second = _beside(path, f"kept{secrets.token_hex(4)}")
    try:
        second.hardlink_to(path)
    except (PermissionError, NotImplementedError):  # a file system without hard links
        second = path
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        second = path
    second.replace(_beside(path, "previous"))


def _read(path: Path, named: str) -> Checkpoint | None:
    try:
        arrays = read_arrays(path)
        about = json.loads(arrays.pop("about").tobytes())
        if about["identity"] != named:
            return None
    except (UserError, KeyError, ValueError, TypeError, AttributeError) as error:  # the last two: other contents
        print(f"{path}: skipped, the checkpoint is damaged ({error})", file=sys.stderr)
        return None
    state, best = ([arrays[key] for key in sorted(arrays) if key.startswith(kind)] for kind in ("state", "best"))
    return Checkpoint(tuple(state), about["history"], about["best"], tuple(best), arrays.get("confusion"))


def _beside(path: Path, label: str) -> Path:
    return path.with_name(f".{path.stem}.{label}{path.suffix}")


def _version(backend: str) -> str:
    module: Any = __import__(backend)
    return str(module.__version__)
