"""The figure of rejected candidates."""

from __future__ import annotations

import json

import pytest

from report.figures import curves as figures
from report.figures import data as rows
from report.figures.data import REJECTED, Refusals, Size
from report.figures.style import log_axis
from search.study.records import Record
from tests.support.figures import plain, trace
from tests.support.reports import hand_made, record, rejected

# --- refusals --------------------------------------------------------------------------------------------------------


def refusing(number: int, sizes: tuple[int, ...] = (), outcome: str = "trained", **rules: int) -> Record:
    told = {rule.replace("_", " "): count for rule, count in rules.items()}
    return record(number, 0.5, refused=told, refused_params=sizes, outcome=outcome)


def test_rejections_are_counted_by_trial_rule_and_size() -> None:
    found = [
        refusing(0, (9_000, 12_000), over_budget=7),
        refusing(1, (8_500,), outcome="interrupted", over_budget=1),  # its retry has them too
        refusing(2, (8_500,), over_budget=1, same_network=2),
        rejected(3),
    ]
    assert rows.refusals(found) == [
        Refusals(0, 0, {"over budget": 7}),
        Refusals(2, 2, {"over budget": 1, "same network": 2}),
        Refusals(3, 3, {REJECTED: 1}),
    ]
    assert rows.refused_sizes(found) == [Size(0, 9_000), Size(0, 12_000), Size(2, 8_500), Size(3, 9_000)]
    assert rows.sizes(found) == [Size(0, 5_000), Size(2, 5_000)]


def test_many_trials_are_counted_in_groups_and_nothing_is_lost() -> None:
    found = [refusing(number, over_budget=number % 3) for number in range(1_234)]
    told = rows.refusals(found, most=50)
    assert len(told) <= 50
    assert {group.last - group.first + 1 for group in told} == {25}
    assert sum(group.by_rule.get("over budget", 0) for group in told) == sum(number % 3 for number in range(1_234))
    assert told[1].by_rule["over budget"] == sum(number % 3 for number in range(25, 50))


def test_rejections_are_stacked_by_rule_above_the_sizes_and_the_budget() -> None:
    found = [refusing(0, (9_000, 12_000), over_budget=7), refusing(1, (8_500,), over_budget=1, same_network=2), rejected(2)]
    figure = figures.refusals(hand_made(), found)
    assert trace(figure, "over budget (8)")["y"] == [7, 1, 0]
    assert trace(figure, "same network (2)")["y"] == [0, 2, 0]
    assert trace(figure, f"{REJECTED} (1)")["y"] == [0, 0, 1]
    assert trace(figure, "rejected, by size")["y"] == [9_000, 12_000, 8_500, 9_000]
    assert plain(figure)["layout"]["barmode"] == "stack"
    assert plain(figure)["layout"]["yaxis"]["title"]["text"] == "proposals per trial"
    (budget,) = plain(figure)["layout"]["shapes"]
    assert (budget["y0"], budget["yref"]) == (8_000, "y2") and trace(figure, "budget: under 8,000")["x"] == [None]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([2_000, 8_000, 37_571], [2_000, 5_000, 10_000, 20_000]),
        ([7_000, 100_000, 2_000_000], [10_000, 100_000, 1_000_000]),
        ([100_000, 100_000], [100_000]),
    ],
)
def test_a_logarithmic_axis_has_a_few_ticks_wherever_its_values_lie(values: list[float], ticks: list[float]) -> None:
    found = log_axis("parameters", values)
    assert found["tickvals"] == ticks
    low, high = (10**place for place in found["range"])
    assert low < min(values) and max(values) < high


def test_every_limit_of_a_budget_is_distinguished() -> None:
    found = [refusing(0, over_budget=1, over_macs=3), refusing(1, receptive_field=2)]
    bars = plain(figures.refusals(hand_made(), found))["data"]
    assert [one["name"] for one in bars] == ["over budget (1)", "over macs (3)", "receptive field (2)"]
    assert len({json.dumps(one["marker"]) for one in bars}) == 3


def test_without_sizes_only_the_rules_are_shown_and_without_rejections_nothing() -> None:
    figure = figures.refusals(hand_made(), [refusing(0), refusing(1, same_network=1, cannot_exist=2)])
    assert [one["name"] for one in plain(figure)["data"]] == ["same network (1)", "cannot exist (2)"]
    assert plain(figure)["layout"]["barmode"] == "stack"
    assert figures.refusals(hand_made(), [refusing(0)]) is None
