"""A whole study in slices of a few minutes: forecast, search, finals, files to commit.

    python benchmarks/full_study.py cifar10_100k_residual --data CIFAR.npz --out RUN --minutes 9.5

Repeated until it ends with status 0: each slice resumes where the last one was stopped, in the same epoch, from RUN alone,
which may be carried from one machine to the next between them. A slice that ends before the study does has status 75. Under
KERAS_BACKEND=jax it needs no TensorFlow. Options after `--` go to `run` in every slice: `-- --workers 4`, `-- --trials 8`.

At the end RUN/results holds the files that are committed under studies/NAME: `leaderboard.json`, `finals.json`,
`curves.json` (the logs of the base and of the best trials), `best_model.py`, `best_model.json`, `report.md`, and
`forecast.json` of the first slice.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from search.files import read_json, write_json
from search.study.config import ROOT

NOT_DONE = 75  # sysexits.h: try again
LEAVE = 20  # seconds before the end of a slice in which nothing new is begun: a stop takes up to ten
FORECAST = 0.4  # of the first slice, at most
CURVES = 10  # of so many of the best trials


class SliceOver(Exception):
    """The time of this slice is used up; the next one resumes."""


class Slice:
    """Commands that share what is left of a slice's time."""

    def __init__(self, study: str, out: Path, minutes: float) -> None:
        self.study, self.out, self.end = study, out, time.monotonic() + 60 * minutes - LEAVE

    def search(self, verb: str, *words: str, keep: Path | None = None, share: float = 1.0) -> None:
        """`python -m search VERB STUDY`, ended with the slice.

        Args:
            keep: where its standard output goes when it is done; it goes to the screen without.
            share: of the time that is left, what it may take.

        Raises:
            SliceOver: it was ended, or there is no time to begin.
            SystemExit: it failed; it has said why.
        """
        left = share * (self.end - time.monotonic())
        if left <= 0:
            raise SliceOver
        command = [sys.executable, "-m", "search", verb, self.study, *words]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE if keep else None, text=True)
        try:
            out, _ = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            process.terminate()  # no SIGINT, which processes in the background ignore
            process.communicate()
            raise SliceOver from None
        if process.returncode:
            sys.exit(process.returncode)
        if keep:
            write_json(keep, json.loads(out))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("study")
    options.add_argument("--data", required=True, help="as of `run`")
    options.add_argument("--out", type=Path, required=True, help="the run folder")
    options.add_argument("--minutes", type=float, default=9.5, help="of this slice")
    options.add_argument("--top", default="3", help="of the finals")
    options.add_argument("--seeds", default="5", help="of the finals")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked = options.parse_args(sys.argv[1:cut])
    try:
        go_on(Slice(asked.study, asked.out.resolve(), asked.minutes), asked, sys.argv[cut + 1 :])
    except SliceOver:
        print("This slice is over; everything is kept, and the same command resumes it.", flush=True)
        sys.exit(NOT_DONE)


def go_on(within: Slice, asked: argparse.Namespace, more: list[str]) -> None:
    """From wherever the slice before was stopped, to the end.

    Args:
        more: options of `run`.
    """
    out, results = within.out, within.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    data, where = ("--data", str(Path(asked.data).resolve())), ("--out", str(out))
    forecast = results / "forecast.json"
    if not forecast.exists() and not {"--workers", "--trials-per-gpu"} & set(more):  # which `plan` knows nothing of
        try:
            within.search("plan", *data, *more, "--probe", "--json", keep=forecast, share=FORECAST)
        except SliceOver:
            write_json(forecast, None)  # what takes so long is not tried again: nothing of it is kept between slices
        print(f"forecast: {forecast.read_text().strip()}", flush=True)
    if not (results / "leaderboard.json").exists():
        within.search("run", *data, *where, *more)
        within.search("top", *where, "--json", keep=results / "leaderboard.json")
    if not (results / "finals.json").exists():
        within.search("finals", *where, "--top", asked.top, "--seeds", asked.seeds)
        within.search("finals", *where, "--show", "--json", keep=results / "finals.json")
    within.search("report", *where)
    within.search("export", *where, "--form", "py", "--form", "json", "--to", str(results))
    shutil.copy(out / "report.md", results)
    write_json(results / "curves.json", curves(out, read_json(results / "leaderboard.json")))
    print(f"Done: {results}", flush=True)


def curves(out: Path, board: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The logs of the base and of the best trials, epoch by epoch."""
    paths = {"base": out / "references" / "base" / "history.json"}
    paths |= {
        f"trial {row['number']}": out / "trials" / str(row["number"]) / "history.json" for row in board["trials"][:CURVES]
    }
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    main()
