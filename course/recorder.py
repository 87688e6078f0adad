"""A pytest plugin that writes what each test did to the JSON file named in $COURSE_REPORT."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_tests: dict[str, dict[str, Any]] = {}


def _entry(nodeid: str) -> dict[str, Any]:
    fresh = {"outcome": "passed", "seconds": 0.0, "message": "", "measured": {}, "exercises": [], "place": ""}
    return _tests.setdefault(nodeid, fresh)


def taken() -> dict[str, dict[str, Any]]:
    """What has been recorded, once; the next tests begin a report of their own."""
    found = dict(_tests)
    _tests.clear()
    return found


def _message(report: pytest.CollectReport | pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash else str(report.longrepr)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported has no tests: its failure stands under the file's own name."""
    if report.failed:
        _entry(report.nodeid).update(outcome="failed", message=_message(report))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Sum up set-up, call and tear-down of a test: the worst outcome counts."""
    entry = _entry(report.nodeid)
    entry["seconds"] += report.duration
    # record_property("accuracy", 0.93) in a milestone's test puts a measured number into the milestone table.
    entry["measured"].update({str(key): value for key, value in report.user_properties})
    if report.failed:
        entry["outcome"] = "failed"
        entry["message"] = _message(report)
        entry["exercises"] = getattr(report, "exercises", [])
        entry["place"] = getattr(report, "place", "")
    elif report.skipped and entry["outcome"] == "passed":
        entry["outcome"] = "skipped"
        entry["message"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report."""
    if path := os.environ.get("COURSE_REPORT"):
        Path(path).write_text(json.dumps(_tests, default=str), encoding="utf-8")
