"""Sprint 07's milestones on the blocks. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from course import oracles
from course.oracles import doing, require
from shared import Tensor, nn
from shared.nn.masks import length_mask, look_ahead_mask

check = partial(oracles.check, source="expected")  # and "by hand" where it was
DOG = (2.0, 0.0, 1.0, 0.0)
# The gradient at the input of 32 blocks over that at their output, over twelve seeds: 0.34 to 3.3 with pre- or
# post-norm, at most 0.25 (in the middle 0.002) without residual connections, at least 16 without norms.
LEAST, MOST = 0.2, 10.0
PROPERTIES = settings(max_examples=8, deadline=None, derandomize=True, database=None)


def single(values: object) -> Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return shared.tensor(np.random.default_rng(seed).standard_normal(shape))


def jitter(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module in float64, all its parameters other than they start, so that no two of its parts are alike."""
    rng = np.random.default_rng(seed)
    module = module.double()
    with shared.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter + shared.tensor(0.3 * rng.standard_normal(tuple(parameter.shape))))
    return module


def values(x: Tensor) -> list:
    return x.detach().tolist()


# ------------------------------------------------------------------------ feed-forward


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def network(**options) -> tuple[nn.PositionwiseFeedForward, list[np.ndarray]]:
    """A feed-forward network from 4 to 3 and back, and its weights and biases."""
    made = jitter(nn.PositionwiseFeedForward(4, 3, **{"dropout": 0.0, **options}))
    return made, [p.detach().numpy() for p in made.parameters()]


def test_the_feed_forward_network_treats_each_position_alike():
    x = drawn(2, 5, 4).requires_grad_()
    layer, (w1, b1, w2, b2) = network()
    a = x.detach().numpy()
    with doing("PositionwiseFeedForward(4, 3) on (2, 5, 4)"):
        out = layer(x)
    hidden = a @ w1.T + b1
    check(
        "the feed-forward network, relu(x W₁ᵀ + b₁) W₂ᵀ + b₂",
        values(out),
        relu(hidden) @ w2.T + b2,
        {
            "no activation: two linear layers in a row are one": hidden @ w2.T + b2,
            "the activation at the end: it belongs between the two layers": relu(hidden @ w2.T + b2),
            "the activation in both places": relu(relu(hidden) @ w2.T + b2),
            "x added: the residual connection is the block's": relu(hidden) @ w2.T + b2 + a,
            "the second layer left out": relu(hidden),
        },
    )
    with doing("one position alone"):
        alone = layer(x[:1, 3:4])
    check("a position alone, and among others", values(alone[0, 0]), values(out[0, 3]))
    layer, (w1, b1, w2, b2) = network(activation=lambda x: 1 / (1 + (-x).exp()))
    with doing("a feed-forward network with an activation of its own"):
        out = layer(x)
    inner = 1 / (1 + np.exp(-(a @ w1.T + b1)))
    check(
        "a feed-forward network whose activation is the sigmoid",
        values(out),
        inner @ w2.T + b2,
        {"relu, whatever `self.activation` is": relu(a @ w1.T + b1) @ w2.T + b2},
    )
    layer.dropout.p = 1.0
    half = np.full((2, 5, 3), 0.5) @ w2.T + b2
    with doing("a feed-forward network that drops everything"):
        out = layer(x)
    check(
        "a feed-forward network whose dropout drops everything: of the hidden units nothing is left, the last bias is",
        values(out),
        np.broadcast_to(b2, (2, 5, 4)),
        {
            "dropout after the last layer: it is for the hidden units": np.zeros((2, 5, 4)),
            "dropout before the activation, which makes something of 0": half,
            "no dropout": inner @ w2.T + b2,
            "dropout before the first layer": np.broadcast_to(1 / (1 + np.exp(-b1)) @ w2.T + b2, (2, 5, 4)),
        },
    )
    layer.eval()
    check("the same in evaluation, where nothing is dropped", values(layer(x)), inner @ w2.T + b2)


# ------------------------------------------------------------------------ add and norm


def double(x: Tensor) -> Tensor:
    """A part that is not linear: it gives another answer to a row and to the same row, normalised."""
    return x * x + 1


def joined(block: nn.EncoderBlock, x: Tensor, norm: Callable, part: Callable[[Tensor], Tensor]) -> Tensor:
    """add_and_norm of a copy of x; fails if it changes its input, or if it calls the part more than once."""
    given, calls = x.clone(), []

    def counted(x: Tensor) -> Tensor:
        calls.append(x)
        return part(x)

    with doing(f"add_and_norm with norm_first={block.norm_first}"):
        out = block.add_and_norm(given, counted, norm)
    require(
        values(given) == values(x),
        f"add_and_norm with norm_first={block.norm_first} changed its input, which it only reads: `x += …` writes into "
        "the caller's tensor, which others still need, `x = x + …` makes a new one",
    )
    require(
        len(calls) < 2,
        f"add_and_norm with norm_first={block.norm_first} called `part` {len(calls)} times, where once is enough: each "
        "call costs its time, and an attention with a cache puts the tokens into it each time",
    )
    return out


def block_for(norm_first: bool, dropout: float = 0.0) -> nn.EncoderBlock:
    block = nn.EncoderBlock(4, 1, 3, dropout=dropout, norm_first=norm_first).double()
    with shared.no_grad():
        block.norm1.weight.copy_(shared.tensor([2.0, 1.0, -1.0, 0.5]))
        block.norm1.bias.copy_(shared.tensor([0.5, -1.0, 0.0, 1.0]))
    return block


