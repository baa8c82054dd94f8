"""The direction of imports: a module imports only what stands before it in `ORDER`, also inside its functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

ORDER = (
    "search.errors",
    "search.quiet",
    "search.seeds",
    "search.files",
    "search.pixels",
    "search.statistics",
    "search.layers",
    "search.architecture",
    "search.domain",
    "search.recipe",
    "search.spaces.layout",
    "search.spaces.pyramid",
    "search.spaces.residual",
    "search.spaces.given",
    "space",
    "search.spaces.needs",
    "search.spaces.pyramid_encode",
    "search.spaces.residual_encode",
    "search.encode",
    "search.fill",
    "search.geometry",
    "search.devices",
    "search.lowering",
    "search.flash",
    "search.memory",
    "search.cost",
    "search.budget",
    "search.plan",
    "search.source_lines",
    "search.source",
    "search.batches_source",
    "search.training_source",
    "search.card",
    "search.archives",
    "search.folders",
    "search.images",
    "search.reading",
    "search.splits",
    "search.data",
    "search.trial_rows",
    "search.together",
    "search.patience",
    "search.storage",
    "search.attributes",
    "search.reservations",
    "search.liveness",
    "search.config",
    "search.references",
    "search.edits",
    "search.keras_file",
    "search.keras_graph",
    "search.keras_names",
    "search.keras_options",
    "search.keras_steps",
    "search.keras_layers",
    "search.keras_gates",
    "search.keras_fuse",
    "search.keras_import",
    "search.advice",
    "search.candidate",
    "search.device",
    "search.model",
    "search.engine.epoch",
    "search.engine.augment",
    "search.engine.layers",
    "search.engine.interface",
    "search.engine.tensorflow",
    "search.engine.jax",
    "search.training",
    "search.checkpoint",
    "search.train",
    "search.quantizable",
    "search.tflite",
    "search.subject",
    "search.litert",
    "search.form",
    "search.integers",
    "search.probe",
    "search.look",
    "search.proposal",
    "search.study_text",
    "search.new",
    "search.study",
    "search.front",
    "search.prices",
    "search.recovery",
    "search.claims",
    "search.sampler",
    "search.tpe",
    "search.rungs",
    "search.limits",
    "search.winner",
    "search.confirmation",
    "search.order",
    "objective",
    "search.trial",
    "search.opponents",
    "search.rounds",
    "search.control",
    "search.finals",
    "search.worker",
    "search.shares",
    "search.supervisor",
    "search.cluster",
    "search.verify",
    "search.c_source",
    "search.onnx_model",
    "search.keras_forms",
    "search.portable_forms",
    "search.export",
    "search.display",
    "search.live",
    "search.display_finals",
    "search.display_network",
    "search.display_import",
    "report.colours",
    "report.layout",
    "report.drawing",
    "report.network_page",
    "search.display_new",
    "search.display_export",
    "report.tables",
    "report.fronts",
    "report.rows",
    "report.figure_rows",
    "report.figure_style",
    "report.figure_refusals",
    "report.figures",
    "report.notes",
    "report.front_folder",
    "search.display_front",
    "report.evidence",
    "report.publish",
    "report.words",
    "report.findings",
    "report.page",
    "report.nets",
    "report.positions",
    "report.importance",
    "report.spending",
    "report.marginal",
    "report.timing",
    "report.mistakes",
    "report.charts",
    "report.choice_charts",
    "report.markup",
    "report.results",
    "report.insights",
    "report.effort",
    "report.html",
    "report.write",
    "report.dashboard_patches",
    "report.curves_svg",
    "report.notebook",
    "report.submission_code",
    "report.submission_notebook",
    "report.submission",
    "report.dashboard",
    "search.verbs.options",
    "search.verbs.screen",
    "search.verbs.networks",
    "search.verbs.prepare",
    "search.verbs.take",
    "search.verbs.look",
    "search.verbs.train",
    "search.__main__",
)
# chooses, inside a function, one of two modules that need it themselves
CHOICE = {"search.engine.interface": ("search.engine.tensorflow", "search.engine.jax")}
PACKAGES = ("search", "report")  # they and those inside have an empty __init__
OURS = ("search", "report", "space", "objective")
KERAS = ("keras", "tensorflow", "jax")
ENGINE = tuple(f"search.engine.{name}" for name in ("augment", "layers", "interface", "tensorflow", "jax"))
KERAS_ANYWHERE = ("search.model", "search.checkpoint", "search.quantizable", "search.tflite", "search.onnx_model", *ENGINE)
KERAS_IN_FUNCTIONS = ("search.data", "search.device")


class Imported(NamedTuple):
    module: str
    at_top: bool
    line: int


def sources() -> dict[str, Path]:
    """Every module of the application, by its name."""
    paths = [ROOT / "space.py", ROOT / "objective.py", *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths if path.exists()}


def imports(tree: ast.Module, modules: set[str]) -> Iterator[Imported]:
    """What a module imports; `from search import cost` imports search.cost."""
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
MODULES = sorted(name for name in SOURCES if not name.endswith("__init__"))


def imported_by(module: str) -> list[Imported]:
    return list(imports(ast.parse(SOURCES[module].read_text()), set(SOURCES)))


def test_every_module_has_its_place() -> None:
    for module in MODULES:
        assert module in ORDER, f"{module}: add it to ORDER in {Path(__file__).name}, after all that it imports"
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("package", sorted(SOURCES.keys() - set(MODULES)))
def test_a_package_holds_nothing_itself(package: str) -> None:
    assert ast.parse(SOURCES[package].read_text()).body == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_before_it(module: str) -> None:
    before = ORDER[: ORDER.index(module)] if module in ORDER else ()
    for imported in imported_by(module):
        chosen = not imported.at_top and imported.module in CHOICE.get(module, ())
        if imported.module.split(".")[0] in OURS and not chosen:
            assert imported.module in before, f"{module}, line {imported.line}: imports {imported.module}, which comes later"


@pytest.mark.parametrize("module", MODULES)
def test_only_a_few_modules_touch_keras(module: str) -> None:
    for imported in imported_by(module):
        if imported.module.split(".")[0] in KERAS:
            allowed = module in KERAS_ANYWHERE or (module in KERAS_IN_FUNCTIONS and not imported.at_top)
            assert allowed, f"{module}, line {imported.line}: imports {imported.module}"


def test_imports_are_seen_wherever_they_stand() -> None:
    """The reader of imports above is itself put to the test."""
    text = "\n".join(
        [
            "import keras.layers as layers, json",
            "from search import cost, nothing",
            "from search.data import load",
            "def f():",
            "    if True:",
            "        import tensorflow",
            "class A:",
            "    import space",
            "    def g(self):",
            "        from objective import h",
        ]
    )
    seen = {(one.module, one.at_top) for one in imports(ast.parse(text), {"search.cost", "search.data", "objective"})}
    assert seen == {
        ("keras.layers", True),
        ("json", True),
        ("search.cost", True),
        ("search", True),
        ("search.data", True),
        ("tensorflow", False),
        ("space", True),
        ("objective", False),
    }
    with pytest.raises(AssertionError, match="relative"):
        list(imports(ast.parse("from . import cost"), set()))


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("space, search.cost, search.recipe, search.engine.epoch", "tensorflow keras jax optuna"),
        ("search.__main__", "tensorflow keras jax"),
    ],
)
def test_what_only_reads_and_counts_starts_light(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; print(*(name for name in {absent.split()!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
