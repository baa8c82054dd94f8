"""What one trial does: suggest, price, reject or build, train, report, score.

`candidate` is the objective of the study, `reference` that of its sibling in which the base and other known networks are
trained by the same code. All that a finished trial is to carry is written while it is alive, as it cannot be changed after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

import space
from search import recipe as recipes
from search.architecture import Architecture, fingerprint, to_dict
from search.config import StudyConfig
from search.cost import Price, price
from search.data import Dataset
from search.files import write_json, write_weights
from search.layers import ArchitectureError
from search.recipe import Recipe
from search.seeds import derive

if TYPE_CHECKING:
    from search.train import Training

Emit = Callable[[Mapping[str, Any]], None]
Annotate = Callable[[optuna.Trial, Architecture | None, "Task"], None]


@dataclass(frozen=True)
class Task:
    """What all trials of a run share."""

    config: StudyConfig
    data: Dataset
    folder: Path
    base_accuracy: float | None  # None while the base itself is trained
    emit: Emit  # takes events for whoever watches: trial, step, epoch
    annotate: Annotate  # writes a note on a trial that is about to end


def candidate(trial: optuna.Trial, task: Task) -> float:
    """Train the network that the sampler proposes; its best validation accuracy.

    Raises:
        optuna.TrialPruned: the candidate was rejected (never built), or its training diverged.
        TrialOver: it could not be trained.
    """
    architecture = space.suggest(task.config.space, trial, task.data.input_shape, task.data.classes)
    recipe = recipes.suggest(task.config.recipe, trial, task.config.data.normalize)
    cost = _price_or_reject(trial, architecture, task)
    key = _key(architecture, recipe, task)
    _reject(trial, _twin(trial, key), architecture, task)
    trial.set_user_attr("key", key)
    return _train(trial, architecture, recipe, cost, task, task.folder / "trials" / str(trial.number))


def reference(trial: optuna.Trial, task: Task, architecture: Architecture, recipe: Recipe) -> float:
    """Train a known network under its own recipe; its best validation accuracy. No budget holds for it."""
    name = trial.user_attrs["reference"]
    return _train(trial, architecture, recipe, price(architecture), task, task.folder / "references" / name)


def checkpoint_path(folder: Path, attributes: Mapping[str, Any]) -> Path:
    """Where a trial with these user attributes leaves off; known by its logical index, so that a retry finds it."""
    return folder / "checkpoints" / f"{attributes.get('reference', 'candidate')}-{attributes['index']}.npz"


def _price_or_reject(trial: optuna.Trial, architecture: Architecture, task: Task) -> Price:
    try:
        cost = price(architecture)
    except ArchitectureError as error:
        trial.set_constraint("exists", 1.0)
        _reject(trial, f"cannot exist: {error}", None, task)
        raise AssertionError from None  # a rejection does not return
    trial.set_constraint("params", float(cost.params - (task.config.budget.params - 1)))
    trial.set_user_attr("params", cost.params)
    trial.set_user_attr("macs", cost.macs)
    _reject(trial, task.config.budget.refusal(architecture, cost), architecture, task)
    return cost


def _reject(trial: optuna.Trial, reason: str | None, architecture: Architecture | None, task: Task) -> None:
    """End the trial without a value where there is a reason to."""
    if reason is None:
        return
    _end(trial, "rejected", reason, architecture, task)
    raise optuna.TrialPruned(reason)


def _key(architecture: Architecture, recipe: Recipe, task: Task) -> str:
    """What was trained: the canonical network, the recipe with its epochs, the data."""
    parts = [fingerprint(architecture), recipe.model_dump(mode="json"), task.data.fingerprint]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _twin(trial: optuna.Trial, key: str) -> str | None:
    """Why the key need not be trained again."""
    for other in trial.study.get_trials(deepcopy=False):
        known = other.number < trial.number and other.user_attrs.get("outcome") in ("trained", "diverged")
        if known and other.user_attrs.get("key") == key:
            return f"the same network and recipe as trial {other.number}"
    return None


def _train(trial: optuna.Trial, architecture: Architecture, recipe: Recipe, cost: Price, task: Task, folder: Path) -> float:
    from search.train import Epoch, TrialOver, fit

    seed = derive(task.config.search.seed, trial.user_attrs.get("reference", "candidate"), trial.user_attrs["index"])
    checkpoint = checkpoint_path(task.folder, trial.user_attrs)
    about = {"params": cost.params, "macs": cost.macs, "receptive_field": cost.receptive_field, "seed": seed}
    _set(trial, about)
    task.emit({"event": "trial", "number": trial.number, "reference": trial.user_attrs.get("reference")} | about)

    def on_epoch(epoch: Epoch) -> None:
        trial.report(epoch.val_accuracy, epoch.epoch)
        task.emit({"event": "epoch", "number": trial.number, "epochs": recipe.epochs} | asdict(epoch))

    def on_step(step: int, steps: int) -> None:
        task.emit({"event": "step", "number": trial.number, "step": step, "steps": steps})

    try:
        training = fit(architecture, task.data, recipe, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, on_step=on_step)
        _keep(folder, architecture, recipe, training)
    except TrialOver as over:
        _end(trial, over.outcome, over.reason, architecture, task)
        if over.outcome == "diverged":
            raise optuna.TrialPruned(over.reason) from None
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        _end(trial, "failed", reason, architecture, task)
        raise TrialOver("failed", reason) from error
    _score(trial, training.best.val_accuracy, training.best.epoch, training.history[-1].val_accuracy, task)
    trial.set_user_attr("epochs", len(training.history))
    spent = {"seconds": training.seconds, "compile_seconds": training.compile_seconds}
    _end(trial, "trained", None, architecture, task, **spent)
    return training.best.val_accuracy


def _keep(folder: Path, architecture: Architecture, recipe: Recipe, training: Training) -> None:
    """Leave in the trial's folder what `search.winner` reads back."""
    write_json(folder / "history.json", [asdict(epoch) for epoch in training.history])
    told = {"architecture": to_dict(architecture), "recipe": recipe.model_dump(mode="json")}
    write_json(folder / "training.json", told | {"pixels": training.pixels.to_dict(), "precision": training.precision})
    write_weights(folder / "weights.npz", training.best_weights)


def _score(trial: optuna.Trial, best: float, epoch: int, final: float, task: Task) -> None:
    _set(trial, {"best_val_accuracy": best, "best_epoch": epoch, "final_val_accuracy": final})
    if task.base_accuracy is not None:
        trial.set_user_attr("delta_vs_base", best - task.base_accuracy)


def _end(
    trial: optuna.Trial, outcome: str, reason: str | None, architecture: Architecture | None, task: Task, **spent: float
) -> None:
    _set(trial, spent | ({"reason": reason} if reason else {}) | {"outcome": outcome})  # the outcome last: all is there then
    task.annotate(trial, architecture, task)
    task.emit({"event": "end", "number": trial.number, "outcome": outcome, "reason": reason} | spent)


def _set(trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
