"""A study file for one's own images: what was seen of them, made into a commented study.toml with a base beside it."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.data.dataset import Dataset
from search.data.inspection import Seen, copies, look
from search.data.loading import Watch
from search.errors import UserError
from search.files import safe_name, write_text
from search.networks.architecture import to_json
from search.study.config import STUDIES, StudyConfig
from search.study.dataset import read
from search.study.proposal import Proposal, propose
from search.study.study_file import load
from search.study.survey import Survey, survey
from search.study.template import study_text


@dataclass(frozen=True)
class New:
    """A study that has been written, and what it was made from."""

    name: str
    file: Path
    called: str  # as the command line names it
    seen: Seen
    proposal: Proposal
    config: StudyConfig
    data: Dataset
    copies: int  # images that equal another
    survey: Survey


def make(name: str, data: Path, budget: int, to: Path | None = None, watch: Watch = lambda done, total: None) -> New:
    """Look at the images, write NAME/study.toml and base.json, and read both back as a run would.

    Args:
        to: the folder in which NAME is made, instead of studies/.
        watch: told how many images have been looked at or read, and of how many.

    Raises:
        UserError: there is such a study already, the images cannot be used, or no network fits the budget. Nothing is
            left behind then.
    """
    folder = _place(name, to)
    seen = look(data.absolute(), watch)
    proposal = propose(seen, budget)
    with _new(folder):
        write_text(folder / "base.json", to_json(proposal.base))
        called = name if to is None else shlex.quote(str(to / name))
        write_text(folder / "study.toml", study_text(called, folder, budget, seen, proposal))
        config = load(folder / "study.toml")
        read_back = read(config, watch=watch)
        found = survey(config.space, config.budget, read_back.input_shape, read_back.classes)
    whole = [part for part in (read_back.x_train, read_back.x_val, read_back.x_test) if part is not None]
    same = copies(np.concatenate(whole))
    return New(name, folder / "study.toml", called, seen, proposal, config, read_back, same, found)


def _place(name: str, to: Path | None) -> Path:
    if safe_name(name) != name or name == "references":
        raise UserError(
            f"NAME: {name!r} is no name for a study; take letters, digits, dots, dashes, such as {safe_name(name)}"
        )
    folder = (STUDIES if to is None else to) / name
    if folder.exists():
        raise UserError(f"{folder}: is there already and is left alone; take another name, or remove it")
    return folder.absolute()


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[None]:
    """A folder that is only left behind where all went well."""
    try:
        folder.mkdir(parents=True)
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{folder}: cannot be written ({error.strerror}); pass --to with another folder") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