def test_add_and_norm_adds_what_a_part_made_and_normalises_where_it_should():
    attended = shared.tensor([[[-3.0, 5.0, 0.0, 3.0]]])
    plain = nn.EncoderBlock(4, 1, 3, dropout=0.0)
    out = joined(plain, single([[DOG]]), plain.norm1, lambda x: attended.clone())
    third = np.array([[[-3, 3, -1, 1.0]]]) / np.sqrt(5)
    check(
        "post-norm of (2, 0, 1, 0) and (−3, 5, 0, 3): their sum (−1, 5, 1, 3), normalised",
        values(out),
        third,
        {
            "the sum without a norm, as in pre-norm": [[[-1, 5, 1, 3]]],
            "the residual connection taken after the norm: the sum is what is normalised": values(
                plain.norm1(single([[DOG]])) + attended
            ),
            "the residual connection dropped: what the part made, alone": values(plain.norm1(attended)),
            "what the part made dropped": values(plain.norm1(single([[DOG]]))),
        },
        tolerance=1e-3,
        source="by hand",
    )
    x = drawn(2, 3, 4)
    for first in (False, True):
        block = block_for(first)
        norm, kind = block.norm1, "pre-norm" if first else "post-norm"
        out = joined(block, x, norm, double)
        pre, post = x + double(norm(x)), norm(x + double(x))
        check(
            f"add_and_norm with norm_first={first}, {kind}",
            values(out),
            values(pre if first else post),
            {
                "post-norm, where pre-norm was asked for"
                if first
                else "pre-norm, where post-norm was asked for": values(post if first else pre),
                "the residual connection dropped: x does not come through": values(
                    double(norm(x)) if first else norm(double(x))
                ),
                "the residual connection taken after the norm: x itself has to come through": values(
                    norm(x) + double(norm(x)) if first else norm(x) + double(x)
                ),
                "what the part made normalised, and not what goes in": values(x + norm(double(x))),
                "no norm at all": values(x + double(x)),
                "norms before and after": values(norm(x + double(norm(x)))),
            },
        )
        other = joined(block, x, same, double)
        check(
            "add_and_norm with a norm that does nothing",
            values(other),
            values(x + double(x)),
            {"self.norm1, whatever norm is given": values(pre if first else post)},
        )
        block = block_for(first, dropout=1.0)
        out = joined(block, x, norm, double)
        check(
            f"{kind} where dropout drops all that the part made: x remains",
            values(out),
            values(x if first else norm(x)),
            {
                "dropout left out": values(pre if first else post),
                "dropout on the sum: x is never dropped": np.zeros((2, 3, 4)),
                "dropout on the sum, before the norm": values(norm(x * 0)),
                "dropout before the part, which makes something of 0": values(
                    x + double(x * 0) if first else norm(x + double(x * 0))
                ),
                "dropout between norm and sum": values(norm(x) if first else x),
            },
        )


def test_residual_connections_carry_the_gradient_through_32_blocks():
    """The norm of the gradient at the input over that at the output, with residual connections, pre- and post-norm."""
    x = shared.tensor(np.random.default_rng(3).standard_normal((2, 6, 16))).requires_grad_()
    for first in (True, False):
        shared.manual_seed(0)
        blocks = [nn.EncoderBlock(16, 2, 32, dropout=0.0, norm_first=first).double() for _ in range(32)]
        x.grad, out = None, x
        with doing(f"32 blocks with norm_first={first}"):
            for block in blocks:
                out = block(out)
            (out * drawn(2, 6, 16, seed=4)).sum().backward()
        reached = float((x.grad**2).sum().sqrt()) / float((drawn(2, 6, 16, seed=4) ** 2).sum().sqrt())
        require(
            reached > LEAST,
            f"of the gradient at the output of 32 blocks (norm_first={first}) {reached:.2g} times as much reaches "
            f"their input, where a stack with residual connections keeps more than {LEAST}. Does x come through every "
            "block, added to what the parts make of it?",
        )
        require(
            reached < MOST,
            f"the gradient at the input of 32 blocks (norm_first={first}) is {reached:.2g} times that at the output, "
            f"where it is less than {MOST} with layer norm in each. Is every part's input (pre-norm) or every sum "
            "(post-norm) normalised?",
        )


# ------------------------------------------------------------------------ encoder block


def chained(x: Tensor, block: nn.Module, steps: list[tuple[Callable, Callable | None]], first: bool) -> Tensor:
    """The steps one after the other, each with its norm: `add_and_norm` written out."""
    for part, norm in steps:
        if norm is None:
            x = part(x)
        else:
            x = x + part(norm(x)) if first else norm(x + part(x))
    return x


def alone(y: Callable[[Tensor], Tensor], norm: Callable, first: bool) -> Callable[[Tensor], Tensor]:
    """A part with its norm and without its residual connection."""
    return (lambda x: y(norm(x))) if first else (lambda x: norm(y(x)))


def same(x: Tensor) -> Tensor:
    return x


def both(first: Callable, second: Callable, x: Tensor) -> Tensor:
    return first(x) + second(x)


def turned(attend: Callable, memory: Tensor, x: Tensor) -> Tensor:
    return attend(memory, key=x)


