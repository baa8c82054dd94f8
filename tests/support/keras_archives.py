"""Shared by the tests of file and file_fuzz."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def written(path: Path, description: Any) -> Path:
    path.write_text(json.dumps(description), encoding="utf-8")
    return path
