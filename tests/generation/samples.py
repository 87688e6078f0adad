"""Logits and rows of ids to try samplers and penalties on."""

import numpy as np

import shared


def random_logits(*shape, seed=0, spread=3.0, dtype=shared.float32):
    return shared.tensor(np.random.default_rng(seed).normal(0, spread, shape), dtype=dtype)


def rows_of(rows, longest, vocab, seed=0):
    """Lists of ids of different lengths, one of them empty where there are several."""
    rng = np.random.default_rng(seed)
    lengths = [longest - i * longest // max(rows - 1, 1) for i in range(rows)]
    return [rng.integers(0, vocab, length).tolist() for length in lengths]
