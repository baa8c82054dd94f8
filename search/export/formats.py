"""The export formats: each writes its files, reads them back and compares them with the trained network.

Keras, TensorFlow and the converters are imported by the functions that need them: source and card of an untrained network
need none. A new format is one more `Format` in `search.export.exporter.FORMATS`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from search.budget.footprint import arena_to_allocate
from search.budget.lowering import lower, without_kernel
from search.data.preprocessing import Pixels
from search.export import c_array, int8, litert
from search.export.card import Files, card, pretty
from search.export.file_costs import read_graph
from search.export.keras_source import add_source, is_stack, keras_source
from search.export.subject import Subject
from search.export.verification import CONVERTED, require_alike, require_equal, sample_images
from search.networks.architecture import fingerprint, from_json
from search.networks.geometry import resolve
from search.networks.layers import Activation, Gate, walk
from search.text import format_percent
from search.training.device import no_tensorflow, not_installed
from search.training.measures import ACCURACY, MEASURES

Facts = Mapping[str, Any]

MOST_VECTORS = 4  # images to check a program with on its board
VECTOR_BYTES = 32_768  # of flash for them


@dataclass(frozen=True)
class Format:
    """One export format; its files have the name of the export, each with its own ending."""

    name: str
    endings: tuple[str, ...]
    description: str  # for the progress line
    write: Callable[[Subject, Sequence[Path], Files], None]  # to these paths; Files: what has been written before
    verify: Callable[[Subject, Sequence[Path]], Facts]  # facts for the card; ValueError if the files hold another network
    trained: bool = True  # True: needs weights
    requires: tuple[str, ...] = ()  # formats that are written before it
    missing: Callable[[Subject], str | None] = lambda subject: None  # reason why it cannot be written, None if it can

    def names(self, stem: str) -> list[str]:
        """The names of its files."""
        return [stem + ending for ending in self.endings]


# --- Keras source ----------------------------------------------------------------------------------------------------


def _write_source(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    paths[0].write_text(keras_source(**_source_options(subject, files, "build_model()")), encoding="utf-8")


def _write_adds(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    paths[0].write_text(add_source(**_source_options(subject, files, "model")), encoding="utf-8")


def _source_options(subject: Subject, files: Files, model: str) -> dict[str, Any]:
    weights, heading = f"{subject.stem}.keras", list(subject.heading)
    if weights in files.sha256:
        heading.append(f'Trained weights: {model}.load_weights("{weights}")')
    initializer = (subject.recipe or {}).get("initializer", "glorot_uniform")
    return {
        "architecture": subject.architecture, "heading": heading, "pixels": subject.pixels, "initializer": initializer,
        "rescaled": subject.rescaled,
    }  # fmt: skip


def _verify_source(subject: Subject, paths: Sequence[Path]) -> Facts:
    return _verify_module(subject, paths[0], lambda module: module.build_model())


def _verify_adds(subject: Subject, paths: Sequence[Path]) -> Facts:
    return _verify_module(subject, paths[0], lambda module: module.model)


def _verify_module(subject: Subject, path: Path, model_of: Callable[[ModuleType], Any]) -> Facts:
    code = compile(path.read_text(encoding="utf-8"), path.name, "exec")
    if subject.weights is None:
        return {}
    module = ModuleType(path.stem)
    exec(code, module.__dict__)
    images = sample_images(subject.architecture.input)
    prepared = module.prepare(images)
    if not np.array_equal(prepared, subject.pixels.apply(images)):
        raise ValueError("prepare() prepares other pixels")
    built, model = model_of(module), subject.model
    if built.count_params() != model.count_params():
        raise ValueError(f"{built.count_params():,} parameters instead of {model.count_params():,}")
    built.set_weights(model.get_weights())
    require_equal(np.asarray(built(prepared, training=False)), np.asarray(model(prepared, training=False)))
    return {}


def _missing_stack(subject: Subject) -> str | None:
    if is_stack(subject.architecture):
        return None
    return "the network branches or calls a layer twice, which a Sequential model cannot express; take py"


# --- Keras model -----------------------------------------------------------------------------------------------------


def _write_keras(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    from search.export.keras_archive import save_model

    save_model(subject.model, paths[0])


def _verify_keras(subject: Subject, paths: Sequence[Path]) -> Facts:
    from search.export.keras_archive import OLDEST_KERAS, TRIED_WITH
    from search.training.model import load

    inputs = subject.pixels.apply(sample_images(subject.architecture.input))
    outputs, expected = (np.asarray(model(inputs, training=False)) for model in (load(paths[0]), subject.model))
    require_equal(outputs, expected)
    return {"loads_in": f"Keras {OLDEST_KERAS} and later", "tried_with": list(TRIED_WITH)}


# --- card ------------------------------------------------------------------------------------------------------------


def _write_card(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    plain = card(subject.architecture, subject.facts, subject.pixels, subject.recipe, files)
    paths[0].write_text(pretty(plain) + "\n", encoding="utf-8")


def _verify_card(subject: Subject, paths: Sequence[Path]) -> Facts:
    plain = json.loads(paths[0].read_bytes())
    if fingerprint(from_json(json.dumps(plain["architecture"]))) != fingerprint(subject.architecture):
        raise ValueError("another fingerprint")
    if Pixels.from_dict(plain["pixels"]) != subject.pixels:
        raise ValueError("pixels are prepared in another way")
    return {}


# --- TensorFlow Lite -------------------------------------------------------------------------------------------------


def _write_float(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    from search.export.tflite import float_tflite

    paths[0].write_bytes(float_tflite(subject.architecture, subject.trained_weights, rescaled=subject.rescaled))


def _verify_float(subject: Subject, paths: Sequence[Path]) -> Facts:
    content, pixels = paths[0].read_bytes(), subject.pixels
    facts = litert.read(content)
    _require_one_image(facts, subject)
    images = sample_images(subject.architecture.input)
    expected = np.asarray(subject.model(pixels.apply(images), training=False))
    require_equal(litert.outputs(content, images, pixels.apply), expected, CONVERTED)
    measured: dict[str, Any] = {"val_accuracy": None}
    if subject.has_data:
        outputs = litert.outputs(content, subject.data.x_val, pixels.apply)
        require_equal(outputs, subject.probabilities, CONVERTED)
        measured = _measured(subject, outputs)
    tensors = {"input": facts.input.to_dict() | {"pixels": pixels.describe()}, "output": facts.output.to_dict()}
    return {"bytes": len(content)} | measured | tensors | {"operators": list(facts.operators)}


def _write_int8(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    paths[0].write_bytes(subject.int8)


def _verify_int8(subject: Subject, paths: Sequence[Path]) -> Facts:
    content = paths[0].read_bytes()
    facts = litert.read(content)
    _require_one_image(facts, subject)
    if floats := sorted(dtype for dtype in facts.dtypes if dtype.startswith("float")):
        raise ValueError(f"holds {floats[0]} values, and all must be integers")
    channels, scale, zero_point = facts.input.shape[-1], facts.input.scale, facts.input.zero_point
    outputs = int8.outputs(content, subject.data.x_val, subject.int8_pixels)
    agreement = require_alike(outputs, subject.probabilities, facts.output.scale)
    pixels = {"pixels": subject.int8_pixels.describe_int8(channels, scale, zero_point)}
    tensors = {"input": facts.input.to_dict() | pixels, "output": facts.output.to_dict()}
    measured = _measured(subject, outputs) | {"kernels": int8.KERNELS, "same_class_as_keras": agreement}
    measured |= {"calibration_images": len(subject.calibration)}
    return {"bytes": len(content)} | measured | tensors | {"operators": list(facts.operators)}


def _require_one_image(facts: litert.Facts, subject: Subject) -> None:
    shapes = (1, *subject.architecture.input), (1, subject.architecture.classes)
    if (facts.input.shape, facts.output.shape) != shapes:
        raise ValueError(f"takes {list(facts.input.shape)} and gives {list(facts.output.shape)}, not {shapes}")


def _measured(subject: Subject, outputs: Any) -> dict[str, Any]:
    """Measures of an output of the format and of the Keras model, as `val_accuracy` and `keras_val_accuracy`."""
    ours, theirs = subject.measures(outputs), subject.keras_measures
    measured = {f"val_{name}": value for name, value in ours.items()}
    measured |= {f"keras_val_{name}": value for name, value in theirs.items()}
    kind = {} if subject.metric == ACCURACY else {"metric": subject.metric}
    return measured | {"val_images": len(subject.data.y_val)} | kind


def _missing_litert(subject: Subject) -> str | None:
    return no_tensorflow() or not_installed("ai_edge_litert")


def _missing_int8(subject: Subject) -> str | None:
    layers = walk(subject.architecture.layers)
    if any(isinstance(layer, Activation | Gate) and layer.function == "elu" for layer in layers):
        return "TensorFlow Lite computes elu in floats only; take a network with another activation"
    return _missing_litert(subject) or (None if subject.has_data else subject.missing_data)


# --- C array ---------------------------------------------------------------------------------------------------------


def _write_c(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    source = _c_source(subject)
    measured = files.forms["int8"]
    metric, images = measured.get("metric", ACCURACY), measured["val_images"]
    before, after = (format_percent(measured[f"{kind}val_{metric}"], images) for kind in ("keras_", ""))
    kind = "" if metric == ACCURACY else f" {MEASURES[metric].label}"
    heading = [
        f"{subject.architecture.name or 'network'}: an int8 network for TensorFlow Lite Micro.",
        *subject.heading,
        f"After int8 conversion {after}{kind} on the same images, {before} before.",
    ]
    texts = c_array.source_text(source), c_array.header_text(source, heading), c_array.vectors_text(source)
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")


def _verify_c(subject: Subject, paths: Sequence[Path]) -> Facts:
    source = _c_source(subject)
    source_text, header_text, vectors_text = (path.read_text(encoding="utf-8") for path in paths)
    c_array.check(source, header_text, source_text, vectors_text)
    facts = {"header": f"{source.name}.h", "bytes": len(source.content), "arena_bytes": source.arena_bytes}
    return facts | {"resolver": source.methods, "test_vectors": _vector_facts(source, subject)}


def _vector_facts(source: c_array.Source, subject: Subject) -> dict[str, Any]:
    positions = list(source.vectors.positions)
    labels = subject.data.y_val[positions].tolist()
    facts = {"header": f"{source.name}_test.h", "val_images": positions, "labels": labels}
    return facts | {"outputs": source.vectors.outputs.tolist(), "tolerance": source.tolerance}


def _c_source(subject: Subject) -> c_array.Source:
    content = subject.int8
    facts = litert.read(content)
    return c_array.Source(
        name=f"{subject.stem}_int8",
        content=content,
        facts=facts,
        pixels=subject.int8_pixels,
        class_names=subject.data.class_names,
        arena_bytes=arena_to_allocate(read_graph(content)),
        vectors=_vectors(subject, facts.output),
    )


def _vectors(subject: Subject, output: litert.Tensor) -> c_array.Vectors:
    """The first validation image of some classes, spread evenly, as many as fit into VECTOR_BYTES, with their outputs."""
    labels = np.unique(subject.data.y_val)
    count = min(len(labels), MOST_VECTORS, max(1, VECTOR_BYTES // math.prod(subject.architecture.input)))
    chosen = labels[np.linspace(0, len(labels) - 1, count).astype(int)]
    positions = sorted(int(np.flatnonzero(subject.data.y_val == label)[0]) for label in chosen)
    images = subject.data.x_val[positions]
    real = int8.outputs(subject.int8, images, subject.int8_pixels)
    stored = np.rint(real / np.float32(output.scale)) + output.zero_point
    return c_array.Vectors(tuple(positions), images, stored.astype(np.int8))


def _missing_c(subject: Subject) -> str | None:
    if lacking := without_kernel(lower(resolve(subject.architecture))):
        return f"TensorFlow Lite Micro has no integer kernel for {', '.join(lacking)}; take a network with relu or silu"
    return _missing_int8(subject)


# --- ONNX ------------------------------------------------------------------------------------------------------------


def _write_onnx(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    from search.export.onnx_model import onnx_model

    class_names = subject.facts.get("data", {}).get("class_names", [])
    properties = {"pixels": json.dumps(subject.pixels.to_dict()), "class_names": json.dumps(class_names)}
    description = f"{subject.architecture.name}: takes {subject.pixels.describe()}, channels last; gives probabilities."
    content = onnx_model(
        subject.architecture, subject.trained_weights, description=description, properties=properties,
        rescaled=subject.rescaled, opset=subject.opset,
    )  # fmt: skip
    paths[0].write_bytes(content)


def _verify_onnx(subject: Subject, paths: Sequence[Path]) -> Facts:
    from search.export import onnx_model

    content = paths[0].read_bytes()
    if Pixels.from_dict(onnx_model.properties(content)["pixels"]) != subject.pixels:
        raise ValueError("says that pixels are prepared in another way")
    inputs = subject.pixels.apply(sample_images(subject.architecture.input))
    for images in (inputs, inputs[:1]):  # batches of any size
        require_equal(onnx_model.outputs(content, images), np.asarray(subject.model(images, training=False)), CONVERTED)
    return {"bytes": len(content), "input": {"pixels": subject.pixels.describe()}, "opset": subject.opset}


def _missing_onnx(subject: Subject) -> str | None:
    return no_tensorflow() or not_installed("tf2onnx", "onnx", "onnxruntime")


KERAS = Format("keras", (".keras",), "trained Keras model", _write_keras, _verify_keras)
PY = Format("py", (".py",), "annotated Keras source", _write_source, _verify_source, trained=False)
ADD = Format(
    "add", ("_add.py",), "annotated Keras source as a script of model.add(...)", _write_adds, _verify_adds,
    trained=False, missing=_missing_stack,
)  # fmt: skip
TFLITE = Format(
    "tflite", (".tflite",), "TensorFlow Lite, float32, measured on the validation images", _write_float, _verify_float,
    missing=_missing_litert,
)  # fmt: skip
INT8 = Format(
    "int8", ("_int8.tflite",), "TensorFlow Lite, int8, calibrated on training images and measured on the validation images",
    _write_int8, _verify_int8, missing=_missing_int8,
)  # fmt: skip
C = Format(
    "c", ("_int8.cc", "_int8.h", "_int8_test.h"), "the int8 file as a C array for microcontrollers", _write_c, _verify_c,
    requires=("int8",), missing=_missing_c,
)  # fmt: skip
ONNX = Format("onnx", (".onnx",), "ONNX, float32", _write_onnx, _verify_onnx, missing=_missing_onnx)
CARD = Format("json", (".json",), "card", _write_card, _verify_card, trained=False)
