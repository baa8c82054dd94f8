"""The verb `export`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.console import console_of, is_study, network_of, short
from search.cli.options import Device, Out, Pareto, Storage, check_device_option
from search.cli.waiting import WaitingLine
from search.errors import UserError

if TYPE_CHECKING:
    from search.export.exporter import Exported
    from search.export.formats import Format
    from search.study.trained import Trained

SUBMISSION = "submission"  # a folder of several files, not a format of `search.export`


def export(
    network: Annotated[str, typer.Argument(help="a study, or a reference or architecture file (source and card only)")],
    number: Annotated[int | None, typer.Argument(help="number of a trial; default: the best of the study")] = None,
    trial: Annotated[int | None, typer.Option(help="number of a trial, as an option")] = None,
    reference: Annotated[str | None, typer.Option(help="export this reference of the study instead")] = None,
    to: Annotated[Path | None, typer.Option(help="folder to write to; default: the run folder", file_okay=False)] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            help="py, add, json, keras, tflite, int8, c or onnx; default: all that apply; submission: a folder to hand in; "
            "may be repeated"
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="path of the study's images, if moved; for tflite, int8 and c")] = None,
    pixels: Annotated[
        str | None,
        typer.Option(help="raw: the exported network takes pixels from 0 to 255 and prepares them itself; best_model_raw.*"),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="version of ONNX' operators; default: 18", min=13, max=23)] = None,
    pareto: Pareto = None,
    device: Device = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Export the winner: Keras source, card, trained model, TensorFlow Lite, C array, ONNX; each is read back and verified.

    Where a format fails, the others are written and the exit status is 1. With --pareto every network of the front is
    exported, each into a folder of its own, with an index of them and a card of each on the --device.
    """
    if number is not None and trial is not None:
        raise UserError(f"{network} {number} --trial {trial}: the number and --trial are the same thing; pass one of them")
    number = number if trial is None else trial
    if reference and number is not None:
        raise UserError(f"{network}: --reference {reference} is another network than trial {number}; pass one of them")
    if pixels not in (None, "raw"):
        raise UserError(f"--pixels {pixels}: must be raw, or left out for pixels that are prepared outside the network")
    formats = _checked_formats(form)
    is_submission = formats is not None and SUBMISSION in formats
    options: dict[str, Any] = {"is_raw": pixels == "raw"} | ({} if opset is None else {"opset": opset})
    if is_submission and (pixels or opset):
        raise UserError("--form submission: has no --pixels and no --opset; leave them out")
    if pareto:
        if number is not None or reference or is_submission or not is_study(network):
            raise UserError("--pareto: exports the front of a study; pass a study, no trial, no --reference, no submission")
        check_device_option(device)
        return _export_front(network, pareto, to, formats, data, device, storage, out, options)
    if device:
        raise UserError(f"--device {device}: lists the memory of a front; pass --pareto, or ask `top` or `report`")
    if is_submission:
        return _submit(network, number, reference, to, form or [], storage, out)
    with WaitingLine() as progress:
        if is_study(network):
            exported = _export_trained(network, number, reference, to, formats, data, storage, out, progress, options)
        else:
            exported = _export_untrained(network, number, to, formats, data, options)
    from search.cli.tables import print_exported

    print_exported(console_of(), exported)
    if exported.failed:
        for name, reason in exported.failed.items():
            _print_error(f"{name}: {reason}")
        raise typer.Exit(1)


def _checked_formats(names: list[str] | None) -> tuple[str, ...] | None:
    """The requested formats; None for all.

    Raises:
        UserError: one is unknown; before anything is loaded.
    """
    from search.errors import nearest
    from search.export.exporter import FORMATS

    for name in names or ():
        if name not in (*FORMATS, SUBMISSION):
            raise UserError(f"--form {name}: no such format, {nearest(name, (*FORMATS, SUBMISSION))}")
    return tuple(names) if names else None


def show_format(progress: WaitingLine, format: Format, prefix: str = "") -> None:
    """Name the format that is being written."""
    progress.show(f"{prefix}{format.name}: {format.description}")


def _print_error(text: str) -> None:
    print(text, file=sys.stderr)


