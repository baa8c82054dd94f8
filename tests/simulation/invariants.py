"""Invariants of a study's two queues after their workers have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, text

from search.storage.attributes import ADOPTED, INDEX, KEY, OUTCOME, RETRY_OF
from search.study.records import COUNTED
from search.training.result import Outcome
from tests.simulation.network import NETWORK, accuracy_of

OUTCOMES = {
    TrialState.COMPLETE: {Outcome.TRAINED},
    TrialState.PRUNED: {Outcome.PRUNED_AT_RUNG, Outcome.REJECTED, Outcome.DIVERGED, Outcome.TIMED_OUT},
    TrialState.FAIL: {Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT, Outcome.INTERRUPTED},
}

# A changed row of a finished trial is noted by the database itself, so that no later write can hide it. Values are written
# in the transaction that ends a trial, in any order; they are compared at the end.
TRIGGERS = (
    "CREATE TABLE changed (trial_id INTEGER, what TEXT)",
    """CREATE TRIGGER changed_state BEFORE UPDATE ON trials WHEN OLD.state IN ('COMPLETE', 'PRUNED', 'FAIL')
    BEGIN INSERT INTO changed VALUES (OLD.trial_id, OLD.state || ' to ' || NEW.state); END""",
    *(
        f"""CREATE TRIGGER changed_{table}_{verb} BEFORE {verb} ON {table}
        WHEN (SELECT state FROM trials WHERE trial_id = NEW.trial_id) IN ('COMPLETE', 'PRUNED', 'FAIL')
        BEGIN INSERT INTO changed VALUES (NEW.trial_id, '{verb} of {table}'); END"""
        for table in ("trial_user_attributes", "trial_params", "trial_intermediate_values")
        for verb in ("INSERT", "UPDATE")
    ),
)


def note_changes(engine: Engine) -> None:
    """Let the database note every change of a finished trial."""
    with engine.begin() as connection:
        for statement in TRIGGERS:
            connection.execute(text(statement))


def changes(engine: Engine) -> list[str]:
    """Noted changes, which are forgotten."""
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT trial_id, what FROM changed")).all()
        connection.execute(text("DELETE FROM changed"))
    return [f"finished trial of id {row.trial_id}: {row.what}" for row in rows]


def check_candidates(study: optuna.Study, claimed: Mapping[str, int], most: int) -> list[str]:
    """Violations of the search: exactly `most` counted trials, each of a network of its own."""
    trials = study.get_trials(deepcopy=False)
    counted = [trial for trial in trials if trial.user_attrs.get(OUTCOME) in COUNTED]
    own = [trial for trial in counted if ADOPTED not in trial.user_attrs]
    violations = _check_trials(trials)
    if len(own) != most:
        violations.append(f"{len(own)} trials count, {most} were asked for")
    violations += [f"network {key} counts {n} times" for key, n in _counts(counted, KEY).items() if n > 1]
    for trial in counted:
        if claimed.get(trial.user_attrs[KEY]) != trial.user_attrs[INDEX]:
            violations.append(f"trial {trial.number} counts without a claim of its network")
    return violations


def check_adopted(study: optuna.Study, claimed: Mapping[str, int], networks: Sequence[int], queued: int) -> list[str]:
    """Violations of the adoption: each network once, with a claim, and before the first trial of the study.

    Args:
        networks: those that another run has trained.
        queued: number of trials that the user queued before.
    """
    trials = study.get_trials(deepcopy=False)
    adopted = [trial for trial in trials if ADOPTED in trial.user_attrs]
    violations = []
    if sorted(trial.params[NETWORK] for trial in adopted) != sorted(networks):
        violations.append(f"networks {[trial.params[NETWORK] for trial in adopted]} are adopted, not {networks}")
    if [trial.number for trial in adopted] != list(range(queued, queued + len(networks))):
        violations.append(f"trials {[trial.number for trial in adopted]} are adopted, which are not the first")
    for trial in adopted:
        if trial.state != TrialState.COMPLETE or claimed.get(trial.user_attrs[KEY]) != trial.user_attrs[INDEX]:
            violations.append(f"trial {trial.number} is adopted as {trial.state.name}, or without a claim of its network")
    return violations


def check_finals(study: optuna.Study, pairs: int) -> list[str]:
    """Violations of the finals: each training has exactly one trial that was not retried or dropped, none is left."""
    trials = study.get_trials(deepcopy=False)
    violations = _check_trials(trials, may_drop=True)
    ended = [trial for trial in trials if trial.user_attrs.get(OUTCOME) != Outcome.INTERRUPTED]
    if len(ended) != pairs:
        violations.append(f"{len(ended)} trainings of the finals have ended, {pairs} were asked for")
    if any(trial.state == TrialState.WAITING for trial in trials):
        violations.append("a training of the finals waits for ever")
    return violations


def _check_trials(trials: Sequence[FrozenTrial], *, may_drop: bool = False) -> list[str]:
    """Violations of both queues."""
    violations = [f"trial {trial.number} runs for ever" for trial in trials if trial.state == TrialState.RUNNING]
    retries = Counter(trial.user_attrs.get(RETRY_OF) for trial in trials)
    for trial in trials:
        outcome = trial.user_attrs.get(OUTCOME)
        if trial.state.is_finished() and outcome not in OUTCOMES[trial.state]:
            violations.append(f"trial {trial.number} is {trial.state.name} with the outcome {outcome}")
        wanted = 1 if outcome == Outcome.INTERRUPTED else 0
        is_dropped = may_drop and not trial.user_attrs.get("worker")
        if retries[trial.number] != wanted and not is_dropped:
            violations.append(f"trial {trial.number} ({outcome}) has {retries[trial.number]} retries")
        if trial.state == TrialState.COMPLETE and trial.values != [accuracy_of(trial)]:
            violations.append(f"trial {trial.number} has the values {trial.values} of another")
        if RETRY_OF in trial.user_attrs and trial.user_attrs[INDEX] != trials[trial.user_attrs[RETRY_OF]].user_attrs[INDEX]:
            violations.append(f"trial {trial.number} has another index than the trial that it retries")
    first = [trial for trial in trials if RETRY_OF not in trial.user_attrs]
    return violations + [f"index {index} belongs to {n} trials" for index, n in _counts(first, INDEX).items() if n > 1]


def _counts(trials: Sequence[FrozenTrial], attribute: str) -> Counter[object]:
    return Counter(trial.user_attrs[attribute] for trial in trials if attribute in trial.user_attrs)
