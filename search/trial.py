"""One trial through Optuna: its sampler, seeded by the trial's logical index, its pruner, and its end."""

from __future__ import annotations

import gc
from collections.abc import Callable

import optuna

from objective import Task, candidate, checkpoint_path
from search.claims import Claims
from search.rungs import RungPruner
from search.sampler import BudgetedSampler
from search.seeds import derive
from search.study import next_index

STARTUP = 10  # trials drawn at random before a sampler learns from what came of them


def run_candidate(study: optuna.Study, task: Task, claims: Claims) -> None:
    """Let the task's sampler propose a candidate, or take the one that is queued, and train it.

    Raises:
        Exhausted: the space holds nothing new that fits.
        Enough: a limit of the study was reached; the trial is left to be taken up.
    """
    index, config = next_index(study), task.config
    seed = derive(config.search.seed, "sampler", index)
    study.sampler = BudgetedSampler(inner_sampler(config.search.sampler, seed), config, task.facts, claims, seed=seed)
    study.pruner = RungPruner(config.search.rungs) if config.search.rungs else optuna.pruners.NopPruner()
    run_trial(study, lambda trial: candidate(trial, task), task, index)


def run_trial(study: optuna.Study, objective: Callable[[optuna.Trial], float], task: Task, index: int) -> None:
    """One trial of the study; the checkpoint that it left off at goes when Optuna has been told what came of it."""
    from search.train import TrialOver

    def indexed(trial: optuna.Trial) -> float:
        if "index" not in trial.user_attrs:
            trial.set_user_attr("index", index)
            trial.set_user_attr("attempt", 1)
        return objective(trial)

    study.optimize(indexed, n_trials=1, catch=(TrialOver,))
    ended = next(trial for trial in reversed(study.get_trials(deepcopy=False)) if trial.user_attrs.get("index") == index)
    checkpoint = checkpoint_path(task.folder, ended.user_attrs)
    for left in (checkpoint, *checkpoint.parent.glob(f".{checkpoint.stem}.part*")):  # parts: of a process that was killed
        left.unlink(missing_ok=True)
    gc.collect()  # a network and its compiled functions hold each other


def inner_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's own sampler of this name; a grid is listed by `BudgetedSampler` itself, and asks none."""
    match name:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=False, n_startup_trials=STARTUP)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=2 * STARTUP)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)
