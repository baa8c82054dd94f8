"""Signals, closed terminals and broken outputs, with real processes.

python -m pytest tests/integration/test_signals.py
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.storms import Storm, finish, outcomes
from tests.support.tiers import tiered

ROOT = Path(__file__).parents[2]
SECONDS = 60
SEARCH = [sys.executable, "-m", "search"]


def search(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python -m search ARGUMENTS` in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT} | options
    return subprocess.run(
        [*SEARCH, *arguments], text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL, **options
    )


def with_signals(handler: Any, *numbers: int) -> Callable[[], None]:
    """Function for a child process to set signals to ignored or default before it starts."""
    return lambda: [signal.signal(number, handler) for number in numbers] and None


def wait_until(is_done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "package", tiered(("typing", "pathlib", "typer", "pydantic", "optuna"), quick=("typing", "pydantic"))
)
def test_ctrl_c_during_the_imports_is_one_line(package: str, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text(
        f"import os, time\nos.close(os.open({str(tmp_path / 'begun')!r}, os.O_CREAT))\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [*SEARCH, "top", "quickstart"], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stderr=subprocess.PIPE
    ) as process:
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, b"interrupted\n")


SWALLOWING = """
import time
from search.cli import commands, interrupts, results

def top(study: str) -> None:
    print("begun", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            {reaction}

interrupts.GRACE_SECONDS = {grace}
commands.app.command("swallow")(top)
import sys
sys.argv = ["search", "swallow", "x"]
commands.main()
"""


@pytest.mark.parametrize(
    ("reaction", "grace", "signals"),
    [
        ("pass", 1.0, 1),
        pytest.param("pass", 60.0, 2, marks=pytest.mark.long),
        ("raise RuntimeError('a callback of C') from None", 60.0, 1),
        pytest.param("raise", 60.0, 1, marks=pytest.mark.long),
    ],
)
def test_ctrl_c_that_a_library_loses_ends_the_command_all_the_same(reaction: str, grace: float, signals: int) -> None:
    code = SWALLOWING.format(reaction=reaction, grace=grace)
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted\n")


@pytest.mark.parametrize(
    "arguments", tiered(("show eip-b --json", "plan quickstart", "--help"), quick=("show eip-b --json", "--help"))
)
def test_a_full_output_is_one_line(arguments: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = search(*arguments.split(), stdout=full)
        assert (done.returncode, done.stderr) == (
            1,
            "cannot write (No space left on device); free some space, or send the output elsewhere\n",
        )


def test_an_error_that_cannot_be_printed_has_its_status() -> None:
    with Path("/dev/full").open("w") as full:
        assert search("show", "eip-c-typo", stdout=full, stderr=full).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [
        ("show eip-b", (1,)),
        pytest.param("show eip-b", (0, 1), marks=pytest.mark.long),
        pytest.param("show eip-b --json", (1, 2), marks=pytest.mark.long),
        ("show eip-b --json", (0, 1, 2)),
    ],
)
def test_closed_streams_are_no_fault(arguments: str, closed: tuple[int, ...], tmp_path: Path) -> None:
    """Nor does a file that is written get the output."""
    drawing = tmp_path / "net.svg"
    done = search(
        *arguments.split(),
        "--svg",
        str(drawing),
        preexec_fn=lambda: [os.close(descriptor) for descriptor in closed] and None,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr in ("", f"{drawing}\n")
    assert drawing.read_text().rstrip().endswith("</svg>")


@pytest.mark.parametrize(
    "arguments", tiered(("show eip-b", "show eip-b --json", "plan quickstart"), quick=("show eip-b", "show eip-b --json"))
)
def test_a_reader_that_has_gone_is_no_fault(arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert search(*arguments.split(), stdout=writer).stderr == ""
    os.close(writer)


# --- how it cannot be started -----------------------------------------------------------------------------------------


def test_a_python_without_the_packages_names_the_right_command(tmp_path: Path) -> None:
    bare = [sys.executable, "-I", "-S"]
    start = "import sys; sys.path.insert(0, {root!r}); import runpy; runpy.run_module('search', run_name='__main__')"
    done = subprocess.run(
        [*bare, "-c", start.format(root=str(ROOT))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "has no package 'typer'; run: cd " in done.stderr
    assert done.stderr.endswith(".venv/bin/python -m search ...\n")
    apart = [*bare, str(ROOT / "search"), "top"]
    done = subprocess.run(apart, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"run: cd {ROOT} && " in done.stderr


# --- runs ------------------------------------------------------------------------------------------------------------


def test_row_23_a_run_whose_reader_has_gone_continues_and_writes_its_log(tmp_path: Path) -> None:
    """As in `python -m search run STUDY 2>&1 | head -1`."""
    storm = Storm(tmp_path)
    process = storm.begin(process={"stderr": subprocess.STDOUT})
    assert process.stdout and process.stdout.readline().startswith("tiny -> ")
    process.stdout.close()
    assert process.wait(SECONDS) == 0
    storm.met[23] += 1
    storm.check(4)
    assert "trial 0: " in storm.log and "The winner: " in storm.log and "\x1b" not in storm.log


def test_row_23_a_full_output_does_not_end_a_run(tmp_path: Path) -> None:
    storm = Storm(tmp_path)
    with Path("/dev/full").open("w") as full:
        finish(storm.begin(process={"stdout": full}))
    storm.met[23] += 1
    storm.check(4)
    assert "The winner: " in storm.log


def test_row_23_a_run_whose_terminal_is_closed_ends_in_good_order(tmp_path: Path) -> None:
    """The kernel sends SIGHUP to the session, and writing to the terminal fails from then on."""
    storm = Storm(tmp_path)
    ours, terminal = os.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    process = storm.begin(process=streams | {"preexec_fn": take_terminal}, EPOCH_SECONDS="0.3", TERM="xterm")
    os.close(terminal)
    storm.wait_for(lambda trials: any(len(trial.intermediate_values) >= 2 for trial in trials))
    begun = time.monotonic()
    os.close(ours)
    assert process.wait(SECONDS) == 129
    assert time.monotonic() - begun < 10
    assert outcomes(storm.trials)[-2:] == ["interrupted", "WAITING"]
    storm.met[23] += 1
    storm.start()
    storm.check(4)


@pytest.mark.long
def test_row_23_a_run_in_the_background_ignores_what_its_shell_ignores(tmp_path: Path) -> None:
    """A shell without job control ignores SIGINT for it, nohup SIGHUP; SIGTERM ends it."""
    storm = Storm(tmp_path)
    ignoring = {"preexec_fn": with_signals(signal.SIG_IGN, signal.SIGINT, signal.SIGHUP)}
    process = storm.begin(process=ignoring, EPOCH_SECONDS="0.3")
    storm.wait_for(lambda trials: any(len(trial.intermediate_values) >= 1 for trial in trials))
    for number in (signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
    epochs = sum(len(trial.intermediate_values) for trial in storm.trials)
    storm.wait_for(lambda trials: sum(len(trial.intermediate_values) for trial in trials) > epochs + 2)
    begun = time.monotonic()
    process.terminate()
    _, err = finish(process, 143)
    assert time.monotonic() - begun < 10
    assert err == "interrupted; everything is kept, and the same command resumes\n"
    storm.met[23] += 2
    storm.start()
    storm.check(4)


@pytest.mark.long
def test_other_commands_in_the_background_end_by_sigterm(tmp_path: Path) -> None:
    storm = Storm(tmp_path)
    storm.start()
    study = [str(storm.folder / "tiny.toml"), "--out", str(storm.run.folder)]
    with subprocess.Popen(
        [*SEARCH, "dashboard", *study, "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=with_signals(signal.SIG_IGN, signal.SIGINT),
    ) as process:
        assert process.stdout and process.stdout.readline().startswith("http://")
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        assert (process.wait(5), process.communicate()[1]) == (-signal.SIGTERM, "")
