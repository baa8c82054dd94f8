"""Runs whose trained trials a study adopts: read without writing, and checked to compare with the study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.data.dataset import Dataset
from search.errors import UserError
from search.files import read_json
from search.storage.attributes import OUTCOME
from search.storage.database import open_storage
from search.storage.locks import CONFIG as CONFIG_FILE
from search.storage.urls import anchored, masked, sqlite_url
from search.study.config import ROOT, StudyConfig, flat
from search.study.run import DATA
from search.training.result import Outcome

MEASURE = {"protocol": "holdout", "search.rank_by": "float", "search.metric": "accuracy"}  # must be equal; their defaults

_LEAVE_OUT = "or leave it out of search.adopt"


@dataclass(frozen=True)
class Source:
    """The trained trials of another run.

    Attributes:
        name: a short name of the run, for tables and messages.
        data: facts of its images, as `search.study.dataset.data_facts` stores them.
    """

    folder: Path
    name: str
    data: Mapping[str, Any]
    trials: tuple[FrozenTrial, ...]

    def files_of(self, number: int) -> Path:
        """The folder of a trial's files."""
        return self.folder / "trials" / str(number)


def open_sources(config: StudyConfig, own_folder: Path | None = None, own_storage: str | None = None) -> list[Source]:
    """Read the trained trials of the runs that a study adopts; nothing is written, and the runs may be in progress.

    Args:
        own_folder: the run folder of the study itself, if it has one.
        own_storage: URL of the study's own database, by which a password that a run does not store is known.

    Raises:
        UserError: there is no such run, or it cannot be compared with the study.
    """
    return [_open(config, ROOT / name, own_folder, own_storage) for name in config.search.adopt]


def check_data(sources: Sequence[Source], data: Dataset) -> None:
    """Check that the sources were trained on the images of the study.

    Raises:
        UserError: one was not.
    """
    for source in sources:
        if source.data["fingerprint"] != data.fingerprint:
            raise UserError(
                f"search.adopt: {source.folder} was trained on other data ({source.data['summary']}, "
                f"{source.data['fingerprint']}; this study: {data.summary()}, {data.fingerprint}), so accuracies do not "
                f"compare; set [data] as it is there, {_LEAVE_OUT}"
            )


def _open(config: StudyConfig, folder: Path, own_folder: Path | None, own_storage: str | None) -> Source:
    if own_folder is not None and folder.resolve() == own_folder.resolve():
        raise UserError(f"search.adopt: {folder} is the study's own run folder; pass --out with a new folder for this run")
    stored = _stored(folder)
    _check_measure(config, folder, stored["config"])
    url = stored["storage"] or sqlite_url(folder)
    if "***" in url:
        if own_storage is None or masked(own_storage) != url:
            raise UserError(
                f"search.adopt: {folder} is stored in {url}, whose password is not kept; pass that --storage, {_LEAVE_OUT}"
            )
        url = own_storage
    storage = open_storage(anchored(url), create=False, read_only=True)
    try:
        study = optuna.load_study(storage=storage, study_name=stored["name"])
        data = study.user_attrs[DATA]
    except KeyError:
        raise UserError(f"search.adopt: {masked(url)} holds no study {stored['name']!r}; restore it, {_LEAVE_OUT}") from None
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trained = tuple(trial for trial in trials if trial.user_attrs.get(OUTCOME) == Outcome.TRAINED)
    storage.engine.dispose()
    return Source(folder, _name(folder), data, trained)


def _stored(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        inner = folder / "run"
        remedy = f'name its run folder, "{inner}"' if (inner / CONFIG_FILE).is_file() else "name the folder of a run"
        raise UserError(f"search.adopt: {folder} holds no run ({CONFIG_FILE}); {remedy}, {_LEAVE_OUT}")
    stored = read_json(path)
    try:
        return {"name": str(stored["name"]), "storage": stored["storage"], "config": dict(stored["config"])}
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"search.adopt: {path} is damaged ({type(error).__name__}); restore it, {_LEAVE_OUT}") from None


def _check_measure(config: StudyConfig, folder: Path, stored: Mapping[str, Any]) -> None:
    """Raise UserError where the accuracies of a run are not those that the study ranks by."""
    ours, theirs = dict(flat(config.dump())), dict(flat(stored))
    for key, default in MEASURE.items():
        own, other = ours.get(key, default), theirs.get(key, default)
        if own != other:
            raise UserError(
                f"search.adopt: {folder} was run with {key} = {json.dumps(other)}, and this study has {json.dumps(own)}, so "
                f"that accuracies do not compare; set {key} = {json.dumps(other)}, {_LEAVE_OUT}"
            )


def _name(folder: Path) -> str:
    """A short name of a run: that of its folder, or of the folder around one that is called run."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "run" else folder.name
