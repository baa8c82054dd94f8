"""Trained candidates split into parts, best first: the data behind all statements about choices.

A part is a block of a pyramid or a stage of a residual network, as built: sampled values of parts beyond the depth of a
network are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import space
from report.analysis.findings import Findings
from search.networks.architecture import Architecture
from search.networks.layers import (
    AveragePool,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    SeparableConv,
    SpatialSeparableConv,
)
from search.spaces.domains import Value
from search.study.records import COUNTED
from space import Fixed, ResidualStages, Space


@dataclass(frozen=True, slots=True)
class Part:
    """A convolution with what follows it up to the next or to a pool, or a stage of residual blocks."""

    width: int  # output channels
    dropout: float = 0.0  # highest dropout rate in it
    is_pooled: bool = False  # True if a pool follows
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class Net:
    """A candidate that trained to a verdict, with its best validation accuracy (a fraction)."""

    number: int
    in_full: bool  # trained for all epochs, not pruned
    epochs: int
    accuracy: float
    parts: tuple[Part, ...]
    drawn: Mapping[str, Value]  # its parameters, as the study file writes them


def part_of(searched: Space) -> str:
    """Name of a part: block or stage."""
    return "stage" if isinstance(searched, ResidualStages) else "block"


def nets(findings: Findings) -> list[Net]:
    """Sort candidates: trained in full first, then pruned late before pruned early, then by accuracy."""
    config, trials = findings.run.config, findings.studies.candidates.get_trials(deepcopy=False)
    shape, classes = tuple(findings.data["input"]), findings.data["classes"]
    networks = []
    for record in findings.candidates:
        if record.outcome in COUNTED and record.best_val_accuracy is not None:
            values = config.declared(trials[record.number].params)
            if values.keys() != config.parameters.keys():  # a user queued a value that the space does not declare
                continue
            made = parts(config.space, values, shape, classes)
            networks.append(
                Net(record.number, record.outcome == "trained", record.epochs, record.best_val_accuracy, made, values)
            )
    return sorted(networks, key=lambda net: (-net.in_full, -net.epochs, -net.accuracy, net.number))


def parts(searched_space: Space, values: Mapping[str, Value], shape: tuple[int, int, int], classes: int) -> tuple[Part, ...]:
    """Parts of the network that these values describe; empty for a fixed network."""
    match searched_space:
        case Fixed():
            return ()
        case ResidualStages():
            keys, at = searched_space.layout.keys, {**searched_space.layout.fixed, **values}
            stages: Any = ((at[keys["width"][n]], at[keys["blocks"][n]]) for n in range(int(at["stages"])))
            return tuple(Part(width, blocks=blocks) for width, blocks in stages)
        case _:
            return blocks(space.build(searched_space, values, shape, classes))


def outline(net: Net, part: str) -> str:
    """The network in one line: `5 blocks: 24-32|48-48|64`, widths in channels, a bar for each pool."""
    if not net.parts:
        return ""
    text = ""
    for index, block in enumerate(net.parts):
        joint = "" if index == 0 else "|" if net.parts[index - 1].is_pooled else "-"
        text += f"{joint}{block.width}" + (f"x{block.blocks}" if block.blocks > 1 else "")
    text += "|" if net.parts[-1].is_pooled else ""
    return f"{len(net.parts)} {part}{'' if len(net.parts) == 1 else 's'}: {text}"


def blocks(network: Architecture) -> tuple[Part, ...]:
    """Blocks of a plain stack, without a convolution that serves as the head."""
    parts = []
    for run in _runs(network.layers):
        rates = [layer.rate for layer in run if isinstance(layer, Dropout)]
        assert isinstance(run[0], Conv | SeparableConv | SpatialSeparableConv)
        parts.append(Part(run[0].filters, max(rates, default=0.0), isinstance(run[-1], MaxPool | AveragePool)))
    has_head = bool(parts) and parts[-1].width == network.classes
    return tuple(parts[: len(parts) - has_head])


def _runs(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers of each block; a pool that follows it comes last."""
    run: list[Layer] = []
    for layer in layers:
        match layer:
            case Conv() | SeparableConv() | SpatialSeparableConv():
                if run:
                    yield run
                run = [layer]
            case MaxPool() | AveragePool():
                if run:
                    yield [*run, layer]
                run = []
            case GlobalAveragePool() | Flatten() | Dense():
                break
            case _:
                run += [layer] if run else []
    if run:
        yield run
