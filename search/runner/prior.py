"""The prior of a study: read from other runs once, before its first trial, and stored in its own database.

Every worker and every resumed run takes the stored copy, so that the other runs may grow or be deleted meanwhile. Of several
workers that read them at the same time the first to write decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import optuna

from search.errors import UserError
from search.storage.attributes import rewrite
from search.storage.database import storage_of
from search.storage.optuna_internals import study_id_of
from search.study.run import Run, load
from search.tuning.bayes.prior import Prior, PriorStudy
from search.tuning.sources import open_prior

PREFIX = "search_prior:"  # of the system attributes that hold it, a part of its text each
PART = 10_000  # characters, as some databases hold 65,535 bytes in a field


def prior_to_store(run: Run) -> tuple[PriorStudy, ...]:
    """The stored prior of a study, or that of the runs that it names if it has none yet.

    Raises:
        UserError: one of them cannot be read, or its space is of another kind.
    """
    if not run.config.search.prior:
        return ()
    try:
        stored = stored_prior(load(run).candidates)
    except UserError:  # the study does not exist yet
        stored = ()
    return stored or open_prior(run.config, run.folder, run.storage_url)


def store_prior(study: optuna.Study, studies: Sequence[PriorStudy]) -> Prior:
    """Store the prior of a study unless it has one; the prior that is stored then."""
    text = json.dumps([entry.to_dict() for entry in studies])
    parts = {f"{PREFIX}{start // PART}": text[start : start + PART] for start in range(0, len(text), PART)}
    rewrite(study, (PREFIX,), lambda before: before or parts)
    return Prior(stored_prior(study))


def stored_prior(study: optuna.Study) -> tuple[PriorStudy, ...]:
    """The prior studies that are stored with a study; none if it has no prior, or has not begun."""
    attributes = storage_of(study).get_study_system_attrs(study_id_of(study))
    parts = {int(key.removeprefix(PREFIX)): text for key, text in attributes.items() if key.startswith(PREFIX)}
    text = "".join(parts[number] for number in sorted(parts))
    return tuple(PriorStudy.from_dict(plain) for plain in json.loads(text)) if text else ()
