"""Adopts trained trials of other runs before the first trial of a study; see `search.tuning.adoption`.

Every worker does so before it trains. Each step can be repeated: the database adds a trial once, by the claim of its key,
and files are copied only where they are missing. A worker that was killed in between, and others beside it, do no harm.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import optuna

from search.budget.limits import Breach
from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.errors import StudyStopped, UserError
from search.export.file_costs import find_breach
from search.export.int8 import Int8Network
from search.files import is_full, replacing
from search.networks.architecture import Architecture
from search.storage.adoption import adopt, has_begun
from search.storage.attributes import ADOPTED, KEY
from search.storage.claims import claims_of
from search.study.run import Run, Studies, load
from search.study.trained import FOLDS_FILE, own_weights
from search.tuning.adoption import FILES, Adoptable, Assessment, assess
from search.tuning.candidate import DataFacts
from search.tuning.sources import Source, open_sources

ADOPTION = "adoption"  # user attribute of a study whose adoption is complete: what was adopted and left out, by run


def sources_to_adopt(run: Run) -> list[Source]:
    """Read the runs that a study adopts, before anything of it is written; none once its adoption is complete.

    Raises:
        UserError: one of them cannot be read, or does not compare with the study.
    """
    if not run.config.search.adopt or _is_complete(run):
        return []
    return open_sources(run.config, run.folder, run.storage_url)


def adopt_trials(
    run: Run,
    studies: Studies,
    sources: Sequence[Source],
    data: Dataset,
    policy: str | None = None,
    on_conversion: Callable[[], None] = lambda: None,
) -> list[Assessment]:
    """Adopt what the study can take over; what that was, by source.

    Args:
        policy: Keras' dtype policy of the study's own trainings; None if it is not known.
        on_conversion: called before a network is converted to int8, which takes seconds.

    Raises:
        StudyStopped: a file cannot be copied.
    """
    study = studies.candidates
    claims_of(study)  # creates their table

    def measure(architecture: Architecture, weights: Sequence[npt.NDArray[Any]], pixels: Pixels) -> Breach | None:
        on_conversion()
        return find_breach(run.config.budget, Int8Network(architecture, weights, pixels, data))

    assessments = assess(run.config, DataFacts.of(data), sources, policy, measure)
    adoptable = [entry for assessment in assessments for entry in assessment.adoptable]
    for entry in adoptable:
        adopt(study, entry.template)
    _copy_files(run.folder, study, adoptable)
    if ADOPTION not in study.user_attrs:
        study.set_user_attr(ADOPTION, [assessment.to_dict() for assessment in assessments])
    return assessments


def _is_complete(run: Run) -> bool:
    """True if the study exists and its adoption is complete, or was begun without any."""
    try:
        study = load(run).candidates
    except UserError:  # it does not exist yet
        return False
    return ADOPTION in study.user_attrs or has_begun(study.get_trials(deepcopy=False))


def _copy_files(folder: Path, study: optuna.Study, adoptable: Sequence[Adoptable]) -> None:
    """Copy the files of adopted trials into the run folder, and check their weights there.

    Raises:
        StudyStopped: they cannot be copied.
    """
    by_key = {entry.template.user_attrs[KEY]: entry for entry in adoptable}
    for trial in study.get_trials(deepcopy=False):
        entry = by_key.get(trial.user_attrs.get(KEY))
        target = folder / "trials" / str(trial.number)
        if entry is None or ADOPTED not in trial.user_attrs or (target / FILES[-1]).is_file():
            continue
        try:
            optional = [FOLDS_FILE] if (entry.files / FOLDS_FILE).is_file() else []
            for name in (*optional, *FILES):
                with replacing(target / name) as draft:
                    shutil.copyfile(entry.files / name, draft)
            own_weights(target, trial, entry.architecture)
        except (OSError, UserError) as error:
            remedy = "make space" if is_full(error) else "check both folders"
            raise StudyStopped(
                f"{entry.files}: cannot be copied to {target} ({error}); {remedy}: the command resumes"
            ) from None
