"""Lines that `run` and `finals` print around their trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli.run import _winner_text
from search.errors import StudyStopped
from search.runner import supervisor
from tests.support import commands
from tests.support.synthetic import fill, noise_images, synthetic_run


def test_run_names_what_the_winner_lacks_of_the_tasks_checklist(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, recipe__epochs=2, space__dropout=0, space__pool_dropout=0, space__head_dropout=0)
    fill(run, noise_images(), 4)
    text = _winner_text(run)
    assert "Not met by the winner: dropout used (no layer of a rate above 0)." in text.splitlines()
    assert "separable convolutions only" not in text


@pytest.mark.parametrize(("seeds", "is_told"), [("1", True), ("2", True), ("5", False)])
def test_finals_say_that_seeds_are_few_before_anything_is_read(
    seeds: str, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = synthetic_run(tmp_path / "run", recipe__epochs=2)
    fill(run, noise_images(), 2)
    (tmp_path / "synthetic.toml").touch()

    def supervise(*arguments: object) -> None:
        raise StudyStopped("nothing was trained")

    monkeypatch.setattr(supervisor, "supervise", supervise)
    ended = commands.search("finals", tmp_path / "synthetic.toml", "--out", tmp_path / "run", "--seeds", seeds)
    assert (ended.status, ended.err) == (1, "nothing was trained\n")
    count = "1 seed is few" if seeds == "1" else f"{seeds} seeds are few"
    told = f"{count}, and the test images, which are read once, will be read with them: Ctrl-C and --seeds 5 is better."
    assert (told in " ".join(ended.out.split())) == is_told
