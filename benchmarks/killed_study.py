"""Is a study that was killed five times at random moments the one that nobody disturbed?

    python benchmarks/killed_study.py --data CIFAR.npz --out FOLDER [--kills 5] [--json FILE]

runs `cifar10_25k_residual` on real CIFAR-10 images at reduced size (2,000 of them, 4 epochs with a rung after the third, all
12 trials, so that TPE proposes the last), real Keras trainings in one worker, twice in FOLDER: `calm` to its end; `storm`
with supervisor and worker killed by SIGKILL at random moments and the same command started again, then to its end. In the
storm's database are looked up, after every kill and at the end: as many trials as were asked for, none lost, doubled or
changed. At the end the leaderboards of both must be equal but for seconds and the numbers of trials (an interrupted one
takes a number), and so must the weights of all networks be, bit for bit. A `calm` that is there is not run again. Both must
have the same cores; on an idle machine with 2 each takes about 3 minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

STUDY = "cifar10_25k_residual"
SIZE = ("--images", "2000", "--epochs", "4")
TRIALS = 12


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    words = ["--data", str(asked.data.resolve()), *SIZE]
    calm, storm = asked.out / "calm", asked.out / "storm"
    calm_seconds = undisturbed(words, calm)
    shutil.rmtree(storm, ignore_errors=True)
    moments, known = random.Random(asked.seed), dict[str, Any]()
    kills = []
    while len(kills) < asked.kills:
        moment = moments.uniform(0, 1.5 * calm_seconds / asked.kills)
        kills.append(killed(words, storm, moment) | verdicts(storm, known))
        print(json.dumps(kills[-1]), flush=True)
    started = time.monotonic()
    finish(begin(words, storm))
    last_seconds = time.monotonic() - started
    result = compared(calm, storm, known)
    print(json.dumps(result, indent=1))
    if asked.json:
        command = (
            f"python benchmarks/killed_study.py --data CIFAR.npz --out FOLDER --kills {asked.kills} --seed {asked.seed}"
        )
        about = {
            "command": command,
            "study": " ".join((STUDY, *SIZE)),
            "machine": machine(),
            "calm_seconds": round(calm_seconds),
            "last_start_seconds": round(last_seconds),
            "kills": kills,
        }
        asked.json.write_text(json.dumps(about | result, indent=1) + "\n")
    wrong = [name for name in ("lost", "doubled", "left_at_work") if result[name]]
    wrong += [name for name in ("same_leaderboard", "same_epochs", "same_weights") if not result[name]]
    sys.exit(f"NOT so: {', '.join(wrong)}" if wrong or result["trained"] != TRIALS else 0)


def begin(words: list[str], out: Path) -> subprocess.Popen[str]:
    """`python -m search run`, going on."""
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "search", "run", STUDY, *words, "--out", str(out)]
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a run, which must succeed."""
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"exit status {process.returncode}\n{out}")


def undisturbed(words: list[str], out: Path) -> float:
    """Run the study to its end; the seconds that it took, now or when it did."""
    kept = out.with_suffix(".seconds")
    if not kept.exists():
        shutil.rmtree(out, ignore_errors=True)
        started = time.monotonic()
        finish(begin(words, out))
        kept.write_text(f"{time.monotonic() - started:.0f}\n")
    return float(kept.read_text())


