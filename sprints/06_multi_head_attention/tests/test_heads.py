"""Sprint 06's milestones on heads. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shared
from course import oracles
from course.oracles import doing, refusal, require
from shared import nn
from shared.nn import functional as F

check = partial(oracles.check, source="expected")
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))  # tests/nn/make_sprint_06_…
SHAPES = {
    "invalid": "The heads of (B, L, d) are (B, H, L, d / H): cut the last dimension, then exchange two, and back.",
    "view": "What was exchanged does not lie side by side in memory: reshape copies where it must, view refuses.",
    "unpack": "The sizes are B, L and H · E on one side, B, H, L and E on the other.",
}
CALLS = {
    "unpack": "The result is a Tensor, and a pair (out, weights) only with need_weights.",
    "broadcast": "A mask meets the scores (B, H, L, S): one that is (B, L, S) needs a dimension of 1 for the heads.",
    "split": "in_proj makes 3 · d_model numbers of each token: queries, keys and values, d_model each.",
    "NoneType": "key, value, mask, cache and the biases may be None; ops.attention_with_weights wants a scale.",
    "mat1": "Each third of in_proj's weight is (d_model, d_model), for F.linear.",
}


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


# ------------------------------------------------------------------------ split and combine


def check_split(batch: int, length: int, heads: int, width: int) -> None:
    """`split_heads` of numbers that say where they come from."""
    module = nn.MultiHeadAttention(heads * width, heads)
    x = np.arange(float(batch * length * heads * width)).reshape(batch, length, heads * width)
    given = single(x)
    what = f"split_heads of {x.shape} into {heads} heads"
    with doing(what, SHAPES):
        found = module.split_heads(given)
    right = np.stack([x[..., h * width : (h + 1) * width] for h in range(heads)], axis=1)
    dealt = np.stack([x[..., h::heads] for h in range(heads)], axis=1)
    check(
        what,
        found.tolist(),
        right,
        {
            "a reshape alone, which cuts the tokens into heads and not each token: exchange axes after it": x.reshape(
                batch, heads, length, width
            ),
            "numbers dealt out to the heads in turn: a head has neighbours, head 0 the first E numbers": dealt,
            "heads that come behind the tokens, (B, L, H, E)": right.swapaxes(1, 2),
            "width and tokens exchanged, (B, H, E, L)": right.swapaxes(2, 3),
            "heads in front of the batch, (H, B, L, E)": right.swapaxes(0, 1),
            "heads in the other order": right[:, ::-1],
            "heads of the size of num_heads, as many as they are wide": np.zeros((batch, width, length, heads)),
            "pieces made of the tokens, by the wrong axis": x.reshape(batch, heads, width, length).swapaxes(2, 3),
        },
    )
    require(
        np.shares_memory(found.numpy(), given.numpy()),
        "split_heads copies its input: another shape and exchanged axes are a view",
    )
    what = f"combine_heads of {right.shape}"
    with doing(what, SHAPES):
        found = module.combine_heads(single(right))
    check(
        what,
        found.tolist(),
        x,
        {
            "a reshape alone, which takes heads for tokens: exchange the axes first": right.reshape(x.shape),
            "heads merged in the wrong order": np.concatenate(list(right.swapaxes(0, 1)[::-1]), axis=-1),
            "the heads' numbers dealt out in turn: a head's numbers stay side by side": right.transpose(
                0, 2, 3, 1
            ).reshape(x.shape),
            "tokens and width exchanged before the reshape": right.transpose(0, 3, 2, 1).reshape(x.shape),
            "heads one below the other, (B, H · L, E)": right.reshape(batch, heads * length, width),
            "the heads' sum: each keeps its own numbers": right.sum(1),
            "the heads' mean: each keeps its own numbers": right.mean(1),
        },
    )
    with doing("combine_heads of what split_heads returned", SHAPES):
        back = module.combine_heads(module.split_heads(given))
    check("what was split and combined", back.tolist(), x)


def test_heads_are_pieces_of_each_token_and_come_back_in_order():
    for sizes in ((2, 3, 2, 4), (1, 4, 4, 2), (3, 2, 2, 2), (2, 5, 1, 3)):
        check_split(*sizes)
    rng = np.random.default_rng(0)
    module, x = nn.MultiHeadAttention(6, 2), rng.normal(size=(2, 4, 6))
    given = single(x).requires_grad_()
    with doing("attention of two heads", SHAPES):
        heads = module.split_heads(given)
        out = module.combine_heads(F.scaled_dot_product_attention(heads, heads, heads))
        out.sum().backward()
    alone = [F.scaled_dot_product_attention(*[single(x[..., part])] * 3).numpy() for part in (slice(3), slice(3, 6))]
    check("two heads, each attending with its own three numbers of each token", out.tolist(), np.concatenate(alone, -1))
    require(given.grad is not None, "the gradient does not come back through split_heads and combine_heads")


# ------------------------------------------------------------------------ multi-head attention


def module_of(bias: bool = True, **options: Any) -> nn.MultiHeadAttention:
    """Two heads of width 2 with the golden weights."""
    given = GOLDEN["given"]
    module = nn.MultiHeadAttention(4, given["num_heads"], bias=bias, **options)
    with shared.no_grad():
        for layer, name in ((module.in_proj, "in_proj"), (module.out_proj, "out_proj")):
            layer.weight.copy_(single(given[f"{name}_weight"]))
            if bias:
                layer.bias.copy_(single(given[f"{name}_bias"]))
    return module


def by_arrays(query, key, value, mask=None, order="qkv", heads=2, bias=True, **wrong: bool) -> tuple[np.ndarray, ...]:
    """(out, weights) of the golden weights in NumPy, right or with one thing wrong."""
    given = {name: np.array(value) for name, value in GOLDEN["given"].items()}
    weight, offset = np.split(given["in_proj_weight"], 3), np.split(given["in_proj_bias"] * bias, 3)
    parts = []
    for x, place in zip((query, key, value), (order.index(c) for c in "qkv"), strict=True):
        made = x @ (weight[place] if wrong.get("untransposed") else weight[place].T)
        made = made + (0 if wrong.get("no_bias") else offset[place])
        parts.append(made.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2))
    q, k, v = parts
    scores = q @ k.mT / (1 if wrong.get("no_scale") else np.sqrt(4 if wrong.get("whole") else q.shape[-1]))
    scores = scores if mask is None else np.where(mask, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    out = (weights @ v).swapaxes(1, 2).reshape(query.shape)
    if not wrong.get("no_out_proj"):
        out = out @ given["out_proj_weight"].T + given["out_proj_bias"] * bias
    return out, weights


def mistakes(query, key, value, mask) -> dict[str, np.ndarray]:
    """What is known to go wrong, by its name, as results."""
    three = query, key, value
    found = {
        "k and v exchanged: the rows of in_proj make queries, keys, values, in this order": by_arrays(
            *three, mask, "qvk"
        ),
        "q and k exchanged: the rows of in_proj make queries, keys, values, in this order": by_arrays(
            *three, mask, "kqv"
        ),
        "q and v exchanged: the rows of in_proj make queries, keys, values, in this order": by_arrays(
            *three, mask, "vkq"
        ),
        "the thirds of in_proj in another order: it is queries, keys, values": by_arrays(*three, mask, "kvq"),
        "out_proj left out": by_arrays(*three, mask, no_out_proj=True),
        "no bias in the projections": by_arrays(*three, mask, no_bias=True),
        "weights that are not transposed: F.linear is x Wᵀ + b": by_arrays(*three, mask, untransposed=True),
        "no scale": by_arrays(*three, mask, no_scale=True),
        "the width of all heads in the scale: it is that of one": by_arrays(*three, mask, whole=True),
        "one head of all numbers": by_arrays(*three, mask, heads=1),
        "four heads of one number": by_arrays(*three, mask, heads=4),
        "a mask that is not looked at": by_arrays(*three),
    }
    if mask is not None and not (~np.broadcast_to(mask, (2, 2, 3, mask.shape[-1]))).all(-1).any():
        turned = np.broadcast_to(mask, (2, 1, 3, mask.shape[-1])).transpose(1, 0, 2, 3)
        found["a mask (B, L, S) taken for one of heads, (H, L, S): it needs a dimension of 1 for them"] = by_arrays(
            *three, turned
        )
    if key is not query:
        found |= {
            "keys and values made of the query, whatever was given": by_arrays(query, query, query),
            "values made of the key where there is another value": by_arrays(query, key, key, mask),
            "keys made of the value": by_arrays(query, value, value, mask),
            "key and value exchanged": by_arrays(query, value, key, mask),
            "keys and values exchanged in what project returns": by_arrays(query, value, key, mask, "qvk"),
        }
    return {name: out for name, (out, _) in found.items()}


def check_against_pytorch() -> None:
    """Three calls: result, weights of each head, and gradients."""
    given = {name: np.array(value) for name, value in GOLDEN["given"].items()}
    x, key, value = given["x"], given["key"], given["value"]
    mask, keys = given["mask"][:, None], given["keys_seen"][:, None, None]
    for name, others, right_mask, as_given in (
        ("self", (), None, None),
        ("masked", (), mask, given["mask"]),
        ("cross", (key, value), keys, keys),
    ):
        what = {
            "self": "self-attention",
            "masked": "self-attention under a mask (B, L, S) of padding and future",
            "cross": "cross-attention to another key and value, under a mask of padding",
        }[name]
        right = GOLDEN["pytorch"][name]
        used = (x, *(others or (x, x)))
        if name == "self":  # the oracle of the mistakes is right where nothing is wrong
            np.testing.assert_allclose(by_arrays(*used)[0], right["out"], atol=1e-5)
        wrong = mistakes(*used, right_mask)
        module = module_of()
        leaves = [single(a).requires_grad_() for a in (x, *others)]
        options = {} if as_given is None else {"mask": shared.tensor(as_given)}
        with doing(what, CALLS):
            out = module(*leaves, **options)
        require(
            isinstance(out, shared.Tensor),
            f"{what} returns a {type(out).__name__}: without need_weights it is a Tensor",
        )
        check(f"{what}, against PyTorch", out.tolist(), right["out"], wrong, source="PyTorch")
        with doing(f"{what} with its weights", CALLS):
            pair = module(*leaves, **options, need_weights=True)
        require(isinstance(pair, tuple) and len(pair) == 2, f"{what} with need_weights returns no pair (out, weights)")
        require(pair[1] is not None, f"{what} with need_weights returns None for the weights")
        check(
            f"the weights of each head in {what}",
            pair[1].tolist(),
            right["weights"],
            {
                "the weights' mean over the heads: here each head's are returned": np.mean(right["weights"], axis=1),
                "a mask that is not looked at": by_arrays(*used)[1],
                "one head of all numbers": by_arrays(*used, right_mask, heads=1)[1],
                "no scale": by_arrays(*used, right_mask, no_scale=True)[1],
                "the width of all heads in the scale: it is that of one": by_arrays(*used, right_mask, whole=True)[1],
            },
        )
        check(f"{what} with its weights: the result", pair[0].tolist(), right["out"], wrong)
        out.backward(single(given["grad"]))
        for label, grad in zip(("x", "key", "value"), (leaf.grad for leaf in leaves), strict=False):
            require(grad is not None, f"{what}: no gradient comes back to {label}")
            check(f"{what}: the gradient by {label}", grad.tolist(), right[label], tolerance=1e-3)
        grad = module.in_proj.weight.grad
        require(grad is not None, f"{what}: no gradient comes back to in_proj's weight")
        check(f"{what}: the gradient by in_proj's weight", grad.tolist(), right["in_proj_weight"], tolerance=1e-3)


def check_calls() -> None:
    """Other ways to call it."""
    given = {name: np.array(value) for name, value in GOLDEN["given"].items()}
    x, key = given["x"], given["key"]
    module = module_of()
    ahead = np.tri(3, dtype=bool)
    right = by_arrays(x, x, x, ahead)[0]
    with doing("self-attention with is_causal=True", CALLS):
        found = [module(single(x), is_causal=True), module(single(x), is_causal=True, need_weights=True)[0]]
    for way, out in zip(("", ", its weights wanted"), found, strict=True):
        check(
            f"self-attention with is_causal=True{way}",
            out.tolist(),
            right,
            {
                "is_causal that is not looked at": by_arrays(x, x, x)[0],
                "a diagonal off by one: a token sees the next one": by_arrays(x, x, x, np.tri(3, k=1, dtype=bool))[0],
            },
        )
    with doing("self-attention under a mask (L, S)", CALLS):
        found = module(single(x), mask=shared.tensor(ahead))
    check("self-attention under a mask (L, S)", found.tolist(), right)
    with doing("cross-attention to a key, without a value", CALLS):
        found = module(single(x), single(key))
    check(
        "cross-attention to a key, whose values are made of it too",
        found.tolist(),
        by_arrays(x, key, key)[0],
        {
            "keys and values made of the query": by_arrays(x, x, x)[0],
            **mistakes(x, key, key, None),
        },
    )
    wide = np.tri(3, 4, 0, dtype=bool)
    with doing("cross-attention with is_causal=True", CALLS):
        found = module(single(x), single(key), is_causal=True)
    check(
        "cross-attention with is_causal=True and no cache: query r sees the keys 0 … r",
        found.tolist(),
        by_arrays(x, key, key, wide)[0],
        {
            "a diagonal that ends in the last corner: only a cache stands in front": by_arrays(
                x, key, key, np.tri(3, 4, 1, dtype=bool)
            )[0],
            "is_causal that is not looked at": by_arrays(x, key, key)[0],
        },
    )
    plain = module_of(bias=False)
    for what, arguments, others in (
        ("self-attention", (), (x, x)),
        ("cross-attention", (single(key),), (key, key)),
    ):
        with doing(f"{what} without biases", CALLS):
            found = plain(single(x), *arguments)
        check(f"{what} without biases", found.tolist(), by_arrays(x, *others, bias=False)[0])
    with doing("project", CALLS):
        sizes = [tuple(part.shape) for part in module.project(single(x), single(key))]
    require(
        sizes == [(2, 2, 3, 2), (2, 2, 4, 2), (2, 2, 4, 2)],
        f"project gives queries, keys and values of shapes {sizes}, and (2, 2, 3, 2), (2, 2, 4, 2), (2, 2, 4, 2) are "
        "expected, that is (B, H, L, E) and twice (B, H, S, E)",
    )
    for bad in (single(x[0]), single(np.zeros((2, 3, 5)))):
        why = {"": "It should be refused with a RuntimeError before anything is computed."}
        with doing(f"a query {tuple(bad.shape)} for d_model = 4", why):
            told = refusal(lambda: module(bad))  # noqa: B023
        require(
            str(tuple(bad.shape)) in told,
            f"a query {tuple(bad.shape)} for d_model = 4 should be refused with a RuntimeError that names this shape, "
            + (f"but says {told!r}" if told else "and is not refused, or with another error"),
        )


def check_dropout() -> None:
    """In training some weights are dropped, in evaluation none."""
    given = {name: np.array(value) for name, value in GOLDEN["given"].items()}
    x, key = given["x"], given["key"]
    module = module_of(dropout=0.5)
    for what, arguments in (("self-attention", (single(x),)), ("cross-attention", (single(x), single(key)))):
        shared.manual_seed(0)
        right = module_of()(*arguments).tolist()
        for way, options in (("", {}), (", its weights wanted", {"need_weights": True})):
            module.eval()
            with doing(f"{what} with dropout, in evaluation{way}", CALLS):
                out = module(*arguments, **options)
            out = out[0] if options else out
            if not np.allclose(out.tolist(), right, atol=1e-4):
                pytest.fail(
                    f"{what} with dropout 0.5{way} gives another result in evaluation than without: dropout left on. "
                    "It is for training only (self.training)",
                    pytrace=False,
                )
            module.train()
            outs = [module(*arguments, **options) for _ in range(3)]
            outs = [out[0] if options else out for out in outs]
            require(
                any(not np.allclose(out.tolist(), right, atol=1e-4) for out in outs),
                f"{what} with dropout 0.5{way} gives the same in training as without: no weight is dropped",
            )


def test_multi_head_attention_equals_that_of_pytorch():
    check_against_pytorch()
    check_calls()
    check_dropout()
