"""A trained model in a folder, as Hugging Face keeps a GPT-2: config.json and model.safetensors, perhaps a tokenizer.

`load_pretrained` (also `GPT.from_pretrained`) reads it without a copy, `save_pretrained` writes it whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from shared import checkpoint
from shared.arrays import dtypes
from shared.models.gpt import GPT, GPTConfig
from shared.models.hub import (
    CONFIG,
    INDEX,
    MERGES,
    VOCAB,
    VOCABULARY,
    WEIGHTS,
    pretrained_folder,
    read_config,
    refuse_pickles,
    shards_of,
)
from shared.models.hugging_face import (
    HEAD,
    MASK,
    PREFIX,
    config_to_hugging_face,
    from_hugging_face,
    to_hugging_face,
)
from shared.models.tensor_file import map_tensors, write_tensors
from shared.nn.utils import skip_init
from shared.tensor import Tensor
from shared.text import ByteLevelBPE, Vocabulary, load_tokenizer, save_tokenizer

ABANDONED_AFTER = 3600  # seconds
# Files of a tokenizer that others write, and read before vocab.json; they would be another tokenizer's.
THEIR_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

# ---------------------------------------------------------------- loading


def load_pretrained(
    name_or_folder: str | os.PathLike,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
    dtype: Any = None,
    mapped: bool = True,
    model_class: type[GPT] = GPT,
) -> GPT:
    """The GPT that is kept in a folder or on Hugging Face's hub, on the CPU and in eval mode.

    Names and the other arguments are those of `pretrained_folder`, which downloads what is not there yet; a folder has
    config.json and model.safetensors (or several files and model.safetensors.index.json) as `save_pretrained` or
    Hugging Face writes them. Its tokenizer is read by `load_pretrained_tokenizer`.

    The parameters are views of the files (`map_tensors`), four matrices of each block transposed ones: nothing is
    drawn, nothing copied, and what is never used never takes memory. Training changes the parameters, not the files.
    With `mapped=False` the files are read at once instead: it takes a few tenths of a second for GPT-2, and each token
    is made a little faster.
    Files in float16, bfloat16 or float64 are converted, to float32 or to `dtype`, and that is a copy. `model_class` is
    GPT, or a class that inherits from it and takes a GPTConfig.

    FileNotFoundError that names the file that is missing, CheckpointError for one that is damaged, ValueError or
    RuntimeError for another model than a GPT-2, with every tensor that is missing, unexpected or mis-shaped.

    >>> import tempfile
    >>> folder, model = tempfile.mkdtemp(), GPT(GPTConfig.preset("toy"))
    >>> save_pretrained(model, folder)
    >>> load_pretrained(folder).config == model.config
    True
    """
    dtype = dtypes.as_dtype(dtypes.float32 if dtype is None else dtype)
    if dtype not in dtypes.FLOATING:
        raise TypeError(f"load_pretrained: expected a floating dtype, but got {dtype}")
    options = {"revision": revision, "cache_dir": cache_dir, "offline": offline, "progress": progress}
    folder = pretrained_folder(name_or_folder, **options)
    config = read_config(folder / CONFIG)
    state, source = _read_weights(folder, mapped)
    try:
        state = from_hugging_face(state, config)
    except RuntimeError as error:
        raise RuntimeError(f"{source}: {error}") from error
    return _with_weights(model_class, config, {name: tensor.to(dtype) for name, tensor in state.items()}).eval()


def load_pretrained_tokenizer(
    name_or_folder: str | os.PathLike,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
) -> ByteLevelBPE | Vocabulary:
    """The tokenizer of the model of that name or in that folder: `shared.text.load_tokenizer` of `pretrained_folder`.

    The weights are not downloaded for it.

    >>> import tempfile
    >>> from shared.text import CharVocabulary
    >>> folder, model = tempfile.mkdtemp(), GPT(GPTConfig.preset("toy"))
    >>> save_pretrained(model, folder, CharVocabulary.from_text("to be"))
    >>> load_pretrained_tokenizer(folder)
    CharVocabulary(5 tokens)
    """
    options = {"revision": revision, "cache_dir": cache_dir, "offline": offline, "progress": progress}
    return load_tokenizer(pretrained_folder(name_or_folder, **options, weights=False))


def _with_weights(model_class: type[GPT], config: GPTConfig, state: dict[str, Tensor]) -> GPT:
    """A GPT whose parameters are the tensors of `state` themselves, not copies. A tied head stays the table."""
    model = skip_init(model_class, config)
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        model.lm_head.weight = model.token_embedding.weight
    return model


def _read_weights(folder: Path, mapped: bool) -> tuple[dict[str, Tensor], Path]:
    """{name: Tensor} of the file or files, and the file that is to be named in errors.

    Masks that old files have are not even mapped.
    """
    path = folder / WEIGHTS
    if path.exists() or not (folder / INDEX).exists():
        refuse_pickles(folder)
        return _tensors(path, mapped), path
    index = folder / INDEX
    listed = shards_of(index)
    state: dict[str, Tensor] = {}
    for name in sorted(set(listed.values())):
        found = _tensors(folder / name, mapped)
        misplaced = [tensor for tensor in found if listed.get(tensor) != name]
        if misplaced:
            raise RuntimeError(f"{folder / name} has {', '.join(misplaced)}, which {INDEX} does not list there")
        state |= found
    return state, index


def _tensors(path: Path, mapped: bool) -> dict[str, Tensor]:
    arrays = map_tensors(path, lambda name: not MASK.fullmatch(name.removeprefix(PREFIX)), mapped)
    return {name: Tensor(array) for name, array in arrays.items()}


# ---------------------------------------------------------------- saving


def save_pretrained(model: GPT, folder: str | os.PathLike, tokenizer: ByteLevelBPE | Vocabulary | None = None) -> None:
    """Writes config.json and model.safetensors into `folder`, made if need be; `transformers` opens it too.

    With `tokenizer` also its files, in place of those of another one, THEIR_TOKENIZER too. The weights have Hugging
    Face's names and shapes, a tied head is left out, and the same weights give the same bytes. All files are written
    under other names first and take the place of the old ones when they are complete and on the disk: where that fails
    (a full disk), the folder stays as it was. A process that is killed between two of these moves leaves new weights
    beside the old config; `load_pretrained` refuses them where they do not fit together. ValueError for a config that
    has no counterpart there.
    """
    settings = config_to_hugging_face(model.config)
    theirs = to_hugging_face(model.state_dict(), model.config)
    if model.config.tie_weights:
        del theirs[HEAD]  # it is transformer.wte.weight
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    stage = folder / f".{WEIGHTS}.{secrets.token_hex(4)}.tmp"
    _remove_abandoned(folder)
    try:
        stage.mkdir(parents=True)
        write_tensors(stage / WEIGHTS, {name: tensor.numpy(force=True) for name, tensor in theirs.items()})
        _write_text(stage / CONFIG, json.dumps(settings, indent=2) + "\n")
        if tokenizer is not None:
            save_tokenizer(tokenizer, stage)
        replaced = (VOCAB, MERGES, VOCABULARY, *THEIR_TOKENIZER) if tokenizer is not None else ()
        _move(stage, folder, replaced)
    except BaseException as error:
        shutil.rmtree(stage, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError):
            raise _explained(error, folder) from error
        raise


def _remove_abandoned(folder: Path) -> None:
    """Removes what saves left behind that were killed more than an hour ago."""
    for path in folder.glob(f".{WEIGHTS}.????????.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(path)


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _move(stage: Path, folder: Path, replaces: tuple[str, ...]) -> None:
    """Gives the files of `stage` their places in `folder`; those named in `replaces` that have no successor go.

    The weights come first: where somebody looks at the old ones Windows does not let them go, and then nothing changes.
    """
    names = sorted((path.name for path in stage.iterdir()), key=lambda name: (name != WEIGHTS, name))
    for name in names:
        os.replace(stage / name, folder / name)
    for name in set(replaces) - set(names):
        (folder / name).unlink(missing_ok=True)
    stage.rmdir()


def _explained(error: OSError, folder: Path) -> OSError:
    old = "; the model that was there before is unchanged" if (folder / WEIGHTS).exists() else ""
    problem = f"cannot save: {checkpoint.advice(error, str(folder))}{old}"
    return type(error)(error.errno or errno.EIO, problem, str(folder))
