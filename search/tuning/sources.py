"""Other runs that a study uses, its adopted ones and its prior: read without writing, and checked to serve the study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from search.data.dataset import Dataset
from search.errors import UserError
from search.files import read_json
from search.storage.attributes import OUTCOME
from search.storage.database import open_storage
from search.storage.locks import CONFIG as CONFIG_FILE
from search.storage.urls import anchored, masked, sqlite_url
from search.study import study_file
from search.study.config import ROOT, StudyConfig, flat
from search.study.run import DATA
from search.training.result import Outcome
from search.tuning.bayes.observations import observe
from search.tuning.bayes.prior import PriorStudy

MEASURE = {"protocol": "holdout", "search.rank_by": "float", "search.metric": "accuracy"}  # must be equal; their defaults


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


def open_prior(
    config: StudyConfig, own_folder: Path | None = None, own_storage: str | None = None
) -> tuple[PriorStudy, ...]:
    """Read the trials of the runs that a study names as its prior; nothing is written, and the runs may be in progress.

    Args:
        own_folder, own_storage: as in `open_sources`.

    Raises:
        UserError: there is no such run, its configuration cannot be read, or its space is of another kind.
    """
    studies = list[PriorStudy]()
    for name in config.search.prior:
        is_shipped = name in study_file.shipped_priors()
        study = _shipped_prior(config, name) if is_shipped else _open_prior(config, ROOT / name, own_folder, own_storage)
        alike = sum(other.run.partition(" #")[0] == study.run for other in studies)
        studies.append(replace(study, run=f"{study.run} #{alike + 1}") if alike else study)
    return tuple(studies)


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
                f"compare; set [data] as it is there, {_leave_out('adopt')}"
            )


def _open(config: StudyConfig, folder: Path, own_folder: Path | None, own_storage: str | None) -> Source:
    stored = _stored("adopt", folder, own_folder)
    _check_measure(config, folder, stored["config"])
    data, trials = _read("adopt", folder, stored, own_storage)
    trained = tuple(trial for trial in trials if trial.user_attrs.get(OUTCOME) == Outcome.TRAINED)
    return Source(folder, _name(folder), data, trained)


def _open_prior(config: StudyConfig, folder: Path, own_folder: Path | None, own_storage: str | None) -> PriorStudy:
    stored = _stored("prior", folder, own_folder)
    try:
        theirs = study_file.parse(stored["config"], str(folder / CONFIG_FILE))
    except UserError as error:
        raise UserError(f"search.prior: {error}; restore it, {_leave_out('prior')}") from None
    own_kind, other_kind = _kind(config), _kind(theirs)
    if own_kind != other_kind:
        raise UserError(
            f"search.prior: {folder} searched a space of kind {other_kind}, and this study searches one of kind {own_kind}; "
            f"name a run of that kind, {_leave_out('prior')}"
        )
    data, trials = _read("prior", folder, stored, own_storage)
    return PriorStudy(_name(folder), stored["config"], data, observe(theirs, trials, own=-1).ended)


def _shipped_prior(config: StudyConfig, name: str) -> PriorStudy:
    """The trainings of a shipped prior in the space of the study's kind."""
    studies = [PriorStudy.from_dict(plain) for plain in read_json(study_file.PRIORS / f"{name}.json")["studies"]]
    by_kind = {study.config["space"]["kind"]: study for study in studies}
    if (kind := _kind(config)) not in by_kind:
        raise UserError(
            f"search.prior: {name} knows spaces of kind {' and '.join(by_kind)}, and this study searches one of kind "
            f"{kind}; leave it out of search.prior"
        )
    return by_kind[kind]


def _kind(config: StudyConfig) -> str:
    """The kind of a study's space; of a user's own kind without the folder and the digest of its file."""
    return Path(config.dump()["space"]["kind"].partition("@")[0]).name


def _read(key: str, folder: Path, stored: Mapping[str, Any], own_storage: str | None) -> tuple[Any, list[FrozenTrial]]:
    """Facts of the images and finished trials of a run.

    Args:
        key: of the [search] table that names the run, for messages.
    """
    url = stored["storage"] or sqlite_url(folder)
    if "***" in url:
        if own_storage is None or masked(own_storage) != url:
            raise UserError(
                f"search.{key}: {folder} is stored in {url}, whose password is not kept; pass that --storage, "
                f"{_leave_out(key)}"
            )
        url = own_storage
    storage = open_storage(anchored(url), create=False, read_only=True)
    try:
        study = optuna.load_study(storage=storage, study_name=stored["name"])
        data = study.user_attrs[DATA]
    except KeyError:
        raise UserError(
            f"search.{key}: {masked(url)} holds no study {stored['name']!r}; restore it, {_leave_out(key)}"
        ) from None
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    storage.engine.dispose()
    return data, trials


def _stored(key: str, folder: Path, own_folder: Path | None) -> dict[str, Any]:
    if own_folder is not None and folder.resolve() == own_folder.resolve():
        raise UserError(f"search.{key}: {folder} is the study's own run folder; pass --out with a new folder for this run")
    path = folder / CONFIG_FILE
    if not path.is_file():
        inner = folder / "run"
        remedy = f'name its run folder, "{inner}"' if (inner / CONFIG_FILE).is_file() else "name the folder of a run"
        if key == "prior":
            remedy += f", or {' or '.join(study_file.shipped_priors())}, which is shipped"
        raise UserError(f"search.{key}: {folder} holds no run ({CONFIG_FILE}); {remedy}, {_leave_out(key)}")
    stored = read_json(path)
    try:
        return {"name": str(stored["name"]), "storage": stored["storage"], "config": dict(stored["config"])}
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"search.{key}: {path} is damaged ({type(error).__name__}); restore it, {_leave_out(key)}") from None


def _leave_out(key: str) -> str:
    return f"or leave it out of search.{key}"


def _check_measure(config: StudyConfig, folder: Path, stored: Mapping[str, Any]) -> None:
    """Raise UserError where the accuracies of a run are not those that the study ranks by."""
    ours, theirs = dict(flat(config.dump())), dict(flat(stored))
    for key, default in MEASURE.items():
        own, other = ours.get(key, default), theirs.get(key, default)
        if own != other:
            raise UserError(
                f"search.adopt: {folder} was run with {key} = {json.dumps(other)}, and this study has {json.dumps(own)}, so "
                f"that accuracies do not compare; set {key} = {json.dumps(other)}, {_leave_out('adopt')}"
            )


def _name(folder: Path) -> str:
    """A short name of a run: that of its folder, or of the folder around one that is called run."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "run" else folder.name
