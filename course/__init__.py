"""The `course` command: everything around the lessons that is not a lesson."""

from __future__ import annotations

from typing import Any


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext course` in a notebook's first cell: `shared` is then the learner's framework."""
    from .extension import activate

    print("\n".join(activate()))
