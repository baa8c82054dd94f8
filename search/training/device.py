"""Backend and device of a process: set up before the first operation, and described in one line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search.errors import StudyStopped, UserError, reason
from search.system import cores, quiet, without_modules
from search.text import format_count

BACKENDS = ("tensorflow", "jax")  # those with an engine
ASSIGNED = "SEARCH_GPU"  # environment of a worker: the GPU that its supervisor assigned to it
DRIVER = Path("/proc/driver/nvidia/version")
CUDA_VERSIONS = (12, 13)  # for which JAX has a plugin
WSL_DEVICE = Path("/dev/dxg")  # of Windows' subsystem, which has no /proc/driver/nvidia
LARGE_TRAINING = 10**9  # pixels of a training from which a CPU takes hours; 50 epochs of CIFAR-10 are 2.3 times that


@dataclass(frozen=True, slots=True)
class Device:
    """The device that a training process computes on."""

    kind: Literal["cpu", "gpu"]
    description: str  # one line; on a CPU with the reason


# --- Keras and its backend -------------------------------------------------------------------------------------------


def backend() -> str:
    """The name of the library that Keras computes with.

    Raises:
        UserError: there is no engine on it.
    """
    if keras := sys.modules.get("keras"):
        name, source = str(keras.backend.backend()), "Keras"
    else:
        name, source = _configured_backend()
    if name not in BACKENDS:
        raise UserError(f"{source}: the backend {name!r} has no training engine; set KERAS_BACKEND=tensorflow, or jax")
    return name


def configure_keras() -> None:
    """Import Keras and give it the global settings that networks and trainings depend on, whatever keras.json says.

    Raises:
        UserError: its backend has no engine, is not installed, or Keras rejects keras.json.
    """
    name = backend()
    try:
        # Wrappers and converters that nothing here uses load these packages: half of the time of the import.
        with without_modules("sklearn", *(["jax"] if name == "tensorflow" else [])):
            import keras
    except (ImportError, ValueError) as error:
        raise UserError(
            f"Keras on {name} cannot be imported ({reason(error)}); check KERAS_BACKEND and {_keras_json()}"
        ) from error
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


def _configured_backend() -> tuple[str, str]:
    """(name, where it is set) of the backend that Keras will be imported with."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name, f"KERAS_BACKEND={name}"
    with suppress(OSError, ValueError, AttributeError):
        settings = json.loads(_keras_json().read_text(encoding="utf-8"))
        if name := settings.get("backend"):
            return str(name), str(_keras_json())
    return "tensorflow", "Keras' default"


def _keras_json() -> Path:
    """Keras' settings file, at the place where Keras looks for it."""
    if folder := os.environ.get("KERAS_HOME"):
        return Path(folder).expanduser() / "keras.json"
    home = Path.home()
    return (home if os.access(home, os.W_OK) else Path(tempfile.gettempdir())) / ".keras" / "keras.json"


def load_backend() -> None:
    """Import Keras and its backend on the CPU, without the output of their C++ libraries.

    For verbs that look at networks or export them: they leave the GPUs and their memory to trainings.
    """
    with quiet():
        configure_keras()
        if backend() == "jax":
            import jax

            jax.config.update("jax_platforms", "cpu")
        else:
            import tensorflow as tf

            with suppress(RuntimeError):  # this process has computed on a GPU already
                tf.config.set_visible_devices([], "GPU")
    start_backend()


def start_backend() -> None:
    """Run the first operation, during which C++ libraries write the last of their output, and drop that."""
    import keras

    with quiet():
        keras.ops.zeros(())


# --- devices of trainings --------------------------------------------------------------------------------------------


