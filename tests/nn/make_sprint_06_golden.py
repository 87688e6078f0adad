"""Writes what PyTorch's MultiheadAttention gives for the milestone test of Sprint 06 (needs torch).

python -m tests.nn.make_sprint_06_golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parents[2] / "sprints" / "06_multi_head_attention" / "tests" / "golden.json"
BATCH, QUERIES, KEYS, WIDTH, HEADS = 2, 3, 4, 4, 2


def inputs() -> dict[str, Any]:
    """Weights, sequences and masks, float64 numbers of few digits; masks True: may attend."""
    rng = np.random.default_rng(6)

    def numbers(*shape: int) -> list:
        return rng.normal(size=shape).round(2).tolist()

    mask = np.tri(QUERIES, dtype=bool) & (np.arange(QUERIES) < np.array([[3], [2]]))[:, None]
    return {
        "num_heads": HEADS,
        "in_proj_weight": numbers(3 * WIDTH, WIDTH),
        "in_proj_bias": numbers(3 * WIDTH),
        "out_proj_weight": numbers(WIDTH, WIDTH),
        "out_proj_bias": numbers(WIDTH),
        "x": numbers(BATCH, QUERIES, WIDTH),
        "key": numbers(BATCH, KEYS, WIDTH),
        "value": numbers(BATCH, KEYS, WIDTH),
        "grad": numbers(BATCH, QUERIES, WIDTH),
        "mask": mask.tolist(),
        "keys_seen": (np.arange(KEYS) < np.array([[4], [2]])).tolist(),
    }


def outcomes(given: dict[str, Any]) -> dict[str, Any]:
    """What PyTorch makes of them, rounded to six digits: results, weights of each head, gradients."""
    import torch

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(given[name], dtype=None if name in ("mask", "keys_seen") else torch.float64)

    module = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        module.in_proj_weight.copy_(tensor("in_proj_weight"))
        module.in_proj_bias.copy_(tensor("in_proj_bias"))
        module.out_proj.weight.copy_(tensor("out_proj_weight"))
        module.out_proj.bias.copy_(tensor("out_proj_bias"))
    x, key, value = (tensor(name).requires_grad_() for name in ("x", "key", "value"))
    hide = ~tensor("mask").repeat_interleave(HEADS, 0)
    calls = {
        "self": ((x, x, x), {}),
        "masked": ((x, x, x), {"attn_mask": hide}),
        "cross": ((x, key, value), {"key_padding_mask": ~tensor("keys_seen")}),
    }
    found = {}
    for name, (tensors, options) in calls.items():
        leaves = (x, key, value, module.in_proj_weight)
        for leaf in leaves:
            leaf.grad = None
        out, weights = module(*tensors, average_attn_weights=False, **options)
        out.backward(tensor("grad"))
        grads = {n: t.grad for n, t in zip(("x", "key", "value", "in_proj_weight"), leaves, strict=True)}
        results = {"out": out, "weights": weights, **{n: g for n, g in grads.items() if g is not None}}
        found[name] = {n: np.round(t.detach().numpy(), 6).tolist() for n, t in results.items()}
    return found


if __name__ == "__main__":
    given = inputs()
    FILE.write_text(json.dumps({"given": given, "pytorch": outcomes(given)}) + "\n", encoding="utf-8")
