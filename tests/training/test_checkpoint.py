"""Resumed trainings: bit-equal from an intact checkpoint of the same training, otherwise from the start."""

from __future__ import annotations

import errno
import json
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from search.data.dataset import Dataset
from search.files import read_arrays, write_arrays
from search.networks.layers import Dense, Softmax
from search.training import checkpoint as checkpoints
from search.training.recipe import Augment, Cosine, Recipe
from search.training.train import Epoch, Training, fit
from tests.support.checkpoints import EVERYTHING, NETWORK, ROOT, Pretence, begun, digits, pretence
from tests.support.snippet import snippet
from tests.support.tiers import tiered

__all__ = ["digits", "pretence"]


def figures(training: Training) -> tuple[Any, ...]:
    """Everything but the time that it took, to the bit."""
    rows = [asdict(epoch) | {"seconds": 0} for epoch in training.history]
    return rows, training.best.epoch, [(weight.dtype.str, weight.tobytes().hex()) for weight in training.best_weights]


# --- with a real network ---------------------------------------------------------------------------------------------


FRESH = """
import json, sys
from pathlib import Path
from search.training.device import prepare_device
prepare_device()
from search.training.train import fit
from tests.support.checkpoints import EVERYTHING, NETWORK, Stopped, digits_of
from tests.training.test_checkpoint import figures
def stop(epoch):
    if epoch.epoch == int(sys.argv[2]):
        raise Stopped
data, path = digits_of(300), Path(sys.argv[1])
if sys.argv[2] != "0":
    print(json.dumps(figures(fit(NETWORK, data, EVERYTHING, seed=5))))
    try:
        fit(NETWORK, data, EVERYTHING, seed=5, checkpoint=path, on_epoch=stop)
    except Stopped:
        path.with_name("copy.npz").write_bytes(path.read_bytes())
seen = []
print(json.dumps(figures(fit(NETWORK, data, EVERYTHING, seed=5, checkpoint=path, on_epoch=seen.append))))
print(json.dumps([epoch.seconds for epoch in seen]))
"""


def fresh(path: Path, stop_after: int) -> list[Any]:
    words = snippet(FRESH, path, stop_after)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_resumed_training_equals_the_undisturbed_one_bit_for_bit(tmp_path: Path) -> None:
    """In the process that began it and in a new one."""
    whole, same_process, _ = fresh(tmp_path / "one.npz", 2)
    new_process, seconds = fresh(tmp_path / "copy.npz", 0)
    rows = whole[0]
    assert len(rows) == len(seconds) == 4
    assert len({row["learning_rate"] for row in rows[:3]}) > 1  # the plateau has cut by where it was stopped
    assert all(row["raw_val_loss"] != row["val_loss"] for row in rows)
    assert same_process == whole
    assert new_process == whole
    before = json.loads(read_arrays(tmp_path / "copy.npz")["about"].tobytes())["history"]
    assert [row["seconds"] for row in before][:2] == seconds[:2]


@pytest.mark.parametrize("optimizer", tiered(("adamw", "sgd"), quick=("adamw",)))
def test_every_optimizer_leaves_off_with_its_state(optimizer: str, digits: Dataset, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"epochs": 3, "batch_size": 64, "optimizer": optimizer, "weight_decay": 0.01})

    def run(**rest: Any) -> Training:
        return fit(NETWORK, digits, recipe, seed=1, **rest)

    begun(run, tmp_path / "one.npz", 1)
    assert figures(run(checkpoint=tmp_path / "one.npz")) == figures(run())


# --- with an engine that only pretends -------------------------------------------------------------------------------


LONG = EVERYTHING.model_copy(update={"epochs": 7})


@pytest.mark.parametrize("stops", [(1,), (2, 3), (6,), (1, 2, 3, 4, 5, 6), (3, 3, 3)])
def test_a_training_may_be_stopped_after_any_epochs(stops: tuple[int, ...], pretence: Pretence) -> None:
    def run(**rest: Any) -> Training:
        return pretence.run(LONG, **rest)

    whole = run()
    assert 1 < whole.best.epoch < 6  # it is known before the last stops, and is not the last epoch then
    for epochs in stops:
        begun(run, pretence.path, epochs)
    assert figures(run(checkpoint=pretence.path)) == figures(whole)


