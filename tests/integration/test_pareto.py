"""Pareto fronts: computed, printed, drawn and exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report import rows
from report.device import card_lines
from report.pareto import front_board, front_table
from report.pareto_export import FOLDER, INDEX, WORDS, export_front
from search.budget.cost import compute_cost
from search.budget.metrics import METRICS
from search.cli.commands import app
from search.errors import UserError
from search.export.exporter import Exported, export
from search.files import read_json, write_json
from search.networks.architecture import to_dict
from search.study import records as study_records
from search.study import run as studies
from search.study.config import STUDIES
from search.study.pareto import add_costs, check_metrics, front_indices, select_front
from search.study.records import Record
from search.study.references import named
from search.study.run import Opened, Run, network_of
from search.study.trained import Trained
from tests.support.reports import hand_made, record, rejected
from tests.support.runs import Bench, Pretence, bench, finished, pretence, pretend, search, small_run, study_file
from tests.support.synthetic import fill, noise_images, storages_in_memory, synthetic_run

__all__ = ["bench", "finished", "pretence"]


Point = tuple[int, ...]  # costs, then the accuracy


# --- the front -------------------------------------------------------------------------------------------------------


def test_the_front_of_a_circle_is_its_upper_left_quarter() -> None:
    """Points of a circle in steps of 15 degrees: from the leftmost, up, to the topmost."""
    angles = [pi * step / 12 for step in range(24)]
    assert front_indices([(-cos(angle),) for angle in angles], [sin(angle) for angle in angles]) == [0, 1, 2, 3, 4, 5, 6]


def test_the_front_of_a_ball_is_an_eighth_of_it() -> None:
    """Of a grid of points in a ball, those of its surface towards two low prices and a high accuracy."""
    grid = [point for point in product(range(-4, 5), repeat=3) if sum(value * value for value in point) <= 16]
    found = {grid[place] for place in front_indices([point[:2] for point in grid], [point[2] for point in grid])}
    assert {(-4, 0, 0), (0, -4, 0), (0, 0, 4), (-3, -2, 1), (-2, -2, 2), (-1, -3, 2)} <= found
    assert all(x <= 0 and y <= 0 and z >= 0 for x, y, z in found)
    assert all((x - 1) ** 2 + y * y + z * z > 16 for x, y, z in found), "none that a point next to it is better than"


def beats(one: Point, other: Point) -> bool:
    *cheap, accurate = one
    *dear, less = other
    return one != other and accurate >= less and all(a <= b for a, b in zip(cheap, dear, strict=True))


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 3)] * (n + 1)), max_size=30)))
def test_the_front_is_what_no_other_point_beats(points: list[Point]) -> None:
    found = front_indices([point[:-1] for point in points], [point[-1] for point in points])
    unbeaten = {point for point in points if not any(beats(other, point) for other in points)}
    assert sorted(points[place] for place in found) == sorted(unbeaten), "each once"
    assert all(place == points.index(points[place]) for place in found), "of equal points the first stays"
    prices = [points[place][:-1] for place in found]
    assert prices == sorted(prices)


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=20), st.randoms(use_true_random=False))
def test_the_front_is_the_same_points_in_whatever_order(points: list[Point], generator: Any) -> None:
    def of(some: Sequence[Point]) -> list[Point]:
        return [some[place] for place in front_indices([point[:-1] for point in some], [point[-1] for point in some])]

    shuffled = list(points)
    generator.shuffle(shuffled)
    assert of(shuffled) == of(points) == of(of(points))


def test_the_front_has_trained_candidates_of_known_cost() -> None:
    found = [
        record(0, 0.80, 5_000, costs={"flash_bytes": 9_000}),
        record(1, 0.90, 7_000, costs={"flash_bytes": 8_000}),
        record(2, 0.99, 100),
        record(3, 0.99, 100, outcome="pruned_at_rung", costs={"flash_bytes": 10}),
        rejected(4),
    ]
    assert [one.number for one in select_front(found, ["params"])] == [2]
    assert [one.number for one in select_front(found[:2], ["params"])] == [0, 1]
    assert [one.number for one in select_front(found, ["flash_bytes"])] == [1]
    assert [one.number for one in select_front(found, ["params", "flash_bytes"])] == [0, 1]


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_are_checked_and_each_taken_once() -> None:
    assert check_metrics(["macs", "params", "macs"]) == ("macs", "params")
    with pytest.raises(UserError, match=r"--pareto flash: no such metric, did you mean 'flash_bytes'\?"):
        check_metrics(["macs", "flash"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Twenty candidates of the study for a microcontroller, and its base."""
    with storages_in_memory():
        run = synthetic_run(tmp_path_factory.mktemp("run"), STUDIES / "tinyml" / "study.toml", search__rungs=None)
        made = fill(run, noise_images(), 20)
        return Opened(run, study_records.records(made.candidates), study_records.records(made.references)), made


