"""The Optuna studies of a run: created or gone on with, and counted.

A run is two studies in one storage: NAME holds the candidates, NAME.references the base and other networks to compare
with, which can so never be the best candidate. What trials carry is written by `objective` and read back here as records.
"""

from __future__ import annotations

import json
import shlex
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.study import StudyDirection

from search.data.dataset import Dataset
from search.errors import UserError
from search.files import write_json
from search.networks.architecture import Architecture
from search.storage.attributes import ACCURACY
from search.storage.database import masked, open_storage, sqlite_url
from search.storage.optuna_internals import base_storage_of
from search.study import study_file
from search.study.config import StudyConfig
from search.study.records import Record, counts, outline, ranked, records
from space import build

CONFIG = "config"
DATA = "data"
KINDS = ("references", "control", "finals")  # of the studies beside the candidates', NAME.KIND


@dataclass(frozen=True)
class Run:
    """Where a study runs: its name, its folder, what it asks for, its storage."""

    name: str
    folder: Path
    config: StudyConfig
    storage_url: str
    called: str = field(default="", compare=False)  # what a person typed to name it: STUDY, --out, --storage

    @property
    def command(self) -> str:
        """What a person types to go on with it."""
        return f"python -m search run {self.called or self.name}"


@dataclass(frozen=True)
class Studies:
    """The two Optuna studies of a run."""

    candidates: optuna.Study
    references: optuna.Study


class Opened(NamedTuple):
    """A run as it is now, for whoever looks at it in Python; every figure of `report.figures.curves` takes `*opened`."""

    run: Run
    candidates: list[Record]
    references: list[Record]


def open_study(study: str, out: str | Path | None = None, storage: str | None = None) -> Opened:
    """A run that has been started, finished or not; nothing is trained or changed.

    Args:
        study: a name under studies/, or the path of its TOML file.
        out: the run folder, instead of studies/NAME/run.
        storage: a database URL, instead of study.db in the run folder.

    Raises:
        UserError: nothing has run in the folder yet, or its storage does not hold the study.
    """
    studies = load(run := find(study, None if out is None else Path(out), storage))
    return Opened(run, records(studies.candidates), records(studies.references))


def named(study: str, out: Path | None) -> tuple[str, Path, Path]:
    """(name, study file, run folder) of a study as the command line names it."""
    name, path = study_file.find(study)
    default = path.parent / ("run" if path.name == "study.toml" else f"{path.stem}-run")
    return name, path, (out or default).resolve()


def ask(study: str, overrides: dict[str, Any], out: Path | None, storage: str | None) -> Run:
    """The run that a study file and its overrides ask for.

    Raises:
        UserError: the file breaks a rule, or the folder holds a run that asked for something else.
    """
    name, path, folder = named(study, out)
    config = study_file.load(path, overrides)
    run = Run(name, folder, config, storage or sqlite_url(folder), _called(study, out, storage))
    if (folder / "config.json").is_file():
        stored = _stored(folder)
        _refuse_difference(folder, _config(folder, stored), config)
        if stored["name"] != name:
            raise UserError(f"{folder}: holds the run of {stored['name']!r}, not of {name!r}; pass --out with a new folder")
        if _external(run) != stored["storage"]:
            where = stored["storage"] or f"{folder / 'study.db'}, without --storage"
            raise UserError(f"{folder}: this run is stored in {where}; pass the same storage, or another --out")
    return run


def find(study: str, out: Path | None, storage: str | None) -> Run:
    """A run that has been started, as it was configured then.

    Raises:
        UserError: nothing has run in the folder yet, or its storage is elsewhere.
    """
    name, _, folder = named(study, out)
    called = _called(study, out, storage)
    if not (folder / "config.json").is_file():
        raise UserError(f"{study}: nothing has run in {folder} yet; start it with: python -m search run {called}")
    stored = _stored(folder)
    if storage is None and "***" in (stored["storage"] or ""):
        raise UserError(f"{folder}: this run is stored in {stored['storage']}; pass --storage with its password")
    return Run(name, folder, _config(folder, stored), storage or stored["storage"] or sqlite_url(folder), called)


def create(run: Run, data: Dataset, *, patience: float = 0.0, grace_seconds: float | None = None) -> Studies:
    """Create the studies of a run, or open those that are there.

    Args:
        patience: seconds that a worker waits for a database that is away.
        grace_seconds: after a trial's last heartbeat, until it counts as lost; None where no trial is run.

    Raises:
        UserError: studies of this name asked for something else, or were trained on other data.
    """
    storage, prices = open_storage(run.storage_url, patience=patience, grace_seconds=grace_seconds), run.config.cost_metrics
    candidates, references = (
        optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        for name, directions in (
            (run.name, [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in prices)]),
            (f"{run.name}.references", [StudyDirection.MAXIMIZE]),
        )
    )
    attributes = candidates.user_attrs
    if CONFIG in attributes:
        stored = study_file.parse(attributes[CONFIG], masked(run.storage_url))
        _refuse_difference(run.folder, stored, run.config)
        before = attributes[DATA]
        if before["fingerprint"] != data.fingerprint:
            raise UserError(
                f"{run.folder}: this run was trained on other data ({before['summary']}, {before['fingerprint']}; now "
                f"{data.summary()}, {data.fingerprint}); pass the data it started with, or --out with a new folder"
            )
    if len(candidates.directions) != 1 + len(prices):  # of a process that ended before it had stored its configuration
        raise UserError(f"{run.folder}: this run was begun with other search.directions; pass --out with a new folder")
    if prices and not candidates.metric_names:
        _name_objectives(candidates, (ACCURACY, *prices))
    candidates.set_user_attr(DATA, _data_facts(data))  # first: whoever finds a configuration finds data too
    candidates.set_user_attr(CONFIG, run.config.dump())
    _write_config(run)
    return Studies(candidates, references)


