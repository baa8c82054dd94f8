"""Create a virtual environment from a hash-locked requirements file, or leave it alone where it is that already.

    python .ci/environment.py .venv requirements.txt [--cost "about 1.5 GB, a minute or two"]
    python .ci/environment.py .venv requirements.txt --extra requirements-ray.txt

The environment keeps the SHA-256 of the lock that it was made from, so newer files of the same content do not build it
again. It is built beside the old one and swapped in when it is complete: a failure or an interruption leaves the old one as
it was. A link is never followed: to replace an environment would delete what belongs to another checkout. A Python without
ensurepip (Debian without python3-venv, Colab) fills it with its own pip. Standard library only; Python 3.11 or newer.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = ".ready"
PIP_OPTIONS = ("--disable-pip-version-check", "--require-hashes", "--progress-bar", "off", "--no-input")
SHOWN_LINES = 15  # of pip's output where it fails
EVERY = 10  # packages a line where standard output is no terminal
LARGE = 50  # MB: a download that is shown in any case


class Failed(Exception):
    """The environment could not be made; the message is one line with the remedy."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("lock", type=Path)
    options.add_argument("--cost", default="", help="printed before the download")
    options.add_argument("--extra", type=Path, help="another lock, installed into the environment that is there")
    asked = options.parse_args()
    try:
        with alone(asked.lock):
            make(asked.folder, asked.lock, asked.cost)
            if asked.extra:
                install(asked.folder, asked.extra)
    except Failed as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {asked.folder} is as it was", file=sys.stderr)
        return 130
    return 0


def make(folder: Path, lock: Path, cost: str) -> None:
    """Build the environment, unless it was made from this lock.

    Raises:
        Failed: the folder is a link or holds something else, or pip failed.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if is_made_from(folder, digest):
        return
    if folder.is_symlink():
        target = folder.resolve()
        raise Failed(
            f"{folder}: is a link to {target}, which was not made from {lock.name}; it would be deleted. Remove the link "
            f"(rm {folder}), or use that environment directly: {target}/bin/python -m search"
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise Failed(f"{folder}: is no virtual environment, and its files would be deleted; move it away")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Setting up {folder} with Python {version}{f': {cost}' if cost else ''}", flush=True)
    draft = folder.with_name(f"{folder.name}-new")
    shutil.rmtree(draft, ignore_errors=True)  # of a build that was killed: no other one is at work
    try:
        venv.create(draft, with_pip=has_ensurepip(), symlinks=True, prompt=folder.name)
        install(draft, lock)
        rename_inside(draft, folder)
        (draft / MARK).write_text(digest + "\n", encoding="utf-8")
        swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_made_from(folder: Path, digest: str) -> bool:
    """True if the folder is a complete environment of the lock with this hash, whose Python still starts."""
    try:
        if (folder / MARK).read_text(encoding="utf-8").strip() != digest:
            return False
        return subprocess.run([folder / "bin" / "python", "-c", ""], check=False).returncode == 0
    except OSError:
        return False


def has_ensurepip() -> bool:
    """True if this Python can put a pip into an environment."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return False
    return True


def install(folder: Path, lock: Path) -> None:
    """Install a lock into an environment with its own pip, or with the pip of this Python where it has none.

    Raises:
        Failed: there is no pip, or it failed.
    """
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip"]
    if subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode:
        command = [sys.executable, "-m", "pip", "--python", str(python)]
        if subprocess.run([sys.executable, "-c", "import pip"], capture_output=True, check=False).returncode:
            raise Failed(
                f"{sys.executable}: has neither ensurepip nor pip; install one (Debian: apt install python3-venv), or: "
                "make PYTHON=/path/to/python"
            )
    begun, progress = time.monotonic(), Progress(count(lock))
    words = [*command, "install", *PIP_OPTIONS, "-r", str(lock)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as pip:
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                progress.see(line.rstrip())
        except KeyboardInterrupt:
            pip.terminate()
            raise
    if pip.returncode:
        print(*progress.last, sep="\n", file=sys.stderr)
        problem = f"pip could not install {lock.name} (status {pip.returncode})"
        raise Failed(f"{problem}; its last lines are above. The same command tries again")
    progress.end(f"{progress.found} packages in {time.monotonic() - begun:.0f} s")


def count(lock: Path) -> int:
    """Packages in a lock; some may be for other machines."""
    return len(re.findall(r"^[\w.-]+(?:\[[\w,.-]+\])?(?:==| @ )", lock.read_text(encoding="utf-8"), re.MULTILINE))


class Progress:
    """Prints the package that pip is at: on a terminal one line that changes, elsewhere every tenth and the large ones."""

    def __init__(self, total: int) -> None:
        self.total, self.found, self.name = total, 0, ""
        self.last: list[str] = []
        self.is_terminal = sys.stdout.isatty()

    def see(self, line: str) -> None:
        """Take one line of pip's output."""
        self.last = [*self.last[-SHOWN_LINES + 1 :], line]
        if match := re.match(r"(?:Collecting|Processing|Requirement already satisfied:?) (\S+)", line):
            self.found, self.name = self.found + 1, match[1].rpartition("/")[2]
            self._show("", is_worth_a_line=self.found % EVERY == 1)
        elif match := re.match(r"\s*Downloading .*\((([\d.]+) ([kMG])B)\)", line):
            is_large = match[3] == "G" or (match[3] == "M" and float(match[2]) >= LARGE)
            self._show(f", {match[1]}", is_worth_a_line=is_large)
        elif line.startswith("Installing collected packages"):
            self.end(f"  installing {self.found} packages, which takes a while")

    def _show(self, remark: str, is_worth_a_line: bool) -> None:
        text = f"  {self.found} of {self.total} packages: {self.name}{remark}"
        if self.is_terminal:
            print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif is_worth_a_line:
            print(text, flush=True)

    def end(self, text: str) -> None:
        """Print a line that stays."""
        print(f"\r\033[K{text}" if self.is_terminal else text, flush=True)


def rename_inside(draft: Path, folder: Path) -> None:
    """Write the final path instead of the draft's into the scripts of an environment, which begin with it."""
    old, new = str(draft.absolute()).encode(), str(folder.absolute()).encode()
    for path in (*(draft / "bin").iterdir(), draft / "pyvenv.cfg"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if old in content and b"\0" not in content:
                path.write_bytes(content.replace(old, new))


def swap(draft: Path, folder: Path) -> None:
    """Put the new environment in the place of the old one, and delete that."""
    old = folder.with_name(f"{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process builds an environment from this lock."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make sets up an environment here; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
