"""Run folders of earlier versions: opened, exported and resumed by the present code.

`data/run_before_packages.tar.xz` was written by the last commit in which all modules lay side by side in `search/`: the
quickstart's space on digits, two trials of two epochs against `base = 0.8`.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.study import study_file
from search.study.dataset import load_study_data
from search.tuning.adoption import assess
from search.tuning.candidate import DataFacts
from search.tuning.sources import open_sources
from tests.support.runs import search

ARCHIVE = Path(__file__).parent / "data" / "run_before_packages.tar.xz"
ACCURACIES = {0: 0.8746518105849582, 1: 0.7966573816155988}  # 314 and 286 of 359 validation images
SEPARABLE = [25, 1_424, 2_640, 1_368, 538]  # parameters, by layer, in the third network that the earlier code proposed


@pytest.fixture
def study(tmp_path: Path) -> str:
    """The study file of the extracted run."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return str(tmp_path / "before" / "study.toml")


def leaderboard(study: str) -> dict[str, Any]:
    top: dict[str, Any] = json.loads(search("top", study, "--json"))
    return top


def test_an_earlier_run_is_read(study: str) -> None:
    top = leaderboard(study)
    assert {trial["number"]: trial["best_val_accuracy"] for trial in top["trials"]} == ACCURACIES
    assert [trial["rank"] for trial in top["trials"]] == [1, 2]
    assert (top["base"]["best_val_accuracy"], top["counts"]["trained"]) == (0.8, 2)


def test_an_earlier_run_is_adopted(study: str) -> None:
    """It has no digests of its networks: their weights are counted."""
    earlier = study_file.load(Path(study)).dump()
    changed = {"search": earlier["search"] | {"adopt": [str(Path(study).parent / "run")]}, "budget": {"params": 9_000}}
    config = study_file.parse(earlier | changed, "wider")
    facts = DataFacts.of(load_study_data(config))
    (assessment,) = assess(config, facts, open_sources(config), "float32")
    assert [entry.template.values for entry in assessment.adoptable] == [[accuracy] for accuracy in ACCURACIES.values()]
    assert all(len(entry.template.user_attrs["network_sha256"]) == 64 for entry in assessment.adoptable)


def test_an_earlier_run_is_exported(study: str, tmp_path: Path) -> None:
    search("export", study, "--to", str(tmp_path / "taken"), "--form", "py", "--form", "keras")
    card = json.loads((tmp_path / "taken" / "best_model.json").read_text())
    assert card["params"] == 7_011
    assert (tmp_path / "taken" / "best_model.keras").stat().st_size > 10_000


@pytest.mark.long
def test_an_earlier_run_is_resumed(study: str) -> None:
    """One more trial: the network that the earlier code would have proposed, beside unchanged trials."""
    folder = Path(study).parent / "run"
    before = {path: path.read_bytes() for path in (folder / "trials").rglob("*") if path.is_file()}
    search("run", study, "--trials", "3")
    top = leaderboard(study)
    assert top["counts"]["trained"] == 3
    accuracies = {trial["number"]: trial["best_val_accuracy"] for trial in top["trials"]}
    assert {number: accuracies[number] for number in ACCURACIES} == ACCURACIES
    assert {path: path.read_bytes() for path in before} == before
    layers = json.loads(search("show", study, "2", "--json"))["layers"]
    assert [layer["params"] for layer in layers if layer["kind"] == "separable_conv"] == SEPARABLE
    with np.load(folder / "trials" / "2" / "weights.npz") as weights:
        assert sum(weights[name].size for name in weights.files) == sum(layer["params"] for layer in layers)
