"""The compiled kernels against their formulas in reference.py."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.arrays import kernels
from shared.arrays.kernels.optim import reference

pytest.importorskip("numba", reason="Numba is not installed: the reference kernels serve")
compiled = kernels._compiled("optim")
if compiled is None:
    pytest.skip("SHARED_KERNELS=reference keeps to the formulas", allow_module_level=True)

ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}
SIZES = [(1,), (7, 3), (2 * 65536 + 5,)]  # the last one is shared among threads, with a piece left over


def arrays(shape, dtype, count):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) ** (2 if i == 3 else 1) for i in range(count)]


def assert_same(ours, expected, dtype):
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_follows_its_formula(shape, dtype, decoupled):
    ours, expected = arrays(shape, dtype, 4), arrays(shape, dtype, 4)
    for step in (1, 2, 3):
        compiled.adam(*ours, **ADAM, decoupled=decoupled, step=step)
        reference.adam(*expected, **ADAM, decoupled=decoupled, step=step)
    assert_same(ours, expected, dtype)
    assert np.array_equal(ours[1], arrays(shape, dtype, 4)[1]), "the gradient must not be written to"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_its_formula(shape, dtype, nesterov, momentum):
    options = {**SGD, "momentum": momentum, "nesterov": nesterov}
    ours, expected = arrays(shape, dtype, 3), arrays(shape, dtype, 3)
    for state in (ours, expected):
        state[2] = state[2] if momentum else None
    for _ in range(3):
        compiled.sgd(*ours, **options)
        reference.sgd(*expected, **options)
    assert_same(ours[:2], expected[:2], dtype)
    if momentum:
        assert_same(ours[2:], expected[2:], dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_the_parameter(value):
    ours, expected = arrays((64,), np.float32, 4), arrays((64,), np.float32, 4)
    ours[1][5] = expected[1][5] = value
    compiled.adam(*ours, **ADAM, decoupled=True, step=1)
    reference.adam(*expected, **ADAM, decoupled=True, step=1)
    for a, b in zip(ours, expected, strict=True):
        assert np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(np.isinf(a), np.isinf(b))
    assert not np.isfinite(ours[0][5]), "a bad gradient must stay visible in the parameter"


def test_select_falls_back_to_the_formula():
    half, transposed = np.zeros(4, np.float16), np.zeros((4, 3), np.float32).T
    assert kernels.select("optim", half) is reference
    assert kernels.select("optim", transposed) is reference
    assert kernels.select("optim", np.zeros(4, np.float32)) is compiled


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_both_threading_layers_give_the_formula_s_result(layer):
    """In a process of its own, since a process has one layer."""
    code = """
import numpy as np, numba
from shared.arrays.kernels import _compiled
from shared.arrays.kernels.optim import reference
options = dict(lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0, decoupled=True, step=1)
make = lambda: [np.linspace(0.1, 1, 200_000, dtype=np.float32) for _ in range(4)]
ours, expected = make(), make()
_compiled("optim").adam(*ours, **options); reference.adam(*expected, **options)
np.testing.assert_allclose(ours[0], expected[0], rtol=1e-5)
print(numba.threading_layer())
"""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"Numba has no {layer} layer on this machine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == layer


def own_kernels(family: str) -> dict[str, Any]:
    """{name: compiled function} of a family's kernels, but those that are only ever compiled within others."""
    written = importlib.import_module(f"shared.arrays.kernels.{family}.cpu")
    return {
        name: value
        for name, value in vars(written).items()
        if hasattr(value, "py_func")
        and value.py_func.__module__ == written.__name__
        and value.targetoptions.get("inline") != "always"
    }


def is_entry(name: str) -> bool:
    return name.endswith(("_piece", "_parallel"))


def test_warming_up_leaves_a_family_s_kernels_compiled_on_disk(tmp_path):
    family = "dropout"  # the others take a minute and more without a cache: the next test looks at what they ask for
    code = f"from shared.arrays.kernels import _warm_up; _warm_up(({family!r},))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    found = Counter(path.name.partition("-")[0].partition(".")[2] for path in tmp_path.rglob("*.nbc"))
    names = set(own_kernels(family))
    assert set(found) >= names
    assert all(found[name] == 2 for name in names if is_entry(name)), "each for float32 and for float64"


def test_warming_up_asks_for_every_kernel_in_both_precisions():
    code = """
import importlib, json
from shared.arrays import kernels
kernels.warm_up(2)
kernels.warm_up()
found = {}
for family in kernels.FAMILIES:
    for name, value in vars(importlib.import_module(f"shared.arrays.kernels.{family}.cpu")).items():
        if hasattr(value, "py_func"):
            on_disk = type(value._cache).__name__ == "FunctionCache"
            found[f"{family}.{name}"] = [on_disk, [str(signature) for signature in value.signatures]]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for family in kernels.FAMILIES:
        text = Path(kernels.__file__).parent.joinpath(family, "cpu.py").read_text(encoding="utf-8")
        for name in own_kernels(family):
            on_disk, signatures = found[f"{family}.{name}"]
            assert on_disk, f"{family}.{name} has no cache"
            if is_entry(name):  # it is called with arrays of one precision
                assert len(signatures) == 2, f"{family}.{name}: {signatures}"
                assert sum("float32" in text for text in signatures) == 1, f"{family}.{name}: {signatures}"
            else:  # a part of others, compiled and kept with them
                called = len(re.findall(rf"\b{name}\(", text)) > 1
                assert signatures or called, f"{family}.{name} is not compiled"


def test_families_whose_kernels_call_each_other_s_are_compiled_in_one_process():
    folder = Path(kernels.__file__).parent
    for family in kernels.FAMILIES:
        text = (folder / family / "cpu.py").read_text(encoding="utf-8")
        called = set(re.findall(r"shared\.arrays\.kernels\.(\w+)\.cpu", text)) - {family}
        assert not called or called | {family} <= set(kernels._TOGETHER), f"{family} calls kernels of {called}"