def prepare_device() -> Device:
    """Set up the backend for repeatable trainings that share the machine, and describe the device.

    Must come before the first operation. One inter-op thread makes batch norm's update order, and so the training,
    repeatable on a CPU; memory growth, and no preallocation under JAX, let several processes share a GPU. oneDNN's kernels
    divide their work as before when the calling thread takes a part instead of waiting for the pool, so that results are
    equal bit for bit, and small networks train up to 1.8 times as fast. Where TensorFlow has computed before, as in a
    notebook, its settings stay as they were.

    Raises:
        UserError: Keras cannot be used, see `configure_keras`.
        StudyStopped: a GPU was assigned to this process, and none was found; on the CPU a training would take days.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_ONEDNN_THREADPOOL_USE_CALLER_THREAD", "1")
    configure_keras()
    library, cards = _jax_devices() if backend() == "jax" else _tensorflow_devices()
    if cards:
        return Device("gpu", f"training on {cards[0]} with {library}")
    assigned = os.environ.get(ASSIGNED)
    if assigned:
        raise StudyStopped(
            f"GPU {assigned} was assigned to this worker, but {library} found none: {missing_gpu_cause()}; "
            'to train on the CPU, set CUDA_VISIBLE_DEVICES=""'
        )
    used = f"{format_count(cores(), 'core')}, {library}"
    return Device("cpu", f"training on the CPU ({used}), no GPU was found: {missing_gpu_cause()}")


def set_deterministic() -> None:
    """Let TensorFlow choose deterministic GPU kernels only, for the rest of the process; slower. JAX: see its engine."""
    if backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def is_accelerated() -> bool:
    """True if trainings run on something faster than the CPU."""
    if backend() == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def dtype_policy(precision: str) -> str:
    """Keras' dtype policy for a recipe's precision; "auto" is bfloat16 on a GPU that computes in it.

    NVIDIA's do since compute capability 8.0.
    """
    if precision == "auto":
        precision = "bfloat16" if is_accelerated() and _compute_capability() >= 8 else "float32"
    return {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]


def has_gpu_build() -> bool:
    """True if the installed backend can use an NVIDIA GPU, as far as its packages tell; nothing is imported."""
    if backend() == "jax":
        return any(_is_installed(f"jax-cuda{version}-plugin") for version in CUDA_VERSIONS)
    return _is_installed("tensorflow") or not _is_installed("tensorflow-cpu")


def _is_installed(package: str) -> bool:
    """True if a distribution of this name is installed; the descriptions of all others stay unread."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def missing_gpu_cause() -> str:
    """The reason why no GPU is used, with its remedy where there is one."""
    has_driver = DRIVER.exists() or WSL_DEVICE.exists() or shutil.which("nvidia-smi") is not None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not has_driver:
        return "the system has no NVIDIA driver"
    if not has_gpu_build():
        return f"this environment's {backend()} is built for the CPU; make GPU=1 venv sets up one for GPUs"
    if hidden is not None and not hidden[:1].isalnum():
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs"
    return "the driver is there, but CUDA found no usable GPU; see nvidia-smi and the lines above this one in the log"


def _tensorflow_devices() -> tuple[str, list[str]]:
    """(library with its version, names of the GPUs)."""
    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    with suppress(RuntimeError):  # TensorFlow has computed in this process already, as in a notebook: its settings are final
        tf.config.threading.set_inter_op_parallelism_threads(1)
        for card in cards:
            tf.config.experimental.set_memory_growth(card, True)
    names = [str(tf.config.experimental.get_device_details(card).get("device_name", "GPU")) for card in cards]
    return f"TensorFlow {tf.__version__}", names


def _jax_devices() -> tuple[str, list[str]]:
    import jax

    return f"JAX {jax.__version__}", [str(card.device_kind) for card in jax.devices() if card.platform != "cpu"]


def _compute_capability() -> float:
    if backend() == "jax":
        import jax

        return float(getattr(jax.devices()[0], "compute_capability", 0) or 0)
    import tensorflow as tf

    card = tf.config.get_visible_devices("GPU")[0]
    return float(tf.config.experimental.get_device_details(card).get("compute_capability", (0, 0))[0])


def cpu_note(images: int, input_shape: tuple[int, int, int], epochs: int) -> str | None:
    """A remark on the time of a large training on a CPU; None if the training is small.

    Args:
        images: number of training images.
        input_shape: (height, width, channels).
    """
    height, width, _ = input_shape
    if images * height * width * epochs < LARGE_TRAINING:
        return None
    return (
        f"{epochs} epochs of {images:,} images of {height}x{width} take hours a trial on a CPU, not minutes; "
        "--images and --epochs make a study smaller"
    )


# --- requirements of converters --------------------------------------------------------------------------------------


def no_tensorflow() -> str | None:
    """The reason why a converter that reads TensorFlow's graphs cannot be used in this process; None if it can."""
    name = backend()
    return None if name == "tensorflow" else f"needs Keras on TensorFlow, not {name}; set KERAS_BACKEND=tensorflow"


def not_installed(*modules: str) -> str | None:
    """The modules that are not installed, with the command that installs them; None if all are."""
    absent = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    return f"{', '.join(absent)} not installed; install with: pip install {' '.join(absent)}" if absent else None
