"""Description of a Keras model, read from a file that is not trusted.

A `.keras` file is a zip: its `config.json` is read with limits, its weights are not read, nothing is unpacked, imported or
called. No TensorFlow is loaded, and code in a file (Lambda layers, registered classes) stays text.
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
LARGEST_RATIO = 200  # unpacked to packed size, for more than UNSUSPICIOUS bytes; real descriptions have about 20
UNSUSPICIOUS = 2**20
MOST_MEMBERS = 10_000
LARGEST_HDF5 = 2**30  # bytes that are searched for a model

_SAVE = "in Keras: keras.models.load_model({name!r}).save({stem!r})"
_REMEDIES = {
    "HDF5": "it is read by running Keras, so convert it " + _SAVE,
    "HDF5 of weights alone": "it holds no layers; pass the .keras file of the whole model, or the JSON of model.to_json()",
    "pickle": "it is never loaded, as loading runs the code in it; save the model as .keras",
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
    """Read the description of a model: `class_name`, `config` and Keras' other keys.

    Raises:
        UserError: the file does not exist, is of another kind, is damaged, or is too large for a description.
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
        kind = "HDF5" if _has_model(path) else "HDF5 of weights alone"
    elif start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        kind = "pickle"
    if kind:
        stem = f"{path.stem}.keras"
        raise UserError(f"{path}: {kind} is not imported; {_REMEDIES[kind].format(name=path.name, stem=stem)}")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes, a description has at most {LARGEST:,}; pass {ACCEPTED}")
    return path.read_bytes()


def _has_model(path: Path) -> bool:
    """True if an HDF5 file has the attribute in which Keras stores the layers: `save_weights` writes none."""
    return path.stat().st_size <= LARGEST_HDF5 and b"model_config" in path.read_bytes()


def _member(path: Path) -> bytes:
    """Read config.json of a zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            configs = [info for info in members if info.filename == "config.json"]
            if any(info.filename.endswith("data.pkl") for info in members):
                raise UserError(f"{path}: PyTorch is not imported; {_REMEDIES['PyTorch']}")
            if len(configs) != 1 or len(members) > MOST_MEMBERS:
                raise UserError(
                    f"{path}: a zip with {len(configs)} config.json in {len(members):,} members; pass {ACCEPTED}"
                )
            _check(path, configs[0])
            with archive.open(configs[0]) as file:
                return file.read(LARGEST + 1)
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:  # the zip module raises almost anything on hostile bytes
        raise UserError(f"{path}: damaged, no .keras file ({reason(error)}); pass a fresh copy") from None


def _check(path: Path, info: zipfile.ZipInfo) -> None:
    """Refuse a member that is encrypted, of an unusual compression, or too large."""
    size, packed = info.file_size, info.compress_size
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise UserError(f"{path}: config.json is encrypted or packed with method {info.compress_type}; save it with Keras")
    if size > LARGEST:
        raise UserError(f"{path}: config.json unpacks to {size:,} bytes, at most {LARGEST:,} are read; pass {ACCEPTED}")
    if size > UNSUSPICIOUS and size > LARGEST_RATIO * packed:
        raise UserError(f"{path}: {packed:,} bytes unpack to {size:,}, more than {LARGEST_RATIO} : 1 looks like a bomb")


def _described(path: Path, content: bytes) -> dict[str, Any]:
    """Parse a description, and refuse JSON of other kinds."""
    try:
        description = json.loads(content)
        if isinstance(description, str):  # written by json.dump(model.to_json(), file)
            description = json.loads(description)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({reason(error)}); pass {ACCEPTED}") from None
    if isinstance(description, dict) and {"input", "classes", "layers"} <= description.keys():
        raise UserError(f"{path}: is an architecture file already; show it with: python -m search show {path}")
    if isinstance(description, dict) and isinstance(description.get("architecture"), dict):
        raise UserError(f"{path}: is the card of an export, which can be used as an architecture file as it is")
    is_model = isinstance(description, dict) and isinstance(description.get("class_name"), str)
    if not is_model or "config" not in description:
        raise UserError(f"{path}: describes no Keras model (no class_name and config); pass {ACCEPTED}")
    return dict(description)


def _save(path: Path) -> str:
    return _SAVE.format(name=path.name, stem=f"{path.stem}.keras")
