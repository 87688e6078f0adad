"""Writes what GPT2LMHeadModel of `transformers` gives for a small config (needs torch and transformers).

python -m tests.models.make_hugging_face_golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "golden" / "gpt2.json"
SETTINGS = {"vocab_size": 7, "n_positions": 6, "n_embd": 8, "n_layer": 2, "n_head": 2, "bos_token_id": 0}
SETTINGS |= {"eos_token_id": 0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
IDS, TARGETS = [[0, 3, 6, 1, 1], [5, 2, 2, 4, 0]], [[3, 6, 1, 1, 2], [2, 2, 4, 0, 6]]


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of that name: numbers of three digits around 0, or around 1 for the scale of a norm; float64."""
    rng = np.random.default_rng(list(name.encode()))
    return (rng.normal(size=shape) * 0.4 + ("ln_" in name and name.endswith("weight"))).round(3)


def model_of(settings: dict[str, Any], seed: int = 0) -> Any:
    """A GPT2LMHeadModel with eager attention and its own random weights, biases and norms moved off 0 and 1."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**settings, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def outcome(model: Any, ids: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, the mean loss, and the gradients by every parameter, by their names."""
    import torch

    logits = model(torch.as_tensor(ids)).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.as_tensor(targets).flatten())
    loss.backward()
    found = {"logits": logits, "loss": loss} | {name: p.grad for name, p in model.named_parameters()}
    return {name: x.detach().numpy() for name, x in found.items()}


def golden() -> dict[str, Any]:
    """Float64, rounded to eight digits after the point."""
    import torch

    model = model_of(SETTINGS).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(numbers(name, tuple(parameter.shape))))
    found = outcome(model, np.array(IDS), np.array(TARGETS))
    return {name: np.round(array, 8).tolist() for name, array in found.items()}


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(golden(), separators=(",", ":")) + "\n", encoding="utf-8")
