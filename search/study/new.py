"""A study file for a user's own images: study.toml, with a reason beside each setting, and a base network."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from search.data.dataset import Dataset, without_copies
from search.data.inspection import ImageFacts, look
from search.data.loading import Watch, not_watched
from search.data.near_copies import count_near_copies
from search.errors import UserError
from search.files import safe_name, write_text
from search.networks.architecture import to_json
from search.study.config import REFERENCES, STUDIES, StudyConfig
from search.study.dataset import DAMAGED, load_study_data
from search.study.proposal import Proposal, propose
from search.study.study_file import PRIORS, load
from search.study.survey import Survey, survey_space
from search.study.template import ImageProblems, study_text


@dataclass(frozen=True)
class New:
    """A new study, and the facts it was made from."""

    name: str
    file: Path
    called: str  # as the command line names it
    seen: ImageFacts
    proposal: Proposal
    config: StudyConfig
    data: Dataset  # as a run of the study reads it
    survey: Survey
    problems: ImageProblems


def make(name: str, data: Path, budget: int, to: Path | None = None, watch: Watch = not_watched) -> New:
    """Look at the images, write NAME/study.toml and base.json, and read both back as a run would.

    Damaged images are listed in `DAMAGED` beside them. Where there are some, or copies, the study leaves them out.

    Args:
        to: the folder in which NAME is made, instead of studies/.
        watch: called with the number of images that have been looked at or read, and of all.

    Raises:
        UserError: there is such a study already, the images cannot be used, or no network fits the budget. Nothing is
            left behind then.
    """
    folder = _study_folder(name, to)
    file = folder / "study.toml"
    called = name if to is None else shlex.quote(str(to / name))
    facts = look(data.absolute(), watch)
    proposal = propose(facts, budget)
    with _new(folder):
        write_text(folder / "base.json", to_json(proposal.base))
        write_text(file, study_text(called, folder, budget, facts, proposal, ImageProblems()))
        config = load(file)
        dataset = load_study_data(_tolerant(config, facts), watch=watch, listing=folder / DAMAGED)
        dataset, problems = _without_copies(dataset)
        problems = replace(problems, near_copies=count_near_copies(dataset.splits))
        if problems != ImageProblems():
            write_text(file, study_text(called, folder, budget, facts, proposal, problems))
            config = load(file)
        found = survey_space(config.space, config.budget, dataset.input_shape, dataset.classes)
    return New(name, file, called, facts, proposal, config, dataset, found, problems)


def _tolerant(config: StudyConfig, facts: ImageFacts) -> StudyConfig:
    """The configuration under which damaged images of a folder are counted instead of raising an error."""
    return config.model_copy(update={"data": config.data.model_copy(update={"skip_damaged": facts.is_folder})})


def _without_copies(dataset: Dataset) -> tuple[Dataset, ImageProblems]:
    """The data without copies where that leaves images of every class, and the problems of its images."""
    damaged = len(dataset.damaged)
    if not dataset.copies:
        return dataset, ImageProblems(damaged)
    try:
        return without_copies(dataset), ImageProblems(damaged, dataset.copies)
    except UserError:  # a class of copies alone
        return dataset, ImageProblems(damaged)


def _study_folder(name: str, to: Path | None) -> Path:
    if safe_name(name) != name or name in (REFERENCES.name, PRIORS.name):
        raise UserError(
            f"NAME: {name!r} is not a valid name of a study; use letters, digits, dots, dashes, such as {safe_name(name)}"
        )
    folder = (STUDIES if to is None else to) / name
    if folder.exists():
        raise UserError(f"{folder}: exists already and was not changed; pass another name, or remove it")
    return folder.absolute()


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[None]:
    """Make a folder and remove it again where the block raises.

    Raises:
        UserError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{folder}: cannot be written ({error.strerror}); pass --to with another folder") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
