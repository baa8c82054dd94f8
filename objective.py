"""What one trial does: suggest, price, reject or build, train, report, score.

`candidate` is the objective of the study, `reference` that of its sibling in which the base and other known networks are
trained by the same code. All that a finished trial is to carry is written while it is alive, as it cannot be changed after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from search.budget.cost import Cost, compute_cost
from search.budget.metrics import METRICS
from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.export.file_costs import find_breach
from search.export.int8 import int8_accuracy
from search.files import Weights, is_full, write_json, write_weights
from search.networks.architecture import Architecture, to_dict
from search.seeds import derive
from search.storage.database import buffered_writes, report_epoch, set_trial_attributes
from search.study.config import StudyConfig
from search.training.recipe import Recipe
from search.training.result import Epoch, Outcome, Training, TrialOver
from search.tuning.candidate import DataFacts, Refusal, judge

Emit = Callable[[Mapping[str, Any]], None]
Annotate = Callable[[optuna.Trial, Architecture | None, "Task"], None]


class Clock(Protocol):
    """Watches the limits of a study; see `search.tuning.stopping`."""

    def check(self, trial_seconds: float) -> None: ...
    def trial_is_over(self, trial_seconds: float) -> str | None: ...


class DiskFull(BaseException):
    """A file of the run could not be written; what was there before is as it was.

    No `Exception`: the trial has not failed, and goes on from its checkpoint when there is space.
    """


def with_keras(architecture: Architecture, data: Dataset, recipe: Recipe, **hooks: Any) -> Training:
    """Train as `search.training.train.fit` does."""
    from search.training.train import fit

    return fit(architecture, data, recipe, **hooks)


@dataclass(frozen=True)
class Task:
    """What all trials of a run share."""

    config: StudyConfig
    data: Dataset
    folder: Path
    base_accuracy: float | None  # None while the base itself is trained
    emit: Emit  # takes events for whoever watches: trial, step, epoch
    annotate: Annotate  # writes a note on a trial that is about to end
    claim: Callable[[str, int], bool]  # claims a key for a trial of this logical index
    clock: Clock
    worker: str = "worker"  # the name of the process that trains
    fit: Callable[..., Training] = with_keras

    @property
    def facts(self) -> DataFacts:
        """What a candidate depends on of the data."""
        return DataFacts(self.data.input_shape, self.data.classes, self.data.fingerprint)

    def measure(self, architecture: Architecture, weights: Weights, pixels: Pixels, images: Any, labels: Any) -> float:
        """The accuracy of a trained network on images, in floats or in integers, as the study is ranked."""
        if self.config.search.rank_by == "int8":
            return int8_accuracy(architecture, list(weights), pixels, self.data, images, labels)
        from search.training.train import accuracy

        return accuracy(architecture, list(weights), pixels, images, labels)


def candidate(trial: optuna.Trial, task: Task) -> float | tuple[float, ...]:
    """Train the network that the sampler proposes; its best validation accuracy, and the costs that are minimised with it.

    Raises:
        optuna.TrialPruned: the candidate was rejected (never built), fell behind at a rung, or its training diverged.
        TrialOver: it could not be trained.
    """
    if not task.config.parameters:
        _ = trial.relative_params  # Optuna asks the sampler, which knows when there is nothing new, only for a parameter
    with buffered_writes(trial):
        values = {name: domain.suggest(trial, name) for name, domain in task.config.parameters.items()}
        found = judge(task.config, task.facts, values)
        _constrain(trial, found.cost, task)
    if isinstance(found, Refusal):
        _reject(trial, found.reason, found.architecture, task)
    if not task.claim(found.key, trial.user_attrs["index"]):
        _reject(trial, "the same network and recipe as another trial", found.architecture, task)
    set_trial_attributes(trial, {"key": found.key})
    stream = ("candidate", trial.user_attrs["index"]) if found.repeat is None else ("repeat", found.repeat)
    place = Place(f"trials/{trial.number}", stream, True)
    accuracy = _train(trial, found.architecture, found.recipe, found.cost, task, place)
    costs = tuple(float(METRICS[name].compute(found.cost)) for name in task.config.cost_metrics)
    return (accuracy, *costs) if costs else accuracy


def reference(trial: optuna.Trial, task: Task, architecture: Architecture, recipe: Recipe) -> float:
    """Train a known network under its own recipe; its best validation accuracy. No budget holds for it."""
    name = trial.user_attrs["reference"]
    place = Place(f"references/{name}", (name, trial.user_attrs["index"]))
    return _train(trial, architecture, recipe, compute_cost(architecture), task, place)


def again(trial: optuna.Trial, task: Task, architecture: Architecture, recipe: Recipe) -> float:
    """Train a contender of the finals from scratch on one of the fresh seeds, which all contenders share."""
    name, seed = trial.user_attrs["contender"], trial.user_attrs["repeat"]
    place = Place(f"{name}-{seed}", ("finals", seed))
    return _train(trial, architecture, recipe, compute_cost(architecture), task, place)


def checkpoint_path(folder: Path, attributes: Mapping[str, Any]) -> Path:
    """Where a trial with these user attributes leaves off; known by its logical index, so that a retry finds it."""
    name = attributes.get("contender", attributes.get("reference", "candidate"))
    return folder / "checkpoints" / f"{name}-{attributes['index']}.npz"


@dataclass(frozen=True)
class Place:
    """Where a training is kept in the task's folder, the stream of its seed, and whether it may be pruned at a rung."""

    folder: str
    stream: tuple[str, int]
    is_candidate: bool = False