def own_values(attend: Callable, memory: Tensor, x: Tensor) -> Tensor:
    return attend(x, key=memory, value=x)


def kept(what: str, call: Callable[..., Tensor], *given: Tensor, hints: dict[str, str] | None = None) -> Tensor:
    """What `call` makes of copies of these tensors, which it has to leave as they came."""
    copies = [x.clone() for x in given]
    with doing(what, hints):
        out = call(*copies)
    for before, after in zip(given, copies, strict=True):
        require(
            values(before) == values(after),
            f"{what} changed its input: `x += …` writes into the caller's tensor, which others still need; "
            "`x = x + …` makes a new one",
        )
    return out


def check_dropped_once(what: str, part: str, call: Callable[[Tensor], Tensor], x: Tensor, made: Tensor) -> None:
    """`call`, without norms, and with a dropout of p = 0.5 for the one part that makes something other than zeros.

    What is added to x is then nothing or twice what the part made, each at about half of all places.
    """
    with doing(what):
        added = (call(x) - x).detach().numpy()
    made = made.detach().numpy()
    factors = added / made
    few = [float(f) for f in np.unique(np.round(factors, 2))]
    dropped, doubled = np.isclose(added, 0), np.isclose(added, 2 * made)
    looks = f"what the {part} made is multiplied by {few[:6]}{' and more' if len(few) > 6 else ''}"
    if set(few) <= {0.0, 4.0}:
        looks = f"dropout twice, so that three quarters of what the {part} made are dropped, and the rest is fourfold"
    elif few == [1.0]:
        looks = f"no dropout of what the {part} made"
    require(
        (dropped | doubled).all() and 0.3 < dropped.mean() < 0.7,
        f"{what}: of what the {part} made about half has to be dropped, and the rest doubled, 1 / (1 - p). "
        f"That is what one gets from: {looks}.",
    )


def silenced(block: nn.Module, *layers: nn.Linear) -> nn.Module:
    """The block with identities for norms, and these linear layers making zeros."""
    for name, module in list(block.named_children()):
        if isinstance(module, nn.LayerNorm):
            setattr(block, name, nn.Identity())
    with shared.no_grad():
        for layer in layers:
            layer.weight.zero_()
            layer.bias.zero_()
    return block


def again(
    part: Callable[[Tensor], Tensor], norm: Callable[[Tensor], Tensor], first: bool
) -> Callable[[Tensor], Tensor]:
    """A part in its residual connection with its norm, and x added once more."""
    return (lambda x: x + (x + part(norm(x)))) if first else (lambda x: x + norm(x + part(x)))


def near(queries: int, keys: int) -> Tensor:
    """A window: True where a query may attend, to a key at most one place away."""
    return shared.tensor(abs(np.arange(queries)[:, None] - np.arange(keys)[None]) <= 1)


PIECES = ((0, 2), (2, 3), (3, 5))  # a prompt, one token, and a few at once
BY_NAME = {
    "cannot be multiplied": "Is the mask taken for the key? The attention's second argument is `key`: hand mask, "
    "is_causal and cache on by name.",
    "not callable": "add_and_norm calls its part itself, with what goes into it: hand it a function of one Tensor, not "
    "the function's result.",
}


def piecewise(
    attend: Callable, norm: Callable, rest: list[tuple], first: bool, x: Tensor, mask: Tensor | None, causal: bool
) -> list:
    """A block on the pieces of x, one after the other: attention with a cache and the mask of the keys so far, rest."""
    cache, out = nn.KVCache(), []
    with shared.no_grad():
        for start, end in PIECES:
            so_far = None if mask is None else mask[..., :end]
            look = partial(attend, mask=so_far, is_causal=causal, cache=cache)
            out.append(chained(x[:, start:end], attend, [(look, norm), *rest], first))
    return values(shared.cat(out, 1))


