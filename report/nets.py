"""The trained candidates of a study block by block, the best first: what the pages say about choices is told from these.

What counts is what was built, not what was drawn: a block beyond the depth of a net is none, and pools stand where they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import space
from report.findings import Findings
from search.cost import price_layer
from search.domain import Value
from search.geometry import Resolved, resolve
from search.layers import (
    AveragePool,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    SpatialSeparableConv,
)
from search.study import COUNTED


@dataclass(frozen=True, slots=True)
class Block:
    """A convolution, or a residual, with what follows it up to the next or to a pool."""

    width: int  # channels that leave it
    dropout: float  # the highest rate in it
    params: int
    is_pooled: bool  # whether a pool follows


@dataclass(frozen=True, slots=True)
class Net:
    """A candidate that trained to a verdict; its accuracy is its best, a fraction."""

    number: int
    in_full: bool  # for all epochs, not pruned at a rung
    epochs: int
    accuracy: float
    blocks: tuple[Block, ...]
    drawn: Mapping[str, Value]  # its parameters, as the study file writes them


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
            made = blocks(resolve(space.build(config.space, drawn, shape, classes)))
            in_full = one.outcome == "trained"
            seen.append(Net(one.number, in_full, one.epochs, one.best_val_accuracy, made, drawn))
    return sorted(seen, key=lambda net: (-net.in_full, -net.epochs, -net.accuracy, net.number))


def blocks(resolved: Sequence[Resolved]) -> tuple[Block, ...]:
    """The blocks of a network, without the head: the convolution that gives a score for each class, if one does."""
    found = []
    for rows in _runs(resolved):
        dropouts = [rate for row in rows for rate in _rates(row.layer)]
        pooled = isinstance(rows[-1].layer, MaxPool | AveragePool)
        params = sum(map(_params, rows))
        found.append(Block(rows[0].output[-1], max(dropouts, default=0.0), params, pooled))
    classes = resolved[-1].output[-1]
    has_head = bool(found) and found[-1].width == classes
    return tuple(found[: len(found) - has_head])


def _runs(resolved: Sequence[Resolved]) -> Iterator[list[Resolved]]:
    """The rows of each block, a pool that follows it the last."""
    run: list[Resolved] = []
    for row in resolved:
        match row.layer:
            case Conv() | SeparableConv() | SpatialSeparableConv() | Residual():
                if run:
                    yield run
                run = [row]
            case MaxPool() | AveragePool():
                if run:
                    yield [*run, row]
                run = []
            case GlobalAveragePool() | Flatten() | Dense():
                break
            case _:
                run += [row] if run else []
    if run:
        yield run


def _rates(layer: Layer) -> Iterator[float]:
    match layer:
        case Dropout():
            yield layer.rate
        case Residual():
            for inner in (*layer.branch, *layer.shortcut):
                yield from _rates(inner)


def _params(row: Resolved) -> int:
    return price_layer(row).params + sum(map(_params, (*row.branch, *row.shortcut)))
