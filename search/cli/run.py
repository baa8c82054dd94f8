"""Commands that train: run, finals, and the worker process that both start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.console import console_of, print_json, short
from search.cli.options import (
    AsJson,
    BatchSize,
    Data,
    Epochs,
    Images,
    Out,
    PerGpu,
    RayAddress,
    Seed,
    Storage,
    Study,
    Trials,
    Workers,
    overrides,
)
from search.cli.results import judged, print_top
from search.errors import UserError

if TYPE_CHECKING:
    from search.study.run import Run


def run(
    study: Study,
    data: Data = None,
    epochs: Epochs = None,
    trials: Trials = None,
    images: Images = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="train this reference, and no candidates; may be repeated"),
    ] = None,
    workers: Workers = None,
    trials_per_gpu: PerGpu = None,
    ray_address: RayAddress = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Start, resume or join a study: train the base, then candidates until the study has its number of trials."""
    from search.cli.progress import RunView
    from search.cli.tables import print_verdict
    from search.runner.job import make_order
    from search.runner.placement import idle_gpus, plan_shares
    from search.runner.ray import supervise_on_ray
    from search.runner.supervisor import LOG, supervise
    from search.study import run as studies
    from search.tuning.checks import check_before_loading, recipe_notes

    requested = studies.ask(study, overrides(data, epochs, trials, images, seed, batch_size), out, storage)
    check_before_loading(requested.config, tuple(reference or ()))
    order, console = make_order(requested, tuple(reference or ())), console_of(log=requested.folder / LOG)
    shares = plan_shares(workers, trials_per_gpu) if ray_address is None else []
    console.print(f"{requested.name} -> {short(requested.folder)}", markup=False, highlight=False, soft_wrap=True)
    for note in recipe_notes(requested.config, tuple(reference or ())):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    idle = idle_gpus(shares) if shares else None
    if idle is not None:
        console.print(idle, markup=False, highlight=False, soft_wrap=True)
    with RunView(console, len(shares) or workers or 1) as view:
        if ray_address is None:
            supervise(requested, order, view, shares)
        else:
            supervise_on_ray(order, view, ray_address, workers or 1, trials_per_gpu)
    verdict = print_top(requested, console)
    if reference:
        console.print("With --reference no candidates are trained; the same command without it trains them.")
    else:
        console.print(_winner_text(requested), markup=False, highlight=False, soft_wrap=True)
        print_verdict(console, verdict)


def finals(
    study: Study,
    top: Annotated[int, typer.Option(help="number of the best candidates to train again", min=1)] = 5,
    seeds: Annotated[int, typer.Option(help="number of fresh seeds, the same for all finalists", min=1)] = 5,
    control: Annotated[str | None, typer.Option(help="random: compare with a random search of equal cost as well")] = None,
    again: Annotated[bool, typer.Option("--again", help="read the test images another time; reports say so")] = False,
    only_show: Annotated[bool, typer.Option("--show", help="show the results of earlier finals; train nothing")] = False,
    as_json: AsJson = False,
    workers: Workers = None,
    trials_per_gpu: PerGpu = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Train the best candidates and the base again on fresh seeds: means, intervals, verdict, and the test images once."""
    from search.cli.finals_table import ENOUGH_SEEDS
    from search.cli.progress import RunView
    from search.finals import results as finals_results
    from search.runner.job import FinalsOrder, make_order
    from search.runner.placement import plan_shares
    from search.runner.supervisor import LOG, supervise
    from search.study import run as studies
    from search.study.records import outline

    if control not in (None, "random"):
        raise UserError(f"--control: must be random, not {control!r}")
    run = studies.find(study, out, storage)
    if not only_show:
        studies.best(run, outline(studies.load(run).candidates))  # raises before TensorFlow is loaded
        finals_results.check_unread(run, again)
        shares = plan_shares(workers, trials_per_gpu)
        console = console_of(stderr=as_json, log=run.folder / LOG)
        if seeds < ENOUGH_SEEDS and run.config.protocol != "course":
            count = f"{seeds} seed{'s are' if seeds > 1 else ' is'} few"
            advice = f"Ctrl-C and --seeds {ENOUGH_SEEDS} is better"
            console.print(
                f"{count}, and the test images, which are read once, will be read with them: {advice}.", highlight=False
            )
        with RunView(console, len(shares)) as view:
            supervise(run, make_order(run, finals=FinalsOrder(top, seeds, control is not None, again)), view, shares)
    results = finals_results.load_results(run)
    if results is None:
        raise UserError(f"{study}: no finals are complete; run them with: python -m search finals {run.called}")
    known = judged(run)
    if as_json:
        return print_json(finals_results.to_json(run, results) | {"standing": known.verdict.to_dict()})
    from search.cli.finals_table import print_finals
    from search.cli.tables import print_verdict

    print_finals(console_of(), run, results, known.board["val_images"])
    print_verdict(console_of(), known.verdict)


def worker() -> None:
    """Train trials as the job on standard input says (started by `run`)."""
    from search.cli.worker import ReportPublisher, main

    main(ReportPublisher())


def _winner_text(run: Run) -> str:
    """Items of the task's checklist that the winner does not meet, and the place of its files."""
    from report.markdown.report import Mark, checks
    from search.budget.cost import compute_cost
    from search.study.run import best, network_of
    from search.study.trained import is_here

    known = judged(run)
    number = best(run, known.candidates).number
    network = network_of(run, number, known.studies)
    checked = checks(run.config, network, compute_cost(network).params, known.board, known.verdict)
    missed = [check for check in checked[:-1] if check.mark == Mark.MISSED]  # the last, the verdict, follows by itself
    lines = [f"Not met by the winner: {check.asked} ({check.evidence})." for check in missed]
    if is_here(run, number):
        lines.append(f"The winner: {short(run.folder / 'best_model.py')}, .json, .keras; the reports: report.html, .md")
    else:
        place = "in the run folder of another machine"
        lines.append(f"The winner is trial {number}, {place}: export it there, or share one folder with --out.")
    return "\n".join(lines)
