"""Reference networks: those that ship and architecture files with a recipe beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import UserError
from search.study import references
from search.study.config import (
    STUDIES,
)
from search.study.study_file import parse
from tests.support.strategies import REFERENCES
from tests.support.study_files import COSINE, one_line, plain_study


def test_with_rungs_the_base_takes_the_schedule_of_the_study_and_no_other_reference_does() -> None:
    """So that it can be laid beside the candidates at a rung; what else it was published with, it keeps."""
    study = {"recipe": {"epochs": 8, "schedule": COSINE, "ema": 0.9}, "search": {"rungs": {"first": 2}}}
    config, plainly = (
        parse(plain_study(base="eip-c", **study), "file"),
        parse(plain_study(base="eip-c", recipe=study["recipe"]), "file"),
    )
    base, other = references.find("eip-c"), references.find("eip-d")
    own = base.recipe
    assert own is not None
    assert own.schedule.kind == "inverse-time"
    with_rungs = references.recipe_of(config, base)
    assert (with_rungs.epochs, with_rungs.schedule.kind, with_rungs.restarts, with_rungs.ema) == (8, "cosine", (2, 6), 0.9)
    assert with_rungs.learning_rate == own.learning_rate
    for found, reference in ((plainly, base), (config, other)):
        one_line = references.recipe_of(found, reference)
        assert reference.recipe is not None
        assert one_line == reference.recipe.model_copy(update={"epochs": 8})


@pytest.mark.parametrize("name", REFERENCES)
def test_a_shipped_reference_has_its_network_recipe_and_published_accuracy(name: str) -> None:
    found = references.find(name)
    assert (found.name, found.architecture.name) == (name, name)
    assert (found.architecture.input, found.architecture.classes) == ((32, 32, 3), 10)
    assert found.recipe is not None
    assert found.published is not None
    assert found.recipe.epochs == 50
    assert found.published.final_val_accuracy <= found.published.best_val_accuracy
    assert 1 <= found.published.best_epoch <= 50
    assert references.published_curves()[name] == found.published.val_accuracies
    assert len(found.published.val_accuracies) == 50


def test_all_references_that_ship_are_known() -> None:
    assert references.names() == sorted(REFERENCES)


def test_an_architecture_file_is_a_reference_without_a_recipe_or_with_the_one_beside_it(tmp_path: Path) -> None:
    source = STUDIES / "quickstart" / "base.json"
    own = tmp_path / "own net.json"
    own.write_bytes(source.read_bytes())
    found = references.find(str(own))
    assert (found.name, found.recipe, found.published) == ("own_net", None, None)
    own.with_suffix(".toml").write_text("[recipe]\nepochs = 3\n", encoding="utf-8")
    recipe = references.find(str(own)).recipe
    assert recipe is not None
    assert recipe.epochs == 3


@pytest.mark.parametrize("sheet", ["[recipe]\nepoch = 3\n", "[recipe]\nepochs = 0\n", "recipe", "[published]\n", "\xff"])
def test_a_bad_sheet_beside_a_reference_is_reported(sheet: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes((STUDIES / "quickstart" / "base.json").read_bytes())
    (tmp_path / "own.toml").write_bytes(sheet.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        references.find(str(tmp_path / "own.json"))
    assert one_line(caught).startswith(str(tmp_path / "own.toml"))
    if sheet.startswith("["):
        assert one_line(caught).endswith("; it is read as the recipe of own.json beside it")


def test_published_figures_that_their_own_log_contradicts_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes((STUDIES / "quickstart" / "base.json").read_bytes())
    told_best = (
        "[published]\nbest_val_accuracy = {}\nbest_epoch = 2\nfinal_val_accuracy = 0.4\nval_accuracies = [0.3, 0.5, 0.4]\n"
    )
    sheet, recipe = tmp_path / "own.toml", "[recipe]\nepochs = 3\n"
    sheet.write_text(told_best.format(0.5) + recipe, encoding="utf-8")
    published = references.find(str(tmp_path / "own.json")).published
    assert published and published.val_accuracies == (0.3, 0.5, 0.4)
    sheet.write_text(told_best.format(0.6) + recipe, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"val_accuracies: their best, its epoch and the last are \(0.5, 2, 0.4\), not \(0.6"
    ):
        references.find(str(tmp_path / "own.json"))


@pytest.mark.parametrize(("typo", "meant"), [("eip_b", "eip-b"), ("bse", "base"), ("../base", "base")])
def test_a_misspelt_reference_is_reported_with_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"did you mean '{meant}'\?") as caught:
        references.find(typo)
    assert repr(typo) in one_line(caught)
