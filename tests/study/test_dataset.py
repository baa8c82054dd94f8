"""Facts of a study's data that are stored with it, and the remark on a winner that only guesses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from search.cli.results import print_top
from search.data.dataset import load_dataset
from search.study.dataset import data_facts, load_study_data, majority_note
from search.study.run import DATA
from search.study.study_file import load
from tests.support.synthetic import fill, noise_images, synthetic_run

FACTS = {"majority": {"class": "cat", "share": 0.6}}


@pytest.mark.parametrize(("accuracy", "is_told"), [(0.59, True), (0.6, True), (0.61, False), (None, False)])
def test_an_accuracy_up_to_that_of_the_commonest_class_is_reported(accuracy: float | None, is_told: bool) -> None:
    told = "The best candidate is no better than always guessing 'cat', which is right for 60.00% of the validation images."
    assert majority_note(FACTS, accuracy) == (told if is_told else None)


def test_a_study_stored_without_the_share_says_nothing() -> None:
    assert majority_note({"fingerprint": "0"}, 0.1) is None


def test_the_facts_hold_the_share_of_the_commonest_class() -> None:
    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)
    facts = json.loads(json.dumps(data_facts(data)))
    counts = np.bincount(data.y_val)
    assert facts["majority"] == {"class": str(counts.argmax()), "share": counts.max() / counts.sum()}
    assert facts["fingerprint"] == data.fingerprint and facts["summary"] == data.summary()


@pytest.mark.parametrize("share", [0.05, 0.999])
def test_the_verdict_names_a_winner_that_only_guesses(share: float, tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, recipe__epochs=2)
    made = fill(run, noise_images(), 4)
    facts = made.candidates.user_attrs[DATA] | {"majority": {"class": "cat", "share": share}}
    made.candidates.set_user_attr(DATA, facts)
    console = Console(width=120, file=io.StringIO(), record=True)
    verdict = print_top(run, console)
    assert ("no better than always guessing 'cat'" in verdict.text) == (share > 0.9)


def test_the_keys_of_the_data_reach_the_reader(tmp_path: Path) -> None:
    study = "base = 0.5\nbudget = { params = 2_000 }\nspace = { blocks = [1, 2], pools = 1 }\n"
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (400, 8, 8), np.uint8), np.arange(400) % 4
    np.savez(
        tmp_path / "a.npz",
        x_train=np.concatenate([x, x[:40]]),
        y_train=np.concatenate([y, y[:40]]),
        x_test=x[:8],
        y_test=y[:8],
    )
    lengths = []
    for drop in ("false", "true"):
        (tmp_path / "study.toml").write_text(f'{study}data = {{ path = "a.npz", drop_copies = {drop} }}\n')
        data = load_study_data(load(tmp_path / "study.toml"))
        assert bool(data.copies) and data.y_test is not None
        lengths.append(len(data.y_train) + len(data.y_val) + len(data.y_test))
    assert lengths == [448, 400]
