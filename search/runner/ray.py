"""Workers as tasks of a Ray cluster, an optional extra: each task supervises one worker process on its node.

Ray places the tasks, gives them their share of a GPU and reports lost nodes. The queue in the database decides what they
train (`search.storage.queue`), so the trial of a lost node resumes on another. All nodes need this checkout and its
environment at the same path, a database server, and a file system shared for the run folder and the data.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from search.errors import StudyStopped, UserError
from search.runner.events import Event, TrialEnded, View, WorkerLost
from search.runner.job import Order, decode_order, encode_order
from search.runner.placement import Share
from search.runner.supervisor import MODULE, MOST_FAILURES, Interrupted, signals, supervise
from search.study.config import ROOT
from search.training.device import ASSIGNED

POLL_SECONDS = 0.5
STOP_SECONDS = 8.0  # for tasks to end their workers


def supervise_on_ray(order: Order, view: View, address: str, workers: int, trials_per_gpu: int | None) -> None:
    """Run so many workers on a Ray cluster until the order is carried out.

    Args:
        address: of the cluster, as `ray.init` takes it.

    Raises:
        UserError: Ray is not installed or cannot be reached, or a worker found the user's input at fault.
        StudyStopped: nothing more can be trained, or worker after worker was lost.
        Interrupted: SIGINT or SIGTERM came.
    """
    ray = _connected(address)
    try:
        _check_storage(ray, order)
        with signals():
            _Tasks(ray, order, view, _resources(ray, workers, trials_per_gpu)).work(workers)
    finally:
        ray.shutdown()


class Hub:
    """Collects the events of all tasks and holds their stop flag; an actor on the node of the run's own process."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Event]] = []  # worker and event
        self.is_stopped = False

    def put(self, worker: int, event: Event) -> None:
        self.events.append((worker, event))

    def take(self) -> list[tuple[int, Event]]:
        taken, self.events = self.events, []
        return taken

    def stop(self) -> None:
        self.is_stopped = True

    def stopped(self) -> bool:
        return self.is_stopped


def supervise_part(line: str, index: int, hub: Any) -> tuple[str, str]:
    """The task: supervise one worker until it is done; how it ended, and the reason."""
    ray = importlib.import_module("ray")
    order, polled = decode_order(line), 0.0

    def is_stopped() -> bool:
        nonlocal polled
        if time.monotonic() - polled < POLL_SECONDS:
            return False
        polled = time.monotonic()
        return bool(ray.get(hub.stopped.remote()))

    class RemoteView:
        def show(self, event: Event, worker: int = 0) -> None:
            hub.put.remote(index, event)

    try:
        supervise(order.run, order, RemoteView(), [_share_of_task(ray)], is_stopped=is_stopped)
        return "done", ""
    except UserError as error:
        return "user_error", str(error)
    except StudyStopped as error:
        return "stopped", str(error)
    except Interrupted:
        return "interrupted", ""


def _share_of_task(ray: Any) -> Share:
    """The share of the running task: Ray has set CUDA_VISIBLE_DEVICES, and a worker that finds no GPU there must stop."""
    cards = ",".join(str(card) for card in ray.get_gpu_ids())
    return Share({ASSIGNED: cards} if cards else {})


class _Tasks:
    """The tasks of one run."""

    def __init__(self, ray: Any, order: Order, view: View, resources: Mapping[str, float]) -> None:
        self.ray, self.order, self.view = ray, order, view
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.hub = ray.remote(Hub).options(num_cpus=0, scheduling_strategy=here).remote()
        self.task = ray.remote(supervise_part).options(**resources, max_retries=0, scheduling_strategy="SPREAD")
        self.indices: dict[Any, int] = {}  # of the running tasks
        self.lost = 0  # in a row

    def work(self, workers: int) -> None:
        """Run so many tasks until all are done."""
        for index in range(workers):
            self._start(index)
        try:
            while self.indices:
                ended, _ = self.ray.wait(list(self.indices), timeout=POLL_SECONDS)
                self._show()
                for task in ended:
                    self._handle_end(task, self.indices.pop(task))
        finally:
            self._stop()

    def _start(self, index: int) -> None:
        line = encode_order(replace(self.order, is_first=index == 0)).decode()
        self.indices[self.task.remote(line, index, self.hub)] = index

    def _handle_end(self, task: Any, index: int) -> None:
        try:
            status, reason = self.ray.get(task)
        except self.ray.exceptions.RayError as error:  # its node is gone, or Ray has killed it
            self.lost += 1
            reason = f"was lost with its node ({type(error).__name__})"
            self.view.show(WorkerLost(reason), index)
            if self.lost >= MOST_FAILURES:
                raise StudyStopped(f"{self.lost} workers in a row were lost; see the log of Ray") from None
            return self._start(index)
        match status:
            case "user_error":
                raise UserError(reason)
            case "stopped":
                raise StudyStopped(reason)

    def _show(self) -> None:
        for worker, event in self.ray.get(self.hub.take.remote()):
            if isinstance(event, TrialEnded):
                self.lost = 0
            self.view.show(event, worker)

    def _stop(self) -> None:
        """Have the tasks end their workers, which requeues the trials in progress."""
        if self.indices:
            with contextlib.suppress(self.ray.exceptions.RayError):
                self.ray.get(self.hub.stop.remote(), timeout=STOP_SECONDS)
                self.ray.wait(list(self.indices), num_returns=len(self.indices), timeout=STOP_SECONDS)


def _connected(address: str) -> Any:
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.util.scheduling_strategies")
    except ImportError:
        raise UserError("--ray-address: Ray is not installed; add it with: make ray") from None
    passed_on = {name: os.environ[name] for name in (MODULE, "KERAS_BACKEND") if name in os.environ}
    variables = {"PYTHONPATH": str(ROOT), **passed_on}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", runtime_env={"env_vars": variables})
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UserError(f"--ray-address {address}: cannot be reached ({str(error).splitlines()[0]})") from None
    return ray


def _resources(ray: Any, workers: int, trials_per_gpu: int | None) -> dict[str, float]:
    """Resources that each task requests from Ray: a share of a GPU, or of the cores of all nodes."""
    cluster = ray.cluster_resources()
    if cluster.get("GPU"):
        return {"num_cpus": 1, "num_gpus": 1 / (trials_per_gpu or 1)}
    if trials_per_gpu is not None:
        raise UserError(f"--trials-per-gpu {trials_per_gpu}: no GPU was found in the cluster; leave it out")
    return {"num_cpus": max(1, int(cluster.get("CPU", 1)) // workers)}


def _check_storage(ray: Any, order: Order) -> None:
    addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if order.storage_url.startswith("sqlite") and len(addresses) > 1:
        raise UserError(
            f"--ray-address: SQLite cannot be shared by {len(addresses)} machines; pass --storage with a database server"
        )
