"""Stores notes, figures and exported files of a study where optuna-dashboard reads them.

A finished trial is immutable, so its note is written before it ends; the note, figures and files of the study are replaced
as it progresses. Text that a user adds below `YOURS` in the dashboard is kept.
"""

from __future__ import annotations

import json
import mimetypes
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import optuna
from plotly.graph_objects import Figure

from report.analysis.expectation import expectation_of
from report.dashboard.notes import DRAWN, control_note, finals_note, objective, references_note, study_note
from report.figures import curves as figures
from report.network.drawing import network_svg
from search.files import write, write_text
from search.finals.results import load_results
from search.storage.attributes import Attributes, rewrite
from search.storage.database import storage_of
from search.storage.optuna_internals import base_storage_of, trial_id_of
from search.study.dataset import images_of
from search.study.records import ranked, records
from search.study.run import DATA, Run, Studies, network_of, sibling

YOURS = "*Above this line the note is rewritten after each trial; what you write below it stays.*"
GRAPHS = ("learning-curves", "accuracy-by-params", "accuracy-by-macs", "refusals")  # in display order
ARTIFACTS = "artifacts"  # folder in the run folder with the files that the dashboard offers
EXPORTS = ("best_model*", "report.*", "card.*")
REST = 20  # pause until the next update, in durations of the last one

# Names of the dashboard's attributes; a note is stored as numbered parts and a version that grows with each change.
NOTE, NOTE_VERSION, GRAPH = "dashboard:note_str:", "dashboard:note_ver", "dashboard:plot_data:"
OBJECTIVE_NAMES, ARTIFACT = "dashboard:objective_names", "artifacts:"
TRIAL_ARTIFACT = "dashboard:artifacts:"  # of the study: followed by the id of a trial and of a file


class Redraw:
    """Updates note and figures of a study, using at most a twentieth of the wall-clock time.

    With thousands of trials one update takes some tenths of a second; with short trainings, some updates are skipped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = -1.0

    def __call__(self, run: Run, studies: Studies) -> None:
        if self._clock() >= self._next:
            self.now(run, studies)

    def now(self, run: Run, studies: Studies) -> None:
        """Update at once, as at the end of a study."""
        begun = self._clock()
        candidates, references = records(studies.candidates), records(studies.references)
        data = studies.candidates.user_attrs.get(DATA, {})
        images = images_of(data, "validation")
        drawn = (
            figures.learning_curves(run, candidates, references, images=images),
            figures.accuracy_by_cost(run, candidates, references, "params", images=images),
            figures.accuracy_by_cost(run, candidates, references, "macs", images=images),
            figures.refusals(run, candidates),
        )
        names = set(optuna.get_all_study_names(base_storage_of(studies.candidates)))
        finals = load_results(run) if f"{run.name}.finals" in names else None
        expected = expectation_of(run, studies, candidates, finals)
        note = study_note(run, candidates, references, data, finals, expected)
        value = objective(run.config)
        publish_study(studies.candidates, note, dict(zip(GRAPHS, drawn, strict=True)), value)
        publish_study(studies.references, references_note(run), {}, value)
        for kind, text in (("finals", finals_note(run)), ("control", control_note(run))):
            if f"{run.name}.{kind}" in names:
                publish_study(sibling(run, kind, studies), text, {}, value)
        self._next = self._clock() + REST * (self._clock() - begun)


def publish_trial_note(trial: optuna.Trial, text: str) -> None:
    """Store the note of a trial; the dashboard reads it from attributes of the study."""
    version, parts = (f"dashboard:{trial_id_of(trial)}:{name}" for name in ("note_ver", "note_str:"))
    rewrite(trial.study, (version, parts), lambda before: {version: before.get(version, 0) + 1, f"{parts}0": text})


def publish_study(
    study: optuna.Study, note: str, drawn: Mapping[str, Figure | None], value: str = "best validation accuracy"
) -> None:
    """Replace the study's note and figures; a figure that is None is removed.

    Args:
        value: the dashboard's name for the value of a trial.
    """
    graphs = {f"{GRAPH}{name}:0": figure.to_json() for name, figure in drawn.items() if figure}
    names = [f"{GRAPH}{name}:" for name in drawn]

    def change(before: Attributes) -> Attributes:
        version, text = before.get(NOTE_VERSION, 0), _note(before)
        theirs = text.partition(YOURS)[2] if YOURS in text else text and f"\n\n{text}"
        new = f"{note}\n---\n\n{YOURS}{theirs}"
        parts = {key: value for key, value in before.items() if key.startswith(NOTE)}
        kept = {NOTE_VERSION: version, **parts} if new == text else {NOTE_VERSION: version + 1, f"{NOTE}0": new}
        return kept | graphs | {OBJECTIVE_NAMES: [value]}

    rewrite(study, (NOTE_VERSION, NOTE, OBJECTIVE_NAMES, *names), change)


def publish_files(study: optuna.Study, folder: Path) -> None:
    """Offer the exported files of the run folder for download, replacing those offered before.

    The id of a file depends on its name alone, so that a rewritten file keeps its address; files that users uploaded in the
    dashboard are never changed.
    """
    if not storage_of(study).is_writable:
        return
    files = {path.name: path for pattern in EXPORTS for path in sorted(folder.glob(pattern)) if path.is_file()}
    for name, path in files.items():
        _copy(path, folder / ARTIFACTS / _id(name))

    def change(before: Attributes) -> Attributes:
        offered = {key: json.loads(value) for key, value in before.items()}  # None marks a file that a user has deleted
        theirs = {key: before[key] for key, meta in offered.items() if meta and meta["artifact_id"] != _id(meta["filename"])}
        return theirs | {f"{ARTIFACT}{_id(name)}": json.dumps(_meta(name)) for name in files}

    rewrite(study, (ARTIFACT,), change)


def _note(attributes: Attributes) -> str:
    parts = {int(key.removeprefix(NOTE)): text for key, text in attributes.items() if key.startswith(NOTE)}
    return "".join(parts[place] for place in sorted(parts))


def drawing_name(number: int) -> str:
    """File name of the drawing of a trial's network."""
    return f"trial-{number}.svg"


