"""Trials per second of one study with 1, 4, 8 and 16 workers, on SQLite and on PostgreSQL.

    python benchmarks/throughput.py [--rounds 2] [--trials 160] [--workers 1 4 8 16] [--json benchmarks/throughput.json]

Each run is `python -m search run` with as many workers, whose trainings take no time (`benchmarks/trivial_worker.py`): what
is measured is claiming, proposing, reporting two epochs and telling. The workers wait for each other before their first
trial, so that starting them is counted apart. Databases and numbers of workers take turns within a round, as the machine
has other work: compare within a round. After each run it is checked that exactly so many trials were trained, each network
once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support import servers  # noqa: E402
from tests.support.storms import Storm  # noqa: E402

SPACE = {"blocks": {"low": 2, "high": 4}, "width": {"low": 8, "high": 96, "step": 4}, "pools": 1}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--trials", type=int, default=160)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8, 16])
    options.add_argument("--storages", nargs="+", default=["sqlite", "postgresql"])
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="throughput-"))
    server = None if "postgresql" not in asked.storages else started(folder)
    found: list[dict[str, Any]] = []
    try:
        for number in range(asked.rounds):
            for workers in asked.workers:
                for storage in asked.storages:
                    url = server.new_storage() if storage == "postgresql" and server else None
                    about = {"round": number, "storage": storage, "workers": workers}
                    found.append(about | one(folder / f"{number}-{workers}-{storage}", url, workers, asked.trials))
                    print(found[-1], flush=True)
    finally:
        if server:
            server.stop()
        shutil.rmtree(folder)
    print(table(found))
    if asked.json:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        versions = {name: version(name) for name in ("optuna", "sqlalchemy", "psycopg")}
        told = {"machine": machine, "versions": versions, "trials": asked.trials, "epochs": 2, "runs": found}
        asked.json.write_text(json.dumps(told, indent=1) + "\n")


def started(folder: Path) -> servers.Server:
    """A PostgreSQL server on loopback, which does not wait for the disk."""
    if reason := servers.missing():
        sys.exit(reason)
    place = Path(tempfile.mkdtemp(prefix="postgres-", dir=folder))
    folder.chmod(0o755)  # the server is another user
    return servers.Server(servers._binaries()[-1], place)


def one(folder: Path, url: str | None, workers: int, trials: int) -> dict[str, Any]:
    """A study from its start to its end; times in seconds."""
    search = {"trials": trials, "sampler": "tpe", "recycle_after": trials + 1}
    storm = Storm(folder, storage_url=url, search=search, space=SPACE, budget={"params": 20_000}, recipe={"epochs": 2})
    load, times, began = os.getloadavg()[0], folder / "times", time.time()
    told = {"SEARCH_WORKER": "benchmarks.trivial_worker", "TIMES": str(times), "TOGETHER": str(workers)}
    storm.start("--workers", str(workers), **told)
    storm.check(trials)
    steps = [json.loads(line) for line in times.read_text().splitlines()]
    first = max(step["at"] for step in steps if step["step"] == "go")
    last = max(step["at"] for step in steps if step["step"] == "tell")
    at = {name: [step for step in steps if step["step"] == name] for name in ("ready", "go", "begin", "propose", "tell")}
    spent = sum(max(step["cpu"] for step in at["tell"] if step["worker"] == go["worker"]) - go["cpu"] for go in at["go"])
    return {
        "trials_per_second": round(trials / (last - first), 2),
        "cpu_ms_per_trial": round(1000 * spent / trials, 1),
        "start_seconds": round(first - began, 1),
        "start_cpu_seconds": round(sum(step["cpu"] for step in at["ready"]) / workers, 2),
        **{f"{name}_ms": spread([1000 * step["seconds"] for step in at[name]]) for name in ("begin", "propose", "tell")},
        "load": round(load, 1),
    }


def spread(values: list[float]) -> list[float]:
    """Median and 95th percentile."""
    return [round(statistics.median(values), 1), round(statistics.quantiles(values, n=20)[-1], 1)]


def table(found: list[dict[str, Any]]) -> str:
    """Medians over the rounds, in Markdown."""
    lines = [
        "| storage | workers | trials/s (times 1 worker) | CPU-ms a trial | start, s | begin, ms | propose, ms | tell, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for storage in dict.fromkeys(one["storage"] for one in found):
        here = [one for one in found if one["storage"] == storage]
        least = min(one["workers"] for one in here)
        for workers in sorted({one["workers"] for one in here}):
            runs = [one for one in here if one["workers"] == workers]
            single = {one["round"]: one["trials_per_second"] for one in here if one["workers"] == least}
            times = statistics.median(one["trials_per_second"] / single[one["round"]] for one in runs)

            def middle(name: str, runs: list[dict[str, Any]] = runs) -> str:
                values = [one[name][0] if isinstance(one[name], list) else one[name] for one in runs]
                return f"{statistics.median(values):.3g}"

            cells = [f"{middle('trials_per_second')} ({times:.2f})", *map(middle, ("cpu_ms_per_trial", "start_seconds"))]
            cells += map(middle, ("begin_ms", "propose_ms", "tell_ms"))
            lines.append(f"| {storage} | {workers} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
