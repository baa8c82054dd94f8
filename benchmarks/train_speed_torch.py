"""PyTorch's contender of `train_speed.py`: eager, channels last, run by the Python of an environment that has torch.

    python train_speed_torch.py NETWORK.json IMAGES.npz

It trains the network by Adam at batch 128 without augmentation, an epoch for each line on standard input, and answers with a
line of JSON. Images are float32 in memory. It imports nothing of the project, so that the environment needs torch alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

BATCH = 128


class Residual(nn.Module):
    """Sum of a branch and a shortcut."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x) + self.shortcut(x)


class Gate(nn.Module):
    """Product of the activation of one half of the channels and the other half."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.activation = activation(function)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = x.chunk(2, dim=1)
        return self.activation(gate) * value


class GlobalAverage(nn.Module):
    """Mean over height and width."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def activation(function: str) -> nn.Module:
    return {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}[function]()


def modules(layers: list[dict[str, Any]], channels: int, side: int) -> tuple[nn.Sequential, int, int]:
    """(modules, channels and side of their output); the softmax is left to the loss."""
    made: list[nn.Module] = []
    for layer in layers:
        match layer["kind"]:
            case "separable_conv" | "conv" as kind:
                filters, kernel, stride = layer["filters"], layer.get("kernel", 3), layer.get("stride", 1)
                padding = 0 if layer.get("padding") == "valid" else kernel // 2
                between, bias = channels, layer.get("use_bias", False)
                if kind == "separable_conv":
                    between = channels * layer.get("depth_multiplier", 1)
                    made.append(nn.Conv2d(channels, between, kernel, stride, padding, groups=channels, bias=False))
                    made.append(nn.Conv2d(between, filters, 1, bias=bias))
                else:
                    made.append(nn.Conv2d(channels, filters, kernel, stride, padding, bias=bias))
                channels, side = filters, (side + 2 * padding - kernel) // stride + 1
            case "batch_norm":
                made.append(nn.BatchNorm2d(channels))
            case "activation":
                made.append(activation(layer["function"]))
            case "dropout":
                made.append(nn.Dropout(layer["rate"]))
            case "max_pool":
                size = layer.get("size", 2)
                made.append(nn.MaxPool2d(size, layer.get("stride")))
                side = (side - size) // (layer.get("stride") or size) + 1
            case "global_average_pool":
                made.append(GlobalAverage())
                side = 1
            case "flatten":
                made.append(nn.Flatten())
                channels, side = channels * side * side, 1
            case "dense":
                made.append(nn.Linear(channels, layer["units"], bias=layer.get("use_bias", True)))
                channels = layer["units"]
            case "gate":
                made.append(Gate(layer["function"]))
                channels //= 2
            case "residual":
                branch, after, new_side = modules(layer["branch"], channels, side)
                shortcut, _, _ = modules(layer.get("shortcut", []), channels, side)
                made.append(Residual(branch, shortcut))
                channels, side = after, new_side
            case "softmax":
                pass
            case other:
                sys.exit(f"no module for {other}")
    return nn.Sequential(*made), channels, side


def main() -> None:
    started = time.monotonic(), time.process_time()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    network = json.loads(Path(sys.argv[1]).read_text())
    data = np.load(sys.argv[2])
    images = torch.from_numpy(data["x"].astype(np.float32) / 255).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(data["y"])
    model, _, _ = modules(network["layers"], network["input"][2], network["input"][0])
    model = model.to(memory_format=torch.channels_last)
    loss_of, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7)

    def epoch() -> float:
        total = 0.0
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = loss_of(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss) * len(chosen)
        return total / len(images)

    while True:
        loss = epoch()
        wall, cpu = time.monotonic() - started[0], time.process_time() - started[1]
        print(json.dumps({"wall": wall, "cpu": cpu, "loss": loss, "torch": torch.__version__}), flush=True)
        if not sys.stdin.readline():
            return
        started = time.monotonic(), time.process_time()


if __name__ == "__main__":
    main()
