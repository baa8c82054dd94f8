"""The verb that takes networks away: export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.console import console_of, is_study, network_of, short
from search.cli.options import Out, Pareto, Storage
from search.errors import UserError

if TYPE_CHECKING:
    from search.export.exporter import Exported
    from search.study.trained import Trained


def export(
    network: Annotated[str, typer.Argument(help="a study, or a reference or architecture file (source and card only)")],
    number: Annotated[int | None, typer.Argument(help="a trial of the study, instead of its best")] = None,
    trial: Annotated[int | None, typer.Option(help="the same")] = None,
    reference: Annotated[str | None, typer.Option(help="a reference that the study has trained, instead")] = None,
    to: Annotated[Path | None, typer.Option(help="the folder to write to; the run folder if none", file_okay=False)] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            help="py, add, json, keras, tflite, int8, c or onnx; all that apply if none; submission: a folder to hand in"
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="where the study's images are now; for tflite, int8 and c")] = None,
    pareto: Pareto = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """The winner to take away: Keras source, card, trained model, TensorFlow Lite, C array, ONNX; each read back.

    With --pareto every network of the front, each in a folder of its own, and an index of them.
    """
    if number is not None and trial is not None:
        raise UserError(f"{network} {number} --trial {trial}: the number and --trial are the same thing; pass one of them")
    number = number if trial is None else trial
    if reference and number is not None:
        raise UserError(f"{network}: --reference {reference} is another network than trial {number}; pass one of them")
    if pareto:
        if number is not None or reference or "submission" in (form or ()) or not is_study(network):
            raise UserError("--pareto: exports the front of a study; pass a study, no trial, no --reference, no submission")
        return _export_front(network, pareto, to, tuple(form) if form else None, data, storage, out)
    if "submission" in (form or ()):
        return _submit(network, number, reference, to, form or [], storage, out)
    forms = tuple(form) if form else None
    if is_study(network):
        done = _export_trained(network, number, reference, to, forms, data, storage, out)
    else:
        done = _export_untrained(network, number, to, forms, data)
    from search.cli.tables import print_exported

    print_exported(console_of(), done)


def _export_trained(
    study: str, number: int | None, reference: str | None, to: Path | None, forms: tuple[str, ...] | None,
    data: str | None, storage: str | None, out: Path | None,
) -> Exported:  # fmt: skip
    from report.dashboard.publish import publish_files
    from search.study import trained as winner
    from search.study.run import find, load
    from search.training.device import load_backend

    run = find(study, out, storage)
    best = winner.reference(run, reference) if reference else winner.candidate(run, number)
    read = winner.images(run, Path(data)) if data else None  # refuse before TensorFlow is loaded
    if forms != ("json",):
        load_backend()
    done = write(
        best, to or run.folder, forms=forms, stem=reference or "best_model",
        images=lambda: read or winner.images(run), tell=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    if to is None:
        publish_files(load(run).candidates, run.folder)
    return done


def _export_front(
    study: str, pareto: list[str], to: Path | None, forms: tuple[str, ...] | None, data: str | None, storage: str | None,
    out: Path | None,
) -> None:  # fmt: skip
    """Every network of the front; exit status 1 where one of them could not be exported."""
    from report.pareto_export import FOLDER, take_front
    from search.cli.tables import print_taken
    from search.export.exporter import refuse_unknown
    from search.study import trained as winner
    from search.study.pareto import check_metrics
    from search.study.run import find
    from search.training.device import load_backend

    run, prices = find(study, out, storage), check_metrics(pareto)
    refuse_unknown(forms)
    known = [winner.images(run, Path(data))] if data else []  # read once, for all networks

    def images() -> Any:
        known[:] = known or [winner.images(run)]
        return known[0]

    def export_one(best: Trained, folder: Path, tell: Any) -> Exported:
        if forms != ("json",):
            load_backend()
        return write(best, folder, forms=forms, images=images, tell=tell)

    folder = to or run.folder / FOLDER
    taken = take_front(run, prices, folder, export_one, lambda line: print(line, file=sys.stderr, flush=True))
    print_taken(console_of(), taken, Path(short(folder.resolve())))
    if taken.failed:
        for number, reason in taken.failed.items():
            print(f"trial {number}: {reason}", file=sys.stderr)
        raise typer.Exit(1)


def _submit(
    study: str, number: int | None, reference: str | None, to: Path | None, form: list[str], storage: str | None,
    out: Path | None,
) -> None:  # fmt: skip
    """A folder to hand in, of a study's best."""
    from report.submission.folder import submit
    from search.study import run as studies

    if not is_study(study) or number is not None or reference or len(form) > 1:
        raise UserError(
            "--form submission: hands in the best of a study; pass a study, no number, no --reference and no other form"
        )
    found = studies.find(study, out, storage)
    for path in submit(found, studies.load(found), to or found.folder, lambda words: print(words, file=sys.stderr)):
        print(short(path.resolve()))


def _export_untrained(
    network: str, number: int | None, to: Path | None, forms: tuple[str, ...] | None, data: str | None
) -> Exported:
    from search.data.preprocessing import Pixels
    from search.export.exporter import export
    from search.files import safe_name

    if data:
        raise UserError(f"{network} --data {data}: images go with a trained network of a study, and this is not trained")
    architecture, folder = network_of(network, number, None, None), to or Path.cwd()
    stem = safe_name(architecture.name)
    if (folder / f"{stem}.json").resolve() == Path(network).resolve() and (forms is None or "json" in forms):
        raise UserError(f"{network}: its card would replace it; pass another folder with --to, or --form py")
    return export(
        architecture, folder, weights=None, facts={}, pixels=Pixels(), recipe=None, forms=forms, stem=stem
    )  # fmt: skip


def write(best: Trained, folder: Path, **options: Any) -> Exported:
    from search.export.exporter import export

    return export(
        best.architecture, folder, weights=best.weights, facts=best.facts, pixels=best.pixels, recipe=best.recipe,
        heading=best.heading, **options,
    )  # fmt: skip
