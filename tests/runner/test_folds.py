"""Cross-validation of candidates: means, resumption fold by fold, rungs at the ends of folds; trainings are NumPy's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState

from objective import Context, Objective, Observer
from report.analysis.verdict import judge
from report.markdown.summary import meaning
from report.submission.folder import submit
from report.tables import chance_difference, interval_text, leaderboard
from search.data.dataset import Dataset, load_dataset
from search.errors import UserError
from search.files import read_json
from search.finals.statistics import chance_gap, wilson
from search.runner.trial import run_candidate
from search.storage.claims import claims_of
from search.study import run as studies
from search.study import trained as stored
from search.study.records import records
from search.study.run import Run, Studies
from search.training import checkpoint
from search.training.folds import effective_images, fit_folds, half_interval
from search.training.recipe import Recipe
from search.training.result import Epoch, Training
from search.tuning.stopping import Limits
from tests.support.numpy_worker import NumpyTrainer, fit
from tests.support.runs import SMALL, small_run
from tests.support.storms import Storm

FOLDS, EPOCHS = 3, 4


@cache
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=120, folds=FOLDS)


class Stopped(BaseException):
    """As if the process had been killed here."""


def train(path: Path, *, stop: tuple[str, int] = ("", 0), prune_at: int = 0) -> tuple[Training, list[Epoch], int]:
    """(training, epochs that were reported, steps taken); raises Stopped at that step or reported epoch."""
    reported, steps = list[Epoch](), 0

    def on_epoch(epoch: Epoch) -> bool:
        reported.append(epoch)
        if stop == ("epoch", epoch.epoch):
            raise Stopped
        return epoch.epoch == prune_at

    def on_step(step: int, total: int) -> None:
        nonlocal steps
        steps += 1
        assert total == FOLDS * EPOCHS
        if stop == ("step", step):
            raise Stopped

    hooks: dict[str, Any] = {"checkpoint": path, "on_epoch": on_epoch, "on_step": on_step}
    recipe = Recipe(epochs=EPOCHS)
    return fit_folds(NumpyTrainer(), SMALL, digits(), recipe, seed=7, metric="accuracy", **hooks), reported, steps


def timeless(rows: Sequence[Epoch]) -> list[tuple[float, ...]]:
    return [(row.epoch, row.loss, row.accuracy, row.val_loss, row.val_accuracy, row.learning_rate) for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, list[Epoch], int]:
    return train(tmp_path_factory.mktemp("whole") / "candidate-0.npz")


def test_the_mean_over_folds_at_one_epoch_is_ranked(whole: tuple[Training, list[Epoch], int]) -> None:
    training, reported, _ = whole
    logs = [[row.val_accuracy for row in log] for log in training.folds]
    assert len(logs) == FOLDS and len({tuple(log) for log in logs}) == FOLDS and training.epochs == FOLDS * EPOCHS
    means = [fmean(column) for column in zip(*logs, strict=True)]
    assert [row.val_accuracy for row in training.history] == means and training.best.val_accuracy == max(means)
    assert [row.epoch for row in reported] == list(range(1, FOLDS * EPOCHS + 1))
    for step, row in enumerate(reported):  # the mean over the folds so far, at the same epoch
        assert row.val_accuracy == fmean(log[step % EPOCHS] for log in logs[: step // EPOCHS + 1])
    assert training.seconds == pytest.approx(sum(row.seconds for row in reported))
    alone = NumpyTrainer.fit(
        *(SMALL, digits().fold(0), Recipe(epochs=EPOCHS)),
        seed=train_seed(0),
        metric="accuracy",
        checkpoint=Path("/nowhere"),
        on_epoch=lambda epoch: True,
        on_step=lambda step, steps: None,
    )
    assert alone.history[0].val_accuracy == logs[0][0]


def train_seed(fold: int) -> int:
    from search.seeds import derive

    return derive(7, "fold", fold)


@pytest.mark.parametrize("kind", [pytest.param("epoch", marks=pytest.mark.long), "step"])
def test_a_killed_training_continues_in_its_fold_and_epoch(
    kind: str, whole: tuple[Training, list[Epoch], int], tmp_path: Path
) -> None:
    for at in range(1, FOLDS * EPOCHS + 1):
        path = tmp_path / f"candidate-{at}.npz"
        with pytest.raises(Stopped):
            train(path, stop=(kind, at))
        again, reported, steps = train(path)
        assert timeless(again.history) == timeless(whole[0].history)
        assert [timeless(log) for log in again.folds] == [timeless(log) for log in whole[0].folds]
        assert timeless(reported) == timeless(whole[1])
        for array, expected in zip(again.best_weights, whole[0].best_weights, strict=True):
            np.testing.assert_array_equal(array, expected)
        done = at - 1 if kind == "step" else at
        if kind == "epoch" and at % EPOCHS == 0:
            done -= EPOCHS - (EPOCHS - 1)  # the last epoch of a fold is stored with its result
        assert steps == FOLDS * EPOCHS - done, (kind, at)
        checkpoint.remove(path)
    assert not list(tmp_path.iterdir())


def test_damaged_or_foreign_results_of_folds_are_trained_again(
    whole: tuple[Training, list[Epoch], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "candidate-0.npz"
    with pytest.raises(Stopped):
        train(path, stop=("step", 2 * EPOCHS + 1))
    first, second = (checkpoint.fold_path(path, index) for index in range(2))
    first.write_bytes(first.read_bytes()[:500])
    second.unlink()
    again, _, steps = train(path)
    assert steps == FOLDS * EPOCHS and timeless(again.history) == timeless(whole[0].history)
    assert "the fold is trained again" in capsys.readouterr().err
    checkpoint.fold_path(path, 1).replace(first)
    assert train(path)[2] >= EPOCHS  # the second's result is not taken for the first's


def test_a_rung_ends_the_folds(tmp_path: Path) -> None:
    training, reported, _ = train(tmp_path / "candidate-0.npz", prune_at=2 * EPOCHS)
    assert len(training.folds) == 2 and len(reported) == training.epochs == 2 * EPOCHS
    early, _, _ = train(tmp_path / "candidate-1.npz", prune_at=2)
    assert early.epochs == 2 and len(early.folds) == 1 and early.folds[0] == early.history
    with pytest.raises(Stopped):
        train(tmp_path / "candidate-2.npz", stop=("step", EPOCHS + 1))
    assert train(tmp_path / "candidate-2.npz", prune_at=EPOCHS)[2] == 0  # decided upon the stored result


def test_the_noise_of_a_mean_is_that_of_its_folds() -> None:
    values = [0.80, 0.90, 0.85, 0.95, 0.75]
    error = np.std(values, ddof=1) * np.sqrt(1 / 5 + 1 / 4) * 2.776445 / 1.959964
    assert effective_images(values, 10_000) == pytest.approx(0.85 * 0.15 / error**2, rel=1e-5)
    assert effective_images(values, 20) == 20  # never less noise than that of so many images
    assert half_interval(values) == pytest.approx(error * 1.959964)
    assert (half_interval([0.5]), half_interval([0.5, 0.5])) == (0, 0)
    board = {"val_images": 100}
    rows = [{"best_val_accuracy": fmean(folds), "folds": folds} for folds in (values, [value - 0.1 for value in values])]
    constant = chance_difference(board, rows[0], rows[1])  # the same in every fold by accident, up to rounding
    assert constant == chance_gap(rows[0]["best_val_accuracy"], rows[1]["best_val_accuracy"], 100)
    shuffled = {"best_val_accuracy": 0.75, "folds": [0.85, 0.65, 0.80, 0.70, 0.75]}
    gaps = [one - other for one, other in zip(values, shuffled["folds"], strict=True)]
    assert chance_difference(board, rows[0], shuffled) == half_interval(gaps) > 0
    assert [effective_images(same, 60) for same in ([0.5] * 3, [1.0] * 3, [0.0] * 3, [0.5])] == [60] * 4


# --- trials ----------------------------------------------------------------------------------------------------------


class Counter(Observer):
    """Counts the epochs that are reported, and stops as if killed."""

    def __init__(self, stop_after: int = 0) -> None:
        self.epochs, self.stop_after = list[tuple[int, int]](), stop_after

    def epoch_done(self, trial: Any, epoch: Epoch, epochs: int) -> None:
        self.epochs.append((epoch.epoch, epochs))


def search_of(run: Run) -> tuple[Studies, Objective]:
    created = studies.create(run, digits())
    context = Context(run.config, digits(), run.folder, base_accuracy=0.5)
    claims, limits = claims_of(created.candidates), Limits(run.config.stop, None, run.config.cost_metrics)
    return created, Objective(context, claims, limits, Counter(), NumpyTrainer())


def run_of(folder: Path, **changes: Any) -> Run:
    data = {"name": "digits", "images": 120, "folds": FOLDS}
    return small_run(folder, **({"data": data, "recipe": {"epochs": EPOCHS}} | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Studies, FrozenTrial]:
    run = run_of(tmp_path_factory.mktemp("trained") / "run")
    created, objective = search_of(run)
    run_candidate(created.candidates, objective)
    assert objective.observer.epochs == [(epoch, 12) for epoch in range(1, 13)]  # type: ignore[attr-defined]
    return run, created, created.candidates.trials[0]


def test_a_trial_stores_the_mean_its_folds_and_their_noise(trained: tuple[Run, Studies, FrozenTrial]) -> None:
    run, created, trial = trained
    attributes, folder = trial.user_attrs, run.folder / "trials/0"
    assert trial.value == attributes["best_val_accuracy"] == pytest.approx(fmean(attributes["fold_values"]))
    history, logs = read_json(folder / "history.json"), read_json(folder / "folds.json")
    assert [len(log) for log in logs] == [EPOCHS] * FOLDS and attributes["epochs"] == len(history) == EPOCHS
    best = attributes["best_epoch"] - 1
    assert attributes["fold_values"] == [log[best]["val_accuracy"] for log in logs]
    assert attributes["network_value"] == max(row["val_accuracy"] for row in logs[0])
    assert 0 < attributes["effective_images"] <= 120 and len(trial.intermediate_values) == FOLDS * EPOCHS
    (record,) = records(created.candidates)
    assert record.curve == tuple(row["val_accuracy"] for row in history)
    assert (record.epochs, record.epochs_of_one, len(record.folds)) == (FOLDS * EPOCHS, EPOCHS, FOLDS)
    assert f"the mean of {FOLDS} folds (" in studies.verdict(run, 0)
    assert not list((run.folder / "checkpoints").iterdir())


def test_pages_say_that_an_accuracy_is_the_mean_of_folds(trained: tuple[Run, Studies, FrozenTrial]) -> None:
    run, created, trial = trained
    board = leaderboard(run, records(created.candidates), [], 120)
    (row,) = board["trials"]
    assert board["folds"] == FOLDS and row["folds"] == trial.user_attrs["fold_values"]
    low, high = wilson(row["best_val_accuracy"], trial.user_attrs["effective_images"])
    assert interval_text(board, row) == f"{100 * low:.1f} to {100 * high:.1f}"
    assert f"of the mean of {FOLDS} folds" in meaning(board)
    verdict = judge(run, board, None, created.candidates.user_attrs["data"])
    assert f"the mean of {FOLDS} folds on 120 images" in verdict.text and "one training" not in verdict.text + verdict.title
    kept = stored.candidate(run, trial.number, created)
    assert kept.facts["scores"]["folds"] == row["folds"]
    assert kept.facts["scores"]["network_val_accuracy"] == trial.user_attrs["network_value"]
    assert any("the first fold's" in line for line in kept.heading)
    with pytest.raises(UserError, match="--form submission"):
        submit(run, created, run.folder)


def test_each_seed_of_the_finals_leaves_out_another_fold(trained: tuple[Run, Studies, FrozenTrial]) -> None:
    run, created, _ = trained
    seen = list[str]()

    class Recorder(NumpyTrainer):
        def fit(self, architecture: Any, data: Dataset, recipe: Recipe, **hooks: Any) -> Training:
            seen.append(data.fingerprint)
            return fit(architecture, data, recipe, **hooks)

    _, objective = search_of(run)
    objective = replace(objective, trainer=Recorder(), context=replace(objective.context, folder=run.folder / "finals"))
    finals = studies.sibling(run, "finals", created)
    for seed in range(4):
        trial = finals.ask()
        for name, value in {"contender": "trial-0", "repeat": seed, "index": seed}.items():
            trial.set_user_attr(name, value)
        value = objective.finalist(trial, SMALL, Recipe(epochs=EPOCHS))
        assert value == max(row["val_accuracy"] for row in read_json(run.folder / f"finals/trial-0-{seed}/history.json"))
        finals.tell(trial, value)
    assert seen == [digits().fold(seed % FOLDS).fingerprint for seed in range(4)]


def test_candidates_are_pruned_at_the_ends_of_folds(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", search={"sampler": "random", "rungs": {"first": EPOCHS, "factor": 2}})
    assert run.config.rungs == (4, 8) and run.config.restarts == () and run.config.planned_epochs == 12
    created, objective = search_of(run)
    for _ in range(6):
        run_candidate(created.candidates, objective)
    ended = [trial for trial in created.candidates.trials if trial.user_attrs["outcome"] != "rejected"]
    pruned = [trial for trial in ended if trial.state == TrialState.PRUNED]
    assert pruned and {len(trial.intermediate_values) for trial in pruned} <= {4, 8}
    for trial in pruned:
        assert len(trial.user_attrs["fold_values"]) == len(trial.intermediate_values) // EPOCHS
        assert f"of {FOLDS * EPOCHS} epochs, which promises less" in trial.user_attrs["reason"]
    recipe = {"epochs": EPOCHS, "schedule": {"kind": "one-cycle"}}
    mixed = run_of(tmp_path / "mixed", recipe=recipe, search={"rungs": {"first": 1, "factor": 3}}).config
    assert mixed.rungs == mixed.restarts == (1, 3)  # 9 epochs would be the end of the last fold
    assert mixed.recipe_of({"learning_rate": 0.1}).restarts == (1, 3)
    other = run_of(tmp_path / "other", recipe=recipe, search={"rungs": {"first": 3, "factor": 2}}).config
    assert (other.rungs, other.restarts) == ((3, 8), (3,))


@pytest.mark.long
def test_a_run_killed_in_several_folds_ends_as_one_that_was_not(tmp_path: Path) -> None:
    faults = [
        {"at": "epoch", "do": "crash", "epoch": 3, "fold": 1},
        {"at": "checkpoint", "do": "kill", "epoch": 2, "fold": 2},
    ]
    changes: dict[str, Any] = {"search": {"trials": 1, "sampler": "random"}}
    storm = Storm(tmp_path / "storm", *faults, **changes)
    file = storm.folder / "tiny.toml"
    file.write_text(file.read_text().replace("data = { ", "data = { folds = 2, "))
    storm.start(status=-9)
    storm.start()
    counted = storm.trials[-1]
    assert len(storm.trials) == 3 and counted.user_attrs["outcome"] == "trained"
    calm = studies.ask(str(file), {}, tmp_path / "calm", None)
    data = load_dataset(None, storm.folder / "images.npz", protocol="holdout", holdout=0.1, images=None, folds=2)
    created = studies.create(calm, data)
    limits = Limits(calm.config.stop, None, ())
    context = Context(calm.config, data, calm.folder, base_accuracy=0.5)
    run_candidate(created.candidates, Objective(context, claims_of(created.candidates), limits, trainer=NumpyTrainer()))
    (expected,) = created.candidates.trials
    names = ("key", "seed", "best_val_accuracy", "fold_values", "network_sha256", "best_epoch", "final_val_accuracy")
    assert [counted.user_attrs[name] for name in names] == [expected.user_attrs[name] for name in names]
    assert counted.intermediate_values == expected.intermediate_values
    logs = [
        json.loads((folder / "folds.json").read_text())
        for folder in (storm.run.folder, calm.folder)
        for folder in folder.glob("trials/*")
    ]
    assert [[row["val_accuracy"] for row in log] for log in logs[0]] == [
        [row["val_accuracy"] for row in log] for log in logs[1]
    ]