def load(run: Run, *, patience: float = 0.0) -> Studies:
    """Open the studies of a run that has been started.

    Raises:
        UserError: the storage does not hold them.
    """
    storage = open_storage(run.storage_url, create=False, patience=patience)
    try:
        return Studies(*(optuna.load_study(storage=storage, study_name=f"{run.name}{end}") for end in ("", ".references")))
    except KeyError:
        raise UserError(f"{masked(run.storage_url)}: holds no study {run.name!r}; see --storage and --out") from None


def sibling(run: Run, kind: str, studies: Studies | None = None) -> optuna.Study:
    """The study NAME.kind in the storage of a run, that of its studies where they are open: "finals", "control"."""
    storage = base_storage_of(studies.candidates) if studies else open_storage(run.storage_url, create=False)
    name = f"{run.name}.{kind}"
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


def every(run: Run, *, patience: float = 0.0) -> list[optuna.Study]:
    """All studies of a run that there are."""
    storage = open_storage(run.storage_url, create=False, patience=patience)
    there = set(optuna.get_all_study_names(storage))
    names = [run.name, *(f"{run.name}.{kind}" for kind in KINDS)]
    return [optuna.load_study(storage=storage, study_name=name) for name in names if name in there]


# --- what is there ---------------------------------------------------------------------------------------------------


def network_of(run: Run, number: int | None = None, studies: Studies | None = None) -> Architecture:
    """The network of a candidate, trained or rejected; without a number that of the best.

    Args:
        studies: those of the run, where they are open: what has been read of them is not read again.

    Raises:
        UserError: there is no such trial, or none has been trained yet.
    """
    studies = studies or load(run)
    if number is None:
        number = best(run, records(studies.candidates)).number
    trials = studies.candidates.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise UserError(f"{run.name} {number}: no trial of this number; there are {len(trials)}, from 0")
    data = studies.candidates.user_attrs[DATA]
    try:
        drawn = run.config.declared(trials[number].params)
        network = build(run.config.space, drawn, tuple(data["input"]), data["classes"])
    except KeyError:
        raise UserError(f"{run.name} {number}: this trial was stopped before its network was proposed") from None
    return replace(network, name=f"{run.name}-{number}")


def verdict(run: Run, number: int | None) -> str:
    """What became of a candidate, in a line; without a number of the best."""
    candidates = outline(load(run).candidates)
    record = best(run, candidates) if number is None else next(one for one in candidates if one.number == number)
    if record.outcome != "trained" or record.best_val_accuracy is None:
        return f"{record.outcome.replace('_', ' ')}{f': {record.reason}' if record.reason else ''}"
    flipped = record.flip_val_accuracy
    apart = "" if flipped is None else f"; {flipped:.2%} with flip averaging, which is not ranked"
    floats = record.float_val_accuracy
    best_one = f"{record.best_val_accuracy:.2%}" + ("" if floats is None else f" in int8, {floats:.2%} in floats,")
    return (
        f"trained: best {best_one} in epoch {record.best_epoch} of {record.epochs}, "
        f"rank {ranked(candidates).index(record) + 1}{apart}"
    )


def best(run: Run, candidates: list[Record]) -> Record:
    """The best trained candidate.

    Raises:
        UserError: none has been trained yet; says what there is.
    """
    if first := ranked(candidates):
        return first[0]
    there = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts(candidates).items())
    raise UserError(f"{run.name}: no candidate has been trained yet ({there}); go on with: {run.command}")


def _name_objectives(study: optuna.Study, names: tuple[str, ...]) -> None:
    """Optuna's and its dashboard's names of the values, by which they are also told apart here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # it is, since 3.2 of 2023
        study.set_metric_names(list(names))


def _data_facts(data: Dataset) -> dict[str, Any]:
    return {
        "fingerprint": data.fingerprint,
        "summary": data.summary(),
        "input": list(data.input_shape),
        "classes": data.classes,
        "class_names": list(data.class_names),
    }


# --- the run folder's own copy of the configuration ------------------------------------------------------------------


def _write_config(run: Run) -> None:
    content = {"name": run.name, "digest": run.config.digest, "storage": _external(run), "config": run.config.dump()}
    write_json(run.folder / "config.json", content)


def _external(run: Run) -> str | None:
    """Where the run is stored, password hidden, if not in its folder."""
    return None if run.storage_url == sqlite_url(run.folder) else masked(run.storage_url)


def _stored(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {key: stored[key] for key in ("name", "storage", "config")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); pass --out with a new folder") from None


def _config(folder: Path, stored: dict[str, Any]) -> StudyConfig:
    return study_file.parse(stored["config"], str(folder / "config.json"))


def _refuse_difference(folder: Path, stored: StudyConfig, asked: StudyConfig) -> None:
    found = study_file.differences(stored, asked)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        options = study_file.options_back(stored, asked)
        back = f"go on with {options}" if options else "go on with what it has"
        raise UserError(f"{folder}: {found[0]}{more}; {back}, or pass --out with a new folder")


def _called(study: str, out: Path | None, storage: str | None) -> str:
    options = {"--out": out, "--storage": storage and masked(storage)}
    return shlex.join([study, *(str(word) for pair in options.items() if pair[1] for word in pair)])
