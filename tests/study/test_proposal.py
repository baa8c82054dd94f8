"""Proposals of `new` for the images that it saw."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from search.budget.cost import compute_cost
from search.budget.limits import Budget
from search.data.inspection import ImageFacts, holdout_for, look
from search.data.splits import HELD_OUT, Split, held_out
from search.errors import UserError
from search.networks.geometry import resolve
from search.study import study_file
from search.study import template as study_text
from search.study.new import make
from search.study.proposal import propose, space_table
from search.study.survey import check
from space import Pyramid
from tests.data.test_folders import X, Y, put, put_all
from tests.support.proposed import ROOT, colourful

# --- what is seen ----------------------------------------------------------------------------------------------------


def test_grey_images_are_seen_to_be_grey_also_where_they_are_saved_in_colour(tmp_path: Path) -> None:
    for label in range(2):
        for place in range(25):
            put(tmp_path / f"grey/{label}/{place}.png", X[place])
            put(
                tmp_path / f"saved/{label}/{place}.jpg",
                np.repeat(np.kron(X[place], np.ones((4, 4), np.uint8))[..., None], 3, 2),
            )
    colourful(tmp_path / "mixed/a", 25)
    put_all(tmp_path / "mixed", X[:40], Y[:40] * 0, lambda label: "b")
    assert look(tmp_path / "grey").is_grey and look(tmp_path / "saved").is_grey
    assert not look(tmp_path / "mixed").is_grey


def test_sizes_are_those_of_images_held_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    colourful(tmp_path / "a", 25, (20, 40))
    colourful(tmp_path / "b", 25, (20, 40), exif=exif)
    assert look(tmp_path).sizes == Counter({(20, 40): 25, (40, 20): 25})


@pytest.mark.parametrize(("ink", "background"), [(20, "white"), (128, "white"), (250, "black")])
def test_bright_ink_on_nothing_asks_for_a_black_background(ink: int, background: str, tmp_path: Path) -> None:
    for label in range(2):
        for place in range(25):
            drawn = np.dstack([np.full((8, 8), ink, np.uint8), X[place]])  # the digit is what is not transparent
            put(tmp_path / f"{label}/{place}.png", drawn)
    seen = look(tmp_path)
    assert (seen.background, seen.transparent) == (background, 50)


def test_classes_that_are_too_small_are_left_out_and_the_others_looked_at(tmp_path: Path) -> None:
    put_all(tmp_path, X, Y)
    put(tmp_path / "10/a.png", np.zeros((100, 100), np.uint8))
    seen = look(tmp_path)
    assert (seen.classes, seen.too_few, seen.least) == (tuple("0123456789"), {"10": 1}, 25)
    assert seen.sizes == Counter({(8, 8): len(X)})
    assert seen.images == len(X)


def test_too_few_of_everything_is_rejected(tmp_path: Path) -> None:
    put_all(tmp_path, X[:100], Y[:100])
    with pytest.raises(UserError, match="0 of 10 classes have the 25 images that are needed, the largest has 1"):
        look(tmp_path)


def test_an_array_file_is_seen_like_a_folder(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X[:1200], y_train=Y[:1200], x_test=X[1200:], y_test=Y[1200:])
    put_all(tmp_path / "a/train", X[:1200], Y[:1200])
    put_all(tmp_path / "a/test", X[1200:], Y[1200:])
    arrays, folder = look(tmp_path / "a.npz"), look(tmp_path / "a")
    for name in ("classes", "counts", "sizes", "is_grey", "least", "images", "holdout", "imbalance", "training_images"):
        assert getattr(arrays, name) == getattr(folder, name), name


def test_an_array_file_with_validation_images_has_fixed_parts(tmp_path: Path) -> None:
    parts = {"train": slice(1200), "val": slice(1200, 1500), "test": slice(1500, None)}
    np.savez(
        tmp_path / "a.npz", **{f"{axis}_{part}": of[own] for part, own in parts.items() for axis, of in (("x", X), ("y", Y))}
    )
    seen = look(tmp_path / "a.npz")
    assert (seen.holdout, seen.training_images, {part: sum(n) for part, n in seen.counts.items()}) == (
        *(None, 1200),
        {"train": 1200, "val": 300, "test": 297},
    )
    made = make("mine", tmp_path / "a.npz", 20_000, tmp_path)
    assert "# the split is fixed: x_val validates" in made.file.read_text()
    np.testing.assert_array_equal(made.data.y_val, Y[1200:1500])


@given(st.lists(st.integers(21, 400), min_size=2, max_size=6))
def test_the_holdout_that_is_proposed_can_be_held_out(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    share = holdout_for(min(counts))
    assert 0.1 <= share <= 0.5
    train, validation = held_out("", Split(labels, labels), share, 0)
    assert np.bincount(validation.y).min() >= HELD_OUT
    assert np.bincount(train.y, minlength=len(counts)).min() >= 1


# --- what is proposed ------------------------------------------------------------------------------------------------


def seen_of(sizes: dict[tuple[int, int], int], **changes: Any) -> ImageFacts:
    """Photographs in three classes, in equal parts."""
    known: dict[str, Any] = {
        "path": Path("/photographs"), "classes": ("cat", "dog", "fox"), "counts": {"all": (sum(sizes.values()) // 3,) * 3},
        "too_few": {}, "least": 25, "sizes": Counter(sizes), "is_grey": False, "is_folder": True, "channels": 3,
        "background": "white", "transparent": 0, "doubles": 0,
    }  # fmt: skip
    return ImageFacts(**known | changes)


CIFAR = seen_of({(32, 32): 60_000})
SIZES: dict[str, tuple[dict[tuple[int, int], int], int, tuple[int, int] | None, tuple[int, int]]] = {
    "as they are": ({(32, 32): 600}, 100_000, None, (32, 32)),
    "as they are, not square": ({(24, 32): 600}, 100_000, None, (24, 32)),
    "of a size that is on no list": ({(30, 30): 600}, 100_000, None, (30, 30)),
    "larger than the budget has use for": ({(224, 224): 600}, 100_000, (64, 64), (64, 64)),
    "smaller for a smaller budget": ({(224, 224): 600}, 10_000, (32, 32), (32, 32)),
    "larger for a larger budget": ({(224, 224): 600}, 1_000_000, (96, 96), (96, 96)),
    "all of one shape": ({(600, 800): 500, (1200, 1600): 100}, 100_000, (64, 84), (64, 84)),
    "upright": ({(800, 600): 600}, 10_000, (44, 32), (44, 32)),
    "of all shapes": ({(600, 800): 300, (800, 600): 300}, 100_000, (64, 64), (64, 64)),
    "a few small ones": ({(16, 16): 100, (48, 48): 500}, 100_000, (48, 48), (48, 48)),
    "long strips": ({(20, 300): 600}, 100_000, (20, 20), (20, 20)),
    "hardly more than square": ({(50, 49): 600, (50, 50): 1}, 100_000, (48, 48), (48, 48)),
}


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        ((90, 25, 25), "balanced_accuracy"),
        ((50, 50, 50), "accuracy"),
        ((90, 80, 40), "accuracy"),
        ((200, 70, 60), "balanced_accuracy"),
    ],
)
def test_balanced_accuracy_is_proposed_for_unbalanced_classes(counts: tuple[int, ...], metric: str) -> None:
    """The commonest has more than a third of the images and three times as many as the rarest."""
    seen = seen_of({(32, 32): sum(counts)}, counts={"all": counts})
    proposal = propose(seen, 20_000)
    text = study_text.study_text("mine", Path("/studies/mine"), 20_000, seen, proposal, study_text.ImageProblems())
    assert proposal.metric == metric and (f'metric = "{metric}"' in text) == (metric != "accuracy")
    share = f"{max(counts) / sum(counts):.1%}"
    assert (f"that guess has 33.3% of it, and {share} accuracy" in text) == (metric != "accuracy")


@pytest.mark.parametrize("case", SIZES)
def test_the_size_is_near_the_median_as_far_as_the_budget_has_use_for_it(case: str) -> None:
    sizes, budget, size, shape = SIZES[case]
    found = propose(seen_of(sizes), budget)
    assert (found.size, found.input) == (size, (*shape, 3))
    assert found.why["size"]


def test_specks_are_rejected() -> None:
    with pytest.raises(UserError, match="half of the images are 7 pixels or fewer across, at least 8 are needed"):
        propose(seen_of({(7, 7): 90}), 10_000)


@pytest.mark.parametrize(
    ("changes", "flip"),
    [
        ({}, True),
        ({"classes": tuple("012")}, False),
        ({"classes": ("left", "right", "up")}, False),
        ({"classes": ("turn-left", "stop", "go")}, False),
        ({"classes": ("leftovers", "upright", "cake")}, True),
        ({"is_grey": True}, False),
        ({"transparent": 50_000}, False),
        ({"transparent": 10}, True),
    ],
)
def test_only_what_looks_like_photographs_is_flipped(changes: dict[str, Any], flip: bool) -> None:
    found = propose(seen_of({(32, 32): 60_000}, **changes), 100_000)
    assert found.flip == flip
    assert ("no flip" in found.why["augment"]) != flip


def test_for_cifar_10_it_is_much_like_the_shipped_study() -> None:
    found, shipped = propose(CIFAR, 100_000), study_file.load(ROOT / "studies/cifar10_100k/study.toml")
    assert isinstance(shipped.space, Pyramid)
    assert (found.blocks, found.pools) == ((5, 10), (1, 3))
    assert sorted(shipped.space.blocks.values) == [5, 10]
    assert (found.batch_size, found.epochs, found.flip, found.crop) == (128, 50, True, 4)
    assert abs(found.width[1] / 256 - 1) < 0.1
    assert abs(compute_cost(found.base).params / 1_172_410 - 1) < 0.2


SEEN = st.builds(
    lambda sizes, classes, grey: seen_of(
        dict.fromkeys(sizes, 300),
        classes=tuple(f"class {number}" for number in range(classes)),
        counts={"all": (len(sizes) * 300 // classes + 1,) * classes},
        is_grey=grey,
    ),
    st.sets(st.tuples(st.integers(8, 300), st.integers(8, 300)), min_size=1, max_size=5),
    st.integers(2, 200),
    st.booleans(),
)


@settings(max_examples=15)
@given(seen=SEEN, budget=st.sampled_from([1_000, 5_000, 20_000, 100_000, 1_000_000]))
def test_any_proposal_can_be_searched(seen: ImageFacts, budget: int) -> None:
    """The smallest network fits, or the budget is told to be out of reach; the base exists, at some ten times the budget."""
    found = propose(seen, budget)
    space = Pyramid.model_validate(space_table(found))
    base = compute_cost(found.base)
    assert resolve(found.base)[-1].output[-1] == len(seen.classes)
    assert base.params < 20 * budget or len(seen.classes) > 20 or budget < 5_000
    assert base.params > 2 * budget
    try:
        check(space, Budget(params=budget), found.input, len(seen.classes))
    except UserError as error:
        assert "is out of reach" in str(error) and budget <= 5_000
