"""The command line: `python -m search VERB ...`; the one place where the objective meets the study.

Each verb imports what it needs: only those that train load TensorFlow, and `run` itself does not (its worker does).
Exit status: 0 done; 1 the study could not go on; 2 the user's input is at fault; 130 / 143 interrupted, everything kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from search.errors import UserError

if TYPE_CHECKING:
    from search.architecture import Architecture
    from search.export import Exported
    from search.study import Run
    from search.winner import Trained

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Architecture search for image classifiers under a strict parameter budget.",
)

Study = Annotated[str, typer.Argument(help="a name under studies/, or the path of a TOML file")]
Out = Annotated[Path | None, typer.Option(help="the run folder, instead of studies/NAME/run", file_okay=False)]
Storage = Annotated[
    str | None,
    typer.Option(help="a database URL, instead of study.db in the run folder", envvar="SEARCH_STORAGE", show_envvar=True),
]
Workers = Annotated[int | None, typer.Option(help="processes that train at once on this machine", min=1, max=1024)]
PerGpu = Annotated[int | None, typer.Option(help="workers on each GPU, which alone fills them", min=1, max=64)]
RayAddress = Annotated[str | None, typer.Option(help="train on this Ray cluster; auto: the one that this machine is in")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
# what overrides the study file, see `search.config.OPTIONS`
Data = Annotated[str | None, typer.Option(help="folder of images by class, .npz, or CIFAR's official folder or .tar.gz")]
Epochs = Annotated[int | None, typer.Option(help="of each training")]
Trials = Annotated[int | None, typer.Option(help="trained candidates, in total")]
Images = Annotated[int | None, typer.Option(help="training images to take, the other splits in proportion")]
Seed = Annotated[int | None, typer.Option(help="the root of all randomness")]
BatchSize = Annotated[int | None, typer.Option(help="images a step")]


@app.command()
def plan(
    study: Study,
    data: Data = None,
    epochs: Epochs = None,
    trials: Trials = None,
    images: Images = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    probe: Annotated[bool, typer.Option("--probe", help="time a few trainings on this machine, about a minute")] = False,
    as_json: AsJson = False,
) -> None:
    """What the space holds: the share that fits the budget, smallest and largest net; with --probe the time it takes."""
    from search import config
    from search.data import shape_of
    from search.plan import survey
    from search.probe import forecast, read

    name, path = config.find(study)
    asked = config.load(path, _overrides(data, epochs, trials, images, seed, batch_size))
    wish, timed = asked.data, None
    given = None
    if probe or wish.path:  # what has no path may have to be downloaded, by Keras
        with _console(stderr=as_json).status("reading the images") as status:
            given = read(asked, watch=lambda done, total: status.update(f"{done:,} of {total:,} images read"))
    shape = shape_of(wish.name, None, asked.protocol, wish.holdout) if given is None else (given.input_shape, given.classes)
    found = survey(asked.space, asked.budget, *shape, seed=asked.search.seed)
    if given and probe:
        with _console(stderr=as_json).status("drawing candidates") as status:
            timed = forecast(asked, given, status.update)
    if as_json:
        keys = ("share_that_fits", "smallest_params", "largest_params_that_fit", "proposals_per_second")
        return _print_json({key: getattr(found, key) for key in keys} | (timed.to_dict() if timed else {}))
    from search.display import print_survey

    print_survey(_console(), name, asked.budget.params, found, timed)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="of the study that is made, in studies/")],
    data: Annotated[Path, typer.Option(help="folder of images by class, .npz, or CIFAR's official folder or .tar.gz")],
    budget: Annotated[int, typer.Option(help="parameters: under it, not at it", min=1)] = 100_000,
    to: Annotated[Path | None, typer.Option(help="the folder to make NAME in, instead of studies/", file_okay=False)] = None,
) -> None:
    """A commented study file for your own images: looks at them, proposes size, space, base and recipe, and plans."""
    from search.display_new import print_new
    from search.new import make

    with _console().status("looking at the images") as status:
        made = make(name, data, budget, to, lambda done, total: status.update(f"{done:,} of {total:,} images"))
    print_new(_console(), made)


@app.command()
def run(
    study: Study,
    data: Data = None,
    epochs: Epochs = None,
    trials: Trials = None,
    images: Images = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="train this known network for the leaderboard, and no candidates")
    ] = None,
    workers: Workers = None,
    trials_per_gpu: PerGpu = None,
    ray_address: Annotated[
        str | None, typer.Option(help="train on this Ray cluster (auto: the one of this machine)")
    ] = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Start or resume a study, or join one: train the base, then candidates until N of them are trained."""
    from search import study as studies
    from search.cluster import supervise_on_ray
    from search.live import RunView
    from search.order import order_of
    from search.shares import shares
    from search.supervisor import supervise

    asked = studies.ask(study, _overrides(data, epochs, trials, images, seed, batch_size), out, storage)
    order, console = order_of(asked, tuple(reference or ())), _console()
    each = shares(workers, trials_per_gpu) if ray_address is None else []
    console.print(f"{asked.name} -> {_short(asked.folder)}", highlight=False, soft_wrap=True)
    with RunView(console, len(each) or workers or 1) as view:
        if ray_address is None:
            supervise(asked, order, view, each)
        else:
            supervise_on_ray(order, view, ray_address, workers or 1, trials_per_gpu)
    _print_top(asked, console)
    if reference:
        console.print("Candidates are left alone with --reference; the same command without it trains them.")
    else:
        console.print(_where_the_winner_is(asked))


