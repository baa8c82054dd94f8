"""A Jupyter notebook: made of cells, and executed in a kernel of its own.

The kernel is this interpreter's and none of the user's making: no start-up file, no history, no kernel of the same name
that another environment registered. What it needs to import beside nbclient is the business of the cells.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from search.errors import UserError

PACKAGES = ("ipykernel", "nbclient", "nbformat")
CELL_SECONDS = 3_600  # that a cell may take
OUTPUT_SECONDS = 60  # that its output may lag behind, on a busy machine


class Cell(NamedTuple):
    """Markdown, or Python that is executed."""

    kind: str  # "markdown" or "code"
    text: str


class CellFailed(RuntimeError):
    """A cell of the notebook raised."""


def markdown(text: str) -> Cell:
    """A cell that is read."""
    return Cell("markdown", text.strip("\n"))


def code(text: str) -> Cell:
    """A cell that is executed."""
    return Cell("code", text.strip("\n"))


def require() -> None:
    """Refuse where what executes notebooks is not installed.

    Raises:
        UserError: names what is missing.
    """
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        told = f"install with: python -m pip install {' '.join(missing)}"
        raise UserError(f"a notebook cannot be executed without {', '.join(missing)}; {told}")


def executed(cells: Sequence[Cell], folder: Path, environment: dict[str, str]) -> str:
    """The notebook as JSON, each cell run in order by a kernel that works in the folder.

    Args:
        environment: variables that the kernel has beside this process's own.

    Raises:
        UserError: what executes notebooks is not installed.
        CellFailed: a cell raised, or the kernel died in it.
    """
    require()
    import nbformat

    notebook = _notebook(cells)
    run(notebook, folder, environment)
    nbformat.validate(notebook)
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return f"{text}\n"


def run(notebook: Any, folder: Path, environment: dict[str, str]) -> None:
    """Execute a notebook (nbformat's) in place; see `executed`."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    with tempfile.TemporaryDirectory(prefix="kernel-") as own:
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # with none of these it takes this interpreter
            connection_file=str(Path(own) / "kernel.json"),
        )
        client = NotebookClient(
            notebook, km=manager, timeout=CELL_SECONDS, iopub_timeout=OUTPUT_SECONDS, raise_on_iopub_timeout=True,
            record_timing=False, extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        )  # fmt: skip
        try:
            kernel: dict[str, Any] = {"cwd": str(folder), "env": os.environ | {"IPYTHONDIR": own} | environment}
            kernel |= {"stderr": subprocess.DEVNULL}  # where C++ libraries print as they start
            client.execute(cleanup_kc=True, **kernel)
        except CellExecutionError as error:
            raise CellFailed(f"a cell of the notebook failed: {error.ename}: {error.evalue}") from error
        except DeadKernelError as error:
            raise CellFailed("the notebook's kernel ended within a cell: out of memory, or killed") from error
        except AssertionError as error:  # Ctrl-C or SIGTERM: nbclient has ended the kernel, and stumbles over that
            raise KeyboardInterrupt from error


def _notebook(cells: Sequence[Cell]) -> Any:
    from nbformat import from_dict

    made: list[dict[str, Any]] = []
    for index, cell in enumerate(cells, 1):
        made.append({"cell_type": cell.kind, "id": f"cell-{index}", "metadata": {}, "source": cell.text})
        if cell.kind == "code":
            made[-1] |= {"execution_count": None, "outputs": []}
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    plain = {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    return from_dict(plain)  # type: ignore[no-untyped-call]
