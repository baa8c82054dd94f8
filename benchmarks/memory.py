"""Resident memory of the worker after each of many trainings of a study, with recycling.

    python benchmarks/memory.py [--trials 60] [--json FILE]

runs a study of digits at one epoch a trial through the command line, as a user would, and reads the worker's memory after
each trial from /proc.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, default=60)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "search", "run", "quickstart", "--epochs", "1"]
        words += ["--trials", str(asked.trials), "--out", folder]
        run = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert run.stdout
        found: list[tuple[int, int]] = []  # (process, MiB) after each trained trial
        started = time.monotonic()
        for line in run.stdout:
            if re.match(r"trial \d+: .* params", line) and (worker := child(run.pid)):
                found.append((worker, resident(worker)))
        run.wait()
    workers = list(dict.fromkeys(worker for worker, _ in found))
    print(f"{len(found)} trials in {time.monotonic() - started:.0f} s, {len(workers)} workers; MiB after each trial:")
    for number, worker in enumerate(workers, 1):
        print(f"  worker {number}:", *(size for process, size in found if process == worker))
    if asked.json:
        sizes = [[size for process, size in found if process == worker] for worker in workers]
        asked.json.write_text(json.dumps({"mib_after_each_trial": sizes}) + "\n")


def child(process: int) -> int | None:
    """The worker of a run."""
    numbers = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(numbers[0]) if numbers else None


def resident(process: int) -> int:
    """In MiB."""
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) // 1024 if found else 0


if __name__ == "__main__":
    main()
