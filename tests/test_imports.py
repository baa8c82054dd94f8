"""The direction of imports: packages stand in one order, and no modules import each other in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

ORDER = (  # each imports itself and what stands before it, also inside functions
    "search.errors",
    "search.seeds",
    "search.system",
    "search.files",
    "search.text",
    "search.networks",
    "search.budget",
    "search.data",
    "search.training",
    "search.spaces",
    "space",
    "search.export",
    "search.storage",
    "search.study",
    "search.tuning",
    "search.keras_import",
    "objective",
    "search.tracking",
    "search.runner",
    "search.finals",
    "report",
    "search.cli",
    "search.api",
    "search.__main__",
)
REPORT_ORDER = (
    "report.colours",
    "report.tables",
    "report.pareto",
    "report.device",
    "report.rows",
    "report.network",
    "report.analysis",
    "report.figures",
    "report.markdown",
    "report.card",
    "report.html",
    "report.write",
    "report.dashboard",
    "report.pareto_export",
    "report.submission",
)
OURS = ("search", "report", "space", "objective")
KERAS = ("keras", "tensorflow", "jax")
KERAS_AT_TOP = (
    "search.training.engine",
    "search.training.model",
    "search.training.checkpoint",
    "search.export.tflite",
    "search.export.quantization",
    "search.export.onnx_model",
)
KERAS_IN_FUNCTIONS = ("search.data.sources", "search.training.device")


class Imported(NamedTuple):
    module: str
    at_top: bool
    line: int


def sources() -> dict[str, Path]:
    """Every module of the application, by its name."""
    paths = [
        ROOT / "space.py",
        ROOT / "objective.py",
        *(path for name in ("search", "report") for path in (ROOT / name).rglob("*.py")),
    ]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(tree: ast.Module, modules: set[str]) -> Iterator[Imported]:
    """Modules imported by a module; `from search.budget import cost` imports search.budget.cost."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            whole = str(node.module)
            names = [f"{whole}.{alias.name}" if f"{whole}.{alias.name}" in modules else whole for alias in node.names]
        else:
            continue
        for name in names:
            yield Imported(name, id(node) not in inside, node.lineno)


SOURCES = sources()
MODULES = sorted(SOURCES)


def imported_by(module: str) -> list[Imported]:
    return list(imports(ast.parse(SOURCES[module].read_text()), set(SOURCES)))


def place_in(order: tuple[str, ...], module: str) -> str | None:
    """The entry of an order that a module belongs to, None if it belongs to none."""
    return next((name for name in order if module == name or module.startswith(f"{name}.")), None)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "search"])
def test_a_module_imports_only_what_stands_before_it(module: str) -> None:
    place = place_in(ORDER, module)
    assert place is not None, f"{module} is in no package of ORDER in {Path(__file__).name}"
    for imported in imported_by(module):
        if imported.module.split(".")[0] in OURS:
            used = place_in(ORDER, imported.module)
            assert used is not None, f"{module}, line {imported.line}: imports {imported.module}; name the module"
            assert ORDER.index(used) <= ORDER.index(place), (
                f"{module}, line {imported.line}: imports {used}, which comes later"
            )


@pytest.mark.parametrize("module", [module for module in MODULES if place_in(REPORT_ORDER, module)])
def test_report_has_an_order_inside(module: str) -> None:
    place = REPORT_ORDER.index(str(place_in(REPORT_ORDER, module)))
    for imported in imported_by(module):
        if used := place_in(REPORT_ORDER, imported.module):
            assert REPORT_ORDER.index(used) <= place, f"{module}, line {imported.line}: imports {used}, which comes later"


def test_every_part_of_report_has_its_place() -> None:
    assert {place_in(REPORT_ORDER, module) for module in MODULES if module.startswith("report.")} == set(REPORT_ORDER)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {one.module for one in imported_by(module)} & set(MODULES) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", [name for name, path in SOURCES.items() if path.name == "__init__.py"])
def test_a_package_itself_only_describes_and_exports(package: str) -> None:
    body = ast.parse(SOURCES[package].read_text()).body
    assert body and isinstance(body[0], ast.Expr), f"{package} says nothing of itself"
    rest = [
        node for node in body[1:] if not (isinstance(node, ast.FunctionDef) and node.name == "__getattr__")
    ]  # lazy exports
    rest = [node for node in rest if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in rest), f"{package}: move its code to a module"
    assert not {one.module.split(".")[0] for one in imported_by(package)} & set(KERAS)


@pytest.mark.parametrize("module", MODULES)
def test_only_a_few_modules_touch_keras(module: str) -> None:
    for imported in imported_by(module):
        if imported.module.split(".")[0] in KERAS:
            allowed = place_in(KERAS_AT_TOP, module) or (module in KERAS_IN_FUNCTIONS and not imported.at_top)
            assert allowed, f"{module}, line {imported.line}: imports {imported.module}"


def test_imports_are_seen_wherever_they_stand() -> None:
    """The reader of imports above finds them wherever they stand."""
    text = "\n".join(
        [
            "import keras.layers as layers, json",
            "from search.budget import cost, nothing",
            "from search.data.dataset import load",
            "def f():",
            "    if True:",
            "        import tensorflow",
            "class A:",
            "    import space",
            "    def g(self):",
            "        from objective import h",
        ]
    )
    seen = {
        (one.module, one.at_top)
        for one in imports(ast.parse(text), {"search.budget.cost", "search.data.dataset", "objective"})
    }
    assert seen == {
        ("keras.layers", True),
        ("json", True),
        ("search.budget.cost", True),
        ("search.budget", True),
        ("search.data.dataset", True),
        ("tensorflow", False),
        ("space", True),
        ("objective", False),
    }
    with pytest.raises(AssertionError, match="relative"):
        list(imports(ast.parse("from . import cost"), set()))


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("space, search.budget.cost, search.training.recipe, search.training.engine.epoch", "tensorflow keras jax optuna"),
        ("search.__main__, search.cli.commands", "tensorflow keras jax"),
    ],
)
def test_modules_that_read_and_count_import_no_heavy_package(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; print(*(name for name in {absent.split()!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