@app.command()
def top(study: Study, as_json: AsJson = False, storage: Storage = None, out: Out = None) -> None:
    """The leaderboard against the base."""
    from search import study as studies

    found = studies.find(study, out, storage)
    if as_json:
        _print_json(_board(found))
    else:
        _print_top(found, _console())


@app.command()
def show(
    network: Annotated[str, typer.Argument(help="a reference, an architecture file (JSON), or a study")],
    number: Annotated[int | None, typer.Argument(help="a trial of the study, instead of its best")] = None,
    svg: Annotated[Path | None, typer.Option(help="draw it into this file instead", dir_okay=False)] = None,
    html: Annotated[Path | None, typer.Option(help="a page with the drawing and the table, instead", dir_okay=False)] = None,
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """One network layer by layer: output size, receptive field, parameters, multiply-adds."""
    from search.cost import table
    from search.layers import ArchitectureError

    architecture = _network(network, number, out, storage)
    try:
        facts = table(architecture)
    except ArchitectureError as error:
        raise UserError(f"{network}: this network cannot exist: {error}") from None
    if svg or html:
        from report.network_page import write_drawings

        for path in write_drawings(architecture, svg, html):
            print(_short(path.resolve()), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        return _print_json(facts)
    if svg or html:
        return
    from search.display_network import print_network

    console = _console()
    print_network(console, architecture, facts["int8"])
    if _is_study(network):
        from search import study

        console.print(study.verdict(study.find(network, out, storage), number), highlight=False)


@app.command("import")
def import_(
    model: Annotated[Path, typer.Argument(help="a .keras file, or the JSON of model.to_json()")],
    to: Annotated[Path | None, typer.Option(help="the architecture file; NAME.json if none", dir_okay=False)] = None,
    nearest: Annotated[bool, typer.Option("--nearest", help="with what is not known replaced by the nearest")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="write over another network's file")] = False,
    study: Annotated[str, typer.Option(help="whose rules and images it is held against")] = "cifar10_100k",
    budget: Annotated[int | None, typer.Option(help="parameters, instead of the study's 100,000", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """One's own Keras model as an architecture file; each rule that it breaks, with what would mend it."""
    from search.advice import judge, rules_of
    from search.display_import import print_import, to_json, write_architecture
    from search.keras_import import read_model

    rules = rules_of(study, budget)
    imported = read_model(model)
    findings = judge(imported, rules)
    if as_json:
        _print_json(to_json(imported, findings))
    else:
        print_import(_console(), imported, findings)
    path = write_architecture(imported, model, to, nearest=nearest, replace=replace)
    print(f"The architecture file: {_short(path.resolve())}", file=sys.stderr if as_json else sys.stdout)


@app.command()
def finals(
    study: Study,
    top: Annotated[int, typer.Option(help="how many of the best to train again", min=1)] = 5,
    seeds: Annotated[int, typer.Option(help="fresh seeds, the same for all", min=1)] = 5,
    control: Annotated[str | None, typer.Option(help="random: a random search of equal cost beside them")] = None,
    again: Annotated[bool, typer.Option("--again", help="read the test images another time")] = False,
    only_show: Annotated[bool, typer.Option("--show", help="what they came to; train and read nothing")] = False,
    as_json: AsJson = False,
    workers: Workers = None,
    trials_per_gpu: PerGpu = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Train the best few and the base again on fresh seeds; means, intervals, verdict; the test set, once."""
    from search import confirmation
    from search import study as studies
    from search.live import RunView
    from search.order import Finals, order_of
    from search.shares import shares
    from search.supervisor import supervise

    if control not in (None, "random"):
        raise UserError(f"--control: must be random, not {control!r}")
    found = studies.find(study, out, storage)
    if not only_show:
        studies.best(found, studies.records(studies.load(found).candidates))  # refuse before TensorFlow is loaded
        confirmation.refuse_second_reading(found, again)
        each = shares(workers, trials_per_gpu)
        with RunView(_console(stderr=as_json), len(each)) as view:
            supervise(found, order_of(found, finals=Finals(top, seeds, control is not None, again)), view, each)
    confirmed = confirmation.confirmed(found)
    if confirmed is None:
        raise UserError(
            f"{study}: no finals have been held to their end; hold them with: python -m search finals {found.called}"
        )
    if as_json:
        return _print_json(confirmation.to_json(found, confirmed))
    from search.display_finals import print_finals

    print_finals(_console(), found, confirmed)


@app.command()
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
    storage: Storage = None,
    out: Out = None,
) -> None:
    """The winner to take away: Keras source, card, trained model, TensorFlow Lite, C array, ONNX; each read back."""
    if number is not None and trial is not None:
        raise UserError(f"{network} {number} --trial {trial}: the number and --trial are the same thing; pass one of them")
    number = number if trial is None else trial
    if reference and number is not None:
        raise UserError(f"{network}: --reference {reference} is another network than trial {number}; pass one of them")
    if "submission" in (form or ()):
        return _submit(network, number, reference, to, form or [], storage, out)
    forms = tuple(form) if form else None
    if _is_study(network):
        done = _export_trained(network, number, reference, to, forms, data, storage, out)
    else:
        done = _export_untrained(network, number, to, forms, data)
    from search.display_export import print_exported

    print_exported(_console(), done)


@app.command()
def report(study: Study, storage: Storage = None, out: Out = None) -> None:
    """The write-up: report.html, a page that opens offline, and report.md with logs and checklist."""
    from report.publish import publish_files
    from report.write import write_reports
    from search import study as studies
    from search.device import load_backend

    found = studies.find(study, out, storage)
    opened = studies.load(found)
    studies.best(found, studies.records(opened.candidates))  # refuse before TensorFlow is loaded
    load_backend()
    for path in write_reports(found, opened):
        print(_short(path))
    publish_files(opened.candidates, found.folder)


@app.command()
def dashboard(
    study: Study,
    port: Annotated[int, typer.Option(help="on this machine's loopback; 0 takes a free one", min=0, max=65535)] = 8080,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """optuna-dashboard on this study, reachable from this machine only."""
    from report.dashboard import serve
    from search import study as studies

    serve(studies.find(study, out, storage), port, on_ready=lambda text: print(text, flush=True))


@app.command(hidden=True)
def worker() -> None:
    """Train trials as ordered on standard input (started by `run`)."""
    from report.notes import trial_note
    from report.publish import Redraw, publish_files, publish_trial_note
    from report.write import write_reports
    from search import winner
    from search.export import QUICK
    from search.study import Studies, best, records
    from search.worker import main

    redraw = Redraw()

    def annotate(trial: Any, architecture: Architecture | None, task: Any) -> None:
        publish_trial_note(trial, trial_note(architecture, trial.user_attrs, task.config.budget))

    def finish(run: Run, studies: Studies) -> None:
        redraw.now(run, studies)
        if winner.is_here(run, best(run, records(studies.candidates)).number):
            _write(winner.candidate(run, studies=studies), run.folder, forms=QUICK)
        write_reports(run, studies)
        publish_files(studies.candidates, run.folder)

    main(annotate, redraw, finish)


def _where_the_winner_is(run: Run) -> str:
    from search.study import best, load, records
    from search.winner import is_here

    number = best(run, records(load(run).candidates)).number
    if not is_here(run, number):
        return (
            f"The winner is trial {number}, in the run folder of another machine: export it there, or share one with --out."
        )
    return f"The winner: {_short(run.folder / 'best_model.py')}, .json, .keras; the write-up: report.html, .md beside it"


def _overrides(
    data: str | None, epochs: int | None, trials: int | None, images: int | None, seed: int | None, batch_size: int | None
) -> dict[str, Any]:
    """What the command line overrides, by the key of the study file."""
    from search.config import OPTIONS

    given = {"data": str(Path(data).resolve()) if data else None, "images": images, "epochs": epochs}
    given |= {"batch-size": batch_size, "trials": trials, "seed": seed}
    return {key: given[option[2:]] for key, option in OPTIONS.items() if given[option[2:]] is not None}


def _export_trained(
    study: str, number: int | None, reference: str | None, to: Path | None, forms: tuple[str, ...] | None,
    data: str | None, storage: str | None, out: Path | None,
) -> Exported:  # fmt: skip
    from report.publish import publish_files
    from search import winner
    from search.device import load_backend
    from search.study import find, load

    run = find(study, out, storage)
    best = winner.reference(run, reference) if reference else winner.candidate(run, number)
    read = winner.images(run, Path(data)) if data else None  # refuse before TensorFlow is loaded
    if forms != ("json",):
        load_backend()
    done = _write(
        best, to or run.folder, forms=forms, stem=reference or "best_model",
        images=lambda: read or winner.images(run), tell=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    if to is None:
        publish_files(load(run).candidates, run.folder)
    return done


def _submit(
    study: str, number: int | None, reference: str | None, to: Path | None, form: list[str], storage: str | None,
    out: Path | None,
) -> None:  # fmt: skip
    """A folder to hand in, of a study's best."""
    from report.submission import submit
    from search import study as studies

    if not _is_study(study) or number is not None or reference or len(form) > 1:
        raise UserError(
            "--form submission: hands in the best of a study; pass a study, no number, no --reference and no other form"
        )
    found = studies.find(study, out, storage)
    for path in submit(found, studies.load(found), to or found.folder, lambda words: print(words, file=sys.stderr)):
        print(_short(path.resolve()))


def _export_untrained(
    network: str, number: int | None, to: Path | None, forms: tuple[str, ...] | None, data: str | None
) -> Exported:
    from search.config import safe_name
    from search.export import export
    from search.pixels import Pixels

    if data:
        raise UserError(f"{network} --data {data}: images go with a trained network of a study, and this is not trained")
    architecture, folder = _network(network, number, None, None), to or Path.cwd()
    stem = safe_name(architecture.name)
    if (folder / f"{stem}.json").resolve() == Path(network).resolve() and (forms is None or "json" in forms):
        raise UserError(f"{network}: its card would replace it; pass another folder with --to, or --form py")
    return export(
        architecture, folder, weights=None, facts={}, pixels=Pixels(), recipe=None, forms=forms, stem=stem
    )  # fmt: skip


def _write(best: Trained, folder: Path, **options: Any) -> Exported:
    from search.export import export

    return export(
        best.architecture, folder, weights=best.weights, facts=best.facts, pixels=best.pixels, recipe=best.recipe,
        heading=best.heading, **options,
    )  # fmt: skip


def _network(network: str, number: int | None, out: Path | None, storage: str | None) -> Architecture:
    """The architecture that `show` and `export` are asked for.

    Raises:
        UserError: there is none of this name or number.
    """
    from search import references

    if not _is_study(network):
        if number is not None:
            raise UserError(f"{network} {number}: a trial number goes with a study, and this is a network")
        return references.find(network).architecture
    from search import config, study

    try:
        config.find(network)
    except UserError as error:
        raise UserError(f"{error}; references: {', '.join(references.names())}") from None
    return study.network_of(study.find(network, out, storage), number)


def _is_study(network: str) -> bool:
    from search import references

    references.refuse_model(network)
    return not network.endswith(".json") and network not in references.names()


def _board(found: Run) -> dict[str, Any]:
    from report.tables import leaderboard
    from search.study import load, records

    loaded = load(found)
    return leaderboard(found, records(loaded.candidates), records(loaded.references))


def _print_top(found: Run, console: Any) -> None:
    from report.tables import leaderboard, refusal_words
    from search.display import print_leaderboard
    from search.study import load, records

    loaded = load(found)
    candidates = records(loaded.candidates)
    print_leaderboard(console, leaderboard(found, candidates, records(loaded.references)), found.config)
    if refused := refusal_words(candidates):
        console.print(f"Refused before training: {refused}.", highlight=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, stderr=stderr)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> NoReturn:
    """Run a verb, and turn the ways in which it can end into exit statuses."""
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="python -m search", standalone_mode=False)
    except typer.TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}. See: python -m search --help", 2)
    except UserError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except Exception as error:
        from search.order import StudyStopped
        from search.supervisor import Interrupted

        if isinstance(error, StudyStopped):
            _fail(str(error), 1)
        if isinstance(error, Interrupted):
            _fail("interrupted; everything is kept, and the same command goes on", error.status)
        raise
    sys.exit(status or 0)


def _fail(message: str, status: int) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
