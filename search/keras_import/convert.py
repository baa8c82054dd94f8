"""Conversion of a Keras graph into an architecture: a chain of layers, of which some are sums of two branches.

A layer that no architecture can hold is recorded as a problem with the nearest that can, and the conversion goes on with
that one: a single import finds all problems. Weights are not imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.errors import UserError, reason
from search.keras_import.file import read_description
from search.keras_import.fusion import fuse
from search.keras_import.gates import find_products
from search.keras_import.graph import Call, Graph, read_graph
from search.keras_import.layers import read_layer
from search.keras_import.names import is_preparation, kind_of, resized
from search.keras_import.sharing import share_weights
from search.keras_import.steps import Findings, Item, Problem, Step
from search.networks.architecture import DEEPEST, Architecture, from_json, to_json
from search.networks.geometry import Resolved, flatten, output_shape, resolve
from search.networks.layers import Activation, ArchitectureError, Flatten, GlobalAveragePool, Residual, Softmax

LONGEST_NAME = 60

_DEFAULT_NAMES = ("sequential", "functional", "model")  # which Keras gives models


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import."""

    architecture: Architecture | None  # None if there is none even with the nearest layers
    origins: tuple[str, ...]  # Keras' names, in the order of `search.networks.geometry.flatten`
    problems: tuple[Problem, ...]  # without any the architecture computes the same as the model
    left_out: dict[str, tuple[str, ...]]  # reason -> layers; `OPTION: reason` where only that option of them is left out
    read_as: tuple[str, ...]  # layers that were read as others of the same function
    softmax_added: bool


