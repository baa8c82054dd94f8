"""Adoption: finished trials of another run are added to a study, each with the claim of its key, in one transaction.

    step         by                            effect in one transaction
    ----------   ---------------------------   ------------------------------------------------------------------------
    adopt        any worker, before the first  adds a COMPLETE trial with its logical index, and claims its key for it
                 trial of the study begins

Adopted trials so come before all others of the study. They do not count towards its N and take up no room, and no worker
trains them again, as their keys are claimed.
"""

from __future__ import annotations

from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.storage.attributes import ADOPTED, ATTEMPT, INDEX, KEY
from search.storage.claims import claim_inside
from search.storage.database import storage_of
from search.storage.optuna_internals import TrialIntermediateValueModel, TrialValueModel, study_id_of
from search.storage.pending import PendingWrites, store_pending
from search.storage.queue import Trials, count_trials, insert_trial, locked, next_index


def adopt(study: optuna.Study, template: FrozenTrial) -> bool:
    """Add a finished trial unless the study has it; any process may do so, and repeat it after a crash.

    Args:
        template: a COMPLETE trial with the user attributes ADOPTED and KEY; its number and its times are ignored.

    Returns:
        False if the study has begun a trial of its own, or trained the same under another trial.
    """
    while True:
        trials = study.get_trials(deepcopy=False)
        own = [trial for trial in trials if trial.user_attrs.get(KEY) == template.user_attrs[KEY]]
        if own:
            return all(trial.user_attrs.get(ADOPTED) == template.user_attrs[ADOPTED] for trial in own)
        if has_begun(trials):
            return False
        is_adopted = storage_of(study).retry(partial(_adopt, study, trials, template))
        if is_adopted is not None:
            return is_adopted


def has_begun(trials: Trials) -> bool:
    """True if one of these trials is not adopted and has been begun."""
    return any(ADOPTED not in trial.user_attrs and trial.state != TrialState.WAITING for trial in trials)


def _adopt(study: optuna.Study, trials: Trials, template: FrozenTrial) -> bool | None:
    """False if the key is claimed already; None if the trials have changed and must be read again."""
    begun = sum(trial.state != TrialState.WAITING for trial in trials)
    with locked(study) as (storage, session):
        if count_trials(session, study) != (len(trials), begun):
            return None
        index = next_index(trials)
        if not claim_inside(session, study, template.user_attrs[KEY], index):
            return False
        row = insert_trial(session, study, state=TrialState.RUNNING)
        parameters = {
            name: (distribution.to_internal_repr(template.params[name]), distribution)
            for name, distribution in template.distributions.items()
        }
        attributes = template.user_attrs | {INDEX: index, ATTEMPT: 1}
        store_pending(
            session,
            PendingWrites(study_id_of(study), int(row.trial_id), parameters, attributes, dict(template.system_attrs)),
        )
        for objective, value in enumerate(template.values or ()):
            stored, kind = TrialValueModel.value_to_stored_repr(value)
            session.add(TrialValueModel(trial_id=row.trial_id, objective=objective, value=stored, value_type=kind))
        for epoch, value in template.intermediate_values.items():
            number, finite = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
            session.add(
                TrialIntermediateValueModel(
                    trial_id=row.trial_id, step=epoch, intermediate_value=number, intermediate_value_type=finite
                )
            )
        session.flush()  # before the trial ends: nothing of a finished trial changes
        row.datetime_start = row.datetime_complete = storage.clock.local_time()
        row.state = TrialState.COMPLETE
        return True