def test_an_encoder_block_is_attention_then_feed_forward_each_added_and_normalised():
    x, mask = drawn(2, 5, 8), length_mask(shared.tensor([5, 3]), 5)
    for first in (False, True):
        block = jitter(nn.EncoderBlock(8, 2, 12, dropout=0.0, norm_first=first))
        attend, feed, n1, n2 = block.self_attention, block.feed_forward, block.norm1, block.norm2
        run = partial(chained, x, block, first=first)
        for causal in (False, True):
            seen = partial(attend, mask=mask, is_causal=causal)
            what = f"EncoderBlock with norm_first={first}, a padding mask and is_causal={causal}"
            out = kept(what, partial(block, mask=mask, is_causal=causal), x, hints=BY_NAME)
            require(tuple(out.shape) == (2, 5, 8), f"of (2, 5, 8) an encoder block makes {tuple(out.shape)}")
            check(
                f"an encoder block with norm_first={first}, padding and is_causal={causal}",
                values(out),
                values(run([(seen, n1), (feed, n2)])),
                {
                    "the mask left out: padding is attended to": values(
                        run([(partial(attend, is_causal=causal), n1), (feed, n2)])
                    ),
                    "is_causal left out: tokens see those after them": values(
                        run([(partial(attend, mask=mask), n1), (feed, n2)])
                    )
                    if causal
                    else [],
                    "a look-ahead mask that nobody asked for": []
                    if causal
                    else values(run([(partial(attend, mask=mask, is_causal=True), n1), (feed, n2)])),
                    "neither mask nor is_causal handed on": values(run([(attend, n1), (feed, n2)])),
                    "the mask turned around: the block's masks are True where a query may attend": values(
                        run([(partial(attend, mask=~mask, is_causal=causal), n1), (feed, n2)])
                    ),
                    "x added once more to what add_and_norm returns, which has x in it": values(
                        run([(again(seen, n1, first), None), (again(feed, n2, first), None)])
                    ),
                    "the feed-forward network first": values(run([(feed, n1), (seen, n2)])),
                    "the feed-forward network first, with its own norm": values(run([(feed, n2), (seen, n1)])),
                    "norm1 and norm2 exchanged": values(run([(seen, n2), (feed, n1)])),
                    "norm1 in both places": values(run([(seen, n1), (feed, n1)])),
                    "no feed-forward network": values(run([(seen, n1)])),
                    "no attention": values(run([(feed, n2)])),
                    "attention without its residual connection": values(
                        run([(alone(seen, n1, first), None), (feed, n2)])
                    ),
                    "the feed-forward network without its residual connection": values(
                        run([(seen, n1), (alone(feed, n2, first), None)])
                    ),
                    "no residual connection at all": values(
                        run([(alone(seen, n1, first), None), (alone(feed, n2, first), None)])
                    ),
                    "no norms": values(run([(seen, same), (feed, same)])),
                    "the attention of x as it came: in pre-norm it reads norm1 of it"
                    if first
                    else "no norm after the attention": values(run([(seen, same), (feed, n2)])),
                    "the feed-forward network of x as it came: in pre-norm it reads norm2 of it"
                    if first
                    else "no norm after the feed-forward network": values(run([(seen, n1), (feed, same)])),
                    "attention and feed-forward network side by side: the second reads what the first made": values(
                        run([(partial(both, seen, feed), n1)])
                    ),
                    "both parts twice": values(run([(seen, n1), (feed, n2)] * 2)),
                    "pre-norm and post-norm exchanged": values(chained(x, block, [(seen, n1), (feed, n2)], not first)),
                },
            )
        for kind, other in (("a window", near(5, 5)), ("numbers added to the scores", drawn(5, 5, seed=8))):
            with doing(f"EncoderBlock with {kind} for a mask", BY_NAME):
                out = block(x, other)
            seen = partial(attend, mask=other)
            check(
                f"an encoder block with norm_first={first} and {kind} for a mask",
                values(out),
                values(run([(seen, n1), (feed, n2)])),
                {
                    "the mask left out": values(run([(attend, n1), (feed, n2)])),
                    "a look-ahead mask in the place of the one that was given": values(
                        run([(partial(attend, is_causal=True), n1), (feed, n2)])
                    ),
                    "a look-ahead mask besides, that nobody asked for": values(
                        run([(partial(attend, mask=other, is_causal=True), n1), (feed, n2)])
                    ),
                },
            )
        cache = nn.KVCache()
        with shared.no_grad(), doing("an encoder block that is given a cache", BY_NAME):
            for a, b in PIECES:
                block(x[:, a:b], is_causal=True, cache=cache)
        require(
            len(cache) == 5,
            f"after five tokens the cache of an encoder block has {len(cache)}: is it handed to the attention?",
        )
        cache = nn.KVCache()
        with shared.no_grad(), doing("an encoder block that is given a cache and a mask", BY_NAME):
            pieces = [block(x[:, a:b], mask[..., :b], is_causal=True, cache=cache) for a, b in PIECES]
        cut = partial(piecewise, attend, n1, [(feed, n2)], first, x)
        check(
            "five tokens in three pieces of 2, 1 and 2 with a cache, and all at once",
            values(shared.cat(pieces, 1)),
            values(run([(partial(attend, mask=mask, is_causal=True), n1), (feed, n2)])),
            {
                "is_causal left out where there is a cache: tokens see those after them in the same piece": cut(
                    mask, causal=False
                ),
                "the mask left out where there is a cache": cut(None, causal=True),
            },
        )
        block = jitter(nn.EncoderBlock(8, 2, 12, dropout=0.0, norm_first=first))
        block.dropout.p = 0.5
        what, wide = f"an encoder block (norm_first={first}, no norms) whose dropout has p = 0.5", drawn(2, 20, 8)
        silenced(block, block.feed_forward.linear2)
        check_dropped_once(what, "attention", block, wide, block.self_attention(wide))
        block = jitter(nn.EncoderBlock(8, 2, 12, dropout=0.0, norm_first=first))
        block.dropout.p = 0.5
        silenced(block, block.self_attention.out_proj)
        check_dropped_once(what, "feed-forward network", block, wide, block.feed_forward(wide))


# ------------------------------------------------------------------------ decoder block


ASKS = {
    "be broadcast": "A result as long as memory? x asks and memory answers: x is the query, memory the key.",
    "do not fit together": "Keys from memory and values from x? Both are memory's.",
    **BY_NAME,
}
CACHED = {
    "be broadcast": "Is the cache handed to the cross-attention as well? It is for the self-attention: memory's tokens "
    "are all there from the beginning.",
    **BY_NAME,
}
WHICH_MASK = {
    "be broadcast": "Which mask is for which attention? `mask` has x's tokens for keys, `memory_mask` those of memory.",
    **BY_NAME,
}


