"""What attention is compared with PyTorch on: calls of scaled_dot_product_attention, and modules with their arguments.

`python -m tests.nn.attention_cases` runs them with PyTorch in float64 and keeps the outcome under golden/ (needs torch).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.nn import golden_file
from tests.nn.cases import Case, Constant

HERE = Path(__file__).parent
GOLDEN_FILE = HERE / "golden" / "attention.npz"

# name: shapes of query, key and value, the mask (see `mask_of`), other arguments
CALLS: dict[str, tuple[tuple, str, dict[str, Any]]] = {
    "plain": (((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)), "", {}),
    "matrices": (((4, 5), (6, 5), (6, 2)), "", {}),
    "one leading dimension": (((3, 4, 5), (3, 6, 5), (3, 6, 2)), "boolean (3, 4, 6)", {}),
    "three leading dimensions": (((2, 1, 2, 3, 4), (2, 2, 1, 5, 4), (2, 2, 2, 5, 3)), "boolean (2, 1, 3, 5)", {}),
    "leading dimensions broadcast": (((2, 1, 3, 4), (1, 5, 3, 4), (5, 3, 6)), "", {}),
    "causal": (((2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "", {"is_causal": True}),
    "causal, more keys": (((2, 3, 4), (2, 6, 4), (2, 6, 4)), "", {"is_causal": True}),
    "causal, more queries": (((2, 6, 4), (2, 3, 4), (2, 3, 4)), "", {"is_causal": True}),
    "causal, several blocks": (((1, 2, 70, 8), (1, 2, 70, 8), (1, 2, 70, 8)), "", {"is_causal": True}),
    "scale": (((2, 3, 4), (2, 3, 4), (2, 3, 4)), "", {"scale": 0.3}),
    "boolean mask": (((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "boolean (3, 5)", {}),
    "padding mask": (((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "boolean (2, 1, 1, 5)", {}),
    "a query that sees nothing": (((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "blind (3, 5)", {}),
    "added mask": (((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "added (2, 1, 3, 5)", {}),
    "added mask with -inf": (((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "infinite (3, 5)", {}),
    "learned mask": (((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "learned (2, 3, 5)", {}),
    "grouped": (((2, 6, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3)), "", {"enable_gqa": True}),
    "grouped, causal": (((6, 5, 4), (3, 5, 4), (3, 5, 4)), "", {"enable_gqa": True, "is_causal": True}),
    "grouped, masked": (((2, 4, 3, 4), (2, 1, 5, 4), (2, 1, 5, 4)), "boolean (2, 4, 3, 5)", {"enable_gqa": True}),
    "everything dropped": (((2, 3, 4), (2, 3, 4), (2, 3, 4)), "", {"dropout_p": 1.0}),
    "no queries": (((2, 0, 4), (2, 3, 4), (2, 3, 4)), "", {}),
    "no keys": (((2, 3, 4), (2, 0, 4), (2, 0, 4)), "", {}),
}


def mask_of(text: str, rng: np.random.Generator) -> np.ndarray | Constant:
    kind, _, numbers = text.partition(" ")
    shape = tuple(int(n) for n in numbers.strip("()").split(","))
    allowed = rng.random(shape) > 0.4
    allowed[..., 0] = True
    if kind == "blind":
        allowed[1] = False
    if kind in ("boolean", "blind"):
        return Constant(allowed)
    added = rng.normal(size=shape)
    return added if kind == "learned" else Constant(np.where(allowed, added, -np.inf) if kind == "infinite" else added)


def _case(name: str) -> Case:
    shapes, mask, options = CALLS[name]

    def make(rng: np.random.Generator) -> tuple:
        return (*[rng.normal(size=s) for s in shapes], *([mask_of(mask, rng)] if mask else []))

    def call(F: Any, q: Any, k: Any, v: Any, attn_mask: Any = None) -> Any:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, **options)

    return Case(f"attention {name}", call, make)


CASES: dict[str, Case] = {name: _case(name) for name in CALLS}

# name: arguments of the module (embed_dim 12, 3 heads), those of the call; 4 queries, 6 keys, 2 sequences
MODULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "self-attention": ({"batch_first": True}, {"itself": True}),
    "self-attention, sequence first": ({}, {"itself": True}),
    "self-attention without weights": ({"batch_first": True}, {"itself": True, "need_weights": False}),
    "sequence first without weights": ({}, {"itself": True, "need_weights": False}),
    "cross-attention": ({"batch_first": True}, {}),
    "cross-attention without weights": ({}, {"need_weights": False}),
    "weights of each head": ({}, {"average_attn_weights": False}),
    "no bias": ({"bias": False, "batch_first": True}, {"itself": True}),
    "unbatched": ({}, {"unbatched": True}),
    "unbatched, padding": ({}, {"unbatched": True, "key_padding_mask": "boolean"}),
    "other widths": ({"kdim": 5, "vdim": 7}, {}),
    "other widths without weights": ({"kdim": 5, "vdim": 12, "batch_first": True}, {"need_weights": False}),
    "bias of keys and values": ({"add_bias_kv": True}, {"attn_mask": "boolean", "need_weights": False}),
    "bias and zeros": ({"add_bias_kv": True, "add_zero_attn": True}, {"key_padding_mask": "boolean"}),
    "zeros": ({"add_zero_attn": True, "batch_first": True}, {"itself": True, "attn_mask": "added"}),
    "boolean mask": ({"batch_first": True}, {"attn_mask": "boolean"}),
    "boolean mask per head": ({"batch_first": True}, {"attn_mask": "boolean per head", "need_weights": False}),
    "added mask": ({}, {"attn_mask": "added", "need_weights": False}),
    "added mask per head": ({}, {"attn_mask": "added per head"}),
    "padding": ({"batch_first": True}, {"key_padding_mask": "boolean", "need_weights": False}),
    "padding and look-ahead": (
        {"batch_first": True},
        {"itself": True, "key_padding_mask": "boolean", "attn_mask": "look-ahead", "need_weights": False},
    ),
    "added padding": ({}, {"key_padding_mask": "added", "attn_mask": "added"}),
    "causal hint": (
        {"batch_first": True},
        {"itself": True, "attn_mask": "look-ahead", "is_causal": True, "need_weights": False},
    ),
    "causal hint with weights": ({}, {"itself": True, "attn_mask": "look-ahead", "is_causal": True}),
}


def _hidden(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A mask in PyTorch's convention: True hides."""
    if kind == "look-ahead":
        return np.triu(np.ones(shape, bool), 1)
    if kind.startswith("added"):
        return rng.normal(size=shape)
    hidden = rng.random(shape) > 0.6
    hidden[..., 0] = False
    return hidden


