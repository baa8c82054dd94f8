"""A network to take away: annotated Keras source, a JSON card, and the trained model; each read back before it counts.

Keras is imported only where trained weights are at hand, so that an untrained reference is exported without TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from search.architecture import Architecture, fingerprint, from_json, to_dict
from search.cost import table
from search.errors import UserError, nearest
from search.files import replacing
from search.pixels import Pixels
from search.seeds import generator
from search.source import keras_source

FORMS = ("py", "json", "keras")
TOLERANCE = 1e-5  # of a probability: what other kernels of the same arithmetic may differ by
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "optuna")

_CARD_WIDTH = 120

Array = npt.NDArray[Any]


def export(
    architecture: Architecture,
    folder: Path,
    *,
    weights: Sequence[Array] | None,
    facts: Mapping[str, Any],
    pixels: Pixels,
    recipe: Mapping[str, Any] | None,
    forms: Sequence[str] = FORMS,
    stem: str = "best_model",
    heading: Sequence[str] = (),
) -> dict[str, Path]:
    """Write the forms as `stem.py`, `stem.json` and `stem.keras`; all are checked before the first one is replaced.

    Args:
        weights: in the order of the model's own; None for a network that has not been trained.
        facts: more entries of the card (scores, seeds, data), plain JSON values.
        recipe: how it was trained; its initialiser goes into the source.
        heading: lines for the docstring of the source.

    Returns:
        The path of each form.

    Raises:
        UserError: an unknown form, weights that are not the network's, or a folder that cannot be written.
        RuntimeError: a form, read back, is another network; files of an earlier export are left as they were.
    """
    chosen = _chosen(architecture, forms, weights)
    paths = {form: folder / f"{stem}.{form}" for form in chosen}
    model = None if weights is None or chosen == ["json"] else _trained(architecture, weights)
    if "keras" in chosen:
        heading = [*heading, f'Trained weights: build_model().load_weights("{paths["keras"].name}")']
    initializer = (recipe or {}).get("initializer", "glorot_uniform")
    source = keras_source(architecture, heading=heading, pixels=pixels, initializer=initializer)
    try:
        with ExitStack() as stack:  # which closes in reverse: the card, with the digests of the others, is replaced last
            drafts = {form: stack.enter_context(replacing(paths[form])) for form in reversed(chosen)}
            for form in chosen:
                match form:
                    case "py":
                        drafts[form].write_text(source, encoding="utf-8")
                    case "keras" if model is not None:
                        model.save(drafts[form])
                    case _:
                        digests = {paths[other].name: _digest(drafts[other]) for other in chosen if other != "json"}
                        card = _card(architecture, facts, pixels, recipe, digests)
                        drafts[form].write_text(_pretty(card) + "\n", encoding="utf-8")
                _verify(form, drafts[form], architecture, model, pixels)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: the export cannot be written ({reason}); pass another folder") from error
    return {form: paths[form] for form in FORMS if form in paths}


def _trained(architecture: Architecture, weights: Sequence[Array]) -> Any:
    from search.model import build

    model = build(architecture)
    own = model.weights
    if len(weights) != len(own):
        raise UserError(f"weights: {len(weights)} arrays, the network has {len(own)}; they are another network's")
    for given, variable in zip(weights, own, strict=True):
        if given.shape != tuple(variable.shape):
            wanted = f"{variable.path} is {list(variable.shape)}"
            raise UserError(f"weights: {wanted}, not {list(given.shape)}; they are another network's")
        if not np.isfinite(given).all():
            raise UserError(f"weights: {variable.path} holds values that are not finite; export another trial")
    model.set_weights(list(weights))
    return model


# --- the card --------------------------------------------------------------------------------------------------------


def _card(
    architecture: Architecture,
    facts: Mapping[str, Any],
    pixels: Pixels,
    recipe: Mapping[str, Any] | None,
    digests: Mapping[str, str],
) -> dict[str, Any]:
    own = table(architecture) | {
        "fingerprint": fingerprint(architecture),
        "architecture": to_dict(architecture),
        "recipe": None if recipe is None else dict(recipe),
        "pixels": pixels.to_dict() | {"description": pixels.describe()},
        "versions": versions(),
        "sha256": dict(digests),
    }
    if taken := sorted(own.keys() & facts.keys()):
        raise ValueError(f"facts: {', '.join(taken)} are the card's own")
    layers = own.pop("layers")
    return own | dict(facts) | {"layers": layers}


def versions() -> dict[str, str]:
    """Of Python and of the packages that a training depends on, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pretty(value: Any, indent: int = 0) -> str:
    """JSON in which whatever fits a line stands on one."""
    flat = json.dumps(value, allow_nan=False)
    if indent + len(flat) <= _CARD_WIDTH or not isinstance(value, dict | list | tuple):
        return flat
    inner = "\n" + " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(key))}: {_pretty(entry, indent + 2)}" for key, entry in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}\n{' ' * indent}}}"
    return f"[{inner}{f',{inner}'.join(_pretty(entry, indent + 2) for entry in value)}\n{' ' * indent}]"


