"""A folder of checkpoints: each is written whole or not at all, checked before it is read, and removed when it is old.

A checkpoint is a folder `step-00001000` with a few files and `manifest.json`, which has each file's length and SHA-256.
It is made under a name that begins with a dot and renamed when all of it is on the disk; what is removed gets such
a name first. So whatever moment a process is killed at, each folder `step-…` is whole. Names with a dot:

    .step-00001000.0123abcd.tmp       being written, or left by a save that was killed: a later save removes it
    .step-00001000.0123abcd.replaced  gives way to a new one of the same step; it counts until that one has the name
    .step-00001000.0123abcd.old       being removed
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shared import checkpoint
from shared.checkpoint import CheckpointError

MODEL, TRAINING, STATE, MANIFEST = "model.safetensors", "training.safetensors", "state.json", "manifest.json"
KIND, VERSION = "shared.training checkpoint", 2  # in state.json; version 1 was a single file
_NAME = re.compile(r"step-(\d{8,})")
_COUNTS = re.compile(r"step-(?P<step>\d{8,})|\.step-(?P<replaced>\d{8,})\.[0-9a-f]{8}\.replaced")
_HIDDEN = re.compile(r"\.step-(\d{8,})\.[0-9a-f]{8}\.(tmp|replaced|old)")


@dataclass(frozen=True)
class Entry:
    """A checkpoint in a folder; `state` is its state.json, or None where that cannot be read."""

    step: int
    path: str
    state: dict[str, Any] | None

    @property
    def number(self) -> int:
        """Its place among all that were written into this folder, counted from 1; 0 where that is not known."""
        return self.state["number"] if self.state else 0

    @property
    def value(self) -> float | None:
        return self.state["value"] if self.state else None


# ---------------------------------------------------------------- finding


def find_checkpoint(folder: str | os.PathLike, which: str = "last") -> Path | None:
    """The folder of the checkpoint that `load_checkpoint(folder, …)` would read; None where there is none at all.

    Looks at names and state.json alone: whether the checkpoint is intact is seen when it is loaded. Raises
    CheckpointError for a file, ValueError for "best" where no checkpoint was saved with a `value`.

    >>> find_checkpoint("no/such/folder") is None
    True
    """
    if which not in ("last", "best"):
        raise ValueError(f"which should be 'last' or 'best', but got {which!r}")
    folder = os.fspath(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise CheckpointError(_what_file(folder))
    found = entries(folder)
    if not found:
        return Path(folder) if is_checkpoint(folder) else None
    if which == "last":
        return Path(found[-1].path)
    chosen = best_of(found)
    if chosen is None:
        raise ValueError(f"no checkpoint in {folder} was saved with a value, so none is the best: use which='last'")
    return Path(chosen.path)


def checkpoint_info(folder: str | os.PathLike, which: str = "last") -> dict[str, Any]:
    """What state.json of a checkpoint says: step, value, config, versions, names of the parts, the latest history.

    Enough to make the model that the checkpoint is for: `GPT(GPTConfig(**checkpoint_info(folder)["config"]))`.
    Raises FileNotFoundError where there is no checkpoint, CheckpointError for a damaged one.
    """
    path = open_checkpoint(folder, which, (STATE,))
    return read_state(path)


def entries(folder: str) -> list[Entry]:
    """The checkpoints in a folder, in the order in which they were written; empty where there is no such folder."""
    found: dict[int, Entry] = {}
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:  # those with a dot come first, so that one that was replaced gives way to the new one
        match, path = _COUNTS.fullmatch(name), os.path.join(folder, name)
        if match and os.path.isdir(path):
            step = int(match["step"] or match["replaced"])
            found[step] = Entry(step, path, _peek(path))
    return sorted(found.values(), key=lambda entry: _place(entry, list(found.values())))


def _place(entry: Entry, among: list[Entry]) -> tuple[float, int]:
    """Where an entry stands in time: by its number, since a training may have gone back to an earlier step.

    One whose number cannot be read comes last if its step is after that of the last that can be read, else first.
    """
    if entry.state is not None:
        return entry.number, entry.step
    latest = max((e for e in among if e.state), key=lambda e: (e.number, e.step), default=None)
    return (math.inf if latest is None or entry.step > latest.step else 0), entry.step


def best_of(found: list[Entry]) -> Entry | None:
    """The entry of smallest value, the earliest of equal ones; None where none has a value."""
    return min((e for e in found if e.value is not None), key=lambda e: e.value, default=None)


def is_checkpoint(folder: str) -> bool:
    """Whether a folder is one checkpoint, perhaps a damaged one, by its name or its manifest."""
    named = _NAME.fullmatch(os.path.basename(os.path.abspath(folder))) is not None
    return os.path.isdir(folder) and (named or os.path.exists(os.path.join(folder, MANIFEST)))


def _peek(path: str) -> dict[str, Any] | None:
    try:
        verify(path, (STATE,))  # one that was damaged could make an older checkpoint seem the last one
        return read_state(path)
    except (OSError, CheckpointError):
        return None


def _what_file(path: str) -> str:
    """What a file is that was given in place of a folder."""
    try:
        old = checkpoint.load(path, map_location="cpu")
    except (OSError, CheckpointError):
        old = None
    if isinstance(old, dict) and old.get("training") == 1:
        return (
            f"{path} is a checkpoint of an earlier version, in a single file; now a checkpoint is a folder. "
            f'shared.checkpoint.load(path)["model"] still gives its weights; the training starts anew in another folder'
        )
    return f"{path} is a file, but a checkpoint is a folder written by save_checkpoint"


# ---------------------------------------------------------------- checking and reading


def open_checkpoint(folder: str | os.PathLike, which: str, files: tuple[str, ...]) -> str:
    """The path of the checkpoint to read, after comparing `files` with its manifest.

    Raises FileNotFoundError where there is none. For a damaged one CheckpointError, which names the file and
    the newest checkpoint that is intact: to go on from an older state is a decision, and not taken in silence.
    """
    folder = os.fspath(folder)
    found = find_checkpoint(folder, which)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "cannot load: there is no checkpoint in this folder", folder)
    path = str(found)
    try:
        verify(path, files)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {_remedy(path)}") from error
    return path


def _remedy(damaged: str) -> str:
    parent = os.path.dirname(os.path.abspath(damaged))
    for entry in reversed(entries(parent)):
        if not os.path.samefile(entry.path, damaged):
            with contextlib.suppress(OSError, CheckpointError):
                verify(entry.path, (MODEL, TRAINING, STATE))
                return (
                    f"The newest intact checkpoint is {entry.path}: load it by this name, or move {damaged} away to "
                    f"go on from it"
                )
    return f"No other checkpoint in {parent} is intact"


def verify(path: str, files: tuple[str, ...]) -> None:
    """Raises CheckpointError, which names the file, where one of `files` is not what the manifest says."""
    listed = _read_json(os.path.join(path, MANIFEST), "files")["files"]
    for name in files:
        file, expected = os.path.join(path, name), listed.get(name) if isinstance(listed, dict) else None
        if not isinstance(expected, dict) or not isinstance(expected.get("bytes"), int):
            raise CheckpointError(f"{os.path.join(path, MANIFEST)} is damaged: it lacks the length of {name}")
        if not os.path.isfile(file):
            raise CheckpointError(f"{file} is missing")
        size = os.path.getsize(file)
        if size != expected["bytes"]:
            state = "truncated" if size < expected["bytes"] else "changed"
            raise CheckpointError(
                f"{file} is {state}: it has {size:,} bytes, and by its {MANIFEST} {expected['bytes']:,} were written"
            )
        with open(file, "rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != expected.get("sha256"):
                raise CheckpointError(
                    f"{file} is not the file that was written: it is damaged, was edited, or comes from another "
                    f"checkpoint (its SHA-256 differs from that in {MANIFEST})"
                )
    if STATE in files:
        _check_name(path, read_state(path)["step"])


def _check_name(path: str, step: int) -> None:
    match = _NAME.fullmatch(os.path.basename(path))
    if match and int(match[1]) != step:
        raise CheckpointError(
            f"{path} has the checkpoint of step {step}: it was renamed, call it {name_of(step)} again"
        )


def read_state(path: str) -> dict[str, Any]:
    """What state.json has, or CheckpointError."""
    file = os.path.join(path, STATE)
    state = _read_json(file, "kind", "version", "number", "step", "value")
    if state["kind"] != KIND or not isinstance(state["version"], int):
        raise CheckpointError(f"{file} was not written by save_checkpoint")
    if state["version"] > VERSION:
        raise CheckpointError(f"{file} was written by a newer version of this library. Update")
    return state


def _read_json(file: str, *keys: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as opened:
            value = json.load(opened)
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing: this is not a whole checkpoint of save_checkpoint") from None
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: it is not JSON ({error})") from error
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise CheckpointError(f"{file} was not written by save_checkpoint: it lacks {', '.join(missing)}")
    return value


# ---------------------------------------------------------------- writing


def name_of(step: int) -> str:
    """
    >>> name_of(1000)
    'step-00001000'
    """
    return f"step-{step:08d}"


def prepare(folder: str) -> None:
    """Makes the folder for checkpoints where there is none; an OSError that says why it cannot be one."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, "cannot save: this is a file, and checkpoints need a folder", folder)
    if is_checkpoint(folder):
        raise FileExistsError(errno.EEXIST, "cannot save: this is one checkpoint; give the folder around it", folder)
    try:
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            sync_folder(os.path.dirname(os.path.abspath(folder)))
    except OSError as error:
        raise _explain(error, folder) from error


