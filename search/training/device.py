"""The device that training runs on: set up before the first operation, and named for people."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Literal

from search.system import cores, quiet

LARGE_TRAINING = (
    10**9
)  # pixels seen in a training, from which on a CPU takes hours; 50 epochs of CIFAR-10 are 2.3 times that


@dataclass(frozen=True, slots=True)
class Device:
    """What a training process computes on."""

    kind: Literal["cpu", "gpu"]
    description: str  # one line for people; on a CPU it says what that means for the time


def load_backend() -> None:
    """Import Keras and its backend, without what their C++ libraries print as they start."""
    with quiet():
        import keras

        keras.ops.zeros(())  # the first operation, with which the last of them speak


def prepare_device() -> Device:
    """Set the backend up for repeatable trainings that leave the rest of the machine alone, and describe the device.

    Must come before the first operation. One inter-op thread makes batch norm's update order, and so the training,
    repeatable on a CPU; memory growth, and no preallocation under JAX, let several processes share a GPU.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import keras

    if keras.backend.backend() == "jax":
        return _describe_jax()
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    cards = tf.config.list_physical_devices("GPU")
    for card in cards:
        tf.config.experimental.set_memory_growth(card, True)
    if cards:
        names = [tf.config.experimental.get_device_details(card).get("device_name", "GPU") for card in cards]
        return Device("gpu", f"training on {names[0]} with TensorFlow {tf.__version__}")
    return _cpu(f"TensorFlow {tf.__version__}")


def backend() -> str:
    """The name of the library that Keras computes with."""
    import keras

    return str(keras.backend.backend())


def is_accelerated() -> bool:
    """Whether trainings run on something faster than the CPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def dtype_policy(precision: str) -> str:
    """Keras' policy for a recipe's precision; "auto" computes in bfloat16 on a GPU that does so in hardware.

    NVIDIA's have done since compute capability 8.0.
    """
    if precision == "auto":
        precision = "bfloat16" if is_accelerated() and _capability() >= 8 else "float32"
    return {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]


def _capability() -> float:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return float(getattr(jax.devices()[0], "compute_capability", 0) or 0)
    import tensorflow as tf

    card = tf.config.list_physical_devices("GPU")[0]
    return float(tf.config.experimental.get_device_details(card).get("compute_capability", (0, 0))[0])


def _describe_jax() -> Device:
    import jax

    first = jax.devices()[0]
    if first.platform == "cpu":
        return _cpu(f"JAX {jax.__version__}")
    return Device("gpu", f"training on {first.device_kind} with JAX {jax.__version__}")


def _cpu(backend: str) -> Device:
    return Device("cpu", f"training on the CPU ({cores()} cores, {backend}), no GPU was found")


def cpu_note(images: int, input_shape: tuple[int, int, int], epochs: int) -> str | None:
    """A remark on the time of a large training on a CPU; None where the training is small.

    Args:
        images: that are trained on.
        input_shape: (height, width, channels).
    """
    height, width, _ = input_shape
    if images * height * width * epochs < LARGE_TRAINING:
        return None
    return (
        f"{epochs} epochs of {images:,} images of {height}x{width} take hours a trial on a CPU, not minutes; "
        "--images and --epochs make a study smaller"
    )


def no_tensorflow() -> str | None:
    """Why a converter that reads TensorFlow's graphs cannot be used in this process."""
    found = backend()
    return None if found == "tensorflow" else f"needs Keras on TensorFlow, not {found}; set KERAS_BACKEND=tensorflow"


def not_installed(*modules: str) -> str | None:
    """Which of the modules are not installed, and how they are."""
    absent = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    return f"{', '.join(absent)} not installed; install with: pip install {' '.join(absent)}" if absent else None
