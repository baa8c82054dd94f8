"""Does every node of the TensorFlow engine's programs have a kernel for NVIDIA GPUs?

    .venv-gpu/bin/python -m benchmarks.gpu_placement.kernels [--write]

It needs the CUDA build of TensorFlow (make GPU=1 venv), which registers its GPU kernels without a GPU as well. What has none
is placed on the host without notice. With --write it stores the kernels of all operations in use as
tests/training/engine/gpu_kernels.json, which a test compares with the programs that the CPU build traces.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels

from tests.support.kernels import CONTROL, LIST, described, kernel_of, signature
from tests.support.programs import cases, nodes_for_a_gpu

TYPES = {"bool", "uint8", "uint16", "uint32", "int32", "int64", "float", "double", "bfloat16", "resource", "variant"}


def registered(operation: str) -> list[str]:
    """Signatures of the operation's kernels for a GPU, of the types that an image classifier may need."""
    found = set[str]()
    for kernel in kernels.get_registered_kernels_for_op(operation).kernel:
        if kernel.device_type not in ("GPU", "DEFAULT") or kernel.label:
            continue
        choices = [{}]  # type: list[dict[str, str]]
        for constraint in kernel.constraint:
            names = [types_pb2.DataType.Name(value)[3:].lower() for value in constraint.allowed_values.list.type]
            choices = [choice | {constraint.name: name} for choice in choices for name in names if name in TYPES]
        found.update(signature(choice) for choice in choices)
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {LIST.name}")
    arguments = parser.parse_args()
    if not tf.sysconfig.get_build_info()["is_cuda_build"]:
        raise SystemExit("needs the CUDA build of TensorFlow: make GPU=1 venv, then .venv-gpu/bin/python")
    table: dict[str, list[str]] = {}
    without = Counter[str]()
    count = 0
    for case in cases():
        for node in nodes_for_a_gpu(case):
            count += 1
            if node.op in CONTROL:
                continue
            if node.op not in table:
                table[node.op] = registered(node.op)
            if kernel_of(node, table) is None:
                without[f"{described(node)} in {case.name!r}"] += 1
    print(f"{count:,} nodes of {len(table)} operations looked up, TensorFlow {tf.__version__}")
    for line, times in without.most_common():
        print(f"no GPU kernel: {line}, {times} times")
    if arguments.write:
        lines = [f"{json.dumps(operation)}: {json.dumps(table[operation])}" for operation in sorted(table)]
        LIST.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
