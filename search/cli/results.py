"""Commands that show a study: top, show, report, dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from search.cli.console import console_of, is_study, network_of, print_json, short
from search.cli.options import AsJson, Device, Out, Pareto, Storage, Study, check_device_option
from search.cli.waiting import WaitingLine
from search.errors import UserError

if TYPE_CHECKING:
    from report.analysis.verdict import Verdict
    from search.study.records import Record
    from search.study.run import Run, Studies


def top(
    study: Study,
    whole: Annotated[bool, typer.Option("--all", help="print all trials; default: the first 200")] = False,
    pareto: Pareto = None,
    device: Device = None,
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Print the leaderboard; with --pareto the Pareto front of accuracy against costs, with --device memory on a device.

    With both, the networks of the front on the device.
    """
    from search.study import run as studies

    check_device_option(device)
    run = studies.find(study, out, storage)
    if as_json:
        front = _front(run, pareto) if pareto or run.config.cost_metrics else None
        known = judged(run)
        cards = {"device": _device(known, run, device, pareto, whole=whole)} if device else {}
        print_json(known.board | {"standing": known.verdict.to_dict()} | ({"front": front} if front else {}) | cards)
    elif device:
        from search.cli.tables import print_device

        print_device(console_of(), _device(judged(run), run, device, pareto, whole=whole))
    elif pareto:
        from search.cli.tables import print_front

        print_front(console_of(), _front(run, pareto))
    else:
        from search.cli.tables import print_verdict

        console = console_of()
        print_verdict(console, print_top(run, console, whole=whole))


def show(
    network: Annotated[str, typer.Argument(help="a reference, an architecture file (JSON), or a study")],
    number: Annotated[int | None, typer.Argument(help="number of a trial; default: the best of the study")] = None,
    svg: Annotated[Path | None, typer.Option(help="draw the network into this file instead", dir_okay=False)] = None,
    html: Annotated[Path | None, typer.Option(help="write a page with drawing and table instead", dir_okay=False)] = None,
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Print one network layer by layer: output size, receptive field, parameters, multiply-adds."""
    from search.budget.summary import summarize
    from search.networks.layers import ArchitectureError

    architecture = network_of(network, number, out, storage)
    try:
        facts = summarize(architecture)
    except ArchitectureError as error:
        raise UserError(f"{network}: this network cannot exist: {error}") from None
    if svg or html:
        from report.network.page import write_drawings

        for path in write_drawings(architecture, svg, html):
            print(short(path.resolve()), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        return print_json(facts)
    if svg or html:
        return
    from search.cli.network_table import print_network

    console = console_of()
    print_network(console, architecture, facts["int8"])
    if is_study(network):
        from search.study import run as study

        console.print(study.verdict(study.find(network, out, storage), number), markup=False, highlight=False)


def report(
    study: Study,
    to: Annotated[Path | None, typer.Option(help="folder to write to; default: the run folder", file_okay=False)] = None,
    device: Device = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Write report.html, a page that opens offline, and report.md with training logs and checklist."""
    check_device_option(device)
    from report.dashboard.publish import refresh
    from report.write import write_reports
    from search.study import run as studies
    from search.study.records import records
    from search.training.device import load_backend

    run = studies.find(study, out, storage)
    opened = studies.load(run)
    studies.best(run, records(opened.candidates))  # raises before TensorFlow is loaded
    with WaitingLine() as progress:
        progress.show("loading TensorFlow")
        load_backend()
        problems = list[str]()
        written = write_reports(run, opened, to, progress.show, problems.append, device=device)
        if to is None:
            refresh(run, opened)
    for problem in problems:
        print(problem, file=sys.stderr)
    for path in written:
        print(short(path))


def dashboard(
    study: Study,
    port: Annotated[int, typer.Option(help="port on the loopback address; 0 selects a free one", min=0, max=65535)] = 8080,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="also answer under this name, for a proxy such as JupyterHub's; may be repeated")
    ] = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Start optuna-dashboard on this study, reachable from this machine only, with a token in its address."""
    from report.dashboard.server import serve
    from search.study import run as studies

    run = studies.find(study, out, storage)
    serve(run, port, on_ready=lambda text: print(text, flush=True), allow_hosts=allow_host or [])


class Judged(NamedTuple):
    """A run as `top` shows it."""

    studies: Studies
    candidates: list[Record]
    references: list[Record]
    board: dict[str, Any]
    verdict: Verdict


def judged(run: Run) -> Judged:
    """Read a run, and judge its winner."""
    from report.analysis.expectation import expectation_of
    from report.analysis.verdict import judge
    from report.tables import leaderboard
    from search.finals.results import load_results
    from search.study.dataset import images_of
    from search.study.records import outline
    from search.study.run import DATA, load

    studies = load(run)
    candidates, references = outline(studies.candidates), outline(studies.references)
    data = studies.candidates.user_attrs[DATA]
    board = leaderboard(run, candidates, references, images_of(data, "validation"))
    finals = load_results(run)
    expected = expectation_of(run, studies, candidates, finals)
    return Judged(studies, candidates, references, board, judge(run, board, finals, data, expected))


def _device(known: Judged, run: Run, device: str, pareto: list[str] | None, *, whole: bool) -> dict[str, Any]:
    """Cards of the best candidates, or of the networks of a front, on a device."""
    from report.device import CARDS, device_board
    from search.study.run import Opened

    study = Opened(run, known.candidates, known.references)
    if pareto:
        numbers = [row["number"] for row in _front(run, pareto)["trials"]]
        return device_board(study, device, known.studies, None, numbers)
    return device_board(study, device, known.studies, None if whole else CARDS)


def _front(run: Run, pareto: list[str] | None) -> dict[str, Any]:
    """Front of these cost metrics, or of those that the study minimises."""
    from report.pareto import front_board
    from search.study.pareto import check_metrics
    from search.study.records import outline
    from search.study.run import Opened, load

    metrics, loaded = check_metrics(pareto or run.config.cost_metrics), load(run)
    return front_board(Opened(run, outline(loaded.candidates), outline(loaded.references)), metrics, loaded)


def print_top(run: Run, console: Any, *, whole: bool = False) -> Verdict:
    """Print the leaderboard and, of a study with several objectives, its front; return the verdict, which comes last."""
    from report.pareto import front_board
    from report.tables import refusal_words
    from search.cli.tables import print_front, print_leaderboard
    from search.study.run import Opened

    known = judged(run)
    print_leaderboard(console, known.board, run.config, whole=whole)
    if metrics := run.config.cost_metrics:
        print_front(console, front_board(Opened(run, known.candidates, known.references), metrics, known.studies))
    if rejected := refusal_words(known.candidates):
        console.print(f"Rejected before training: {rejected}.", highlight=False)
    return known.verdict