def decoder_mistakes(
    block: nn.DecoderBlock, x: Tensor, memory: Tensor, masks: tuple[Tensor | None, Tensor | None], first: bool
) -> dict[str, list]:
    """What a decoder block would make of x if it were put together in another way."""
    own, cross, feed = block.self_attention, block.cross_attention, block.feed_forward
    n1, n2, n3 = block.norm1, block.norm2, block.norm3
    look = partial(own, mask=masks[0], is_causal=True)
    read = partial(cross, key=memory, mask=masks[1])
    other_ways = {
        "the cross-attention reads x instead of memory": [(look, n1), (partial(cross, mask=masks[0]), n2), (feed, n3)],
        "no look-ahead mask: in a decoder is_causal is True unless told otherwise": [
            (partial(own, mask=masks[0]), n1),
            (read, n2),
            (feed, n3),
        ],
        "the cross-attention left out": [(look, n1), (feed, n3)],
        "the cross-attention left out, with the norms counted through": [(look, n1), (feed, n2)],
        "the cross-attention before the self-attention": [(read, n1), (look, n2), (feed, n3)],
        "the cross-attention before the self-attention, each with its own norm": [(read, n2), (look, n1), (feed, n3)],
        "the cross-attention begins with the first x again: what the self-attention made is lost": [
            (read, n2),
            (feed, n3),
        ],
        "the feed-forward network begins with the first x again": [(feed, n3)],
        "the self-attention in both places, with memory as key": [
            (look, n1),
            (partial(own, key=memory, mask=masks[1]), n2),
            (feed, n3),
        ],
        "memory normalised: that is the business of whoever made it": [
            (look, n1),
            (partial(cross, key=n2(memory), mask=masks[1]), n2),
            (feed, n3),
        ],
        "the feed-forward network left out": [(look, n1), (read, n2)],
        "norm2 in the third place too": [(look, n1), (read, n2), (feed, n2)],
        "norms in another order": [(look, n3), (read, n2), (feed, n1)],
        "the cross-attention without its residual connection": [
            (look, n1),
            (alone(read, n2, first), None),
            (feed, n3),
        ],
        "the cross-attention causal: x may read all of memory": [
            (look, n1),
            (partial(cross, key=memory, mask=masks[1], is_causal=True), n2),
            (feed, n3),
        ],
        "x added once more to what add_and_norm returns, which has x in it": [
            (again(part, norm, first), None) for part, norm in ((look, n1), (read, n2), (feed, n3))
        ],
    }
    found = {name: values(chained(x, block, steps, first)) for name, steps in other_ways.items()}
    exchanged = values(chained(x, block, [(look, n1), (read, n2), (feed, n3)], not first))
    return {**found, "pre-norm and post-norm exchanged": exchanged}


