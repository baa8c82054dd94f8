"""The table of a network in the terminal: all of it at any width, branches and stages visible.

python -m pytest tests/cli/test_network_table.py
"""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from search.budget.cost import compute_cost, compute_layer_cost
from search.cli.network_table import print_network
from search.networks.architecture import Architecture
from search.networks.geometry import flatten, resolve
from search.networks.layers import (
    Activation,
    BatchNorm,
    Dropout,
    Gate,
    MaxPool,
    Residual,
    SeparableConv,
    SpatialSeparableConv,
)
from tests.support.strategies import REFERENCES, architectures, net, reference

BRANCHED = net(
    SeparableConv(8),
    BatchNorm(),
    Activation("relu"),
    Residual((SeparableConv(16, 5), Gate(), Residual((SpatialSeparableConv(8, 5),))), (SeparableConv(8, 1), Dropout(0.1))),
    MaxPool(),
)


def printed(network: Architecture, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, write_through=True) as file:
        print_network(Console(file=file, width=width), network)
        return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_fits_a_terminal_of_80_columns(name: str) -> None:
    network = reference(name)
    lines = printed(network, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if "_" in line.split(" ")[0]] == [
        row.name for _, row in flatten(resolve(network))
    ]  # one line a layer


@given(architectures(), st.integers(20, 160))
@settings(max_examples=40)
def test_nothing_is_cut_off_at_any_width(network: Architecture, width: int) -> None:
    text = printed(network, width)
    assert "…" not in text
    words = text.split()
    for _, row in flatten(resolve(network)):
        assert row.name in words
        assert "x".join(map(str, row.output)) in words
        if cost := compute_layer_cost(row).params:
            assert f"{cost:,}" in words


def test_figures_are_exact_where_there_is_room() -> None:
    wide, narrow = (printed(BRANCHED, width) for width in (120, 80))
    macs = [compute_layer_cost(row).macs for _, row in flatten(resolve(BRANCHED)) if compute_layer_cost(row).macs]
    assert all(f"{figure:,}" in wide.split() for figure in macs)
    assert macs[1] == 12 * 12 * 8 * (5 * 5 + 16)
    assert "47.2k" in narrow and "47,232" not in narrow
    assert f"{compute_cost(BRANCHED).macs:,}" in narrow


def test_stages_are_parted_and_branches_drawn() -> None:
    lines = [line.rstrip() for line in printed(BRANCHED, 120).splitlines()]
    layers = [line.split("  ")[0] for line in lines[3:]]
    assert layers[:14] == [
        "separable_conv_1",
        "batch_norm_1",
        "activation_1",
        "│ separable_conv_2",
        "│ gate_1",
        "│ │ spatial_separable_conv_1",
        "│ ╰ residual_2",
        "┊ separable_conv_3",
        "┊ dropout_1",
        "╰ residual_1",
        "",
        "max_pool_1",
        "",
        "global_average_pool_1",
    ]


def test_bars_are_shares_of_the_largest_layer() -> None:
    bars = [line.count("█") for line in printed(BRANCHED, 120).splitlines()]
    assert max(bars) == 8
    assert sum(1 for bar in bars if bar == 8) == 1
    assert "▏ <1%" in printed(reference("eip-b"), 120)  # next to nothing, and seen


def test_a_terminal_without_unicode_gets_what_it_can_show() -> None:
    text = printed(BRANCHED, 120, "ascii")
    assert "| | spatial_separable_conv_1" in text and "+ residual_1" in text and "########" in text


def test_a_receptive_field_beyond_the_image_is_marked() -> None:
    text = printed(reference("eip-b"), 80)
    assert "52x52*" in text and "28x28*" not in text
    assert "exceeds the image (32x32)" in text
    assert "exceeds" not in printed(net(SeparableConv(4)), 80)
