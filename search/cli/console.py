"""What verbs print to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def console_of(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, stderr=stderr)


def short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
