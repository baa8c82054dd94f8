"""The checkpoint's file."""

from __future__ import annotations

import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from search.files import read_arrays
from search.training import checkpoint as checkpoints
from search.training.checkpoint import Checkpoint
from tests.support.checkpoints import ROOT, Pretence, begun, digits, pretence
from tests.support.snippet import snippet

__all__ = ["digits", "pretence"]


# --- the file --------------------------------------------------------------------------------------------------------


def some(count: int = 3, size: int = 5) -> Checkpoint:
    state = (*(np.full((size, 2), index, np.float32) for index in range(count)), np.array(7, np.int64), np.zeros((0, 3)))
    return Checkpoint(state, [{"epoch": 1, "loss": 0.1, "raw_val_loss": None}], 0, (np.ones(size, np.float32),))


def test_a_checkpoint_comes_back_as_it_was_written_in_its_order(tmp_path: Path) -> None:
    written = some(count=1200)
    assert checkpoints.write(tmp_path / "one.npz", "name", written) > 0
    found = checkpoints.read(tmp_path / "one.npz", "name")
    assert found is not None
    assert (found.history, found.best) == (written.history, 0)
    for ours, theirs in ((found.state, written.state), (found.best_weights, written.best_weights)):
        assert [(one.dtype, one.shape, one.tobytes()) for one in ours] == [
            (one.dtype, one.shape, one.tobytes()) for one in theirs
        ]
    assert checkpoints.read(tmp_path / "one.npz", "another") is None
    assert checkpoints.read(tmp_path / "none.npz", "name") is None
    assert checkpoints.read(None, "name") is None


def test_nothing_of_a_checkpoint_is_pickled(pretence: Pretence) -> None:
    begun(pretence.run, pretence.path, 2)
    with zipfile.ZipFile(pretence.path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                np.lib.format.read_array(member, allow_pickle=False)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_a_checkpoint_is_not_opened(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "one.npz", "name", some())
    trap = np.array([Trap(tmp_path / "sprung")], object)
    np.savez(tmp_path / "one.npz", allow_pickle=True, **read_arrays(tmp_path / "one.npz") | {"state0001": trap})
    assert checkpoints.read(tmp_path / "one.npz", "name") is None
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(trap[0]))
    assert (tmp_path / "sprung").exists()  # it does work


WRITER = """
import os, signal, sys, time
from pathlib import Path
from search.training import checkpoint
from tests.training.test_checkpoint_file import some
path = Path(sys.argv[1])
for turn in range(12):
    if (child := os.fork()) == 0:
        number = 0
        while True:
            number += 1
            checkpoint.write(path, "name", some(count=number % 40, size=20_000))
    time.sleep(0.05 + 0.013 * turn)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = checkpoint.read(path, "name") if path.exists() else 0
    print("none" if found == 0 else "torn" if found is None else len(found.state))
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    words = snippet(WRITER, tmp_path / "one.npz")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert len(found) == 12
    assert "torn" not in found
    assert "none" not in found[2:]
    assert len(set(found)) > 3  # they were killed in the middle of different ones
