"""The submission folder: reports, executed notebook, checklist with evidence, models.

All paths in it are relative, so that it can be moved and zipped; its notebook runs again with keras, numpy and plotly.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from report.analysis.findings import Findings, gather
from report.markdown.curves_svg import curves_svg
from report.markdown.formatting import escaped, protocol_words, table
from report.markdown.report import CURVES, checks, keras_summary
from report.submission import notebook
from report.submission.cells import HandIn, cells
from report.submission.code import DATA, Images, Network
from report.write import write_reports
from search.errors import UserError
from search.export.card import versions
from search.export.exporter import QUICK, export
from search.files import read_json, write_json, write_text
from search.study import trained as winners
from search.study.dataset import images_of, load_study_data
from search.study.run import Run, Studies
from search.study.trained import Trained
from search.training.device import load_backend
from search.training.measures import MEASURES
from search.training.recipe import Recipe
from search.training.result import log_key

FORM = "submission"  # name of the export form and of its folder
NOTEBOOK = "submission.ipynb"
LARGEST = 40_000_000  # most bytes of pixels to submit: the 10,000 test images of CIFAR-10 are 31 million

# of the kernel, which may share a GPU with this process
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def submit(run: Run, studies: Studies, folder: Path, tell: Callable[[str], None] = lambda words: None) -> list[Path]:
    """Write FOLDER/submission for the study's best trial and its base; existing files of these names are replaced.

    Args:
        tell: receives progress messages and warnings.

    Returns:
        Paths of the written files.

    Raises:
        UserError: no candidate or no base has been trained, their files are gone, what executes notebooks is not
            installed, or the folder cannot be written.
        RuntimeError: a form, read back, is another network, or a cell of the notebook failed.
    """
    notebook.require()
    if run.config.data.folds:
        raise UserError(
            "--form submission: its notebook measures the winner on the validation images again, and with data.folds its "
            "accuracy is the mean of several networks; use the verbs report and export"
        )
    findings = gather(run, studies)
    if findings.board["base"] is None:
        raise UserError(
            f"{run.name}: its base, which the winner is compared with, has not been trained; continue with: {run.command}"
        )
    load_backend()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".submission-", dir=folder) as name:
            _make(draft := Path(name), findings, tell)
            return _moved(draft, folder / FORM)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: the submission cannot be written ({reason}); pass another folder") from error


def _make(draft: Path, findings: Findings, tell: Callable[[str], None]) -> None:
    """Make every file of the submission in an empty folder."""
    run, name, board = findings.run, findings.run.config.base_name, findings.board
    trained = winners.candidate(run, findings.number)
    winner = _network(draft, run, trained, "winner", f"trials/{findings.number}", "best_model")
    base = _network(draft, run, winners.reference(run, name), "base", f"references/{name}", "base_model") if name else None
    params, _ = keras_summary(findings.network)
    hand_in = HandIn(
        title=f"{run.name}: a network under {run.config.budget.params:,} parameters",
        verdict=findings.verdict,
        protocol=protocol_words(run.config, findings.finals),
        limit=run.config.budget.params,
        base=base,
        base_accuracy=board["base"]["best_val_accuracy"],
        winner=winner,
        checks=tuple(checks(run.config, findings.network, params, board, findings.verdict)),
        val_images=images_of(findings.data, "validation"),
        images=_images(draft / DATA, findings, tell),
        metric=run.config.search.metric,
        unfinished=findings.unfinished,
    )
    label = run.config.metric_label
    write_text(draft / CURVES, curves_svg(_curves(draft, hand_in), "base", hand_in.val_images, label))
    tell(f"executing {NOTEBOOK}")
    write_text(draft / NOTEBOOK, notebook.executed(cells(hand_in), draft, _ENVIRONMENT))
    if hand_in.images and not hand_in.images.is_handed_in:
        (draft / DATA).unlink()
    tell("writing the pages")
    for page in write_reports(run, findings.studies):
        shutil.copyfile(page, draft / page.name)
    write_text(draft / "checklist.md", f"# {escaped(run.name)}: checklist\n\n{hand_in.checklist}\n")
    write_text(draft / "README.md", _readme(hand_in))


def _network(draft: Path, run: Run, trained: Trained, role: str, place: str, stem: str) -> Network:
    """Export a network into the folder, with its log."""
    done = export(
        trained.architecture, draft, weights=trained.weights, facts=trained.facts, pixels=trained.pixels,
        recipe=trained.recipe, formats=QUICK, heading=trained.heading, stem=stem,
    )  # fmt: skip
    done.require_all()
    write_json(draft / "logs" / f"{role}.json", read_json(run.folder / place / "history.json"))
    policy = read_json(run.folder / place / "training.json")["precision"]
    source = done.paths["py"][0].read_text(encoding="utf-8")
    return Network(role, trained.architecture.name, stem, source, Recipe.model_validate(trained.recipe), policy)


def _images(path: Path, findings: Findings, tell: Callable[[str], None]) -> Images | None:
    """Write the images that the notebook measures on; None if the study's are not available."""
    config = findings.run.config
    try:
        data = load_study_data(config, findings.run.folder)
        if data.fingerprint != findings.data["fingerprint"]:
            raise UserError(f"{data.summary()}: not the images that the study was trained on")
    except UserError as error:
        tell(f"accuracies are not measured again: {error}")
        return None
    arrays = {"x_val": data.x_val, "y_val": data.y_val}
    has_training = data.x_train.nbytes + data.x_val.nbytes <= LARGEST
    if has_training:
        arrays |= {"x_train": data.x_train, "y_train": data.y_train}
    np.savez_compressed(path, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return Images(
        name=data.name,
        training=len(data.x_train),
        validation=len(data.x_val),
        has_training=has_training,
        is_handed_in=data.x_val.nbytes <= LARGEST,
        are_test=config.protocol == "course",
    )


def _curves(draft: Path, hand_in: HandIn) -> dict[str, list[float]]:
    """Values of the study's measure by epoch, of base and winner; a base that is a plain value is constant."""
    logs = {one.role: read_json(draft / "logs" / f"{one.role}.json") for one in hand_in.networks}
    found = {role: [epoch[log_key(hand_in.metric)] for epoch in log] for role, log in logs.items()}
    return {"base": [hand_in.base_accuracy] * max(2, len(found["winner"]))} | found


def _moved(draft: Path, folder: Path) -> list[Path]:
    """Move every file of the draft to the target folder."""
    files = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(folder / name)
    return [folder / name for name in files]


# --- text ------------------------------------------------------------------------------------------------------------


_README = """\
# {title}

{unfinished}{verdict}

![Validation {measure} by epoch]({curves})

{files}

## What was executed

{what_was_done}

Made with {versions}.

## To run it again

```sh
python -m pip install keras tensorflow numpy plotly ipykernel nbformat
```

Then open `{notebook}` in Jupyter, VS Code or Colab, in this folder, and run all cells.
"""


def _readme(hand_in: HandIn) -> str:
    files = {
        f"[{NOTEBOOK}]({NOTEBOOK})": "executed: code of base and winner, logs, curves, measured accuracies, checks",
        "[report.md](report.md)": "the report: leaderboard, the winner layer by layer, logs, configuration",
        "[report.html](report.html)": "more of it, with figures; opens offline",
        "[card.svg](card.svg), card.png": "base and winner on one picture",
        "[checklist.md](checklist.md)": "what the task asks, whether it holds, and what shows it",
        "best_model.py, .json, .keras": "the winner: Keras source, card, weights of its best epoch",
    }
    files |= {"base_model.py, .json, .keras": "the same files of the base"} if hand_in.base else {}
    files |= {"logs/": "the training logs, a row for each epoch"}
    files |= {DATA: "the images that the notebook reads"} if hand_in.images and hand_in.images.is_handed_in else {}
    used = ", ".join(f"{package} {version}" for package, version in versions().items() if package != "optuna")
    return _README.format(
        title=escaped(hand_in.title),
        unfinished=f"**{escaped(hand_in.unfinished)}**\n\n" if hand_in.unfinished else "",
        verdict=escaped(hand_in.verdict.text),
        curves=CURVES,
        measure=MEASURES[hand_in.metric].label,
        files=table(("file", "what it is"), files.items(), align=":--"),
        what_was_done=hand_in.what_was_done,
        versions=used,
        notebook=NOTEBOOK,
    )
