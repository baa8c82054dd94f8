"""Studies with rungs: what becomes of candidates, known networks and references, and runs from end to end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.files import read_json
from search.networks.architecture import Architecture, fingerprint, from_json
from search.networks.layers import Dense, GlobalAveragePool, SeparableConv, Softmax
from search.runner.events import Done, TrialEnded
from search.runner.preparation import _queue_warm_starts
from search.runner.references import train_reference
from search.storage.recovery import requeue
from search.study import records as study_records
from search.study import run as studies
from search.study.records import progress, ranked
from search.study.references import Reference
from search.tuning.candidate import Candidate, DataFacts, judge
from search.tuning.pruner import RungPruner
from tests.support.processes import (
    NUMPY,
    SECONDS,
    Climbed,
    begin,
    board,
    candidates,
    climbed,
    end,
    reopened,
    start,
    worker_of,
    write_climbing,
)
from tests.support.runs import Bench, Pretence, pretence, small_run

__all__ = ["climbed", "pretence"]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


# --- what becomes of a candidate -------------------------------------------------------------------------------------

KNOWN = {"blocks": 1, "width_1": 8, "width_2": 8, "width_3": 8, "pool_position_1": 1}


def rung_bench(folder: Path, pretence: Pretence, **search: Any) -> Bench:
    """Four epochs, with rungs after the first and the second."""
    recipe = {"epochs": 4, "schedule": {"kind": "cosine"}}
    return Bench(small_run(folder, recipe=recipe, search={"rungs": {"first": 1, "factor": 2}} | search), pretence)


def test_a_candidate_that_falls_behind_ends_at_its_rung(tmp_path: Path, pretence: Pretence) -> None:
    bench = rung_bench(tmp_path / "run", pretence)
    bench.plays += [[0.3, 0.5, 0.6, 0.7], [0.2, 0.9, 0.9, 0.9], [0.4, 0.3, 0.9, 0.9]]
    whole, early, late = (bench.one_trial() for _ in range(3))
    assert [trial.user_attrs["outcome"] for trial in (whole, early, late)] == ["trained", "pruned_at_rung", "pruned_at_rung"]
    assert [trial.state for trial in (whole, early, late)] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [len(trial.intermediate_values) for trial in (whole, early, late)] == [4, 1, 2]
    told = ("epochs", "best_val_accuracy", "best_epoch", "final_val_accuracy", "seconds", "reason")
    assert [late.user_attrs[name] for name in told] == [*(2, 0.4, 1, 0.3, 2.0, late.user_attrs["reason"])]
    assert late.user_attrs["reason"].startswith("30.00% after 2 of 4 epochs, which promises less than others did: ")
    own, usual = map(float, re.findall(r"[\d.e-]+(?= points expected| on average)", late.user_attrs["reason"]))
    assert own < usual or own == 0
    assert late.user_attrs["delta_vs_base"] == pytest.approx(-0.1)
    ends = [event.outcome for event in bench.events if isinstance(event, TrialEnded)]
    assert ends == ["trained", "pruned_at_rung", "pruned_at_rung"]


def test_a_pruned_trial_counts_towards_the_number_of_trials_and_is_never_the_best(
    tmp_path: Path, pretence: Pretence
) -> None:
    bench = rung_bench(tmp_path / "run", pretence, trials=5)
    bench.plays += [[0.5] * 4, [0.4] * 4, [0.3] * 4, [0.6, 0.1, 0.9, 0.9], [0.1] * 4, [0.9] * 4]
    assert bench.train_candidates() == Done()
    assert [record.outcome for record in bench.records] == ["trained", *["pruned_at_rung"] * 4]
    assert progress(bench.records) == 5
    assert [record.number for record in ranked(bench.records)] == [0]
    assert study_records.counts(bench.records) | {"rejected": 0} == {
        "trained": 1,
        "pruned_at_rung": 4,
        "rejected": 0,
        "failed": 0,
    }


def test_a_network_known_before_is_never_pruned_and_others_are_measured_by_it(tmp_path: Path, pretence: Pretence) -> None:
    """Nor is its retry. It stands at the rung like any other: what follows is behind it."""
    bench = rung_bench(tmp_path / "run", pretence)
    other = KNOWN | {"width_1": 16}
    _queue_warm_starts(bench.study, [("first", KNOWN), ("second", other)])
    bench.plays += [[0.5] * 4, [0.2] * 4, [0.3] * 4]
    first, second, third = (bench.one_trial() for _ in range(3))
    assert [trial.params for trial in (first, second)] == [KNOWN, other]
    assert [trial.user_attrs.get("warm_start") for trial in (first, second, third)] == ["first", "second", None]
    assert [trial.user_attrs["outcome"] for trial in (first, second, third)] == ["trained", "trained", "pruned_at_rung"]


def test_a_network_known_before_is_not_pruned_when_it_was_interrupted(tmp_path: Path, pretence: Pretence) -> None:
    bench = rung_bench(tmp_path / "run", pretence)
    bench.plays += [[0.5] * 4]
    bench.one_trial()
    bench.study.enqueue_trial(KNOWN, user_attrs={"index": 1, "attempt": 1, "warm_start": "known"})
    lost = bench.study.ask()
    lost.report(0.1, 1)
    assert lost.should_prune()
    requeue(bench.study)
    bench.plays += [[0.1] * 4]
    again = bench.one_trial()
    assert (again.user_attrs["outcome"], again.user_attrs["warm_start"]) == ("trained", "known")


def test_known_networks_are_queued_once_and_not_behind_others(tmp_path: Path, pretence: Pretence) -> None:
    bench, known = rung_bench(tmp_path / "run", pretence), [("first", KNOWN), ("second", KNOWN | {"width_1": 16})]
    for _ in range(2):
        _queue_warm_starts(bench.study, known)
    waiting = [trial.user_attrs for trial in bench.study.get_trials(states=(TrialState.WAITING,))]
    assert waiting == [{"index": index, "attempt": 1, "warm_start": name} for index, (name, _) in enumerate(known)]
    for _ in range(3):
        bench.one_trial()
    _queue_warm_starts(bench.study, [*known, ("third", KNOWN | {"width_1": 24})])  # too late: the search has begun
    assert bench.study.get_trials(states=(TrialState.WAITING,)) == []


def test_no_reference_is_pruned(tmp_path: Path, pretence: Pretence) -> None:
    """However it does beside others, and whoever asks the pruner."""
    bench = rung_bench(tmp_path / "run", pretence)
    bench.studies.references.pruner = RungPruner((1, 2))
    for name, play in (("good", [0.9] * 4), ("bad", [0.1] * 4)):
        network = Architecture((8, 8, 1), 10, (SeparableConv(8), GlobalAveragePool(), Dense(10), Softmax()), name)
        bench.plays.append(play)
        train_reference(bench.run, bench.studies, Reference(name, network, None, None), bench.objective)
    found = study_records.records(bench.studies.references)
    assert [(record.reference, record.outcome, record.epochs) for record in found] == [
        ("good", "trained", 4),
        ("bad", "trained", 4),
    ]


def test_a_candidate_is_measured_at_its_rungs_where_its_schedule_has_come_to_zero(
    tmp_path: Path, pretence: Pretence
) -> None:
    bench = rung_bench(tmp_path / "run", pretence)
    assert bench.run.config.rungs == bench.run.config.recipe_of({}).restarts == (1, 2)
    bench.plays += [[0.9] * 4, [0.1, 0.9, 0.9, 0.9]]
    assert [len(bench.one_trial().intermediate_values) for _ in range(2)] == [4, 1]


def test_a_network_trained_with_rungs_is_another_candidate_than_without(tmp_path: Path) -> None:
    """Its schedule is another."""
    recipe = {"epochs": 4, "schedule": {"kind": "cosine"}}
    keys = set()
    for number, rungs in enumerate((None, {"first": 1}, {"first": 2}, {"first": 3})):
        config = small_run(tmp_path / str(number), recipe=recipe, search={"rungs": rungs}).config
        found = judge(config, DataFacts((8, 8, 1), 10, "data"), KNOWN)
        assert isinstance(found, Candidate)
        keys.add(found.key)
    assert len(keys) == 4


# --- as a user runs it -----------------------------------------------------------------------------------------------


def test_a_study_with_rungs_ends_with_some_trained_and_some_pruned(climbed: Climbed) -> None:
    assert (climbed.ended.status, climbed.ended.err) == (0, "")
    assert "no better candidate came in 4 trained trials" in climbed.ended.out
    told = climbed.board["counts"]
    assert told["pruned_at_rung"] > 0 < told["trained"]
    assert told["trained"] + told["pruned_at_rung"] == len(climbed.after) >= 5
    assert f"{len(climbed.after)}/30" in climbed.ended.out  # those that were pruned are counted
    for trial in climbed.after:
        epochs, pruned = len(trial.intermediate_values), trial.user_attrs["outcome"] == "pruned_at_rung"
        assert epochs in ((1, 2) if pruned else (4,))
        assert trial.state == (TrialState.PRUNED if pruned else TrialState.COMPLETE)


def test_the_leaderboard_ranks_what_was_trained_to_its_end_and_lists_the_rest_below(climbed: Climbed) -> None:
    rows = climbed.board["trials"]
    full = [row for row in rows if row["outcome"] == "trained"]
    assert [row["rank"] for row in rows] == [*range(1, len(full) + 1), *[None] * (len(rows) - len(full))]
    assert {row["outcome"] for row in rows[len(full) :]} == {"pruned_at_rung"}
    assert full[0]["best_val_accuracy"] == max(row["best_val_accuracy"] for row in full)
    run = reopened(climbed.study)
    winner = studies.best(run, study_records.records(studies.load(run).candidates))
    assert (winner.number, winner.params) == (full[0]["number"], full[0]["params"])
    assert [row["epochs"] for row in rows[: len(full)]] == [4] * len(full)
    assert all(row["epochs"] < 4 for row in rows[len(full) :])


def test_a_study_begins_with_the_known_networks_and_prunes_none_of_them(climbed: Climbed) -> None:
    good, poor, *others = climbed.after
    assert [trial.user_attrs.get("warm_start") for trial in (good, poor)] == ["good", "poor"]
    assert not any("warm_start" in trial.user_attrs for trial in others)
    for trial in (good, poor):
        known = from_json((climbed.study.parent / f"{trial.user_attrs['warm_start']}.json").read_text(encoding="utf-8"))
        assert fingerprint(studies.network_of(reopened(climbed.study), trial.number)) == fingerprint(known)
        assert len(trial.intermediate_values) == 4
    assert poor.intermediate_values[1] < good.intermediate_values[1]  # any other would have been pruned for it


def test_every_training_of_a_study_with_rungs_begins_its_schedule_anew_at_each_and_the_base_is_never_pruned(
    climbed: Climbed,
) -> None:
    folder = reopened(climbed.study).folder
    (base,) = studies.load(reopened(climbed.study)).references.trials
    assert (base.state, sorted(base.intermediate_values)) == (TrialState.COMPLETE, [1, 2, 3, 4])
    for place in (folder / "references" / "base", *(folder / "trials").iterdir()):
        recipe = read_json(place / "training.json")["recipe"]
        assert (recipe["schedule"]["kind"], recipe["restarts"]) == ("one-cycle", [1, 2])
        rates = [row["learning_rate"] for row in read_json(place / "history.json")]
        assert all(rate < 0.001 for rate in rates[:2])  # of the last step before a rung
    assert len(list((folder / "trials").iterdir())) == len(climbed.after)  # also what was pruned is kept


AT_RUNG = """
SELECT number FROM trials JOIN studies USING (study_id) WHERE study_name = 'tiny' AND state = 'RUNNING' AND number > 0
  AND EXISTS (SELECT 1 FROM trial_intermediate_values seen WHERE seen.trial_id = trials.trial_id)
