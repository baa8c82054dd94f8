"""The two Optuna studies of a run, on real SQLite storage: counted, ranked, gone on with, and taken up after every fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.data.dataset import Dataset, load_dataset
from search.errors import UserError
from search.storage.database import open_storage
from search.storage.queue import begin, next_index
from search.storage.recovery import requeue
from search.storage.urls import sqlite_url
from search.study import run as studies
from search.study.config import StudyConfig
from search.study.records import FAILED, Record, base_accuracy, counts, progress, ranked, records, refusals
from search.study.run import Run, Studies, best, create, load, network_of, verdict
from search.study.study_file import parse
from space import parameters
from tests import fault_table

STUDY: dict[str, Any] = {
    "base": 0.5,
    "data": {"name": "digits"},
    "budget": {"params": 2000},
    "space": {"blocks": {"low": 1, "high": 3}, "width": {"low": 8, "high": 48, "step": 8}, "pools": 1},
    "recipe": {"epochs": 2, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}},
}
TRAINED = {"outcome": "trained", "best_val_accuracy": 0.5, "best_epoch": 1, "final_val_accuracy": 0.4, "params": 300}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path / "run")


def make(folder: Path, **changes: Any) -> Run:
    return Run("tiny", folder, parse(STUDY | changes, "test"), sqlite_url(folder))


@pytest.fixture
def study(run: Run, digits: Dataset) -> optuna.Study:
    return create(run, digits).candidates


def start(study: optuna.Study, config: StudyConfig | None = None, **attributes: Any) -> optuna.Trial:
    """A trial that runs, with all its parameters where a configuration is given."""
    trial = study.ask()
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    if config:
        for name, domain in parameters(config.space).items():
            domain.suggest(trial, name)
        config.recipe.domains["learning_rate"].suggest(trial, "recipe.learning_rate")
    return trial


def queued(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING,))


def record(number: int, **facts: Any) -> Record:
    known: Mapping[str, Any] = dict.fromkeys(Record.__dataclass_fields__) | {"outcome": "trained", "epochs": 2, "curve": ()}
    return Record(**known | {"number": number, "refused": {}, "refused_params": ()} | facts)


# --- taken up after a fault ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [1, 2, 7])
def test_an_interrupted_trial_is_always_queued_again_as_the_same_attempt(
    attempt: int, run: Run, study: optuna.Study
) -> None:
    lost = start(study, run.config, index=5, attempt=attempt, params=300)
    assert requeue(study) == [lost.number]
    (again,) = queued(study)
    assert again.user_attrs == {"index": 5, "attempt": attempt, "retry_of": lost.number}
    old = study.trials[lost.number]
    assert (old.state, old.value) == (TrialState.FAIL, None)
    assert (old.user_attrs["outcome"], old.user_attrs["reason"]) == ("interrupted", "the run was stopped")


def test_a_failed_trial_gets_two_attempts(run: Run, study: optuna.Study) -> None:
    outcomes = []
    for expected in (2, None):
        lost = start(study)
        if lost.number == 0:
            lost.set_user_attr("index", 0)
            lost.set_user_attr("attempt", 1)
        assert requeue(study, outcome="failed", reason="the worker was killed by SIGKILL") == [lost.number]
        assert [trial.user_attrs["attempt"] for trial in queued(study)] == ([expected] if expected else [])
        outcomes.append(study.trials[lost.number].user_attrs["outcome"])
        assert study.trials[lost.number].user_attrs["reason"] == "the worker was killed by SIGKILL"
    assert outcomes == ["interrupted", "failed"]
    assert counts(records(study)) == {"trained": 0, "pruned_at_rung": 0, "rejected": 0, "failed": 1}


def test_an_interruption_between_does_not_use_up_an_attempt(study: optuna.Study) -> None:
    start(study, index=0, attempt=1)
    for outcome, attempt in (("failed", 2), ("interrupted", 2), ("interrupted", 2)):
        requeue(study, outcome=outcome)
        assert [trial.user_attrs["attempt"] for trial in queued(study)] == [attempt]
        start(study)
    requeue(study, outcome="failed")
    assert queued(study) == []


def test_a_trial_that_timed_out_is_not_tried_again(run: Run, study: optuna.Study) -> None:
    lost = start(study, run.config, index=0, attempt=1, params=300)
    assert requeue(study, outcome="timed_out", reason="no sign of life") == [lost.number]
    assert queued(study) == []
    assert records(study)[0].outcome == "timed_out"
    assert counts(records(study))["failed"] == 1


def test_parameters_that_are_all_there_are_tried_again_as_they_are(run: Run, study: optuna.Study) -> None:
    lost = start(study, run.config, index=0, attempt=1, params=300)
    drawn = study.trials[lost.number].params
    requeue(study)
    study.sampler = optuna.samplers.RandomSampler(seed=99)
    again = start(study, run.config)
    assert again.params == drawn
    assert len(drawn) == 6


def test_parameters_that_are_half_there_are_drawn_anew_from_the_same_seed(run: Run, study: optuna.Study) -> None:
    study.sampler = optuna.samplers.RandomSampler(seed=3)
    lost = start(study, index=0, attempt=1)
    for name, domain in list(parameters(run.config.space).items())[:2]:
        domain.suggest(lost, name)
    requeue(study)
    study.sampler = optuna.samplers.RandomSampler(seed=3)
    again = start(study, run.config)
    assert len(again.params) == 6
    assert again.params.items() >= study.trials[lost.number].params.items()


def test_a_trial_killed_before_it_knew_its_index_is_queued_with_the_next(study: optuna.Study) -> None:
    study.tell(start(study, index=0, outcome="trained"), 0.5)
    lost = start(study)
    assert requeue(study) == [lost.number]
    assert [trial.user_attrs for trial in queued(study)] == [{"index": 1, "attempt": 1, "retry_of": 1}]
    assert next_index(study.trials) == 2


@pytest.mark.parametrize("step", ["search.storage.queue._insert", "search.storage.recovery.write_attributes"])
def test_a_crash_while_a_trial_is_taken_up_changes_nothing(
    step: str, study: optuna.Study, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead before the retry is queued; and when it is, but the lost one is not closed."""
    lost = start(study, run.config, index=0, attempt=1, params=300)
    before = study.get_trials()
    with monkeypatch.context() as patch:
        patch.setattr(step, _die)
        with pytest.raises(KeyboardInterrupt):
            requeue(study)
    assert study.get_trials() == before
    assert requeue(study) == [lost.number]
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert requeue(study) == []


