"""What milestone tests share: comparisons whose failure tells a learner what the wrong answer looks like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from shared.overlay import learners_file

FEW = 40


def require(holds: object, message: str) -> None:
    """Fail with the message alone: pytest's own account of an assert prints whole tensors beneath it."""
    if not holds:
        pytest.fail(message, pytrace=False)


def check(
    what: str,
    actual: Any,
    expected: Any,
    mistakes: dict[str, Any] | None = None,
    tolerance: float = 1e-4,
    labels: Sequence[str] | None = None,
    source: str = "by hand",
) -> None:
    """Fail with `what`, the mistake among `mistakes` whose value `actual` has, and then the numbers.

    Up to FEW numbers are shown whole. Of more it is said how many differ, and the first that does; with `labels`, one
    for each number, the first few that differ are told by their labels. `source` says where `expected` comes from.
    """
    require(actual is not None, f"{what} is None: is a `return` missing?")
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    if actual.shape == expected.shape and np.allclose(actual, expected, rtol=0, atol=tolerance):
        return
    hints = [
        name
        for name, value in (mistakes or {}).items()
        if np.shape(value) == actual.shape and np.allclose(actual, value, rtol=5e-3, atol=tolerance)
    ]
    looks = f"\nThat is what one gets from: {hints[0]}." if hints else ""
    require(actual.shape == expected.shape, f"{what} has shape {actual.shape}, but {expected.shape} is expected{looks}")
    pytest.fail(f"{what}:{looks}\n{_numbers(actual, expected, tolerance, labels, source)}", pytrace=False)


def _numbers(
    actual: np.ndarray, expected: np.ndarray, tolerance: float, labels: Sequence[str] | None, source: str
) -> str:
    """What came out beside what should have, in a few lines."""
    if labels is None and actual.size <= FEW:
        shown = [np.array2string(a, precision=4, suppress_small=False) for a in (actual, expected)]
        return f"{shown[0]}\n{source}:\n{shown[1]}"
    places = np.argwhere(~np.isclose(actual, expected, rtol=0, atol=tolerance))
    lines = [f"{len(places)} of {actual.size} numbers differ, shape {actual.shape}"]
    for place in map(tuple, places[: 3 if labels else 1].tolist()):
        where = (
            labels[np.ravel_multi_index(place, actual.shape)]
            if labels
            else f"the first at [{', '.join(map(str, place))}]"
        )
        lines.append(f"{where}: yours {actual[place]:.5g}, {source} {expected[place]:.5g}")
    return "\n".join(lines)


def check_names(what: str, actual: list[str], expected: list[str], mistakes: dict[str, list[str]]) -> None:
    """The same for a list of names."""
    if actual == expected:
        return
    hints = [name for name, value in mistakes.items() if value == actual]
    looks = f"\nThat is what one gets from: {hints[0]}." if hints else ""
    pytest.fail(f"{what}:{looks}\n{actual}\nexpected:\n{expected}", pytrace=False)


def check_formula_runs(family: str, name: str, call: Callable[[], Any]) -> Any:
    """What `call` returns; it must run `name` of the learner's reference.py, if there is one, and no compiled twin."""
    called, file = set(), f"kernels/{family}/reference.py"

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.replace("\\", "/").endswith(file):
            called.add(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = call()
    finally:
        sys.setprofile(before)
    if learners_file(f"shared.arrays.kernels.{family}.reference"):
        require(name in called, f"{name} in your reference.py was not run, but {sorted(called) or 'a compiled twin'}")
    return result


@contextmanager
def doing(what: str, hints: dict[str, str] | None = None) -> Iterator[None]:
    """Say what was computed when an exception came, and add the hint whose key is part of its text."""
    try:
        yield
    except (NotImplementedError, AssertionError):
        raise
    except Exception as error:
        fitting = dict.fromkeys(hint for part, hint in (hints or {}).items() if part in str(error))
        looks = "".join(f"\n{hint}" for hint in fitting)
        if isinstance(error, NameError) and "'np'" in str(error):
            looks += (
                "\nAn operation works on arrays of NumPy or CuPy alike: xp(x), from shared.arrays.device, is the "
                "library of the array x, so that np = xp(x) is NumPy on the CPU."
            )
        raise AssertionError(f"{what} ends in {type(error).__name__}: {error}{looks}") from error


def differences(function: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """The gradient of `function` at float64 `at`, of its shape, by central differences; `at` stays as it is.

    >>> differences(lambda x: float((x**2).sum()), np.array([1.0, 3.0])).round(6)
    array([2., 6.])
    """
    gradient, step = np.zeros(at.shape), 1e-5
    for place in np.ndindex(*at.shape):
        moved = at.copy()
        moved[place] += step
        up = function(moved)
        moved[place] -= 2 * step
        gradient[place] = (up - function(moved)) / (2 * step)
    return gradient


def refusal(load: Callable[[], object]) -> str:
    """The text of the RuntimeError that `load` raises; "" if it raises none."""
    try:
        load()
    except NotImplementedError:  # a RuntimeError as well: what is not written yet refuses nothing
        raise
    except RuntimeError as error:
        return str(error)
    return ""
