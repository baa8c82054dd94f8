"""Bad study files, options and data, each with the words by which it is rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.support.study_files import STUDY

ROOT = Path(__file__).parents[2]
SHRINKS_TOO_FAR = """{"input": [8, 8, 1], "classes": 10, "layers": [
  {"kind": "max_pool", "size": 9}, {"kind": "flatten"}, {"kind": "dense", "units": 10}, {"kind": "softmax"}]}"""


class Home(NamedTuple):
    """A folder with a study that has run: trial 0 trained, trial 1 rejected, its base and another reference trained."""

    folder: Path
    study: Path
    run: Path

    @property
    def words(self) -> list[str]:
        return [str(self.study), "--out", str(self.run)]


def _edit(old: str, new: str) -> Callable[[], bytes]:
    assert old in STUDY
    return lambda: STUDY.replace(old, new).encode()


def _extra(table: str, line: str) -> Callable[[], bytes]:
    return _edit(f"[{table}]\n", f"[{table}]\n{line}\n")


BAD_STUDIES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    # what is no study file at all
    "broken TOML": (_edit('base = "base.json"', "base = "), ("no valid TOML", "line 3")),
    "binary": (lambda: bytes(range(256)), ("no valid TOML",)),
    "number of 5,000 digits": (_edit("2_000", "9" * 5000), ("no valid TOML",)),
    "empty": (lambda: b"", ("base", "required")),
    # unknown keys, at each level, with the nearest
    "unknown key of the file": (_edit("protocol", "protocl"), ("protocl: unknown key", "did you mean 'protocol'?")),
    "unknown key of space": (_edit("width", "widht"), ("space.widht: unknown key", "did you mean 'width'?")),
    "unknown key of augment": (_extra("recipe", "augment = { flipp = true }"), ("flipp: unknown key", "mean 'flip'?")),
    "unknown key of a schedule": (
        _extra("recipe", 'schedule = { kind = "one-cycle", warmupp = 0.2 }'),
        ("warmupp: unknown key", "did you mean 'warmup'?"),
    ),
    "unknown key of a range": (_edit("high = 3", "hihg = 3"), ("space.blocks", "'hihg'", "high")),
    # wrong types
    "text for a whole number": (_edit("epochs = 2", 'epochs = "two"'), ("recipe.epochs", "'two'")),
    "value for a table": (_edit("[data]\nname =", "data ="), ("data",)),
    # budget
    "budget of 0": (_edit("2_000", "0"), ("budget.params", "not 0")),
    "negative budget": (_edit("2_000", "-5"), ("budget.params", "-5")),
    "impossible budget": (_edit("2_000", "50"), ("budget.params: 50 is out of reach", "the smallest network", "at least")),
    # protocol and base
    "protocol typo": (_edit('"holdout"', '"holdot"'), ("protocol", "'course' or 'holdout'", "'holdot'")),
    "base missing": (_edit('base = "base.json"', ""), ("base", "required")),
    "base typo": (_edit("base.json", "eip_b"), ("'eip_b'", "did you mean 'eip-b'?")),
    "base file missing": (_edit("base.json", "none.json"), ("none.json", "No such file")),
    "base file that cannot exist": (_edit("base.json", "shrinks.json"), ("shrinks", "9x9", "8x8")),
    "base accuracy of 1.5": (_edit('"base.json"', "1.5"), ("base", "between 0 and 1", "1.5")),
    "base for other images": (_edit("base.json", "base"), ("base", "32x32x3", "8x8x1")),
    # space
    "more pools than blocks": (_edit("pools = 1", "pools = 2"), ("pools: 2 pools need as many blocks", "goes down to 1")),
    "dropout without an order": (_extra("space", "dropout = 0.1"), ("dropout: has no effect", "conv-dropout-bn-act")),
    "steps that miss the top": (_edit("high = 48, step = 8", "high = 50, step = 8"), ("space.width", "do not reach 50")),
    "empty list": (_edit("pools = 1", "kernel = []"), ("space.kernel", "empty list")),
    "nothing fits the images": (_extra("space", 'kernel = 9\npadding = "valid"'), ("8x8x1", "padding same")),
    # recipe
    "learning rate of 0": (_extra("recipe", "learning_rate = 0.0"), ("recipe.learning_rate", "above 0")),
    "unknown optimizer": (_extra("recipe", 'optimizer = "adan"'), ("recipe.optimizer", "adam", "'adan'")),
    "unknown schedule": (_extra("recipe", 'schedule = { kind = "cosin" }'), ("recipe.schedule", "'cosine'")),
    # data and search
    "no data": (_edit('[data]\nname = "digits"', ""), ("data", "required")),
    "data typo": (_edit('"digits"', '"digit"'), ("data.name", "'digits'", "'digit'")),
    "sampler typo": (_extra("search", 'sampler = "tpe2"'), ("search.sampler", "'tpe'", "'tpe2'")),
    # networks known before
    "warm start typo": (_extra("search", 'warm_start = ["eip_c"]'), ("'eip_c'", "did you mean 'eip-c'?")),
    "warm start missing": (_extra("search", 'warm_start = ["none.json"]'), ("none.json", "No such file")),
    "warm start over the budget": (
        _extra("search", 'warm_start = ["large.json", "base.json"]'),
        ("search.warm_start: large: ", " parameters, the budget is under 2,000", "raise the budget"),
    ),
    "warm start of another space": (
        _extra("search", 'warm_start = ["base.json"]'),
        ("search.warm_start: base is no network of this space (", "widen the space, or leave it out of search.warm_start"),
    ),
    # rungs and limits
    "rungs where the rate stays": (
        _extra("search", "rungs = { first = 1 }"),
        ("search.rungs: the constant schedule does not decay to zero", "take cosine, linear or one-cycle"),
    ),
    "unknown key of rungs": (_extra("search", "rungs = { fist = 1 }"), ("search.rungs.fist", "did you mean 'first'?")),
    "unknown key of stop": (_edit("[search]", "[stop]\nhour = 3\n[search]"), ("stop.hour", "did you mean 'hours'?")),
}


BAD_WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    # {study}, {out}: the study that has run; {new}: an empty folder; {folder}: the folder with bad files
    "no such verb": ("rnu {study}", ("rnu",)),
    "no study": ("run", ("Missing argument 'study'",)),
    "path traversal": ("run ../../x", ("'../../x'", "no study of this name")),
    "study typo": ("run quickstrat", ("did you mean 'quickstart'?",)),
    "study file missing": ("run {folder}/none.toml", ("no such study file",)),
    "top before run": ("top {study} --out {new}", ("nothing has run", "python -m search run {study} --out {new}")),
    "reference typo": ("show eip_b", ("'eip_b'", "eip-b")),
    "no such network file": ("show {folder}/none.json", ("none.json", "No such file")),
    "network file no JSON": ("show {folder}/text.json", ("text.json",)),
    "network file nested deep": ("show {folder}/deep.json", ("deep.json",)),
    "network that cannot exist": ("show {folder}/shrinks.json", ("shrinks.json", "9")),
    "network number": ("show eip-b 3", ("eip-b 3", "a trial number goes with a study")),
    "no such trial": ("show {study} 99 --out {out}", ("99", "no trial of this number", "there are 2")),
    "number is text": ("show {study} best --out {out}", ("number", "must be a whole number")),
    "export of the rejected": ("export {study} 1 --out {out}", ("1", "was not trained", "rejected")),
    "export of no reference": ("export {study} --reference eip-x --out {out}", ("eip-x",)),
    "export form unknown": ("export eip-b --form onxx --to {new}", ("--form onxx: no such format", "did you mean 'onnx'?")),
    "export of weights of none": (
        "export eip-b --form keras --to {new}",
        ("has not been trained", "--form py, add or json"),
    ),
    "export of integers of none": ("export eip-b --form int8 --to {new}", ("not been trained", "--form py, add or json")),
    "export of two trials": ("export {study} 0 --trial 1 --out {out}", ("--trial 1", "the same thing")),
    "export of a trial and a reference": ("export {study} 0 --reference base --out {out}", ("--reference base", "trial 0")),
    "front of no price": ("top {study} --pareto flash --out {out}", ("--pareto flash", "did you mean 'flash_bytes'?")),
    "front to export of no price": ("export {study} --pareto x --out {out} --to {new}", ("--pareto x", "macs", "params")),
    "front in no form": (
        "export {study} --pareto macs --form onxx --out {out} --to {new}",
        ("--form onxx: no such format, did you mean 'onnx'?",),
    ),
    "front and a trial": ("export {study} 0 --pareto macs --out {out}", ("--pareto", "no trial")),
    "front of a network": ("export eip-b --pareto macs --to {new}", ("--pareto", "pass a study")),
    "export with images of none": ("export eip-b --data {folder}/large.npz --to {new}", ("--data", "not trained")),
    "export over its own file": ("export {folder}/whole.json --to {folder}", ("whole.json", "would replace it", "--to")),
    "export under a file": ("export eip-b --to {folder}/text.json/x", ("text.json",)),
    # overrides
    "trials 0": ("run {study} --out {out} --trials 0", ("--trials", "not 0")),
    "trials negative": ("run {study} --out {out} --trials -1", ("--trials", "-1")),
    "trials text": ("run {study} --out {out} --trials two", ("--trials", "must be a whole number")),
    "trials too large": ("run {study} --out {out} --trials 1000001", ("--trials", "1000001")),
    "epochs 0": ("run {study} --out {out} --epochs 0", ("--epochs", "not 0")),
    "epochs fraction": ("run {study} --out {out} --epochs 1.5", ("--epochs", "must be a whole number")),
    "batch size 0": ("run {study} --out {out} --batch-size 0", ("--batch-size", "not 0")),
    "seed negative": ("run {study} --out {out} --seed -1", ("--seed", "-1")),
    "seed of 30 digits": (f"run {{study}} --out {{out}} --seed {10**30}", ("--seed",)),
    "images 0": ("run {study} --out {out} --images 0", ("--images", "not 0")),
    "images more than there are": ("run {study} --out {new} --images 5000", ("images is 5000", "to 1079")),
    "images too few for the classes": ("run {study} --out {new} --images 5", ("images is 5", "each class")),
    # data
    "data missing": ("run {study} --out {out} --data {folder}/none.npz", ("none.npz", "no such file")),
    "data corrupt": ("run {study} --out {out} --data {folder}/corrupt.npz", ("corrupt.npz", "damaged")),
    "data of floats": ("run {study} --out {out} --data {folder}/floats.npz", ("floats.npz: x_train", "uint8")),
    "data without labels": ("run {study} --out {out} --data {folder}/halves.npz", ("halves.npz", "y_train")),
    "data of another shape": ("run {study} --out {out} --data {folder}/large.npz", ("large.npz", "8x8x1", "9x9x1")),
    "data of another kind": ("run {study} --out {out} --data {folder}/text.json", ("text.json", "not read")),
    # references
    "reference to train unknown": ("run {study} --out {out} --reference eip-bb", ("'eip-bb'", "did you mean 'eip-b'?")),
    "reference for other images": ("run {study} --out {out} --reference eip-b", ("eip-b", "32x32x3", "8x8x1")),
    # storage and folder
    "storage nonsense": ("run {study} --out {new} --storage nonsense", ("--storage nonsense",)),
    "storage in memory": ("run {study} --out {new} --storage sqlite://", ("--storage", "memory")),
    "storage that cannot be made": ("top {study} --out {out} --storage sqlite:////proc/none/x.db", ("/proc/none",)),
    "storage that is no database": ("top {study} --out {out} --storage sqlite:///{folder}/text.json", ("text.json",)),
    "storage without the study": ("top {study} --out {out} --storage sqlite:///{folder}/e.db", ("there is no such file",)),
    "storage elsewhere on resume": ("run {study} --out {out} --storage sqlite:///{folder}/f.db", ("{out}", "storage")),
    "out is a file": ("run {study} --out {folder}/text.json", ("--out", "text.json")),
    "out under a file": ("run {study} --out {folder}/text.json/run", ("text.json",)),
    "out unwritable": ("run {study} --out /proc/none/run", ("/proc/none",)),
    # another study under the run's name
    "resume with other epochs": ("run {study} --out {out} --epochs 3", ("recipe.epochs is 2 here, not 3", "--out")),
    "resume with fewer images": ("run {study} --out {out} --images 500", ("data.images is null here, not 500",)),
    "resume with another seed": ("run {study} --out {out} --seed 5", ("search.seed is 0 here, not 5",)),
    "resume with another batch": ("run {study} --out {out} --batch-size 32", ("recipe.batch_size is 64 here, not 32",)),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "folder.toml").mkdir()
    (folder / "text.json").write_text("not JSON", encoding="utf-8")
    (folder / "binary.json").write_bytes(bytes(range(256)))
    (folder / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    (folder / "shrinks.json").write_text(SHRINKS_TOO_FAR, encoding="utf-8")
    network = json.loads((ROOT / "studies" / "references" / "eip-b.json").read_text(encoding="utf-8"))
    (folder / "whole.json").write_text(json.dumps(network | {"name": "whole"}), encoding="utf-8")
    (folder / "corrupt.npz").write_bytes(b"PK\x03\x04" + bytes(200))
    images, labels = np.random.default_rng(0).integers(0, 256, (1100, 8, 8), np.uint8), np.arange(1100) % 10
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(folder / "floats.npz", **arrays | {"x_train": images / 255})
    np.savez(folder / "halves.npz", **{name: array for name, array in arrays.items() if name != "y_train"})
    np.savez(
        folder / "large.npz", **arrays | {name: np.pad(images, ((0, 0), (0, 1), (0, 1))) for name in ("x_train", "x_test")}
    )
    np.savez(folder / "noise.npz", **arrays)
    return folder


def _fill(template: str, home: Home, new: Path, folder: Path) -> str:
    return template.format(study=home.study, out=home.run, new=new, folder=folder)
