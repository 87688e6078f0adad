"""What this machine has, what would be slow on it and why, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .sprints import ROOT

OK, NOTE, SLOW, BROKEN = "ok", "note", "slow", "broken"
# OpenBLAS names of kernels with 512-bit vectors; with others, such a machine is half as fast.
WIDE_CORES = ("SkylakeX", "Cooperlake", "SapphireRapids", "Zen4", "Zen5")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` is empty where nothing needs doing."""

    name: str
    state: str
    text: str
    remedy: str = ""


def python() -> Finding:
    """The interpreter, and whether it is the environment that set-up made."""
    version = sys.version.split()[0]
    text = f"{version} in {sys.prefix}"
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        return Finding("Python", NOTE, text, "not this repository's .venv; `make course` uses .venv/bin/python")
    return Finding("Python", OK, text)


def packages(root: Path = ROOT) -> Finding:
    """Whether what pyproject.toml asks for is installed."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [re.split(r"[\s\[<>=!~;]", entry, maxsplit=1)[0] for entry in table["dependencies"]]
    missing = []
    for name in wanted:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("Packages", BROKEN, f"missing: {', '.join(missing)}", "`python -m course setup`")
    return Finding("Packages", OK, f"all {len(wanted)} that the course needs")


def memory() -> Finding:
    """Total and free memory."""
    import psutil

    found = psutil.virtual_memory()
    text = f"{found.total / 2**30:.1f} GiB, {found.available / 2**30:.1f} GiB free"
    if found.available < 2 * 2**30:
        return Finding("Memory", SLOW, text, "under 2 GiB free: close other programs, or the machine will swap")
    return Finding("Memory", OK, text)


def cores() -> int:
    """The cores this process may use (a container may have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> Finding:
    """Cores and how wide the vector units are."""
    flags = _cpu_flags()
    width = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""
    text = f"{cores()} cores" + (f", {width}" if width else "")
    if flags and not width:
        return Finding("Processor", SLOW, text, "no AVX2: expect several times the times stated in the course")
    return Finding("Processor", OK, text)


def _cpu_flags() -> set[str]:
    try:
        match = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(match[1].split()) if match else set()


def judge_blas(core: str, wide: bool, variable: str | None) -> tuple[str, str]:
    """(state, remedy) for OpenBLAS's core type on a machine with or without 512-bit vectors.

    >>> judge_blas("Zen", True, None)[0], judge_blas("SkylakeX", True, None)[0]
    ('slow', 'ok')
    >>> judge_blas("Haswell", True, "Haswell")[1]
    'OPENBLAS_CORETYPE=Haswell is set: matrix products run at about half speed here; unset it'
    """
    if variable:
        if wide and core not in WIDE_CORES:
            return SLOW, (
                f"OPENBLAS_CORETYPE={variable} is set: matrix products run at about half speed here; unset it"
            )
        return NOTE, f"OPENBLAS_CORETYPE={variable} is set: measurements are made without it"
    if wide and core not in WIDE_CORES:
        return SLOW, f"this OpenBLAS runs {core} kernels on a machine with AVX-512; a newer NumPy may know it"
    return OK, ""


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def blas() -> Finding:
    """Which library multiplies matrices, with which kernels, and how fast."""
    import numpy as np
    import threadpoolctl

    infos = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    numpys = [info for info in infos if "numpy" in info["filepath"]] or infos
    a = np.ones((1024, 1024), np.float32)
    fastest = min(_seconds(lambda: np.matmul(a, a)) for _ in range(5))
    speed = f"{2 * 1024**3 / fastest / 1e9:,.0f} GFLOP/s at 1024³ in float32"
    if not numpys:
        return Finding("BLAS", NOTE, f"unknown to threadpoolctl; {speed}")
    info = numpys[0]
    core = info.get("architecture", "")
    text = f"{info['internal_api']} {info['version']}, {core} kernels, {info['num_threads']} threads; {speed}"
    if info["internal_api"] != "openblas":
        return Finding("BLAS", OK, text)
    state, remedy = judge_blas(core, "avx512f" in _cpu_flags(), os.environ.get("OPENBLAS_CORETYPE"))
    return Finding("BLAS", state, text, remedy)


def judge_threads(variables: dict[str, str], available: int) -> tuple[str, str, str]:
    """(state, text, remedy) for the thread variables of the environment.

    >>> judge_threads({}, 4)
    ('ok', 'no variable is set: all 4 cores are used', '')
    >>> judge_threads({"OMP_NUM_THREADS": "1"}, 4)[0]
    'slow'
    """
    if not variables:
        return OK, f"no variable is set: all {available} cores are used", ""
    text = ", ".join(f"{name}={value}" for name, value in variables.items())
    fewest = min((int(value) for value in variables.values() if value.isdigit()), default=available)
    if fewest < available:
        return (
            SLOW,
            text,
            f"part of the work runs on {fewest} of {available} cores; unset what you did not mean to set",
        )
    if fewest > available:
        return SLOW, text, f"more threads than the {available} cores there are: they wait for each other"
    return OK, text, ""


def threads() -> Finding:
    """Thread counts the environment sets."""
    found = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    return Finding("Threads", *judge_threads(found, cores()))


def compiled_kernels() -> Finding:
    """Whether Numba is here, and which threading layer it will find."""
    if importlib.util.find_spec("numba") is None:
        return Finding("Numba", SLOW, "not installed", "fused kernels fall back to their formulas: `course setup`")
    code = "from numba.np.ufunc import omppool"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True)
    layer = "omp" if found.returncode == 0 else "workqueue"
    text = f"{importlib.metadata.version('numba')}, threading layer {layer}"
    return Finding("Numba", OK, text)