def _die(*words: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_row_3_what_was_trained_but_not_told_is_told_and_not_trained_again(run: Run, study: optuna.Study) -> None:
    """A kill between a trial's last attribute and its result."""
    lost = start(study, run.config, index=0, attempt=1, key="k", **TRAINED)
    requeue(study)
    assert queued(study) == []
    assert (study.trials[lost.number].state, study.trials[lost.number].value) == (TrialState.COMPLETE, 0.5)
    assert counts(records(study))["trained"] == 1
    fault_table.record({3: 1}, fault_table.results(study.trials, asked=1))


@pytest.mark.parametrize("outcome", ["pruned_at_rung", "rejected", "diverged", "timed_out"])
def test_row_3_a_verdict_that_was_not_told_is_told(outcome: str, run: Run, study: optuna.Study) -> None:
    lost = start(study, run.config, index=0, attempt=1, params=300, outcome=outcome, reason="a reason")
    requeue(study)
    assert queued(study) == []
    told = study.trials[lost.number]
    assert (told.state, told.user_attrs["outcome"], told.user_attrs["reason"]) == (TrialState.PRUNED, outcome, "a reason")
    fault_table.record({3: 1}, fault_table.results(study.trials))


def test_finished_trials_are_left_as_they_are(study: optuna.Study) -> None:
    study.tell(start(study, index=0, outcome="trained"), 0.5)
    study.tell(start(study, index=1, outcome="rejected"), state=TrialState.PRUNED)
    study.tell(start(study, index=2, outcome="failed"), state=TrialState.FAIL)
    before = study.get_trials()
    assert requeue(study) == []
    assert study.get_trials() == before


def test_several_lost_trials_are_each_queued_once_with_their_own_index(study: optuna.Study) -> None:
    lost = [start(study, index=index, attempt=1).number for index in (4, 2, 3)]
    assert requeue(study) == lost
    assert requeue(study) == []
    assert [trial.user_attrs["index"] for trial in queued(study)] == [4, 2, 3]


def test_a_lost_reference_keeps_its_name(run: Run, digits: Dataset) -> None:
    study = create(run, digits).references
    start(study, index=0, attempt=1, reference="eip-b")
    requeue(study)
    assert queued(study)[0].user_attrs["reference"] == "eip-b"


def test_a_lost_candidate_keeps_what_was_known_of_it_before_it_was_trained(run: Run, study: optuna.Study) -> None:
    known = {"warm_start": "eip-b", "refused": {"over budget": 3}, "refused_params": [5000]}
    start(study, run.config, index=0, attempt=1, params=300, seed=7, key="k", **known)
    requeue(study)
    (again,) = queued(study)
    assert again.user_attrs == known | {"index": 0, "attempt": 1, "retry_of": 0}


# --- the logical index -----------------------------------------------------------------------------------------------


def test_the_first_index_is_0(study: optuna.Study) -> None:
    assert next_index(study.trials) == 0


def test_the_next_index_follows_the_highest_and_not_the_number(study: optuna.Study) -> None:
    study.tell(start(study, index=0), 0.5)
    study.tell(start(study, index=7), state=TrialState.PRUNED)
    study.tell(start(study), state=TrialState.FAIL)
    assert next_index(study.trials) == 8


def test_a_trial_begun_has_the_index_of_what_is_queued_first_and_then_a_new_one(study: optuna.Study) -> None:
    for index in (3, 1):
        study.enqueue_trial({}, user_attrs={"index": index, "attempt": 1})
    begun = []
    for _ in range(3):
        trial = begin(study, "worker")
        assert trial is not None
        begun.append(trial.user_attrs["index"])
        study.tell(trial, state=TrialState.FAIL)
    assert begun == [3, 1, 4]


# --- records, counts, ranks ------------------------------------------------------------------------------------------


def test_a_record_holds_what_its_trial_carries(study: optuna.Study) -> None:
    told = {"refused": {"over budget": 3}, "refused_params": [5000, 7000], "warm_start": "eip-b"}
    trial = start(study, index=0, seconds=3.5, macs=9, **TRAINED, **told)
    for step, value in ((2, 0.4), (1, 0.5)):
        trial.report(value, step)
    assert records(study)[0].outcome == "running"
    study.tell(trial, 0.5)
    known = Record(0, None, "trained", None, 300, 9, 0.5, 1, 0.4, epochs=2, seconds=3.5, curve=(0.5, 0.4),
                   refused={"over budget": 3}, refused_params=(5000, 7000), warm_start="eip-b",
                   costs={"params": 300, "macs": 9})  # fmt: skip
    assert records(study) == [known]


def test_what_is_only_queued_has_no_record(study: optuna.Study) -> None:
    study.enqueue_trial({}, user_attrs={"index": 0})
    assert records(study) == []


def test_a_trial_that_ended_without_a_word_has_failed(study: optuna.Study) -> None:
    study.tell(start(study), state=TrialState.FAIL)
    assert [one.outcome for one in records(study)] == ["failed"]


def test_each_outcome_is_counted_where_it_belongs() -> None:
    outcomes = ["trained", "trained", "pruned_at_rung", "rejected", "running", "interrupted", *FAILED]
    found = [record(number, outcome=outcome) for number, outcome in enumerate(outcomes)]
    assert counts(found) == {"trained": 2, "pruned_at_rung": 1, "rejected": 1, "failed": len(FAILED)}
    assert list(counts([])) == ["trained", "pruned_at_rung", "rejected", "failed"]


def test_what_the_sampler_refused_is_counted_once_though_its_trial_was_interrupted() -> None:
    """The sampler's refusals are no trials of their own, and a retry has those of the trial that it stands for."""
    told = {"over budget": 2, "same network": 1}
    found = [record(0, outcome="interrupted", refused=told), record(1, refused=told), record(2, refused={"over budget": 4})]
    found.append(record(3, outcome="rejected"))
    assert refusals(found) == {"over budget": 6, "same network": 1}
    assert counts(found) == {"trained": 2, "pruned_at_rung": 0, "rejected": 8, "failed": 0}


def test_a_trial_pruned_at_a_rung_counts_towards_the_number_of_trials() -> None:
    outcomes = ["trained", "pruned_at_rung", "pruned_at_rung", "rejected", "running", "interrupted", *FAILED]
    found = [record(number, outcome=outcome) for number, outcome in enumerate(outcomes)]
    assert progress(found) == 3


def test_the_best_come_first_then_the_smaller_then_the_earlier() -> None:
    found = [
        record(0, best_val_accuracy=0.5, params=100),
        record(1, best_val_accuracy=0.9, params=300),
        record(2, best_val_accuracy=0.9, params=200),
        record(3, best_val_accuracy=0.9, params=200),
        record(4, best_val_accuracy=None, params=1, outcome="rejected"),
        record(5, best_val_accuracy=0.99, params=1, outcome="diverged"),
        record(7, best_val_accuracy=0.99, params=1, outcome="pruned_at_rung"),
        record(6, best_val_accuracy=0.99, params=1, outcome="running"),
    ]
    assert [one.number for one in ranked(found)] == [2, 3, 1, 0]
    assert [one.number for one in ranked(found[::-1])] == [2, 3, 1, 0]


def test_without_a_trained_one_there_is_no_best(run: Run) -> None:
    with pytest.raises(UserError, match=r"no candidate has been trained yet \(0 trained, .*1 rejected") as caught:
        best(run, [record(0, outcome="rejected")])
    assert "python -m search run" in str(caught.value)


def test_the_base_is_a_plain_accuracy_or_a_reference_that_was_trained() -> None:
    plain = parse(STUDY, "test")
    named = parse(STUDY | {"base": "studies/own/my net.json"}, "test")
    trained = [record(0, reference="other", best_val_accuracy=0.9), record(1, reference="my_net", best_val_accuracy=0.8)]
    assert (plain.base_name, base_accuracy(plain, [])) == (None, 0.5)
    assert (named.base_name, base_accuracy(named, trained)) == ("my_net", 0.8)
    assert base_accuracy(named, trained[:1]) is None


# --- created, loaded, refused ----------------------------------------------------------------------------------------


def test_a_run_is_two_studies_of_one_storage(run: Run, digits: Dataset) -> None:
    both = create(run, digits)
    assert (both.candidates.study_name, both.references.study_name) == ("tiny", "tiny.references")
    names = optuna.get_all_study_names(open_storage(run.storage_url))
    assert sorted(names) == ["tiny", "tiny.references"]
    both.references.tell(start(both.references, reference="base"), 0.99)
    both.candidates.tell(start(both.candidates, index=0), 0.5)
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


def test_what_may_change_goes_on(run: Run, digits: Dataset) -> None:
    study = create(run, digits).candidates
    study.tell(start(study, index=0, **TRAINED), 0.5)
    stop = {"hours": 1.0, "device_hours": 2.0, "accuracy": 0.9, "patience": 5}
    more = make(run.folder, search={"trials": 99, "stall_minutes": 1.0, "recycle_after": 3}, stop=stop)
    again = create(more, digits)
    assert len(again.candidates.trials) == 1
    assert load(more).candidates.user_attrs[studies.CONFIG]["search"]["trials"] == 99
    assert json.loads((run.folder / "config.json").read_text(encoding="utf-8"))["config"]["search"]["trials"] == 99


def test_another_configuration_is_refused_and_nothing_written(run: Run, digits: Dataset) -> None:
    create(run, digits)
    before = (run.folder / "config.json").read_bytes()
    others = {
        r"budget\.params is 2000 here, not 9": {"budget": {"params": 9}},
        r"stop\.trial_minutes is null here, not 2\.0": {"stop": {"trial_minutes": 2.0}},
    }
    for told, changes in others.items():
        with pytest.raises(UserError, match=rf"{told}.*--out"):
            create(make(run.folder, **changes), digits)
    assert (run.folder / "config.json").read_bytes() == before
    assert load(run).candidates.user_attrs[studies.CONFIG] == run.config.dump()


def test_other_data_are_refused(run: Run, digits: Dataset) -> None:
    create(run, digits)
    with pytest.raises(UserError, match=r"other data .*--out") as caught:
        create(run, replace(digits, fingerprint="0" * 16))
    assert digits.fingerprint in str(caught.value)
    assert load(run).candidates.user_attrs[studies.DATA]["fingerprint"] == digits.fingerprint


def test_a_storage_without_the_study_is_told(run: Run, digits: Dataset) -> None:
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


def test_another_study_does_not_go_on_in_the_folder_of_one(digits: Dataset, tmp_path: Path) -> None:
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
def test_a_name_that_would_mix_with_another_studys_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}.toml"
    path.write_text('base = 0.5\ndata = { name = "digits" }\nbudget = { params = 2000 }\nspace = {}\n', encoding="utf-8")
    for call in (lambda: studies.ask(str(path), {}, None, None), lambda: studies.find(str(path), None, None)):
        with pytest.raises(UserError, match=rf"a study named NAME\.{kind} would mix with that of 'x'; rename"):
            call()


