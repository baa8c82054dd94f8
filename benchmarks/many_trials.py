"""Cost of reading and extending a study of 10,000 stored trials.

    python benchmarks/many_trials.py --out FOLDER [--trials 10000] [--storage sqlite] [--json benchmarks/many_trials.json]

`studies/cifar10_100k` (26 parameters, 50 epochs) and `studies/cifar10_100k_residual` (rungs: most trials of 6 epochs) are
filled with made-up trials (`tests/support/synthetic.py`), which takes a minute or two each and is done once in FOLDER.
Then, each in fresh processes: `top`; and `run`, which goes on with trainings that take no time
(`benchmarks/trivial_worker.py`) until it has some more. Wall-clock and CPU-seconds: the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

STUDIES = {"pyramid": "cifar10_100k", "residual": "cifar10_100k_residual"}
MORE = 12  # trials that `run` trains beside
LOOKS = 3  # at `top`


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--trials", type=int, default=10_000)
    options.add_argument("--spaces", nargs="+", default=list(STUDIES), choices=STUDIES)
    options.add_argument("--storages", nargs="+", default=["sqlite"], choices=["sqlite", "postgresql"])
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    server, found = None, list[dict[str, Any]]()
    try:
        for storage in asked.storages:
            if storage == "postgresql":
                from benchmarks.throughput import started

                server = started(asked.out)
            for space in asked.spaces:
                folder = asked.out / f"{space}-{asked.trials}-{storage}"
                url = server.new_storage() if server else None
                about = {"space": space, "storage": storage, "trials": asked.trials}
                found.append(about | measured(folder, STUDIES[space], asked.trials, url))
                print(json.dumps(found[-1]), flush=True)
    finally:
        if server:
            server.stop()
    if asked.json:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        versions = {name: version(name) for name in ("optuna", "sqlalchemy", "numpy")}
        asked.json.write_text(json.dumps({"machine": machine, "versions": versions, "runs": found}, indent=1) + "\n")


def measured(folder: Path, study: str, trials: int, url: str | None) -> dict[str, Any]:
    """All that is asked of one study."""
    if url or not (folder / "run" / "config.json").is_file():
        fill(folder, study, trials, url)
    study, words = str(folder / f"{study}.toml"), ["--out", str(folder / "run")]
    environment = os.environ | ({"SEARCH_STORAGE": url} if url else {})
    looks = {
        name: [timed([sys.executable, "-m", "search", "top", study, *more, *words], environment) for _ in range(LOOKS)]
        for name, more in (("top", []), ("top --json", ["--json"]))
    }
    about: dict[str, Any] = {"load": round(os.getloadavg()[0], 1)}
    for name, of in looks.items():
        about[name] = {"seconds": spread([one[0] for one in of]), "cpu": spread([one[1] for one in of])}
    return about | {"run": going_on(folder, study, words, environment)}


def fill(folder: Path, study: str, trials: int, url: str | None) -> None:
    """Make the study, and store the trials."""
    import numpy as np
    import optuna

    from search.storage.urls import sqlite_url
    from search.study.dataset import PIXELS, read
    from search.study.run import Run
    from search.study.study_file import load
    from tests.support import synthetic
    from tests.support.stored import store

    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = np.random.default_rng(0), np.arange(200) % 10
    images = [pixels.integers(0, 256, (n, 32, 32, 3), np.uint8) for n in (200, 100)]
    np.savez(folder / "images.npz", x_train=images[0], y_train=labels, x_test=images[1], y_test=labels[:100])
    text = (ROOT / "studies" / study / "study.toml").read_text(encoding="utf-8")
    without = re.sub(r"^(warm_start|flip_average) = .*\n", "", text, flags=re.MULTILINE)  # which need real weights and files
    (folder / f"{study}.toml").write_text(without, encoding="utf-8")
    config = load(folder / f"{study}.toml", {"data.path": str(folder / "images.npz"), "search.trials": trials})
    run = Run(study, folder / "run", config, url or sqlite_url(folder / "run"))
    data = read(config, folder / "run" / PIXELS)
    optuna.Study.add_trials = lambda self, made: store(self, list(made))  # type: ignore[method-assign]
    synthetic.fill(run, data, trials)


def going_on(folder: Path, study: str, words: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """`run`, until it has some more trials."""
    times = folder / "times"
    for path in (times, *times.with_suffix(".ready").glob("*")):
        path.unlink(missing_ok=True)
    stored = json.loads((folder / "run" / "config.json").read_text())["config"]["search"]["trials"]
    more = ["run", study, "--data", str(folder / "images.npz"), "--trials", str(stored + MORE)]
    told = {"SEARCH_WORKER": "benchmarks.trivial_worker", "TIMES": str(times)}
    began = time.time()
    wall, cpu = timed([sys.executable, "-m", "search", *more, *words], environment | told)
    steps = [json.loads(line) for line in times.read_text().splitlines()]
    at = {name: [one for one in steps if one["step"] == name] for name in ("ready", "begin", "propose", "train", "tell")}
    # from the end of one training to the start of the next: told, redrawn, claimed, proposed
    ends, starts = [one for one in steps if one["step"] == "trained"], at["train"][1:]
    between = [(start["at"] - end["at"], start["cpu"] - end["cpu"]) for end, start in zip(ends, starts, strict=False)]
    return {
        "first_claim": {"seconds": round(at["begin"][0]["at"] - began, 2), "cpu": round(at["begin"][0]["cpu"], 2)},
        "first_training": {"seconds": round(at["train"][0]["at"] - began, 2), "cpu": round(at["train"][0]["cpu"], 2)},
        **{name: {"seconds": spread([one["seconds"] for one in at[name]])} for name in ("begin", "propose", "tell")},
        "between_trainings": {"seconds": spread([one[0] for one in between]), "cpu": spread([one[1] for one in between])},
        "worker_mib": max(one["mib"] for one in steps),
        "whole": {"trials": len(ends), "seconds": wall, "cpu": cpu},
    }


def timed(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(seconds, CPU-seconds) of a command with its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return round(time.perf_counter() - began, 2), round(cpu, 2)


def spread(values: list[float]) -> list[float]:
    """Median and largest."""
    return [round(statistics.median(values), 3), round(max(values), 3)]


if __name__ == "__main__":
    main()
