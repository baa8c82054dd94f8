"""The share of a machine that each worker gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.errors import UserError
from search.runner import placement as machine
from search.runner.placement import Share, gpus, idle_gpus, on_cores, plan_shares

CORES = os.sched_getaffinity(0)


def cards(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with so many GPUs."""
    for number in range(count):
        (tmp_path / "gpus" / f"0000:{number:02}:00.0").mkdir(parents=True)
    monkeypatch.setattr(machine, "_CARDS", tmp_path / "gpus")
    monkeypatch.setattr(machine, "has_gpu_build", lambda: True)
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


@pytest.mark.parametrize(
    ("visible_devices", "expected"),
    [
        ("3, GPU-5f", ["3", "GPU-5f"]),  # as Slurm and Kubernetes hand them out, by index or by UUID
        ("MIG-8f,MIG-a0", ["MIG-8f", "MIG-a0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,2", ["1"]),  # CUDA ignores the first invalid entry and all after it
        ("0,,2", ["0"]),
        ("0,8,1", ["0"]),  # there are 8
        ("2,2,3", ["2", "3"]),
    ],
)
def test_only_the_gpus_that_this_process_may_use_are_shared(
    visible_devices: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(8, tmp_path, monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible_devices)
    assert gpus() == expected
    if expected:
        assert visible(plan_shares(None, 2)) == expected * 2


def test_a_worker_knows_which_gpu_it_was_assigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(2, tmp_path, monkeypatch)
    assert [share.environment["SEARCH_GPU"] for share in plan_shares(2, None)] == ["0", "1"]


def test_without_files_of_the_driver_nvidia_smi_counts_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under Windows' subsystem for Linux."""
    cards(0, tmp_path, monkeypatch)
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g: (UUID: MIG-1)'\necho 'GPU 1: B (UUID: GPU-2)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus() == ["0", "1"]
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the driver.'\nexit 9\n")
    assert gpus() == []


def test_a_backend_built_for_the_cpu_leaves_gpus_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(2, tmp_path, monkeypatch)
    monkeypatch.setattr(machine, "has_gpu_build", lambda: False)
    assert gpus() == []
    assert visible(plan_shares(3, None)) == [None] * 3


def test_idle_gpus_are_named_with_the_option_that_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(3, tmp_path, monkeypatch)
    assert idle_gpus(plan_shares(None, None)) == "1 of 3 GPUs is used, idle: 1, 2; --workers 3 trains on all of them"
    assert idle_gpus(plan_shares(3, None)) is None
    cards(0, tmp_path / "none", monkeypatch)
    assert idle_gpus(plan_shares(None, None)) is None


@pytest.mark.parametrize(
    ("found", "workers", "each", "told"),
    [
        (0, None, 2, r"--trials-per-gpu 2: no GPU was found \(.*\); leave it out, and pass --workers"),
        (2, 3, None, r"--workers 3: there is room for 2, 1 on each of 2 GPUs; pass --trials-per-gpu 2"),
        (2, 9, 3, r"--workers 9: there is room for 6, 3 on each of 2 GPUs; pass --trials-per-gpu 5"),
    ],
)
def test_more_than_there_is_room_for_is_rejected(
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
