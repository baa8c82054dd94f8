"""docs/first_study.ipynb is what docs/notebook.py makes, and its code fits `Study` as it is."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from docs.notebook import CELLS, PATH
from search import Study

NOTEBOOK = nbformat.read(PATH, 4)
CODE = [cell.text for cell in CELLS if cell.kind == "code"]


def calls_of_study() -> Iterator[tuple[str, ast.Call]]:
    """(Method, call) of every `study.method(...)` in the cells."""
    for node in ast.walk(ast.parse("\n".join(CODE))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "study":
            yield node.func.attr, node


def test_the_notebook_holds_the_cells_as_they_are() -> None:
    nbformat.validate(NOTEBOOK)
    assert [(cell.cell_type, cell.source) for cell in NOTEBOOK.cells] == [(cell.kind, cell.text) for cell in CELLS], (
        "run: python -m docs.notebook"
    )


def test_it_was_executed_in_order_without_errors_and_names_no_folder_of_the_machine() -> None:
    executed = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in executed] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in executed for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = PATH.read_text(encoding="utf-8")
    assert not [folder for folder in ("/tmp", "/home", "/root", "/work", str(Path.cwd())) if folder in text]


def test_its_study_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells before the first that surveys or trains."""
    monkeypatch.chdir(PATH.parent)
    values: dict[str, Any] = {}
    for text in CODE:
        if "study.plan(" in text:
            monkeypatch.chdir(tmp_path)
            text = text[: text.index("study.plan(")]
        exec(compile(text, "cell", "exec"), values)
        if "study" in values:
            break
    study = values["study"]
    assert study.config.trials == 5 and study.config.budget.params == 2_000
    assert Study(tmp_path / "digits-2k").config == study.config


def test_its_calls_fit_the_methods() -> None:
    calls = list(calls_of_study())
    assert {"plan", "run", "layers", "export"} <= {method for method, _ in calls}
    for method, call in calls:
        names = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(getattr(Study, method)).bind(None, *call.args, **names)
