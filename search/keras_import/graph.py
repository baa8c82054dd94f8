"""Graph of layer calls of a Keras model description, in topological order.

Reads the formats of Keras 3 and of Keras 2 (`tf.keras`). Nested models are laid out flat; a nested model that is called
several times is laid out once for each call, with the same layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from search.errors import UserError, reason

MOST_CALLS, MOST_INPUTS = 1_000, 16  # limits of a model and of one call
DEEPEST = 8  # nesting depth of models

_Reference = tuple[str, int, int]  # name of the layer, index of its call, index of the output
_Key = tuple[str, int]  # name of the layer, index of its call

MODELS = ("Sequential", "Functional", "Model")


class Tensor(NamedTuple):
    """Output of a call: index of the call in `Graph.calls`, and of its output."""

    call: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer; call 0 is the image."""

    kind: str  # Keras' class name
    name: str  # inside nested models with their names before it: "inner/conv"
    config: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    arguments: tuple[Any, ...] = ()  # arguments that are no tensors, as they are written
    layer: int = 0  # identifies the layer object: calls of one object have the same number
    times: int = 1  # how many calls the layer object has in the model
    is_frozen: bool = False  # trainable=False, of the layer or of a model around it
    is_shared_outside: bool = False  # the layer object also belongs to a nested model that the file does not identify

    @property
    def words(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Graph:
    """Calls in topological order; calls that the output does not depend on are left out."""

    name: str
    input: tuple[int, int, int]
    calls: tuple[Call, ...]
    output: Tensor


def read_graph(description: Mapping[str, Any]) -> Graph:
    """Read the graph of a model with one image input and one output.

    Raises:
        UserError: the model is neither Sequential nor Functional, has several inputs or outputs, takes no images of a
            fixed size, or its description is malformed.
    """
    kind, config = description["class_name"], description["config"]
    if kind not in MODELS:
        raise UserError(
            f"{_printable(kind)} is a custom class, whose layers are known to its code alone; rebuild it with "
            "keras.Sequential or keras.Model(inputs, outputs)"
        )
    if not isinstance(config, dict | list):
        raise UserError(f"{kind} without a list of layers; pass what model.to_json() or model.save() wrote")
    layout = _Layout()
    try:
        output = layout.add_model(kind, config, Tensor(0), _Place())
    except RecursionError:
        raise UserError("the description nests too deep") from None
    if layout.shape is None:
        raise UserError("the size of its images is not in it; begin the model with keras.Input((height, width, channels))")
    name = config.get("name") if isinstance(config, dict) else None
    return Graph(_printable(name) if isinstance(name, str) else "", layout.shape, layout.finished_calls(), output)


class _Place(NamedTuple):
    """Position of a model in the file, and the settings that its layers inherit from outer models."""

    indices: tuple[int, ...] = ()  # of the entries in the lists of layers that lead to it
    prefix: str = ""  # of the names of its layers
    is_frozen: bool = False


class _Entry(NamedTuple):
    """An entry of a model's list of layers, with its position in it."""

    position: int
    content: Mapping[str, Any]


class _Layout:
    """Lays nested models out flat: appends the calls of each to those of the models before it."""

    def __init__(self) -> None:
        self.calls = [Call("InputLayer", "image", {}, ())]
        self.shape: tuple[int, int, int] | None = None
        self._models = 0
        # A layer object is identified by its position in the file, or by Keras' `shared_object_id` where it has one.
        self._layers: dict[tuple[int, ...] | int, int] = {}
        self._positions: dict[int, set[tuple[int, ...]]] = {}  # where each shared_object_id stands

    def finished_calls(self) -> tuple[Call, ...]:
        """All calls, each with the number of calls of its layer object."""
        times = Counter(call.layer for call in self.calls)
        alone = {self._layers[identifier] for identifier, where in self._positions.items() if len(where) == 1}
        return tuple(replace(call, times=times[call.layer], is_shared_outside=call.layer in alone) for call in self.calls)

    def add_model(self, kind: str, config: Any, image: Tensor, place: _Place) -> Tensor:
        """Append the calls of a model on `image`; returns its output."""
        self._models += 1
        if len(place.indices) > DEEPEST:
            raise UserError(f"models nest more than {DEEPEST} deep")
        if self._models > MOST_CALLS:
            raise UserError(f"more than {MOST_CALLS:,} calls of nested models")
        layers = config if isinstance(config, list) else config.get("layers")
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise UserError(f"{kind} without a list of layers; pass what model.to_json() or model.save() wrote")
        own = config if isinstance(config, dict) else {}
        place = place._replace(is_frozen=place.is_frozen or own.get("trainable") is False)
        entries = [_Entry(index, layer) for index, layer in enumerate(layers)]
        if kind == "Sequential" and not any(layer.get("inbound_nodes") for layer in layers):
            return self._add_sequential(entries, own, image, place)
        return self._add_functional(entries, own, image, place)

    def _add_sequential(self, entries: list[_Entry], config: Mapping[str, Any], image: Tensor, place: _Place) -> Tensor:
        self._take_shape(config.get("build_input_shape"))
        for entry in entries:
            kind, _, own = _parts(entry.content)
            if kind == "InputLayer":
                self._take_input(own)
            else:
                self._take_shape(own.get("batch_input_shape", own.get("batch_shape")))
                image = self._add_call(entry, _Node((), ()), (image,), place)
        return image

    def _add_functional(self, entries: list[_Entry], config: Mapping[str, Any], image: Tensor, place: _Place) -> Tensor:
        named = {_parts(entry.content)[1]: entry for entry in entries}
        if len(named) != len(entries):
            raise UserError("two of its layers have one name")
        sources, outputs = (list(_ends(config.get(key))) for key in ("input_layers", "output_layers"))
        for ends, word in ((sources, "input"), (outputs, "output")):
            if len(ends) != 1:
                raise UserError(f"the model has {len(ends)} {word}s, and networks here have one image and one output")
        scope = _Scope(named, sources[0][0], image, place)
        self._compute(scope, scope.key(outputs[0]))
        return scope.tensor(outputs[0])

    def _compute(self, scope: _Scope, wanted: _Key) -> None:
        """Append all layers that the output depends on, with an explicit stack: networks may be deeper than Python's."""
        stack, begun = [wanted], set[_Key]()
        while stack:
            key = name, _ = stack[-1]
            if key in scope.done:
                stack.pop()
                continue
            node = scope.node(key)
            if node is None:
                self._take_input(_parts(scope.entries[name].content)[2])
                scope.done[key] = scope.image
                continue
            missing = [other for reference in node.references if (other := scope.key(reference)) not in scope.done]
            if not missing:
                inputs = tuple(scope.tensor(reference) for reference in node.references)
                scope.done[key] = self._add_call(scope.entries[name], node, inputs, scope.place)
            elif key in begun:
                raise UserError(f"{_printable(name)} is called on its own output")
            else:
                begun.add(key)
                stack.extend(missing)

    def _add_call(self, entry: _Entry, node: _Node, inputs: tuple[Tensor, ...], place: _Place) -> Tensor:
        kind, name, config = _parts(entry.content)
        name = place.prefix + _printable(name)
        indices = (*place.indices, entry.position)
        if kind in MODELS:
            if len(inputs) != 1:
                raise UserError(f"{name} is a model on {len(inputs)} inputs, and networks here have one image")
            return self.add_model(kind, entry.content["config"], inputs[0], _Place(indices, f"{name}/", place.is_frozen))
        if len(self.calls) > MOST_CALLS:
            raise UserError(f"more than {MOST_CALLS:,} layers")
        if len(inputs) > MOST_INPUTS:
            raise UserError(f"{name} joins {len(inputs):,} branches, at most {MOST_INPUTS} are read")
        layer, is_frozen = self._identify(entry, indices), place.is_frozen or config.get("trainable") is False
        self.calls.append(Call(_printable(kind), name, config, inputs, node.arguments, layer, is_frozen=is_frozen))
        return Tensor(len(self.calls) - 1)

    def _identify(self, entry: _Entry, indices: tuple[int, ...]) -> int:
        """Number of the layer object that stands at these indices of the file."""
        shared = entry.content.get("shared_object_id")
        if type(shared) is int:
            self._positions.setdefault(shared, set()).add(indices)
            return self._layers.setdefault(shared, len(self._layers) + 1)
        return self._layers.setdefault(indices, len(self._layers) + 1)

    def _take_input(self, config: Mapping[str, Any]) -> None:
        shape = config.get("batch_shape", config.get("batch_input_shape"))
        self._take_shape([None, *config["shape"]] if shape is None and isinstance(config.get("shape"), list) else shape)

    def _take_shape(self, shape: Any) -> None:
        """Set the shape of the image; the first that is given counts, later ones are checked by computing sizes."""
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
    """State of one call of a Functional model while it is laid out."""

    def __init__(self, entries: Mapping[str, _Entry], source: str, image: Tensor, place: _Place) -> None:
        self.entries, self.source, self.image, self.place = entries, source, image, place
        self.done: dict[_Key, Tensor] = {}
        self._nodes: dict[str, list[_Node]] = {}

    def nodes(self, name: str) -> list[_Node]:
        if name not in self.entries:
            raise UserError(f"a layer is called on the output of {_printable(name)}, and there is no such layer")
        if name not in self._nodes:
            self._nodes[name] = _nodes(self.entries[name].content)
        return self._nodes[name]

    def node(self, key: _Key) -> _Node | None:
        """Inputs of the call; None for the image."""
        name, index = key
        if _parts(self.entries[name].content)[0] == "InputLayer":
            if name != self.source:
                raise UserError(f"{_printable(name)} is another input, and networks here have one image")
            return None
        nodes = self.nodes(name)
        if not 0 <= index < len(nodes) or not nodes[index].references:
            raise UserError(f"{_printable(name)} is called on nothing")
        return nodes[index]

    def key(self, reference: _Reference) -> _Key:
        """Key of the call that a reference names.

        A layer with one call has the key 0 whatever its index: Keras 2 also counts calls outside the model.
        """
        name, index, _ = reference
        return name, index if len(self.nodes(name)) > 1 else 0

    def tensor(self, reference: _Reference) -> Tensor:
        tensor, index = self.done[self.key(reference)], reference[2]
        return tensor if index == 0 else Tensor(tensor.call, index)


# --- the formats of calls -------------------------------------------------------------------------------------------


class _Node(NamedTuple):
    """References to the inputs of one call, and its other arguments."""

    references: tuple[_Reference, ...]
    arguments: tuple[Any, ...]


def _parts(layer: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """(kind, name, config) of a layer."""
    kind, config = layer.get("class_name"), layer.get("config")
    if not isinstance(kind, str) or not isinstance(config, dict | list):
        raise UserError("a layer has no class_name and config; pass what model.to_json() or model.save() wrote")
    settings = config if isinstance(config, dict) else {}
    name = layer.get("name", settings.get("name", kind))
    return kind, name if isinstance(name, str) else kind, settings


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
            tensors = list(_tensors(argument))
            references += tensors
            if not tensors:
                arguments.append(argument)
    elif isinstance(node, list):  # Keras 2: [[name, node, tensor, {other arguments}], ...]
        for source in node:
            reference = _reference(source)
            if reference is None:
                raise UserError("a call in a format of neither Keras 2 nor Keras 3; pass what model.to_json() wrote")
            references.append(reference)
            for argument in source[3].values() if len(source) > 3 and isinstance(source[3], dict) else ():
                other = _reference(argument)
                if other is None:
                    arguments.append(argument)
                else:
                    references.append(other)
    return _Node(tuple(references), tuple(arguments))


def _tensors(argument: Any) -> Iterator[_Reference]:
    if isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__":
        config = argument.get("config")
        reference = _reference(config.get("keras_history")) if isinstance(config, dict) else None
        if reference is None:
            raise UserError("a call on a tensor of no layer")
        yield reference
    elif isinstance(argument, list):
        for item in argument:
            yield from _tensors(item)


def _ends(value: Any) -> Iterator[_Reference]:
    """References in input_layers or output_layers: a single one, or a list or dictionary of them."""
    if (reference := _reference(value)) is not None:
        yield reference
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _ends(item)


def _reference(value: Any) -> _Reference | None:
    if not isinstance(value, list) or len(value) < 3:
        return None
    name, node, tensor = value[:3]
    return (name, node, tensor) if isinstance(name, str) and type(node) is int and type(tensor) is int else None


# --- text -----------------------------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    return reason(ValueError(text))


def _shown(value: Any) -> str:
    return _printable(repr(value))
