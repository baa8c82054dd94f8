"""What verbs print to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import UserError
from search.study import study_file


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def console_of(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, stderr=stderr)


def short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if TYPE_CHECKING:
    from search.networks.architecture import Architecture


def network_of(network: str, number: int | None, out: Path | None, storage: str | None) -> Architecture:
    """The architecture that `show` and `export` are asked for.

    Raises:
        UserError: there is none of this name or number.
    """
    from search.study import references

    if not is_study(network):
        if number is not None:
            raise UserError(f"{network} {number}: a trial number goes with a study, and this is a network")
        return references.find(network).architecture
    from search.study import run as study

    try:
        study_file.find(network)
    except UserError as error:
        raise UserError(f"{error}; references: {', '.join(references.names())}") from None
    return study.network_of(study.find(network, out, storage), number)


def is_study(network: str) -> bool:
    from search.study import references

    references.refuse_model(network)
    return not network.endswith(".json") and network not in references.names()
