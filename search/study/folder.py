"""A run folder: its own copy of the configuration, and the files that a run writes into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.storage.locks import CONFIG
from search.study import study_file
from search.study.config import StudyConfig

OUTPUTS = ("report.md", "report.html", "best_model.*", "trials", "references")  # that a run writes into its folder


def has_run(folder: Path) -> bool:
    """True if a run has begun in the folder."""
    return (folder / CONFIG).is_file()


def read_stored(folder: Path) -> dict[str, Any]:
    """Name, storage and configuration of the run in a folder.

    Raises:
        UserError: config.json cannot be read.
    """
    path = folder / CONFIG
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {key: stored[key] for key in ("name", "storage", "config")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); pass --out with a new folder") from None


def stored_config(folder: Path, stored: dict[str, Any]) -> StudyConfig:
    """The configuration that `read_stored` has read, checked."""
    return study_file.parse(stored["config"], str(folder / CONFIG))


def refuse_own_files(folder: Path) -> None:
    """Refuse a folder without a run that holds files which a run would replace.

    Raises:
        UserError: there are such files.
    """
    names = sorted(path.name for pattern in OUTPUTS for path in folder.glob(pattern))
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"{folder}: holds {names[0]}{more} but no run (config.json), and a run would replace it; pass --out with a new "
            "folder"
        )
