"""The card of an export, STEM.json: all facts of a network and of its files."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.budget.summary import summarize
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture, fingerprint, to_dict

PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "ai-edge-litert", "tf2onnx", "numpy", "optuna")

PREDICTED = "int8.flash_bytes and int8.arena_bytes are predicted from the architecture; forms.int8.bytes is the file's size"

_WIDTH = 120


@dataclass(frozen=True)
class Files:
    """The files beside a card."""

    sha256: Mapping[str, str] = field(default_factory=dict)  # by name
    forms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # facts of each format, measured ones included
    network: str | None = None  # `network_digest` of the network in all of them


def card(
    architecture: Architecture,
    facts: Mapping[str, Any],
    pixels: Pixels,
    recipe: Mapping[str, Any] | None,
    files: Files,
) -> dict[str, Any]:
    """The card as plain JSON values.

    Raises:
        ValueError: a fact has the name of an entry of the card's own.
    """
    network = summarize(architecture) | {
        "fingerprint": fingerprint(architecture),
        "architecture": to_dict(architecture),
        "recipe": None if recipe is None else dict(recipe),
        "pixels": pixels.to_dict() | {"description": pixels.describe()},
        "int8_note": PREDICTED,
        "versions": versions(),
        "network_sha256": files.network,
        "forms": dict(files.forms),
        "sha256": dict(files.sha256),
    }
    if taken := sorted(network.keys() & facts.keys()):
        raise ValueError(f"facts: {', '.join(taken)} are the card's own")
    layers = network.pop("layers")
    return network | dict(facts) | {"layers": layers}


def files_of(path: Path) -> Files:
    """The unchanged files that an earlier card lists; none if there is no valid card."""
    try:
        earlier = json.loads(path.read_bytes())
        sha256 = {str(name): str(value) for name, value in earlier["sha256"].items()}
        forms = {form: dict(facts) for form, facts in earlier["forms"].items()}
        network = earlier["network_sha256"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Files()
    kept = {name: value for name, value in sha256.items() if _is_unchanged(path.parent, name, value)}
    return Files(kept, {form: facts for form, facts in forms.items() if facts.get("file") in kept}, network)


def network_digest(architecture: Architecture, weights: Sequence[npt.NDArray[Any]]) -> str:
    """SHA-256 of an architecture and its weights, in the order of `get_weights()`."""
    digest = hashlib.sha256(fingerprint(architecture).encode())
    for array in weights:
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that training and export depend on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def pretty(value: Any, indent: int = 0) -> str:
    """JSON with every value that fits into a line on one line."""
    flat = json.dumps(value, allow_nan=False)
    if indent + len(flat) <= _WIDTH or not isinstance(value, dict | list | tuple):
        return flat
    inner = "\n" + " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(key))}: {pretty(entry, indent + 2)}" for key, entry in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}\n{' ' * indent}}}"
    return f"[{inner}{f',{inner}'.join(pretty(entry, indent + 2) for entry in value)}\n{' ' * indent}]"


def _is_unchanged(folder: Path, name: str, sha256: str) -> bool:
    if Path(name).name != name:  # a card may come from anywhere: files outside its folder are not touched
        return False
    try:
        return file_digest(folder / name) == sha256
    except OSError:
        return False
