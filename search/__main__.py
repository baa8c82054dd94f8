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
    from search.study import Run

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Architecture search for image classifiers under a strict parameter budget.",
)

Study = Annotated[str, typer.Argument(help="a name under studies/, or the path of a TOML file")]
Out = Annotated[Path | None, typer.Option(help="the run folder, instead of studies/NAME/run", file_okay=False)]
Storage = Annotated[str | None, typer.Option(help="a database URL, instead of study.db in the run folder")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def run(
    study: Study,
    data: Annotated[str | None, typer.Option(help=".npz, cifar-10-batches-py folder or .tar.gz, or binary version")] = None,
    epochs: Annotated[int | None, typer.Option(help="of each training")] = None,
    trials: Annotated[int | None, typer.Option(help="trained candidates, in total")] = None,
    images: Annotated[int | None, typer.Option(help="training images to take, the other splits in proportion")] = None,
    seed: Annotated[int | None, typer.Option(help="the root of all randomness")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a step")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="train this known network for the leaderboard, and no candidates")
    ] = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Start or resume a study: train the base, then candidates until N of them are trained."""
    from search import study as studies
    from search.display import RunView
    from search.order import order_of
    from search.supervisor import supervise

    given = {
        "data.path": str(Path(data).resolve()) if data else None,
        "recipe.epochs": epochs,
        "search.trials": trials,
        "data.images": images,
        "search.seed": seed,
        "recipe.batch_size": batch_size,
    }
    overrides = {key: value for key, value in given.items() if value is not None}
    asked = studies.ask(study, overrides, out, storage)
    console = _console()
    console.print(f"{asked.name} -> {_short(asked.folder)}", highlight=False, soft_wrap=True)
    with RunView(console) as view:
        supervise(asked, order_of(asked, tuple(reference or ())), view)
    _print_top(asked, console)
    if reference:
        console.print(f"Candidates are left alone with --reference; train them with: python -m search run {study}")
    else:
        console.print(
            f"The winner: {_short(asked.folder / 'best_model.py')}, .json, .keras; the write-up: report.md beside it"
        )


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
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """One network layer by layer: output size, receptive field, parameters, multiply-adds."""
    from search.architecture import ArchitectureError
    from search.cost import table

    architecture = _network(network, number, out, storage)
    try:
        facts = table(architecture)
    except ArchitectureError as error:
        raise UserError(f"{network}: this network cannot exist: {error}") from None
    if as_json:
        return _print_json(facts)
    from search.display import print_network

    print_network(_console(), architecture, facts)


@app.command(hidden=True)
def worker() -> None:
    """Train trials as ordered on standard input (started by `run`)."""
    from search.worker import main

    def annotate(trial: Any, architecture: Architecture | None) -> None:
        pass

    main(annotate, lambda run, studies, data: None, lambda run, studies, data: None)


def _network(network: str, number: int | None, out: Path | None, storage: str | None) -> Architecture:
    """The architecture that `show` and `export` are asked for.

    Raises:
        UserError: there is none of this name or number.
    """
    from search import references

    if network.endswith(".json") or network in references.names():
        if number is not None:
            raise UserError(f"{network} {number}: a trial number goes with a study, and this is a network")
        return references.find(network).architecture
    from search import config, study

    try:
        config.find(network)
    except UserError as error:
        raise UserError(f"{error}; references: {', '.join(references.names())}") from None
    return study.network_of(study.find(network, out, storage), number)


def _board(found: Run) -> dict[str, Any]:
    from report.tables import leaderboard
    from search.study import load, records

    loaded = load(found)
    return leaderboard(found, records(loaded.candidates), records(loaded.references))


def _print_top(found: Run, console: Any) -> None:
    from search.display import print_leaderboard

    print_leaderboard(console, _board(found), found.config.protocol)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> NoReturn:
    """Run a verb, and turn the ways in which it can end into exit statuses."""
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        from search.order import StudyStopped
        from search.supervisor import Interrupted

        if isinstance(error, StudyStopped):
            _fail(str(error), 1)
        if isinstance(error, Interrupted):
            _fail("interrupted; everything is kept, and the same command goes on", error.status)
        raise
    sys.exit(0)


def _fail(message: str, status: int) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
