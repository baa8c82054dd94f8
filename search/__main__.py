"""The command line: `python -m search VERB ...`; the verbs are in `search/verbs/`, where the objective meets the study.

Each of them imports what it needs: only those that train load TensorFlow, and `run` itself does not (its worker does).
Exit status: 0 done; 1 the study could not go on; 2 the user's input is at fault; 130 / 143 interrupted, everything kept.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import NoReturn

import typer

from search.cli import export as take
from search.cli import results as look
from search.cli import run as train
from search.cli import setup as prepare
from search.errors import UserError

LONGEST = 1_500  # characters of what is told of a fault
_OF_A_NAME = (  # what makes a path unusable that a person has given
    *(errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EILSEQ),
)

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Architecture search for image classifiers under a strict parameter budget.",
)

app.command()(prepare.plan)
app.command()(prepare.new)
app.command()(train.run)
app.command()(look.top)
app.command()(look.show)
app.command("import")(prepare.import_)
app.command()(train.finals)
app.command()(take.export)
app.command()(look.report)
app.command()(look.dashboard)
app.command(hidden=True)(train.worker)


def main() -> NoReturn:
    """Run a verb, and turn the ways in which it can end into exit statuses."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the name of a file need not be text
    words = sys.argv[1:]
    _refuse_empty(words)
    try:
        status = app(words or ["--help"], prog_name="python -m search", standalone_mode=False)
    except typer.TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}. See: python -m search --help", 2)
    except UserError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except Exception as error:
        from search.runner.job import StudyStopped
        from search.runner.supervisor import Interrupted

        if isinstance(error, OSError) and error.errno in _OF_A_NAME and error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}; pass another name, or a place that can be used", 2)
        if isinstance(error, StudyStopped):
            _fail(str(error), 1)
        if isinstance(error, Interrupted):
            _fail("interrupted; everything is kept, and the same command goes on", error.status)
        raise
    sys.exit(status or 0)


def _refuse_empty(words: list[str]) -> None:
    """An empty word would mean the current folder, or none at all; it comes of a variable of the shell that is not set."""
    for before, word in zip(["", *words], words, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            option = (word or before).partition("=")[0]  # and no value: it may hold a password
            where = option if option.startswith("--") else "an argument"
            _fail(f"{where}: is empty, as a variable that is not set; pass a value, or leave it out", 2)


def _fail(message: str, status: int) -> NoReturn:
    """One line of printable characters, of a very long one both ends."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in " ".join(message.split()))
    print(line if len(line) < LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 4 :]}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
