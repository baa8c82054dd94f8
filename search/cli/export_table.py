"""Shows what an export left behind: each file with its size and, where it was measured, its accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from search.export.exporter import Exported


def print_exported(console: Console, done: Exported) -> None:
    """The files in columns, then what is to be known of them."""
    rows = list(_rows(done))
    columns = [[row[index] for row in rows] for index in range(4)]
    used = [index for index, cells in enumerate(columns) if index == 0 or any(cells[1:])]
    widths = [max(map(len, cells)) for cells in columns]
    for row in rows:
        cells = [row[index].ljust(widths[index]) if index == 0 else row[index].rjust(widths[index]) for index in used]
        _say(console, "  ".join(cells).rstrip())
    for line in _notes(done):
        _say(console, line)


def _rows(done: Exported) -> Iterator[tuple[str, str, str, str]]:
    yield "", "bytes", "accuracy", "against Keras"
    for form, paths in done.paths.items():
        facts = done.forms.get(form, {})
        found, keras = facts.get("val_accuracy"), facts.get("keras_val_accuracy")
        accuracy = "" if found is None else f"{found:.2%}"
        against = "" if found is None else f"{100 * (found - keras):+.2f}"
        for path in paths:
            yield _short(path), f"{path.stat().st_size:,}", accuracy, against


def _notes(done: Exported) -> Iterator[str]:
    measured = {form: done.forms[form] for form in done.paths if done.forms.get(form, {}).get("val_accuracy") is not None}
    for facts in list(measured.values())[:1]:
        yield (
            f"Accuracy on {facts['val_images']:,} validation images, of one and the same network: "
            f"{facts['keras_val_accuracy']:.2%} in Keras."
        )
    if int8 := measured.get("int8"):
        yield f"Pixels for the integers: {int8['input']['pixels']}. {int8['same_class_as_keras']:.1%} get Keras' class."
    for reason in dict.fromkeys(done.left_out.values()):
        yield f"Left out: {', '.join(form for form, why in done.left_out.items() if why == reason)} ({reason})."
    if done.removed:
        names = ", ".join(path.name for path in done.removed)
        yield f"Removed, as an earlier export had left them of another network: {names}."


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
