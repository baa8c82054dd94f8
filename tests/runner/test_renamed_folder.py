"""A run folder that is renamed during a training: nothing is written under its old name, and the trial is not at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from search.errors import StudyStopped
from search.runner.trial import run_candidate
from search.storage.failures import StudyGone
from search.training import checkpoint, train
from search.training.checkpoint import Checkpoint
from tests.runner.test_supervisor import stage_of
from tests.support.runs import Bench, bench, pretence  # noqa: F401 fixtures

SOME = Checkpoint((np.zeros(3),), [{"epoch": 1}], 0, (np.zeros(3),))


def test_a_checkpoint_creates_its_folder_and_not_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(FileNotFoundError):
        checkpoint.write(run / "checkpoints" / "candidate-0.npz", "name", SOME)
    assert not run.exists()
    run.mkdir()
    checkpoint.write(run / "checkpoints" / "candidate-0.npz", "name", SOME)
    assert checkpoint.read(run / "checkpoints" / "candidate-0.npz", "name") is not None


def test_a_folder_that_is_back_at_once_leaves_the_trial_to_the_next_start(
    bench: Bench,  # noqa: F811 the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Renamed when the checkpoint is written, back when the error is handled: it counted as a failure of the network."""
    folder, moved = bench.run.folder, bench.run.folder.with_name("moved")

    def fit(*_arguments: Any, checkpoint: Path, **_options: Any) -> None:
        folder.rename(moved)
        try:
            train.checkpoints.write(checkpoint, "name", SOME)
        finally:
            assert not folder.exists()
            moved.rename(folder)

    monkeypatch.setattr(train, "fit", fit)
    with pytest.raises(StudyGone, match="the run folder was deleted, renamed or replaced"):
        run_candidate(bench.study, bench.objective)
    assert [trial.state for trial in bench.study.trials] == [TrialState.RUNNING]


def test_a_worker_is_not_replaced_where_the_folder_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its successor's lock could not be created, which was a traceback."""
    stage = stage_of(tmp_path, monkeypatch)
    folder, moved = stage.run.folder, tmp_path / "moved"
    stage.plays(f'os.rename({str(folder)!r}, {str(moved)!r})\nsay(event="recycle")')
    with pytest.raises(StudyStopped, match="the run folder was deleted, renamed or replaced"):
        stage.supervise()
    assert stage.turns == 1 and not folder.exists() and (moved / "config.json").exists()
