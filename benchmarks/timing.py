"""What every workload shares: the library under test, the clock, and the line of JSON it prints.

A workload file defines `TITLE`, `TARGET` and `build(library)`, which returns the function to time. Run by itself
it measures one library in its own process:

    python benchmarks/mlp_step.py --library shared --threads 1
    python benchmarks/mlp_step.py --library shared --device cuda
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@dataclass
class Library:
    """The names a workload needs, the same from `shared` and from `torch`."""

    name: str
    tensor: Any
    nn: Any
    functional: Any
    optim: Any
    version: str


class OnDevice:
    """A module of a library whose functions and classes give what is on a device: `OnDevice(torch, "cuda").rand(3)`."""

    def __init__(self, of: Any, device: str):
        self._of, self._device = of, device

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not callable(found):
            return found

        def make(*args: Any, **options: Any) -> Any:
            made = found(*args, **options)
            return made.to(self._device) if hasattr(made, "to") else made

        return make


def on_device(library: Library, device: str) -> Library:
    """The library, whose tensors and layers are made on `device`."""
    if device == "cpu":
        return library
    tensor, nn = (OnDevice(of, device) for of in (library.tensor, library.nn))
    return dataclasses.replace(library, tensor=tensor, nn=nn)


def load(name: str, threads: int) -> Library:
    """Imports one of the two libraries with its thread count set (before NumPy, BLAS and Numba load)."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if name == "torch":
        import torch

        torch.set_num_threads(threads)
        return Library(name, torch, torch.nn, torch.nn.functional, torch.optim, torch.__version__)
    import shared

    return Library(name, shared, shared.nn, shared.nn.functional, shared.optim, shared.__version__)


def measure(
    run: Callable[[], Any], seconds: float = 1.5, warm_up: int = 5, finish: Callable[[], Any] = lambda: None
) -> dict[str, float]:
    """Milliseconds per call: medians over batches of the CPU time of this process and of the wall clock.

    `finish` waits for what is still being computed: on a GPU, to which calls only hand their work.
    """
    slow = time.perf_counter() + 3 * seconds
    for _ in range(warm_up):
        run()
        if time.perf_counter() > slow:
            break
    finish()
    start = time.perf_counter()
    run()
    finish()
    once = time.perf_counter() - start
    calls, fewest = max(1, int(0.03 / max(once, 1e-7))), min(5, 1 + int(10 * seconds / once))
    cpu, wall = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(cpu) < fewest:
        c, w = time.process_time(), time.perf_counter()
        for _ in range(calls):
            run()
        finish()
        cpu.append((time.process_time() - c) / calls * 1e3)
        wall.append((time.perf_counter() - w) / calls * 1e3)
    return {"cpu_ms": statistics.median(cpu), "wall_ms": statistics.median(wall)}


def main(build: Callable[[Library], Callable[[], Any]]) -> None:
    """The command line of a workload file: one library, one process, one line of JSON."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--library", choices=("shared", "torch"), required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long to measure (default: 1.5)")
    args = parser.parse_args()
    library = load(args.library, args.threads)
    if args.device == "cuda":
        gpu = library.tensor.cuda
        result = measure(build(on_device(library, "cuda")), args.seconds, finish=gpu.synchronize)
        peak = gpu.memory_reserved() / 2**20  # what the library took of the GPU's memory and keeps
    else:
        result = measure(build(library), args.seconds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**result, "peak_mb": round(peak, 1), "version": library.version}))