# --- reading back ----------------------------------------------------------------------------------------------------


def _chosen(architecture: Architecture, forms: Sequence[str], weights: Sequence[Array] | None) -> list[str]:
    for form in forms:
        if form not in FORMS:
            raise UserError(f"form {form!r} is not known, {nearest(form, FORMS)}")
    if weights is None and "keras" in forms:
        raise UserError(f"{architecture.name or 'the network'} has not been trained; --form py or json")
    return [form for form in ("py", "keras", "json") if form in forms]  # the order in which they are written


def _verify(form: str, path: Path, architecture: Architecture, model: Any, pixels: Pixels) -> None:
    try:
        match form:
            case "py":
                _verify_source(path, model, pixels)
            case "json":
                _verify_card(path, architecture)
            case "keras":
                _verify_model(path, model, pixels)
    except Exception as error:
        raise RuntimeError(f"export: the {form} form, read back, is not the network ({error})") from error


def _verify_source(path: Path, model: Any, pixels: Pixels) -> None:
    code = compile(path.read_text(encoding="utf-8"), path.name, "exec")
    if model is None:
        return
    module = ModuleType(path.stem)
    exec(code, module.__dict__)
    images = _images(model.input_shape[1:])
    prepared = module.prepare(images)
    if not np.array_equal(prepared, pixels.apply(images)):
        raise ValueError("prepare() prepares other pixels")
    built = module.build_model()
    if built.count_params() != model.count_params():
        raise ValueError(f"{built.count_params():,} parameters instead of {model.count_params():,}")
    built.set_weights(model.get_weights())
    _same_outputs(built, model, prepared)


def _verify_model(path: Path, model: Any, pixels: Pixels) -> None:
    import keras

    _same_outputs(keras.models.load_model(path, compile=False), model, pixels.apply(_images(model.input_shape[1:])))


def _verify_card(path: Path, architecture: Architecture) -> None:
    card = json.loads(path.read_bytes())
    if fingerprint(from_json(json.dumps(card["architecture"]))) != fingerprint(architecture):
        raise ValueError("another fingerprint")


def _same_outputs(model: Any, other: Any, inputs: npt.NDArray[np.float32]) -> None:
    outputs, expected = (np.asarray(network(inputs, training=False)) for network in (model, other))
    difference = float(np.abs(outputs - expected).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"outputs differ by {difference:.3g}")


def _images(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """A few images uint8 (4, height, width, channels): soft gradients under noise."""
    height, width, channels = shape
    random = generator(0, "export")
    slopes = random.uniform(-1, 1, (4, 2, channels))
    down, across = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    soft = down * slopes[:, None, None, 0] + across * slopes[:, None, None, 1]
    return np.clip(128 + 50 * soft + 25 * random.standard_normal((4, *shape)), 0, 255).astype(np.uint8)
