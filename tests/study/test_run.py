"""A run's studies: created, loaded, rejected; networks of trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.data.dataset import Dataset
from search.errors import UserError
from search.storage.database import open_storage
from search.storage.queue import begin
from search.storage.urls import sqlite_url
from search.study import run as studies
from search.study.run import Run, Studies, create, load, network_of, verdict
from tests.support.small_studies import TRAINED, begin_trial, digits, make_run, run, study

__all__ = ["digits", "run", "study"]


# --- created, loaded, refused ----------------------------------------------------------------------------------------


def test_a_run_is_two_studies_of_one_storage(run: Run, digits: Dataset) -> None:
    both = create(run, digits)
    assert (both.candidates.study_name, both.references.study_name) == ("tiny", "tiny.references")
    names = optuna.get_all_study_names(open_storage(run.storage_url))
    assert sorted(names) == ["tiny", "tiny.references"]
    both.references.tell(begin_trial(both.references, reference="base"), 0.99)
    both.candidates.tell(begin_trial(both.candidates, index=0), 0.5)
    loaded = load(run)
    assert (loaded.candidates.best_value, loaded.references.best_value) == (0.5, 0.99)
    assert loaded.candidates.direction == optuna.study.StudyDirection.MAXIMIZE


def test_a_created_run_is_found_as_it_was_configured(run: Run, digits: Dataset, tmp_path: Path) -> None:
    create(run, digits)
    path = tmp_path / "tiny.toml"
    path.write_text("not read", encoding="utf-8")
    found = studies.find(str(path), run.folder, None)
    assert found == run
    stored = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert (stored["digest"], stored["storage"], stored["config"]) == (run.config.digest, None, run.config.dump())


def test_keys_that_may_change_do_not_prevent_a_resume(run: Run, digits: Dataset) -> None:
    study = create(run, digits).candidates
    study.tell(begin_trial(study, index=0, **TRAINED), 0.5)
    stop = {"hours": 1.0, "device_hours": 2.0, "accuracy": 0.9, "patience": 5}
    more = make_run(run.folder, search={"trials": 99, "stall_minutes": 1.0, "recycle_after": 3}, stop=stop)
    again = create(more, digits)
    assert len(again.candidates.trials) == 1
    assert load(more).candidates.user_attrs[studies.CONFIG]["search"]["trials"] == 99
    assert json.loads((run.folder / "config.json").read_text(encoding="utf-8"))["config"]["search"]["trials"] == 99


def test_another_configuration_is_rejected_and_nothing_written(run: Run, digits: Dataset) -> None:
    create(run, digits)
    before = (run.folder / "config.json").read_bytes()
    others = {
        r"budget\.params is 2000 here, not 9": {"budget": {"params": 9}},
        r"stop\.trial_minutes is null here, not 2\.0": {"stop": {"trial_minutes": 2.0}},
    }
    for told, changes in others.items():
        with pytest.raises(UserError, match=rf"{told}.*--out"):
            create(make_run(run.folder, **changes), digits)
    assert (run.folder / "config.json").read_bytes() == before
    assert load(run).candidates.user_attrs[studies.CONFIG] == run.config.dump()


def test_other_data_are_rejected(run: Run, digits: Dataset) -> None:
    create(run, digits)
    with pytest.raises(UserError, match=r"other data .*--out") as caught:
        create(run, replace(digits, fingerprint="0" * 16))
    assert digits.fingerprint in str(caught.value)
    assert load(run).candidates.user_attrs[studies.DATA]["fingerprint"] == digits.fingerprint


def test_a_storage_without_the_study_is_reported(run: Run, digits: Dataset) -> None:
    create(run, digits)
    with pytest.raises(UserError, match="holds no study 'else'"):
        load(replace(run, name="else"))


def test_a_run_does_not_leave_its_storage_behind(run: Run, digits: Dataset, tmp_path: Path) -> None:
    """Its trials would be trained again, over the files of those that it has."""
    path = tmp_path / "tiny.toml"
    text = 'base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2000 }\nspace = { pools = 1 }\n'
    path.write_text(text, encoding="utf-8")
    asked = studies.ask(str(path), {}, run.folder, None)
    create(asked, digits)
    elsewhere = f"sqlite:///{tmp_path / 'else.db'}"
    with pytest.raises(UserError, match="storage") as caught:
        studies.ask(str(path), {}, run.folder, elsewhere)
    assert str(run.folder) in str(caught.value)
    assert studies.ask(str(path), {}, run.folder, sqlite_url(run.folder)) == asked


def test_a_run_elsewhere_wants_its_storage_named_again(run: Run, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text('base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2000 }\nspace = {}\n', encoding="utf-8")
    url = f"sqlite:///{tmp_path / 'else.db'}"
    asked = studies.ask(str(path), {}, run.folder, url)
    create(asked, digits)
    assert not (run.folder / "study.db").exists()
    with pytest.raises(UserError, match=r"is stored in .*else\.db; pass the same"):
        studies.ask(str(path), {}, run.folder, None)
    assert studies.ask(str(path), {}, run.folder, url) == asked
    assert studies.find(str(path), run.folder, None).storage_url == url  # to look, it need not be named


def test_a_password_is_not_kept_in_the_run_folder(run: Run) -> None:
    studies._write_config(replace(run, storage_url="postgresql://anna:hunter2@host/db"))
    assert "hunter2" not in (run.folder / "config.json").read_text(encoding="utf-8")


def test_another_study_does_not_continue_in_the_folder_of_one(digits: Dataset, tmp_path: Path) -> None:
    """A copy under another name would begin at trial 0 again, over the files of the first."""
    text = 'base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2000 }\nspace = {}\n'
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    create(studies.ask(str(tmp_path / "one.toml"), {}, tmp_path / "run", None), digits)
    with pytest.raises(UserError, match="one"):
        studies.ask(str(tmp_path / "two.toml"), {}, tmp_path / "run", None)


# --- studies and files of other programs -----------------------------------------------------------------------------


FOREIGN: dict[str, Callable[[optuna.storages.BaseStorage], object]] = {
    "another direction": lambda storage: optuna.create_study(storage=storage, study_name="tiny", direction="minimize"),
    "trials": lambda storage: optuna.create_study(storage=storage, study_name="tiny", direction="maximize").ask(),
    "references": lambda storage: optuna.create_study(
        storage=storage, study_name="tiny.references", direction="maximize"
    ).ask(),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_study_that_another_program_made_is_not_adopted(what: str, run: Run, digits: Dataset) -> None:
    """It was, with its direction: TPE then minimised the accuracy."""
    FOREIGN[what](open_storage(run.storage_url))
    with pytest.raises(UserError, match=r"study 'tiny.*--out with a new folder") as caught:
        create(run, digits)
    assert "\n" not in str(caught.value)
    assert not (run.folder / "config.json").exists()


def test_a_study_is_not_taken_for_anothers_references(run: Run, digits: Dataset) -> None:
    """Of a study that an earlier version let be named so."""
    create(replace(run, name="tiny.references"), digits)
    with pytest.raises(UserError, match=r"study 'tiny\.references' there was made by another program or study file"):
        create(run, digits)


@pytest.mark.parametrize("kind", studies.KINDS)
def test_a_name_that_would_mix_with_another_studys_is_rejected(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}.toml"
    path.write_text('base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2000 }\nspace = {}\n', encoding="utf-8")
    for call in (lambda: studies.ask(str(path), {}, None, None), lambda: studies.find(str(path), None, None)):
        with pytest.raises(UserError, match=rf"a study named NAME\.{kind} would mix with that of 'x'; rename"):
            call()


def test_advice_for_a_study_on_a_server_is_not_another_folder(run: Run, digits: Dataset, tmp_path: Path) -> None:
    elsewhere = replace(run, storage_url=f"sqlite:///{tmp_path / 'server.db'}")
    create(elsewhere, digits)
    other = replace(make_run(tmp_path / "new", budget={"params": 9}), storage_url=elsewhere.storage_url)
    with pytest.raises(UserError, match="--storage with another database, or rename the study file") as caught:
        create(other, digits)
    assert "--out" not in str(caught.value)


@pytest.mark.parametrize("name", ["report.md", "report.html", "best_model.keras", "best_model.py", "trials"])
def test_a_folder_with_a_users_own_files_is_rejected(name: str, tmp_path: Path) -> None:
    """A run would replace them."""
    path = tmp_path / "tiny.toml"
    path.write_text('base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2000 }\nspace = {}\n', encoding="utf-8")
    (folder := tmp_path / "mine").mkdir()
    (folder / "notes.txt").write_text("kept")
    studies.ask(str(path), {}, folder, None)
    (folder / name).write_text("kept")
    with pytest.raises(UserError, match=rf"holds {name} but no run .*pass --out with a new folder"):
        studies.ask(str(path), {}, folder, None)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        studies.ask(str(path), {}, folder, None)


def test_a_relative_database_is_that_of_the_current_folder(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text('base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2000 }\nspace = {}\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    asked = studies.ask(str(path), {}, tmp_path / "run", "sqlite:///mine.db")
    monkeypatch.chdir("/")
    create(asked, digits)
    assert (tmp_path / "mine.db").is_file()
    assert studies.find(str(path), tmp_path / "run", None) == asked


# --- networks of trials ----------------------------------------------------------------------------------------------


def test_a_trials_network_is_that_of_its_parameters(run: Run, study: optuna.Study) -> None:
    trial = begin_trial(study, run.config, index=0, **TRAINED)
    study.tell(trial, 0.5)
    assert network_of(run, 0) == network_of(run)
    assert network_of(run).name == "tiny-0"
    assert network_of(run).input == (8, 8, 1)


def test_the_verdict_on_a_trial_is_its_scores_or_its_reason(run: Run, study: optuna.Study) -> None:
    study.tell(begin_trial(study, run.config, index=0, **TRAINED), 0.5)
    reason = "9,000 parameters, the budget is under 2,000"
    study.tell(begin_trial(study, run.config, index=1, outcome="rejected", reason=reason), state=TrialState.PRUNED)
    assert verdict(run, None) == verdict(run, 0) == "trained: best 50.0% in epoch 1 of 0, rank 1"
    assert verdict(run, 1) == f"rejected: {reason}"


@pytest.mark.parametrize("number", [-1, 1, 99])
def test_a_number_that_is_not_there_is_rejected(number: int, run: Run, study: optuna.Study) -> None:
    study.tell(begin_trial(study, run.config, index=0, **TRAINED), 0.5)
    with pytest.raises(UserError, match=f"{number}: no trial of this number; there are 1"):
        network_of(run, number)


def test_a_trial_that_was_stopped_before_its_proposal_has_no_network(run: Run, study: optuna.Study) -> None:
    study.tell(begin_trial(study), state=TrialState.FAIL)
    with pytest.raises(UserError, match="stopped before its network was proposed"):
        network_of(run, 0)


def test_both_studies_are_passed_by_name() -> None:
    assert list(Studies.__dataclass_fields__) == ["candidates", "references"]


def test_a_trial_queued_by_the_user_has_an_index_of_its_own(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.5})
    study.enqueue_trial({"x": 0.6}, user_attrs={"index": 3, "attempt": 1})
    trial = begin(study, "worker")
    assert trial is not None
    assert (trial.number, trial.user_attrs["index"], trial.user_attrs["attempt"]) == (0, 4, 1)  # not the retry's behind it
