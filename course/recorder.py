"""A pytest plugin that writes what each test did to the JSON file named in $COURSE_REPORT."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

_tests: dict[str, dict[str, Any]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Sum up set-up, call and tear-down of a test: the worst outcome counts."""
    entry = _tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0, "message": "", "measured": {}})
    entry["seconds"] += report.duration
    # record_property("accuracy", 0.93) in a milestone's test puts a measured number into the milestone table.
    entry["measured"].update({str(key): value for key, value in report.user_properties})
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        entry["outcome"] = "failed"
        entry["message"] = crash.message if crash else str(report.longrepr)
    elif report.skipped and entry["outcome"] == "passed":
        entry["outcome"] = "skipped"
        entry["message"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report."""
    if path := os.environ.get("COURSE_REPORT"):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(_tests, file, default=str)
