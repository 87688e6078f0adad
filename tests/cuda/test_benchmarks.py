"""The benchmarks on a GPU: where tensors are made, what is compared, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shared
from benchmarks import run
from tests.cuda.emulator import COMPILER
from tests.cuda.stand_in import in_place_of_cupy

sys.path.append(str(Path(run.__file__).parent))
import timing  # noqa: E402

SHARED = timing.Library("shared", shared, shared.nn, shared.nn.functional, shared.optim, shared.__version__)


def workload(name):
    path = Path(run.__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(COMPILER is None, reason="needs g++, which stands in for CUDA's compiler")
@pytest.mark.parametrize(("name", "kernel"), [("mlp_step", "adam"), ("adamw_gpt", "adam"), ("tiny_add", None)])
def test_a_workload_runs_on_the_gpu(name, kernel):
    with np.errstate(all="ignore"), in_place_of_cupy() as launches:
        workload(name).build(timing.on_device(SHARED, "cuda"))()
    assert kernel is None or kernel in launches


def test_tensors_and_layers_are_made_on_the_device_and_the_rest_is_as_it_was():
    with in_place_of_cupy():
        library = timing.on_device(SHARED, "cuda")
        t, nn = library.tensor, library.nn
        assert all(x.is_cuda for x in (t.rand(2), t.from_numpy(np.ones(2)), nn.Linear(2, 2).weight))
        assert t.float32 == np.float32 and timing.on_device(SHARED, "cpu") is SHARED
        with t.no_grad():
            assert not (t.ones(1).requires_grad_() * 2).requires_grad


def test_the_clock_is_the_wall_s_and_stops_when_the_gpu_has_finished():
    waited = []
    result = timing.measure(lambda: None, 0.001, finish=lambda: waited.append(1))
    assert result["wall_ms"] > 0 and len(waited) >= 7, "after warming up, after one call and after each of five batches"


def test_a_row_on_a_gpu_compares_the_wall_clock(monkeypatch):
    seen = []

    def once(name, library, threads, seconds, coretype=None, device="cpu"):
        seen.append((library, coretype, device))
        return {"cpu_ms": 1.0, "wall_ms": 2.0 if library == "shared" else 4.0, "peak_mb": 1.0, "version": library}

    monkeypatch.setattr(run, "once", once)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    row = run.compare("tiny_add", pairs=1, threads=1, seconds=0.0, device="cuda")
    assert row["clock"] == "wall_ms" and row["ratio"] == 0.5
    assert seen == [("shared", None, "cuda"), ("torch", None, "cuda")]


def test_without_a_gpu_it_is_said(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ModuleNotFoundError: No module named 'cupy'")
    monkeypatch.setattr(run.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU.*\n.*cupy"):
        run.gpu_environment()


def test_the_gpu_is_described(monkeypatch):
    done = subprocess.CompletedProcess([], 0, "NVIDIA H200 14.2.0 12090 13.0\n", "")
    monkeypatch.setattr(run.subprocess, "run", lambda *a, **k: done)
    assert run.gpu_environment() == {
        "gpu": "NVIDIA H200",
        "cupy": "14.2.0",
        "cuda": {"shared": "12.9", "torch": "13.0"},
    }
