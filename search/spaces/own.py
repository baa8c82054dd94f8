"""A user's own search space: a class in a Python file that the study file names, `kind = "cells.py:Cells"`.

The class is a pydantic model with the members of `search.spaces.base.SearchSpace`. A stored configuration names the file by
its absolute path and the digest of its content, since a space that has changed would read the parameters of earlier trials
as other networks.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel

from search.errors import reason

_KIND = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)(?:@(?P<digest>[0-9a-f]{16}))?")
_MEMBERS = ("parameters", "widths", "depths", "build", "encode")  # of `search.spaces.base.SearchSpace`

_kinds: dict[type[BaseModel], str] = {}  # of the classes loaded, with path and digest


def is_own(kind: object) -> bool:
    """True for the `kind` of a [space] table that names a class in a Python file."""
    return isinstance(kind, str) and _KIND.fullmatch(kind) is not None


def pin(kind: str, folder: Path) -> str:
    """The kind as a stored configuration has it: absolute path and digest of the file.

    Args:
        folder: the folder that a relative path starts from.

    Raises:
        ValueError: the file cannot be read.
    """
    path, name, _ = _parts(kind)
    path = (folder / path).resolve()
    return f"{path}:{name}@{_digest(path)}"


def load(kind: str) -> type[BaseModel]:
    """The class of a kind.

    Raises:
        ValueError: the file cannot be read, has changed since the study began, fails, or its class is no search space.
    """
    path, name, digest = _parts(kind)
    present = _digest(path)
    if digest is not None and digest != present:
        raise ValueError(f"kind: {path} has changed since the study began; restore it, or begin another with a new --out")
    return _load(path, name, present)


def kind_of(space: BaseModel) -> str | None:
    """The kind of a space whose class came from `load`; None of any other."""
    return _kinds.get(type(space))


@lru_cache
def _load(path: Path, name: str, digest: str) -> type[BaseModel]:
    module_name = f"own_space_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # pydantic looks up the names of annotations there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"kind: {path} fails when it is loaded ({type(error).__name__}: {reason(error)})") from None
    space = getattr(module, name, None)
    if not (isinstance(space, type) and issubclass(space, BaseModel)):
        raise ValueError(f"kind: {path} holds no pydantic model {name!r}; name a class that is one")
    missing = [member for member in _MEMBERS if not hasattr(space, member)]
    if missing:
        raise ValueError(f"kind: {name} in {path} has no {missing[0]!r}; a search space has {', '.join(_MEMBERS)}")
    _kinds[space] = f"{path}:{name}@{digest}"
    return space


def _parts(kind: str) -> tuple[Path, str, str | None]:
    match = _KIND.fullmatch(kind)
    assert match
    return Path(match["path"]), match["name"], match["digest"]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ValueError(f"kind: {path} cannot be read ({error.strerror})") from None
