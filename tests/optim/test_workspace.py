"""Where a learner has a reference.py, their formulas run, and not the compiled twins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORMULAS = Path("shared/arrays/kernels/optim/reference.py")
STEP = """
import shared
w = shared.ones(3, requires_grad=True)
w.grad = shared.ones(3)
shared.optim.{optimizer}([w], lr=0.5).step()
print(w.tolist()[0])
"""


def after_a_step(optimizer: str, **variables: str) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHARED_")}
    run = subprocess.run(
        [sys.executable, "-c", STEP.format(optimizer=optimizer)],
        env=environment | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(run.stdout)


@pytest.mark.parametrize(
    ("optimizer", "name", "line"),
    [("SGD", "sgd", "param -= lr * grad\n"), ("Adam", "adam_step", "param -= update\n")],
)
def test_a_formula_in_the_workspace_takes_the_place_of_its_compiled_twin(tmp_path, optimizer, name, line):
    source = (ROOT / FORMULAS).read_text(encoding="utf-8")
    head, function, body = source.partition(f"def {name}(")
    assert line in body
    uphill = head + function + body.replace(line, line.replace("-=", "+="), 1)
    (tmp_path / FORMULAS).parent.mkdir(parents=True)
    (tmp_path / FORMULAS).write_text(uphill, encoding="utf-8")
    assert after_a_step(optimizer) == pytest.approx(0.5, abs=1e-4)
    assert after_a_step(optimizer, SHARED_WORKSPACE=str(tmp_path)) == pytest.approx(1.5, abs=1e-4)
    # Taken from the reference all the same, as `course check` does with every exercise but one:
    grafted = {"SHARED_REFERENCE": f"shared.arrays.kernels.optim.reference.{name}"}
    assert after_a_step(optimizer, SHARED_WORKSPACE=str(tmp_path), **grafted) == pytest.approx(0.5, abs=1e-4)