def _export_trained(
    study: str, number: int | None, reference: str | None, to: Path | None, formats: tuple[str, ...] | None,
    data: str | None, storage: str | None, out: Path | None, progress: WaitingLine, options: dict[str, Any],
) -> Exported:  # fmt: skip
    from report.dashboard.publish import publish_files
    from search.study import trained as winner
    from search.study.run import find, load
    from search.training.device import load_backend

    run = find(study, out, storage)
    trained = winner.reference(run, reference) if reference else winner.candidate(run, number)
    images = winner.images(run, Path(data)) if data else None  # raises before TensorFlow is loaded
    if formats != ("json",):
        progress.show("loading TensorFlow")
        load_backend()
    exported = write(
        trained, to or run.folder, formats=formats, stem=reference or "best_model",
        images=lambda: images or winner.images(run), on_format=partial(show_format, progress),
        **options,
    )  # fmt: skip
    if to is None:
        publish_files(load(run).candidates, run.folder)
    return exported


def _export_front(
    study: str, pareto: list[str], to: Path | None, formats: tuple[str, ...] | None, data: str | None, device: str | None,
    storage: str | None, out: Path | None, options: dict[str, Any],
) -> None:  # fmt: skip
    """Export every network of the front; exit status 1 if a network, or a format of one, could not be exported."""
    from report.pareto_export import FOLDER, export_front
    from search.cli.tables import print_taken
    from search.study import trained as winner
    from search.study.pareto import check_metrics
    from search.study.run import find
    from search.training.device import load_backend

    run, metrics = find(study, out, storage), check_metrics(pareto)
    known = [winner.images(run, Path(data))] if data else []  # read once, for all networks

    def images() -> Any:
        if not known:
            known.append(winner.images(run))
        return known[0]

    with WaitingLine() as progress:

        def export_one(trained: Trained, folder: Path) -> Exported:
            prefix = f"{folder.name}, "
            if formats != ("json",):
                progress.show(f"{prefix}loading TensorFlow")
                load_backend()
            on_format = partial(show_format, progress, prefix=prefix)
            return write(trained, folder, formats=formats, images=images, on_format=on_format, **options)

        folder = to or run.folder / FOLDER
        exported = export_front(run, metrics, folder, export_one, device)
    print_taken(console_of(), exported, Path(short(folder.resolve())))
    for name, reason in exported.failures:
        _print_error(f"{name}: {reason}")
    if exported.failures:
        raise typer.Exit(1)


def _submit(
    study: str, number: int | None, reference: str | None, to: Path | None, form: list[str], storage: str | None,
    out: Path | None,
) -> None:  # fmt: skip
    """Write the folder to hand in, with the best candidate of a study."""
    from report.submission.folder import submit
    from search.study import run as studies

    if not is_study(study) or number is not None or reference or len(form) > 1:
        raise UserError(
            "--form submission: hands in the best of a study; pass a study, no number, no --reference and no other form"
        )
    found = studies.find(study, out, storage)
    with WaitingLine() as progress:
        progress.show("writing the models of base and winner")
        written = submit(found, studies.load(found), to or found.folder, progress.say)
    for path in written:
        print(short(path.resolve()))


def _export_untrained(
    network: str, number: int | None, to: Path | None, formats: tuple[str, ...] | None, data: str | None,
    options: dict[str, Any],
) -> Exported:  # fmt: skip
    from search.data.preprocessing import Pixels
    from search.export.exporter import export
    from search.files import safe_name

    if data:
        raise UserError(f"{network} --data {data}: images go with a trained network of a study, and this is not trained")
    architecture, folder = network_of(network, number, None, None), to or Path.cwd()
    stem = safe_name(architecture.name)
    if (folder / f"{stem}.json").resolve() == Path(network).resolve() and (formats is None or "json" in formats):
        raise UserError(f"{network}: its card would replace it; pass another folder with --to, or --form py")
    return export(
        architecture, folder, weights=None, facts={}, pixels=Pixels(), recipe=None, formats=formats, stem=stem,
        **options,
    )  # fmt: skip


def write(trained: Trained, folder: Path, **options: Any) -> Exported:
    """Export a trained network; options as of `search.export.exporter.export`."""
    from search.export.exporter import export

    return export(
        trained.architecture, folder, weights=trained.weights, facts=trained.facts, pixels=trained.pixels,
        recipe=trained.recipe, heading=trained.heading, **options,
    )  # fmt: skip