"""


def kill_past_a_rung(study: Path) -> int:
    """Begin the study and kill it, worker and all, while a later candidate is past its first rung; that one's number."""
    process, deadline = begin(study, **NUMPY, EPOCH_SECONDS="0.1"), time.monotonic() + SECONDS
    database = f"file:{study.parent / 'tiny-run' / 'study.db'}?mode=ro"
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(database, uri=True)) as db:
            if db.execute(AT_RUNG).fetchall():
                child = worker_of(process)
                os.kill(child, signal.SIGSTOP)
                time.sleep(0.05)  # it is halted by then, and the trial may have just ended
                if found := db.execute(AT_RUNG).fetchall():
                    process.kill()
                    os.kill(child, signal.SIGKILL)
                    end(process)
                    return int(found[0][0])
                os.kill(child, signal.SIGCONT)
        time.sleep(0.002)


@pytest.mark.long
def test_a_study_with_rungs_that_was_killed_and_gone_on_with_is_the_undisturbed_one(
    climbed: Climbed, tmp_path: Path
) -> None:
    study = write_climbing(tmp_path / "climbing")
    lost = kill_past_a_rung(study)
    ended = start(study, **NUMPY)
    assert (ended.status, ended.err) == (0, "")
    disturbed = candidates(study)
    assert disturbed[lost].user_attrs["outcome"] == "interrupted"
    assert disturbed[lost].intermediate_values

    def rows(of: dict[str, Any]) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key not in ("number", "seconds")} for row in of["trials"]]

    found = board(study)
    assert rows(found) == rows(climbed.board)
    assert (found["counts"], found["base"]) == (climbed.board["counts"], climbed.board["base"])
    curves = {trial.user_attrs["index"]: trial.intermediate_values for trial in disturbed}  # the retry's, where there is one
    assert curves == {trial.user_attrs["index"]: trial.intermediate_values for trial in climbed.after}
