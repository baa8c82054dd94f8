"""A run folder is not believed: files of another trial are recognised and named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from report import rows
from report.write import write_reports
from search.errors import UserError
from search.files import read_weights, write_weights
from search.finals.run import own_weights
from search.networks.architecture import Architecture
from search.storage.attributes import NETWORK
from search.study import run as studies
from search.study import trained
from search.study.run import Run
from search.training.model import build
from tests.support import commands
from tests.support.runs import SMALL, Bench, study_file
from tests.support.runs import bench as bench
from tests.support.runs import copied as copied
from tests.support.runs import finished as finished
from tests.support.runs import pretence as pretence

REMEDY = "the files are another trial's; restore those of this trial, or pass another trial"


def swap(folder: Path, first: str, second: str) -> None:
    """Put the folder of the second trial in place of the first's."""
    shutil.rmtree(folder / first)
    shutil.copytree(folder / second, folder / first)


def trained_numbers(run: Run) -> list[int]:
    return [record.number for record in studies.records(studies.load(run).candidates) if record.outcome == "trained"]


@pytest.fixture
def swapped(copied: Run) -> tuple[Run, int]:
    """A run with another trial's folder in place of its best's, and the number of the best."""
    best, other = studies.best(copied, studies.records(studies.load(copied).candidates)).number, None
    (other,) = [number for number in trained_numbers(copied) if number != best]
    swap(copied.folder / "trials", str(best), str(other))
    return copied, best


def test_another_trials_folder_is_rejected(swapped: tuple[Run, int], tmp_path: Path) -> None:
    run, number = swapped
    with pytest.raises(UserError, match=rf"trials/{number}: holds the network [0-9a-f]{{16}}, and .*{REMEDY}$"):
        trained.candidate(run, number)
    ended = commands.search("export", study_file(run), "--form", "json", "--to", tmp_path / "to")
    commands.assert_refused(ended, f"trials/{number}: holds the network", REMEDY)
    assert not (tmp_path / "to").exists()


def test_another_trials_weights_alone_are_rejected(copied: Run) -> None:
    first, second = (copied.folder / "trials" / str(number) / "weights.npz" for number in trained_numbers(copied))
    number = int(first.parent.name)
    weights = read_weights(first)
    shutil.copy(second, first)
    with pytest.raises(UserError, match=rf"trials/{number}: holds the trained network .*{REMEDY}$"):
        trained.candidate(copied, number)
    write_weights(first, [array + np.float32(1e-6) for array in weights])
    with pytest.raises(UserError, match="holds the trained network"):
        trained.candidate(copied, number)
    write_weights(first, weights)
    assert trained.candidate(copied, number).facts["trial"] == number


def test_a_report_names_the_folder_and_continues_without_its_pictures(swapped: tuple[Run, int]) -> None:
    run, number = swapped
    problems: list[str] = []
    write_reports(run, studies.load(run), warn=problems.append)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert f"trials/{number}: holds the network" in page.split("Not shown yet</h2>")[1]
    line = f"trials/{number}: holds the network"
    assert page.index("The winner was not evaluated again") < page.index(line) < page.index("</header>")
    assert len(problems) == 1 and problems[0].startswith("The winner was not evaluated again") and line in problems[0]
    assert '<img src="data:image/png' not in page
    text = (run.folder / "report.md").read_text(encoding="utf-8")
    assert "**The winner was not evaluated again" in text.split("## Leaderboard")[0]
    assert f"The log in the run folder (trials/{number}/history.json) is another trial" in text
    opened = studies.open_study(str(study_file(run)))
    assert number not in {row["trial"] for row in rows.epochs(opened)}


def test_a_trial_of_an_earlier_version_is_accepted_where_fingerprint_and_values_agree(tmp_path: Path) -> None:
    """It has no digest: its network is known by its parameters, and its weights by the number of their values."""
    trial = optuna.trial.create_trial(value=0.5)
    weights: list[Any] = build(SMALL).get_weights()
    write_weights(tmp_path / "weights.npz", weights)
    assert len(own_weights(tmp_path, trial, SMALL)) == len(weights)
    write_weights(tmp_path / "weights.npz", weights[:-1])
    with pytest.raises(UserError, match=rf"holds weights of \d+ values, and a network of \d+ .*{REMEDY}$"):
        own_weights(tmp_path, trial, SMALL)


def test_a_report_continues_where_an_earlier_versions_weights_have_other_shapes(
    copied: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was a traceback out of Keras."""
    best = studies.best(copied, studies.records(studies.load(copied).candidates)).number
    path = copied.folder / "trials" / str(best) / "weights.npz"
    write_weights(path, [array.ravel() for array in read_weights(path)])
    monkeypatch.setattr("search.study.trained.NETWORK", "not stored by that version")
    write_reports(copied, studies.load(copied))
    page = (copied.folder / "report.html").read_text(encoding="utf-8")
    assert f"trial {best}: the weights in its folder are another network" in page.split("Not shown yet</h2>")[1]


def test_every_trial_keeps_the_digest_of_its_network(bench: Bench) -> None:
    digest = bench.one_trial().user_attrs[NETWORK]
    assert len(digest) == 64 and digest != bench.one_trial().user_attrs[NETWORK]


def test_damaged_facts_are_rejected(bench: Bench) -> None:
    number = bench.one_trial().number
    (bench.run.folder / "trials" / str(number) / "training.json").write_text('{"architecture": 3}')
    with pytest.raises(UserError, match=rf"trials/{number}/training\.json"):
        trained.candidate(bench.run, number)


def test_fixture_networks_differ(copied: Run) -> None:
    networks: set[Architecture] = {trained.candidate(copied, number).architecture for number in trained_numbers(copied)}
    assert len(networks) == 2