def module_inputs(name: str) -> tuple[dict[str, Any], list[np.ndarray], dict[str, Any]]:
    """(the module's arguments, one input or three, the call's other arguments), as arrays."""
    settings, given = MODULES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    options = dict(given)
    itself, unbatched = options.pop("itself", False), options.pop("unbatched", False)
    widths = (12, settings.get("kdim", 12), settings.get("vdim", 12))
    keys = 4 if itself else 6
    inputs = []
    for length, width in zip((4, keys, keys), widths, strict=True):
        shape = (
            (length, width) if unbatched else (2, length, width) if "batch_first" in settings else (length, 2, width)
        )
        inputs.append(rng.normal(size=shape))
    if "attn_mask" in options:
        kind = options["attn_mask"]
        options["attn_mask"] = _hidden(kind, (2 * 3, 4, keys) if kind.endswith("per head") else (4, keys), rng)
    if "key_padding_mask" in options:
        options["key_padding_mask"] = _hidden(options["key_padding_mask"], (keys,) if unbatched else (2, keys), rng)
    return settings, inputs[:1] if itself else inputs, options


def state_of(shapes: dict[str, tuple[int, ...]], name: str) -> dict[str, np.ndarray]:
    """Numbers for every parameter, the same for both libraries."""
    rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
    return {key: rng.normal(size=shape) * 0.4 for key, shape in shapes.items()}


def run_module(nn: Any, name: str, tensor: Callable[[np.ndarray], Any], load: Callable[..., None]) -> dict[str, Any]:
    """Output, weights, and gradients by inputs and parameters, as tensors of the library."""
    settings, arrays, options = module_inputs(name)
    module = nn.MultiheadAttention(12, 3, **settings).double()
    load(module, state_of({key: tuple(x.shape) for key, x in module.state_dict().items()}, name))
    inputs = [tensor(a).requires_grad_() for a in arrays]
    options = {key: tensor(x) if isinstance(x, np.ndarray) else x for key, x in options.items()}
    out, weights = module(*(inputs * 3 if len(inputs) == 1 else inputs), **options)
    rng = np.random.default_rng(0)
    total = (out * tensor(rng.normal(size=tuple(out.shape)))).sum()
    if weights is not None:
        total = total + (weights * tensor(rng.normal(size=tuple(weights.shape)))).sum()
    total.backward()
    found = {"out": out} | ({} if weights is None else {"weights": weights})
    found |= {f"input {i}": x.grad for i, x in enumerate(inputs)}
    return found | {key: parameter.grad for key, parameter in module.named_parameters()}


def run_torch_module(name: str) -> dict[str, np.ndarray]:
    import torch

    def load(module: Any, state: dict[str, np.ndarray]) -> None:
        module.load_state_dict({key: torch.from_numpy(x) for key, x in state.items()})

    found = run_module(torch.nn, name, torch.tensor, load)
    return {key: x.detach().numpy() for key, x in found.items()}


def main() -> None:
    from tests.nn.make_golden import run

    arrays = {}
    for name, case in CASES.items():
        arrays |= {f"{name}|{i}": a for i, a in enumerate(run(case)) if a is not None}
    for name in MODULES:
        arrays |= {f"module {name}|{key}": a for key, a in run_torch_module(name).items()}
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    golden_file.save(GOLDEN_FILE, {"source_sha256": source}, arrays)
    print(f"{len(CASES)} calls, {len(MODULES)} modules")


if __name__ == "__main__":
    main()