def test_the_costs_of_a_run_are_those_of_its_networks(small: Any) -> None:
    opened, made = small
    assert opened.candidates[0].cost("arena_bytes") is None, "not stored"
    found = add_costs(opened, METRICS, made)
    for one in found.candidates:
        cost = compute_cost(network_of(opened.run, one.number, made))
        assert {name: one.cost(name) for name in METRICS} == {name: getattr(cost, name) for name in METRICS}
        assert cost.flash_bytes <= 64 * 1024
    (base,) = found.references
    assert base.cost("arena_bytes") == compute_cost(named("eip-a").architecture).arena_bytes
    assert add_costs(found, METRICS, made) is found, "nothing is reckoned twice"
    assert [one.best_val_accuracy for one in found.candidates] == [one.best_val_accuracy for one in opened.candidates]


def test_a_reference_is_priced_as_it_was_trained(small: Any, tmp_path: Path) -> None:
    """From the file that is named where that is the network still, else from what the run has kept, else not at all."""
    opened, made = small
    run = replace(opened.run, folder=tmp_path, config=opened.run.config.model_copy(update={"base": "eip-d"}))
    trial = made.references.get_trials(deepcopy=False)[0]
    other = replace(opened.references[0], reference="eip-a")
    known, size = Opened(run, [], [other]), compute_cost(named("eip-a").architecture).flash_bytes
    assert add_costs(known, ["flash_bytes"], made).references[0].cost("flash_bytes") == size
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trial.user_attrs, "reference", "mine")  # no shipped one of this name
        assert add_costs(known, ["flash_bytes"], made).references[0].cost("flash_bytes") is None
        kept = {"architecture": to_dict(named("eip-a").architecture)}
        write_json(tmp_path / "references" / "mine" / "training.json", kept)
        assert add_costs(known, ["flash_bytes"], made).references[0].cost("flash_bytes") == size
        write_json(
            tmp_path / "references" / "mine" / "training.json", {"architecture": to_dict(named("eip-b").architecture)}
        )
        assert add_costs(known, ["flash_bytes"], made).references[0].cost("flash_bytes") is None, "another network"


# --- as rows and as a table ------------------------------------------------------------------------------------------

FOUND = [record(0, 0.80, 5_000, macs=900), record(1, 0.90, 7_000, macs=800), record(2, 0.85, 7_900, macs=700)]
OPPONENTS = [record(0, 0.99, 10, reference="base", macs=10), record(1, 0.7, 7_500, reference="own", macs=600)]