def _constrain(trial: optuna.Trial, cost: Cost | None, task: Task) -> None:
    """Tell Optuna how the candidate stands to the budget, and people what it costs of all that is limited or minimised."""
    if cost is None:
        trial.set_constraint("exists", 1.0)
        return
    for name, limit in task.config.budget.limits.items():
        trial.set_constraint(name, float(METRICS[name].compute(cost) - (limit - 1)))
    set_trial_attributes(trial, _costs(cost, task.config))


def _costs(cost: Cost, config: StudyConfig) -> dict[str, Any]:
    """Costs that are stored as attributes of a trial, by metric."""
    return {name: METRICS[name].compute(cost) for name in config.recorded_metrics}


def _reject(trial: optuna.Trial, reason: str, architecture: Architecture | None, task: Task) -> NoReturn:
    """End the trial without a value."""
    _end(trial, Outcome.REJECTED, reason, architecture, task)
    raise optuna.TrialPruned(reason)


def _train(trial: optuna.Trial, architecture: Architecture, recipe: Recipe, cost: Cost, task: Task, place: Place) -> float:
    seed = derive(task.config.search.seed, *place.stream)
    about = _costs(cost, task.config) | {"receptive_field": cost.receptive_field, "seed": seed}
    set_trial_attributes(trial, about)
    refused = sum(trial.user_attrs.get("refused", {}).values())
    task.emit({"event": "trial", "number": trial.number, "refused": refused, **_named(trial)} | about)
    seconds, since = 0.0, time.monotonic()  # of the epochs so far, also those of a process that was killed; their end

    def on_epoch(epoch: Epoch) -> bool:
        nonlocal seconds, since
        seconds, since = seconds + epoch.seconds, time.monotonic()
        _report(trial, epoch)
        task.emit({"event": "epoch", "number": trial.number, "epochs": recipe.epochs} | asdict(epoch))
        at_rung = place.is_candidate and epoch.epoch in task.config.rungs
        return at_rung and trial.should_prune() and "warm_start" not in trial.user_attrs

    def on_step(step: int, steps: int) -> None:
        task.emit({"event": "step", "number": trial.number, "step": step, "steps": steps})
        spent = seconds + time.monotonic() - since
        task.clock.check(spent)
        if place.is_candidate and (reason := task.clock.trial_is_over(spent)):
            raise TrialOver(Outcome.TIMED_OUT, reason)

    try:
        checkpoint = checkpoint_path(task.folder, trial.user_attrs)
        hooks = {"checkpoint": checkpoint, "on_epoch": on_epoch, "on_step": on_step}
        training = task.fit(architecture, task.data, recipe, seed=seed, **hooks)
        set_trial_attributes(trial, {"epochs": len(training.history)})  # refused here where somebody has taken the trial up
        _keep(task.folder / place.folder, architecture, recipe, training)
        if task.config.search.flip_average and place.is_candidate:
            set_trial_attributes(trial, {"flip_val_accuracy": _with_flips(architecture, training, task)})
        best = _best(trial, architecture, recipe, training, task)
    except TrialOver as over:
        set_trial_attributes(trial, {"seconds": seconds + time.monotonic() - since})
        _end(trial, over.outcome, over.reason, architecture, task)
        if over.outcome in (Outcome.DIVERGED, Outcome.TIMED_OUT):
            raise optuna.TrialPruned(over.reason) from None
        raise
    except UpdateFinishedTrialError:
        raise
    except Exception as error:
        if is_full(error):
            raise DiskFull(f"{task.folder}: nothing more can be written ({error}); make space") from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        _end(trial, Outcome.FAILED, reason, architecture, task)
        raise TrialOver(Outcome.FAILED, reason) from error
    return _score(trial, architecture, recipe, training, best, task, is_candidate=place.is_candidate)


