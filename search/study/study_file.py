"""Reads and checks study files and stored configurations; the differences between two of them."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search import files
from search.errors import UserError, first_place, first_problem, nearest
from search.files import safe_name
from search.networks import architecture as architectures
from search.networks.architecture import to_dict
from search.spaces import own
from search.study.config import (
    DEEPEST,
    FREE,
    OPTIONS,
    REFERENCES,
    ROOT,
    STUDIES,
    StudyConfig,
    flat,
)
from search.study.reference import TABLES
from search.training.measures import ACCURACY
from space import record_of

FOLDERS = ("adopt", "prior")  # keys of the [search] table that name run folders
PRIORS = STUDIES / "priors"


@functools.cache
def shipped_priors() -> tuple[str, ...]:
    """Names that `search.prior` may have in place of run folders."""
    return tuple(sorted(path.stem for path in PRIORS.glob("*.json")))


def parse(raw: Mapping[str, Any], where: str, overridden: Mapping[str, Any] | None = None) -> StudyConfig:
    """Check a configuration; a fault in an overridden key, or a rule that names one, is reported under its option.

    Raises:
        UserError: the first rule that is broken, with its key and the nearest known one where a key is unknown.
    """
    try:
        return StudyConfig.model_validate(dict(raw))
    except ValidationError as error:
        problem = _missing_table(error) or first_problem(error, _known(error, raw))
        place = ".".join(str(part) for part in first_place(error)[:2])
        faulty = [key for key in overridden or () if key == place or (not place and key in problem)]
        raise UserError(f"{OPTIONS[faulty[0]] if faulty else where}: {problem}") from None


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read a study file, with some of its keys (`search.trials`) overridden.

    Raises:
        UserError: the file is missing, no TOML, or breaks a rule.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return loads(content, path, overrides)


def loads(content: bytes, path: Path, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Check the content of a study file, which need not be at its path yet; relative paths start in the path's folder.

    Raises:
        UserError: it is no TOML, or breaks a rule.
    """
    try:
        raw = tomllib.loads(content.decode("utf-8-sig"))  # some editors put a mark in front
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or a number of thousands of digits
        remedy = "; write a backslash in single quotes, such as 'p\\d+'" if "'\\'" in str(error) else ""
        raise UserError(f"{path}: no valid TOML: {' '.join(str(error).split())}{remedy}") from None
    _check_plain(path, raw)
    if is_file(raw.get("base")):
        raw["base"] = _portable((path.parent / raw["base"]).resolve())
    if isinstance(table := raw.get("search"), dict) and isinstance(names := table.get("warm_start"), list):
        table["warm_start"] = [_portable((path.parent / name).resolve()) if is_file(name) else name for name in names]
    for key in FOLDERS:
        if isinstance(table := raw.get("search"), dict) and isinstance(folders := table.get(key), str | list):
            listed = [folders] if isinstance(folders, str) else folders
            shipped = shipped_priors() if key == "prior" else ()
            table[key] = [
                _portable((path.parent / name).resolve()) if isinstance(name, str) and name not in shipped else name
                for name in listed
            ]
    if isinstance(data := raw.get("data"), dict) and isinstance(data.get("path"), str):
        data["path"] = str((path.parent / data["path"]).resolve())
    if isinstance(table := raw.get("space"), dict) and table.get("kind") == "fixed" and "networks" not in table:
        raw["space"] = table | _given(table.get("network"), path)
    if isinstance(table := raw.get("space"), dict) and own.is_own(table.get("kind")):
        raw["space"] = table | {"kind": _pinned(table["kind"], path)}
    for key, value in (overrides or {}).items():
        table, _, name = key.partition(".")
        if isinstance(raw.setdefault(table, {}), dict):
            raw[table][name] = value
    return parse(raw, str(path), overrides)


def _given(names: object, path: Path) -> dict[str, Any]:
    """The networks of a fixed space, read from their files now: a stored configuration is then complete by itself."""
    networks: dict[str, Any] = {}
    for name in names if isinstance(names, list) else [names]:
        if isinstance(name, str):
            file = path.parent / name if is_file(name) else REFERENCES / f"{name}.json"
            known = sorted(one.stem for one in REFERENCES.glob("*.json"))
            if not files.is_file(file):
                raise UserError(
                    f"{path}: space.network: {name!r} is no reference, {nearest(name, known)}; or give an architecture file"
                )
            stem, network = safe_name(file.stem), to_dict(architectures.load(file))
            if networks.setdefault(stem, network) != network:
                raise UserError(f"{path}: space.network: two networks are called {stem!r}; rename one of the files")
    return {"network": list(networks) if isinstance(names, list) else next(iter(networks), names), "networks": networks}


def _pinned(kind: str, path: Path) -> str:
    """The kind of a user's own space with the absolute path and the digest of its file."""
    try:
        return own.pin(kind, path.parent)
    except ValueError as error:
        raise UserError(f"{path}: space.{error}") from None


def is_file(name: object) -> bool:
    """True if a network is named by the path of its file and not as a reference."""
    return isinstance(name, str) and name.endswith(".json")