def read_model(path: Path) -> Imported:
    """Read a `.keras` file or the JSON of `model.to_json()`.

    Raises:
        UserError: see `search.keras_import.file.read_description`, `search.keras_import.graph.read_graph` and `convert`.
    """
    description = read_description(path)
    try:
        graph = read_graph(description)
        return convert(graph, graph.name if _is_given(graph.name) else reason(ValueError(path.stem)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def convert(graph: Graph, name: str) -> Imported:
    """Convert a graph into an architecture of the given name.

    Raises:
        UserError: the calls do not form a chain of layers and sums.
    """
    findings = Findings()
    chains = _Chains(graph, findings)
    steps, softmax_added = _headed(fuse(chains.between(graph.output.call, 0, 0), findings), findings)
    steps = share_weights(steps, findings)
    architecture = _checked(steps, chains.image, name, findings)
    positions = {call.words: number for number, call in enumerate(graph.calls)}

    def position(origin: str) -> int:
        return positions.get(origin.removeprefix("activation of ").split(" and ")[0], len(positions))

    return Imported(
        architecture,
        tuple(step.origin for step in _flat(steps)),
        tuple(sorted(findings.problems, key=lambda problem: position(problem.where))),  # chains are read backwards
        {why: tuple(sorted(set(layers), key=position)) for why, layers in findings.left_out.items()},
        tuple(findings.read_as),
        softmax_added,
    )


def _checked(steps: Sequence[Step], image: tuple[int, int, int], name: str, findings: Findings) -> Architecture | None:
    """The architecture, with each layer checked in its position; None if it cannot exist."""
    layers = tuple(step.layer for step in steps)
    try:
        shape = output_shape(layers, image)
        architecture = Architecture(image, shape[-1], layers, name[:LONGEST_NAME])
        resolved = resolve(architecture)
    except ArchitectureError as error:
        if not findings.problems:  # else it may come of those
            findings.problems.append(Problem(_origin(error, steps), error.rule, _remedy(error)))
        return None
    for step, (_, row) in zip(_flat(steps), flatten(resolved), strict=True):
        if step.check and (wrong := step.check(row)):
            findings.problems.append(Problem(step.origin, *wrong))
    if shape[-1] == 1:
        findings.problems.append(
            Problem("the output", "one value, and a softmax over one is always 1", "one for each class")
        )
    try:
        return from_json(to_json(architecture))  # which has rules of its own: the depth of residuals
    except UserError as error:
        findings.problems.append(Problem("the model", str(error).removeprefix("architecture: "), "fewer sums inside sums"))
        return None


def _remedy(error: ArchitectureError) -> str:
    if error.layer.startswith("dense") and "needs a vector" in error.rule:
        return "GlobalAveragePooling2D() or Flatten() before it, or for each pixel a Conv2D of kernel size 1"
    return "mend the sizes of the layers around it"


class _Chains:
    """Reads the calls between two calls as a chain."""

    def __init__(self, graph: Graph, findings: Findings) -> None:
        self._calls, self._findings = graph.calls, findings
        self._products = find_products(graph, findings)
        self._above = _dominators(graph.calls, {number: product.source for number, product in self._products.items()})
        self._read: set[int] = set()
        self._front, (height, width, channels) = {0}, graph.input
        for number, call in enumerate(graph.calls):
            if call.inputs and call.inputs[0].call in self._front and is_preparation(call):
                self._front.add(number)
                height, width = resized(call) or (height, width)
        self.image = (height, width, channels)

    def between(self, last: int, first: int, depth: int) -> list[Item]:
        """Items computed after the call `first`, up to and with the call `last`."""
        if depth > DEEPEST:
            raise UserError(f"sums stand inside sums more than {DEEPEST} deep")
        backwards: list[Item] = []
        while last != first:
            call, product = self._calls[last], self._products.get(last)
            self._take(last, *(product.parts if product else ()))
            if product:
                backwards.append(product.step)
                last = product.source
            elif len(call.inputs) > 1:
                above = self._above[last]
                sides = [fuse(self.between(tensor.call, above, depth + 1), self._findings) for tensor in call.inputs]
                backwards.append(self._sum(call, sides))
                last = above
            else:
                is_front = call.inputs[0].call in self._front
                backwards += reversed(read_layer(call, self._findings, is_front=is_front))
                last = call.inputs[0].call
        return backwards[::-1]

    def _take(self, *numbers: int) -> None:
        """Mark calls as read: each belongs to one position of the chain."""
        for number in numbers:
            if number in self._read:
                raise UserError(
                    f"{self._calls[number].words} is used in several places, and networks here are chains whose parts may "
                    "be sums of two branches from one point; leave the other connections out"
                )
            self._read.add(number)

    def _sum(self, call: Call, sides: Sequence[tuple[Step, ...]]) -> Step:
        kind = kind_of(call)
        if kind != "Add":
            edit = "Add, of branches of equal size" if kind != "Multiply" else "Add, or a gate: f(x[..., :n]) * x[..., n:]"
            self._findings.problems.append(Problem(call.words, "joins branches other than by a sum", edit))
        return _halved(sides, call.words)


def _halved(sides: Sequence[tuple[Step, ...]], origin: str) -> Step:
    """The sum of several branches as nested sums of two, of least depth."""
    while len(sides) > 2:
        pairs = [sides[index : index + 2] for index in range(0, len(sides), 2)]
        sides = [(_halved(pair, origin),) if len(pair) == 2 else pair[0] for pair in pairs]
    branch, shortcut = sides
    layer = Residual(tuple(step.layer for step in branch), tuple(step.layer for step in shortcut))
    return Step(layer, origin, branch, shortcut)


def _dominators(calls: Sequence[Call], sources: Mapping[int, int]) -> list[int]:
    """Immediate dominator of each call: the last call before it on all paths from the image.

    After Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm", 2001; one pass, as calls are in topological
    order.

    Args:
        sources: the call before each call that is read together with others as one layer.
    """
    above, depth = [0], [0]
    for number, call in enumerate(calls[1:], start=1):
        first, *others = [sources[number]] if number in sources else [tensor.call for tensor in call.inputs]
        for other in others:
            while first != other:
                first, other = (above[first], other) if depth[first] >= depth[other] else (first, above[other])
        above.append(first)
        depth.append(depth[first] + 1)
    return above


# --- the end of the chain --------------------------------------------------------------------------------------------


def _headed(steps: tuple[Step, ...], findings: Findings) -> tuple[tuple[Step, ...], bool]:
    """The steps with a softmax at their end and nowhere else; True if it was added."""
    end = len(steps)
    while end and isinstance(steps[end - 1].layer, Flatten | GlobalAveragePool):
        end -= 1
    after = tuple(replace(step, check=_is_one_pixel) for step in steps[end:])
    softmax = steps[end - 1] if end and isinstance(steps[end - 1].layer, Softmax) else None
    if softmax and after:
        findings.read_as.append(f"{softmax.origin} before {after[0].origin} as after it")
    if softmax:
        body, last = (*steps[: end - 1], *after), softmax
    else:
        body, last = steps, Step(Softmax(), "softmax, which was added")
    if not softmax and steps and isinstance(steps[-1].layer, Activation) and steps[-1].layer.function in ("sigmoid", "tanh"):
        rule = f"ends the network with {steps[-1].layer.function}, and classes need a softmax"
        findings.problems.append(Problem(steps[-1].origin, rule, "softmax, over one unit a class"))
        body = steps[:-1]
    return (*_without_softmax(body, findings), last), softmax is None


def _without_softmax(steps: Sequence[Step], findings: Findings) -> Iterator[Step]:
    for step in steps:
        if isinstance(step.layer, Softmax):
            findings.problems.append(Problem(step.origin, "a softmax inside the network", "nothing"))
        elif isinstance(step.layer, Residual):
            sides = [tuple(_without_softmax(side, findings)) for side in (step.branch, step.shortcut)]
            yield _halved(sides, step.origin)
        else:
            yield step


def _is_one_pixel(row: Resolved) -> tuple[str, str] | None:
    if len(row.input) == 1 or row.input[:2] == (1, 1):
        return None
    return "comes after the softmax", "the softmax last"


# --- names -----------------------------------------------------------------------------------------------------------


def _flat(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps in the order of `search.networks.geometry.flatten`."""
    for step in steps:
        yield from _flat(step.branch)
        yield from _flat(step.shortcut)
        yield step


def _origin(error: ArchitectureError, steps: Sequence[Step]) -> str:
    """Keras' name of the layer that the error names, the n-th of its kind in the order of `search.networks.geometry`."""
    kind, _, number = error.layer.rpartition("_")
    origins = [step.origin for step in _counted(steps) if step.layer.kind == kind]
    return origins[int(number) - 1] if number.isdigit() and 0 < int(number) <= len(origins) else "the model"


def _counted(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps, a residual before its branches."""
    for step in steps:
        yield step
        yield from _counted(step.branch)
        yield from _counted(step.shortcut)


def _is_given(name: str) -> bool:
    """True if the name is not one that Keras gives by default."""
    return bool(name) and name.rstrip("0123456789").rstrip("_") not in _DEFAULT_NAMES