def killed(words: list[str], out: Path, seconds: float) -> dict[str, Any]:
    """Start the study, kill all of its processes so many seconds after a worker began to train; where that was."""
    process = begin(words, out)
    before = begun(out)
    while process.poll() is None and begun(out) == before:  # or one moment in three would find TensorFlow being imported
        time.sleep(0.3)
    time.sleep(seconds)
    if process.poll() is not None:
        sys.exit(f"the study ended (status {process.returncode}) before it was to be killed:\n{process.communicate()[0]}")
    for one in (process.pid, *children(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    process.communicate()
    return {"seconds_after_it_began_to_train": round(seconds, 1)}


def children(process: int) -> list[int]:
    """The processes that it has started."""
    with suppress(FileNotFoundError):
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def begun(out: Path) -> int:
    """Number of started trials, of the base and of candidates."""
    return sum(one.state.name != "WAITING" for study in trials(out) for one in study)


def trials(out: Path) -> tuple[list[Any], list[Any]]:
    """(candidates, references) as the database has them, none before there is one."""
    from search.study.run import every, find

    if not (out / "config.json").exists():
        return [], []
    studies = {study.study_name: study.get_trials() for study in every(find(STUDY, out, None))}
    return studies.get(STUDY, []), studies.get(f"{STUDY}.references", [])


def verdicts(out: Path, known: dict[str, Any]) -> dict[str, Any]:
    """State of the study at a kill; verdicts of earlier trials must be unchanged."""
    candidates, references = trials(out)
    named = {f"reference {one.number}": one for one in references} | {f"candidate {one.number}": one for one in candidates}
    for name, one in known.items():
        if named[name] != one:
            sys.exit(f"trial {name} was {one}, and is {named[name]}")
    known |= {name: one for name, one in named.items() if one.state.is_finished()}
    at_work = [one for one in (*references, *candidates) if one.state.name == "RUNNING"]
    where = [
        f"{one.user_attrs.get('reference', one.user_attrs.get('index'))}, {len(one.intermediate_values)} epochs told"
        for one in at_work
    ]
    return {"trained_before": len(counted(candidates)), "at_work": where}


def counted(candidates: list[Any]) -> list[Any]:
    """Those that count towards the number asked for."""
    from search.study.records import COUNTED

    return [one for one in candidates if one.user_attrs.get("outcome") in COUNTED]


def compared(calm: Path, storm: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Check the invariants at the end."""
    from tests.fault_table import results

    (ours, our_references), (theirs, _) = trials(storm), trials(calm)
    found = results(ours, TRIALS, {one.number: one for name, one in known.items() if name.startswith("candidate")})
    boards, weights = ([read(out) for out in (calm, storm)] for read in (leaderboard, weights_of))
    curves = [
        sorted((one.user_attrs["index"], one.intermediate_values) for one in counted(group)) for group in (theirs, ours)
    ]
    every_trial = (*ours, *our_references)
    return {
        "asked": TRIALS,
        "trained": len(counted(ours)),
        "interrupted": sum(one.user_attrs.get("outcome") == "interrupted" for one in every_trial),
        "lost": found.lost,
        "doubled": found.doubled,
        "left_at_work": sum(not one.state.is_finished() for one in every_trial),
        "same_leaderboard": boards[0] == boards[1],
        "same_epochs": curves[0] == curves[1],
        "same_weights": weights[0] == weights[1],
        "networks_compared": len(weights[0]),
        "leaderboard": boards[1],
    }


def leaderboard(out: Path) -> Any:
    """Output of `top --json` without seconds and trial numbers."""
    words = [sys.executable, "-m", "search", "top", STUDY, "--out", str(out), "--json"]
    board = json.loads(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    for row in board["trials"]:
        del row["seconds"], row["number"]
    return board


def weights_of(out: Path) -> dict[str, str]:
    """SHA-256 of the weights of each trained network, by its logical index."""
    from search.files import read_weights

    candidates, references = trials(out)
    places = {f"candidate {one.user_attrs['index']}": out / "trials" / str(one.number) for one in counted(candidates)}
    places |= {name: out / "references" / name for one in references if (name := one.user_attrs["reference"])}
    return {name: digest(read_weights(folder / "weights.npz")) for name, folder in places.items()}


def digest(arrays: Any) -> str:
    """SHA-256 of the weights of a network."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def machine() -> dict[str, Any]:
    """On what it was measured."""
    packages = {name: version(name) for name in ("keras", "optuna")}
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    return {"cores": len(os.sched_getaffinity(0)), "cpu": cpu, "python": platform.python_version(), **packages}


if __name__ == "__main__":
    main()