def test_restored_epochs_are_reported_again_and_not_trained_again(pretence: Pretence) -> None:
    first = begun(pretence.run, pretence.path, 3)
    seen: list[Epoch] = []
    steps: list[tuple[int, int]] = []
    training = pretence.run(checkpoint=pretence.path, on_epoch=seen.append, on_step=lambda *step: steps.append(step))
    assert seen == list(training.history)
    assert seen[:3] == first  # the seconds that they took, too
    assert min(steps)[0] > 30 == 3 * 10
    assert max(steps) == (40, 40)
    assert pretence.engines[-1].steps == 40
    assert training.checkpoint_seconds == 0  # nothing is written after the last epoch


def test_an_error_of_on_epoch_at_a_restored_epoch_ends_the_training(pretence: Pretence) -> None:
    begun(pretence.run, pretence.path, 3)
    assert [epoch.epoch for epoch in begun(pretence.run, pretence.path, 2)] == [1, 2]
    assert len(checkpoint_of(pretence.path)["history"]) == 3


def test_a_training_that_was_over_at_its_checkpoint_is_over_when_resumed(pretence: Pretence) -> None:
    """As a candidate that was pruned, and killed before that was written down: nothing is trained, nothing opened anew."""
    begun(pretence.run, pretence.path, 3)
    steps: list[int] = []
    training = pretence.run(
        checkpoint=pretence.path, on_epoch=lambda epoch: epoch.epoch == 3, on_step=lambda step, total: steps.append(step)
    )
    assert steps == []
    whole = pretence.run()
    assert [asdict(row) | {"seconds": 0} for row in training.history] == figures(whole)[0][:3]
    assert training.best == max(training.history, key=lambda epoch: epoch.val_accuracy)
    shorter = pretence.run(on_epoch=lambda epoch: epoch.epoch == 3)
    assert figures(training) == figures(shorter)


def test_a_training_that_is_over_after_its_checkpoint_resumes_until_then(pretence: Pretence) -> None:
    begun(pretence.run, pretence.path, 1)
    training = pretence.run(checkpoint=pretence.path, on_epoch=lambda epoch: epoch.epoch == 3)
    assert len(training.history) == 3
    assert figures(training) == figures(pretence.run(on_epoch=lambda epoch: epoch.epoch == 3))


def test_a_checkpoint_is_written_before_its_epoch_is_reported(pretence: Pretence) -> None:
    there: list[int] = []
    pretence.run(checkpoint=pretence.path, on_epoch=lambda epoch: there.append(len(checkpoint_of(pretence.path)["history"])))
    assert there == [1, 2, 3, 3]
    assert sorted(path.name for path in pretence.path.parent.iterdir()) == [".one.previous.npz", "one.npz"]
    checkpoints.remove(pretence.path)
    assert list(pretence.path.parent.iterdir()) == []


def test_without_a_path_nothing_is_written(pretence: Pretence) -> None:
    pretence.run()
    assert not pretence.path.parent.exists()


def checkpoint_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(read_arrays(path)["about"].tobytes()))


