"""Placement of every node of a training step on a GPU machine, and the bytes that cross to and from the device.

    .venv-gpu/bin/python -m benchmarks.gpu_placement.placement FAKE_GPU.so [--network eip-b] [--recipe everything]
        [--policy float32] [--every] [--nodes]

It needs the CUDA build of TensorFlow (make GPU=1 venv), whose GPU kernels are registered without a GPU, and the stand-in
device of fake_gpu.cc. TensorFlow's own placer, partitioner and graph optimiser then show every node's device and every copy
between host and device, inside the loop over steps and outside. No step runs. Layouts that depend on the kind of GPU are not
shown. A copy's size is that of the tensor as far as its shape is known when tracing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import load_library

from search.study.references import find
from search.training.recipe import Recipe
from tests.support.programs import EVERYTHING, OPTIONS, POLICIES, Case, engine_for, networks

WITHOUT_KERNEL = {  # operations that move no data: names, shapes, control and handles
    *("Const", "_Arg", "_Retval", "Identity", "Reshape", "ExpandDims", "Squeeze", "ReadVariableOp", "NoOp", "LoopCond"),
    *("Enter", "Exit", "Merge", "Switch", "NextIteration", "_Send", "_Recv", "_HostSend", "_HostRecv", "Shape", "ShapeN"),
}
BATCH, IMAGES = 64, 640  # so that all batches are of one size
RECIPES = OPTIONS | {"everything": EVERYTHING}


@contextlib.contextmanager
def built_on_the_host() -> Iterator[list[Any]]:
    """Compute initial values on the host, as the stand-in computes nothing, and place variables and programs as usual.

    The list receives the graphs of the programs that are traced inside the block.
    """
    traced: list[Any] = []
    scope, function, constant = tf.device, tf.function, tf.constant
    is_asked = 0

    @contextlib.contextmanager
    def device(name: Any) -> Iterator[None]:
        nonlocal is_asked
        is_asked += 1
        try:
            with scope(name):
                yield
        finally:
            is_asked -= 1

    class Placed:
        """A tf.function that is traced and called outside of the scope on the host."""

        def __init__(self, body: Any, **options: Any) -> None:
            self.function = function(body, **options)

        def get_concrete_function(self, *arguments: Any) -> Any:
            with scope(None):
                concrete = self.function.get_concrete_function(*arguments)

            def call(*values: Any) -> Any:
                with scope(None):
                    return concrete(*values)

            traced.append(concrete.graph)
            return call

    def placed_constant(*arguments: Any, **options: Any) -> Any:
        with scope(None) if tf.executing_eagerly() else contextlib.nullcontext():
            return constant(*arguments, **options)

    def variable(create: Any, **options: Any) -> Any:
        value = options["initial_value"]
        with scope("CPU"):
            value = tf.convert_to_tensor(value() if callable(value) else value, dtype=options.get("dtype"))
        options["initial_value"] = value
        with scope("CPU" if is_asked else "GPU:0"):
            return create(**options)

    tf.device, tf.constant = device, placed_constant
    tf.function = Placed
    try:
        with scope("CPU"), tf.variable_creator_scope(variable):
            yield traced
    finally:
        tf.device, tf.function, tf.constant = scope, function, constant


def partitions_of(case: Case) -> Iterator[tuple[str, list[Any], dict[str, int]]]:
    """(program, its partitions, one a device, sizes of its tensors) of the compiled programs of a training."""
    context.context().enable_run_metadata()
    with built_on_the_host() as traced:
        engine_for(case, IMAGES)
    sizes = {name: size for graph in traced for name, size in tensor_sizes(graph)}
    for graphs in context.context().export_run_metadata().function_graphs:
        operations = Counter(node.op for part in graphs.partition_graphs for node in part.node)
        if operations["LoopCond"] or operations["While"]:
            is_training = any("Backprop" in operation for operation in operations)
            yield "training" if is_training else "evaluation", list(graphs.partition_graphs), sizes


def tensor_sizes(graph: Any) -> Iterator[tuple[str, int]]:
    """(operation's name, bytes of its first output) in the bodies of a graph's loops, as far as shapes are known."""
    for loop in graph.get_operations():
        if loop.type not in ("While", "StatelessWhile"):
            continue
        for operation in graph._get_function(loop.get_attr("body").name).graph.get_operations():
            if operation.outputs and operation.outputs[0].shape.is_fully_defined():
                output = operation.outputs[0]
                yield operation.name, output.shape.num_elements() * output.dtype.size


def in_loop(node: Any) -> bool:
    return node.name.startswith("while") or "while/" in node.name


def dtype(node: Any) -> str:
    for name in ("T", "dtype", "tensor_type", "SrcT"):
        if name in node.attr and node.attr[name].type:
            return str(types_pb2.DataType.Name(node.attr[name].type)[3:].lower())
    return ""


def bytes_of(source: Any, kind: str, sizes: dict[str, int]) -> int | None:
    """The size of what a node sends; None if its shape is not known. Control edges carry one value."""
    if "ctrl" in source.name or source.op in ("LoopCond", "Const"):
        return int(tf.as_dtype(kind).size)
    if source.name.startswith("Func/") or source.op == "Identity":  # an argument of the loop's body
        return int(tf.as_dtype(kind).size) if kind == "int32" else None
    known = re.sub(r"^while/body/_\d+/", "", source.name)
    return sizes.get(known)


def show(case: Case, *, every_node: bool) -> None:
    """Print nodes and copies of the compiled programs of a training."""
    for program, partitions, sizes in partitions_of(case):
        print(f"{case.network.name}, {case.name}, {case.policy}, {program}")
        crossing = Counter[str]()
        unknown = 0
        for partition in partitions:
            nodes = {node.name: node for node in partition.node}
            device = next(iter(nodes.values())).device[-5:]
            inside = [node for node in partition.node if in_loop(node)]
            kernels = sum(node.op not in WITHOUT_KERNEL for node in inside)
            print(f"  {device}: {len(inside):,} nodes in the loop, {kernels:,} of them compute or copy")
            if every_node or "CPU" in device:
                operations = Counter(f"{node.op} {dtype(node)}" for node in inside)
                print("    " + ", ".join(f"{operation} x{times}" for operation, times in operations.most_common()))
            for node in partition.node:
                if node.op not in ("_Send", "_HostSend"):
                    continue
                source = nodes[node.input[0].split(":")[0].lstrip("^")]
                way = f"{node.attr['send_device'].s.decode()[-5:-2]} to {node.attr['recv_device'].s.decode()[-5:-2]}"
                is_inside = in_loop(node) or in_loop(source)
                size = bytes_of(source, dtype(node), sizes)
                if is_inside and size is None:
                    unknown += 1
                elif is_inside:
                    crossing[way] += size
                where = "each step" if is_inside else "each call"
                count = "?" if size is None else f"{size:,}"
                print(f"    {where}: {way}, {dtype(node)}, {count} bytes: {source.op} {source.name}")
        totals = ", ".join(f"{way} {size:,}" for way, size in sorted(crossing.items()))
        print(f"  bytes that cross in a step: {totals}" + (f"; {unknown} of unknown size" if unknown else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", type=Path, help="the shared library of fake_gpu.cc")
    parser.add_argument("--network", default="eip-b", help="a reference, or a network of tests/support/programs.py")
    parser.add_argument("--recipe", default="everything", choices=RECIPES)
    parser.add_argument("--policy", default="float32", choices=POLICIES)
    parser.add_argument("--every", action="store_true", help="every network and every recipe, in every policy")
    parser.add_argument("--nodes", action="store_true", help="list the operations on the device, too")
    arguments = parser.parse_args()
    load_library.load_pluggable_device_library(str(arguments.device))
    known = {network.name: network for network in networks()}
    plain = {"epochs": 2, "batch_size": BATCH}
    pairs = [(arguments.network, arguments.recipe)]
    if arguments.every:
        pairs = [("eip-b", name) for name in RECIPES] + [(name, "everything") for name in known]
    for name, recipe in pairs:
        network = known[name] if name in known else find(name).architecture
        for policy in POLICIES if arguments.every else [arguments.policy]:
            case = Case(recipe, network, Recipe.model_validate(plain | RECIPES[recipe]), policy)
            show(case, every_node=arguments.nodes)


if __name__ == "__main__":
    main()
