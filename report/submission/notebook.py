"""Builds a Jupyter notebook from cells and executes it in its own kernel.

The kernel runs this interpreter without the user's start-up files, history or registered kernels of the same name.
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
CELL_SECONDS = 3_600  # time limit of a cell
OUTPUT_SECONDS = 60  # delay of its output on a busy machine


class Cell(NamedTuple):
    """Markdown, or Python that is executed."""

    kind: str  # "markdown" or "code"
    text: str


class CellFailed(RuntimeError):
    """A cell of the notebook raised."""


def markdown(text: str) -> Cell:
    """Make a Markdown cell."""
    return Cell("markdown", text.strip("\n"))


def code(text: str) -> Cell:
    """Make a code cell."""
    return Cell("code", text.strip("\n"))


def require() -> None:
    """Check that notebooks can be executed.

    Raises:
        UserError: a package is missing; names it.
    """
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        told = f"install with: python -m pip install {' '.join(missing)}"
        raise UserError(f"a notebook cannot be executed without {', '.join(missing)}; {told}")


def executed(cells: Sequence[Cell], folder: Path, environment: dict[str, str]) -> str:
    """Execute cells in order in a kernel that works in `folder`; return the notebook as JSON.

    Args:
        environment: variables added to those of this process.

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

    with tempfile.TemporaryDirectory(prefix="kernel-") as kernel_folder:
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # without these it uses this interpreter
            connection_file=str(Path(kernel_folder) / "kernel.json"),
        )
        client = NotebookClient(
            notebook, km=manager, timeout=CELL_SECONDS, iopub_timeout=OUTPUT_SECONDS, raise_on_iopub_timeout=True,
            record_timing=False, extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        )  # fmt: skip
        try:
            kernel: dict[str, Any] = {"cwd": str(folder), "env": os.environ | {"IPYTHONDIR": kernel_folder} | environment}
            kernel |= {"stderr": subprocess.DEVNULL}  # where C++ libraries print as they start
            client.execute(cleanup_kc=True, **kernel)
        except CellExecutionError as error:
            raise CellFailed(f"a cell of the notebook failed: {error.ename}: {error.evalue}") from error
        except DeadKernelError as error:
            raise CellFailed("the notebook's kernel ended within a cell: out of memory, or killed") from error
        except AssertionError as error:  # Ctrl-C or SIGTERM: nbclient has ended the kernel and raises because of that
            raise KeyboardInterrupt from error


def _notebook(cells: Sequence[Cell]) -> Any:
    from nbformat import from_dict

    entries: list[dict[str, Any]] = []
    for index, cell in enumerate(cells, 1):
        entries.append({"cell_type": cell.kind, "id": f"cell-{index}", "metadata": {}, "source": cell.text})
        if cell.kind == "code":
            entries[-1] |= {"execution_count": None, "outputs": []}
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    plain = {"cells": entries, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    return from_dict(plain)  # type: ignore[no-untyped-call]
