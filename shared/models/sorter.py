"""A small GPT that somebody else trained: it sorts six letters A, B and C, and comes with all its inner numbers.

3 blocks, 3 heads, 48 wide, 85,728 parameters; made with minGPT for the site "LLM Visualization" (bbycroft.net/llm,
MIT licence), which stores what a forward pass in PyTorch gave at every step.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.autograd import no_grad
from shared.data import catalog
from shared.models.gpt import GPT, GPTConfig
from shared.models.hugging_face import from_hugging_face
from shared.nn import functional as F
from shared.ops import tensor
from shared.tensor import Tensor

NAME, LETTERS, LENGTH = "gpt-nano-sort", "ABC", 6


def load_sorter() -> GPT:
    """The sorter, in eval mode: GPT(ids (B, T)), T ≤ 11, ids 0, 1, 2 for A, B, C. DatasetUnavailable without its file.

    Its text is six letters and the same six sorted, of which the last is never an input.
    """
    stored = _read(f"{NAME}-model.json")
    sizes = {name: stored["config"][name] for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")}
    config = GPTConfig(**sizes, dropout=stored["config"]["resid_pdrop"], tie_weights=False)
    state = {name: decode_tensor(entry) for name, entry in stored.items() if name != "config"}
    model = GPT(config)
    model.load_state_dict(from_hugging_face(state, config, conv1d=False))
    return model.eval()


def reference_activations() -> dict[str, Tensor]:
    """What the sorter computed in PyTorch for three texts, float32, by the names of `look_inside`; `ids` are int64."""
    stored = _read(f"{NAME}-t0-partials.json")
    found = {name: decode_tensor(entry) for name, entry in stored.items() if name != "config"}
    return {"ids": found.pop("idx").long()} | found


def decode_tensor(entry: Mapping[str, Any]) -> Tensor:
    """A Tensor of {"shape": […], "dtype": "torch.float32", "data": base64 of its numbers, little-endian}.

    ValueError for another dtype, or where the numbers are not as many as the shape says.

    >>> decode_tensor({"shape": [1, 2], "dtype": "torch.float32", "data": "AACAPwAAAEA="})
    tensor([[1., 2.]])
    """
    if entry["dtype"] != "torch.float32":
        raise ValueError(f"decode_tensor: expected dtype torch.float32, but got {entry['dtype']}")
    numbers = np.frombuffer(base64.b64decode(entry["data"]), dtype="<f4")
    return Tensor(numbers.astype(np.float32).reshape(entry["shape"]))


def sort_letters(model: GPT, words: list[str]) -> list[str]:
    """What the sorter makes of words of six letters A, B, C: the likeliest letter, six times.

    ValueError for other words; of none it makes none. With the sorter, `sort_letters(model, ["CBABBC"])` is ["ABBBCC"].
    """
    for word in words:
        if len(word) != LENGTH or not set(word) <= set(LETTERS):
            raise ValueError(f"sort_letters: expected {LENGTH} letters of {LETTERS}, but got {word!r}")
    if not words:
        return []
    ids = tensor([[LETTERS.index(letter) for letter in word] for word in words])
    sorted_ids = model.generate(ids, LENGTH, temperature=0)[:, LENGTH:]
    return ["".join(LETTERS[i] for i in row) for row in sorted_ids.tolist()]


def look_inside(model: GPT, ids: Tensor) -> dict[str, Tensor]:
    """Every step of a GPT in eval mode on ids (B, T), first to last; of the inside of blocks, that of the first.

    `tok_emb` + `pos_emb` = `x` go into the blocks, (B, T, d); `block0`, `block1` … are what comes out of each, `ln_f`
    is the last norm, `lm_head` the logits (B, T, V) and `probs` their softmax. `look_inside_block` has the rest.
    """
    with no_grad():
        found = {"tok_emb": model.token_embedding(ids), "pos_emb": model.positions.table()[: ids.shape[1]].unsqueeze(0)}
        x = found["x"] = found["tok_emb"] + found["pos_emb"]
        found |= look_inside_block(model.blocks[0], x)
        for i, block in enumerate(model.blocks):
            x = found[f"block{i}"] = block(x)
        found["ln_f"] = model.norm(x)
        found["lm_head"] = model.lm_head(found["ln_f"])
        found["probs"] = F.softmax(found["lm_head"], dim=-1)
    return found


def look_inside_block(block: Any, x: Tensor) -> dict[str, Tensor]:
    """Every step of one `GPTDecoderBlock` in eval mode on x (B, T, d), first to last.

    `ln1`, `qkv` (B, T, 3d) and its parts for each head, `q`, `k` and `v` (B, H, T, d/H); scores `att` (B, H, T, T), −∞
    where a token may not look, and their softmax `attSm`; the heads' results side by side, `y`, mixed in `yProj` and
    added to x: `attnResid`. Then `ln2`, the feed-forward network's `fc` and `gelu` (B, T, 4d) and `mlp`, and the sum
    `mlpResid`, which is what the block returns.
    """
    attention, network = block.self_attention, block.feed_forward
    found = {"ln1": block.norm1(x)}
    qkv = found["qkv"] = attention.in_proj(found["ln1"])
    q, k, v = found["q"], found["k"], found["v"] = [attention.split_heads(part) for part in qkv.chunk(3, 2)]
    hidden = tensor(np.triu(np.ones((x.shape[1], x.shape[1]), bool), 1))
    scores = found["att"] = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(hidden, -np.inf)
    found["attSm"] = F.softmax(scores, dim=-1)
    found["y"] = attention.combine_heads(found["attSm"] @ v)
    found["yProj"] = attention.out_proj(found["y"])
    x = found["attnResid"] = x + found["yProj"]
    found["ln2"] = block.norm2(x)
    found["fc"] = network.linear1(found["ln2"])
    found["gelu"] = network.activation(found["fc"])
    found["mlp"] = network.linear2(found["gelu"])
    found["mlpResid"] = x + found["mlp"]
    return found


def _read(name: str) -> dict[str, Any]:
    return json.loads(catalog.fetch(NAME, progress=False)[name].read_text(encoding="utf-8"))
