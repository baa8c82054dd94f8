"""The share of a machine that each worker gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.errors import UserError
from search.runner import placement as machine
from search.runner.placement import Share, gpus, on_cores, plan_shares

CORES = os.sched_getaffinity(0)


def cards(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with so many GPUs."""
    for number in range(count):
        (tmp_path / "gpus" / f"0000:{number:02}:00.0").mkdir(parents=True)
    monkeypatch.setattr(machine, "_CARDS", tmp_path / "gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def visible(found: list[Share]) -> list[str | None]:
    return [share.environment.get("CUDA_VISIBLE_DEVICES") for share in found]


def test_one_worker_has_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(0, tmp_path, monkeypatch)
    assert plan_shares(None, None) == plan_shares(1, None) == [Share()]


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        ({0, 1, 2, 3}, 2, [{0, 1}, {2, 3}]),
        ({0, 1, 2, 3}, 3, [{0}, {1}, {2}]),  # equal parts: a trial goes on bit-equal on any of them
        ({1, 5}, 3, [{1}, {5}, {1}]),
    ],
)
def test_cores_are_split(
    cores: set[int], workers: int, expected: list[set[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(0, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    assert [share.cores for share in plan_shares(workers, None)] == expected


@pytest.mark.parametrize(
    ("workers", "each", "expected"),
    [
        (None, None, ["0"]),
        (2, None, ["0", "1"]),
        (None, 2, ["0", "1", "0", "1"]),
        (3, 2, ["0", "1", "0"]),
    ],
)
def test_gpus_go_round(
    workers: int | None, each: int | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(2, tmp_path, monkeypatch)
    assert visible(plan_shares(workers, each)) == expected


def test_only_the_gpus_that_this_process_may_use_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Slurm and Kubernetes hand them out, by number or by name."""
    cards(8, tmp_path, monkeypatch)
    for told, expected in (("3, GPU-5f", ["3", "GPU-5f"]), ("", []), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
        assert gpus() == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f")
    assert visible(plan_shares(None, 2)) == ["3", "GPU-5f", "3", "GPU-5f"]


@pytest.mark.parametrize(
    ("found", "workers", "each", "told"),
    [
        (0, None, 2, r"--trials-per-gpu 2: no GPU was found; leave it out, and pass --workers"),
        (2, 3, None, r"--workers 3: there is room for 2, 1 on each of 2 GPUs; pass --trials-per-gpu 2"),
        (2, 9, 3, r"--workers 9: there is room for 6, 3 on each of 2 GPUs; pass --trials-per-gpu 5"),
    ],
)
def test_more_than_there_is_room_for_is_refused(
    found: int, workers: int | None, each: int | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(found, tmp_path, monkeypatch)
    with pytest.raises(UserError, match=told):
        plan_shares(workers, each)


def test_a_process_runs_on_its_cores_from_its_first_moment_and_its_parent_on_all() -> None:
    one = frozenset({max(CORES)})
    code = "import os; print(*os.sched_getaffinity(0))"
    with on_cores(Share(cores=one)):
        child = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == [str(max(CORES))]
    assert os.sched_getaffinity(0) == CORES
