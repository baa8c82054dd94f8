"""The objective of a trial: propose, judge, claim, train, score, record.

`Objective.candidate` is the objective function of a study; `reference` and `finalist` train known networks by the same
steps. Optuna never changes a finished trial, so everything that a trial carries is stored while it still runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt
import optuna
from optuna.exceptions import UpdateFinishedTrialError

from search.budget.cost import Cost, compute_cost
from search.budget.metrics import METRICS
from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import StudyStopped
from search.export.card import network_digest
from search.export.file_costs import find_breach
from search.export.int8 import Int8Network, int8_confusion
from search.files import Weights, is_full
from search.networks.architecture import Architecture
from search.seeds import derive
from search.storage import attributes as names
from search.storage.claims import Claims
from search.storage.database import buffered_writes, report_epoch, set_trial_attributes
from search.storage.locks import folder_gone
from search.study.config import StudyConfig
from search.study.trained import fold_attributes, save_training
from search.training.folds import fit_folds
from search.training.measures import ACCURACY, MEASURES, effective_images, measure_all
from search.training.recipe import Recipe
from search.training.result import Epoch, Outcome, Training, TrialOver
from search.training.trainer import KerasTrainer, Trainer
from search.tuning.bayes import Prior
from search.tuning.candidate import DataFacts, Rejection, judge
from search.tuning.pruner import gains_words
from search.tuning.stopping import Limits


class DiskFull(StudyStopped):
    """Stops the run where a file cannot be written; the files from before are unchanged."""


class Observer(Protocol):
    """Receives the progress of trials; further facts are in the trial's user attributes."""

    def trial_started(self, trial: optuna.Trial) -> None:
        """A training begins; its parameters, seed and number of rejected proposals are stored."""

    def step_done(self, trial: optuna.Trial, step: int, steps: int) -> None:
        """So many steps of all are done; called about once a second."""

    def epoch_done(self, trial: optuna.Trial, epoch: Epoch, epochs: int) -> None:
        """An epoch of all is done; those restored from a checkpoint are reported too."""

    def trial_ended(self, trial: optuna.Trial, architecture: Architecture | None) -> None:
        """The outcome is stored. The architecture is None where the proposal is no possible network."""

    def trial_reassigned(self, trial: optuna.Trial) -> None:
        """Another process has ended the trial, for lack of heartbeats; the result is discarded."""


class NullObserver(Observer):
    """Ignores everything."""


@dataclass(frozen=True)
class Context:
    """Plain values that all trials of a worker share."""

    config: StudyConfig
    data: Dataset
    folder: Path  # of the run, or its sub-folder for the finals or the control search
    worker: str = "worker"
    base_accuracy: float | None = None  # value of the study's measure; None while the base is not trained
    prior: Prior | None = None  # of other studies, for the sampler

    @cached_property
    def facts(self) -> DataFacts:
        """The properties of the data that a candidate depends on."""
        return DataFacts.of(self.data)

    def fold_of_seed(self, seed: int) -> int | None:
        """The fold that validates the finals of a seed, which train on the others; None without folds."""
        return seed % self.data.folds if self.data.folds else None

    def confusion(
        self, architecture: Architecture, weights: Weights, pixels: Pixels, images: Any, labels: Any
    ) -> npt.NDArray[np.int64]:
        """Confusion matrix of a trained network as the study ranks it: in floats, or after int8 conversion."""
        if self.config.search.rank_by == "int8":
            return int8_confusion(Int8Network(architecture, list(weights), pixels, self.data), images, labels)
        from search.training.train import confusion_of

        return confusion_of(architecture, list(weights), pixels, images, labels)


@dataclass(frozen=True)
class Assignment:
    """A network to train in a trial: under which recipe and seed stream, and the folder that receives the result."""

    architecture: Architecture
    recipe: Recipe
    cost: Cost
    folder: str  # within the context's folder
    seed_stream: tuple[str, int]
    is_candidate: bool = False  # may be pruned at a rung, and has a time limit
    has_budget: bool = False  # its int8 file must be within the limits of the study
    fold: int | None = None  # of data in folds, the one that validates; None for all in turn


