"""report.dashboard.publish and report.dashboard.patches: what is put on the dashboard, read back as the dashboard does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta, upload_artifact
from optuna_dashboard import _custom_plot_data as dashboard_graphs
from optuna_dashboard import _note as dashboard_notes
from optuna_dashboard import get_note, save_note
from optuna_dashboard._serializer import serialize_study_detail
from optuna_dashboard.artifact._backend import list_trial_artifacts
from plotly.graph_objects import Figure

from report.dashboard import patches as dashboard_patches
from report.dashboard.publish import (
    ARTIFACTS,
    GRAPHS,
    REST,
    YOURS,
    Redraw,
    publish_files,
    publish_study,
    publish_trial_note,
    refresh,
)
from search.storage.database import open_storage
from search.storage.urls import sqlite_url
from search.study import records as study_records
from search.study.run import Run, Studies, sibling
from tests.finals.test_results import BESTS, TESTS, Kept
from tests.support.runs import Bench, bench, pretence, small_run

__all__ = ["bench", "pretence"]


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(sqlite_url(tmp_path)), study_name="s", direction="maximize")


def kept(study: optuna.Study) -> dict[str, Any]:
    return dict(study._storage.get_study_system_attrs(study._study_id))


def graphs(study: optuna.Study) -> dict[str, Any]:
    found = dashboard_graphs.get_plotly_graph_objects(kept(study))
    return {name: json.loads(text) for name, text in found.items()}


# --- notes and figures -----------------------------------------------------------------------------------------------


def test_note_and_figures_are_replaced_and_the_users_own_words_stay(study: optuna.Study) -> None:
    long = Figure(data=[{"type": "scatter", "y": list(range(3_000))}])
    publish_study(study, "first " * 1_000, {"one": long, "two": long})
    assert len(graphs(study)["one"]["data"][0]["y"]) == 3_000
    save_note(study, get_note(study) + "\n\nmine")  # by the dashboard, which cuts it into parts
    publish_study(study, "second", {"one": Figure(data=[{"type": "scatter", "y": [1]}]), "two": None})
    assert get_note(study) == f"second\n---\n\n{YOURS}\n\nmine"
    assert {name: graph["data"][0]["y"] for name, graph in graphs(study).items()} == {"one": [1]}
    save_note(study, "all mine")
    publish_study(study, "third", {})
    assert get_note(study) == f"third\n---\n\n{YOURS}\n\nall mine"
    assert list(graphs(study)) == ["one"], "what is not named is left alone"


def test_a_note_that_has_not_changed_keeps_its_version(study: optuna.Study) -> None:
    """Or a person who edits it meanwhile would be refused."""
    publish_study(study, "first", {})
    save_note(study, get_note(study) + "\n\nmine " * 1_000)
    before = kept(study)
    publish_study(study, "first", {})
    assert kept(study) == before
    publish_study(study, "second", {})
    assert kept(study)["dashboard:note_ver"] == before["dashboard:note_ver"] + 1


def test_the_value_has_a_name_in_the_plots(study: optuna.Study) -> None:
    publish_study(study, "note", {})
    assert optuna_dashboard_names(study) == ["best validation accuracy"]


def optuna_dashboard_names(study: optuna.Study) -> list[str]:
    from optuna_dashboard._named_objectives import get_objective_names

    return list(get_objective_names(kept(study)))


def test_each_trial_has_its_own_note(study: optuna.Study) -> None:
    trials = [study.ask(), study.ask()]
    for trial in trials:
        publish_trial_note(trial, f"note of {trial.number} " * 500)
    assert [get_note(trial) for trial in trials] == [f"note of {number} " * 500 for number in (0, 1)]
    publish_trial_note(trials[0], "short")
    assert [get_note(trial)[:9] for trial in trials] == ["short", "note of 1"]


# --- redrawing -------------------------------------------------------------------------------------------------------


def test_a_redrawing_puts_up_the_note_and_all_graphs(bench: Bench) -> None:
    bench.plays[:] = [0.6, 0.7]
    found = [bench.one_trial(), bench.one_trial()]
    Redraw()(bench.run, bench.studies)
    note = get_note(bench.study)
    assert note.startswith("# tiny: ahead of the base in one training, not confirmed\n\n")
    assert f"Trial {found[1].number}, the best of 2 trained candidates, reaches 70.0%" in note
    assert "On fresh seeds" not in note
    refused = any(trial.user_attrs.get("refused") for trial in found)
    assert set(graphs(bench.study)) == set(GRAPHS if refused else GRAPHS[:3])
    assert "study tiny compares its candidates with" in get_note(bench.studies.references)


class Real(Kept):
    """Finals written down by hand in the storage of a run."""

    def __init__(self, run: Run) -> None:
        self.run, self.study, self.held = run, sibling(run, "finals"), []


def test_a_refresh_brings_note_figures_files_and_drawings_up_to_date(bench: Bench) -> None:
    """Files of an earlier version, or of a run before its finals, are replaced; the best trials have drawings as files."""
    bench.plays[:] = [0.6, 0.7]
    trials = [bench.one_trial(), bench.one_trial()]
    (bench.run.folder / "card.png").write_bytes(b"picture")
    publish_study(bench.study, "the base is beaten", {"learning-curves": Figure()})
    refresh(bench.run, bench.studies)
    note = get_note(bench.study)
    assert "the base is beaten" not in note and "trial 1" in note.lower()
    assert set(GRAPHS[:3]) <= set(graphs(bench.study))
    assert [meta.filename for meta in get_all_artifact_meta(bench.study)] == ["card.png"]
    for trial in trials:
        (meta,) = dashboard_patches.trial_artifacts(kept(bench.study), {}, trial)
        assert (meta["filename"], meta["mimetype"]) == (f"trial-{trial.number}.svg", "image/svg+xml")
        assert (bench.run.folder / ARTIFACTS / meta["artifact_id"]).read_text().startswith("<svg")


def test_finals_are_in_the_note(bench: Bench) -> None:
    finals = Real(bench.run)
    finals.train(BESTS)
    finals.hold(list(BESTS), 3, test_read="2030-01-01T00:00:00+00:00", test=TESTS)
    Redraw()(bench.run, bench.studies)
    assert "## On fresh seeds\n\nTrial-3 leads with a mean test accuracy of 95.00%" in get_note(bench.study)
    assert get_note(finals.study).startswith("# tiny.finals: the best candidates and the base on fresh seeds")


class Clock:
    """Goes on by so many seconds each time it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_redrawing_takes_a_twentieth_of_the_time_at_most(bench: Bench) -> None:
    def drawn() -> int:
        return int(kept(bench.study).get("dashboard:note_ver", 0))

    clock = Clock(0.0)
    redraw = Redraw(clock)
    clock.step = 0.5  # what a redrawing takes, from here on
    versions = []
    for play in (0.5, 0.6, 0.7, 0.8):
        bench.plays[:] = [play]
        bench.one_trial()
        redraw(bench.run, bench.studies)
        versions.append(drawn())
        clock.now += 4 if play < 0.7 else REST * 0.5
    assert versions == [1, 1, 1, 2]
    bench.plays[:] = [0.9]
    bench.one_trial()
    redraw.now(bench.run, bench.studies)
    assert drawn() == 3 and "90.0%" in get_note(bench.study), "the end is shown in any case"


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "run"
    found.mkdir()
    (found / "best_model.py").write_text("one")
    (found / "best_model.keras").write_bytes(b"\x00" * 1_000)
    (found / "report.md").write_text("report")
    (found / ".best_model.part7.py").write_text("being written")
    (found / "study.db").write_text("not to be offered")
    return found


