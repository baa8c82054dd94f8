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
    "search.system",
    "search.seeds",
    "search.files",
    "search.data.preprocessing",
    "search.finals.statistics",
    "search.networks.layers",
    "search.networks.architecture",
    "search.spaces.domains",
    "search.training.recipe",
    "search.spaces.layout",
    "search.spaces.pyramid",
    "search.spaces.residual",
    "search.spaces.fixed",
    "space",
    "search.spaces.encoding",
    "search.spaces.pyramid_encoding",
    "search.spaces.residual_encoding",
    "search.spaces.encode",
    "search.tuning.scaling",
    "search.networks.geometry",
    "search.budget.devices",
    "search.budget.lowering",
    "search.budget.flash",
    "search.budget.footprint",
    "search.budget.cost",
    "search.budget.limits",
    "search.study.survey",
    "search.export.keras_layers_source",
    "search.export.keras_source",
    "search.export.batches_source",
    "search.export.training_source",
    "search.export.card",
    "search.data.archives",
    "search.data.folders",
    "search.data.images",
    "search.data.loading",
    "search.data.splits",
    "search.data.dataset",
    "search.storage.rows",
    "search.storage.together",
    "search.storage.resilient",
    "search.storage.database",
    "search.storage.attributes",
    "search.storage.queue",
    "search.storage.locks",
    "search.study.config",
    "search.study.references",
    "search.keras_import.edits",
    "search.keras_import.file",
    "search.keras_import.graph",
    "search.keras_import.names",
    "search.keras_import.options",
    "search.keras_import.steps",
    "search.keras_import.layers",
    "search.keras_import.gates",
    "search.keras_import.fusion",
    "search.keras_import.convert",
    "search.keras_import.advice",
    "search.tuning.candidate",
    "search.training.device",
    "search.training.model",
    "search.training.engine.epoch",
    "search.training.engine.augment",
    "search.training.engine.layers",
    "search.training.engine.base",
    "search.training.engine.tensorflow",
    "search.training.engine.jax",
    "search.training.result",
    "search.training.checkpoint",
    "search.training.train",
    "search.export.quantization",
    "search.export.tflite",
    "search.export.format",
    "search.export.litert",
    "search.export.form",
    "search.export.int8",
    "search.tuning.forecast",
    "search.data.inspection",
    "search.study.proposal",
    "search.study.template",
    "search.study.new",
    "search.study.run",
    "search.study.pareto",
    "search.study.prices",
    "search.storage.recovery",
    "search.storage.claims",
    "search.sampler",
    "search.tuning.tpe",
    "search.rungs",
    "search.tuning.stopping",
    "search.study.trained",
    "search.finals.results",
    "search.runner.job",
    "objective",
    "search.runner.trial",
    "search.runner.references",
    "search.runner.loop",
    "search.finals.control",
    "search.finals.run",
    "search.cli.worker",
    "search.runner.placement",
    "search.runner.supervisor",
    "search.runner.ray",
    "search.export.verification",
    "search.export.c_array",
    "search.export.onnx_model",
    "search.export.keras_formats",
    "search.export.portable_formats",
    "search.export.exporter",
    "search.cli.tables",
    "search.cli.progress",
    "search.cli.finals_table",
    "search.cli.network_table",
    "search.cli.import_table",
    "report.colours",
    "report.network.layout",
    "report.network.drawing",
    "report.network.page",
    "search.cli.new_summary",
    "search.cli.export_table",
    "report.tables",
    "report.pareto",
    "report.rows",
    "report.figures.data",
    "report.figures.style",
    "report.figures.refusals",
    "report.figures.curves",
    "report.dashboard.notes",
    "report.pareto_export",
    "search.cli.front_table",
    "report.markdown.effects",
    "report.dashboard.publish",
    "report.markdown.summary",
    "report.analysis.findings",
    "report.markdown.report",
    "report.analysis.parts",
    "report.analysis.contrast",
    "report.analysis.importance",
    "report.analysis.spending",
    "report.analysis.marginal",
    "report.analysis.timing",
    "report.analysis.mistakes",
    "report.figures.finals",
    "report.figures.choices",
    "report.html.markup",
    "report.html.results",
    "report.html.insights",
    "report.html.effort",
    "report.html",
    "report.write",
    "report.dashboard.patches",
    "report.submission.curves_svg",
    "report.submission.notebook",
    "report.submission.code",
    "report.submission.cells",
    "report.submission.folder",
    "report.dashboard.server",
    "search.cli.options",
    "search.cli.console",
    "search.cli.networks",
    "search.cli.setup",
    "search.cli.export",
    "search.cli.results",
    "search.cli.run",
    "search.__main__",
)
# chooses, inside a function, one of two modules that need it themselves
CHOICE = {"search.training.engine.base": ("search.training.engine.tensorflow", "search.training.engine.jax")}
PACKAGES = ("search", "report")  # they and those inside have an empty __init__
OURS = ("search", "report", "space", "objective")
KERAS = ("keras", "tensorflow", "jax")
ENGINE = tuple(f"search.engine.{name}" for name in ("augment", "layers", "interface", "tensorflow", "jax"))
KERAS_ANYWHERE = (
    "search.training.model",
    "search.training.checkpoint",
    "search.export.quantization",
    "search.export.tflite",
    "search.export.onnx_model",
    *ENGINE,
)
KERAS_IN_FUNCTIONS = ("search.data.dataset", "search.training.device")


class Imported(NamedTuple):
    module: str
    at_top: bool
    line: int


def sources() -> dict[str, Path]:
    """Every module of the application, by its name."""
    paths = [ROOT / "space.py", ROOT / "objective.py", *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths if path.exists()}


def imports(tree: ast.Module, modules: set[str]) -> Iterator[Imported]:
    """What a module imports; `from search import cost` imports search.budget.cost."""
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
        ("search", True),
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
        ("search.__main__", "tensorflow keras jax"),
    ],
)
def test_what_only_reads_and_counts_starts_light(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; print(*(name for name in {absent.split()!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