@dataclass(frozen=True)
class Objective:
    """The objective functions of a study's trials, in one worker.

    Attributes:
        claims: of the candidates' study, so that no network is trained twice under one recipe.
        limits: of the study and of one trial.
    """

    context: Context
    claims: Claims
    limits: Limits
    observer: Observer = field(default_factory=NullObserver)
    trainer: Trainer = field(default_factory=KerasTrainer)

    def candidate(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Train the network that the sampler proposes.

        Returns:
            Its best validation accuracy, or value of the study's other measure, followed by the costs that the study
            minimises, if any.

        Raises:
            optuna.TrialPruned: the candidate was rejected, pruned at a rung, or stopped as diverged or too slow.
            TrialOver: it could not be trained.
            StudyStopped: a limit of the study was reached, or the disk is full.
        """
        config = self.context.config
        with buffered_writes(trial):
            values = _propose(trial, config)
            proposal = judge(config, self.context.facts, values)
            _record_cost(trial, config, proposal.cost)
        if isinstance(proposal, Rejection):
            self._reject(trial, proposal.reason, proposal.architecture)
        index = trial.user_attrs[names.INDEX]
        if not self.claims.claim(proposal.key, index):
            self._reject(trial, "the same network and recipe as another trial", proposal.architecture)
        set_trial_attributes(trial, {names.KEY: proposal.key})
        seed_stream = ("candidate", index) if proposal.repeat is None else ("repeat", proposal.repeat)
        folder = f"trials/{trial.number}"
        assignment = Assignment(
            proposal.architecture, proposal.recipe, proposal.cost, folder, seed_stream, is_candidate=True, has_budget=True
        )
        accuracy = self._train_and_score(trial, assignment)
        costs = tuple(float(METRICS[name].compute(proposal.cost)) for name in config.cost_metrics)
        return (accuracy, *costs) if costs else accuracy

    def reference(self, trial: optuna.Trial, architecture: Architecture, recipe: Recipe) -> float:
        """Train a known network under its own recipe and without a budget; return its best value of the study's measure."""
        name, index = trial.user_attrs[names.REFERENCE], trial.user_attrs[names.INDEX]
        assignment = Assignment(architecture, recipe, compute_cost(architecture), f"references/{name}", (name, index))
        return self._train_and_score(trial, assignment)

    def finalist(self, trial: optuna.Trial, architecture: Architecture, recipe: Recipe) -> float:
        """Train a finalist from scratch on one of the fresh seeds that all finalists share.

        Raises:
            optuna.TrialPruned: the training diverged, or its int8 file breaks the budget, which the base need not meet.
        """
        name, seed = trial.user_attrs[names.CONTENDER], trial.user_attrs[names.REPEAT]
        cost, folder, seed_stream = compute_cost(architecture), f"{name}-{seed}", ("finals", seed)
        fold = self.context.fold_of_seed(seed)
        assignment = Assignment(architecture, recipe, cost, folder, seed_stream, has_budget=name != names.BASE, fold=fold)
        return self._train_and_score(trial, assignment)

    def _train_and_score(self, trial: optuna.Trial, assignment: Assignment) -> float:
        context = self.context
        architecture, recipe = assignment.architecture, assignment.recipe
        seed = derive(context.config.search.seed, *assignment.seed_stream)
        facts = {names.RECEPTIVE_FIELD: assignment.cost.receptive_field, names.SEED: seed}
        set_trial_attributes(trial, _costs(context.config, assignment.cost) | facts)
        self.observer.trial_started(trial)
        context.folder.mkdir(parents=True, exist_ok=True)  # that of the finals is new
        data = context.data if assignment.fold is None else context.data.fold(assignment.fold)
        fit = partial(fit_folds, self.trainer) if data.folds else self.trainer.fit
        monitor = _Monitor(trial, self, assignment, _planned_epochs(assignment, data))
        try:
            training = fit(
                architecture,
                data,
                recipe,
                seed=seed,
                metric=context.config.search.metric,
                checkpoint=checkpoint_path(context.folder, trial.user_attrs),
                on_epoch=monitor.on_epoch,
                on_step=monitor.on_step,
            )
            digest = network_digest(architecture, training.best_weights)
            results = {names.EPOCHS: len(training.history), names.NETWORK: digest}
            set_trial_attributes(trial, results)  # fails here if the trial was requeued
            save_training(context.folder / assignment.folder, architecture, recipe, training)
            network = Int8Network(architecture, training.best_weights, training.pixels, data)
            best = self._score(trial, assignment, training, network)
        except TrialOver as over:
            self._end(trial, over.outcome, architecture, {names.SECONDS: monitor.seconds, names.REASON: over.reason})
            if over.outcome in (Outcome.DIVERGED, Outcome.TIMED_OUT):
                raise optuna.TrialPruned(over.reason) from None
            raise
        except UpdateFinishedTrialError:
            raise
        except Exception as error:
            if is_full(error):
                raise DiskFull(f"{context.folder}: nothing more can be written ({error}); make space") from None
            if _is_missing(error, context.folder):  # perhaps it is back by now, with the last checkpoint of this trial
                raise folder_gone(context.folder, Path(error.filename).name) from None
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._end(trial, Outcome.FAILED, architecture, {names.REASON: reason})
            raise TrialOver(Outcome.FAILED, reason) from error
        return self._record(trial, assignment, training, best, network)

    def _score(self, trial: optuna.Trial, assignment: Assignment, training: Training, network: Int8Network) -> float:
        """The best value of the study's measure, after int8 conversion of the best epoch's weights where that is ranked."""
        data, search = network.data, self.context.config.search
        measure = MEASURES[search.metric]
        if search.flip_average and assignment.is_candidate:
            flipped = measure.compute(_flip_averaged_confusion(assignment.architecture, training, data))
            set_trial_attributes(trial, {names.FLIP_VAL_ACCURACY: flipped})
        best = training.best.score(search.metric)
        if training.folds:
            set_trial_attributes(trial, fold_attributes(training, search.metric, data.validated // data.folds))
            return best
        if not self._is_int8_measured(assignment, training):
            self._store_measures(trial, training.confusion)
            return best
        set_trial_attributes(trial, {names.FLOAT_VAL_ACCURACY: best})
        confusion = int8_confusion(network, data.x_val, data.y_val)
        self._store_measures(trial, confusion)
        return measure.compute(confusion)

    def _store_measures(self, trial: optuna.Trial, confusion: npt.NDArray[np.int64] | None) -> None:
        """Store every measure of the ranked network and its effective number of images, unless accuracy is ranked."""
        metric = self.context.config.search.metric
        if metric != ACCURACY and confusion is not None:
            images = effective_images(metric, confusion)
            set_trial_attributes(trial, {names.MEASURED: measure_all(confusion), names.EFFECTIVE_IMAGES: images})

    def _is_int8_measured(self, assignment: Assignment, training: Training) -> bool:
        """True if the best accuracy is that after int8 conversion; of a pruned trial it is always the float accuracy."""
        return self.context.config.search.rank_by == "int8" and len(training.history) == assignment.recipe.epochs

    def _record(
        self, trial: optuna.Trial, assignment: Assignment, training: Training, best: float, network: Int8Network
    ) -> float:
        """Store the scores and the outcome of a training; return the best accuracy.

        Raises:
            optuna.TrialPruned: it was pruned at a rung, or its int8 file breaks the budget.
        """
        epochs, planned = training.epochs, _planned_epochs(assignment, network.data)
        final = training.history[-1].score(self.context.config.search.metric)
        scores = {
            names.BEST_VAL_ACCURACY: best,
            names.BEST_EPOCH: training.best.epoch,
            names.FINAL_VAL_ACCURACY: final,
        }
        is_comparable = self.context.config.search.rank_by == "float" or self._is_int8_measured(assignment, training)
        if self.context.base_accuracy is not None and is_comparable:
            scores[names.DELTA_VS_BASE] = best - self.context.base_accuracy
        set_trial_attributes(trial, scores)
        ending: dict[str, Any] = {
            names.SECONDS: training.seconds,
            names.COMPILE_SECONDS: training.compile_seconds,
        }
        if epochs < planned:
            gains = gains_words(trial.study.pruner)
            reason = f"{final:.2%} after {epochs} of {planned} epochs, which promises less than others did{gains}"
            self._end(trial, Outcome.PRUNED_AT_RUNG, assignment.architecture, ending | {names.REASON: reason})
            raise optuna.TrialPruned(reason)
        if assignment.has_budget:
            breach = find_breach(self.context.config.budget, network)
            if breach is not None:  # the prediction was too low; the file must fit, so the trial is not ranked
                self._end(trial, Outcome.REJECTED, assignment.architecture, ending | {names.REASON: breach.reason})
                raise optuna.TrialPruned(breach.reason)
        self._end(trial, Outcome.TRAINED, assignment.architecture, ending)
        return best

    def _reject(self, trial: optuna.Trial, reason: str, architecture: Architecture | None) -> NoReturn:
        self._end(trial, Outcome.REJECTED, architecture, {names.REASON: reason})
        raise optuna.TrialPruned(reason)

    def _end(
        self, trial: optuna.Trial, outcome: Outcome, architecture: Architecture | None, attributes: Mapping[str, Any]
    ) -> None:
        """Store the last attributes of a trial; the outcome last, because it marks the others as complete."""
        set_trial_attributes(trial, {**attributes, names.OUTCOME: outcome})
        self.observer.trial_ended(trial, architecture)


class _Monitor:
    """Reports the epochs and steps of a training, applies the limits, and decides on pruning at rungs."""

    def __init__(self, trial: optuna.Trial, objective: Objective, assignment: Assignment, epochs: int) -> None:
        self.trial, self.assignment, self.epochs = trial, assignment, epochs
        self.limits, self.observer = objective.limits, objective.observer
        self.metric = objective.context.config.search.metric
        self.rungs = objective.context.config.rungs if assignment.is_candidate else ()
        self._epoch_seconds = 0.0  # of all epochs, those of an earlier process too
        self._epoch_ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """Duration of the training so far, including an earlier process that it resumes."""
        return self._epoch_seconds + time.monotonic() - self._epoch_ended

    def on_epoch(self, epoch: Epoch) -> bool:
        """Report an epoch; True if the trial is to be pruned. A warm start is never pruned."""
        self._epoch_seconds += epoch.seconds
        self._epoch_ended = time.monotonic()
        _report(self.trial, epoch.epoch, epoch.score(self.metric))
        self.observer.epoch_done(self.trial, epoch, self.epochs)
        if epoch.epoch not in self.rungs:
            return False
        return self.trial.should_prune() and names.WARM_START not in self.trial.user_attrs

    def on_step(self, step: int, steps: int) -> None:
        """Report the steps done, and end the trial or the run at a limit.

        Raises:
            LimitReached: a limit of the study is reached.
            TrialOver: the trial took too long.
        """
        self.observer.step_done(self.trial, step, steps)
        self.limits.check_study(self.seconds)
        if self.assignment.is_candidate:
            self.limits.check_trial(self.seconds)


def checkpoint_path(folder: Path, attributes: Mapping[str, Any]) -> Path:
    """The checkpoint of a trial with these user attributes; a retry has the same index, and so the same path."""
    name = attributes.get(names.CONTENDER, attributes.get(names.REFERENCE, "candidate"))
    return folder / "checkpoints" / f"{name}-{attributes[names.INDEX]}.npz"


def _is_missing(error: Exception, folder: Path) -> TypeGuard[FileNotFoundError]:
    """True for the error of a file in the run folder that cannot be written as that folder is missing."""
    if not isinstance(error, FileNotFoundError) or error.filename is None:
        return False
    return Path(error.filename).is_relative_to(folder)


def _planned_epochs(assignment: Assignment, data: Dataset) -> int:
    """Number of epochs of a training that is not pruned, of all folds."""
    return assignment.recipe.epochs * max(data.folds, 1)


def _propose(trial: optuna.Trial, config: StudyConfig) -> dict[str, Any]:
    """Ask the sampler for a value of every searched parameter."""
    if not config.parameters:
        _ = trial.relative_params  # the sampler must run even so: it raises where the only network is trained already
    return {name: domain.suggest(trial, name) for name, domain in config.parameters.items()}


def _report(trial: optuna.Trial, epoch: int, score: float) -> None:
    """Store the ranked value of an epoch; pruners need `Trial.report`, which refuses several objectives."""
    if len(trial.study.directions) == 1:
        trial.report(score, epoch)
    else:
        report_epoch(trial, epoch, score)


def _record_cost(trial: optuna.Trial, config: StudyConfig, cost: Cost | None) -> None:
    """Store the cost of a proposal, and its distance to each limit as an Optuna constraint (feasible up to 0)."""
    if cost is None:
        trial.set_constraint("exists", 1.0)
        return
    for name, limit in config.budget.limits.items():
        trial.set_constraint(name, float(METRICS[name].compute(cost) - (limit - 1)))
    set_trial_attributes(trial, _costs(config, cost))


def _costs(config: StudyConfig, cost: Cost) -> dict[str, Any]:
    """The costs that are stored with a trial, by metric."""
    return {name: METRICS[name].compute(cost) for name in config.recorded_metrics}


def _flip_averaged_confusion(architecture: Architecture, training: Training, data: Dataset) -> npt.NDArray[np.int64]:
    """Confusion matrix of the best weights on the validation images, averaged over each image and its mirror image."""
    from search.training.train import confusion_of

    return confusion_of(architecture, training.best_weights, training.pixels, data.x_val, data.y_val, flip_average=True)
