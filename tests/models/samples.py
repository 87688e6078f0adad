"""GPTs small enough to test, with weights that hide nothing."""

from dataclasses import replace

import numpy as np
import pytest

import shared
from shared.models import GPT, PRESETS, GPTConfig

SMALL = GPTConfig(vocab_size=13, block_size=10, n_layer=2, n_head=2, n_embd=8, dropout=0.0)
GRID = [
    SMALL,
    replace(SMALL, bias=False),
    replace(SMALL, positions="sinusoidal"),
    replace(SMALL, tie_weights=False),
    replace(SMALL, n_layer=1, n_head=1, bias=False, tie_weights=False, positions="sinusoidal"),
    replace(SMALL, n_layer=3, n_head=3, n_embd=9, vocab_size=5, block_size=4),
    PRESETS["toy"],
    PRESETS["cpu"],
]
over_grid = pytest.mark.parametrize("config", GRID, ids=range(len(GRID)))


def model_of(config, seed=0, spread=0.3):
    """A GPT whose weights are large enough that every part shows in the logits, biases and norms included."""
    model, rng = GPT(config), np.random.default_rng(seed)
    with shared.no_grad():
        for p in model.parameters():
            p.copy_(shared.tensor(rng.normal(1.0 if p.ndim < 2 else 0.0, spread, p.shape), dtype=p.dtype))
    return model


def ids_of(*shape, vocab=13, seed=0):
    return shared.tensor(np.random.default_rng(seed).integers(0, vocab, shape))


def gradients(model):
    return {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