def test_references_stand_beside_the_front_and_take_no_place_in_it() -> None:
    board = front_board(Opened(hand_made(), FOUND, OPPONENTS), ["macs"])
    assert [(row["number"], row["rank"], row["macs"]) for row in board["trials"]] == [(2, 2, 700), (1, 1, 800)]
    assert (board["base"]["params"], board["base"]["macs"], board["references"][0]["macs"]) == (10, 10, 600)
    table = front_table(board)
    assert table.columns == ("rank", "trial", "macs", "params", "best", "epoch", "last", "against base")
    labels = ("rank", "trial", "multiply-adds per image", "parameters", "best", "epoch", "last", "against base")
    assert front_table(board, is_page=True) == (labels, table.rows)
    memory = front_board(Opened(hand_made(), [], []), ["flash_bytes"])
    assert front_table(memory, is_page=True).columns[2] == "bytes of flash in int8"
    assert [row[:5] for row in table.rows] == [
        ("", "base", "10", "10", "99.00%"),
        ("", "own", "600", "7,500", "70.00%"),
        ("2", "2", "700", "7,900", "85.00%"),
        ("1", "1", "800", "7,000", "90.00%"),
    ]
    assert [row[-1] for row in table.rows] == ["", "-29.00", "-14.00", "-9.00"]


def test_a_base_that_is_a_plain_accuracy_or_not_trained_has_no_cost() -> None:
    plain = front_board(Opened(hand_made(base=0.84), FOUND, []), ["params", "macs"])
    assert [row["number"] for row in plain["trials"]] == [0, 1, 2], "each is the best in something"
    assert front_table(plain).rows[0] == ("", "base", "", "", "84.00%", "", "", "")
    none = front_board(Opened(hand_made(), FOUND, []), ["macs"])
    assert none["base"] is None and front_table(none).rows[0][-1] == ""
    empty = front_board(Opened(hand_made(), [], []), ["macs"])
    assert (empty["trials"], front_table(empty).rows) == ([], [])


def test_top_and_a_notebook_tell_the_same_front(finished: Run) -> None:
    words = ("--pareto", "arena_bytes", "--pareto", "macs")
    told = json.loads(search("top", str(study_file(finished)), *words, "--json"))["front"]
    found = studies.open_study(str(study_file(finished)))
    assert told == front_board(found, ("arena_bytes", "macs")) | {"val_images": 359}
    table = rows.front(found, "arena_bytes", "macs")
    assert [row["number"] for row in table] == [row["number"] for row in told["trials"]]
    assert list(table[0])[:5] == ["rank", "number", "arena_bytes", "macs", "params"]
    with pytest.raises(UserError, match="no such metric"):
        rows.front(found, "size")
    shown = search("top", str(study_file(finished)), *words)
    for row in told["trials"]:
        assert f"{row['arena_bytes']:,}" in shown
    assert (
        f"{len(told['trials'])} of 2 trained candidates: no other is as accurate and takes no more bytes of arena and "
        "multiply-adds." in shown
    )


# --- taken away ------------------------------------------------------------------------------------------------------


def cards(best: Trained, folder: Path) -> Exported:
    """The card of each network, which needs no Keras."""
    parts: dict[str, Any] = {"weights": best.weights, "facts": best.facts, "pixels": best.pixels, "recipe": best.recipe}
    return export(best.architecture, folder, formats=("json",), **parts)


