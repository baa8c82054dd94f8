"""report.figures.data and report.figures.curves, on records made by hand."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plotly.graph_objects import Figure

from report.figures import curves as figures
from report.figures import data as rows
from report.figures.progress import progress
from report.figures.style import COLOURS, GREY
from search.storage.urls import sqlite_url
from search.study import config as configs
from search.study import references as known
from search.study import study_file
from search.study.records import Record
from search.study.run import Run
from tests.support.figures import plain, trace
from tests.support.reports import hand_made, record, rejected

NOWHERE = Path("nowhere")


def cifar(study: str = "cifar10_100k", overrides: dict[str, Any] | None = None) -> Run:
    config = study_file.load(configs.STUDIES / study / "study.toml", overrides or {})
    return Run(study, NOWHERE, config, sqlite_url(NOWHERE))


def pruned(number: int, best: float, params: int = 5_000) -> Record:
    return record(number, best, params, outcome="pruned_at_rung", reason="behind others", epochs=2, curve=(best / 2, best))


# --- learning curves -------------------------------------------------------------------------------------------------


def test_curves_are_those_of_the_base_the_best_and_the_other_references() -> None:
    found = [record(number, 0.5 + number / 100) for number in range(8)]
    opponents = [record(0, 0.9, reference="base"), record(1, 0.7, reference="other")]
    told = rows.curves(hand_made(), [*found, rejected(8), pruned(9, 0.99)], opponents, top=3)
    assert [(row.name, row.role) for row in told] == [
        ("base", "base"),
        ("trial 7", "candidate"), ("trial 6", "candidate"), ("trial 5", "candidate"),
        ("other", "reference"),
    ]  # fmt: skip
    assert told[1].accuracies == pytest.approx((0.285, 0.57, 0.56))


def test_a_plain_accuracy_is_drawn_as_a_level() -> None:
    (row,) = rows.curves(hand_made(base=0.84), [], [])
    assert row.role == "base" and set(row.accuracies) == {0.84} and len(row.accuracies) == 10


def test_published_logs_are_shown_for_all_of_cifar10_alone() -> None:
    told = [row for row in rows.curves(cifar(), [], []) if row.role == "published"]
    assert [row.name.removesuffix(", published") for row in told] == known.names(), "of each shipped net, the base's first"
    assert {len(row.accuracies) for row in told} == {50}
    assert max(told[0].accuracies) == 0.8287
    other = replace(cifar(), config=cifar().config.model_copy(update={"base": "eip-c"}))
    assert rows.curves(other, [], [])[0].name == "eip-c, published"
    short = rows.curves(cifar(overrides={"recipe.epochs": 7}), [], [])
    assert [row.accuracies for row in short] == [row.accuracies[:7] for row in told], "as many epochs as are trained"
    assert rows.curves(cifar(overrides={"data.images": 5_000}), [], []) == []
    assert rows.curves(hand_made(), [], []) == []
    traces = plain(figures.learning_curves(cifar(), [], []))["data"]
    assert [one["name"].partition(" (")[0] for one in traces] == [row.name for row in told]
    assert len({one["marker"]["symbol"] for one in traces}) == len(told), "each log has its own symbol"


def test_the_learning_curves_stay_small() -> None:
    curve = tuple(0.123456789 + epoch / 100 for epoch in range(50))
    found = [record(number, 0.5, curve=curve, epochs=50) for number in range(9)]
    figure = figures.learning_curves(hand_made(), found, [record(0, 0.9, reference="base", curve=curve)])
    traces = plain(figure)["data"]
    trials = [f"trial {n} (61.35%)" for n in range(5)]
    assert [one["name"] for one in traces] == [
        "other candidates (4)", "base (61.35%)", *trials[1:], "next best (4)", trials[0],
    ]  # fmt: skip
    assert traces[1]["x"] == list(range(1, 51))
    assert traces[-1]["line"]["color"] == COLOURS[0] and traces[1]["line"]["dash"] == "dash"
    assert [one["name"] for one in traces if one.get("showlegend", True)] == [
        "other candidates (4)", "base (61.35%)", "next best (4)", "trial 0 (61.35%)",
    ]  # fmt: skip
    assert len(figure.to_json()) < 9_000


def test_winner_and_base_are_labelled_at_their_ends_on_two_sides() -> None:
    found, base = [record(number, 0.5 + number / 100) for number in range(3)], [record(0, 0.9, reference="base")]
    labels = plain(figures.learning_curves(hand_made(), found, base))["layout"]["annotations"]
    assert [(one["text"], one["yanchor"]) for one in labels] == [("base", "bottom"), ("trial 2", "top")]
    assert all(one["x"] == len(found[0].curve) and one["xanchor"] == "left" for one in labels)


def test_the_accuracy_axis_shows_where_the_curves_differ() -> None:
    """It leaves the first epochs out, and no highlighted curve near its end."""
    curves = [tuple(end * (1 - 0.9 * 0.8**epoch) for epoch in range(50)) for end in (0.80, 0.84, 0.85)]
    found = [record(number, max(curve), curve=curve, epochs=50) for number, curve in enumerate(curves)]
    low, high = plain(figures.learning_curves(hand_made(), found, []))["layout"]["yaxis"]["range"]
    assert 0.75 < low < 0.8 and 0.85 < high < 0.87
    assert all(low < value < high for curve in curves for value in curve[38:])


def test_of_many_candidates_the_middle_four_fifths_are_a_band() -> None:
    curves = [(0.1 * number / 40, 0.5 + 0.1 * number / 40) for number in range(41)]
    found = [record(number, curve[1], curve=curve, epochs=2) for number, curve in enumerate(curves)]
    found += [pruned(50 + number, 0.4) for number in range(3)]
    figure = figures.learning_curves(hand_made(), found, [], top=1)
    band, median = trace(figure, "middle 80 % of other candidates (43)"), trace(figure, "their median")
    spreads = rows.middle_band(rows.other_curves(found, 1))
    assert [spread.epoch for spread in spreads] == [1, 2]
    assert spreads[1].low == pytest.approx(0.5, abs=0.02) and spreads[1].high == pytest.approx(0.59, abs=0.01)
    assert band["x"] == [1, 2, 2, 1] and median["y"] == [spread.middle for spread in spreads]
    assert rows.middle_band([rows.Curve("one", "candidate", (0.1, 0.2))] * 4) == [], "too few for a spread"


def test_a_study_without_trials_has_empty_figures() -> None:
    run = hand_made()
    assert plain(figures.learning_curves(run, [], []))["data"] == []
    assert plain(progress(run, [], []))["data"] == []
    assert plain(figures.accuracy_by_cost(run, [], [], "params"))["data"] == []
    assert plain(figures.accuracy_by_cost(run, [], [], "macs"))["data"] == []
    assert figures.refusals(run, []) is None


# --- accuracy against cost -------------------------------------------------------------------------------------------


FOUND = [
    record(0, 0.80, 5_000, macs=900),
    record(1, 0.90, 7_000, macs=800),
    record(2, 0.85, 7_900, macs=700),
    pruned(3, 0.95, 4_000),
    rejected(4),
    record(5, 0.99, 100, outcome="diverged"),
]


OPPONENTS = [record(0, 0.88, 82_090, reference="base"), record(1, 0.7, 7_500, reference="own")]


def test_each_network_is_a_point_of_its_role() -> None:
    told = rows.points(hand_made(), FOUND, OPPONENTS, "params")
    assert [(point.name, point.role, point.cost, point.accuracy) for point in told] == [
        ("trial 0", "candidate", 5_000, 0.8),
        ("trial 1", "candidate", 7_000, 0.9),
        ("trial 2", "candidate", 7_900, 0.85),
        ("trial 3", "pruned", 4_000, 0.95),
        ("base", "base", 82_090, 0.88),
        ("own", "reference", 7_500, 0.7),
    ]
    assert [point.cost for point in rows.points(hand_made(), FOUND[:3], [], "macs")] == [900, 800, 700]
    (level,) = rows.points(hand_made(base=0.84), [], [], "params")
    assert (level.role, level.cost, level.accuracy) == ("base", None, 0.84)


def test_trained_points_are_filled_and_pruned_ones_hollow() -> None:
    figure = figures.accuracy_by_cost(hand_made(), FOUND, OPPONENTS, "params")
    filled, hollow = trace(figure, "trained (3)"), trace(figure, "pruned at a rung (1)")
    assert (filled["x"], filled["y"], filled["customdata"]) == ([5_000, 7_000, 7_900], [0.8, 0.9, 0.85], [0, 1, 2])
    assert (hollow["x"], hollow["customdata"]) == ([4_000], [3])
    assert filled["marker"]["color"] == COLOURS[1] and hollow["marker"]["color"] == "rgba(0,0,0,0)"


def test_the_front_is_that_of_the_trained_and_ends_at_the_budget() -> None:
    figure = figures.accuracy_by_cost(hand_made(), FOUND, OPPONENTS, "params")
    front = trace(figure, "Pareto front")
    assert (front["x"], front["y"]) == ([5_000, 7_000, 8_000], [0.8, 0.9, 0.9])
    macs = figures.accuracy_by_cost(hand_made(), FOUND, [], "macs")
    assert trace(macs, "Pareto front")["x"] == [700, 800, plain(macs)["layout"]["xaxis"]["range"][1]]


def test_the_winner_is_a_labelled_star_with_the_interval_of_its_accuracy() -> None:
    noise = figures.Noise(0.88, 0.915)
    figure = figures.accuracy_by_cost(hand_made(), FOUND, OPPONENTS, "params", noise=noise)
    star = trace(figure, "winner: trial 1 (90.00%)")
    assert (star["x"], star["y"], star["text"], star["marker"]["symbol"]) == ([7_000], [0.9], ["trial 1"], "star")
    assert (star["error_y"]["array"], star["error_y"]["arrayminus"]) == ([0.015], [0.02])
    assert "error_y" not in trace(figures.accuracy_by_cost(hand_made(), FOUND, [], "params"), "winner")


def test_the_hover_text_names_the_network() -> None:
    figure = figures.accuracy_by_cost(hand_made(), FOUND, [], "params", networks={0: "2 blocks: 8-16"})
    points = trace(figure, "trained (3)")
    assert points["customdata"] == [[0, "2 blocks: 8-16"], [1, ""], [2, ""]]
    assert "%{customdata[1]}" in points["hovertemplate"]


def test_beyond_the_budget_is_shaded() -> None:
    shade, line = plain(figures.accuracy_by_cost(hand_made(), FOUND, [], "params"))["layout"]["shapes"]
    assert (shade["type"], shade["x0"], line["x0"]) == ("rect", 8_000, 8_000)
    assert line["line"] == {"color": GREY, "width": 2}


def test_a_base_far_over_the_budget_is_at_the_edge_with_its_cost_and_a_level() -> None:
    figure = figures.accuracy_by_cost(hand_made(), FOUND, OPPONENTS, "params")
    layout = plain(figure)["layout"]
    low, high = layout["xaxis"]["range"]
    assert 3_000 < low < 4_000 and 8_000 < high < 9_000, "the candidates and the budget fill the plot"
    at_edge = trace(figure, "base (88.00%)")
    assert (at_edge["x"], at_edge["y"], at_edge["marker"]["symbol"]) == ([high], [0.88], "triangle-right")
    assert "82,090" in at_edge["hovertemplate"]
    assert trace(figure, "base (88.00%, 82,090 parameters)")["line"]["dash"] == "dash"
    lines = {
        shape["label"]["text"]: (shape["x0"], shape["x1"], shape["y0"], shape["y1"])
        for shape in layout["shapes"]
        if shape["type"] == "line"
    }
    assert lines == {"base": (0, 1, 0.88, 0.88), "": (8_000, 8_000, 0, 1)}
    assert trace(figure, "budget: under 8,000")["line"]["color"] == GREY, "in the legend, where it covers no point"
    own = trace(figure, "own")
    assert (own["x"], own["text"], own["marker"]["symbol"]) == ([7_500], ["own"], "diamond-open")


def test_multiply_adds_have_no_budget_line_and_a_plain_accuracy_no_marker() -> None:
    layout = plain(figures.accuracy_by_cost(hand_made(), FOUND, OPPONENTS, "macs"))["layout"]
    assert [shape["label"]["text"] for shape in layout["shapes"]] == ["base"]
    figure = figures.accuracy_by_cost(hand_made(base=0.84), FOUND, [], "params")
    texts = [shape["label"]["text"] for shape in plain(figure)["layout"]["shapes"] if "label" in shape]
    assert texts == ["accuracy to beat", ""]
    assert [one["text"] for one in plain(figure)["data"] if "text" in one] == [["trial 1"]], "the winner alone"


# --- progress of the search ------------------------------------------------------------------------------------------


def test_the_progress_is_each_candidate_and_the_best_so_far() -> None:
    figure = progress(hand_made(), FOUND, OPPONENTS)
    best, trained = trace(figure, "best so far"), trace(figure, "trained (3)")
    assert (best["x"], best["y"]) == ([0, 1, 3], [0.8, 0.9, 0.9]), "up to the last trial"
    assert (trained["x"], trained["y"]) == ([0, 1, 2], [0.8, 0.9, 0.85])
    assert trace(figure, "pruned at a rung (1)")["x"] == [3]
    assert [shape["label"]["text"] for shape in plain(figure)["layout"]["shapes"]] == ["base"]


def test_candidates_far_below_the_others_lie_on_the_edge_of_the_progress() -> None:
    found = [record(number, 0.8 + number / 1_000) for number in range(20)] + [record(20, 0.1)]
    figure = progress(hand_made(), found, [])
    trained, low = trace(figure, "trained"), plain(figure)["layout"]["yaxis"]["range"][0]
    assert low > 0.79 and trained["y"][-1] == low and trained["customdata"][-1] == 0.1
    assert trained["marker"]["symbol"][-1] == "triangle-down" and trained["marker"]["symbol"][10] == "circle"


def test_the_progress_shows_the_gain_that_was_expected_below_the_accuracies() -> None:
    gains = {1: 0.02, 2: 0.0004}
    found = [replace(one, proposal={"expected_gain": gains[one.number]} if one.number in gains else {}) for one in FOUND]
    run = hand_made()
    stop = run.config.stop.model_copy(update={"expected_gain": 0.001})
    figure = progress(replace(run, config=run.config.model_copy(update={"stop": stop})), found, [])
    expected, layout = trace(figure, "expected gain"), plain(figure)["layout"]
    assert (expected["x"], expected["y"], expected["yaxis"]) == ([1, 2], [2.0, 0.04], "y2")
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]
    assert [(shape["yref"], shape["y0"]) for shape in layout["shapes"]][-1] == ("y2", 0.1)
    assert "yaxis2" not in plain(progress(run, FOUND, []))["layout"]


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> dict[str, Figure]:
    """The figures of 2,000 trials, half of them pruned at a rung."""
    draw, found = random.Random(0), list[Record]()
    for number in range(2_000):
        params, refused = draw.randrange(10_000, 100_000), draw.randrange(8)
        sizes = tuple(draw.randrange(100_000, 2_000_000) for _ in range(refused))
        outcome = draw.choice(["trained", "pruned_at_rung"])
        curve = tuple(draw.random() for _ in range(50))
        changes: dict[str, Any] = {"outcome": outcome, "refused": {"over budget": refused}, "refused_params": sizes}
        found.append(record(number, max(curve), params, macs=300 * params, curve=curve, **changes))
    run, base = cifar(), [record(0, 0.82, 1_172_410, reference="base")]
    refused_figure = figures.refusals(run, found)
    assert refused_figure
    return {
        "curves": figures.learning_curves(run, found, base),
        "params": figures.accuracy_by_cost(run, found, base, "params"),
        "macs": figures.accuracy_by_cost(run, found, base, "macs"),
        "refusals": refused_figure,
        "progress": progress(run, found, base),
    }


def test_two_thousand_trials_make_small_figures(many: dict[str, Figure]) -> None:
    sizes = {name: len(figure.to_json()) for name, figure in many.items()}
    assert sizes["curves"] < 14_000 and sizes["params"] < 48_000 and sizes["macs"] < 54_000 and sizes["refusals"] < 24_000
    assert sizes["progress"] < 72_000


def test_many_points_are_drawn_by_webgl_and_few_are_not(many: dict[str, Figure]) -> None:
    assert trace(many["params"], "trained")["type"] == "scattergl"
    assert trace(figures.accuracy_by_cost(hand_made(), FOUND, [], "params"), "trained")["type"] == "scatter"


def test_every_figure_reads_on_light_and_on_dark(many: dict[str, Figure]) -> None:
    """Transparent, with text and colours that stand out against white and against the dashboard's dark grey."""
    for figure in many.values():
        layout = plain(figure)["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert layout["font"]["color"] == GREY
        assert "template" not in layout or len(json.dumps(layout["template"])) < 100
    assert contrast(GREY, "#FFFFFF") > 4 and contrast(GREY, "#121212") > 4
    for colour in COLOURS:
        assert contrast(colour, "#FFFFFF") >= 3 and contrast(colour, "#121212") >= 3, colour


def contrast(one: str, other: str) -> float:
    """The contrast ratio of the Web Content Accessibility Guidelines, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)