def write_checkpoint(folder: str, step: int, contents: Mapping[str, Any]) -> str:
    """Writes `folder/step-…` with the files of `contents`, and its manifest; returns the path.

    A name ending in .json gets JSON, the others go through `checkpoint.save`. Whatever fails, and whenever the process
    is killed, the checkpoints that were there before are unchanged, and the new one is there as a whole or not at all.
    """
    target = os.path.join(folder, name_of(step))
    temporary = _hidden(target, "tmp")
    prepare(folder)
    clean(folder)
    try:
        os.mkdir(temporary)
        with _locked(temporary):
            listed = {name: _write_file(os.path.join(temporary, name), value) for name, value in contents.items()}
            _write_file(os.path.join(temporary, MANIFEST), {"kind": KIND, "files": listed})
            sync_folder(temporary)
            _put_in_place(temporary, target)
            sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _explain(error, folder) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    clean(folder)  # the one that was replaced
    return target


def _put_in_place(temporary: str, target: str) -> None:
    """Gives a finished folder its name; one that has it already is set aside, and counts until the name is taken."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, _hidden(target, "replaced"))
        try:
            os.rename(temporary, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process has just saved this step
                raise


def _write_file(path: str, value: Any) -> dict[str, Any]:
    """Writes one file until it is on the disk; returns its entry in the manifest."""
    with open(path, "xb") as file:
        hashing = _Hashing(file)
        if path.endswith(".json"):
            hashing.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
        else:
            checkpoint.save(value, hashing)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": hashing.bytes, "sha256": hashing.digest.hexdigest()}


class _Hashing:
    """A file that is being written, with the length and SHA-256 of what has been."""

    def __init__(self, file: BinaryIO):
        self.file, self.bytes, self.digest = file, 0, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.bytes += len(data)


def _hidden(path: str, ending: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{secrets.token_hex(4)}.{ending}")


def sync_folder(folder: str) -> None:
    """Makes sure that names given in `folder` are on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[bool]:
    """Marks a folder as being written, until the block or the process ends; gives False if another process has it."""
    if os.name != "posix":
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield checkpoint.lock(handle)
    finally:
        os.close(handle)


