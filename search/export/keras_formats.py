"""The forms that Keras reads: annotated source in two styles, the trained model; and the card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from search.data.preprocessing import Pixels
from search.export.card import Files, card, pretty
from search.export.format import Facts, Form, Subject
from search.export.keras_source import add_source, is_stack, keras_source
from search.export.verification import require_equal, sample_images
from search.networks.architecture import fingerprint, from_json


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
        "architecture": subject.architecture, "heading": heading, "pixels": subject.pixels, "initializer": initializer
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


def _branches(subject: Subject) -> str | None:
    if is_stack(subject.architecture):
        return None
    return "the network branches or calls a layer twice, which a Sequential model cannot express; take py"


def _write_keras(subject: Subject, paths: Sequence[Path], files: Files) -> None:
    subject.model.save(paths[0])


def _verify_keras(subject: Subject, paths: Sequence[Path]) -> Facts:
    from search.training.model import load

    inputs = subject.pixels.apply(sample_images(subject.architecture.input))
    found, expected = (np.asarray(model(inputs, training=False)) for model in (load(paths[0]), subject.model))
    require_equal(found, expected)
    return {}


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


PY = Form("py", (".py",), "annotated Keras source", _write_source, _verify_source, trained=False)
ADD = Form(
    "add",
    ("_add.py",),
    "the same as a script of model.add(...)",
    _write_adds,
    _verify_adds,
    trained=False,
    missing=_branches,
)
KERAS = Form("keras", (".keras",), "trained Keras model", _write_keras, _verify_keras)
CARD = Form("json", (".json",), "card", _write_card, _verify_card, trained=False)
