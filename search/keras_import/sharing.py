"""Shared weights: names for convolutions that are called several times.

Layers of an architecture share weights by name. In Keras the layer object is shared, and a layer of an architecture may be
made of several objects (a depthwise and a 1x1 convolution): it can share its weights only if all of them are the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from search.keras_import.steps import Findings, Problem, Step
from search.networks.layers import ConvLayer, Layer, Residual, describe

LONGEST_NAME = 60  # see `search.networks.layers`

_Group = tuple[tuple[int, ...], Layer]  # the layer objects that a layer is made of, and the layer


def share_weights(steps: Sequence[Step], findings: Findings) -> tuple[Step, ...]:
    """Name the weights of layers that are made of the same layer objects.

    An object that is part of different layers is recorded as a problem; its layers are then read as layers of their own.
    """
    convolutions = [step for step in _flat(steps) if step.parts]
    uses = Counter(_group(step) for step in convolutions)
    _check_partners(convolutions, findings)
    names: dict[_Group, str] = {}
    for step in convolutions:
        group = _group(step)
        if uses[group] > 1 and group not in names:
            names[group] = _unused_name(step.parts[-1].origin.partition(" ")[2], set(names.values()))
    return _named(steps, names)


def _check_partners(convolutions: Sequence[Step], findings: Findings) -> None:
    """Record layer objects that are called several times and belong to different layers."""
    ways: dict[int, dict[_Group, Step]] = {}
    for step in convolutions:
        for part in step.parts:
            ways.setdefault(part.layer, {}).setdefault(_group(step), step)
    for layer, groups in ways.items():
        if len(groups) > 1:
            first, *others = groups.values()
            part = next(part for part in first.parts if part.layer == layer)
            read = ", ".join(f"as {step.origin} ({describe(step.layer)})" for step in (first, *others))
            rule = f"called {part.times} times with the same weights, but in layers that differ: {read}"
            findings.problems.append(Problem(part.origin, rule, "a layer of its own for each of them"))


def _group(step: Step) -> _Group:
    return tuple(part.layer for part in step.parts), step.layer


def _unused_name(name: str, used: set[str]) -> str:
    """The name in the characters that an architecture admits, with a number where two names become equal."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:LONGEST_NAME]
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name[: LONGEST_NAME - len(str(number)) - 1]}_{number}"
    return candidate


def _named(steps: Sequence[Step], names: Mapping[_Group, str]) -> tuple[Step, ...]:
    """The steps with the weights of their layers named."""
    named = []
    for step in steps:
        if isinstance(step.layer, Residual):
            branch, shortcut = _named(step.branch, names), _named(step.shortcut, names)
            layer = Residual(tuple(inner.layer for inner in branch), tuple(inner.layer for inner in shortcut))
            step = replace(step, layer=layer, branch=branch, shortcut=shortcut)
        elif isinstance(step.layer, ConvLayer) and step.parts:
            step = replace(step, layer=replace(step.layer, weights=names.get(_group(step), "")))
        named.append(step)
    return tuple(named)


def _flat(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield from _flat(step.branch)
        yield from _flat(step.shortcut)
        yield step
