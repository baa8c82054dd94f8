"""Lookup of graph nodes in the committed list of TensorFlow's GPU kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import op_def_registry

LIST = Path(__file__).parents[1] / "training" / "engine" / "gpu_kernels.json"
CONTROL = {  # calls and arguments of functions, which need no kernel of their own
    *("Placeholder", "_Arg", "_Retval", "NoOp", "PartitionedCall", "StatefulPartitionedCall"),
    *("While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"),
}


def signature(types: Mapping[str, str]) -> str:
    """The type attributes that a kernel is registered for, as `T=float Tidx=int32`; empty if it takes every type."""
    return " ".join(f"{name}={types[name]}" for name in sorted(types))


def kernel_of(node: Any, table: Mapping[str, Sequence[str]]) -> str | None:
    """The signature of a kernel in `table`, {operation: signatures}, that a node can run on; None if there is none."""
    for kernel in table.get(node.op, ()):
        wanted = dict(part.split("=") for part in kernel.split())
        if all(_types(node, name) == {value} for name, value in wanted.items()):
            return kernel
    return None


def described(node: Any) -> str:
    """An operation with its types and the node's name."""
    types = {name: types_pb2.DataType.Name(value.type)[3:].lower() for name, value in node.attr.items() if value.type}
    return f"{node.op} {signature(types)} ({node.name})"


def _types(node: Any, name: str) -> set[str]:
    """The types that an attribute of a node holds: one, or those of a list."""
    if name in node.attr:
        attribute = node.attr[name]
    else:
        attribute = next(known.default_value for known in op_def_registry.get(node.op).attr if known.name == name)
    values = attribute.list.type if attribute.HasField("list") else [attribute.type]
    return {types_pb2.DataType.Name(value)[3:].lower() for value in values}
