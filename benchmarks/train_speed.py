"""Training speed against Keras' `fit`, PyTorch, and the floor set by the arithmetic.

Contenders train the same network on the same CIFAR-10 images, each in a process of its own, round by round in turn:
`ours` and Keras' `fit` on arrays, without augmentation and with (flip and crop; Keras' own layers in `fit`). `fit` runs with
Keras' and TensorFlow's own settings but for `jit_compile=False`, which on a CPU is much the faster. With `--torch` PyTorch
takes part, eager and channels last, without augmentation, in an environment of its own (`train_speed_torch.py`). Compile
time and a first warm epoch stand apart; figures are medians over rounds. The floor is the step's arithmetic at the speed of
a large matmul plus its traffic at that of a large copy, both measured in the same run. `residual` is the gated residual net
of `gpu_speed.py`. Networks that are measured again replace their entries in FILE, the others stay.

    python benchmarks/train_speed.py --data CIFAR.npz [--nets eip-b,base] [--images 1280] [--rounds 5] [--json FILE]
        [--torch .venv-torch/bin/python]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.gpu_speed import network as network_of  # noqa: E402 - needs the path

NETS = "eip-b,eip-c-late,eip-d,base,residual"
CONTENDERS = ("ours", "fit", "ours augmented", "fit augmented")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", help="CIFAR-10 as .npz; without it Keras downloads it")
    options.add_argument("--nets", default=NETS)
    options.add_argument("--images", type=int, default=1280)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    options.add_argument("--contenders", default=",".join(CONTENDERS))
    options.add_argument("--torch", type=Path, help="the Python of an environment that has PyTorch")
    options.add_argument("--json", type=Path)
    options.add_argument("--contender", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.contender:
        contend(asked)
        return
    facts = {"machine": machine(), "images": asked.images, "rounds": asked.rounds, "precision": asked.precision}
    for net in asked.nets.split(","):
        result = facts | compare(net, asked, facts["machine"])
        if asked.json:
            results = json.loads(asked.json.read_text()) if asked.json.exists() else {}
            asked.json.write_text(json.dumps(results | {net: result}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    import keras
    import numpy as np
    import tensorflow as tf

    rates = {}
    a = np.random.default_rng(0).random((2048, 2048), np.float32)
    big, there = np.ones(2**26, np.float32), np.empty(2**26, np.float32)
    x, times, copies = tf.constant(a), [], []
    for _ in range(5):
        start = time.process_time()
        tf.matmul(x, x).numpy()
        times.append(time.process_time() - start)
        start = time.process_time()
        np.copyto(there, big)
        copies.append(time.process_time() - start)
    rates["matmul_gflop_per_cpu_second"] = 2 * 2048**3 / statistics.median(times) / 1e9
    rates["copy_gbyte_per_cpu_second"] = 2 * big.nbytes / statistics.median(copies) / 1e9
    versions = {"python": platform.python_version(), "keras": keras.__version__, "tensorflow": tf.__version__}
    facts = {"processor": processor(), "cores": len(os.sched_getaffinity(0))} | versions | rates
    print(json.dumps(facts), flush=True)
    return facts


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def compare(net: str, asked: argparse.Namespace, rates: dict[str, Any]) -> dict[str, Any]:
    words = [sys.executable, __file__, "--nets", net, "--images", str(asked.images), "--precision", asked.precision]
    words += ["--data", asked.data] if asked.data else []
    commands = {contender: [*words, "--contender", contender] for contender in asked.contenders.split(",")}
    folder = tempfile.TemporaryDirectory()
    if asked.torch:
        commands["torch"] = torch_command(net, asked, Path(folder.name))
    running = {}
    for contender, command in commands.items():  # one after the other: they would disturb each other's compile time
        process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True)
        assert process.stdin and process.stdout
        running[contender] = process, [json.loads(process.stdout.readline())]
    for _ in range(asked.rounds):
        for process, answers in running.values():
            process.stdin.write("go\n")
            process.stdin.flush()
            answers.append(json.loads(process.stdout.readline()))
    result: dict[str, Any] = {"floor": floor(net, rates)}
    for contender, (process, answers) in running.items():
        process.stdin.close()
        process.wait()
        wall, cpu = (statistics.median(answer[key] for answer in answers[1:]) for key in ("wall", "cpu"))
        result[contender] = {
            "images_per_second": asked.images / wall,
            "cpu_ms_per_image": 1000 * cpu / asked.images,
            "first": answers[0],
            "rounds": answers[1:],
        }
    folder.cleanup()
    pairs = [("", "ours", "fit"), (" augmented", "ours augmented", "fit augmented"), (" torch", "ours", "torch")]
    for name, mine, other in pairs:
        if other in result:
            ours, theirs = result[mine], result[other]
            result[f"ratio{name}"] = {
                "wall": ours["images_per_second"] / theirs["images_per_second"],
                "cpu": theirs["cpu_ms_per_image"] / ours["cpu_ms_per_image"],
            }
    show(net, result)
    return result


def torch_command(net: str, asked: argparse.Namespace, folder: Path) -> list[str]:
    """Write the network and the images for PyTorch's process, and return its command."""
    import numpy as np

    from search.networks.architecture import to_json

    data = data_of(asked)
    (folder / "network.json").write_text(to_json(network_of(net)))
    np.savez(folder / "images.npz", x=data.x_train, y=data.y_train)
    script = Path(__file__).with_name("train_speed_torch.py")
    return [str(asked.torch), str(script), str(folder / "network.json"), str(folder / "images.npz")]


