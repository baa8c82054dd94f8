"""The trained candidates of a study part by part, the best first: what the pages say about choices is told from these.

A part is a block of a pyramid, a stage of a residual network. What counts is what was built, not what was drawn: a part
beyond the depth of a net is none, and pools stand where they do.
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

    width: int  # channels that leave it
    dropout: float = 0.0  # the highest rate in it
    is_pooled: bool = False  # whether a pool follows
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class Net:
    """A candidate that trained to a verdict; its accuracy is its best, a fraction."""

    number: int
    in_full: bool  # for all epochs, not pruned at a rung
    epochs: int
    accuracy: float
    parts: tuple[Part, ...]
    drawn: Mapping[str, Value]  # its parameters, as the study file writes them


def part_of(searched: Space) -> str:
    """What a part is called."""
    return "stage" if isinstance(searched, ResidualStages) else "block"


def nets(found: Findings) -> list[Net]:
    """The best first: trained in full before pruned, pruned late before pruned early, then by accuracy."""
    config, trials = found.run.config, found.studies.candidates.get_trials(deepcopy=False)
    shape, classes = tuple(found.data["input"]), found.data["classes"]
    seen = []
    for one in found.candidates:
        if one.outcome in COUNTED and one.best_val_accuracy is not None:
            drawn = config.declared(trials[one.number].params)
            if drawn.keys() != config.parameters.keys():  # a person queued a value that the space does not declare
                continue
            made = parts(config.space, drawn, shape, classes)
            seen.append(Net(one.number, one.outcome == "trained", one.epochs, one.best_val_accuracy, made, drawn))
    return sorted(seen, key=lambda net: (-net.in_full, -net.epochs, -net.accuracy, net.number))


def parts(searched: Space, drawn: Mapping[str, Value], shape: tuple[int, int, int], classes: int) -> tuple[Part, ...]:
    """The parts of the network that these parameters stand for; a network that was given is not taken apart."""
    match searched:
        case Fixed():
            return ()
        case ResidualStages():
            keys, at = searched.layout.keys, {**searched.layout.fixed, **drawn}
            stages: Any = ((at[keys["width"][n]], at[keys["blocks"][n]]) for n in range(int(at["stages"])))
            return tuple(Part(width, blocks=blocks) for width, blocks in stages)
        case _:
            return blocks(space.build(searched, drawn, shape, classes))


def blocks(network: Architecture) -> tuple[Part, ...]:
    """The blocks of a plain stack, without the head: the convolution that gives a score for each class, if one does."""
    found = []
    for run in _runs(network.layers):
        rates = [layer.rate for layer in run if isinstance(layer, Dropout)]
        assert isinstance(run[0], Conv | SeparableConv | SpatialSeparableConv)
        found.append(Part(run[0].filters, max(rates, default=0.0), isinstance(run[-1], MaxPool | AveragePool)))
    has_head = bool(found) and found[-1].width == network.classes
    return tuple(found[: len(found) - has_head])


def _runs(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """The layers of each block, a pool that follows it the last."""
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