def about(value: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    """In the middle of an array, where only its checksum can tell."""
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        raw[archive.getinfo("state0000.npy").header_offset + 180] ^= 1
    path.write_bytes(raw)


def without(name: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        arrays = read_arrays(path)
        del arrays[name]
        write_arrays(path, arrays)

    return spoil


def saying(value: Any) -> Callable[[Path], None]:
    return lambda path: write_arrays(path, read_arrays(path) | {"about": about(value)})


def archive_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", b"no array")


def named_otherwise(path: Path) -> None:
    write_arrays(path, read_arrays(path) | {"about": about(checkpoint_of(path) | {"identity": "0" * 64})})


SPOILT: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": cut,
    "a bit flipped": flip_a_bit,
    "a text": lambda path: path.write_text("no archive"),
    "an archive of something else": archive_of_text,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "another training's": named_otherwise,
    "nothing said": without("about"),
    "not JSON": lambda path: write_arrays(path, {"about": np.frombuffer(b"{", np.uint8)}),
    "not UTF-8": lambda path: write_arrays(path, {"about": np.frombuffer(b"\xff\xfe\xff", np.uint8)}),
    "JSON of something else": saying([1, 2]),
    "no identity": saying({"history": []}),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("both", [False, True], ids=["the last", "both"])
def test_a_spoilt_checkpoint_is_passed_over_and_the_one_before_it_used(how: str, both: bool, pretence: Pretence) -> None:
    """Ten steps are an epoch: after the first where that is whole, else from the start."""
    begun(pretence.run, pretence.path, 2)
    previous = pretence.path.with_name(".one.previous.npz")
    assert [len(checkpoint_of(path)["history"]) for path in (pretence.path, previous)] == [2, 1]
    for path in (pretence.path, previous) if both else (pretence.path,):
        SPOILT[how](path)
    if how == "a folder":  # is read as none; that nothing can be written in its place is another matter
        assert checkpoints.read(pretence.path, "") is None
        return
    steps: list[int] = []
    training = pretence.run(checkpoint=pretence.path, on_step=lambda step, total: steps.append(step))
    assert steps[0] == (1 if both else 11)
    assert figures(training) == figures(pretence.run())


def test_the_previous_checkpoint_is_kept_on_systems_without_hard_links(
    pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT, and some network file systems."""

    def fail(*words: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    begun(pretence.run, pretence.path, 3)
    previous = pretence.path.with_name(".one.previous.npz")
    assert [len(checkpoint_of(path)["history"]) for path in (pretence.path, previous)] == [3, 2]


OTHER: dict[str, Callable[[Dataset], dict[str, Any]]] = {
    "network": lambda data: {
        "network": replace(NETWORK, layers=(*NETWORK.layers[:-2], Dense(10, use_bias=False), Softmax()))
    },
    "epochs": lambda data: {"recipe": LONG},
    "rate": lambda data: {"recipe": EVERYTHING.model_copy(update={"learning_rate": 0.06})},
    "augmentation": lambda data: {"recipe": EVERYTHING.model_copy(update={"augment": Augment(flip=True)})},
    "precision": lambda data: {"recipe": EVERYTHING.model_copy(update={"precision": "bfloat16"})},
    "seed": lambda data: {"seed": 6},
    "data": lambda data: {"data": replace(data, fingerprint="0" * 16)},
}


@pytest.mark.parametrize("other", OTHER)
def test_the_checkpoint_of_another_training_is_not_gone_on_with(other: str, pretence: Pretence, digits: Dataset) -> None:
    begun(pretence.run, pretence.path, 2)
    changed = OTHER[other](digits)
    steps: list[int] = []
    training = pretence.run(checkpoint=pretence.path, on_step=lambda step, total: steps.append(step), **changed)
    assert steps[0] == 1
    assert figures(training) == figures(pretence.run(**changed))


def test_the_same_training_has_one_identity_whatever_its_network_is_called(digits: Dataset) -> None:
    named = [checkpoints.identity(net, digits, EVERYTHING, 5, "float32") for net in (NETWORK, replace(NETWORK, name="b"))]
    assert named[0] == named[1]
    assert len(named[0]) == 64


def test_another_restart_of_the_schedule_is_another_training(digits: Dataset) -> None:
    recipes = [Recipe(epochs=4, schedule=Cosine(), restarts=restarts) for restarts in ((), (1,), (2,), (1, 2), (1, 3))]
    assert len({checkpoints.identity(NETWORK, digits, recipe, 5, "float32") for recipe in recipes}) == 5


def test_identity_holds_the_policy_and_what_computes(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" is bfloat16 on one machine and float32 on another."""

    def identity(policy: str = "float32") -> str:
        return checkpoints.identity(NETWORK, digits, EVERYTHING, 5, policy)

    known = [identity(), identity("mixed_bfloat16")]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_version", lambda backend: "0.0")
        known.append(identity())
    with monkeypatch.context() as patch:
        patch.setattr("keras.__version__", "0.0")
        known.append(identity())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "cores", lambda: 999)
        known.append(identity())
    assert len(set(known)) == 5
    assert identity() == known[0]
