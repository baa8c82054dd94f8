"""Products in a Keras graph: gates, f(x[..., :n]) * x[..., n:], and activations that are written as x * f(x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from search.keras_import.graph import Call, Graph, Tensor
from search.keras_import.layers import function_of
from search.keras_import.names import kind_of
from search.keras_import.steps import Check, Findings, Step
from search.networks.geometry import Resolved
from search.networks.layers import Activation, Function, Gate

_SELF_GATED: dict[str, Function] = {"Sigmoid": "silu", "HardSigmoid": "hard_silu"}  # x * f(x) by f


class Product(NamedTuple):
    """Several calls that are one layer: the call before them, the calls but the last, and the layer."""

    source: int
    parts: frozenset[int]
    step: Step


class _Half(NamedTuple):
    """One half of the channels of a tensor."""

    source: Tensor
    is_second: bool
    channels: int | None  # None if the tensor is split in two
    rank: int | None  # of the tensor without the batch axis; None if the last axis is taken at any rank
    call: int


class _Factor(NamedTuple):
    """A function of a tensor: its Keras name, the tensor, and the calls that compute it."""

    kind: str
    source: Tensor
    calls: frozenset[int]


def find_products(graph: Graph, findings: Findings) -> dict[int, Product]:
    """Gates and self-gated activations, by the index of the last of their calls."""
    products = {}
    for number, call in enumerate(graph.calls):
        product = _gate(graph, call, findings) if _is_product(call) else None
        product = product or _self_gated(graph, number, findings)
        if product:
            products[number] = product
    return products


def _is_product(call: Call) -> bool:
    return kind_of(call) == "Multiply" and len(call.inputs) == 2


# --- activations -----------------------------------------------------------------------------------------------------


def _self_gated(graph: Graph, number: int, findings: Findings) -> Product | None:
    """x * sigmoid(x), which is silu, or x * relu6(x + 3) / 6, which is hard_silu."""
    call, calls, has_sixth = graph.calls[number], set[int](), False
    if _constant(call) in _SIXTH.get(kind_of(call), ()):  # x * relu6(x + 3), divided by 6 afterwards
        calls, has_sixth, call = {call.inputs[0].call}, True, graph.calls[call.inputs[0].call]
    if not _is_product(call):
        return None
    for left, right in (call.inputs, call.inputs[::-1]):
        factor = _factor(graph, right.call)
        if factor is None or factor.source != left or (factor.kind == "Relu6 of x + 3") != has_sixth:
            continue
        function: Function = "hard_silu" if has_sixth else _SELF_GATED[factor.kind]
        findings.read_as.append(f"{call.words}, a product of a tensor and its {factor.kind}, as {function}")
        return Product(left.call, frozenset(calls | factor.calls), Step(Activation(function), call.words))
    return None


_SIXTH = {"Divide": (6,), "Multiply": (1 / 6, 0.16667, 0.1666667)}  # constants that scale relu6 to at most 1


def _factor(graph: Graph, number: int) -> _Factor | None:
    """The call as sigmoid(x), hard_sigmoid(x), relu6(x + 3) or relu6(x + 3) / 6; None of other calls."""
    call = graph.calls[number]
    if len(call.inputs) != 1:
        return None
    kind = kind_of(call)
    if kind == "Activation":
        kind = {"sigmoid": "Sigmoid", "hard_sigmoid": "HardSigmoid"}.get(str(call.config.get("activation")), kind)
    if kind in _SELF_GATED:
        return _Factor(kind, call.inputs[0], frozenset((number,)))
    source = call.inputs[0].call
    if _constant(call) in _SIXTH.get(kind, ()):
        inner = _shifted_relu6(graph, source)
        return inner and inner._replace(kind="HardSigmoid", calls=inner.calls | {number})
    return _shifted_relu6(graph, number)


def _shifted_relu6(graph: Graph, number: int) -> _Factor | None:
    call = graph.calls[number]
    is_relu6 = kind_of(call) == "Relu6" or (kind_of(call) == "ReLU" and call.config.get("max_value") == 6)
    if not is_relu6 or len(call.inputs) != 1:
        return None
    shift = call.inputs[0].call
    if kind_of(graph.calls[shift]) != "Add" or _constant(graph.calls[shift]) != 3:
        return None
    return _Factor("Relu6 of x + 3", graph.calls[shift].inputs[0], frozenset((number, shift)))


def _constant(call: Call) -> float | None:
    """The number that an arithmetic operation has besides its only tensor."""
    value = call.arguments[0] if len(call.inputs) == 1 and call.arguments else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# --- gates -----------------------------------------------------------------------------------------------------------


def _gate(graph: Graph, product: Call, findings: Findings) -> Product | None:
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
        return Product(left.source.call, frozenset((opened.call, left.call, right.call)), step)
    return None


def _halves(*halves: _Half) -> Check:
    """A check that these are the two halves of all channels."""

    def check(row: Resolved) -> tuple[str, str] | None:
        if all(half.channels in (None, row.output[-1]) and half.rank in (None, len(row.input)) for half in halves):
            return None
        return (
            f"splits {row.input[-1]} channels unevenly",
            f"x[..., :{row.input[-1] // 2}] and x[..., {row.input[-1] // 2}:]",
        )

    return check


def _half(graph: Graph, tensor: Tensor) -> _Half | None:
    """The tensor as one half of the channels of another; None if it is none."""
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
    """The half that `x[..., :n]` or `x[..., n:]` selects."""
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
    """(start, stop) of a slice of step 1, in the formats of Keras 3 and Keras 2; None of other values."""
    if not isinstance(axis, dict):
        return None
    given = axis.get("config") if axis.get("class_name") == "__slice__" else axis
    if not isinstance(given, Mapping) or "start" not in given or given.get("step") not in (None, 1):
        return None
    start, stop = ends = given["start"], given.get("stop")
    return (start, stop) if all(end is None or type(end) is int for end in ends) else None