def test_a_decoder_block_looks_back_and_into_memory():
    x, memory = drawn(2, 4, 8), drawn(2, 6, 8, seed=5)
    seen, hidden = length_mask(shared.tensor([4, 2]), 4), length_mask(shared.tensor([6, 3]), 6)
    square = drawn(2, 4, 8, seed=6)  # a memory as long as x, for what can only be confused then
    for first in (False, True):
        block = jitter(nn.DecoderBlock(8, 2, 12, dropout=0.0, norm_first=first))
        own, cross, feed = block.self_attention, block.cross_attention, block.feed_forward
        n1, n2, n3 = block.norm1, block.norm2, block.norm3
        run = partial(chained, x, block, first=first)
        out = kept(f"DecoderBlock with norm_first={first} and no masks", block, x, memory, hints=ASKS)
        require(
            tuple(out.shape) == (2, 4, 8),
            f"of x (2, 4, 8) and a memory (2, 6, 8) a decoder block makes {tuple(out.shape)}: the residual connections "
            "carry x, not memory",
        )
        look, read = partial(own, is_causal=True), partial(cross, key=memory)
        check(
            f"a decoder block with norm_first={first} and no masks",
            values(out),
            values(run([(look, n1), (read, n2), (feed, n3)])),
            decoder_mistakes(block, x, memory, (None, None), first),
        )
        with doing(f"DecoderBlock with norm_first={first} and both masks", WHICH_MASK):
            out = block(x, memory, mask=seen, memory_mask=hidden)
        require(tuple(out.shape) == (2, 4, 8), f"of x (2, 4, 8) a decoder block makes {tuple(out.shape)}")
        look = partial(own, mask=seen, is_causal=True)
        read = partial(cross, key=memory, mask=hidden)
        check(
            f"a decoder block with norm_first={first} and both masks",
            values(out),
            values(run([(look, n1), (read, n2), (feed, n3)])),
            {
                "the mask of the self-attention left out": values(
                    run([(partial(own, is_causal=True), n1), (read, n2), (feed, n3)])
                ),
                "memory_mask left out: padding in memory is read": values(
                    run([(look, n1), (partial(cross, key=memory), n2), (feed, n3)])
                ),
                "memory_mask turned around: the block's masks are True where a query may attend": values(
                    run([(look, n1), (partial(cross, key=memory, mask=~hidden), n2), (feed, n3)])
                ),
                **decoder_mistakes(block, x, memory, (seen, hidden), first),
            },
        )
        with doing("a decoder block whose memory is as long as x", ASKS):
            out = block(x, square, mask=seen)
        read = partial(cross, key=square)
        check(
            "a decoder block without memory_mask, whose memory is as long as x",
            values(out),
            values(run([(look, n1), (read, n2), (feed, n3)])),
            {
                "the self-attention's mask given to the cross-attention as well": values(
                    run([(look, n1), (partial(cross, key=square, mask=seen), n2), (feed, n3)])
                ),
                "memory's tokens taken for queries: x asks, memory answers": values(
                    run([(look, n1), (partial(turned, cross, square), n2), (feed, n3)])
                ),
                "values from x, keys from memory: both are memory's": values(
                    run([(look, n1), (partial(own_values, cross, square), n2), (feed, n3)])
                ),
                "the self-attention's own mask left out": values(
                    run([(partial(own, is_causal=True), n1), (read, n2), (feed, n3)])
                ),
            },
        )
        with doing("a decoder block with is_causal=False"):
            out = block(x, memory, is_causal=False)
        read = partial(cross, key=memory)
        check(
            "a decoder block with is_causal=False",
            values(out),
            values(run([(own, n1), (read, n2), (feed, n3)])),
            {
                "causal all the same: is_causal is not handed on": values(
                    run([(partial(own, is_causal=True), n1), (read, n2), (feed, n3)])
                )
            },
        )
        cache, longer = nn.KVCache(), drawn(2, 5, 8, seed=10)
        with shared.no_grad(), doing("a decoder block that is given a cache", CACHED):
            pieces = [block(longer[:, a:b], memory, memory_mask=hidden, cache=cache) for a, b in PIECES]
        require(
            len(cache) == 5,
            f"after five tokens the cache of a decoder block has {len(cache)}: it is for the self-attention, not for "
            "memory, whose tokens are all there from the beginning",
        )
        read = partial(cross, key=memory, mask=hidden)
        rest = [(read, n2), (feed, n3)]
        check(
            "five tokens in three pieces of 2, 1 and 2 with a cache, and all at once",
            values(shared.cat(pieces, 1)),
            values(chained(longer, block, [(partial(own, is_causal=True), n1), *rest], first)),
            {
                "is_causal left out where there is a cache: tokens see those after them in the same piece": piecewise(
                    own, n1, rest, first, longer, None, causal=False
                )
            },
        )
        window = near(4, 6)
        with doing("a decoder block with a window into memory", WHICH_MASK):
            out = block(x, memory, memory_mask=window)
        read = partial(cross, key=memory, mask=window)
        check(
            "a decoder block with a window for memory_mask, (T, S)",
            values(out),
            values(run([(partial(own, is_causal=True), n1), (read, n2), (feed, n3)])),
        )
        what = f"a decoder block (norm_first={first}, no norms) whose dropout has p = 0.5"
        wide = drawn(2, 20, 8)
        for place, part in enumerate(("self-attention", "cross-attention", "feed-forward network")):
            block = jitter(nn.DecoderBlock(8, 2, 12, dropout=0.0, norm_first=first))
            block.dropout.p = 0.5
            ends = [block.self_attention.out_proj, block.cross_attention.out_proj, block.feed_forward.linear2]
            made = (
                block.self_attention(wide, is_causal=True),
                block.cross_attention(wide, key=memory),
                block.feed_forward(wide),
            )[place]
            silenced(block, *ends[:place], *ends[place + 1 :])
            check_dropped_once(what, part, partial(block, memory=memory), wide, made)


# ------------------------------------------------------------------------ properties


@PROPERTIES
@given(st.integers(2, 7), st.data())
def changing_a_token(length: int, data: st.DataObject) -> None:
    place, first = data.draw(st.integers(0, length - 1)), data.draw(st.booleans())
    encoder = jitter(nn.EncoderBlock(4, 2, 6, dropout=0.0, norm_first=first))
    decoder = jitter(nn.DecoderBlock(4, 2, 6, dropout=0.0, norm_first=first))
    x, memory = drawn(1, length, 4, seed=length), drawn(1, 3, 4, seed=7)
    other = x.clone()
    other[:, place] += drawn(4, seed=13)  # not the same for all: a norm would take that away
    for name, block in (("encoder", partial(encoder, is_causal=True)), ("decoder", partial(decoder, memory=memory))):
        with doing(f"a causal {name} block on {length} tokens"):
            moved = (block(other) - block(x)).abs().sum(-1)[0].detach().numpy()
        require(
            not moved[:place].any(),
            f"a causal {name} block on {length} tokens: token {place} was changed, and the result at an earlier one, "
            f"{int(np.argmax(moved > 0))}, changed too. A token sees what comes after it",
        )
        require(
            moved[place:].all(),
            f"a causal {name} block on {length} tokens: token {place} was changed, and the results at "
            f"{[int(i) for i in place + np.flatnonzero(moved[place:] == 0)]} did not, though they see it",
        )
    order = data.draw(st.permutations(range(length)))
    with doing("an encoder block on tokens in another order"):
        there, here = encoder(x[:, list(order)]), encoder(x)[:, list(order)]
    check(
        "an encoder block without positions: tokens in another order, results in that order",
        values(there),
        values(here),
    )