def test_advice_for_a_study_on_a_server_is_not_another_folder(run: Run, digits: Dataset, tmp_path: Path) -> None:
    elsewhere = replace(run, storage_url=f"sqlite:///{tmp_path / 'server.db'}")
    create(elsewhere, digits)
    other = replace(make(tmp_path / "new", budget={"params": 9}), storage_url=elsewhere.storage_url)
    with pytest.raises(UserError, match="--storage with another database, or rename the study file") as caught:
        create(other, digits)
    assert "--out" not in str(caught.value)


@pytest.mark.parametrize("name", ["report.md", "report.html", "best_model.keras", "best_model.py", "trials"])
def test_a_folder_with_a_users_own_files_is_refused(name: str, tmp_path: Path) -> None:
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
    trial = start(study, run.config, index=0, **TRAINED)
    study.tell(trial, 0.5)
    assert network_of(run, 0) == network_of(run)
    assert network_of(run).name == "tiny-0"
    assert network_of(run).input == (8, 8, 1)


def test_the_verdict_on_a_trial_is_its_scores_or_its_reason(run: Run, study: optuna.Study) -> None:
    study.tell(start(study, run.config, index=0, **TRAINED), 0.5)
    reason = "9,000 parameters, the budget is under 2,000"
    study.tell(start(study, run.config, index=1, outcome="rejected", reason=reason), state=TrialState.PRUNED)
    assert verdict(run, None) == verdict(run, 0) == "trained: best 50.00% in epoch 1 of 0, rank 1"
    assert verdict(run, 1) == f"rejected: {reason}"


@pytest.mark.parametrize("number", [-1, 1, 99])
def test_a_number_that_is_not_there_is_refused(number: int, run: Run, study: optuna.Study) -> None:
    study.tell(start(study, run.config, index=0, **TRAINED), 0.5)
    with pytest.raises(UserError, match=f"{number}: no trial of this number; there are 1"):
        network_of(run, number)


def test_a_trial_that_was_stopped_before_its_proposal_has_no_network(run: Run, study: optuna.Study) -> None:
    study.tell(start(study), state=TrialState.FAIL)
    with pytest.raises(UserError, match="stopped before its network was proposed"):
        network_of(run, 0)


def test_both_studies_are_passed_by_name() -> None:
    assert list(Studies.__dataclass_fields__) == ["candidates", "references"]


def test_a_trial_that_a_person_queued_has_an_index_of_its_own(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.5})
    study.enqueue_trial({"x": 0.6}, user_attrs={"index": 3, "attempt": 1})
    trial = begin(study, "worker")
    assert trial is not None
    assert (trial.number, trial.user_attrs["index"], trial.user_attrs["attempt"]) == (0, 4, 1)  # not the retry's behind it