def _report(trial: optuna.Trial, epoch: Epoch) -> None:
    """Store what an epoch came to. Optuna's own `report` serves its pruners, and refuses a study of several objectives."""
    if len(trial.study.directions) == 1:
        trial.report(epoch.val_accuracy, epoch.epoch)
    else:
        report_epoch(trial, epoch.epoch, epoch.val_accuracy)


def _with_flips(architecture: Architecture, training: Training, task: Task) -> float:
    """The validation accuracy of the weights that are kept, each image and its mirror image averaged."""
    from search.training.train import accuracy

    images, labels = task.data.x_val, task.data.y_val
    return accuracy(architecture, training.best_weights, training.pixels, images, labels, flip_average=True)


def _best(trial: optuna.Trial, architecture: Architecture, recipe: Recipe, training: Training, task: Task) -> float:
    """The best validation accuracy; where the study is ranked in integers, that of the best epoch's weights in them."""
    best = training.best.val_accuracy
    if task.config.search.rank_by == "float" or len(training.history) < recipe.epochs:
        return best
    set_trial_attributes(trial, {"float_val_accuracy": best})
    return task.measure(architecture, training.best_weights, training.pixels, task.data.x_val, task.data.y_val)


def _score(
    trial: optuna.Trial,
    architecture: Architecture,
    recipe: Recipe,
    training: Training,
    best: float,
    task: Task,
    *,
    is_candidate: bool,
) -> float:
    """Write down what came of a training; its best validation accuracy.

    Raises:
        optuna.TrialPruned: it was pruned at a rung, or its int8 file breaks the budget.
    """
    epochs = len(training.history)
    final = training.history[-1].val_accuracy
    lead = {} if task.base_accuracy is None else {"delta_vs_base": best - task.base_accuracy}
    accuracies = {"best_val_accuracy": best, "best_epoch": training.best.epoch, "final_val_accuracy": final}
    set_trial_attributes(trial, accuracies | lead)
    spent = {"seconds": training.seconds, "compile_seconds": training.compile_seconds}
    if epochs < recipe.epochs:
        reason = f"{final:.2%} after {epochs} of {recipe.epochs} epochs, behind others at that rung"
        _end(trial, Outcome.PRUNED_AT_RUNG, reason, architecture, task, **spent)
        raise optuna.TrialPruned(reason)
    if is_candidate:
        breach = find_breach(task.config.budget, architecture, training.best_weights, training.pixels, task.data)
        if breach is not None:  # the prediction was too low: the file is what has to fit, so the trial is not ranked
            _end(trial, Outcome.REJECTED, breach.reason, architecture, task, **spent)
            raise optuna.TrialPruned(breach.reason)
    _end(trial, Outcome.TRAINED, None, architecture, task, **spent)
    return best


def _keep(folder: Path, architecture: Architecture, recipe: Recipe, training: Training) -> None:
    """Leave in the trial's folder what `search.study.trained` reads back."""
    write_json(folder / "history.json", [asdict(epoch) for epoch in training.history])
    told = {"architecture": to_dict(architecture), "recipe": recipe.model_dump(mode="json")}
    write_json(folder / "training.json", told | {"pixels": training.pixels.to_dict(), "precision": training.precision})
    write_weights(folder / "weights.npz", training.best_weights)


def _named(trial: optuna.Trial) -> dict[str, Any]:
    """What is trained, for whoever watches, where it is no candidate of the search."""
    return {key: trial.user_attrs[key] for key in ("reference", "contender", "repeat") if key in trial.user_attrs}


def _end(
    trial: optuna.Trial, outcome: Outcome, reason: str | None, architecture: Architecture | None, task: Task, **spent: float
) -> None:
    explained = {"reason": reason} if reason else {}
    set_trial_attributes(trial, spent | explained | {"outcome": outcome})  # the outcome last: all is stored then
    task.annotate(trial, architecture, task)
    task.emit({"event": "end", "number": trial.number, "outcome": outcome, "reason": reason} | spent)
