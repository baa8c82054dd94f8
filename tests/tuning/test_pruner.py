"""Pruning at rungs: which trials continue, and what becomes of those that do not."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.files import read_json
from search.networks.architecture import Architecture, fingerprint, from_json
from search.networks.layers import Dense, GlobalAveragePool, SeparableConv, Softmax
from search.runner.events import Done, TrialEnded
from search.runner.preparation import _queue_warm_starts
from search.runner.references import train_reference
from search.storage.recovery import requeue
from search.storage.resilient import ResilientStorage
from search.study import records as study_records
from search.study import run as studies
from search.study.records import progress, ranked
from search.study.references import Reference
from search.study.tables import Rungs
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


# --- where they lie --------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(2, 5), st.integers(1, 200))
def test_rungs_lie_at_first_times_powers_of_the_factor_before_the_last_epoch(first: int, factor: int, epochs: int) -> None:
    expected = [epoch for epoch in range(1, epochs) if any(epoch == first * factor**power for power in range(8))]
    assert list(Rungs(first=first, factor=factor).before(epochs)) == expected


# --- who passes ------------------------------------------------------------------------------------------------------


def new_study(pruner: optuna.pruners.BasePruner, storage: optuna.storages.BaseStorage | None = None) -> optuna.Study:
    """Create a study in memory, or in a storage."""
    return optuna.create_study(direction="maximize", pruner=pruner, storage=storage)


@cache
def database() -> ResilientStorage:
    """A database in memory, for studies in which trials are requeued."""
    return ResilientStorage(optuna.storages.RDBStorage("sqlite:///:memory:"))


def train(trial: optuna.Trial, curve: Sequence[float], rungs: Sequence[int], *, until: int | None = None) -> int:
    """Report a curve as `objective` does, asking at rungs alone; the epochs trained, `until` at most."""
    for epoch, value in enumerate(curve[:until], 1):
        trial.report(value, epoch)
        if epoch in rungs and trial.should_prune():
            return epoch
    return len(curve[:until])


def pruner_at(first: int, factor: int, epochs: int) -> RungPruner:
    """The pruner of trainings of so many epochs."""
    return RungPruner(Rungs(first=first, factor=factor).before(epochs))


def end_trial(study: optuna.Study, trial: optuna.Trial, curve: Sequence[float], length: int) -> None:
    """Store a trial as trained in full, with its last accuracy, or as pruned."""
    if length == len(curve):
        study.tell(trial, curve[-1])
    else:
        study.tell(trial, state=TrialState.PRUNED)


def undisturbed(pruner: optuna.pruners.BasePruner, curves: Sequence[Sequence[float]], rungs: Sequence[int]) -> list[int]:
    """Epochs for which each of the curves is trained, one after the other."""
    study, lengths = new_study(pruner), []
    for curve in curves:
        trial = study.ask()
        lengths.append(train(trial, curve, rungs))
        end_trial(study, trial, curve, lengths[-1])
    return lengths


EPOCHS = 9
CURVES = st.lists(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=EPOCHS, max_size=EPOCHS), min_size=1, max_size=12
)


def test_it_weighs_the_gain_expected_of_a_training_against_that_of_the_candidates_so_far() -> None:
    """By hand, rungs after 2 and 6 of 18 epochs.

    With a single trained trial, a final accuracy is that at the rung plus its gain of 0.1, with a deviation of 0.03, so that
    the improvement expected over the best of 0.5 is 0.03 (z Phi(z) + phi(z)) for z = (accuracy - 0.4) / 0.03: 0.0120 for
    0.40, 0.0136 for 0.403 and 0.0059 for 0.38.
    """
    first, rest = [0.4] * 17 + [0.5], [0.0] * 12

    def lengths(*accuracies: tuple[float, float]) -> list[int]:
        curves = [first, *([early] * 5 + [late] * 2 + rest for early, late in accuracies)]
        return undisturbed(pruner_at(2, 3, 18), curves, [2, 6])[1:]

    assert lengths((0.397, 0.4), (0.3, 0.4)) == [2, 2]
    assert lengths((0.403, 0.397)) == [6], "0.0108 at the second rung, where the first network had 0.0120 at the first"
    assert lengths((0.403, 0.403)) == [19]
    # below the first network, and above the mean of it and the second, 0.0060
    assert lengths((0.3, 0.3), (0.39, 0.39)) == [2, 19]
    assert lengths((0.3, 0.3), (0.38, 0.38)) == [2, 2]


@given(CURVES)
@settings(max_examples=40)
def test_all_continue_until_one_is_trained_in_full(curves: list[list[float]]) -> None:
    study, rungs = new_study(pruner_at(1, 3, EPOCHS)), (1, 3)
    for curve in curves:
        assert train(study.ask(), curve, rungs) == EPOCHS, "the others are still in training"


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_few_of_many_networks_continue_and_the_best_among_them(factor: int) -> None:
    """300 by chance, which end where they are at a rung; the best is trained in full in any order."""
    generator = random.Random(factor)
    scores = [generator.gauss(0.5, 0.05) for _ in range(300)]
    lengths = undisturbed(pruner_at(1, factor, factor**2), [[score] * factor**2 for score in scores], [1, factor])
    assert lengths[scores.index(max(scores))] == factor**2
    in_full = [score for score, length in zip(scores, lengths, strict=True) if length == factor**2]
    assert 3 <= len(in_full) < 300 / factor
    assert sum(in_full) / len(in_full) > 0.55, "the mean of all is 0.5"


def test_a_network_at_the_level_of_the_best_is_not_pruned_for_being_second() -> None:
    """As in successive halving, which keeps one in three: 0.49 and 0.51 beside 0.5 are within the noise."""
    curves = [[0.3] * 4, [0.29] * 4, [0.28] * 4, [0.5] * 4, [0.49] * 4, [0.51] * 4, [0.35] * 4]
    assert undisturbed(pruner_at(1, 3, 4), curves, [1, 3]) == [4, 1, 1, 4, 4, 4, 1]


@given(CURVES, st.lists(st.tuples(st.integers(0, 11), st.integers(0, EPOCHS)), max_size=5), st.integers(2, 3))
@settings(max_examples=15)
def test_interrupted_trials_and_their_retries_count_once(
    curves: list[list[float]], interruptions: list[tuple[int, int]], factor: int
) -> None:
    """A trial that is lost after some epoch, at a rung or past it, is there again: all is decided as if it had not been."""
    rungs, lengths = Rungs(first=1, factor=factor).before(EPOCHS), []
    study = new_study(pruner_at(1, factor, EPOCHS), database())
    for index, curve in enumerate(curves):
        for _, epoch in (one for one in interruptions if one[0] == index):
            lost = study.ask()
            train(lost, curve, rungs, until=epoch)
            requeue(study)
            assert study.trials[lost.number].user_attrs["outcome"] == "interrupted"
        trial = study.ask()
        trial.set_user_attr("index", index)
        lengths.append(train(trial, curve, rungs))
        end_trial(study, trial, curve, lengths[-1])
    assert lengths == undisturbed(pruner_at(1, factor, EPOCHS), curves, rungs)


def test_an_interrupted_trial_that_counted_would_change_what_is_decided() -> None:
    """So that the property above can fail."""
    verdicts = []
    for is_interrupted in (True, False):
        study = new_study(pruner_at(1, 2, 4), database())
        trial = study.ask()
        end_trial(study, trial, [0.5] * 4, train(trial, [0.5] * 4, (1, 2)))
        for _ in range(5):
            trial = study.ask()
            trial.set_user_attr("index", 1)
            assert train(trial, [0.1], (1, 2)) == 1
            if is_interrupted:
                requeue(study)
            else:
                study.tell(trial, state=TrialState.PRUNED)
        trial = study.ask()
        trial.report(0.49, 1)
        verdicts.append(trial.should_prune())
    assert verdicts == [True, False]


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
    assert [late.user_attrs[name] for name in told] == [
        *(2, 0.4, 1, 0.3, 2.0, "30.00% after 2 of 4 epochs, which promises less than others did")
    ]
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
    bench.studies.references.pruner = pruner_at(1, 2, 4)
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
