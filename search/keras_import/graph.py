"""A Keras description as a graph of calls: each call of a layer, what it is called on, in an order that can be computed.

Both forms are read, that of Keras 3 and that of Keras 2 (`tf.keras`); models inside a model are laid out flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from search.errors import UserError, reason

MOST_CALLS, MOST_INPUTS = 1_000, 16  # of a model, of a call
DEEPEST = 8  # models inside models

_Reference = tuple[str, int, int]  # layer, which call of it, which output
_Key = tuple[str, int]  # layer, which call of it

MODELS = ("Sequential", "Functional", "Model")


class Tensor(NamedTuple):
    """An output of a call: the number of the call, and which of its outputs."""

    call: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A layer called once; call 0 is the image."""

    kind: str  # Keras' class name
    name: str
    config: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    arguments: tuple[Any, ...] = ()  # other arguments of an operation, as they are written
    times: int = 1  # that the layer is called in the model

    @property
    def words(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Graph:
    """Calls in an order in which each comes after its inputs; those that the output does not need are left out."""

    name: str
    input: tuple[int, int, int]
    calls: tuple[Call, ...]
    output: Tensor


def read_graph(description: Mapping[str, Any]) -> Graph:
    """The graph of a model of one image and one output.

    Raises:
        UserError: it is no Sequential or Functional model, has several inputs or outputs, takes no images of a fixed size,
            or is written in a way that Keras does not write.
    """
    kind, config = description["class_name"], description["config"]
    if kind not in MODELS:
        raise UserError(
            f"{_printable(kind)} is a class of one's own, whose layers only its code knows; rebuild it with "
            "keras.Sequential or keras.Model(inputs, outputs)"
        )
    if not isinstance(config, dict | list):
        raise UserError(f"{kind} without a list of layers; pass what model.to_json() or model.save() wrote")
    layout = _Layout()
    try:
        output = layout.model(kind, config, Tensor(0), 0)
    except RecursionError:
        raise UserError("the description nests too deep") from None
    if layout.shape is None:
        raise UserError("the size of its images is not in it; begin the model with keras.Input((height, width, channels))")
    name = config.get("name") if isinstance(config, dict) else None
    return Graph(_printable(name) if isinstance(name, str) else "", layout.shape, tuple(layout.calls), output)


class _Layout:
    """Lays models out: appends the calls of a model to those that are there."""

    def __init__(self) -> None:
        self.calls = [Call("InputLayer", "image", {}, ())]
        self.shape: tuple[int, int, int] | None = None

    def model(self, kind: str, config: Any, image: Tensor, depth: int) -> Tensor:
        """The output of a model on `image`."""
        if depth > DEEPEST:
            raise UserError(f"models nest more than {DEEPEST} deep")
        layers = config if isinstance(config, list) else config.get("layers")
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise UserError(f"{kind} without a list of layers; pass what model.to_json() or model.save() wrote")
        own = config if isinstance(config, dict) else {}
        if kind == "Sequential" and not any(layer.get("inbound_nodes") for layer in layers):
            return self._sequential(layers, own, image, depth)
        return self._functional(layers, own, image, depth)

    def _sequential(self, layers: list[Any], config: Mapping[str, Any], image: Tensor, depth: int) -> Tensor:
        self._take_shape(config.get("build_input_shape"))
        for layer in layers:
            kind, name, own = _parts(layer)
            if kind == "InputLayer":
                self._take_input(own)
            else:
                self._take_shape(own.get("batch_input_shape", own.get("batch_shape")))
                image = self._call(layer, name, _Node((), ()), (image,), depth)
        return image

    def _functional(self, layers: list[Any], config: Mapping[str, Any], image: Tensor, depth: int) -> Tensor:
        entries = {_parts(layer)[1]: layer for layer in layers}
        if len(entries) != len(layers):
            raise UserError("two of its layers have one name")
        sources, outputs = (list(_ends(config.get(key))) for key in ("input_layers", "output_layers"))
        for found, word in ((sources, "input"), (outputs, "output")):
            if len(found) != 1:
                raise UserError(f"the model has {len(found)} {word}s, and networks here have one image and one output")
        scope = _Scope(entries, sources[0][0], image, depth)
        self._compute(scope, scope.key(outputs[0]))
        for numbers in scope.calls.values():
            for number in numbers:
                self.calls[number] = replace(self.calls[number], times=len(numbers))
        return scope.tensor(outputs[0])

    def _compute(self, scope: _Scope, wanted: _Key) -> None:
        """Append what the wanted output needs; with a stack of its own, as networks are deeper than Python's."""
        stack, begun = [wanted], set[_Key]()
        while stack:
            key = name, _ = stack[-1]
            if key in scope.done:
                stack.pop()
                continue
            node = scope.node(key)
            if node is None:
                self._take_input(_parts(scope.entries[name])[2])
                scope.done[key] = scope.image
                continue
            missing = [other for reference in node.references if (other := scope.key(reference)) not in scope.done]
            if not missing:
                inputs = tuple(scope.tensor(reference) for reference in node.references)
                scope.done[key] = self._call(scope.entries[name], name, node, inputs, scope.depth, scope)
            elif key in begun:
                raise UserError(f"{_printable(name)} is called on its own output")
            else:
                begun.add(key)
                stack.extend(missing)

    def _call(
        self,
        entry: Mapping[str, Any],
        name: str,
        node: _Node,
        inputs: tuple[Tensor, ...],
        depth: int,
        scope: _Scope | None = None,
    ) -> Tensor:
        kind, _, config = _parts(entry)
        numbers = scope.calls.setdefault(name, []) if scope else []
        if kind in MODELS:
            if len(inputs) != 1:
                raise UserError(f"{_printable(name)} is a model on {len(inputs)} inputs, and networks here have one image")
            if name in (scope.models if scope else ()):
                raise UserError(f"{_printable(name)} is called twice with the same weights, and networks here share none")
            if scope:
                scope.models.add(name)
            return self.model(kind, entry["config"], inputs[0], depth + 1)
        if len(self.calls) > MOST_CALLS:
            raise UserError(f"more than {MOST_CALLS:,} layers")
        if len(inputs) > MOST_INPUTS:
            raise UserError(f"{_printable(name)} joins {len(inputs):,} branches, at most {MOST_INPUTS} are read")
        numbers.append(len(self.calls))
        self.calls.append(Call(_printable(kind), _printable(name), config, inputs, node.arguments))
        return Tensor(len(self.calls) - 1)

    def _take_input(self, config: Mapping[str, Any]) -> None:
        shape = config.get("batch_shape", config.get("batch_input_shape"))
        self._take_shape([None, *config["shape"]] if shape is None and isinstance(config.get("shape"), list) else shape)

    def _take_shape(self, shape: Any) -> None:
        """The first that is given counts; computing sizes tells whether later ones can be true."""
        if self.shape is not None or shape is None:
            return
        if isinstance(shape, dict):  # {"class_name": "__tuple__" or "TensorShape", "items": [...]}
            shape = shape.get("items")
        if not isinstance(shape, list) or len(shape) != 4:
            raise UserError(f"takes {_shown(shape)}, and networks here take images (batch, height, width, channels)")
        height, width, channels = shape[1:]
        if not all(type(size) is int and size >= 1 for size in (height, width, channels)):
            raise UserError(
                f"takes images of no fixed size, {_shown(shape[1:])}; begin it with keras.Input((32, 32, 3)) or such"
            )
        self.shape = (height, width, channels)


class _Scope:
    """The inside of one Functional model while it is laid out."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]], source: str, image: Tensor, depth: int) -> None:
        self.entries, self.source, self.image, self.depth = entries, source, image, depth
        self.done: dict[_Key, Tensor] = {}
        self.calls: dict[str, list[int]] = {}  # of each layer
        self.models: set[str] = set()
        self._nodes: dict[str, list[_Node]] = {}

    def nodes(self, name: str) -> list[_Node]:
        if name not in self.entries:
            raise UserError(f"{_printable(name)} is called on, and there is no such layer")
        if name not in self._nodes:
            self._nodes[name] = _nodes(self.entries[name])
        return self._nodes[name]

    def node(self, key: _Key) -> _Node | None:
        """What the call is made on; None for the image."""
        name, index = key
        if _parts(self.entries[name])[0] == "InputLayer":
            if name != self.source:
                raise UserError(f"{_printable(name)} is another input, and networks here have one image")
            return None
        nodes = self.nodes(name)
        if not 0 <= index < len(nodes) or not nodes[index].references:
            raise UserError(f"{_printable(name)} is called on nothing")
        return nodes[index]

    def key(self, reference: _Reference) -> _Key:
        """A layer that is called once is its call 0, also where Keras 2 counted calls outside the model."""
        name, index, _ = reference
        return name, index if len(self.nodes(name)) > 1 else 0

    def tensor(self, reference: _Reference) -> Tensor:
        found, index = self.done[self.key(reference)], reference[2]
        return found if index == 0 else Tensor(found.call, index)


# --- how calls are written -------------------------------------------------------------------------------------------


class _Node(NamedTuple):
    """What one call of a layer is called on, and its other arguments."""

    references: tuple[_Reference, ...]
    arguments: tuple[Any, ...]


def _parts(layer: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """(kind, name, config) of a layer."""
    kind, config = layer.get("class_name"), layer.get("config")
    if not isinstance(kind, str) or not isinstance(config, dict | list):
        raise UserError("a layer has no class_name and config; pass what model.to_json() or model.save() wrote")
    own = config if isinstance(config, dict) else {}
    name = layer.get("name", own.get("name", kind))
    return kind, name if isinstance(name, str) else kind, own


def _nodes(layer: Mapping[str, Any]) -> list[_Node]:
    nodes = layer.get("inbound_nodes", [])
    if not isinstance(nodes, list):
        raise UserError("inbound_nodes is no list")
    if nodes and isinstance(nodes[0], list) and nodes[0] and isinstance(nodes[0][0], str):  # an operation of Keras 2
        nodes = [[node] for node in nodes]
    return [_node(node) for node in nodes]


def _node(node: Any) -> _Node:
    references: list[_Reference] = []
    arguments: list[Any] = []
    if isinstance(node, dict):  # Keras 3: {"args": [...], "kwargs": {...}}
        given = node.get("args", []), node.get("kwargs", {})
        if not isinstance(given[0], list) or not isinstance(given[1], dict):
            raise UserError("a call without args and kwargs")
        for argument in (*given[0], *given[1].values()):
            found = list(_tensors(argument))
            references += found
            arguments += [] if found else [argument]
    elif isinstance(node, list):  # Keras 2: [[name, node, tensor, {other arguments}], ...]
        for one in node:
            if (reference := _reference(one)) is None:
                raise UserError("a call that is written neither as Keras 2 nor as Keras 3 writes it")
            references.append(reference)
            for argument in one[3].values() if len(one) > 3 and isinstance(one[3], dict) else ():
                if isinstance(argument, list) and (other := _reference(argument)) is not None:
                    references.append(other)
                else:
                    arguments.append(argument)
    return _Node(tuple(references), tuple(arguments))


def _tensors(argument: Any) -> Iterator[_Reference]:
    if isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__":
        config = argument.get("config")
        reference = _reference(config.get("keras_history")) if isinstance(config, dict) else None
        if reference is None:
            raise UserError("a call on a tensor of no layer")
        yield reference
    elif isinstance(argument, list):
        for one in argument:
            yield from _tensors(one)


def _ends(value: Any) -> Iterator[_Reference]:
    """The references in input_layers or output_layers: one, or a list or dictionary of them."""
    if (reference := _reference(value)) is not None:
        yield reference
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _ends(one)


def _reference(value: Any) -> _Reference | None:
    if not isinstance(value, list) or len(value) < 3:
        return None
    name, node, tensor = value[:3]
    return (name, node, tensor) if isinstance(name, str) and type(node) is int and type(tensor) is int else None


# --- words -----------------------------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    return reason(ValueError(text))


def _shown(value: Any) -> str:
    return _printable(repr(value))