def find(study: str) -> tuple[str, Path]:
    """(name, study file) of a study given by its name under studies/, or by the path of a TOML file or of its folder.

    Raises:
        UserError: there is no such study; names the nearest.
    """
    if study.endswith(".toml"):
        path = Path(study)
        if not path.is_file():
            raise UserError(f"{study}: no such study file")
        return safe_name(path.resolve().parent.name if path.name == "study.toml" else path.stem), path
    known = sorted(path.parent.name for path in STUDIES.glob("*/study.toml"))
    if study in known:
        return study, STUDIES / study / "study.toml"
    if (Path(study) / "study.toml").is_file():
        return safe_name(Path(study).resolve().name), Path(study) / "study.toml"
    raise UserError(f"{study!r}: no study of this name under studies/; {nearest(study, known)}")


def differences(stored: StudyConfig, requested: StudyConfig) -> list[str]:
    """Differences that keep a configuration from resuming the stored one: `recipe.epochs is 5 here, not 50`.

    Files of networks and run folders are compared by name, as they may have moved together with the study file. A base is
    compared with the trained one by its network when it is needed (`search.runner.references`).
    """
    ours, theirs = _DEFAULTS | dict(flat(stored.dump())), _DEFAULTS | dict(flat(requested.dump()))
    return [
        f"{key} is {json.dumps(ours.get(key))} here, not {json.dumps(theirs.get(key))}" for key in _differing(ours, theirs)
    ]


_DEFAULTS = {"search.metric": ACCURACY}  # of keys that a stored configuration leaves out, for messages


def options_back(stored: StudyConfig, requested: StudyConfig) -> str | None:
    """The options that make the asked configuration the stored one, None where no options do."""
    ours, theirs = dict(flat(stored.dump())), dict(flat(requested.dump()))
    keys = _differing(ours, theirs)
    if not all(key in OPTIONS and ours.get(key) is not None for key in keys):
        return None
    return " ".join(f"{OPTIONS[key]} {ours[key]}" for key in keys)


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Keys that may not differ on resume, and do."""
    return [
        key
        for key in {**ours, **theirs}
        if key not in FREE and _without_folder(key, ours.get(key)) != _without_folder(key, theirs.get(key))
    ]


def _without_folder(key: str, value: Any) -> Any:
    """A value with the names of network files in place of their paths."""
    if key == "base" and is_file(value):
        return Path(value).name
    if key == "search.warm_start" and isinstance(value, list):
        return [Path(name).name if is_file(name) else name for name in value]
    if key.removeprefix("search.") in FOLDERS and isinstance(value, list):
        return ["/".join(Path(name).parts[-2:]) for name in value]  # most are called run
    return value


def relocated(config: StudyConfig, path: Path) -> StudyConfig:
    """A stored configuration with base and images where its study file has them now, if they are no longer where they were.

    Args:
        path: the study file; one that cannot be read changes nothing.
    """
    is_base_missing = isinstance(config.base, str) and is_file(config.base) and _is_gone(ROOT / config.base)
    is_data_missing = config.data.path is not None and _is_gone(Path(config.data.path))
    if not (is_base_missing or is_data_missing):
        return config
    try:
        present = load(path)
    except UserError:
        return config
    plain = config.dump()
    if is_base_missing and _without_folder("base", present.base) == _without_folder("base", config.base):
        plain["base"] = present.base
    if is_data_missing and present.data.path is not None:
        plain["data"]["path"] = present.data.path
    return parse(plain, str(path))


def _is_gone(path: Path) -> bool:
    try:
        return not path.exists()
    except (OSError, ValueError):  # it may be there, in a folder that cannot be read
        return False


def _check_plain(path: Path, raw: Mapping[str, Any]) -> None:
    """Reject a thousand levels of nesting and names with a zero byte, which Python can neither print nor open."""
    level: list[Any] = [raw]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        if wrong := [value for value in level if isinstance(value, str) and "\0" in value]:
            raise UserError(f"{path}: {wrong[0][:60]!r} holds a zero byte, which no name has; take it out")
        level = [value for value in level if isinstance(value, dict | list)]
    if level:
        raise UserError(f"{path}: tables and lists nest more than {DEEPEST} deep; a study file has a few levels")


def _portable(path: Path) -> str:
    """The path relative to the checkout if it is inside, so that a checkout can be moved with its runs."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _missing_table(error: ValidationError) -> str | None:
    """The problem in words where a whole table is missing, with the keys that it needs; else None."""
    location = first_place(error)
    is_missing = any(problem["type"] == "missing" and problem["loc"] == location for problem in error.errors())
    table = str(location[0]) if is_missing and len(location) == 1 else ""
    record = TABLES.get((table, None)) if table else None
    if record is None:
        return None
    needed = [key for key, field in record.model_fields.items() if field.is_required()]
    keys = f", with {' and '.join(needed)}" if needed else ""
    return f"[{table}] is missing and required; add the table{keys}"


def _known(error: ValidationError, raw: Mapping[str, Any]) -> list[str]:
    """The known keys of the table in question."""
    table = ".".join(part for part in first_place(error)[:-1] if isinstance(part, str))
    table = re.sub(r"^recipe\.(schedule|augment)s\b", r"recipe.\1", table)
    if table == "space":
        return list(record_of(raw.get("space")).model_fields)
    name, _, kind = table.rpartition(".")  # pydantic adds the kind of a schedule
    record = TABLES.get((table, None)) or TABLES.get((name, kind))
    return list(record.model_fields) if record else []
