"""A run on a Ray cluster of three nodes, one of which is lost; skipped where Ray, an optional extra, is not installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from search.errors import StudyStopped, UserError
from search.runner.placement import Share
from tests.support.storms import Storm, finish, outcomes, write_base

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(
    not HAS_RAY and "CI_REQUIRE_SERVERS" not in os.environ, reason="Ray is not installed (make ray)"
)


@pytest.fixture
def storm(tmp_path: Path) -> Storm:
    search = {"trials": 7, "grace_minutes": 4 / 60}
    waits = [{"at": "epoch", "do": "wait", "index": index, "epoch": 3} for index in range(1, 12)]  # 0 is the base's too
    return Storm(tmp_path / "storm", *waits, base=write_base(tmp_path), recipe={"epochs": 8}, search=search)


@pytest.fixture
def cluster(storm: Storm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three nodes of one core each."""
    for name, value in (storm.environment | {"EPOCH_SECONDS": "0.2", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        found.add_node(num_cpus=1)
    yield found
    found.shutdown()


def is_halfway(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING and len(trial.intermediate_values) == 2


@pytest.mark.long
@needs_ray
@pytest.mark.filterwarnings("ignore::Warning")  # Ray's own
def test_row_22_a_lost_nodes_trial_resumes_on_another_and_the_study_ends_with_its_number(storm: Storm, cluster: Any) -> None:
    process = storm.begin("--workers", "3", "--ray-address", cluster.address)
    storm.wait_for(lambda trials: sum(is_halfway(trial) for trial in trials) == 3)  # whichever node is lost, it is training
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    storm.go()
    storm.met[22] += 1
    out, _ = finish(process)
    assert "was lost with its node" in out
    storm.check(7)
    assert "interrupted" in outcomes(storm.trials)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_its_option_says_how_to_get_it(storm: Storm) -> None:
    from search.runner.job import make_order
    from search.runner.ray import supervise_on_ray

    with pytest.raises(UserError, match="Ray is not installed; add it with: make ray"):
        supervise_on_ray(make_order(storm.run), None, "auto", 1, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cards", "environment"), [([], {}), ([1], {"SEARCH_GPU": "1"}), (["GPU-5a"], {"SEARCH_GPU": "GPU-5a"})]
)
def test_a_task_whose_gpu_is_lost_ends_the_run_with_the_reason(
    cards: list[int | str], environment: dict[str, str], storm: Storm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is replaced by what a task asks it for, the worker by the reason with which it stops."""
    from search.runner import ray as tasks
    from search.runner.job import encode_order, make_order

    shares: list[Share] = []

    def supervise(run: Any, order: Any, view: Any, given: list[Share], **rest: Any) -> None:
        shares.extend(given)
        raise StudyStopped("GPU 1 was assigned to this worker, but TensorFlow found none")

    monkeypatch.setattr(tasks, "supervise", supervise)
    monkeypatch.setattr(tasks.importlib, "import_module", lambda name: SimpleNamespace(get_gpu_ids=lambda: cards))
    ended = tasks.supervise_part(encode_order(make_order(storm.run)).decode(), 0, None)
    assert ended == ("stopped", "GPU 1 was assigned to this worker, but TensorFlow found none")
    assert [dict(share.environment) for share in shares] == [environment]
