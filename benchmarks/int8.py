"""Accuracy and size of each trained network of a run: Keras, float32 .tflite, int8 .tflite.

    python benchmarks/int8.py STUDY --data cifar10.npz [--out RUN] [--images 2000] [--json FILE]

measures on the first so many test images of the file, which no training has seen; also with batch normalisations that do
not fold left as TensorFlow's converter has them (a multiplication and an addition with one scale for all channels), and
with other numbers of calibration images. `--references` prints the sizes of the known networks, untrained.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search.study import records as study_records

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from search.data.preprocessing import Pixels
from search.export import litert, tflite
from search.export.quantization import quantizable
from search.seeds import generator
from search.study import references
from search.study import run as studies
from search.study import trained as winner
from search.training.model import build

CALIBRATIONS = (16, 64, 128, 512)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("study", nargs="?")
    options.add_argument("--data", type=Path)
    options.add_argument("--out", type=Path)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--references", action="store_true")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    found: dict[str, Any] = {}
    if asked.references:
        found["references"] = {name: reference_sizes(name) for name in references.names()}
    if asked.study:
        run = studies.find(asked.study, asked.out, None)
        with np.load(asked.data) as arrays:
            x, y = arrays["x_test"][: asked.images], arrays["y_test"][: asked.images].ravel()
        for record in study_records.ranked(study_records.records(studies.load(run).candidates)):
            best = winner.candidate(run, record.number)
            found[best.architecture.name] = measured(best, winner.images(run, asked.data), x, y)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def reference_sizes(name: str) -> dict[str, int]:
    """Bytes of a known network that was not trained; its weights are noise, so that nothing of it is left out as zero."""
    architecture = references.find(name).architecture
    random = generator(0, name)
    weights = [array + 0.1 * random.random(array.shape) for array in build(architecture).get_weights()]
    images = random.integers(0, 256, (16, *architecture.input), dtype=np.uint8)
    model = trained(architecture, weights)
    sizes = {"params": model.count_params(), "float32": len(tflite.float_tflite(architecture, weights))}
    for how, rewritten in WAYS.items():
        sizes[how] = len(in_integers(architecture, weights, images, Pixels(), rewritten))
    print(name, sizes, flush=True)
    return sizes


def measured(best: Any, data: Any, x: Any, y: Any) -> dict[str, Any]:
    """Accuracy, and how far the outputs are from Keras', of each way to write a trained network."""
    model = trained(best.architecture, best.weights)
    parts = [best.pixels.apply(x[start : start + 250]) for start in range(0, len(x), 250)]
    expected = np.concatenate([np.asarray(model(part, training=False)) for part in parts])
    spread = np.square(expected - expected.mean(axis=0)).sum()
    told = {"keras": float(np.mean(expected.argmax(axis=1) == y))}

    def tell(name: str, content: bytes, outputs: Any) -> None:
        told[name] = {
            "bytes": len(content),
            "accuracy": float(np.mean(outputs.argmax(axis=1) == y)),
            "same_class": float(np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1))),
            "missed_variance": float(np.square(outputs - expected).sum() / spread),
        }
        print(best.architecture.name, f"{told['keras']:.2%}", name, told[name], flush=True)

    content = tflite.float_tflite(best.architecture, best.weights)
    tell("float32", content, litert.outputs(content, x, best.pixels.apply))
    for how, rewritten in WAYS.items():
        for count in CALIBRATIONS if how == "int8" else (tflite.CALIBRATION_IMAGES,):
            tflite.CALIBRATION_IMAGES = count
            images = tflite.calibration_images(data.x_train, data.y_train)
            content = in_integers(best.architecture, best.weights, images, best.pixels, rewritten)
            given = litert.read(content).input
            table = best.pixels.quantized(x.shape[-1], given.scale, given.zero_point)
            prepare = partial(lambda table, some: table[np.arange(some.shape[-1]), some], table)
            tell(f"{how}, {count}", content, litert.outputs(content, x, prepare))
        tflite.CALIBRATION_IMAGES = 128
    return told


def in_integers(architecture: Any, weights: Any, images: Any, pixels: Any, rewritten: Any) -> bytes:
    kept, tflite.quantizable = tflite.quantizable, rewritten
    try:
        return tflite.int8_tflite(architecture, weights, images, pixels)
    finally:
        tflite.quantizable = kept


def trained(architecture: Any, weights: Any) -> Any:
    """The network as it is."""
    model = build(architecture)
    model.set_weights(list(weights))
    return model


WAYS: dict[str, Any] = {"int8": quantizable, "int8 as the converter has it": trained}


if __name__ == "__main__":
    main()