def offered(study: optuna.Study, folder: Path) -> dict[str, bytes]:
    """Downloadable files, by name."""
    found, store = {}, FileSystemArtifactStore(folder / ARTIFACTS)
    for meta in get_all_artifact_meta(study):
        download_artifact(artifact_store=store, artifact_id=meta.artifact_id, file_path=str(to := folder / "downloaded"))
        assert meta.filename not in found
        found[meta.filename] = to.read_bytes()
        to.unlink()
    return found


def test_exported_files_are_offered(study: optuna.Study, folder: Path) -> None:
    publish_files(study, folder)
    assert offered(study, folder) == {"best_model.py": b"one", "best_model.keras": b"\x00" * 1_000, "report.md": b"report"}
    kinds = {meta.filename: meta.mimetype for meta in get_all_artifact_meta(study)}
    assert kinds["best_model.keras"] == "application/octet-stream" and kinds["report.md"] == "text/markdown"


def test_the_picture_of_the_result_is_offered_as_a_picture(study: optuna.Study, folder: Path) -> None:
    for name in ("card.svg", "card.png"):
        (folder / name).write_bytes(b"picture")
    publish_files(study, folder)
    kinds = {meta.filename: meta.mimetype for meta in get_all_artifact_meta(study)}
    assert (kinds["card.svg"], kinds["card.png"]) == ("image/svg+xml", "image/png")


