"""The Makefile in a folder of its own with a tiny lock: when the environment is built, what it replaces, what it prints.

make really runs, and pip really installs, from a wheel that the test writes; no package index is asked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
NAMES = [f"tiny{number}" for number in range(12)]


class Made(NamedTuple):
    status: int
    out: str
    err: str


class Checkout(NamedTuple):
    """A folder with the Makefile, its script, and locks of the wheels beside it."""

    folder: Path
    python: str = sys.executable

    def make(self, *words: str, **environment: str) -> Made:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTEST_", "MAKE"))}
        done = subprocess.run(
            ["make", f"PYTHON={self.python}", *words],
            cwd=self.folder,
            env=inherited | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Made(done.returncode, done.stdout, done.stderr)

    @property
    def environment(self) -> Path:
        return self.folder / ".venv"

    def names(self) -> list[str]:
        """Files of the checkout that belong to an environment."""
        return sorted(path.name for path in self.folder.glob(".venv*"))

    def script(self) -> str:
        """Output of the first wheel's console script, started through its shebang."""
        done = subprocess.run([self.environment / "bin" / "tiny0"], capture_output=True, text=True, check=True)
        return done.stdout.strip()


def wheel(folder: Path, name: str) -> str:
    """Write a wheel with a console script; returns its line of a lock."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "import sys\ndef main(): print(sys.prefix)\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Made]:
    """A checkout in which `make venv` ran once."""
    checkout = Checkout(tmp_path_factory.mktemp("check out"))  # the space belongs to the test
    (checkout.folder / ".ci").mkdir()
    (checkout.folder / "wheels").mkdir()
    shutil.copy(ROOT / "Makefile", checkout.folder)
    shutil.copy(ROOT / ".ci" / "environment.py", checkout.folder / ".ci")
    lines = [wheel(checkout.folder / "wheels", name) for name in NAMES]
    for lock in ("requirements.txt", "requirements-gpu.txt"):
        (checkout.folder / lock).write_text("\n".join(["--no-index", "--find-links ./wheels", *lines, ""]), encoding="utf-8")
    ray = wheel(checkout.folder / "wheels", "ray")
    (checkout.folder / "requirements-ray.txt").write_text(f"--no-index\n--find-links ./wheels\n{ray}\n", encoding="utf-8")
    return checkout, checkout.make("venv")


@pytest.fixture
def checkout(built: tuple[Checkout, Made], tmp_path: Path, without_ensurepip: str) -> Checkout:
    """A copy of the checkout without the environment, with the Python that makes one faster."""
    shutil.copytree(built[0].folder, tmp_path / "copy", ignore=shutil.ignore_patterns(".venv*"))
    return Checkout(tmp_path / "copy", without_ensurepip)


@pytest.fixture
def without_ensurepip(tmp_path: Path) -> str:
    """A Python whose ensurepip is missing, as Colab's and Debian's are."""
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "ensurepip.py").write_text("raise ModuleNotFoundError(\"No module named 'ensurepip'\")\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/missing" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


def old_environment(folder: Path) -> Path:
    """A small environment with a file that must not be lost."""
    folder.mkdir()
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "precious").write_text("here")
    return folder


def test_the_environment_is_made_and_says_how_far_it_is(built: tuple[Checkout, Made]) -> None:
    checkout, made = built
    assert (made.status, made.err) == (0, "")
    assert "Setting up .venv with Python 3." in made.out and "about 1.5 GB" in made.out
    assert "  1 of 12 packages: tiny0" in made.out and "  11 of 12 packages: tiny10" in made.out
    assert "12 packages in " in made.out
    assert checkout.names() == [".venv"]


def test_its_scripts_start_where_it_was_moved_to(built: tuple[Checkout, Made]) -> None:
    checkout, _ = built
    assert checkout.script() == str(checkout.environment)
    assert b".venv-new" not in b"".join(path.read_bytes() for path in (checkout.environment / "bin").iterdir())


def test_a_newer_lock_of_the_same_content_builds_nothing(built: tuple[Checkout, Made]) -> None:
    checkout, _ = built
    (checkout.folder / "requirements.txt").touch()
    assert checkout.make("venv") == Made(0, "", "")


def test_another_lock_builds_anew_and_swaps(checkout: Checkout) -> None:
    precious = old_environment(checkout.environment) / "precious"
    assert checkout.make("venv").status == 0
    assert not precious.exists() and checkout.names() == [".venv"]
    assert checkout.script() == str(checkout.environment)


def test_a_link_is_never_emptied(checkout: Checkout, tmp_path: Path) -> None:
    other = old_environment(tmp_path / "other")
    checkout.environment.symlink_to(other)
    made = checkout.make("venv")
    assert made.status == 2 and made.out == ""
    assert f".venv: is a link to {other}" in made.err and "rm .venv" in made.err
    assert (other / "precious").read_text() == "here"


def test_a_link_to_an_environment_of_this_lock_is_used(built: tuple[Checkout, Made], checkout: Checkout) -> None:
    checkout.environment.symlink_to(built[0].environment)
    assert checkout.make("venv") == Made(0, "", "")


def test_a_folder_that_is_no_environment_is_left_alone(checkout: Checkout) -> None:
    checkout.environment.mkdir()
    (checkout.environment / "precious").write_text("here")
    made = checkout.make("venv")
    assert made.status == 2 and "is no virtual environment" in made.err
    assert (checkout.environment / "precious").read_text() == "here"


def test_a_failed_installation_leaves_the_old_environment(checkout: Checkout) -> None:
    precious = old_environment(checkout.environment) / "precious"
    with (checkout.folder / "requirements.txt").open("a") as lock:
        lock.write("missing==1.0 --hash=sha256:" + 64 * "0" + "\n")
    made = checkout.make("venv")
    assert made.status == 2
    assert "No matching distribution found for missing==1.0" in made.err
    assert "pip could not install requirements.txt (status 1)" in made.err
    assert precious.read_text() == "here" and checkout.names() == [".venv"]


@pytest.mark.long
def test_without_ensurepip_the_outer_pip_fills_it(checkout: Checkout) -> None:
    made = checkout.make("ray")
    assert (made.status, made.err) == (0, "")
    assert checkout.script() == str(checkout.environment)
    assert (checkout.environment / "bin" / "ray").exists(), "an extra is installed by the outer pip as well"
    assert not (checkout.environment / "bin" / "pip").exists()


def test_without_any_python_there_is_one_line(checkout: Checkout) -> None:
    made = checkout._replace(python="").make("venv")
    assert made.status == 2
    assert "No Python >= 3.11 and < 3.14 with venv was found; install one" in made.err


@pytest.mark.long
def test_the_environment_for_a_gpu_says_what_it_costs(checkout: Checkout) -> None:
    made = checkout.make("GPU=1", "venv")
    assert (made.status, made.err) == (0, "")
    assert "Setting up .venv-gpu" in made.out and "7.4 GB" in made.out and "minutes" in made.out
    assert checkout.names() == [".venv-gpu"]


@pytest.mark.long
def test_two_at_once_build_it_once(checkout: Checkout) -> None:
    words = [checkout.python, ".ci/environment.py", ".venv", "requirements.txt"]
    both = [subprocess.Popen(words, cwd=checkout.folder, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("Setting up" in output for output in outputs) == 1
    assert sum("waiting for it" in output for output in outputs) == 1
