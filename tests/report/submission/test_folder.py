"""The submission folder and the example notebook, both executed on a small run."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from report.analysis.findings import gather
from report.analysis.verdict import Standing, Verdict
from report.markdown.curves_svg import curves_svg
from report.markdown.formatting import escaped, without_paths
from report.markdown.report import Check, Mark, checks
from report.submission import folder as submission
from report.submission import notebook
from report.submission.cells import HandIn, cells
from report.submission.code import Images, Network
from report.submission.notebook import Cell, CellFailed, code
from report.tables import leaderboard
from search.cli.commands import app
from search.errors import UserError
from search.files import read_json
from search.study import run as studies
from search.study.dataset import load_study_data
from search.study.run import Run, open_study
from search.training.recipe import Recipe
from tests.support.runs import ROOT, finished, study_file
from tests.support.tiers import tiered

__all__ = ["finished"]

# Keras 3.15 hands its variables to NumPy 2 in a way that NumPy calls outdated, whenever a model is saved.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
FILES = [
    "README.md", "base_model.json", "base_model.keras", "base_model.py", "best_model.json", "best_model.keras",
    "best_model.py", "card.png", "card.svg", "checklist.md", "data.npz", "learning_curves.svg", "logs/base.json",
    "logs/winner.json", "report.html", "report.md", "submission.ipynb",
]  # fmt: skip


def search(*words: str) -> None:
    """A verb, in this process, which has loaded TensorFlow."""
    app(list(words), standalone_mode=False)


@pytest.fixture(scope="module")
def handed(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The submission of the finished run, in a folder that it has been moved to."""
    folder = tmp_path_factory.mktemp("hand")
    search("export", str(study_file(finished)), "--form", "submission", "--to", str(folder / "first"))
    assert [path.name for path in (folder / "first").iterdir()] == ["submission"], "nothing is left beside it"
    return (folder / "first" / "submission").rename(folder / "moved")