def drawing_key(trial_id: int, number: int) -> str:
    """Attribute of the study that offers the drawing of a trial; a finished trial cannot have new attributes of its own."""
    return f"{TRIAL_ARTIFACT}{trial_id}:{_id(drawing_name(number))}"


def publish_drawings(run: Run, studies: Studies) -> None:
    """Offer the drawings of the best candidates as files of their trials, replacing those offered before."""
    study = studies.candidates
    if not storage_of(study).is_writable:
        return
    trials = study.get_trials(deepcopy=False)
    offered = dict[str, str]()
    for record in ranked(records(study))[:DRAWN]:
        name = drawing_name(record.number)
        write_text(run.folder / ARTIFACTS / _id(name), network_svg(network_of(run, record.number, studies)))
        offered[drawing_key(trial_id_of(trials[record.number]), record.number)] = json.dumps(_meta(name))
    rewrite(study, (TRIAL_ARTIFACT,), lambda before: offered)


def refresh(run: Run, studies: Studies) -> None:
    """Bring everything that the dashboard shows of a study up to date: note, figures, files and drawings.

    Finals or an update of this program may have changed what a study of a finished run has to say.
    """
    if not storage_of(studies.candidates).is_writable:
        return
    Redraw().now(run, studies)
    publish_files(studies.candidates, run.folder)
    publish_drawings(run, studies)


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _meta(name: str) -> dict[str, str | None]:
    kind, encoding = mimetypes.guess_type(name)
    meta = optuna.artifacts.ArtifactMeta(_id(name), name, kind or "application/octet-stream", encoding)
    return asdict(meta)


def _copy(path: Path, to: Path) -> None:
    if not (to.is_file() and to.read_bytes() == path.read_bytes()):
        with path.open("rb") as source:
            write(to, lambda stream: shutil.copyfileobj(source, stream))
