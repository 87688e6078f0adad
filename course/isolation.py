"""Running one test in a process of its own, within a time limit: a crash or an endless loop fails that test alone."""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import json
import os
import pdb
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

GRACE = 0.5  # seconds after the limit in which the process may note where it is; four times as many where it is busy
BUSY = 4  # a test that computes, on a machine that does other work too, may take this many times as long


def run(item: pytest.Item, nextitem: pytest.Item | None, limit: float) -> list[pytest.TestReport]:
    """The reports of one test: its own, or one that says how it ended without writing any."""
    return _forked(item, limit) if hasattr(os, "fork") else _interrupted(item, nextitem, limit)


def _forked(item: pytest.Item, limit: float) -> list[pytest.TestReport]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        results, trace = Path(folder) / "reports.json", Path(folder) / "trace"
        trace.touch()
        child = os.fork()
        if child == 0:
            _child(item, results, trace)
        status = _wait(child, started, limit)
        seconds = time.monotonic() - started
        if results.exists():
            return [_from_json(item, data) for data in json.loads(results.read_text(encoding="utf-8"))]
        report = _died(item, status, limit, seconds, trace.read_text(encoding="utf-8", errors="replace"))
        report.sections += _left(item)
        return [report]


def _child(item: pytest.Item, results: Path, trace: Path) -> None:
    """Runs the test, writes its reports, and ends this process."""
    started = time.monotonic()
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a process that runs tests for another one handles it
    _restrain()
    log = trace.open("w")
    faulthandler.enable(log)
    # The parent asks where the test is; faulthandler's own timer reads the stack of a running thread, and may crash.
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    faulthandler.register(signal.SIGUSR1, file=log, all_threads=False, chain=True)  # it notes that, and ends
    try:
        reports = runtestprotocol(item, log=False, nextitem=None)
    except BaseException as error:  # KeyboardInterrupt or pytest.exit out of the learner's code
        text = f"the test was ended by {type(error).__name__}: {error}"
        reports = [_report(item, text, time.monotonic() - started)]
        frames = traceback.extract_tb(error.__traceback__)
        reports[0].frames = [(frame.filename, frame.lineno) for frame in frames]  # type: ignore[attr-defined]
    for report in reports:
        report.sections = [(name, _shortened(text)) for name, text in report.sections]
    data = [item.config.hook.pytest_report_to_serializable(config=item.config, report=report) for report in reports]
    temporary = results.with_suffix(".part")
    temporary.write_text(json.dumps(data, default=str), encoding="utf-8")
    temporary.rename(results)
    os._exit(0)


