"""The Optuna studies of a run: created, resumed and read.

A run is two studies in one storage: NAME holds the candidates, NAME.references the base and other reference networks, which
can therefore never be the best candidate. NAME.control and NAME.finals are added by finals.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.data.dataset import Dataset
from search.errors import UserError
from search.files import write_json
from search.networks.architecture import Architecture
from search.storage.attributes import INDEX, watch
from search.storage.database import open_storage, storage_of
from search.storage.locks import check_folder
from search.storage.optuna_internals import base_storage_of
from search.storage.resilient import OnWait, no_report
from search.storage.urls import anchored, masked, sqlite_url
from search.study import study_file
from search.study.config import StudyConfig
from search.study.dataset import data_facts, images_of
from search.study.folder import has_run, read_stored, refuse_own_files, stored_config
from search.study.records import Record, counts, outline, proposal_words, ranked, records
from search.text import format_percent, format_percents
from search.training.measures import ACCURACY, MEASURES, other_measures
from space import build

CONFIG = "config"
DATA = "data"
KINDS = ("references", "control", "finals")  # of the studies beside the candidates', NAME.KIND
NEW_FOLDER = "--out with a new folder"


@dataclass(frozen=True)
class Run:
    """A study with its configuration, its folder and its storage."""

    name: str
    folder: Path
    config: StudyConfig
    storage_url: str
    called: str = field(default="", compare=False)  # the arguments that named it: STUDY, --out, --storage

    @property
    def command(self) -> str:
        """The command that resumes it."""
        return self.command_of("run")

    def command_of(self, verb: str) -> str:
        """A command on this run, with the arguments that named it."""
        return f"python -m search {verb} {self.called or self.name}"


@dataclass(frozen=True)
class Studies:
    """The two Optuna studies of a run."""

    candidates: optuna.Study
    references: optuna.Study


class Opened(NamedTuple):
    """A run with its records; every figure of `report.figures.curves` takes `*opened`."""

    run: Run
    candidates: list[Record]
    references: list[Record]


def open_study(study: str, out: str | Path | None = None, storage: str | None = None) -> Opened:
    """Read a run that has been started, finished or not; nothing is trained or changed.

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
    """(name, study file, run folder) of a study as the command line names it.

    Raises:
        UserError: there is no such file, or its name is one of the studies beside another's candidates.
    """
    name, path = study_file.find(study)
    base, _, kind = name.rpartition(".")
    if base and kind in KINDS:
        raise UserError(f"{study}: a study named NAME.{kind} would mix with that of {base!r}; rename the study file")
    default = path.parent / ("run" if path.name == "study.toml" else f"{path.stem}-run")
    return name, path, (out or default).resolve()


def ask(study: str, overrides: dict[str, Any], out: Path | None, storage: str | None) -> Run:
    """The run that a study file and its overrides ask for.

    Raises:
        UserError: the file breaks a rule, or the folder holds another run, or the user's own files.
    """
    name, path, folder = named(study, out)
    storage = storage and anchored(storage)
    config = study_file.load(path, overrides)
    run = Run(name, folder, config, storage or sqlite_url(folder), _called(study, out, storage))
    if has_run(folder):
        stored = read_stored(folder)
        _refuse_difference(folder, stored_config(folder, stored), config)
        if stored["name"] != name:
            raise UserError(f"{folder}: holds the run of {stored['name']!r}, not of {name!r}; pass --out with a new folder")
        if _external(run) != (stored["storage"] and anchored(stored["storage"])):
            where = stored["storage"] or f"{folder / 'study.db'}, without --storage"
            raise UserError(f"{folder}: this run is stored in {where}; pass the same storage, or another --out")
    else:
        refuse_own_files(folder)
    return run


def find(study: str, out: Path | None, storage: str | None) -> Run:
    """A run that has been started, as it was configured at its start.

    Raises:
        UserError: nothing has run in the folder yet, or its storage is elsewhere.
    """
    name, path, folder = named(study, out)
    called = _called(study, out, storage)
    if not has_run(folder):
        raise UserError(f"{study}: nothing has run in {folder} yet; start it with: python -m search run {called}")
    stored = read_stored(folder)
    storage = anchored(storage) if storage else storage
    if storage is None and "***" in (stored["storage"] or ""):
        raise UserError(f"{folder}: this run is stored in {stored['storage']}; pass --storage with its password")
    config = study_file.relocated(stored_config(folder, stored), path)
    return Run(name, folder, config, storage or stored["storage"] or sqlite_url(folder), called)