@pytest.fixture(scope="module")
def sloping(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A run, to be read, in which a larger network is more accurate, in steps."""
    with pytest.MonkeyPatch.context() as patch:
        found = Bench(small_run(tmp_path_factory.mktemp("sloping") / "run"), pretend(patch))

        def accuracy() -> float:
            return float(0.3 + found.events[-1].params // 300 / 10)

        found.plays += [accuracy] * 7
        for _ in range(7):
            found.one_trial()
    return found


@pytest.fixture
def changing(sloping: Bench, pretence: Pretence, tmp_path: Path) -> Bench:
    """The same in a folder of its own."""
    shutil.copytree(sloping.run.folder, tmp_path / "copied")
    return Bench(small_run(tmp_path / "copied"), pretence)


def test_every_network_of_the_front_has_a_folder_and_the_index_tells_of_it(sloping: Bench, tmp_path: Path) -> None:
    cheapest: dict[float | None, Record] = {}
    for one in sorted(sloping.records, key=lambda one: (one.params or 0, one.number)):
        cheapest.setdefault(one.best_val_accuracy, one)
    numbers = [one.number for one in cheapest.values()]
    assert 2 <= len(numbers) < 7, "some are beaten, and not all"
    taken = export_front(sloping.run, ["params"], tmp_path / "to", cards)
    assert taken.failures == []
    index = read_json(tmp_path / "to" / INDEX)
    assert index == taken.index and (index["prices"], index["failed"], index["protocol"]) == (["params"], {}, "holdout")
    assert {path.name for path in (tmp_path / "to").iterdir()} == {INDEX, WORDS, *(f"trial-{one}" for one in numbers)}
    for row, record_of in zip(index["trials"], cheapest.values(), strict=True):
        folder = tmp_path / "to" / row["folder"]
        assert (row["number"], row["params"]) == (record_of.number, record_of.params)
        assert row["files"] == {path.name: path.stat().st_size for path in folder.iterdir()}
        card = read_json(folder / "best_model.json")
        assert (card["trial"], card["params"]) == (row["number"], row["params"])
        assert card["scores"]["best_val_accuracy"] == row["best_val_accuracy"] and row["ranked_by"] == "float"
    words = (tmp_path / "to" / WORDS).read_text()
    assert f"{len(numbers)} of 7 trained candidates" in words
    for row in index["trials"]:
        assert f"| {row['folder']} | {row['params']:,} | {row['best_val_accuracy']:.1%} |" in words
    assert taken.table.columns == ("", "params", "accuracy"), "of what was not made there is no column"
    assert "device" not in index, "none is asked for, and the budget names none"


def test_the_index_of_a_front_has_a_card_of_each_network_on_the_device(
    sloping: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(best: Trained, folder: Path) -> Exported:
        exported = cards(best, folder)
        facts = {**exported.facts, "int8": {"val_accuracy": 0.25}}
        return replace(exported, paths={**exported.paths, "int8": ()}, facts=facts)

    board = export_front(sloping.run, ["params"], tmp_path / "to", measured, "64KB/32KB").index["device"]
    rows = read_json(tmp_path / "to" / INDEX)["trials"]
    assert [card["number"] for card in board["cards"]] == [row["number"] for row in rows]
    words = (tmp_path / "to" / WORDS).read_text()
    assert "## On 64KB/32KB" in words and words.count("bytes of arena") == len(rows)
    for card in board["cards"]:
        assert card["int8_val_accuracy"] == 0.25
        assert "\n".join(card_lines(board, card)) in words
    (tmp_path / "tiny.toml").write_text("")
    top = ["top", str(tmp_path / "tiny.toml"), "--out", str(sloping.run.folder), "--pareto", "params"]
    app([*top, "--device", "64KB/32KB", "--json"], standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)["device"]
    assert [card["arena_bytes"] for card in printed["cards"]] == [card["arena_bytes"] for card in board["cards"]]
    with pytest.raises(UserError, match="--device: '64K' is no known chip"):
        app([*top, "--device", "64K"], standalone_mode=False)


def test_one_that_fails_is_named_and_the_others_are_there(sloping: Bench, tmp_path: Path) -> None:
    numbers = [one.number for one in select_front(sloping.records, ["params"])]
    first, *others = numbers

    def fails(*failing: int) -> Callable[..., Exported]:
        def write(best: Trained, folder: Path) -> Exported:
            if best.facts["trial"] in failing:
                raise RuntimeError("export: the int8 form cannot be made:\nno such operator")
            return cards(best, folder)

        return write

    taken = export_front(sloping.run, ["params"], tmp_path, fails(first))
    assert taken.failures == [(f"trial {first}", "export: the int8 form cannot be made: no such operator")]
    assert [row["number"] for row in read_json(tmp_path / INDEX)["trials"]] == others
    assert (
        f"Not exported: trial {first} (export: the int8 form cannot be made: no such operator)."
        in (tmp_path / WORDS).read_text()
    )
    assert not (tmp_path / f"trial-{first}").exists()
    with pytest.raises(UserError, match=rf"^trial {first}: export: the int8 form"):
        export_front(sloping.run, ["params"], tmp_path / "none", fails(*numbers))
    assert not (tmp_path / "none").exists()


def test_the_command_ends_with_1_where_one_of_them_could_not_be_exported(
    changing: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = [one.number for one in select_front(changing.records, ["params"])]
    (changing.run.folder / "trials" / str(first) / "weights.npz").write_bytes(b"damaged")
    (tmp_path / "tiny.toml").write_text("")  # the run folder has what was asked for
    words = ["export", str(tmp_path / "tiny.toml"), "--out", str(changing.run.folder), "--pareto", "params"]
    words += ["--form", "json", "--to", str(tmp_path / "to")]
    assert app(words, standalone_mode=False) == 1
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith(f"trial {first}: {changing.run.folder}/trials/{first}/weights.npz")
    assert all(f"trial-{number}" in told.out for number in others) and f"trial-{first}" not in told.out
    assert [row["number"] for row in read_json(tmp_path / "to" / INDEX)["trials"]] == others


def test_a_network_that_was_trained_elsewhere_is_rejected_before_anything_is_written(
    changing: Bench, tmp_path: Path
) -> None:
    number = select_front(changing.records, ["params"])[-1].number
    (changing.run.folder / "trials" / str(number) / "weights.npz").unlink()
    with pytest.raises(UserError, match=f"no weights of trial {number}, trained on another machine"):
        export_front(changing.run, ["params"], tmp_path / "to", cards)
    assert not (tmp_path / "to").exists()


def test_folders_of_an_earlier_export_that_left_the_front_are_reported(changing: Bench, tmp_path: Path) -> None:
    before = export_front(changing.run, ["params"], tmp_path, cards)
    changing.plays[:] = [0.99]
    best = changing.one_trial()
    after = export_front(changing.run, ["params"], tmp_path, cards)
    costs = {row["folder"]: row["params"] for row in before.index["trials"]}
    gone = [folder for folder, params in costs.items() if params >= best.user_attrs["params"]]
    assert (before.outdated, list(after.outdated)) == ((), gone)
    (tmp_path / INDEX).write_text("[]")
    assert export_front(changing.run, ["params"], tmp_path, cards).outdated == ()


def test_a_run_without_a_trained_candidate_has_no_front_to_export(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no candidate has been trained yet"):
        export_front(bench.run, ["params"], tmp_path / "to", cards)


def test_the_front_is_exported_in_integers(finished: Run, tmp_path: Path) -> None:
    words = ("export", str(study_file(finished)), "--pareto", "flash_bytes", "--form", "int8", "--to", str(tmp_path))
    shown, found = search(*words), studies.open_study(str(study_file(finished)))
    index = read_json(tmp_path / INDEX)
    assert [row["number"] for row in index["trials"]] == [row["number"] for row in rows.front(found, "flash_bytes")]
    for row in index["trials"]:
        content = (tmp_path / row["folder"] / "best_model_int8.tflite").read_bytes()
        told = row["forms"]["int8"]
        assert told["bytes"] == row["files"]["best_model_int8.tflite"] == len(content)
        assert row["flash_bytes"] == pytest.approx(len(content), rel=0.05), "as it was reckoned"
        line = f"{row['folder']} │ {row['flash_bytes']:,}"
        assert " ".join(line.split()) in " ".join(shown.split())
        assert f"{told['val_accuracy']:.1%}" in shown and f"{len(content):,}" in shown
    assert not (finished.folder / FOLDER).exists(), "where --to says"