def show(net: str, result: dict[str, Any]) -> None:
    print(net)
    for contender in (*CONTENDERS, "torch"):
        if contender not in result:
            continue
        one = result[contender]
        speed = f"{one['images_per_second']:7.0f} images/s  {one['cpu_ms_per_image']:6.2f} CPU-ms/image"
        print(f"  {contender:15} {speed}  compiling and first epoch {one['first']['wall']:.1f} s")
    for name in ("ratio", "ratio augmented", "ratio torch"):
        if ratio := result.get(name):
            against = name.replace("ratio", "fit").removeprefix("fit torch") or "torch"
            print(
                f"  ours against {against}: {ratio['wall']:.2f} times the images a second, {ratio['cpu']:.2f} times less CPU"
            )
    floor, ours = result["floor"], result["ours"]["cpu_ms_per_image"]
    print(
        f"  floor {floor['arithmetic_cpu_ms'] + floor['traffic_cpu_ms']:.2f} CPU-ms/image: arithmetic {floor['mflop']:.0f} "
        f"MFLOP {floor['arithmetic_cpu_ms']:.2f} ({floor['arithmetic_cpu_ms'] / ours:.0%} of ours), "
        f"traffic {floor['mbyte']:.1f} MB {floor['traffic_cpu_ms']:.2f}",
        flush=True,
    )


def floor(net: str, rates: dict[str, Any]) -> dict[str, float]:
    """Of one image's way forward and back: three times the multiply-adds, each tensor as often as it must be touched.

    A layer reads its input and writes its output, and on the way back reads both the input and the output's gradient and
    writes the input's; a separable convolution is two layers.
    """
    from search.budget.cost import compute_cost
    from search.networks.geometry import flatten, resolve
    from search.networks.layers import SeparableConv

    network, values = network_of(net), 0
    for _, row in flatten(resolve(network)):
        values += 3 * math.prod(row.input) + 2 * math.prod(row.output)
        if isinstance(row.layer, SeparableConv):
            values += 5 * math.prod(row.output[:2]) * row.input[-1] * row.layer.depth_multiplier
    mflop, mbyte = 6 * compute_cost(network).macs / 1e6, 4 * values / 1e6
    return {
        "mflop": mflop,
        "mbyte": mbyte,
        "arithmetic_cpu_ms": mflop / rates["matmul_gflop_per_cpu_second"],
        "traffic_cpu_ms": mbyte / rates["copy_gbyte_per_cpu_second"],
    }


# --- one contender, in its process -----------------------------------------------------------------------------------


def contend(asked: argparse.Namespace) -> None:
    ours, augmented = asked.contender.startswith("ours"), asked.contender.endswith("augmented")
    if ours:
        from search.training.device import prepare_device

        prepare_device()
    from search.training.recipe import Augment, Recipe

    data = data_of(asked)
    network = network_of(asked.nets)
    how = Augment(flip=True, crop=4) if augmented else Augment()
    recipe = Recipe(augment=how, precision=asked.precision)
    begun = (time.monotonic(), time.process_time())
    epoch = ours_epoch(network, data, recipe) if ours else fit_epoch(network, data, recipe)
    print(json.dumps(timed(epoch, begun)), flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(epoch)), flush=True)
    os._exit(0)


def data_of(asked: argparse.Namespace) -> Any:
    from search.data.dataset import load_dataset

    path = Path(asked.data) if asked.data else None
    return load_dataset("cifar10", path, protocol="course", holdout=0.1, images=asked.images)


def timed(epoch: Any, begun: tuple[float, float] | None = None) -> dict[str, float]:
    wall, cpu = begun or (time.monotonic(), time.process_time())
    loss = epoch()
    return {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu, "loss": loss}


def ours_epoch(network: Any, data: Any, recipe: Any) -> Any:
    from search.data.preprocessing import Pixels
    from search.training.device import dtype_policy
    from search.training.engine.epoch import plan_epoch
    from search.training.train import CallLength, open_engine

    engine = open_engine(network, data, recipe, Pixels(), seed=0, dtype=dtype_policy(recipe.precision))
    done, length = iter(range(10**6)), CallLength()

    def epoch() -> float:
        plan = plan_epoch(recipe, len(data.x_train), 0, next(done) % recipe.epochs)
        engine.begin(plan)
        for first, last in length.calls(plan.steps):
            sums = engine.train(first, last)
        return sums.loss / len(plan.order)

    return epoch


def fit_epoch(network: Any, data: Any, recipe: Any) -> Any:
    import keras
    import numpy as np

    from search.training.device import dtype_policy
    from search.training.model import build

    model = build(network, seed=0, dtype=dtype_policy(recipe.precision))
    if recipe.augment.crop:
        share = recipe.augment.crop / data.input_shape[0]
        vary = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomTranslation(share, share, "reflect")]
        model = keras.Sequential([keras.Input(data.input_shape), *vary, model])
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    images, targets = data.x_train.astype("float32") / 255, np.eye(data.classes, dtype="float32")[data.y_train]
    return lambda: model.fit(images, targets, batch_size=recipe.batch_size, verbose=0).history["loss"][0]


if __name__ == "__main__":
    main()