def create(
    run: Run,
    data: Dataset,
    *,
    patience: float = 0.0,
    grace_seconds: float | None = None,
    worker: str | None = None,
    on_wait: OnWait = no_report,
) -> Studies:
    """Create the studies of a run, or open the existing ones.

    Args:
        patience: seconds that a call is repeated while the database is unreachable.
        grace_seconds: age of its last heartbeat at which a trial counts as lost; None where no trial is run.
        worker: name of the worker that trains; every later call then raises StudyGone if study, database or run folder
            are deleted, renamed or replaced.
        on_wait: called with the reason when a call waits.

    Raises:
        UserError: studies of this name asked for something else, were trained on other data, or are not this program's.
    """
    storage = open_storage(run.storage_url, patience=patience, grace_seconds=grace_seconds, on_wait=on_wait)
    costs = run.config.cost_metrics
    directions = [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in costs)]
    candidates = optuna.create_study(storage=storage, study_name=run.name, directions=directions, load_if_exists=True)
    attributes = candidates.user_attrs
    if CONFIG in attributes:
        stored = study_file.parse(attributes[CONFIG], masked(run.storage_url))
        _refuse_difference(_place(run), stored, run.config, _elsewhere(run))
        before = attributes[DATA]
        if before["fingerprint"] != data.fingerprint:
            raise UserError(
                f"{_place(run)}: this run was trained on other data ({before['summary']}, {before['fingerprint']}; now "
                f"{data.summary()}, {data.fingerprint}); pass the data it started with, or {_elsewhere(run)}"
            )
    if candidates.directions != directions:  # another program's, or begun by a process that ended before it stored CONFIG
        raise UserError(
            f"{_place(run)}: study {run.name!r} has other directions ({_names(candidates.directions)}, not "
            f"{_names(directions)}); pass {_elsewhere(run)}"
        )
    if CONFIG not in attributes and candidates.get_trials(deepcopy=False):
        raise UserError(_not_ours(run, run.name))
    if costs and not candidates.metric_names:
        _name_objectives(candidates, (run.config.search.metric, *costs))
    references = _sibling(run, storage, "references")
    candidates.set_user_attr(DATA, data_facts(data))  # first: a process that finds a configuration finds data too
    candidates.set_user_attr(CONFIG, run.config.dump())
    _write_config(run)
    if worker is not None:
        for study in (candidates, references):
            watch(study)
        storage.guards.append(partial(check_folder, run.folder, worker))
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
    """The study NAME.kind of a run, "finals" or "control", created on first use.

    Args:
        studies: those of the run, if they are open: their storage is used.

    Raises:
        UserError: a study of this name is not this program's.
    """
    storage = base_storage_of(studies.candidates) if studies else open_storage(run.storage_url, create=False)
    study = _sibling(run, storage, kind)
    if studies and storage_of(study).watched:
        watch(study)
    return study


def every(run: Run, *, patience: float = 0.0) -> list[optuna.Study]:
    """All studies of a run that exist."""
    storage = open_storage(run.storage_url, create=False, patience=patience)
    existing = set(optuna.get_all_study_names(storage))
    names = [run.name, *(f"{run.name}.{kind}" for kind in KINDS)]
    return [optuna.load_study(storage=storage, study_name=name) for name in names if name in existing]


def _sibling(run: Run, storage: BaseStorage, kind: str) -> optuna.Study:
    name = f"{run.name}.{kind}"
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    begun = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    is_foreign = CONFIG in study.user_attrs
    if is_foreign or study.directions != [StudyDirection.MAXIMIZE] or any(INDEX not in trial.user_attrs for trial in begun):
        raise UserError(_not_ours(run, name))
    return study


def _not_ours(run: Run, name: str) -> str:
    return f"{_place(run)}: study {name!r} there was made by another program or study file; pass {_elsewhere(run)}"


def _place(run: Run) -> str:
    """The location of the studies, for messages: run folder or database URL."""
    return str(run.folder) if _external(run) is None else masked(run.storage_url)


def _elsewhere(run: Run) -> str:
    """Advice for another study of the same name: another folder does not help where a server holds the study."""
    if _external(run) is None:
        return NEW_FOLDER
    return "--storage with another database, or rename the study file"


def _names(directions: Sequence[StudyDirection]) -> str:
    return ", ".join(direction.name.lower() for direction in directions)


# --- reading ---------------------------------------------------------------------------------------------------


