"""The card: silhouettes to one scale, figures as the study has them, valid SVG and PNG for any name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from PIL import Image

from report.analysis.findings import Findings, gather
from report.card.comparison import base_network, facts, headlines, ratio
from report.card.picture import HEIGHT, WIDTH, card, write_card
from report.card.scene import Box, Label, to_svg, wrapped
from report.card.silhouette import GAP, channels, common_scale, silhouette, weighted
from search.budget.cost import compute_cost
from search.networks.architecture import Architecture
from tests.support.strategies import architectures
from tests.support.synthetic import fill, finals_of, noise_images, storages_in_memory, synthetic_run

TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    with storages_in_memory():
        run = synthetic_run(tmp_path_factory.mktemp("run"), recipe__epochs=3, search__trials=6)
        known = gather(run, fill(run, noise_images(), 6))
        yield known


def texts(findings: Findings) -> list[str]:
    return [shape.text for shape in card(findings) if isinstance(shape, Label)]


def test_the_card_has_verdict_costs_and_accuracies_of_both(found: Findings) -> None:
    words, base = texts(found), base_network(found)
    assert base is not None
    assert " ".join(words).startswith(f"synthetic: {found.verdict.title}")
    for network in (found.network, base):
        cost = compute_cost(network)
        for value in (cost.params, cost.macs, cost.flash_bytes, cost.arena_bytes):
            assert f"{value:,}" in words
    assert [row.label for row in facts(found, base)][:4] == [
        "Parameters",
        "Multiply-adds",
        "Flash, int8 bytes",
        "Arena, int8 bytes",
    ]
    assert len(list(headlines(found, base))) == 3


def test_finals_decide_the_figures_of_the_card(found: Findings) -> None:
    name = f"trial-{found.number}"
    tie = replace(found, finals=finals_of({"base": [0.8, 0.83, 0.81], name: [0.82, 0.81, 0.83]}))
    assert "a tie with the base" in " ".join(texts(tie))
    assert [row.winner for row in facts(tie, None)][-1].startswith("82.0")


def test_a_base_that_is_an_accuracy_or_not_trained_has_no_silhouette(found: Findings) -> None:
    level = replace(found.run, config=found.run.config.model_copy(update={"base": 0.84}))
    board = {**found.board, "base": {**dict.fromkeys(found.board["base"]), "best_val_accuracy": 0.84}}
    assert "a plain accuracy" in texts(replace(found, run=level, board=board))
    trials = [{**row, "delta_vs_base": None} for row in found.board["trials"]]
    untrained = replace(found, references=[], board={**found.board, "base": None, "trials": trials})
    assert "not trained" in texts(untrained)


def test_files_are_an_svg_and_a_png_of_one_size(found: Findings, tmp_path: Path) -> None:
    hostile = replace(found, run=replace(found.run, name='<b>"&\x07\N{GREEK SMALL LETTER OMEGA}'))
    svg, png = write_card(hostile, tmp_path)
    root = ElementTree.parse(svg).getroot()
    assert (root.attrib["width"], root.attrib["height"]) == (str(WIDTH), str(HEIGHT))
    assert Image.open(io.BytesIO(png.read_bytes())).size == (2 * WIDTH, 2 * HEIGHT)
    for shape in card(found):
        assert 0 <= shape.x <= WIDTH and 0 <= shape.y <= HEIGHT
        assert not isinstance(shape, Box) or shape.x + shape.width <= WIDTH + 0.1


@settings(max_examples=60)
@given(architectures(), architectures())
def test_silhouettes_are_to_one_scale_and_fit(one: Architecture, other: Architecture) -> None:
    scale = common_scale([one, other], 400)
    for network in (one, other):
        boxes = list(silhouette(network, scale, 100))
        assert len(boxes) == 1 + len(weighted(network))
        for box, row in zip(boxes[1:], weighted(network), strict=True):
            assert box.width == pytest.approx(max(scale * row.output[-1], 0.6))
        assert all(box.height <= 100 and box.y >= 0 for box in boxes)
        if scale * channels(network) > len(boxes):
            assert boxes[-1].x + boxes[-1].width <= 400 + 5 * GAP + len(boxes)


@pytest.mark.parametrize(
    ("base", "value", "metric", "words"),
    [
        (82_090, 7_027, "params", f"12{TIMES} fewer"),
        (9_088, 11_216, "arena_bytes", f"1.2{TIMES} more"),
        (94_320, 24_487, "flash_bytes", f"3.9{TIMES} less"),
        (107_712, 112_432, "arena_bytes", "about the same"),
        (5, 5, "params", "the same"),
        (0, 5, "params", ""),
    ],
)
def test_a_ratio_is_put_in_words(base: int, value: int, metric: str, words: str) -> None:
    assert ratio(base, value, metric) == words


def test_text_is_wrapped_at_spaces_and_escaped() -> None:
    assert wrapped("one two  three", 7) == ["one two", "three"]
    svg = to_svg([Label(0, 0, "<&\x00", 10, "#000")], 10, 10, "<&")
    assert "".join(ElementTree.fromstring(svg).itertext()).strip().endswith("<&")