def outputs(folder: Path) -> list[tuple[str, str]]:
    """The source of each code cell of the executed notebook with what it printed."""
    read = nbformat.read(folder / "submission.ipynb", 4)
    nbformat.validate(read)
    cells = [cell for cell in read.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "each once, in order"
    assert all(one.output_type != "error" and one.get("name") != "stderr" for cell in cells for one in cell.outputs)
    return [(cell.source, "".join(one.get("text", "") for one in cell.outputs)) for cell in cells]


def printed(folder: Path, begins: str) -> str:
    """Output of the cell whose source contains this text."""
    (found,) = [text for source, text in outputs(folder) if begins in source]
    return found


# --- what is handed in -----------------------------------------------------------------------------------------------


def test_the_folder_holds_all_that_is_handed_in_and_nothing_of_this_machine(handed: Path, finished: Run) -> None:
    assert sorted(str(path.relative_to(handed)) for path in handed.rglob("*") if path.is_file()) == FILES
    places = (str(ROOT), str(finished.folder), str(handed.parent), str(Path.home()), "/tmp")
    for path in handed.rglob("*"):
        if path.suffix in (".md", ".py", ".json", ".ipynb", ".svg", ".html"):
            text = path.read_text(encoding="utf-8")
            assert not [place for place in places if place in text], path.name
    readme = (handed / "README.md").read_text()
    assert all(re.split(r"[./]", name)[0] in readme for name in FILES[1:])
    for stem in ("base_model", "best_model"):
        card = read_json(handed / f"{stem}.json")
        for name, digest in card["sha256"].items():
            assert hashlib.sha256((handed / name).read_bytes()).hexdigest() == digest
    assert read_json(handed / "logs" / "base.json") == read_json(finished.folder / "references" / "base" / "history.json")


def test_the_notebook_has_code_and_logs_of_base_and_winner(handed: Path, finished: Run) -> None:
    sources = [source for source, _ in outputs(handed)]
    for role, file in (("base", "base_model"), ("winner", "best_model")):
        code = (handed / f"{file}.py").read_text().replace("# ruff: noqa: E501\n\n", "")
        assert code.partition("\nif __name__")[0].strip() in sources, "the very code that lies beside it"
        log = read_json(handed / "logs" / f"{role}.json")
        text = printed(handed, f'print_log("{role}")')
        assert len(re.findall(r"^Epoch +\d+/4 ", text, re.MULTILINE)) == len(log) == 4
        for epoch in log:
            assert f"val_accuracy {epoch['val_accuracy']:.4f}" in text
            assert f"loss {epoch['loss']:.4f}" in text
    everything = (handed / "submission.ipynb").read_text()
    assert everything.count("Total params") >= 2, "summaries"
    assert "application/vnd.plotly.v1+json" in everything, "curves"
    assert "image/svg+xml" in everything, "for viewers that run no plotly"


def test_accuracies_are_measured_again_and_are_those_of_the_study(handed: Path, finished: Run) -> None:
    board = leaderboard(*open_study(str(study_file(finished))))
    text = printed(handed, "def accuracy(")
    for role, scores in (("base", board["base"]), ("winner", board["trials"][0])):
        best = f"{scores['best_val_accuracy']:.1%}"
        assert f"{role}: " in text
        assert f"{scores['params']:,} parameters, {best} logged" in text
        assert f"{best} measured here on 359 images: 0 images away from the log" in text
    assert np.load(handed / "data.npz")["x_val"].tobytes() == load_study_data(finished.config).x_val.tobytes()


def test_the_checklist_is_the_reports_and_is_counted_again(handed: Path, finished: Run) -> None:
    known = gather(finished, studies.load(finished))
    board, winner = known.board, known.board["trials"][0]
    checked = checks(finished.config, known.network, winner["params"], board, known.verdict)
    found = {one.asked: one for one in checked}
    assert all(escaped(one.evidence) in (handed / "checklist.md").read_text() for one in checked)
    asked = ["under the budget", "separable convolutions only", "batch normalisation used", "dropout used"]
    asked += ["output sizes given", "receptive fields given", "at most 50 epochs", "beats the base"]
    lines = printed(handed, "Counter(type(layer)").splitlines()
    assert [line.split()[0] for line in lines] == [found[one].mark for one in asked]
    assert lines[0].endswith(f"under 8,000 parameters: {winner['params']:,}")
    scores = [f"{row['best_val_accuracy']:.1%}" for row in (winner, board["base"])]
    against = f"{scores[0]} in epoch {winner['best_epoch']} against {scores[1]}, one training each"
    assert lines[-1].endswith(f"beats the base: {against}; {known.verdict.title}")


def test_executed_and_replayed_cells_are_marked(handed: Path) -> None:
    for text in ((handed / "README.md").read_text(), nbformat.read(handed / "submission.ipynb", 4).cells[0].source):
        assert "**Executed** when the notebook was made: both networks built" in text
        assert "accuracy measured again" in text
        assert "**Replayed** from `logs/`" in text
        assert "**Not run**: the training code" in text


# --- where something is missing --------------------------------------------------------------------------------------


def given(folder: Path) -> HandIn:
    """Content that the notebook of the folder was made of."""
    networks = []
    for role, file in (("base", "base_model"), ("winner", "best_model")):
        recipe = Recipe.model_validate(read_json(folder / f"{file}.json")["recipe"])
        networks.append(Network(role, "net", file, (folder / f"{file}.py").read_text(), recipe, "float32"))
    images = Images("digits", 1079, 359, has_training=True, is_handed_in=True, are_test=False)
    verdict, won = Verdict(Standing.BEATEN, "It wins."), (Check("beats the base", Mark.MET, "by much"),)
    return HandIn("tiny", verdict, "holdout", 8_000, networks[0], 0.5, networks[1], won, 359, images)


@pytest.mark.parametrize("missing", tiered(("base", "images", "training images"), quick=("images",)))
def test_the_notebook_runs_without_what_there_is_not(
    missing: str, handed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(handed, tmp_path / "here")
    told = given(folder)
    match missing:
        case "base":
            told = replace(told, base=None)
            (folder / "logs" / "base.json").unlink()
        case "images":
            told = replace(told, images=None)
            (folder / "data.npz").unlink()
        case _:
            images = Images("cifar10", 45_000, 5_000, has_training=False, is_handed_in=False, are_test=True)
            told = replace(told, images=images)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for cell in cells(told):
        if cell.kind == "code":
            exec(compile(cell.text, "cell", "exec"), names)
    said, text = "\n".join(cell.text for cell in cells(told)), capsys.readouterr().out
    assert text.count("logged") == (1 if missing == "base" else 2)
    assert ("measured here" in text) == (missing != "images")
    assert ("plain accuracy, 50.0%" in said) == (missing == "base")
    assert ("**Not measured again**" in said) == (missing == "images")
    assert ("keras.datasets.cifar10" in said) == ("too many to hand in" in said) == (missing == "training images")
    assert said.count("class Batches") == 1


@pytest.mark.long
def test_it_runs_where_it_was_moved_and_trains_each_network_by_its_recipe_if_asked(
    handed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has loaded TensorFlow; a notebook's kernel has executed the same cells in `handed`."""
    told, folder = given(handed), shutil.copytree(handed, tmp_path / "elsewhere")
    assert told.base
    level = (
        Verdict(Standing.LEVEL_ONCE, "It is level."),
        (Check("beats the base", Mark.TIE, "level"),),
    )  # as in the finished run
    told = replace(told, verdict=level[0], checks=level[1])
    told = replace(told, base=replace(told.base, recipe=told.base.recipe.model_copy(update={"batch_size": 64})))
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for cell in (asked(cell, RETRAIN="True", EPOCHS="1") for cell in cells(told) if cell.kind == "code"):
        exec(compile(cell.text, "cell", "exec"), names)
        texts[cell.text] = capsys.readouterr().out
    for begins in ("def accuracy(", "Counter(type(layer)", 'print_log("base")', 'print_log("winner")'):
        (text,) = [text for source, text in texts.items() if begins in source]
        assert text == printed(handed, begins)
    text = "".join(text for source, text in texts.items() if source.startswith("if RETRAIN"))
    steps = re.findall(r"(\d+)/\1 .* accuracy: ([\d.]+)", text)
    assert [int(one) for one, _ in steps] == [-(-1079 // 64), -(-1079 // 32)]
    assert float(steps[1][1]) > 0.3, "the winner, in one epoch, of ten classes"
    assert all((folder / f"retrained_{role}.keras").is_file() for role in ("base", "winner"))


def asked(cell: Cell, **values: str) -> Cell:
    """The cell with other values of constants."""
    text = cell.text
    for name, value in values.items():
        text = re.sub(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.MULTILINE)
    return cell._replace(text=text)


def test_images_that_are_not_those_of_the_study_are_left_out(finished: Run, tmp_path: Path) -> None:
    found = gather(finished, studies.load(finished))
    path = tmp_path / "data.npz"
    told: list[str] = []
    for change, why in (({"images": 500}, "not the images"), ({"name": None, "path": "/gone.npz"}, "gone.npz")):
        config = finished.config.model_copy(update={"data": finished.config.data.model_copy(update=change)})
        assert submission._images(path, replace(found, run=replace(finished, config=config)), told.append) is None
        assert not path.exists()
        assert told[-1].startswith("accuracies are not measured again: ")
        assert why in told[-1]
    images = submission._images(path, found, told.append)
    assert len(told) == 2
    assert images == Images("digits", 1079, 359, has_training=True, is_handed_in=True, are_test=False)


def test_a_file_of_this_machine_is_shown_by_its_name_alone(finished: Run) -> None:
    data = finished.config.data.model_copy(update={"name": None, "path": "/home/me/secret/images.npz"})
    run = replace(finished, config=finished.config.model_copy(update={"data": data}))
    assert without_paths('data.path = "/home/me/secret/images.npz"\n', run) == 'data.path = "images.npz"\n'
    assert without_paths(run.command, run) == "python -m search run tiny.toml"
    search = finished.config.search.model_copy(update={"prior": ("/home/me/secret/flowers/run",)})
    learning = replace(run, config=finished.config.model_copy(update={"search": search}))
    shown = without_paths('search.prior = ["/home/me/secret/flowers/run"]', learning)
    assert shown == 'search.prior = ["flowers/run"]'


def test_the_earlier_submission_stays_where_a_cell_fails(
    handed: Path, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(handed, tmp_path / "submission")
    (tmp_path / "submission" / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(submission, "cells", lambda told: [code("1 / 0")])
    with pytest.raises(CellFailed, match="ZeroDivisionError"):
        submission.submit(finished, studies.load(finished), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_submission_is_of_a_study_and_needs_what_executes_it(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(study_file(finished))
    for words in ([file, "0"], [file, "--reference", "base"], ["eip-b"], [file, "--form", "py"]):
        with pytest.raises(UserError, match="--form submission"):
            search("export", *words, "--form", "submission")
    monkeypatch.setattr(notebook, "find_spec", lambda package: None if package == "nbclient" else True)
    with pytest.raises(UserError, match="without nbclient; install with: python -m pip install nbclient"):
        search("export", file, "--form", "submission")


def test_learning_curves_lie_where_their_values_say() -> None:
    """Epochs from left to right, better is higher, and ticks enclose all."""
    text = curves_svg({"base": [0.5, 0.5, 0.5], "winner": [0.31, 0.72, 0.68]}, "base")
    lines = [
        [tuple(map(float, one.split(","))) for one in points.split()] for points in re.findall(r'points="([^"]+)"', text)
    ]
    base, winner = lines
    assert [x for x, _ in base] == [x for x, _ in winner] == sorted(x for x, _ in base)
    assert base[0][1] == base[2][1]
    heights = dict(zip([0.5, 0.31, 0.72, 0.68], [base[0][1], *(y for _, y in winner)], strict=True))
    ticks = {float(tick) / 100: float(y) - 4 for y, tick in re.findall(r'y="([\d.]+)" text-anchor="end"[^>]*>(\d+)%', text)}
    assert min(ticks) <= 0.31 < 0.72 <= max(ticks)
    scale = np.polyfit(list(ticks), list(ticks.values()), 1)
    assert scale[0] < 0
    for value, y in heights.items():
        assert y == pytest.approx(np.polyval(scale, value), abs=0.2)
    assert text.count("stroke-dasharray") == 2, "the base, and in the legend"


# --- the example notebook --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_example_notebook_runs(finished: Run) -> None:
    path = ROOT / "studies" / "quickstart" / "explore.ipynb"
    example = nbformat.read(path, 4)
    nbformat.validate(example)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in example.cells), "committed without outputs"
    (parameters,) = [cell for cell in example.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"STUDY, OUT = {str(study_file(finished))!r}, None"
    notebook.run(example, path.parent, QUIET)
    shown = [one for cell in example.cells for one in cell.get("outputs", [])]
    assert sum("application/vnd.plotly.v1+json" in one.get("data", {}) for one in shown) == 3
    assert not [one for one in shown if one.get("name") == "stderr"]
    tables = [one.data["text/markdown"] for one in shown if "text/markdown" in one.get("data", {})]
    best = leaderboard(*open_study(str(study_file(finished))))["trials"][0]
    assert f"| 1 | trial {best['number']} | {best['params']} |" in tables[0]
    text = "".join(one.get("text", "") for one in shown)
    score = f"{best['best_val_accuracy']:.2%}"
    assert f"{score} of 359 validation images; {score} in the log" in text


@pytest.mark.long
def test_a_cell_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CellFailed, match="ValueError: no such thing"):
        notebook.executed([code("print(1)"), code('raise ValueError("no such thing")')], tmp_path, {})