def _explain(error: OSError, folder: str) -> OSError:
    reason = checkpoint.advice(error, folder)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        reason = "a part of this path is a file, not a folder"
    count = len(entries(folder))
    old = f"; the {count} checkpoints that were there before are unchanged" if count > 1 else ""
    old = "; the checkpoint that was there before is unchanged" if count == 1 else old
    return OSError(error.errno or errno.EIO, f"cannot save: {reason}{old}", folder)


# ---------------------------------------------------------------- removing


def prune(folder: str, keep_last: int | None) -> None:
    """Removes all but the `keep_last` checkpoints written last and the best; None keeps all of them.

    Those whose state.json cannot be read are neither counted nor removed.
    """
    known = [entry for entry in entries(folder) if entry.state is not None]
    best = best_of(known)
    for entry in known[:-keep_last] if keep_last else []:
        if entry is not best:
            discard(entry.path)


def discard(path: str) -> None:
    """Removes a checkpoint: first its name, so that it cannot be taken for a whole one while its files go."""
    folder = os.path.dirname(path)
    match = _HIDDEN.fullmatch(os.path.basename(path))
    old = _hidden(os.path.join(folder, name_of(int(match[1]))) if match else path, "old")
    try:
        os.rename(path, old)
        sync_folder(folder)
        shutil.rmtree(old)
    except FileNotFoundError:  # another process removes it too
        pass
    except OSError as error:
        warnings.warn(f"an old checkpoint could not be removed: {error}", stacklevel=3)


def clean(folder: str) -> None:
    """Removes what processes left that were killed while saving or removing, and what has been replaced."""
    for name in sorted(os.listdir(folder)):
        match, path = _HIDDEN.fullmatch(name), os.path.join(folder, name)
        if not match:
            continue
        if match[2] == "replaced":
            if os.path.isdir(os.path.join(folder, name_of(int(match[1])))):
                discard(path)
        elif match[2] == "old":
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError), _locked(path) as free:
                if free and _idle(path) > checkpoint.ABANDONED_AFTER:
                    shutil.rmtree(path)


def _idle(folder: str) -> float:
    """Seconds since anything in a folder was written."""
    paths = [folder, *(os.path.join(folder, name) for name in os.listdir(folder))]
    return time.time() - max(os.stat(path).st_mtime for path in paths)
