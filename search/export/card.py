"""The card of an export, STEM.json: all that is known of a network and of the files that it was exported to."""

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

_WIDTH = 120


@dataclass(frozen=True)
class Files:
    """What a card says of the files beside it: the digest of each by its name, and what was measured of each form."""

    sha256: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    network: str | None = None  # digest of what they are all of


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
    own = summarize(architecture) | {
        "fingerprint": fingerprint(architecture),
        "architecture": to_dict(architecture),
        "recipe": None if recipe is None else dict(recipe),
        "pixels": pixels.to_dict() | {"description": pixels.describe()},
        "versions": versions(),
        "network_sha256": files.network,
        "forms": dict(files.forms),
        "sha256": dict(files.sha256),
    }
    if taken := sorted(own.keys() & facts.keys()):
        raise ValueError(f"facts: {', '.join(taken)} are the card's own")
    layers = own.pop("layers")
    return own | dict(facts) | {"layers": layers}


def files_of(path: Path) -> Files:
    """What an earlier card says of the files beside it that are still as they were; nothing where there is no card."""
    try:
        told = json.loads(path.read_bytes())
        sha256 = {str(name): str(value) for name, value in told["sha256"].items()}
        forms, network = {form: dict(facts) for form, facts in told["forms"].items()}, told["network_sha256"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Files()
    kept = {name: value for name, value in sha256.items() if _is_as_it_was(path.parent, name, value)}
    return Files(kept, {form: facts for form, facts in forms.items() if facts.get("file") in kept}, network)


def network_digest(architecture: Architecture, weights: Sequence[npt.NDArray[Any]]) -> str:
    """One digest over the architecture and all weights in their order."""
    found = hashlib.sha256(fingerprint(architecture).encode())
    for array in weights:
        found.update(f"{array.dtype.name}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages that a training and an export depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def pretty(value: Any, indent: int = 0) -> str:
    """JSON in which whatever fits a line stands on one."""
    flat = json.dumps(value, allow_nan=False)
    if indent + len(flat) <= _WIDTH or not isinstance(value, dict | list | tuple):
        return flat
    inner = "\n" + " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(key))}: {pretty(entry, indent + 2)}" for key, entry in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}\n{' ' * indent}}}"
    return f"[{inner}{f',{inner}'.join(pretty(entry, indent + 2) for entry in value)}\n{' ' * indent}]"


def _is_as_it_was(folder: Path, name: str, sha256: str) -> bool:
    if Path(name).name != name:  # a card is a file that anyone may have written
        return False
    try:
        return digest(folder / name) == sha256
    except OSError:
        return False
