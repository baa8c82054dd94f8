"""A trained network as ONNX, float32 in and out, for any number of images; read back with ONNX Runtime."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from search.data.preprocessing import Pixels
from search.export.subject import OPSET
from search.networks.architecture import Architecture
from search.system import quiet
from search.training.model import build


def onnx_model(
    architecture: Architecture,
    weights: Sequence[npt.NDArray[Any]],
    *,
    description: str,
    properties: Mapping[str, str],
    rescaled: Pixels | None = None,
    opset: int = OPSET,
) -> bytes:
    """The network with an input `image` (n, height, width, channels) and an output `probabilities` (n, classes).

    Args:
        description: documentation string of the file.
        properties: metadata of the file.
        rescaled: preprocessing that the file does itself, see `search.training.model.build`.
        opset: version of ONNX' operators.

    Raises:
        RuntimeError: tf2onnx cannot express it; the message has its output.
    """
    import onnx
    import tf2onnx  # type: ignore[import-untyped]

    model = build(architecture, layers=_Translatable(), rescaled=rescaled)
    model.set_weights(list(weights))
    image = tf.TensorSpec((None, *architecture.input), tf.float32, name="image")
    with quiet() as printed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function = tf.function(lambda image: model(image, training=False), input_signature=[image])
            proto, _ = tf2onnx.convert.from_function(function, input_signature=[image], opset=opset)
            _name(proto.graph)
            onnx.checker.check_model(proto, full_check=True)
        except Exception as error:
            raise RuntimeError(f"tf2onnx cannot express it ({error}); it printed: {printed()}") from error
    proto.graph.name, proto.doc_string = model.name, description
    onnx.helper.set_model_props(proto, dict(properties))
    return bytes(proto.SerializeToString(deterministic=True))


def outputs(content: bytes, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Outputs of the file for prepared images."""
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"image": inputs})
    return np.asarray(probabilities)


def properties(content: bytes) -> dict[str, Any]:
    """The metadata of a file, its JSON values decoded."""
    import onnx

    return {prop.key: json.loads(prop.value) for prop in onnx.load_from_string(content).metadata_props}


class _Translatable:
    """`keras.layers` with gelu in terms of erf, because ONNX has no operator for Keras' erfc."""

    def __getattr__(self, name: str) -> Any:
        return getattr(keras.layers, name)

    def Activation(self, function: str, **options: Any) -> Any:  # noqa: N802
        return keras.layers.Activation(_gelu if function == "gelu" else function, **options)


def _gelu(x: Any) -> Any:
    return x * (1 + keras.ops.erf(x / math.sqrt(2))) / 2


def _name(graph: Any) -> None:
    """Name the output and the axis of images, which tf2onnx only numbers."""
    (output,) = graph.output
    for node in graph.node:
        for slots in (node.input, node.output):
            for index, slot in enumerate(slots):
                slots[index] = "probabilities" if slot == output.name else slot
    output.name = "probabilities"
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
