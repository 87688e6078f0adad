"""The comparisons of the milestone tests: they fail where they should, and say what the answer looks like."""

from __future__ import annotations

import numpy as np
import pytest

from course.oracles import check, check_names, doing, refusal, require


def failure(call) -> str:
    with pytest.raises((pytest.fail.Exception, AssertionError)) as caught:
        call()
    return str(caught.value)


def test_a_value_that_is_right_passes_and_a_known_mistake_is_named():
    check("the sum", [1.0, 2.0], np.array([1, 2.00001]), {"twice the sum": [2, 4]})
    message = failure(lambda: check("the sum", [2.0, 4.0], [1, 2], {"half of it": [0.5, 1], "twice the sum": [2, 4]}))
    assert message.startswith("the sum:\n") and "twice the sum" in message and "half" not in message


def test_the_mistake_stands_before_the_numbers_and_many_numbers_are_not_listed():
    message = failure(lambda: check("the squares", np.arange(60.0).reshape(6, 10) + 1, np.arange(60.0).reshape(6, 10)))
    assert message == "the squares:\n60 of 60 numbers differ, shape (6, 10)\nthe first at [0, 0]: yours 1, by hand 0"
    wrong = np.arange(60.0)
    wrong[[7, 50]] = np.nan, 3
    message = failure(lambda: check("sixty", wrong, np.arange(60)))
    assert message.endswith("2 of 60 numbers differ, shape (60,)\nthe first at [7]: yours nan, by hand 7")
    lines = failure(lambda: check("the sum", [2.0, 4.0], [1, 2], {"twice the sum": [2, 4]})).splitlines()
    assert lines == ["the sum:", "That is what one gets from: twice the sum.", "[2. 4.]", "by hand:", "[1. 2.]"]
    for values in ([2.0, 4.0], np.arange(60.0)):
        assert "computed slowly" in failure(
            lambda values=values: check("the sum", values, np.zeros(len(values)), source="computed slowly")
        )


def test_numbers_with_labels_are_told_by_them():
    lines = failure(lambda: check("counts", [1, 3, 5], [1, 2, 4], labels=["n=1", "n=2", "n=3"])).splitlines()
    assert lines == [
        "counts:",
        "2 of 3 numbers differ, shape (3,)",
        "n=2: yours 3, by hand 2",
        "n=3: yours 5, by hand 4",
    ]


def test_another_mistake_gets_no_name_and_a_wrong_shape_is_told():
    assert "That is what" not in failure(lambda: check("the sum", 3.0, 1.0, {"twice the sum": 2.0}))
    assert "has shape (1,), but () is expected" in failure(lambda: check("the sum", [1.0], 1.0))
    assert "nan" in failure(lambda: check("the sum", np.nan, 1.0))
    message = failure(lambda: check("the sum", [3.0], 3.0, {"a dimension that is kept": [3.0]}))
    assert "has shape (1,), but () is expected" in message and "a dimension that is kept" in message


def test_a_missing_return_is_told():
    assert failure(lambda: check("the sum", None, [1, 2])) == "the sum is None: is a `return` missing?"


def test_names_are_compared_in_order():
    check_names("the names", ["a", "b"], ["a", "b"], {})
    assert "the other way round" in failure(
        lambda: check_names("the names", ["b", "a"], ["a", "b"], {"the other way round": ["b", "a"]})
    )


def test_an_exception_is_told_with_its_hint_and_a_stub_speaks_for_itself():
    def divide(hints):
        with doing("the mean", hints):
            raise ZeroDivisionError("division by zero")

    for hints in ({"zero": "Is it empty?", "nan": "no"}, {"zero": "Is it empty?", "by": "Is it empty?"}):
        assert failure(lambda hints=hints: divide(hints)) == (
            "the mean ends in ZeroDivisionError: division by zero\nIs it empty?"
        )
    with pytest.raises(NotImplementedError, match="exercise 1"), doing("the mean"):
        raise NotImplementedError("exercise 1")
    assert failure(lambda: require([], "nothing there")) == "nothing there"


def test_whoever_misses_np_is_told_of_xp():
    def miss(name):
        with doing("the mean"):
            raise NameError(f"name '{name}' is not defined")

    assert "np = xp(x)" in failure(lambda: miss("np"))
    assert "xp" not in failure(lambda: miss("target"))


def test_a_refusal_is_a_runtime_error_and_no_stub():
    def refuse(error):
        raise error

    assert refusal(lambda: None) == ""
    assert refusal(lambda: refuse(RuntimeError("key a"))) == "key a"
    with pytest.raises(NotImplementedError):
        refusal(lambda: refuse(NotImplementedError("exercise 1")))
    with pytest.raises(KeyError):
        refusal(lambda: refuse(KeyError("a")))
