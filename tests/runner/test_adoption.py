"""Adoption of trained trials of another run, with simulated trainings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from report.analysis.verdict import judge
from report.html.leaderboard import _text
from report.markdown.summary import counts_words, leaderboard_table
from report.tables import leaderboard
from search.data.dataset import load_dataset
from search.errors import UserError
from search.runner import adoption
from search.runner.adoption import ADOPTION
from search.runner.events import Done
from search.storage.attributes import INDEX, KEY, SEED
from search.storage.claims import claims_of
from search.study import trained
from search.study.records import counts, progress
from search.study.run import best, load, verdict
from search.tuning.sources import check_data, open_sources
from tests.support.adopted import RECIPE, TRIALS, WIDE, adopted, assessed, old, wide_run
from tests.support.runs import Bench, Pretence, pretence, small_run

__all__ = ["old", "pretence"]


def test_trained_trials_are_adopted_before_the_first_own(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    bench = Bench(wide_run(tmp_path / "run", old), pretence)
    (assessment,) = adopted(bench)
    assert assessment.text("adopted") == "old: 5 of 5 trained trials adopted"
    pretence.plays += [0.4, 0.4]
    assert bench.train_candidates() == Done()
    records = bench.records
    assert [record.adopted for record in records] == [*({"run": "old", "trial": n} for n in range(TRIALS)), None, None]
    assert (progress(records), counts(records)["trained"], counts(records)["adopted"]) == (2, 2, TRIALS)
    winner = best(bench.run, records)
    assert (winner.number, winner.best_val_accuracy, winner.origin) == (2, 0.9, "trial 2 of old")
    trials = bench.study.get_trials(deepcopy=False)
    assert [trial.user_attrs[INDEX] for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    held = claims_of(bench.study).held()
    assert all(held[trial.user_attrs[KEY]] == trial.user_attrs[INDEX] for trial in trials)
    board = leaderboard(bench.run, records, [])
    assert board["trials"][0]["adopted"] == {"run": "old", "trial": 2}
    assert "adopted" not in board["trials"][-1]
    assert leaderboard_table(board).rows[1][:2] == ("1", "2 (adopted)")
    assert counts_words(board).endswith("5 adopted. Adopted: trained by the run old, on the same data")
    assert "the best of 7 trained candidates" in judge(bench.run, board, None, {}).sentence
    assert _text("outcome", "trained", {"adopted": "trial 2 of old"}, None) == "adopted: trial 2 of old"
    assert verdict(bench.run, 2).endswith("rank 1\nadopted from trial 2 of old")


def test_adopted_trials_are_those_of_the_other_run(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    bench = Bench(wide_run(tmp_path / "run", old), pretence)
    adopted(bench)
    source = load(small_run(old, recipe=RECIPE)).candidates
    for before, after in zip(source.get_trials(), bench.study.get_trials(), strict=True):
        assert after.params.keys() == bench.run.config.parameters.keys()
        assert after.values == before.values
        assert after.intermediate_values == before.intermediate_values
        for name in (SEED, "params", "macs", "network_sha256", "seconds", "best_epoch"):
            assert after.user_attrs[name] == before.user_attrs[name]
        for name in adoption.FILES:
            copy = bench.run.folder / "trials" / str(after.number) / name
            assert copy.read_bytes() == (old / "trials" / str(before.number) / name).read_bytes()


def test_an_adopted_winner_can_be_exported(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    bench = Bench(wide_run(tmp_path / "run", old), pretence)
    adopted(bench)
    winner = trained.candidate(bench.run)
    assert winner.facts["trial"] == 2
    assert winner.facts["adopted"] == {"run": "old", "trial": 2}
    assert winner.facts["scores"]["delta_vs_base"] == pytest.approx(0.4)
    assert winner.heading[1].endswith("as trial 2 of old.")


# --- what is left out ------------------------------------------------------------------------------------------------


def narrowed(**changes: Any) -> dict[str, Any]:
    return WIDE["space"] | changes


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"recipe": RECIPE | {"epochs": 3}}, {"of other epochs": TRIALS}),
        ({"budget": {"params": 900}}, {"over the budget"}),
        ({"space": narrowed(width={"low": 16, "high": 64, "step": 8})}, {"outside the space"}),
        ({"recipe": RECIPE | {"learning_rate": 0.01}}, {"outside the recipe"}),
        ({"recipe": RECIPE | {"label_smoothing": 0.1}}, {"outside the recipe": TRIALS}),
        ({"recipe": RECIPE | {"momentum": [0.5, 0.6]}}, {}),  # which adam has not
        ({"data": {"name": "digits", "normalize": True}}, {"outside the recipe": TRIALS}),
    ],
)
def test_the_rest_is_left_out_with_its_reason(tmp_path: Path, old: Path, changes: Any, reasons: Any) -> None:
    assessment = assessed(wide_run(tmp_path / "run", old, **changes))
    counted = assessment.counts
    assert (counted == reasons) if isinstance(reasons, dict) else (counted.keys() == reasons)
    assert len(assessment.adoptable) + sum(counted.values()) == TRIALS
    lines = assessment.text("adopted").split("\n")
    assert len(lines) == 1 + len(counted)
    assert all("such as trial" in line for line in lines[1:])


def test_trainings_of_another_precision_are_left_out(tmp_path: Path, old: Path) -> None:
    assert assessed(wide_run(tmp_path / "run", old), "mixed_bfloat16").counts == {"of another precision": TRIALS}


def damage_weights(files: Path) -> None:
    weights = files / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:40])


def swap_weights(files: Path) -> None:
    np.savez(files / "weights.npz", w0000=np.ones(1, np.float32))


def damage_training(files: Path) -> None:
    (files / "training.json").write_text("{}")


def swap_history(files: Path) -> None:
    shutil.copy(files.parent / "3" / "history.json", files)


def remove(files: Path) -> None:
    shutil.rmtree(files)


@pytest.mark.parametrize("damage", [damage_weights, swap_weights, damage_training, swap_history, remove])
def test_damaged_trials_are_left_out(tmp_path: Path, old: Path, damage: Callable[[Path], None]) -> None:
    folder = shutil.copytree(old, tmp_path / "old")
    damage(folder / "trials" / "2")
    assessment = assessed(wide_run(tmp_path / "run", folder))
    assert assessment.counts == {"with missing or damaged files": 1}
    assert [entry.number for entry in assessment.left_out] == [2]


def test_the_same_training_of_two_runs_is_adopted_once(tmp_path: Path, old: Path, pretence: Pretence) -> None:
    copy = shutil.copytree(old, tmp_path / "copy" / "run")
    bench = Bench(wide_run(tmp_path / "run", old, search={"adopt": [str(old), str(copy)]}), pretence)
    first, second = adopted(bench)
    assert len(first.adoptable) == TRIALS
    assert (second.source.name, second.counts) == ("copy", {"of the same training as another": TRIALS})
    assert len(bench.records) == TRIALS
    assert bench.study.user_attrs[ADOPTION][1]["left_out"] == second.counts


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"protocol": "course", "data": {"name": "digits"}}, 'protocol = "holdout", and this study has "course"'),
        ({"search": {"rank_by": "int8"}}, 'search.rank_by = "float", and this study has "int8"'),
        ({"search": {"metric": "macro_f1"}}, 'search.metric = "accuracy", and this study has "macro_f1"'),
        ({"search": {"adopt": "nowhere"}}, "holds no run (config.json)"),
    ],
)
def test_runs_that_do_not_compare_are_rejected(tmp_path: Path, old: Path, changes: Any, hint: str) -> None:
    run = wide_run(tmp_path / "run", old, **changes)
    with pytest.raises(UserError) as error:
        open_sources(run.config)
    assert hint in str(error.value)
    assert "leave it out of search.adopt" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_images_are_rejected(tmp_path: Path, old: Path) -> None:
    others = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=90)
    with pytest.raises(UserError, match="was trained on other data"):
        check_data(open_sources(wide_run(tmp_path / "run", old).config), others)


def test_the_own_folder_and_a_folder_around_a_run_are_rejected(tmp_path: Path, old: Path) -> None:
    run = wide_run(old, old)
    with pytest.raises(UserError, match="own run folder"):
        open_sources(run.config, run.folder)
    shutil.copytree(old, tmp_path / "study" / "run")
    with pytest.raises(UserError, match=r'name its run folder, ".*study/run"'):
        open_sources(wide_run(tmp_path / "run", tmp_path / "study").config)
