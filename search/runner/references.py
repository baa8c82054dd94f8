"""The base and other references of a run: each trained once, by one worker, under its own recipe."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from objective import Objective
from search.errors import StudyStopped, UserError
from search.networks.architecture import fingerprint
from search.runner.trial import run_trial
from search.storage.attributes import ATTEMPT, FINGERPRINT, INDEX, OUTCOME, REASON, REFERENCE
from search.storage.queue import Trials, begin
from search.storage.recovery import recover
from search.study import references
from search.study.references import Reference
from search.study.run import Run, Studies
from search.training.result import Outcome


def train_reference(run: Run, studies: Studies, reference: Reference, objective: Objective) -> bool:
    """Train a reference unless that is done; False where another worker is training it.

    Raises:
        UserError: the run knows another network by this name.
        StudyStopped: the base could not be trained.
    """
    study, identity = studies.references, fingerprint(reference.architecture)
    recipe = references.recipe_of(run.config, reference)
    attributes = {REFERENCE: reference.name, FINGERPRINT: identity, INDEX: 0, ATTEMPT: 1}

    def is_own(trial: FrozenTrial) -> bool:
        return bool(trial.user_attrs.get(REFERENCE) == reference.name)

    def has_room(trials: Trials, others: int) -> bool:
        return not others and not any(is_own(trial) and trial.state == TrialState.RUNNING for trial in trials)

    while True:
        recover(study, run.folder)
        attempts = list(filter(is_own, study.get_trials(deepcopy=False)))
        if any(trial.user_attrs[FINGERPRINT] != identity for trial in attempts):
            raise UserError(f"{reference.name}: this run knows another network by this name; pass --out with a new folder")
        if any(trial.state == TrialState.COMPLETE for trial in attempts):
            return True
        trial = begin(
            study,
            objective.context.worker,
            has_room=has_room,
            choose=is_own,
            new=lambda trials: None if _is_settled(filter(is_own, trials)) else attributes,
        )
        if trial is not None:
            run_trial(study, trial, lambda trial: objective.reference(trial, reference.architecture, recipe), objective)
            continue
        attempts = list(filter(is_own, study.get_trials(deepcopy=False)))
        if any(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in attempts):
            return False
        if _is_settled(attempts) and not any(trial.state == TrialState.COMPLETE for trial in attempts):
            if reference.name != run.config.base_name:
                return True
            last = [trial for trial in attempts if _is_settled([trial])][-1]
            raise StudyStopped(f"the base could not be trained: {last.user_attrs.get(REASON, 'no reason given')}")


def _is_settled(trials: Iterable[FrozenTrial]) -> bool:
    """True if one of them was trained, or could not be trained."""
    return any(
        trial.state == TrialState.COMPLETE
        or (trial.state.is_finished() and trial.user_attrs.get(OUTCOME, Outcome.FAILED) != Outcome.INTERRUPTED)
        for trial in trials
    )
