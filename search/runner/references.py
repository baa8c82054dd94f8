"""The base and other references of a run: each trained once, by one worker, under its own recipe."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from objective import Task, reference
from search.errors import UserError
from search.networks.architecture import fingerprint
from search.runner.job import StudyStopped
from search.runner.trial import run_trial
from search.storage.attributes import OUTCOME
from search.storage.queue import Trials, begin
from search.storage.recovery import recover
from search.study import references
from search.study.references import Reference
from search.study.run import Run, Studies
from search.training.result import Outcome


def train_reference(run: Run, studies: Studies, opponent: Reference, task: Task) -> bool:
    """Train a reference unless that is done; False where another worker is at it.

    Raises:
        UserError: the run knows another network by this name.
        StudyStopped: the base could not be trained.
    """
    study, print_of = studies.references, fingerprint(opponent.architecture)
    recipe = references.recipe_of(run.config, opponent)
    known = {"reference": opponent.name, "fingerprint": print_of, "index": 0, "attempt": 1}

    def seen_in(trials: Trials) -> list[FrozenTrial]:
        return [trial for trial in trials if trial.user_attrs.get("reference") == opponent.name]

    while True:
        recover(study, run.folder)
        seen = seen_in(study.get_trials(deepcopy=False))
        if any(trial.user_attrs["fingerprint"] != print_of for trial in seen):
            raise UserError(f"{opponent.name}: this run knows another network by this name; pass --out with a new folder")
        if any(trial.state == TrialState.COMPLETE for trial in seen):
            return True
        trial = begin(
            study,
            task.worker,
            has_room=lambda trials, others: not others and not any(map(_is_running, seen_in(trials))),
            choose=lambda trial: trial.user_attrs.get("reference") == opponent.name,
            new=lambda trials: None if _is_settled(seen_in(trials)) else known,
        )
        if trial is not None:
            run_trial(study, trial, lambda trial: reference(trial, task, opponent.architecture, recipe), task)
            continue
        seen = seen_in(study.get_trials(deepcopy=False))
        if any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in seen):
            return False
        if _is_settled(seen) and not any(trial.state == TrialState.COMPLETE for trial in seen):
            if opponent.name != run.config.base_name:
                return True
            over = [trial for trial in seen if _is_settled([trial])][-1]
            raise StudyStopped(f"the base could not be trained: {over.user_attrs.get('reason', 'no reason given')}")


def _is_running(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING


def _is_settled(trials: Iterable[FrozenTrial]) -> bool:
    """Whether one of them was trained, or could not be."""
    return any(
        trial.state == TrialState.COMPLETE
        or (trial.state.is_finished() and trial.user_attrs.get(OUTCOME, Outcome.FAILED) != Outcome.INTERRUPTED)
        for trial in trials
    )
