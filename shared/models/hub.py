"""Models on Hugging Face's hub: their names, what is known of their files, and the folder they are kept in.

Downloads go through `huggingface_hub`: its cache (`HF_HOME`, `HF_HUB_CACHE`), which transformers and other programs
share, its offline mode (`HF_HUB_OFFLINE`), another server in its place (`HF_ENDPOINT`), the user's token.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from shared.checkpoint import CheckpointError
from shared.models.gpt import GPTConfig
from shared.models.hugging_face import config_from_hugging_face

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
VOCAB, MERGES, VOCABULARY = "vocab.json", "merges.txt", "vocabulary.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # their names on the hub
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")  # in a folder, any file that ends so
MAIN = "main"  # the branch whose last commit is taken where no revision is given
CHECK_BELOW = 10_000_000  # bytes; files as small as that are checked whenever they are used


class Known(NamedTuple):
    """A model of KNOWN: where it is, at which commit, and the sha256 of its model.safetensors there."""

    repo: str
    revision: str
    sha256: str


# Each commit and each checksum was found in several public files that do not depend on one another.
KNOWN = {
    "gpt2": Known(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": Known(
        "openai-community/gpt2-medium",
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": Known(
        "openai-community/gpt2-large",
        "32b71b12589c2f8d625668d2335a01cac3249519",
        "5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce",
    ),
    "gpt2-xl": Known(
        "openai-community/gpt2-xl",
        "15ea56dee5df4983c59b2538573817e1667135e2",
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
    "distilgpt2": Known(
        "distilbert/distilgpt2",
        "2290a62682d06624634c1f46a6ad5be0f47f38aa",
        "e1ff18884359fe8beb795a5f414feb85a6ce3d929ad019c0d958c039d2b94a1b",
    ),
}
NO_ANSWER = ("ConnectError", "ConnectionError", "ConnectTimeout", "ProxyError", "ReadTimeout", "SSLError")
INSTEAD = (
    "Without the hub: sprints/09_train_gpt2/model is a small model that this course trained, and any folder with "
    f"{CONFIG} and {WEIGHTS} can be named"
)


class ModelUnavailable(RuntimeError):
    """A model that is not here and could not be fetched, or not as it should be. The message says what to do."""


# ---------------------------------------------------------------- folders


def pretrained_folder(
    name_or_folder: str | os.PathLike,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
    weights: bool = True,
) -> Path:
    """The folder with the files of a model: config.json, weights and tokenizer, downloaded where they are not there.

    One of KNOWN ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"), at a commit that never changes; any
    "owner/name" on Hugging Face's hub, at `revision` (a branch, a tag or a commit; the last commit of "main", which is
    printed, where there is none); or a folder, which is returned as it is ("./gpt2" where its name is one of KNOWN).
    Files are kept in `cache_dir`, by default huggingface_hub's. `offline=True` only looks there, as HF_HUB_OFFLINE=1
    does, whatever `offline` is. Without `weights` the tokenizer has to be there and the weights are not fetched.

    What was downloaded is compared with the checksum in KNOWN, or the one that the hub gives, once; a wrong file is
    removed again. Weights are safetensors only: pickles are refused, since they can run code. ModelUnavailable where
    something is missing or wrong, FileNotFoundError for a folder that does not exist, ValueError for another model.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> pretrained_folder(folder) == Path(folder)
    True
    """
    folder = _as_folder(name_or_folder)
    if folder is not None:
        return folder
    name = str(name_or_folder)
    known = KNOWN.get(name) or next((k for k in KNOWN.values() if k.repo == name), None)
    repo = known.repo if known else name
    if known and revision in (None, known.revision):
        source = Source(repo, known.revision, cache_dir, _is_offline(offline), progress, {WEIGHTS: known.sha256})
    else:
        source = Source(repo, revision or MAIN, cache_dir, _is_offline(offline), progress, {})
    path = _fetch(source, CONFIG)
    source = _at_commit(source, path.parent.name)
    read_config(path)  # another architecture is told before gigabytes are fetched
    for file in (VOCAB, MERGES):
        _fetch(source, file, optional=weights)
    if weights:
        _fetch_weights(source)
    return path.parent


def _as_folder(name: str | os.PathLike) -> Path | None:
    """The folder that is meant, or None for a name on the hub. FileNotFoundError, ModelUnavailable for neither."""
    if isinstance(name, str) and name in KNOWN:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if isinstance(name, os.PathLike) or path.exists() or re.match(r"[./~\\]", name) or len(path.parts) > 2:
        raise FileNotFoundError(errno.ENOENT, f"there is no folder with a model ({CONFIG}, {WEIGHTS}) here", str(name))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelUnavailable(
            f"there is no model {name!r}. Known are {', '.join(KNOWN)}; others on Hugging Face's hub are named "
            f"'owner/name', and a folder by its path"
        )
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelUnavailable(f"there is no model {name!r}: that is no name that the hub allows ({error})") from error
    return None


def refuse_pickles(folder: Path) -> None:
    """ValueError where a folder has no safetensors file, but weights in a format that is not read."""
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED) if folder.is_dir() else []
    if pickles and not (folder / WEIGHTS).exists():
        raise ValueError(_refusal(str(folder), pickles))


def _refusal(place: str, pickles: list[str]) -> str:
    return (
        f"{place} has no {WEIGHTS}, only {', '.join(pickles)}. That is a pickle, and reading a pickle runs whatever "
        f"code its maker put into it, so it is not read here. Take a model that has safetensors; or, where you trust "
        f"the file, load it with transformers, whose save_pretrained writes them"
    )


def read_config(path: Path) -> GPTConfig:
    """The GPTConfig of a config.json; CheckpointError where it is damaged, ValueError for another model."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(settings, dict) or settings.get("model_type", "gpt2") != "gpt2":
        raise ValueError(f"{path} is not the config of a GPT-2")
    try:
        return config_from_hugging_face(settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def shards_of(index: Path) -> dict[str, str]:
    """{tensor: file} of a model.safetensors.index.json; CheckpointError where it has none, or files elsewhere."""
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not listed or not all(Path(name).name == name and name.endswith(".safetensors") for name in listed.values()):
            raise ValueError("expected names of safetensors files beside it")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged, or no list of weights: {error!r}") from error
    return listed


# ---------------------------------------------------------------- downloads


class Source(NamedTuple):
    """A model on the hub at one revision, how to get at it, and the sha256 of files where they are known."""

    repo: str
    revision: str
    cache_dir: str | os.PathLike | None
    offline: bool
    progress: bool
    sha256: Mapping[str, str]


def _is_offline(offline: bool | None) -> bool:
    """Whether nothing may be fetched: asked for, or by HF_HUB_OFFLINE, now or when huggingface_hub was imported."""
    from huggingface_hub import constants

    switch = os.environ.get("HF_HUB_OFFLINE", "")
    return bool(offline) or constants.HF_HUB_OFFLINE or switch.upper() in ("1", "ON", "YES", "TRUE")


def _at_commit(source: Source, commit: str) -> Source:
    """The same source at the commit that its revision is now, so that all files come from one; says which."""
    if source.revision != commit and source.progress:
        print(f"{source.repo}: {source.revision} is revision {commit}", file=sys.stderr)
    return source._replace(revision=commit)


def _fetch_weights(source: Source) -> None:
    """model.safetensors, or the list of several files and those; ValueError where there are pickles only."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    index = None
    if not isinstance(_cached(source, INDEX), str):
        try:
            _fetch(source, WEIGHTS)
            return
        except ModelUnavailable as error:
            no_network = isinstance(error.__cause__, LocalEntryNotFoundError) and not source.offline
            if no_network or not isinstance(error.__cause__, EntryNotFoundError):
                raise
            missing = error
        index = _fetch(source, INDEX, optional=True)
        if index is None:
            pickles = [] if source.offline else [name for name in PICKLES if _exists(source, name)]
            raise ValueError(_refusal(source.repo, pickles)) if pickles else missing
    for name in sorted(set(shards_of(index or _fetch(source, INDEX)).values())):
        _fetch(source, name)


def _cached(source: Source, file: str) -> object:
    """The path of a file, as a str, where it is in the cache; an object where it is known to be missing; else None."""
    import huggingface_hub as hub

    return hub.try_to_load_from_cache(source.repo, file, cache_dir=source.cache_dir, revision=source.revision)


def _fetch(source: Source, file: str, optional: bool = False) -> Path | None:
    """The path of a file in the cache, downloaded and checked if need be; None for an `optional` one that is missing.

    An interrupted connection is taken up again where it broke off, by huggingface_hub, five times in a row.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError

    found = _cached(source, file)
    there = isinstance(found, str)
    if optional and found is not None and not there:
        return None
    place = {"repo_id": source.repo, "filename": file, "revision": source.revision, "cache_dir": source.cache_dir}
    options = {"local_files_only": source.offline, "endpoint": os.environ.get("HF_ENDPOINT")}
    try:
        if file == CONFIG and not there and not source.offline:
            _look_up(source, file)  # it tries once; hf_hub_download waits 23 seconds for a network that is not there
        with _bars(source.progress):
            path = Path(hub.hf_hub_download(**place, **options))
    except EntryNotFoundError as error:
        if optional:
            return None
        raise _explained(error, source, file) from error
    except Exception as error:
        raise _explained(error, source, file) from error
    if not there or path.stat().st_size < CHECK_BELOW:
        _check(path, source, file)
    return path


def _look_up(source: Source, file: str) -> None:
    """Asks the hub for a file without fetching it; whatever huggingface_hub raises where it cannot be had."""
    import huggingface_hub as hub

    hub.get_hf_file_metadata(
        hub.hf_hub_url(source.repo, file, revision=source.revision, endpoint=os.environ.get("HF_ENDPOINT"))
    )


def _exists(source: Source, file: str) -> bool:
    try:
        _look_up(source, file)
    except Exception:  # no answer at all counts as no file: what is missing is reported by the caller
        return False
    return True


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Lets huggingface_hub draw its progress bars, or not, for the duration of a download."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    switch = not shown and not are_progress_bars_disabled()
    if switch:
        disable_progress_bars()
    try:
        yield
    finally:
        if switch:
            enable_progress_bars()


# ---------------------------------------------------------------- checks


def _check(path: Path, source: Source, file: str) -> None:
    """Compares a downloaded file with its checksum, and removes it where it is another: ModelUnavailable.

    While that is not done the file does not count as downloaded: interrupted here, the next call does it.
    """
    blob = Path(os.path.realpath(path))
    wanted = source.sha256.get(file) or (blob.name if blob.name != path.name else None)
    if wanted is None or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", wanted):
        return  # nothing is known of it: a copy, on a disk without links, or a server that is not the hub
    try:
        found = checksum(blob, git=len(wanted) == 40)
    except BaseException:
        path.unlink(missing_ok=True)  # the link; the file itself is found again by its name
        raise
    if found != wanted:
        for wrong in {path, blob}:
            wrong.unlink(missing_ok=True)
        raise ModelUnavailable(
            f"{file} of {source.repo} came with the wrong checksum, {found} instead of {wanted}: damaged on the way, "
            f"or not the file that is meant. It was removed; call again to download it anew. {INSTEAD}"
        )


def checksum(path: str | os.PathLike, git: bool = False) -> str:
    """The sha256 of a file, or git's name of it (a sha1), as the hub gives it for small files: in hexadecimal digits.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "empty"
    >>> path.touch()
    >>> checksum(path)[:8], checksum(path, git=True)[:8]
    ('e3b0c442', 'e69de29b')
    """
    digest = hashlib.sha1(f"blob {os.path.getsize(path)}\0".encode()) if git else hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _explained(error: Exception, source: Source, file: str) -> ModelUnavailable:
    """What went wrong with a download, in one sentence, and what to do."""
    from huggingface_hub import constants, errors

    what = f"{file} of {source.repo}"
    cache = os.fspath(source.cache_dir or constants.HF_HUB_CACHE)
    if isinstance(error, errors.GatedRepoError):
        reason = f"{source.repo} is there for those only who agreed to its terms: do so on its page, and log in"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = (
            f"there is no model {source.repo} on the hub (or it is private), and no folder of that name here: look at "
            f"the spelling. Known by short names are {', '.join(KNOWN)}"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = f"{source.repo} has no revision {source.revision!r}: leave it out, or take one that its page lists"
    elif isinstance(error, errors.LocalEntryNotFoundError) and source.offline:
        reason = f"{what} is not in {cache}, and offline mode is on (offline=True or HF_HUB_OFFLINE): switch it off"
    elif isinstance(error, errors.LocalEntryNotFoundError) or type(error).__name__ in NO_ANSWER:
        reason = f"{what} is not in {cache}, and the hub cannot be reached: connect to a network, and call again"
    elif isinstance(error, errors.EntryNotFoundError):
        reason = f"{source.repo} has no {file} (revision {source.revision})"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"the disk of {cache} is full, {what} does not fit: free some space, or choose another cache_dir"
    elif isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"{cache} cannot be written to: choose another cache_dir, or set HF_HOME"
    else:
        reason = f"the download of {what} broke off ({type(error).__name__}: {error}): call again"
    return ModelUnavailable(f"{reason}. {INSTEAD}")
