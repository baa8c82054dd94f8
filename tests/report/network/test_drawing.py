"""Drawings show the whole network, stay inside the frame, and are valid XML for any network name.

python -m pytest tests/report/network/test_drawing.py
"""

from __future__ import annotations

import html
import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report.network.drawing import network_svg
from report.network.layout import Layout, View, arrange, typeset, typeset_shape
from report.network.page import network_html, write_drawings
from search.__main__ import main
from search.budget.cost import compute_cost, compute_layer_cost
from search.errors import UserError
from search.networks.architecture import Architecture, from_json
from search.networks.geometry import flatten, resolve
from search.networks.layers import Activation, BatchNorm, Conv, Gate, MaxPool, Residual, SeparableConv, describe
from tests.support.strategies import REFERENCES, architectures, net, reference

SVG = "{http://www.w3.org/2000/svg}"
DEEP = net(
    SeparableConv(8),
    Residual((SeparableConv(16), Gate("silu"), Residual((SeparableConv(8),), (Conv(8, 1), BatchNorm())))),
    Residual((MaxPool(), SeparableConv(12)), (SeparableConv(12, stride=2),)),
    Residual((), ()),
    Activation("relu"),
)


def drawn(architecture: Architecture, view: View = View.FULL) -> ElementTree.Element:
    return ElementTree.fromstring(network_svg(architecture, view))