def gpu_extra(listing: str) -> str:
    """The extra whose CUDA fits the oldest driver in nvidia-smi's listing (name, memory, driver version).

    >>> gpu_extra("NVIDIA H200, 143771 MiB, 580.65.06"), gpu_extra("NVIDIA A10, 23028 MiB, 535.183.01")
    ('gpu', 'gpu-cuda12')
    """
    drivers = [int(number) for number in re.findall(r",\s*(\d+)\.[\d.]+(?:;|$)", listing)]
    return "gpu" if drivers and min(drivers) >= 580 else "gpu-cuda12"


def gpu() -> Finding:
    """An NVIDIA GPU, its driver, and CuPy."""
    from shared.arrays import device

    driver = shutil.which("nvidia-smi")
    names = ""
    if driver:
        query = [driver, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        asked = subprocess.run(query, capture_output=True, text=True)
        names = asked.stdout.strip().replace("\n", "; ") if asked.returncode == 0 else ""
    if device.cuda_is_available():
        return Finding("GPU", OK, f"{names or 'found'}, CuPy works")
    if names:
        return Finding("GPU", SLOW, f"{names}, but CuPy does not work", f"`course setup --extra {gpu_extra(names)}`")
    return Finding("GPU", NOTE, "none found: everything runs on the CPU, nothing in the default course needs one")


def disk(root: Path = ROOT) -> Finding:
    """Room for .venv (about 1 GB) and downloads."""
    free = shutil.disk_usage(root).free
    text = f"{free / 2**30:.1f} GiB free"
    if free < 2 * 2**30:
        return Finding("Disk", BROKEN, text, "set-up and data sets need about 2 GiB")
    return Finding("Disk", OK, text)


def data() -> Finding:
    """Which data sets are here."""
    from shared.data import catalog

    states = {entry.name: catalog.status(entry.name) for entry in catalog.entries()}
    here = [name for name, state in states.items() if state in ("embedded", "cached", "course-data")]
    text = ", ".join(here) or "none"
    if "mnist-5k" in here:
        return Finding("Data", OK, text)
    return Finding("Data", NOTE, text, "lessons fall back to 8×8 digits: `course data fetch mnist-5k` (1.4 MB)")


CHECKS = (python, packages, memory, processor, blas, threads, compiled_kernels, gpu, disk, data)


def findings() -> list[Finding]:
    """Every check; one that fails by itself is reported, the others go on."""
    found = []
    for check in CHECKS:
        try:
            found.append(check())
        except Exception as error:
            found.append(Finding(check.__name__, BROKEN, f"could not be checked: {type(error).__name__}: {error}"))
    return found