def network_of(run: Run, number: int | None = None, studies: Studies | None = None) -> Architecture:
    """The network of a candidate, trained or rejected; without a number that of the best.

    Args:
        studies: those of the run, where they are open: what has been read of them is not read again.

    Raises:
        UserError: there is no such trial, or none has been trained yet.
    """
    studies = studies or load(run)
    trial = candidate_trial(run, number, studies)
    data = studies.candidates.user_attrs[DATA]
    try:
        values = run.config.declared(trial.params)
        network = build(run.config.space, values, tuple(data["input"]), data["classes"])
    except KeyError:
        raise UserError(f"{run.name} {trial.number}: this trial was stopped before its network was proposed") from None
    return replace(network, name=f"{run.name}-{trial.number}")


def candidate_trial(run: Run, number: int | None, studies: Studies) -> FrozenTrial:
    """The trial of a candidate; without a number that of the best.

    Raises:
        UserError: there is no such trial, or none has been trained yet.
    """
    if number is None:
        number = best(run, records(studies.candidates)).number
    trials = studies.candidates.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise UserError(f"{run.name} {number}: no trial of this number; there are {len(trials)}, from 0")
    return trials[number]


def verdict(run: Run, number: int | None) -> str:
    """Outcome of a candidate in one line, and the sampler's reason in another; of the best if no number is given."""
    study = load(run).candidates
    candidates, images = outline(study), images_of(study.user_attrs[DATA], "validation")
    record = best(run, candidates) if number is None else next(record for record in candidates if record.number == number)
    reason = proposal_words(record.proposal)
    why = f"\n{reason}" if reason else ""
    why += f"\nadopted from {record.origin}" if record.origin else ""
    if record.outcome != "trained" or record.best_val_accuracy is None:
        return f"{record.outcome.replace('_', ' ')}{f': {record.reason}' if record.reason else ''}{why}"
    flipped = record.flip_val_accuracy
    apart = "" if flipped is None else f"; {format_percent(flipped, images)} with flip averaging, which is not ranked"
    floats = record.float_val_accuracy
    metric = run.config.search.metric
    kind = "" if metric == ACCURACY else f" {MEASURES[metric].label}"
    accuracy = f"{format_percent(record.best_val_accuracy, images)}{kind}"
    beside = f" ({format_percents(other_measures(record.measures, metric), images)})" if record.measures else ""
    float_text = "" if floats is None else f" in int8, {format_percent(floats, images)} in float,"
    folds_text = ""
    if record.folds:
        values = ", ".join(format_percent(value, images) for value in record.folds)
        folds_text = f" the mean of {len(record.folds)} folds ({values}),"
    return (
        f"trained: best {accuracy}{beside}{float_text} in epoch {record.best_epoch} of {record.epochs_of_one},{folds_text} "
        f"rank {ranked(candidates).index(record) + 1}{apart}{why}"
    )


def best(run: Run, candidates: list[Record]) -> Record:
    """The best trained candidate.

    Raises:
        UserError: none has been trained yet; says what there is.
    """
    if first := ranked(candidates):
        return first[0]
    summary = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts(candidates).items())
    raise UserError(f"{run.name}: no candidate has been trained yet ({summary}); resume with: {run.command}")


def _name_objectives(study: optuna.Study, names: tuple[str, ...]) -> None:
    """Name the objectives for Optuna and its dashboard; the names also identify them here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # still marked so, since 3.2 of 2023
        study.set_metric_names(list(names))


# --- the run folder's own copy of the configuration ------------------------------------------------------------------


def _write_config(run: Run) -> None:
    content = {"name": run.name, "digest": run.config.digest, "storage": _external(run), "config": run.config.dump()}
    write_json(run.folder / "config.json", content)


def _external(run: Run) -> str | None:
    """URL of the database, password hidden; None if the run is stored in its folder."""
    return None if run.storage_url == sqlite_url(run.folder) else masked(run.storage_url)


def _refuse_difference(where: Path | str, stored: StudyConfig, requested: StudyConfig, elsewhere: str = NEW_FOLDER) -> None:
    changed = study_file.differences(stored, requested)
    if changed:
        others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        options = study_file.options_back(stored, requested)
        remedy = f"resume with {options}" if options else "resume with the stored values"
        raise UserError(f"{where}: {changed[0]}{others}; {remedy}, or pass {elsewhere}")


def _called(study: str, out: Path | None, storage: str | None) -> str:
    options = {"--out": out, "--storage": storage and masked(storage)}
    return shlex.join([study, *(str(word) for pair in options.items() if pair[1] for word in pair)])