def texts(picture: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


def boxes(layout: Layout) -> list[tuple[int, float, float]]:
    """(line, left, right) of each box."""
    found = []
    for place in layout.places:
        shape = place.row.input if isinstance(place.row.layer, Gate) else place.row.output
        half = 8.0 if isinstance(place.row.layer, Residual) else layout.width(shape) / 2
        found.append((place.line, layout.lanes[place.lane] - half, layout.lanes[place.lane] + half))
    return found


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_drawn_with_its_layers_and_costs(name: str) -> None:
    network = reference(name)
    picture, rows = drawn(network), [row for _, row in flatten(resolve(network))]
    words = texts(picture)
    expected = [row.name + typeset(describe(row.layer)) for row in rows]
    assert [word for word in words if word in expected] == expected
    figures = [
        f"{cost:,}" for row in rows for cost in (compute_layer_cost(row).params, compute_layer_cost(row).macs) if cost
    ]
    assert [word for word in words if word in figures] == figures
    total = compute_cost(network)
    assert words[-3:] == ["total", f"{total.params:,}", f"{total.macs:,}"]
    assert next(hint.text for hint in picture.iter(f"{SVG}title")) == name
    assert len(list(picture.iter(f"{SVG}g"))) == len(rows)


@settings(max_examples=60)
@given(architectures(), st.sampled_from(View))
def test_any_network_is_drawn_inside_its_frame(network: Architecture, view: View) -> None:
    picture = drawn(network, view)
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    for box in picture.iter(f"{SVG}rect"):
        left, top, wide, high = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert left >= 0 and top >= 0 and wide > 0 and left + wide <= width and top + high <= height
    for text in picture.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width and 0 <= float(text.attrib["y"]) <= height


@settings(max_examples=60)
@given(architectures(), st.sampled_from(View))
def test_wires_cross_no_box_of_another_lane(network: Architecture, view: View) -> None:
    layout = arrange(network, view)
    for skip in layout.skips:
        x = layout.lanes[skip.aside]
        for line, left, right in boxes(layout):
            if skip.first <= line < skip.last and layout.places[line].lane != skip.aside:
                assert not left < x < right
    assert all(left >= view.gutter - 1 and right < layout.columns.name for _, left, right in boxes(layout))


@settings(max_examples=60)
@given(architectures())
def test_folding_loses_no_layer_and_no_cost(network: Architecture) -> None:
    full, folded = arrange(network), arrange(network, View.FOLDED)
    assert sum(1 + len(place.folded) for place in folded.places) == len(full.places)
    assert [place.line for place in folded.places] == list(range(len(folded.places)))
    for cost in ("params", "macs"):
        assert sum(getattr(place.row, cost) for place in folded.places) == getattr(compute_cost(network), cost)
    assert len(folded.skips) == len(full.skips)
    for skip, whole in zip(folded.skips, full.skips, strict=True):
        assert folded.places[skip.last].row.name == full.places[whole.last].row.name, "a shortcut ends at its own sum"


def test_a_convolution_takes_its_norm_and_activation_into_its_line() -> None:
    network = reference("eip-c-late")
    lines = [place for place in arrange(network, View.FOLDED).places if isinstance(place.row.layer, SeparableConv)]
    assert lines[0].options == "16 filters, 3x3 · dropout 0.05, norm, relu"
    words = texts(drawn(network, View.FOLDED))
    assert not any(word.startswith(("batch_norm", "activation", "dropout")) for word in words)
    assert typeset("sep. conv 16, 3x3") in texts(drawn(network, View.COMPACT))


def test_a_compact_drawing_fits_a_phone() -> None:
    for name in REFERENCES:
        assert float(drawn(reference(name), View.COMPACT).attrib["width"]) <= 380, name


def test_sums_gates_and_bands_are_drawn() -> None:
    picture = drawn(DEEP)
    kinds = [part.attrib.get("class", "") for part in picture.iter()]
    assert kinds.count("arrow") == 4  # a residual each
    assert kinds.count("node") == 5  # and the gate
    bands = [text.text for text in picture.iter(f"{SVG}text") if text.attrib.get("class") == "size"]
    assert bands == [
        typeset_shape((12, 12)),
        typeset_shape((6, 6)),
        "vector",
        "total",
        *(f"{figure:,}" for figure in (compute_cost(DEEP).params, compute_cost(DEEP).macs)),
    ]
    assert {skip.aside for skip in arrange(DEEP).skips} == {1, 2}  # the inner one stands between


@given(st.text())
@settings(max_examples=60)
def test_any_name_makes_xml(name: str) -> None:
    picture = drawn(replace(DEEP, name=name))
    assert len(texts(picture)[0]) <= 60


def test_a_name_is_no_markup() -> None:
    assert texts(drawn(replace(DEEP, name='</text><script a="1">&')))[0] == '</text><script a="1">&'


def test_the_verb_draws_into_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["search", "show", "eip-b", "--svg", "net.svg", "--html", "net.html"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, *capfd.readouterr()) == (0, "net.svg\nnet.html\n", "")
    assert Path("net.svg").read_text(encoding="utf-8") == network_svg(reference("eip-b"))
    assert Path("net.html").read_text(encoding="utf-8") == network_html(reference("eip-b"))


def test_the_page_opens_offline_and_holds_every_figure() -> None:
    page = network_html(replace(DEEP, name="<b>"))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<b>" not in page and "<title>&lt;b&gt;</title>" in page
    cells = re.findall(r'<td class="figure">([^<]*)</td>', page)
    for _, row in flatten(resolve(DEEP)):
        assert typeset_shape(row.output) in cells
        assert compute_layer_cost(row).params == 0 or f"{compute_layer_cost(row).params:,}" in cells
    assert f"{compute_cost(DEEP).params:,}" in cells
    held = re.search(r"<pre>(.*)</pre>", page, re.DOTALL)
    assert held and from_json(html.unescape(held[1])) == replace(DEEP, name="<b>")


def test_drawings_are_written_under_their_own_endings_only(tmp_path: Path) -> None:
    paths = tmp_path / "net.svg", tmp_path / "net.html"
    assert write_drawings(DEEP, *paths) == list(paths)
    assert paths[0].read_text(encoding="utf-8") == network_svg(DEEP)
    kept = tmp_path / "net.json"
    kept.write_text("{}")
    with pytest.raises(UserError, match=r"name it net\.svg"):
        write_drawings(DEEP, kept, tmp_path / "other.html")
    assert kept.read_text() == "{}" and not (tmp_path / "other.html").exists()
    with pytest.raises(UserError, match="cannot be written"):
        write_drawings(DEEP, None, kept / "net.html")
