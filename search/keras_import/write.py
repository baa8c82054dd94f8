"""Architecture file of an imported network."""

from __future__ import annotations

from pathlib import Path

from search.errors import UserError
from search.files import safe_name, write_text
from search.keras_import.convert import Imported
from search.networks.architecture import to_json as architecture_text


def write_architecture(imported: Imported, model: Path, to: Path | None, *, nearest: bool, replace: bool) -> Path:
    """Write the architecture file, by default NAME.json in the current folder.

    Args:
        nearest: write the nearest network if the model has layers that no architecture can hold.
        replace: overwrite a file with other content.

    Raises:
        UserError: a layer is not known, or the file exists or cannot be written.
    """
    mended = all(problem.mended for problem in imported.problems)
    if imported.architecture is None or (imported.problems and not (nearest and mended)):
        hint = ", or take the nearest network with --nearest" if imported.architecture and mended else ""
        raise UserError(
            f"{model}: nothing was written, because some layers are not supported; fix the problems listed above{hint}"
        )
    path = to or Path(f"{safe_name(model.stem)}.json")
    if to is None and path.resolve() == model.resolve():
        path = Path(f"{safe_name(model.stem)}-architecture.json")
    if path.suffix.lower() != ".json":
        raise UserError(f"{path}: --to writes an architecture file; call it {path.stem}.json")
    text = architecture_text(imported.architecture)
    try:
        there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else text
        if there != text and not replace:
            raise UserError(f"{path}: is there already and holds something else; pass another --to, or --replace")
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); pass another --to") from None
    return path
