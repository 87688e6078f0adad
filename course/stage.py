"""A pytest plugin: the tests are collected once, and each job runs its own among them in a fork, its function in place.

Used by course/warm.py; see there.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from .testing import adopt


class Stage:
    """Hands `run` pairs of a job and what its process does, in place of running the tests that were collected.

    The keys of these jobs are written to `taken` first; `log` is the file to which this process prints.
    """

    def __init__(self, jobs: list[Any], taken: Path, log: Path, run: Callable[[list[Any]], None]):
        self.jobs, self.taken, self.log, self.run = jobs, taken, log, run
        self.forked = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """In the stage run all jobs; in a job's process leave it to pytest."""
        if self.forked or session.testsfailed:  # a file that cannot be imported: pytest ends with that
            return None
        pairs = []
        for job in self.jobs:
            items = [item for test in dict.fromkeys(job.tests) for item in session.items if _is(item, test)]
            prepared = job.graft.prepared()
            if items and prepared is not None:
                pairs.append((job, self._body(session, job, items, *prepared)))
        self.taken.write_text(json.dumps([job.key for job, _ in pairs]), encoding="utf-8")
        gc.collect()
        gc.freeze()
        self.run(pairs)
        return True

    def _body(
        self, session: pytest.Session, job: Any, items: list[pytest.Item], function: FunctionType, code: CodeType
    ) -> Callable[[], int]:
        """What the process of one job does."""

        def body() -> int:
            self.forked = True
            before = self.log.stat()
            for stream in range(3, 64):  # pytest's own copies of the streams follow those of this process
                with contextlib.suppress(OSError):
                    if os.path.samestat(os.fstat(stream), before):
                        os.dup2(1, stream)
            function.__code__ = code
            adopt(session.config, Path(job.variables["SHARED_WORKSPACE"]), job.until)
            session.items[:] = items
            with contextlib.suppress(session.Interrupted, session.Failed):
                session.config.hook.pytest_runtestloop(session=session)
            status = int(bool(session.testsfailed))
            session.config.hook.pytest_sessionfinish(session=session, exitstatus=status)
            return status

        return body


def _is(item: pytest.Item, test: str) -> bool:
    """True for a test of this node id, with or without parameters."""
    return item.nodeid == test or item.nodeid.startswith(f"{test}[")
