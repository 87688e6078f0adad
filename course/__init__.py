"""The `course` command: everything around the lessons that is not a lesson."""

from __future__ import annotations

from typing import Any


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext course` in a notebook's first cell: `shared` is then the learner's framework."""
    from IPython.core.error import UsageError

    from .extension import activate
    from .sprints import CourseError

    try:
        print("\n".join(activate()))
    except CourseError as error:  # one line instead of a traceback
        raise UsageError(str(error)) from None
