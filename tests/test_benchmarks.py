"""The benchmark scripts run, one library per process, and say what they measured."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run

FOLDER = Path(run.__file__).parent


def test_every_workload_is_in_the_runner_s_list():
    others = {"run", "timing", "gpt2_files", "nanogpt", "train_shakespeare"}
    assert {path.stem for path in FOLDER.glob("*.py")} - others == set(run.WORKLOADS)


# Some ten seconds each: what differs from gpt_cpu is the sizes, and from gpt2_first_token the number of tokens.
HEAVY = ("gpt_384", "gpt2_124m", "gpt2_generate")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.stress] if name in HEAVY else []) for name in run.WORKLOADS]
)
def test_a_workload_measures_shared(name, monkeypatch, capsys):
    for variable in THREADS:
        monkeypatch.setenv(variable, "1")  # the script sets them, too late for this process, and they are put back
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--library", "shared", "--seconds", "0.01"])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    result = json.loads(capsys.readouterr().out)
    assert result["cpu_ms"] > 0 and result["wall_ms"] > 0 and result["peak_mb"] > 0


@pytest.mark.parametrize("name", ["tiny_add", "mlp_step"])
def test_the_runner_measures_in_a_process_of_its_own(name):
    result = run.once(name, "shared", threads=1, seconds=0.01)
    assert result["cpu_ms"] > 0 and result["wall_ms"] > 0 and result["peak_mb"] > 0


def test_the_process_that_measures_shared_has_no_torch():
    code = """
import sys, timing, mlp_step
timing.measure(mlp_step.build(timing.load("shared", 1)), 0.01)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_workload_that_fails_is_reported_with_its_error(monkeypatch):
    monkeypatch.setattr(
        run.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "ZeroDivisionError")
    )
    with pytest.raises(SystemExit, match="mlp_step with shared failed:\nZeroDivisionError"):
        run.once("mlp_step", "shared", threads=1, seconds=0.01)


def test_a_row_compares_the_two_libraries_pair_by_pair(monkeypatch):
    times = {"shared": iter([1.0, 2.0, 9.0]), "torch": iter([2.0, 8.0, 10.0])}

    def once(name, library, threads, seconds, coretype=None, device="cpu"):
        return {"cpu_ms": next(times[library]), "wall_ms": 0.0, "peak_mb": 1.0, "version": library}

    monkeypatch.setattr(run, "once", once)
    row = run.compare("tiny_add", pairs=3, threads=1, seconds=0.0)
    assert row["ratio"] == 0.5, "the median of 1/2, 2/8 and 9/10"
    assert row["ours_ms"] == 2.0 and row["torch_ms"] == 8.0
    json.dumps(row)


def test_openblas_is_measured_by_its_own_choice_and_as_it_was_found(monkeypatch):
    seen = []

    def once(name, library, threads, seconds, coretype=None, device="cpu"):
        seen.append((library, coretype))
        return {"cpu_ms": 2.0 if coretype else 1.0, "wall_ms": 0.0, "peak_mb": 1.0, "version": library}

    monkeypatch.setattr(run, "once", once)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert run.compare("tiny_add", pairs=1, threads=1, seconds=0.0)["as_found_ms"] == 2.0
    assert seen == [("shared", None), ("torch", None), ("shared", "Haswell")]
    assert "OPENBLAS_CORETYPE" not in run.without_coretype()
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert "as_found_ms" not in run.compare("tiny_add", pairs=1, threads=1, seconds=0.0)


def test_openblas_obeys_the_variable_that_a_run_is_given():
    code = "import threadpoolctl, numpy; print([p.get('architecture') for p in threadpoolctl.threadpool_info()])"
    if "openblas" not in run.blas_core():
        pytest.skip("NumPy here does not use OpenBLAS")
    env = run.without_coretype() | {run.CORETYPE: "Haswell"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "Haswell" in done.stdout


def test_named_workloads_are_put_into_the_table_that_is_there():
    first, second = (run.describe(name)[0] for name in run.WORKLOADS[:2])
    old = [{"workload": second, "ratio": 2.0}, {"workload": "one that is gone", "ratio": 3.0}]
    new = [{"workload": second, "ratio": 0.5}, {"workload": first, "ratio": 1.0}]
    assert run.updated(old, new) == [{"workload": first, "ratio": 1.0}, {"workload": second, "ratio": 0.5}]
