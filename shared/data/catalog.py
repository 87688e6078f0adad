"""The catalog: which datasets there are, where their files lie, whether the bytes are the right ones.

For the `course data` command: `entries()`, `status(name)`, `verify(name)`, `fetch(name)`.
"""

from __future__ import annotations

import functools
import os
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path

from shared.data.download import File, damage, from_mirrors, set_aside


class DatasetUnavailable(RuntimeError):
    """A dataset's file is nowhere here and could not be fetched. The message is one sentence with the remedy.

    `attempts` lists (mirror, reason) for what was tried.
    """

    def __init__(self, message: str, attempts: list[tuple[str, str]] | None = None):
        super().__init__(message)
        self.attempts = attempts or []


@dataclass(frozen=True)
class Entry:
    """One dataset, as the catalog lists it. `embedded`: the package that carries it (`files` is empty then)."""

    name: str
    title: str
    kind: str
    description: str
    license: str
    citation: str
    splits: dict[str, int]
    files: tuple[File, ...]
    embedded: str | None = None

    @property
    def bytes(self) -> int:
        """What a complete download weighs."""
        return sum(file.bytes for file in self.files)


def catalog_path() -> Path:
    """datasets/catalog.toml of the repository this package belongs to."""
    for folder in Path(__file__).resolve().parents:
        path = folder / "datasets" / "catalog.toml"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "datasets/catalog.toml was not found above shared/data: the course runs from its repository, "
        "so install it there with `pip install -e .` (or run `make course`)."
    )


@functools.cache
def _read(path: Path) -> dict[str, Entry]:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    entries = {}
    for name, values in table.items():
        files = tuple(File(**{**f, "mirrors": tuple(f["mirrors"])}) for f in values.pop("files", []))
        entries[name] = Entry(name=name, files=files, **{"splits": {}, **values})
    return entries


def entries() -> list[Entry]:
    """Every dataset, in the catalog's order.

    >>> [e.name for e in entries()][:2]
    ['mnist', 'fashion-mnist']
    """
    return list(_read(catalog_path()).values())


def entry(name: str) -> Entry:
    """The dataset called `name`; ValueError lists the names there are.

    >>> entry("mnist-5k").splits
    {'train': 4000, 'test': 1000}
    """
    known = _read(catalog_path())
    if name not in known:
        raise ValueError(f"no dataset is called {name!r}; the catalog has: {', '.join(known)}")
    return known[name]


def cache_folder() -> Path:
    """Where downloads go: $COURSE_CACHE, else datasets/cache in the repository."""
    chosen = os.environ.get("COURSE_CACHE")
    return Path(chosen) if chosen else catalog_path().parent / "cache"


def data_folders() -> list[Path]:
    """The read-only folders in $COURSE_DATA."""
    return [Path(part) for part in os.environ.get("COURSE_DATA", "").split(os.pathsep) if part]


def locate(name: str, file: File, root: Path | None = None) -> Path | None:
    """The verified path of `file` without any download, or None.

    Looks in `root` (if given), the folders of $COURSE_DATA, the cache. A damaged file in $COURSE_DATA is
    named in a warning and passed over; a damaged file in `root` or the cache is named and set aside, so that
    nobody reads it.
    """
    for folder in data_folders():
        path = folder / name / file.name
        if path.is_file():
            problem = damage(path, file)
            if problem is None:
                return path
            warnings.warn(f"{path} is damaged ({problem}) and was not used", stacklevel=2)
    for folder in ([root] if root else []) + [cache_folder() / name]:
        path = folder / file.name
        if path.is_file():
            problem = damage(path, file)
            if problem is None:
                return path
            aside = set_aside(path)
            warnings.warn(f"{path} is damaged ({problem}); it was set aside as {aside.name}", stacklevel=2)
    return None


def fetch(name: str, progress: bool = True, root: Path | None = None, force: bool = False) -> dict[str, Path]:
    """Makes sure that every file of the dataset is on this machine; returns {file name: verified path}.

    Downloads what is missing into the cache (or `root`), trying each mirror in turn; with `force`, even what
    is there. Embedded datasets return {}. Raises DatasetUnavailable where no mirror served the right bytes.

    >>> fetch("digits")
    {}
    """
    found = {}
    for file in entry(name).files:
        path = None if force else locate(name, file, root)
        found[file.name] = path or fetch_file(name, file, progress, root)
    return found


def fetch_file(name: str, file: File, progress: bool = True, root: Path | None = None) -> Path:
    """Downloads one file into the cache (or `root`); returns its path or raises DatasetUnavailable."""
    path = (root or cache_folder() / name) / file.name
    attempts = from_mirrors(file, path, progress)
    if attempts is not None:
        raise DatasetUnavailable(_sentence(name, file, attempts), attempts) from None
    return path


def _sentence(name: str, file: File, attempts: list[tuple[str, str]]) -> str:
    """One sentence: what is missing, why, and what to do."""
    reasons = "; ".join(dict.fromkeys(reason for _, reason in attempts))
    return (
        f"The dataset {name!r} is not on this machine and {file.name} could not be fetched ({reasons}): "
        f"connect to the internet and run `python -m course data fetch {name}`, or put the file into a folder {name}/ "
        f"and name the folder above it in $COURSE_DATA."
    )


def status(name: str) -> str:
    """Where the dataset is, without any download and without reading whole files:
    "embedded", "course-data", "cached", "incomplete" (some files, or of the wrong size) or "missing".

    >>> status("digits")
    'embedded'
    """
    dataset = entry(name)
    if dataset.embedded:
        return "embedded"
    places = [_place(name, file) for file in dataset.files]
    if all(place == "missing" for place in places):
        return "missing"
    if "missing" in places or "damaged" in places:
        return "incomplete"
    return "cached" if "cached" in places else "course-data"


def _place(name: str, file: File) -> str:
    place = "missing"
    kinds = [("course-data", folder) for folder in data_folders()] + [("cached", cache_folder())]
    for kind, folder in kinds:
        path = folder / name / file.name
        if path.is_file():
            if path.stat().st_size == file.bytes:
                return kind
            place = "damaged"
    return place


def verify(name: str) -> dict[str, str]:
    """Reads every copy of every file and compares checksums, changing nothing: {path: "ok" or what is wrong}.

    A file that is nowhere is listed under its bare name as "missing". Embedded datasets return {}.

    >>> verify("iris")
    {}
    """
    report = {}
    for file in entry(name).files:
        paths = [folder / name / file.name for folder in [*data_folders(), cache_folder()]]
        present = [path for path in paths if path.is_file()]
        for path in present:
            report[str(path)] = damage(path, file) or "ok"
        if not present:
            report[file.name] = "missing"
    return report
