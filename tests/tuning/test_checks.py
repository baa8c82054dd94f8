"""Checks of a study before it is trained: the same by `plan` and `run`, and most before any image is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.cli import setup
from search.data.dataset import check_splits, load_dataset
from search.errors import UserError
from search.networks.architecture import to_json
from search.runner.job import make_order
from search.runner.preparation import prepare
from search.runner.reporter import Reporter
from search.study import run as studies
from search.study import study_file
from search.study.config import REFERENCES
from search.study.proposal import _stages
from search.training.device import LARGE_TRAINING, cpu_note
from search.training.trainer import KerasTrainer
from search.tuning.checks import check_before_loading, recipe_notes

STUDY = """
base = 0.5
data = { name = "digits" }
budget = { params = 2_000 }
space = { blocks = { low = 1, high = 3 }, width = { low = 8, high = 48, step = 8 }, pools = 1 }
recipe = { epochs = 2 }
"""
CASES: dict[str, tuple[str, str, list[str], str]] = {  # what is replaced, by what, options, and the words of the refusal
    "no base file": ("0.5", '"gone.json"', [], "gone.json: cannot be read"),
    "an unknown reference": ("0.5", '"eip-z"', [], "'eip-z': no reference of this name, did you mean"),
    "a base for other images": (
        "0.5",
        '"eip-c"',
        [],
        "eip-c: takes images of 32x32x3 in 10 classes, and digits has 8x8x1 in 10",
    ),
    "a warm start for other images": (
        "recipe =",
        'search = { warm_start = ["eip-c"] }\nrecipe =',
        [],
        "search.warm_start: eip-c",
    ),
    "no warm start": ("recipe =", 'search = { warm_start = ["gone.json"] }\nrecipe =', [], "gone.json: cannot be read"),
    "a budget out of reach": ("2_000", "20", [], "budget.params: 20 is out of reach"),
    "too few images": ("recipe =", "recipe =", ["images"], "images is 7, digits takes 29 to 1079"),
}


@pytest.mark.parametrize("case", CASES)
def test_plan_refuses_what_a_worker_refuses_before_any_image_is_read(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, options, words = CASES[case]
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace(old, new))
    images = 7 if options else None
    for module in ("search.study.dataset.load_dataset", "search.data.sources._open_digits"):
        monkeypatch.setattr(module, lambda *_args, **_kwargs: pytest.fail("images were read"))
    run = studies.ask(str(file), {} if images is None else {"data.images": images}, tmp_path / "run", None)

    def work() -> None:
        prepare(make_order(run), Reporter(lambda event: None), KerasTrainer())

    attempts: list[Callable[[], Any]] = [lambda: setup.plan(str(file), images=images), work]
    messages = []
    for attempt in attempts:
        with pytest.raises(UserError) as caught:
            attempt()
        messages.append(str(caught.value))
    assert words in messages[0] and messages[0] == messages[1]
    assert not (tmp_path / "run").exists()


def test_a_base_is_checked_against_the_images_of_a_path_too(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (400, 9, 9), np.uint8), np.arange(400) % 4
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "study.toml").write_text(STUDY.replace("0.5", '"eip-c"').replace('name = "digits"', 'path = "a.npz"'))
    with pytest.raises(UserError, match="takes images of 32x32x3 in 10 classes, and a has 9x9x1 in 4"):
        setup.plan(str(tmp_path / "study.toml"))


def test_a_recipe_beside_the_file_of_the_base_is_reported(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(to_json(_stages((8, 8, 1), 10, 1, 8)))
    (tmp_path / "study.toml").write_text(STUDY.replace("0.5", '"net.json"'))
    config = study_file.load(tmp_path / "study.toml")
    assert recipe_notes(config) == []
    (tmp_path / "net.toml").write_text("[recipe]\nepochs = 3\n")
    note = f"The base is trained with the recipe beside it, {tmp_path / 'net.toml'}, not with that of the study."
    assert recipe_notes(config) == [note]
    wanted = (str(tmp_path / "net.json"), "eip-c")
    assert recipe_notes(config, wanted) == [note.replace("The base", wanted[0])]
    assert check_before_loading(config).references[0].recipe is not None
    assert (REFERENCES / "eip-c.toml").is_file()
    shipped = study_file.load(REFERENCES.parent / "cifar10_100k" / "study.toml")
    assert recipe_notes(shipped) == []  # a reference by name comes with its recipe, as docs say


@pytest.mark.parametrize("images", [7, 20, 29, 100, 110, 111, 500, 1079, 1080, None])
@pytest.mark.parametrize("holdout", [0.1, 0.9])
def test_splits_are_checked_without_the_images_as_with_them(images: int | None, holdout: float) -> None:
    def outcome(split: Callable[..., object], *words: Any, **more: Any) -> str:
        try:
            split(*words, protocol="holdout", holdout=holdout, images=images, **more)
        except UserError as error:
            return str(error)
        return "fine"

    assert outcome(check_splits, "digits") == outcome(load_dataset, "digits", None)


@pytest.mark.parametrize(("images", "holdout", "least"), [(600, 0.1, 1_000), (600, 0.05, 2_000), (90, 0.2, 500)])
def test_advice_on_images_can_be_followed(images: int, holdout: float, least: int) -> None:
    with pytest.raises(UserError, match=rf"use at least {least:,} images") as caught:
        check_splits("cifar10", "holdout", holdout, images)
    assert "; use at least" in str(caught.value)
    check_splits("cifar10", "holdout", holdout, least)


@pytest.mark.parametrize(("images", "side", "epochs", "is_told"), [(1_079, 8, 50, False), (45_000, 32, 50, True)])
def test_a_slow_device_is_reported_where_it_matters(images: int, side: int, epochs: int, is_told: bool) -> None:
    """Not of digits, whose trials take a minute on a CPU."""
    note = cpu_note(images, (side, side, 3), epochs)
    assert (note is not None) == is_told == (images * side * side * epochs >= LARGE_TRAINING)
    assert note is None or note.startswith("50 epochs of 45,000 images of 32x32 take hours a trial on a CPU")