@PROPERTIES
@given(st.integers(1, 4), st.integers(1, 3), st.booleans())
def padding(length: int, more: int, first: bool) -> None:
    encoder = jitter(nn.EncoderBlock(4, 2, 6, dropout=0.0, norm_first=first))
    decoder = jitter(nn.DecoderBlock(4, 2, 6, dropout=0.0, norm_first=first))
    x, rest = drawn(1, length, 4, seed=length), drawn(1, more, 4, seed=9) * 100
    mask, longer = length_mask(shared.tensor([length]), length + more), shared.cat([x, rest], 1)
    with doing(f"an encoder block on {length} tokens and {more} of padding"):
        out = encoder(longer, mask)[:, :length]
    check(
        f"an encoder block on {length} tokens, with {more} of padding behind them",
        values(out),
        values(encoder(x)),
        {"padding that is attended to: the mask does not arrive": values(encoder(longer)[:, :length])},
    )
    queries = drawn(1, 2, 4, seed=11)
    with doing(f"a decoder block whose memory has {length} tokens and {more} of padding"):
        out = decoder(queries, longer, memory_mask=mask)
    check(
        f"a decoder block whose memory has {length} tokens, and {more} of padding behind them",
        values(out),
        values(decoder(queries, x)),
        {"padding in memory that is read: memory_mask does not arrive": values(decoder(queries, longer))},
    )


def test_no_token_of_a_block_sees_a_later_one_or_padding():
    changing_a_token()
    padding()


# ------------------------------------------------------------------------ PyTorch's names


NAMES = {  # of the state dict of nn.TransformerEncoderLayer, for those of EncoderBlock
    "self_attention.in_proj.weight": "self_attn.in_proj_weight",
    "self_attention.in_proj.bias": "self_attn.in_proj_bias",
    "self_attention.out_proj.weight": "self_attn.out_proj.weight",
    "self_attention.out_proj.bias": "self_attn.out_proj.bias",
    **{f"feed_forward.linear{i}.{kind}": f"linear{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")},
    **{f"norm{i}.{kind}": f"norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")},
}


