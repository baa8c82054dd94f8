"""Accuracy in bfloat16 and in float32 on paired seeds: one network, a short training on real images.

    python benchmarks/precision_pairs.py CIFAR.npz [--network eip-b] [--images 4000] [--epochs 6] [--seeds 5]

The two trainings of a pair share initial weights, order, augmentation and dropout. Prints each pair's best validation
accuracy and its CPU-seconds, and the mean difference with its 95 % interval (Student's t over the pairs).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from search.data.dataset import load_dataset
from search.study import references
from search.training.device import prepare_device
from search.training.recipe import Recipe


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--network", default="eip-b")
    options.add_argument("--images", type=int, default=4000)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--seeds", type=int, default=5)
    asked = options.parse_args()
    print(prepare_device().description)
    from search.training.train import fit  # loads TensorFlow, which the device is prepared before

    data = load_dataset("cifar10", asked.data, protocol="holdout", holdout=0.25, images=asked.images)
    differences = []
    for seed in range(asked.seeds):
        found = []
        for precision in ("float32", "bfloat16"):
            changes = {"epochs": asked.epochs, "batch_size": 64, "precision": precision}
            recipe = Recipe.model_validate(changes | {"augment": {"flip": True, "crop": 4}})
            begun = time.process_time()
            training = fit(references.find(asked.network).architecture, data, recipe, seed=seed)
            found.append(training.best.val_accuracy)
            print(f"seed {seed}, {precision}: {found[-1]:.2%}, {time.process_time() - begun:.0f} CPU-s", flush=True)
        differences.append(found[1] - found[0])
    mean, error = np.mean(differences), stats.sem(differences)
    reach = stats.t.ppf(0.975, len(differences) - 1) * error
    low, high = 100 * (mean - reach), 100 * (mean + reach)
    print(
        f"bfloat16 less float32: {100 * mean:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}, n = {len(differences)})"
    )


if __name__ == "__main__":
    main()
