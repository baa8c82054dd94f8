"""Every node of the TensorFlow engine's programs has a kernel for a GPU, by a list made from the CUDA build."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from tests.support.kernels import CONTROL, LIST, described, kernel_of
from tests.support.programs import Case, cases, nodes_for_a_gpu

TABLE: dict[str, list[str]] = json.loads(LIST.read_text())
HOW = "if the CUDA build has one, make the list anew: .venv-gpu/bin/python -m benchmarks.gpu_placement.kernels --write"


QUICK = ("functions", "gates", "separable", "residual", "flat", "plain", "flip", "rotation", "mixup")  # in float32


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            marks=[] if case.name in QUICK and case.policy == "float32" else [pytest.mark.long],
            id=f"{case.name}, {case.policy}",
        )
        for case in cases()
    ],
)
def test_every_node_has_a_gpu_kernel(case: Case) -> None:
    """Without one, TensorFlow places the node on the host and copies its inputs there in every step."""
    nodes = list(nodes_for_a_gpu(case))
    assert len(nodes) > 100
    without = {described(node) for node in nodes if node.op not in CONTROL and kernel_of(node, TABLE) is None}
    assert not without, f"{without}; {HOW}"


def test_a_gather_of_bytes_has_none_but_of_a_variable() -> None:
    """The case that once copied the whole training set to the host in every step."""
    images = tf.Variable(tf.zeros([4, 2], tf.uint8))

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def gather(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(images, index), tf.gather(images.value(), index)

    graph = gather.get_concrete_function(tf.TensorSpec([2], tf.int64)).graph
    kernels = {node.op: kernel_of(node, TABLE) for node in graph.as_graph_def().node if "Gather" in node.op}
    assert kernels == {"ResourceGather": "Tindices=int64 dtype=uint8", "GatherV2": None}
