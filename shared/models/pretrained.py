"""A trained model in a folder, as Hugging Face keeps a GPT-2: config.json and model.safetensors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from shared import checkpoint
from shared.checkpoint import CheckpointError
from shared.models.gpt import GPT
from shared.models.hugging_face import (
    config_from_hugging_face,
    config_to_hugging_face,
    from_hugging_face,
    to_hugging_face,
)

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_pretrained(model: GPT, folder: str | os.PathLike) -> None:
    """Writes config.json and model.safetensors into `folder`, made if need be; `transformers` opens it too.

    The weights have Hugging Face's names and shapes, a tied head is left out, and the same weights give the same bytes.
    ValueError for a config that has no counterpart there.
    """
    settings = config_to_hugging_face(model.config)
    theirs = to_hugging_face(model.state_dict(), model.config)
    if model.config.tie_weights:
        del theirs["lm_head.weight"]  # it is transformer.wte.weight
    from safetensors.numpy import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    arrays = {name: tensor.numpy(force=True) for name, tensor in theirs.items()}
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata={"format": "pt"})
    temporary = folder / f"{WEIGHTS}.tmp"
    temporary.write_bytes(content)
    os.replace(temporary, folder / WEIGHTS)


def load_pretrained(folder: str | os.PathLike) -> GPT:
    """The GPT that is kept in `folder`, on the CPU and in eval mode.

    The folder has config.json and model.safetensors as `save_pretrained` or Hugging Face writes them; its tokenizer is
    read by `shared.text.load_tokenizer`. FileNotFoundError that names the file that is missing, CheckpointError for one
    that is damaged, ValueError or RuntimeError for another model than a GPT-2, with what does not fit.

    >>> import tempfile
    >>> from shared.models import GPTConfig
    >>> folder, model = tempfile.mkdtemp(), GPT(GPTConfig.preset("toy"))
    >>> save_pretrained(model, folder)
    >>> load_pretrained(folder).config == model.config
    True
    """
    path = Path(folder) / CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(settings, dict) or settings.get("model_type", "gpt2") != "gpt2":
        raise ValueError(f"{path} is not the config of a GPT-2")
    config = config_from_hugging_face(settings)
    state = checkpoint.load(Path(folder) / WEIGHTS, map_location="cpu")
    model = GPT(config)
    try:
        model.load_state_dict(from_hugging_face(state, config))
    except RuntimeError as error:
        raise RuntimeError(f"{Path(folder) / WEIGHTS}: {error}") from error
    return model.eval()
