"""The forms that need no Keras: TensorFlow Lite in float32 and in integers, the integers as a C array, and ONNX.

TensorFlow and the converters are imported by the form that needs them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.budget.lowering import lower, without_kernel
from search.data.preprocessing import Pixels
from search.export import c_array as c_source
from search.export import int8 as integers
from search.export import litert
from search.export.card import Files
from search.export.format import Facts, Form, Subject, accuracy
from search.export.verification import CONVERTED, require_alike, require_equal, sample_images
from search.networks.geometry import resolve
from search.networks.layers import Activation, Gate, walk
from search.training.device import no_tensorflow, not_installed


def _write_float(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    from search.export.tflite import float_tflite

    assert subject.weights is not None
    paths[0].write_bytes(float_tflite(subject.architecture, subject.weights))


def _verify_float(subject: Subject, paths: Sequence[Path]) -> Facts:
    content, pixels = paths[0].read_bytes(), subject.pixels
    told = litert.read(content)
    _require_one_image(told, subject)
    images = sample_images(subject.architecture.input)
    expected = np.asarray(subject.model(pixels.apply(images), training=False))
    require_equal(litert.outputs(content, images, pixels.apply), expected, CONVERTED)
    measured: dict[str, Any] = {"val_accuracy": None}
    if subject.data is not None:
        found = litert.outputs(content, subject.data.x_val, pixels.apply)
        require_equal(found, subject.probabilities, CONVERTED)
        measured = _measured(subject, found)
    tensors = {"input": told.input.to_dict() | {"pixels": pixels.describe()}, "output": told.output.to_dict()}
    return {"bytes": len(content)} | measured | tensors | {"operators": list(told.operators)}


def _write_int8(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    paths[0].write_bytes(subject.int8)


def _verify_int8(subject: Subject, paths: Sequence[Path]) -> Facts:
    content = paths[0].read_bytes()
    told = litert.read(content)
    _require_one_image(told, subject)
    if floats := sorted(one for one in told.dtypes if one.startswith("float")):
        raise ValueError(f"holds {floats[0]} values, and all must be integers")
    channels, scale, zero_point = told.input.shape[-1], told.input.scale, told.input.zero_point
    assert subject.data is not None
    found = integers.outputs(content, subject.data.x_val, subject.pixels)
    agreement = require_alike(found, subject.probabilities, told.output.scale)
    how = {"pixels": subject.pixels.describe_int8(channels, scale, zero_point)}
    tensors = {"input": told.input.to_dict() | how, "output": told.output.to_dict()}
    measured = _measured(subject, found) | {"same_class_as_keras": agreement, "calibration_images": len(subject.calibration)}
    return {"bytes": len(content)} | measured | tensors | {"operators": list(told.operators)}


def _require_one_image(told: litert.Facts, subject: Subject) -> None:
    wanted = (1, *subject.architecture.input), (1, subject.architecture.classes)
    if (told.input.shape, told.output.shape) != wanted:
        raise ValueError(f"takes {list(told.input.shape)} and gives {list(told.output.shape)}, not {wanted}")


def _measured(subject: Subject, found: Any) -> dict[str, Any]:
    assert subject.data is not None
    right = {"val_accuracy": accuracy(found, subject.data), "keras_val_accuracy": subject.accuracy}
    return right | {"val_images": len(subject.data.y_val)}


def _write_c(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    assert subject.data is not None
    name, content, names = f"{subject.stem}_int8", subject.int8, subject.data.class_names
    told, measured = litert.read(content), files.forms["int8"]
    heading = [
        f"{subject.architecture.name or 'network'}: a network in integers for TensorFlow Lite Micro.",
        *subject.heading,
        f"In integers {measured['val_accuracy']:.2%} on the same images, {measured['keras_val_accuracy']:.2%} before.",
    ]
    texts = (
        c_source.source(name, content, told, subject.pixels, names),
        c_source.header(name, content, told, subject.pixels, names, heading),
    )
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")


def _verify_c(subject: Subject, paths: Sequence[Path]) -> Facts:
    source, header = (path.read_text(encoding="utf-8") for path in paths)
    content = subject.int8
    c_source.check(f"{subject.stem}_int8", header, source, content, litert.read(content), subject.pixels)
    return {"header": f"{subject.stem}_int8.h", "bytes": len(content)}


def _no_litert(subject: Subject) -> str | None:
    return no_tensorflow() or not_installed("ai_edge_litert")


def _no_integers(subject: Subject) -> str | None:
    layers = walk(subject.architecture.layers)
    if any(isinstance(layer, Activation | Gate) and layer.function == "elu" for layer in layers):
        return "TensorFlow Lite computes elu in floats only; take a network with another activation"
    return _no_litert(subject) or (None if subject.data is not None else subject.without_data)


def _no_micro(subject: Subject) -> str | None:
    if lacking := without_kernel(lower(resolve(subject.architecture))):
        return f"TensorFlow Lite Micro has no integer kernel for {', '.join(lacking)}; take a network with relu or silu"
    return _no_integers(subject)


def _write_onnx(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    from search.export.onnx_model import onnx_model

    names = subject.facts.get("data", {}).get("class_names", [])
    told = {"pixels": subject.pixels.to_dict(), "class_names": names}
    description = f"{subject.architecture.name}: takes {subject.pixels.describe()}, channels last; gives probabilities."
    assert subject.weights is not None
    encoded = {key: json.dumps(value) for key, value in told.items()}
    paths[0].write_bytes(onnx_model(subject.architecture, subject.weights, description=description, properties=encoded))


def _verify_onnx(subject: Subject, paths: Sequence[Path]) -> Facts:
    from search.export import onnx_model

    content = paths[0].read_bytes()
    if Pixels.from_dict(onnx_model.properties(content)["pixels"]) != subject.pixels:
        raise ValueError("says that pixels are prepared in another way")
    inputs = subject.pixels.apply(sample_images(subject.architecture.input))
    for images in (inputs, inputs[:1]):  # of any number
        require_equal(onnx_model.outputs(content, images), np.asarray(subject.model(images, training=False)), CONVERTED)
    return {"bytes": len(content), "input": {"pixels": subject.pixels.describe()}, "opset": onnx_model.OPSET}


def _no_onnx(subject: Subject) -> str | None:
    return no_tensorflow() or not_installed("tf2onnx", "onnx", "onnxruntime")


TFLITE = Form(
    "tflite", (".tflite",), "TensorFlow Lite in float32, measured on the validation images",
    _write_float, _verify_float, missing=_no_litert,
)  # fmt: skip
INT8 = Form(
    "int8", ("_int8.tflite",), "TensorFlow Lite in integers, calibrated on training images, measured likewise",
    _write_int8, _verify_int8, missing=_no_integers,
)  # fmt: skip
C = Form(
    "c", ("_int8.cc", "_int8.h"), "the integers as a C array for microcontrollers",
    _write_c, _verify_c, brings=("int8",), missing=_no_micro,
)  # fmt: skip
ONNX = Form("onnx", (".onnx",), "ONNX in float32", _write_onnx, _verify_onnx, missing=_no_onnx)