def _restrain() -> None:
    """What a loop could fill, and a debugger, which would wait for keys that cannot reach this process."""
    import resource

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    sizes = {resource.RLIMIT_FSIZE: 2**28, resource.RLIMIT_DATA: memory}
    if Path("/dev/nvidiactl").exists():
        del sizes[resource.RLIMIT_DATA]  # CUDA maps what it will never use
    for kind, size in sizes.items():
        with contextlib.suppress(ValueError, OSError):  # the user allows less, or the system knows no such limit
            resource.setrlimit(kind, (size, resource.getrlimit(kind)[1]))

    def no_debugger(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("a debugger needs the terminal and time: run pytest with --time-limit 0, or take this out")

    sys.breakpointhook = pdb.set_trace = no_debugger


def _shortened(text: str, most: int = 10_000) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}\n[…]\n{text[-most // 2 :]}"


def _wait(child: int, started: float, limit: float) -> int | None:
    """The child's exit status, or None where its time was up; nothing it started outlives it.

    Time in which this process did not run either, as on a machine that stood still, is not the child's.
    """
    pause, asked, deadline = 0.001, False, started + limit
    lost, last = 0.0, time.monotonic()
    try:
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return None if asked else status
            lost += max(0.0, time.monotonic() - last - pause - 0.1)
            last = time.monotonic()
            now = last - lost
            if now > deadline + GRACE * (BUSY if deadline > started + limit else 1):
                return None
            if not asked and now > deadline:
                used = _cpu_seconds(child)
                computes = used < limit and (used > limit / BUSY or _wants_to_run(child))
                if computes and now < started + BUSY * limit:
                    deadline += 0.1
                else:
                    os.kill(child, signal.SIGUSR1)  # it notes where it is, and ends
                    asked = True
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _cpu_seconds(process: int) -> float:
    """What a process has used; 0 where it is gone."""
    import psutil

    try:
        used = psutil.Process(process).cpu_times()
    except psutil.Error:
        return 0.0
    return used.user + used.system


def _wants_to_run(process: int) -> bool:
    """Whether a process is at work or would be: one that others keep from the processor has used little of it."""
    import psutil

    try:
        return psutil.Process(process).status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
    except psutil.Error:
        return False


def _left(item: pytest.Item) -> list[tuple[str, str]]:
    """What a process printed that ended before it could report it; else the next test would seem to have printed it."""
    capture = item.config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        return []
    texts = zip(("stdout", "stderr"), capture.read_global_capture(), strict=True)
    return [(f"Captured {name} call", _shortened(text)) for name, text in texts if text]


def _from_json(item: pytest.Item, data: dict[str, Any]) -> pytest.TestReport:
    if isinstance(data["longrepr"], list):  # of a skipped test: (file, line, reason)
        data["longrepr"] = tuple(data["longrepr"])
    return item.config.hook.pytest_report_from_serializable(config=item.config, data=data)


def _report(item: pytest.Item, text: str, seconds: float) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, {name: 1 for name in item.keywords}, "failed", text, "call", duration=seconds
    )


def _died(item: pytest.Item, status: int | None, limit: float, seconds: float, trace: str) -> pytest.TestReport:
    """The report of a test whose process wrote none."""
    # faulthandler lists the threads, the innermost frame of each first; the main thread comes last.
    thread = trace.rpartition("(most recent call first):")[2]
    frames = re.findall(r'^  File "(.+)", line (\d+) in (.+)$', thread, re.MULTILINE)
    if status is None:
        text = f"it did not end within {limit:g} s: an endless loop?"
        if seconds > 1.5 * limit + GRACE:  # it was given more time, since other programs had the processor, too
            text += " Or a slow one: the machine is busy, so try once more when it is not."
    elif os.WIFSIGNALED(status):
        text = f"it ended its process with signal {signal.Signals(os.WTERMSIG(status)).name}"
    else:
        text = f"it ended its process with exit code {os.waitstatus_to_exitcode(status)}"
    # The learner's innermost line, where there is one: a loop there may be seen in what it calls.
    folder = os.environ.get("SHARED_WORKSPACE") or str(item.config.rootpath / "shared")
    at = next(((f, line, name) for f, line, name in frames if Path(f).is_relative_to(folder)), None)
    if at:
        line, path = _line(at[0], int(at[1])), Path(at[0])
        where = path.relative_to(item.config.rootpath) if path.is_relative_to(item.config.rootpath) else path
        text += f" It was in `{at[2]}`, {where}:{at[1]}" + (f": `{line}`" if line else "")
    report = _report(item, text, seconds)
    if status is None:
        report.late = True  # type: ignore[attr-defined]
    report.frames = [(file, int(line)) for file, line, _ in reversed(frames)]  # type: ignore[attr-defined]
    return report


def _line(file: str, number: int) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()[number - 1].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


# ---------------------------------------------------------------- where processes cannot fork (Windows)


class TimeLimit(BaseException):
    """Raised in the main thread when a test has used up its time; no `except Exception` swallows it."""


def _interrupted(item: pytest.Item, nextitem: pytest.Item | None, limit: float) -> list[pytest.TestReport]:
    with _alarm(limit):
        return runtestprotocol(item, log=False, nextitem=nextitem)


@contextlib.contextmanager
def _alarm(limit: float) -> Iterator[None]:
    """Raises TimeLimit after `limit` seconds; it reaches Python code, not one long call into a library."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeLimit(f"it did not end within {limit:g} s: an endless loop?")

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(limit, lambda: _thread.interrupt_main(signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
