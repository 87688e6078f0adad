"""Where the time of a batch goes, and what worker processes make of it.

Times are medians, or for whole epochs the best of a few: other programs on the machine only ever add to them.

python sprints/02_datasets_and_dataloaders/results/loading_time.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from network import start, step
from tqdm import tqdm

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.data import DataLoader, default_collate
from shared.data.transforms import Compose, Normalize, RandomRotation, ToTensor

STAGES = ("read", "rotate", "to tensor", "normalise", "collate", "training step")
ROTATE, TO_TENSOR, NORMALISE = RandomRotation(15, "bilinear"), ToTensor(), Normalize((0.1311,), (0.3083,))
PLANS = {
    "without rotation": Compose([TO_TENSOR, NORMALISE]),
    "with rotation": Compose([ROTATE, TO_TENSOR, NORMALISE]),
}


def milliseconds(function: Callable, repeats: int) -> float:
    """The median time of a call, in ms."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def train_on(parameters: list, images, labels) -> float:
    x = images.array.reshape(len(images), -1)
    return step(parameters, x, labels.array, lr=0.05)


def stage_times(dataset, size: int, repeats: int) -> dict[str, float]:
    """ms per batch of each stage, one after the other, each fed with what the one before made."""
    indices = np.random.default_rng(0).permutation(len(dataset))[:size].tolist()
    parameters = start((784, 128, 10), seed=0)
    stages = {
        "read": lambda _: [dataset[i] for i in indices],
        "rotate": lambda examples: [(ROTATE(image), label) for image, label in examples],
        "to tensor": lambda examples: [(TO_TENSOR(image), label) for image, label in examples],
        "normalise": lambda examples: [(NORMALISE(image), label) for image, label in examples],
        "collate": lambda examples: default_collate(examples),
        "training step": lambda batch: train_on(parameters, *batch),
    }
    times, value = {}, None
    for name, stage in stages.items():
        times[name] = milliseconds(lambda stage=stage, value=value: stage(value), repeats)
        value = stage(value)
    return times


def whole_batch(dataset, size: int, repeats: int) -> float:
    """ms to read, scale and normalise a batch by array operations on all of it, without rotation."""
    indices = np.random.default_rng(0).permutation(len(dataset))[:size]
    mean, std = np.float32(0.1311), np.float32(0.3083)

    def make() -> np.ndarray:
        return (dataset.images[indices].astype(np.float32) / np.float32(255) - mean) / std

    return milliseconds(make, repeats)


def epoch_seconds(dataset, size: int, workers: int, epochs: int) -> tuple[float, float]:
    """Seconds until the first batch, and of the best epoch with training; workers stay between epochs."""
    loader = DataLoader(dataset, size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    parameters, best, first = start((784, 128, 10), seed=0), float("inf"), None
    for _ in range(epochs):
        began = time.perf_counter()
        for images, labels in loader:
            first = time.perf_counter() - began if first is None else first
            train_on(parameters, images, labels)
        best = min(best, time.perf_counter() - began)
    return first, best


def draw(times: dict[str, float], epochs: dict[str, dict[int, float]], images: int):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), width_ratios=(1.15, 1))
    names = [f"{name}, {times[name]:.2f} ms" for name in STAGES]
    colours = [COLORS["black"] if name == "training step" else COLORS["blue"] for name in STAGES]
    left.barh(names, [times[name] for name in STAGES], color=colours)
    left.invert_yaxis()
    left.set(xlabel="time per batch of 64 (ms)", title="Making a batch, and using it")
    for (name, seconds), colour in zip(epochs.items(), ("green", "vermillion"), strict=True):
        workers = list(seconds)
        right.plot(workers, [images / seconds[w] for w in workers], "o-", color=COLORS[colour], label=name)
    right.set(xlabel="worker processes (0: none)", ylabel="images per second, trained on", xticks=workers)
    right.set(title="An epoch with training", ylim=(0, None))
    right.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4, help="epochs per point, the best counts")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 3])
    arguments = parser.parse_args()

    shared.manual_seed(0)
    raw, _ = shared.data.load("mnist-5k", transform=None)
    times = stage_times(raw, arguments.batch, arguments.repeats)
    together = whole_batch(raw, arguments.batch, arguments.repeats)
    epochs, starts = {}, {}
    bar = tqdm(total=len(PLANS) * len(arguments.workers), unit="run")
    for name, plan in PLANS.items():
        dataset, _ = shared.data.load("mnist-5k", transform=plan)
        measured = {}
        for workers in arguments.workers:
            measured[workers] = epoch_seconds(dataset, arguments.batch, workers, arguments.epochs)
            bar.update()
        epochs[name] = {workers: seconds for workers, (_, seconds) in measured.items()}
        starts[name] = {workers: first for workers, (first, _) in measured.items()}
    bar.close()

    use_style()
    results = Results(__file__, seed=0)
    alt = (
        "Left: bars of the time per batch for each stage; rotating takes most. Right: images per second "
        "against worker processes, with and without rotation."
    )
    results.figure(draw(times, epochs, len(raw)), "loading_time", alt=alt)
    results.metric("cores", os.cpu_count(), unit="cores")
    for name, value in times.items():
        results.metric(f"ms_{name.replace(' ', '_')}", value, unit="ms")
    results.metric("ms_whole_batch", together, unit="ms")
    for name, short in zip(PLANS, ("plain", "rotated"), strict=True):
        for workers in arguments.workers:
            results.metric(f"seconds_{short}_{workers}_workers", epochs[name][workers], unit="s")
            results.metric(f"first_batch_{short}_{workers}_workers", starts[name][workers], unit="s")
    results.save()
    for name, entry in results._metrics.items():
        print(f"{name:32} {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()
