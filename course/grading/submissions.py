"""Reading what learners handed in: the text of the modules that hold exercises, without running or unpacking it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..sprints import CourseError

LARGEST = 1_000_000  # bytes of one module
ENTRIES = 50_000  # files of one learner that are looked through
SKIPPED = {"node_modules", "__pycache__", "__MACOSX", "backup"}


@dataclass
class Submission:
    """One learner: each module's text, why others were not taken, what workspace.json lists (None: unreadable)."""

    name: str
    modules: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    recorded: list[str] | None = None
    problem: str = ""


class Unfit(Exception):
    """Why something of a learner cannot be taken."""


def collect(folder: Path, wanted: dict[str, str]) -> tuple[list[Submission], list[str]]:
    """(one submission per folder or zip file in `folder`, names of what was passed over).

    `wanted` is {path such as shared/autograd.py: module}.
    """
    if not folder.is_dir():
        raise CourseError(f"There is no folder {folder}.")
    if (folder / "shared").is_dir():
        raise CourseError(
            f"{folder} is itself a workspace. Give the folder that holds one folder (or zip file) per learner."
        )
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    names = {path.name for path in entries if path.is_dir()}
    found, others = [], []
    for path in entries:
        if path.is_symlink():
            found.append(Submission(path.name, problem="this is a symbolic link; only plain folders are graded"))
        elif path.is_dir():
            found.append(_submission(path.name, wanted, functools.partial(_Folder, path)))
        elif path.suffix.lower() == ".zip":
            name = path.name if path.stem in names else path.stem
            found.append(_submission(name, wanted, functools.partial(_Zip, path)))
        else:
            others.append(path.name)
    if not found:
        raise CourseError(f"{folder} holds no folder and no zip file of a learner.")
    return found, others


def _submission(name: str, wanted: dict[str, str], source: Callable[[], _Folder | _Zip]) -> Submission:
    submission = Submission(name)
    try:
        with contextlib.closing(source()) as files:
            _fill(submission, files, wanted)
    except Unfit as error:
        submission.problem = str(error)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        submission.problem = f"it cannot be read: {error}"
    return submission


def _fill(submission: Submission, files: _Folder | _Zip, wanted: dict[str, str]) -> None:
    paths = list(files.paths())
    prefix = _prefix(paths, wanted)
    for path, module in wanted.items():
        if f"{prefix}{path}" in paths:
            try:
                data = files.read(f"{prefix}{path}", LARGEST)
                submission.modules[module] = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            except UnicodeDecodeError as error:
                submission.unusable[module] = f"{path}: not UTF-8 text (byte {error.start}: {error.reason})"
            except Unfit as error:
                submission.unusable[module] = f"{path}: {error}"
    with contextlib.suppress(Unfit, OSError, ValueError, KeyError, TypeError, RecursionError):
        record: Any = json.loads(files.read(f"{prefix}workspace.json", LARGEST).decode())
        submission.recorded = [str(key) for key in record["exercises"].keys()]


def _prefix(paths: list[str], wanted: dict[str, str]) -> str:
    """Where in a submission the workspace lies: "" or "workspace/" or "week 3/workspace/"."""
    found = {}
    for path in paths:
        parts = PurePosixPath(path).parts
        for size in range(2, len(parts) + 1):
            if "/".join(parts[-size:]) in wanted and not SKIPPED & set(parts):
                where = parts[:-size]
                prefix = "".join(f"{part}/" for part in where)
                recorded = f"{prefix}workspace.json" in paths
                found[prefix] = (not recorded, where[-1:] != ("workspace",), len(where))
    if not found:
        some = any("shared" in PurePosixPath(path).parts[:-1] for path in paths)
        raise Unfit("shared/ holds no module with exercises" if some else "there is no folder shared/ in it")
    best = min(found.values())
    chosen = sorted(prefix for prefix, rank in found.items() if rank == best)
    if len(chosen) > 1:
        raise Unfit(f"there are {len(chosen)} workspaces in it: {', '.join(chosen[:3])}")
    return chosen[0]


class _Folder:
    """A learner's folder; symbolic links are never followed."""

    def __init__(self, path: Path):
        self.path = path

    def close(self) -> None:
        """Nothing is held open."""

    def paths(self) -> Iterator[str]:
        """Files, as paths with slashes."""
        count = 0
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in SKIPPED)
            for name in names:
                count += 1
                if count > ENTRIES:
                    raise Unfit(f"it holds more than {ENTRIES} files: hand in the folder workspace/ alone")
                yield Path(folder, name).relative_to(self.path).as_posix()

    def read(self, path: str, largest: int) -> bytes:
        """A plain file's content."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if (self.path / path).is_symlink():
            raise Unfit("a symbolic link; only plain files are graded")
        with os.fdopen(os.open(self.path / path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Unfit("not a plain file")
            return _limited(status.st_size, largest, file.read(largest + 1))


class _Zip:
    """A zip file, read in memory and never unpacked, so that no path in it can lead anywhere."""

    def __init__(self, path: Path):
        self.file = zipfile.ZipFile(path)
        if len(self.file.infolist()) > ENTRIES:
            raise Unfit(f"it holds more than {ENTRIES} files: hand in the folder workspace/ alone")

    def close(self) -> None:
        """Lets go of the file."""
        self.file.close()

    def paths(self) -> Iterable[str]:
        """Names of the files in it, without those that point out of it."""
        names = (info.filename for info in self.file.infolist() if not info.is_dir())
        return [name for name in names if not name.startswith("/") and ".." not in PurePosixPath(name).parts]

    def read(self, path: str, largest: int) -> bytes:
        """One file's content."""
        info = self.file.getinfo(path)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise Unfit("a symbolic link; only plain files are graded")
        if info.file_size > largest:
            return _limited(info.file_size, largest, b"")
        with self.file.open(info) as file:
            return _limited(info.file_size, largest, file.read(largest + 1))


def _limited(size: int, largest: int, data: bytes) -> bytes:
    if max(size, len(data)) > largest:
        raise Unfit(f"{max(size, len(data)) / 1e6:.1f} MB large; a module of at most {largest / 1e6:g} MB is graded")
    return data