def test_files_exported_again_replace_the_earlier_ones(study: optuna.Study, folder: Path) -> None:
    publish_files(study, folder)
    ids = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}
    for text in ("two", "three"):
        (folder / "best_model.py").write_text(text)
        (folder / "report.html").write_text(f"<p>{text}</p>")
        (folder / "best_model.keras").unlink(missing_ok=True)
        publish_files(study, folder)
    assert offered(study, folder) == {"best_model.py": b"three", "report.md": b"report", "report.html": b"<p>three</p>"}
    assert {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}["report.md"] == ids["report.md"]
    assert len([key for key in kept(study) if key.startswith("artifacts:")]) == 3


def test_files_of_the_user_are_left_alone(study: optuna.Study, folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "best_model.py"
    theirs.write_text("theirs, of the same name")
    (folder / ARTIFACTS).mkdir()
    store = FileSystemArtifactStore(folder / ARTIFACTS)
    number = upload_artifact(artifact_store=store, file_path=str(theirs), study_or_trial=study)
    publish_files(study, folder)
    publish_files(study, folder)
    found = {meta.artifact_id: meta.filename for meta in get_all_artifact_meta(study)}
    assert len(found) == 4 and found[number] == "best_model.py"
    with store.open_reader(number) as stream:
        assert stream.read() == theirs.read_bytes()


def test_a_file_that_was_deleted_in_the_dashboard_is_offered_again(study: optuna.Study, folder: Path) -> None:
    publish_files(study, folder)
    gone = next(meta.artifact_id for meta in get_all_artifact_meta(study) if meta.filename == "report.md")
    study._storage.set_study_system_attr(study._study_id, f"artifacts:{gone}", json.dumps(None))  # as the dashboard does
    (folder / ARTIFACTS / gone).unlink()
    publish_files(study, folder)
    assert offered(study, folder)["report.md"] == b"report"


# --- the dashboard's own look-ups ------------------------------------------------------------------------------------


def detail(study: optuna.Study) -> dict[str, Any]:
    """A study as the dashboard's pages are given it."""
    trials, attributes = study.get_trials(deepcopy=False), kept(study)
    frozen = next(one for one in study._storage.get_all_studies() if one.study_name == study.study_name)
    plots = dashboard_graphs.get_plotly_graph_objects(attributes)
    return serialize_study_detail(frozen, trials[:1], trials, [], [], [], False, plots, [])


def test_the_patches_are_of_functions_that_are_there() -> None:
    """And each is the one that the serving code calls."""
    import optuna_dashboard._serializer as serializer

    assert serializer.list_trial_artifacts is list_trial_artifacts
    assert serializer.note is dashboard_notes
    for module, name, _ in dashboard_patches.PATCHES:
        assert callable(getattr(__import__(f"optuna_dashboard.{module}", fromlist=[name]), name))


def test_lookups_agree_with_the_dashboard(study: optuna.Study, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = FileSystemArtifactStore(tmp_path)
    (tmp_path / "file").write_text("file")
    for number in range(12):
        trial = study.ask()
        if number % 3:
            publish_trial_note(trial, f"note of {number}")
        if number % 4 == 1:
            save_note(trial, "in parts " * 900)
            save_note(trial, f"shorter than before {number}")  # leaves empty parts
        if number % 5 == 0:
            upload_artifact(artifact_store=store, file_path=str(tmp_path / "file"), study_or_trial=trial)
        study.tell(trial, number / 12)
    publish_study(study, "note", dict.fromkeys(GRAPHS, Figure()))
    plain = detail(study)
    request.getfixturevalue("patched")
    quick = detail(study)
    order = [graph.pop("id") for graph in quick["plotly_graph_objects"]]
    assert order == list(GRAPHS)
    assert sorted(graph.pop("id") for graph in plain["plotly_graph_objects"]) == sorted(order)
    assert quick == plain
    assert quick["trials"][1]["note"]["body"] == "shorter than before 1"
    assert len(quick["trials"][5]["artifacts"]) == 1


def test_graphs_stand_in_our_order_and_the_users_behind_them() -> None:
    attributes = {f"dashboard:plot_data:{name}:0": "{}" for name in ("zoo", *reversed(GRAPHS), "a:b")} | {"other": 1}
    assert dashboard_patches.graph_names(attributes) == [*GRAPHS, "a:b", "zoo"]


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_study_that_has_only_begun_can_be_drawn(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    storage = open_storage(run.storage_url)
    names = (run.name, f"{run.name}.references")
    begun = Studies(*(optuna.create_study(storage=storage, study_name=name, direction="maximize") for name in names))
    Redraw()(run, begun)
    assert "no candidate has been trained yet" in get_note(begun.candidates)
    assert study_records.records(begun.candidates) == []
