"""The description of a Keras model in a file, as plain values, read without trusting the file.

A `.keras` is a zip: its `config.json` is read with limits, weights are left alone, nothing is unpacked, imported or called.
So no TensorFlow is loaded, and code that a file brings (Lambda layers, registered classes) stays text.
"""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path
from typing import Any

from search.errors import UserError, reason

ACCEPTED = "a .keras file, or the JSON of model.to_json()"
LARGEST = 64 * 2**20  # bytes of a description; a model of 1,000 layers has about 2 MB
LARGEST_RATIO = 200  # that a description unpacks to, beyond UNSUSPICIOUS bytes; real ones have about 20
UNSUSPICIOUS = 2**20
MOST_MEMBERS = 10_000

_SAVE = "in Keras: keras.models.load_model({name!r}).save({stem!r})"
_REMEDIES = {
    "HDF5": "it is read by running Keras, so convert it " + _SAVE,
    "pickle": "it is never loaded, as loading runs what is in it; save the model as .keras",
    "PyTorch": "build the network in Keras, or write the architecture file by hand (see docs/keras-import.md)",
    "ONNX or TensorFlow Lite": "it holds operations and no layers; pass the Keras model it was made from",
    "Python source": "it is never run; build the model there and save it as .keras",
}
_SUFFIXES = {
    **dict.fromkeys((".h5", ".hdf5", ".he5"), "HDF5"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".dill"), "pickle"),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".safetensors"), "PyTorch"),
    **dict.fromkeys((".onnx", ".tflite"), "ONNX or TensorFlow Lite"),
    ".py": "Python source",
}


def read_description(path: Path) -> dict[str, Any]:
    """The model's description: `class_name`, `config` and what else Keras writes.

    Raises:
        UserError: there is no such file, it is of another kind, damaged, or too large to be a description.
    """
    try:
        return _described(path, _content(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; pass {ACCEPTED}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or reason(error)}); pass {ACCEPTED}") from None


def _content(path: Path) -> bytes:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: a folder (a SavedModel?), and {_save(path)}")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise UserError(f"{path}: not a file; pass {ACCEPTED}")
    with path.open("rb") as file:
        start = file.read(8)
    kind = _SUFFIXES.get(path.suffix.lower())
    if start.startswith(b"PK"):
        return _member(path)
    if start.startswith(b"\x89HDF"):
        kind = "HDF5"
    elif start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        kind = "pickle"
    if kind:
        stem = f"{path.stem}.keras"
        raise UserError(f"{path}: {kind} is not imported; {_REMEDIES[kind].format(name=path.name, stem=stem)}")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes, a description has at most {LARGEST:,}; pass {ACCEPTED}")
    return path.read_bytes()


def _member(path: Path) -> bytes:
    """config.json of the zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            found = [info for info in members if info.filename == "config.json"]
            if any(info.filename.endswith("data.pkl") for info in members):
                raise UserError(f"{path}: PyTorch is not imported; {_REMEDIES['PyTorch']}")
            if len(found) != 1 or len(members) > MOST_MEMBERS:
                raise UserError(f"{path}: a zip with {len(found)} config.json in {len(members):,} members; pass {ACCEPTED}")
            _check(path, found[0])
            with archive.open(found[0]) as file:
                return file.read(LARGEST + 1)
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:  # the zip module raises almost anything on hostile bytes
        raise UserError(f"{path}: damaged, no .keras file ({reason(error)}); pass a fresh copy") from None


def _check(path: Path, info: zipfile.ZipInfo) -> None:
    size, packed = info.file_size, info.compress_size
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise UserError(f"{path}: config.json is encrypted or packed with method {info.compress_type}; save it with Keras")
    if size > LARGEST:
        raise UserError(f"{path}: config.json unpacks to {size:,} bytes, at most {LARGEST:,} are read; pass {ACCEPTED}")
    if size > UNSUSPICIOUS and size > LARGEST_RATIO * packed:
        raise UserError(f"{path}: {packed:,} bytes unpack to {size:,}, more than {LARGEST_RATIO} : 1 looks like a bomb")


def _described(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        found = json.loads(found) if isinstance(found, str) else found  # json.dump(model.to_json())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({reason(error)}); pass {ACCEPTED}") from None
    if isinstance(found, dict) and {"input", "classes", "layers"} <= found.keys():
        raise UserError(f"{path}: is an architecture file already; show it with: python -m search show {path}")
    if isinstance(found, dict) and isinstance(found.get("architecture"), dict):
        raise UserError(f"{path}: is the card of an export, which is used like an architecture file as it is")
    if not isinstance(found, dict) or not isinstance(found.get("class_name"), str) or "config" not in found:
        raise UserError(f"{path}: describes no Keras model (no class_name and config); pass {ACCEPTED}")
    return found


def _save(path: Path) -> str:
    return _SAVE.format(name=path.name, stem=f"{path.stem}.keras")
