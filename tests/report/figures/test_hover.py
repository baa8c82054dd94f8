"""Hover texts of all figures: every number has a format."""

from __future__ import annotations

import re
from typing import Any

import pytest

from report.analysis import contrast, importance, marginal
from report.analysis.findings import gather
from report.analysis.parts import nets as nets_of
from report.figures import choices, curves, finals
from report.figures.progress import progress
from tests.support.figures import plain
from tests.support.synthetic import fill, finals_of, noise_images, storages_in_memory, synthetic_run

BARE = re.compile(r"%\{(x|y|z|customdata(?:\[\d\])?)\}")  # without a format


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Traces of each kind of figure of a study of 40 trials."""
    with storages_in_memory():
        run = synthetic_run(tmp_path_factory.mktemp("run"), search__trials=40, recipe__epochs=9, search__rungs=None)
        found = gather(run, fill(run, noise_images(), 40))
        nets = nets_of(found)
        known = run, found.candidates, found.references
        quarters, gains = contrast.split_quarters(nets), marginal.marginal(found, nets)
        shares = importance.importances(found.studies.candidates, 0)
    assert quarters and isinstance(gains, marginal.Marginal)
    figures = [
        curves.learning_curves(*known), curves.accuracy_by_cost(*known), curves.accuracy_by_cost(*known, "macs"),
        curves.refusals(run, found.candidates), progress(*known), choices.pools(quarters),
        choices.along(quarters, lambda part: part.width, "channels", "block"),
        choices.along(quarters, lambda part: part.dropout, "dropout", "block"),
        choices.marginal(gains, "block"), choices.importance(shares),
        finals.finals(finals_of({"base": [0.8, 0.81, 0.82], "trial-0": [0.87, 0.86, 0.88]})),
    ]  # fmt: skip
    return [trace for figure in figures for trace in plain(figure)["data"]]


def test_every_trace_has_a_hover_text_or_none(traces: list[dict[str, Any]]) -> None:
    legend_only = [trace for trace in traces if trace["x"] == [None]]
    silent = [trace for trace in traces if trace.get("hoverinfo") == "skip"]
    assert legend_only and silent
    for trace in traces:
        assert trace in legend_only or trace in silent or trace["hovertemplate"], trace["name"]


def test_no_number_of_a_hover_text_is_without_a_format(traces: list[dict[str, Any]]) -> None:
    """A number without one, which plotly would print with up to sixteen digits, is whole: a trial, an epoch, a count."""
    seen = 0
    for trace in traces:
        for name in BARE.findall(trace.get("hovertemplate", "")):
            key, _, index = name.partition("[")
            values = [value[int(index[0])] if index else value for value in trace[key]]
            assert all(not isinstance(value, float) or value == int(value) for value in values), (trace["name"], name)
            assert all(not isinstance(value, str) or not re.search(r"\.\d{5}", value) for value in values)
            seen += 1
    assert seen > 5
