"""The command line `python -m search COMMAND ...`: its commands, and the exit status of each way in which one can end.

Each command imports what it needs: only those that train or export load TensorFlow, and `run` does so in its workers.
Exit status: 0 done; 1 the study cannot continue; 2 the user's input is at fault; 129, 130, 143 interrupted by SIGHUP, SIGINT
(Ctrl-C) or SIGTERM, with everything kept.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import NoReturn

import typer
from pydantic import ValidationError

from search.cli import export, results, run, setup
from search.cli.interrupts import STATUS, Interrupts, catching_interrupts
from search.errors import StudyStopped, UserError

LONGEST = 1_500  # characters of an error message
_PATH_ERRORS = (  # reasons of the system why a path that the user gave cannot be used
    *(errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EILSEQ),
)
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # no more can be written, to a file or a terminal

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Architecture search for image classifiers under a strict parameter budget.",
)

app.command()(setup.plan)
app.command()(setup.new)
app.command()(run.run)
app.command()(results.top)
app.command()(results.show)
app.command("import")(setup.import_)
app.command()(run.finals)
app.command()(export.export)
app.command()(results.report)
app.command()(results.dashboard)
app.command(hidden=True)(run.worker)


def main() -> NoReturn:
    """Run the command that `sys.argv` holds, and exit with its status."""
    _open_standard_streams()
    arguments = sys.argv[1:]
    _refuse_empty(arguments)
    with catching_interrupts() as interrupts:
        status = _run(arguments or ["--help"], interrupts)
    sys.exit(status)


def _run(arguments: list[str], interrupts: Interrupts) -> int:
    """Exit status of a command; ends the process where the command fails."""
    try:
        status = app(arguments, prog_name="python -m search", standalone_mode=False)
        if status == STATUS:  # what typer makes of a KeyboardInterrupt
            _fail("interrupted", STATUS)
        sys.stdout.flush()
        return status or 0
    except typer.TyperException as error:
        _fail(_usage(error), 2)
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", STATUS)
    except (Exception, StudyStopped) as error:
        _fail_of(error, interrupts)


def _fail_of(error: Exception | StudyStopped, interrupts: Interrupts) -> NoReturn:
    """End for an exception that is no fault of the arguments; raise it again if it is a defect."""
    from search.runner.supervisor import Interrupted

    if isinstance(error, Interrupted):
        _fail("interrupted; everything is kept, and the same command resumes", error.status)
    if interrupts.came:  # a library has turned the KeyboardInterrupt into an error of its own
        _fail("interrupted", STATUS)
    if isinstance(error, StudyStopped):
        _fail(str(error), 1)
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            _discard_output()
            sys.exit(1)
        if error.errno in _PATH_ERRORS and error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}; pass another name, or a place that can be used", 2)
        if error.errno in _WRITE_ERRORS:
            _discard_output()
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}cannot write ({error.strerror}); free some space, or send the output elsewhere", 1)
    raise error


def _usage(error: typer.TyperException) -> str:
    """The message of an error in the arguments: rule, value, and the help to read."""
    message = error.format_message().rstrip(".")
    cause = error.__cause__
    if isinstance(cause, ValidationError) and isinstance(error, typer.BadParameter) and error.param:
        problem = cause.errors(include_url=False)[0]
        is_number = problem["type"].startswith("int_")
        rule = "must be a whole number" if is_number else problem["msg"].replace("Input should be", "must be")
        message = f"{error.param.get_error_hint().strip(chr(39))}: {rule}, not {problem['input']!r}"
    context = getattr(error, "ctx", None)
    return f"{message}. See: {context.command_path if context else 'python -m search'} --help"


def _open_standard_streams() -> None:
    """Open the null device for each closed standard stream, and let the others accept any text.

    A file that is opened later would otherwise get the descriptor of a closed stream, and the output with it.
    """
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the name of a file need not be valid text


def _discard_output() -> None:
    """Redirect the rest of a broken standard output to the null device, which Python would fail to flush at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse_empty(arguments: list[str]) -> None:
    """Reject empty arguments, which come from unset shell variables and would mean the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            option = (argument or before).partition("=")[0]  # without its value, which may hold a password
            where = option if option.startswith("--") else "an argument"
            _fail(f"{where}: is empty, as a variable that is not set; pass a value, or leave it out", 2)


def _fail(message: str, status: int) -> NoReturn:
    """Print one line of printable characters on standard error, of a long message both ends; exit with the status."""
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(message.split()))
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(line if len(line) < LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 4 :]}", file=sys.stderr)
        sys.stderr.flush()
    sys.exit(status)
