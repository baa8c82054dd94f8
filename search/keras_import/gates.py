"""Gates in a Keras graph: one half of the channels, through a function, times the other half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from search.keras_import.graph import Call, Graph, Tensor
from search.keras_import.layers import function_of
from search.keras_import.names import kind_of
from search.keras_import.steps import Findings, Step
from search.networks.geometry import Resolved
from search.networks.layers import Gate


class GateCalls(NamedTuple):
    """A gate that was found: the call that it starts from, those that it is made of besides the product, and its step."""

    source: int
    parts: frozenset[int]
    step: Step


class _Half(NamedTuple):
    source: Tensor
    is_second: bool
    channels: int | None  # of the half; None where the tensor is split into two
    rank: int | None  # of the tensor without its batch axis; None where the last axis is taken whatever it is
    call: int


def find_gates(graph: Graph, findings: Findings) -> dict[int, GateCalls]:
    """Gates by the number of the call that multiplies."""
    found = {}
    for number, call in enumerate(graph.calls):
        if kind_of(call) == "Multiply" and len(call.inputs) == 2 and (gate := _gate(graph, call, findings)):
            found[number] = gate
    return found


def _gate(graph: Graph, product: Call, findings: Findings) -> GateCalls | None:
    for opened, other in (product.inputs, product.inputs[::-1]):
        activation, right = graph.calls[opened.call], _half(graph, other)
        left = _half(graph, activation.inputs[0]) if len(activation.inputs) == 1 else None
        if left is None or right is None or left.source != right.source or left.is_second == right.is_second:
            continue
        if (function := function_of(activation, findings)) is None:
            continue
        if left.is_second:
            findings.read_as.append(
                f"{product.words}, whose second half goes through {function}, as a gate of the first half"
            )
        step = Step(Gate(function), product.words, check=_halves(left, right))
        return GateCalls(left.source.call, frozenset((opened.call, left.call, right.call)), step)
    return None


def _halves(*halves: _Half) -> Any:
    def check(row: Resolved) -> tuple[str, str] | None:
        if all(half.channels in (None, row.output[-1]) and half.rank in (None, len(row.input)) for half in halves):
            return None
        return (
            f"splits {row.input[-1]} channels unevenly",
            f"x[..., :{row.input[-1] // 2}] and x[..., {row.input[-1] // 2}:]",
        )

    return check


def _half(graph: Graph, tensor: Tensor) -> _Half | None:
    """Which half of the channels of another tensor this one is."""
    call = graph.calls[tensor.call]
    if len(call.inputs) != 1:
        return None
    match kind_of(call):
        case "GetItem" if tensor.part == 0:
            return _sliced(call, tensor.call)
        case "Split" if tensor.part in (0, 1):
            parts = call.config.get("indices_or_sections", call.arguments[0] if call.arguments else None)
            is_half = type(parts) is int and parts == 2
            axis = call.config.get("axis", call.arguments[1] if len(call.arguments) > 1 else None)
            at = None if type(axis) is int and axis == -1 else axis if type(axis) is int else 0
            return _Half(call.inputs[0], tensor.part == 1, None, at, tensor.call) if is_half else None
        case _:
            return None


def _sliced(call: Call, number: int) -> _Half | None:
    """`x[..., :n]` or `x[..., n:]`."""
    axes = call.arguments[0] if call.arguments else None
    axes = axes.get("items") if isinstance(axes, dict) else axes
    if not isinstance(axes, list) or len(axes) < 2 or (last := _slice(axes[-1])) is None:
        return None
    if not all(_is_ellipsis(axis) or _slice(axis) == (None, None) for axis in axes[:-1]):
        return None
    rank = None if any(map(_is_ellipsis, axes[:-1])) else len(axes) - 1
    match last:
        case (None | 0, int(stop)) if stop:
            return _Half(call.inputs[0], False, abs(stop), rank, number)
        case (int(start), None) if start:
            return _Half(call.inputs[0], True, abs(start), rank, number)
        case (int(start), int(stop)) if start and stop == 2 * start:
            return _Half(call.inputs[0], True, start, rank, number)
        case _:
            return None


def _is_ellipsis(axis: Any) -> bool:
    return isinstance(axis, dict) and axis.get("class_name") == "__ellipsis__"


def _slice(axis: Any) -> tuple[int | None, int | None] | None:
    """(start, stop) of a slice of step 1, as Keras 3 and Keras 2 write it."""
    if not isinstance(axis, dict):
        return None
    given = axis.get("config") if axis.get("class_name") == "__slice__" else axis
    if not isinstance(given, Mapping) or "start" not in given or given.get("step") not in (None, 1):
        return None
    start, stop = ends = given["start"], given.get("stop")
    return (start, stop) if all(end is None or type(end) is int for end in ends) else None