def layer_like(block: nn.EncoderBlock, first: bool) -> nn.TransformerEncoderLayer:
    """PyTorch's layer with the block's weights."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=first).double()
    layer.load_state_dict({NAMES[name]: value for name, value in block.state_dict().items()})
    return layer


def test_pytorchs_layer_is_the_block_with_masks_that_hide():
    x, lengths = drawn(2, 5, 8), shared.tensor([5, 3])
    may, ahead = length_mask(lengths, 5), look_ahead_mask(5)
    hidden = ~may[:, 0, 0]  # PyTorch's key_padding_mask (N, S): True is padding
    added = drawn(5, 5, seed=8)
    for first in (False, True):
        blocks = [jitter(nn.EncoderBlock(8, 2, 12, dropout=0.0, norm_first=first), seed) for seed in (1, 2)]
        layer = layer_like(blocks[0], first)
        expected, unmasked = (values(chained_block(blocks[0], x, m, first)) for m in ((may, ahead), (None, None)))
        only_padding, only_ahead = (values(chained_block(blocks[0], x, m, first)) for m in ((may, None), (None, ahead)))
        what = f"TransformerEncoderLayer with norm_first={first}"
        out = kept(what, partial(layer, src_mask=~ahead, src_key_padding_mask=hidden), x)
        check(
            f"nn.TransformerEncoderLayer with norm_first={first}, src_mask and src_key_padding_mask",
            values(out),
            expected,
            {
                "neither mask handed on": unmasked,
                "src_mask turned around: PyTorch's layers have True for hidden throughout": values(
                    chained_block(blocks[0], x, (may, ~ahead), first)
                ),
                "src_key_padding_mask turned around: PyTorch's layers have True for hidden throughout": values(
                    chained_block(blocks[0], x, (~may, ahead), first)
                ),
                "both masks turned around: PyTorch's layers have True for hidden throughout": values(
                    chained_block(blocks[0], x, (~may, ~ahead), first)
                ),
                "x added once more": values(
                    chained(
                        x, blocks[0], [(again(p, n, first), None) for p, n in parts_of(blocks[0], may & ahead)], first
                    )
                ),
                "src_mask left out: tokens see those after them": only_padding,
                "src_key_padding_mask left out: padding is attended to": only_ahead,
                "pre-norm and post-norm exchanged": values(chained_block(blocks[0], x, (may, ahead), not first)),
                "the feed-forward network without residual connection": values(
                    without_residual(blocks[0], x, (may, ahead), first)
                ),
            },
        )
        window = near(5, 5)
        for kind, hides, meant in (
            ("a window for src_mask and no padding", {"src_mask": ~window}, (None, window)),
            ("a look-ahead src_mask and no padding", {"src_mask": ~ahead}, (None, ahead)),
            ("padding and no src_mask", {"src_key_padding_mask": hidden}, (may, None)),
            ("numbers for src_mask, which are added", {"src_mask": added}, (None, added)),
        ):
            with doing(f"TransformerEncoderLayer with {kind}"):
                out = layer(x, **hides)
            turned = [mask if mask is None or mask is added else ~mask for mask in meant]
            check(
                f"nn.TransformerEncoderLayer with norm_first={first}, {kind}",
                values(out),
                values(chained_block(blocks[0], x, meant, first)),
                {
                    "is_causal=True for any src_mask: a triangle is read in place of the mask": only_ahead,
                    "no mask at all": unmasked,
                    "the mask turned around: PyTorch's layers have True for hidden throughout": values(
                        chained_block(blocks[0], x, turned, first)
                    ),
                },
            )
        with doing("TransformerEncoderLayer on one sequence, (S, d_model)"):
            out = layer(x[1], src_mask=~ahead, src_key_padding_mask=hidden[1])
        check("nn.TransformerEncoderLayer on one sequence, (S, d_model), with both masks", values(out), expected[1])
        layer.dropout1.p = layer.dropout2.p = 1.0
        with doing("TransformerEncoderLayer where everything is dropped"):
            out = layer(x)
        run = partial(chained, x, blocks[0], first=first)
        (attend, n1), (feed, n2) = parts_of(blocks[0], None)
        check(
            f"nn.TransformerEncoderLayer with norm_first={first} that drops what its parts make: x remains",
            values(out),
            values(x if first else layer.norm2(layer.norm1(x))),
            {
                "x dropped as well": np.zeros((2, 5, 8)),
                "no dropout": unmasked,
                "no dropout of what the feed-forward network makes: _ff_block has it, _feed_forward has not": values(
                    run([(nothing, n1), (feed, n2)])
                ),
                "no dropout of what the attention makes": values(run([(attend, n1), (nothing, n2)])),
            },
        )
        what, wide = (
            f"nn.TransformerEncoderLayer (norm_first={first}, no norms) whose dropout has p = 0.5",
            drawn(2, 20, 8),
        )
        for name, part in (("dropout1", "attention"), ("dropout2", "feed-forward network")):
            thin = layer_like(blocks[0], first)
            getattr(thin, name).p = 0.5
            silenced(thin, thin.linear2 if name == "dropout1" else thin.self_attn.out_proj)
            made = blocks[0].self_attention(wide) if name == "dropout1" else blocks[0].feed_forward(wide)
            check_dropped_once(what, part, thin, wide, made)
        layers = [layer_like(block, first) for block in blocks]
        stack = nn.TransformerEncoder(layers[0], 2, norm=jitter(nn.LayerNorm(8), 3))
        stack.layers[1].load_state_dict(layers[1].state_dict())
        one, two = (partial(chained_block, block, masks=(may, ahead), first=first) for block in blocks)
        bare = partial(chained_block, blocks[1], masks=(None, None), first=first)
        in_turn = partial(stacked, blocks, x, first)
        what = "TransformerEncoder of two layers with a norm"
        out = kept(what, partial(stack, mask=~ahead, src_key_padding_mask=hidden), x)
        check(
            f"nn.TransformerEncoder of two layers and a norm, norm_first={first}",
            values(out),
            values(stack.norm(two(one(x)))),
            {
                "no norm at the end": values(two(one(x))),
                "the last layer alone, of x: each layer reads what the one before made": values(stack.norm(two(x))),
                "the first layer alone": values(stack.norm(one(x))),
                "the first layer twice": values(stack.norm(one(one(x)))),
                "layers in falling order": values(stack.norm(one(two(x)))),
                "the norm after every layer": values(stack.norm(two(stack.norm(one(x))))),
                "masks for the first layer only": values(stack.norm(bare(one(x)))),
                "a sum of the layers": values(stack.norm(one(x) + two(x))),
                "no masks for the layers": values(stack.norm(in_turn(None, None))),
                "`mask` not handed to the layers": values(stack.norm(in_turn(may, None))),
                "src_key_padding_mask not handed to the layers": values(stack.norm(in_turn(None, ahead))),
                "mask turned around: PyTorch's layers have True for hidden throughout": values(
                    stack.norm(in_turn(may, ~ahead))
                ),
                "what the layers make is thrown away": values(stack.norm(x)),
            },
        )
        with doing("TransformerEncoder with a window for a mask"):
            out = stack(x, mask=~window)
        check(
            f"nn.TransformerEncoder with norm_first={first}, a window for a mask and no padding",
            values(out),
            values(stack.norm(in_turn(None, window))),
            {
                "is_causal=True for any mask: a triangle is read in place of the mask. For None the mask has to be "
                "looked at": values(stack.norm(in_turn(None, ahead))),
                "no masks for the layers": values(stack.norm(in_turn(None, None))),
            },
        )
        stack.norm = None
        with doing("TransformerEncoder without a norm"):
            out = stack(x, mask=~ahead, src_key_padding_mask=hidden)
        check(
            "nn.TransformerEncoder without a norm",
            values(out),
            values(two(one(x))),
            {"what the layers make is thrown away": values(x)},
        )


def nothing(x: Tensor) -> Tensor:
    return x * 0


def parts_of(block: nn.EncoderBlock, mask: Tensor | None) -> list[tuple[Callable, Callable]]:
    """The block's two parts with their norms."""
    return [(partial(block.self_attention, mask=mask), block.norm1), (block.feed_forward, block.norm2)]


def chained_block(block: nn.EncoderBlock, x: Tensor, masks: Sequence[Tensor | None], first: bool) -> Tensor:
    """What the block makes of x, its two steps written out; masks are True where a query may attend."""
    given = [mask for mask in masks if mask is not None]
    mask = given[0] & given[1] if len(given) == 2 else given[0] if given else None
    return chained(x, block, parts_of(block, mask), first)


def stacked(blocks: list[nn.EncoderBlock], x: Tensor, first: bool, *masks: Tensor | None) -> Tensor:
    """What the blocks make of x, one after the other, each with these masks."""
    for block in blocks:
        x = chained_block(block, x, masks, first)
    return x


def without_residual(block: nn.EncoderBlock, x: Tensor, masks: tuple[Tensor, Tensor], first: bool) -> Tensor:
    attend = partial(block.self_attention, mask=masks[0] & masks[1])
    steps = [(attend, block.norm1), (alone(block.feed_forward, block.norm2, first), None)]
    return chained(x, block, steps, first)
