"""Sprint 08's milestones on the forward pass. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

import shared
from course import oracles
from course.oracles import doing, require
from shared import Tensor, nn
from shared.models.gpt import GPT, GPTConfig

check = partial(oracles.check, source="written out with NumPy", tolerance=1e-6)
CONFIG = GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=8, dropout=0.0)
HINTS = {
    "but got shape (2, 5, 7)": "The head's scores are (B, T, V); nothing of the model comes after it.",
    "not iterable": "`blocks` is a ModuleList: one block after the other, by a loop.",
    "NoneType": "`caches` may be None: then no block gets one.",
    "unexpected keyword": "A block is called with x, and with mask=, is_causal= and cache= by name.",
    "positional argument": "A block is called with x, and with mask=, is_causal= and cache= by name.",
}
State = dict[str, np.ndarray]


def spoken(config: GPTConfig = CONFIG) -> tuple[GPT, State]:
    """A GPT in float64, no two of its numbers alike, and its tensors as arrays; no biases where it has none."""
    with doing("GPT(config)"):
        model = GPT(config).double().eval()
    rng = np.random.default_rng(5)
    with shared.no_grad():
        for p in model.parameters():
            p.copy_(shared.tensor(rng.normal(1.0 if p.ndim < 2 else 0.0, 0.4, tuple(p.shape))))
    return model, {name: x.numpy() for name, x in model.state_dict().items()}


# ------------------------------------------------------------------------ the model, written out


def norm(x: np.ndarray, state: State, name: str) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: np.ndarray, state: State, name: str) -> np.ndarray:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(x: np.ndarray, state: State, name: str, seen: np.ndarray) -> np.ndarray:
    """Two heads; `seen` (T, T) is True where a token (row) may look (column)."""
    q, k, v = (
        part.reshape(*x.shape[:2], 2, -1).swapaxes(1, 2)
        for part in np.split(linear(x, state, f"{name}.in_proj"), 3, axis=-1)
    )
    weights = np.exp(np.where(seen, q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), -np.inf))
    weights = weights / weights.sum(-1, keepdims=True)
    return linear((weights @ v).swapaxes(1, 2).reshape(x.shape), state, f"{name}.out_proj")


def network(x: np.ndarray, state: State, name: str) -> np.ndarray:
    h = linear(x, state, f"{name}.linear1")
    return linear(h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))) / 2, state, f"{name}.linear2")


def block_by_hand(x: np.ndarray, state: State, name: str, seen: np.ndarray, wrong: str = "") -> np.ndarray:
    """A pre-norm block; `wrong` is one of the mistakes in BLOCK."""

    def attend(x: np.ndarray) -> np.ndarray:
        return attention(x, state, f"{name}.self_attention", seen)

    def feed(x: np.ndarray) -> np.ndarray:
        return network(x, state, f"{name}.feed_forward")

    first = partial(norm, state=state, name=f"{name}.norm{2 if wrong == 'norms exchanged' else 1}")
    second = partial(norm, state=state, name=f"{name}.norm{1 if wrong in ('norms exchanged', 'norm1 twice') else 2}")
    if wrong == "post-norm":
        x = first(x + attend(x))
        return second(x + feed(x))
    if wrong == "no norms":
        x = x + attend(x)
        return x + feed(x)
    if wrong == "parallel":
        return x + attend(first(x)) + feed(second(x))
    if wrong == "network first":
        x = x + feed(second(x))
        return x + attend(first(x))
    if wrong == "residual after norm":
        x = first(x) + attend(first(x))
        return second(x) + feed(second(x))
    if wrong == "no residual":
        return feed(second(attend(first(x))))
    x = x if wrong == "no attention" else x + attend(first(x))
    return x if wrong == "no network" else x + feed(second(x))


BLOCK = {
    "post-norm": "the norms behind the sums, post-norm: GPT-2's stand in front of attention and network",
    "no norms": "a block without its norms",
    "parallel": "attention and network side by side, as in GPT-J: GPT-2's network reads what attention has added",
    "network first": "the network before the attention",
    "residual after norm": "the residual connection taken after the norm: x itself has to come through",
    "no residual": "no residual connections: x does not come through",
    "norms exchanged": "norm1 and norm2 exchanged",
    "norm1 twice": "norm1 in both places: the network has norm2",
    "no attention": "the network alone, without attention",
    "no network": "attention alone, without the network",
}


def by_hand(
    state: State, ids: Sequence, wrong: str = "", seen: np.ndarray | None = None, places: Sequence[int] | None = None
) -> np.ndarray:
    """The logits; `wrong` is one of the mistakes in WHOLE, `places` are the positions of the tokens."""
    length = np.shape(ids)[1]
    seen = np.tri(length, dtype=bool) if seen is None else seen
    table, head = state["token_embedding.weight"], state["lm_head.weight"]
    rows = state["positions.weight"] if "positions.weight" in state else state["positions.pe"][:, 0]
    x, rows = table[np.array(ids)], rows[list(range(length) if places is None else places)]
    if wrong == "positions first":
        rows = rows[:1]
    if wrong == "scaled":
        x = x * np.sqrt(x.shape[-1])
    x = x if wrong == "no positions" else x + rows
    layers = [0, 1]
    if wrong in ("first only", "last only", "reverse", "twice", "none"):
        layers = {"first only": [0], "last only": [1], "reverse": [1, 0], "twice": [0, 0], "none": []}[wrong]
    if wrong == "norm first":
        x = norm(x, state, "norm")
    start = x
    for i in layers:
        y = block_by_hand(start if wrong == "side by side" else x, state, f"blocks.{i}", seen)
        x = x + y if wrong == "added again" else y
        if wrong == "norm after each":
            x = norm(x, state, "norm")
        if wrong == "positions again":
            x = x + rows
    if wrong not in ("no norm", "norm first", "norm after each"):
        x = norm(x, state, "norm")
    scores = x @ (table if wrong == "table as head" else head).T
    if wrong == "softmax":
        scores = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    if wrong == "log-softmax":
        scores = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    if wrong == "last row":
        return scores[:, -1]
    if wrong == "last row, kept":
        return scores[:, -1:]
    if wrong == "no head":
        return x
    return scores


WHOLE = {
    "no positions": "no positions: without them a text is a set of words",
    "positions first": "the first position's vector for every token",
    "positions again": "positions added again after each block: they are added once, at the bottom",
    "scaled": "embeddings times √d, as in the first transformer: GPT-2 adds them as they are",
    "first only": "the first block alone: what it returns is what the next one reads",
    "last only": "the last block alone: each block reads what the one before it made",
    "side by side": "the last block alone: each block reads what the one before it made",
    "reverse": "the blocks from the last to the first",
    "twice": "the first block in every place",
    "none": "no blocks",
    "added again": "x added around each block: the residual connections are inside the blocks",
    "no norm": "the last norm forgotten: in a pre-norm stack nothing else normalises the sum of all blocks",
    "norm first": "the last norm in front of the blocks",
    "norm after each": "the last norm after every block: it comes once, at the end",
    "softmax": "probabilities: logits are the scores before the softmax, which the loss takes",
    "log-softmax": "logarithms of probabilities: the softmax is the loss's",
    "last row": "the last token's scores alone, and no axis for T: all T tokens ask for the one that comes next",
    "last row, kept": "the last token's scores alone: each of the T tokens asks for the one that comes next",
    "no head": "the last norm's vectors: the head has to score them",
    "table as head": "the embedding's table as the head, which `lm_head` is only with tie_weights: call `lm_head`",
}
IDS = [[3, 1, 4, 1, 5], [2, 6, 5, 3, 5]]
EVERYTHING = np.ones((5, 5), bool)


def check_block() -> None:
    """One block against its steps, with masks."""
    model, state = spoken()
    block, rng = model.blocks[1], np.random.default_rng(0)
    a = rng.standard_normal((2, 5, 8))
    causal = np.tri(5, dtype=bool)
    hidden = np.array([True, False, True, True, True]) | np.eye(5, dtype=bool)  # the second token is padding
    open_ = {f"a block that sees the future: {told}": seen for told, seen in (("it is causal", EVERYTHING),)}
    for what, options, seen, others in (
        ("block(x): causal unless told otherwise", {}, causal, open_),
        (
            "block(x, is_causal=False)",
            {"is_causal": False},
            EVERYTHING,
            {"a block that is causal, whatever is_causal says": causal},
        ),
        (
            "block(x, mask), which hides one token, and the later ones are hidden as well",
            {"mask": shared.tensor(hidden)},
            causal & hidden,
            {
                "the mask dropped": causal,
                "the mask in place of causality: both hide": hidden,
                "no mask of any kind": EVERYTHING,
            },
        ),
        (
            "block(x, mask, is_causal=False)",
            {"mask": shared.tensor(hidden), "is_causal": False},
            hidden,
            {"the mask dropped": EVERYTHING, "a block that is causal, whatever is_causal says": causal & hidden},
        ),
    ):
        x = shared.tensor(a)
        with doing(f"a GPTDecoderBlock: {what}", HINTS):
            out = block(x, **options)
        require(out is not None, f"{what} is None: is a `return` missing?")
        require(
            x.tolist() == a.tolist(), f"{what} changed its input: `x = x + …` makes a new tensor, `x += …` does not"
        )
        wrong = {told: block_by_hand(a, state, "blocks.1", seen, name) for name, told in BLOCK.items()}
        wrong |= {told: block_by_hand(a, state, "blocks.1", other) for told, other in others.items()}
        check(what, out.tolist(), block_by_hand(a, state, "blocks.1", seen), wrong)
    # in training, dropout that drops everything: x alone is left
    block.train()
    for module in block.modules():
        if isinstance(module, nn.Dropout) and module is not block.feed_forward.dropout:
            module.p = 1.0
    out = block(shared.tensor(a))
    check(
        "a block in training whose dropout drops all that is added to x",
        out.tolist(),
        a,
        {"dropout left out": block_by_hand(a, state, "blocks.1", causal)},
    )


def test_the_logits_are_those_of_the_parts_put_together_by_hand():
    check_block()
    for config in (CONFIG, replace(CONFIG, positions="sinusoidal", tie_weights=False)):
        model, state = spoken(config)
        ids = shared.tensor(IDS)
        with doing("model(ids) of two texts of five tokens", HINTS):
            out = model(ids)
        require(out is not None, "model(ids) is None: is a `return` missing?")
        wrong = {told: by_hand(state, IDS, name) for name, told in WHOLE.items()}
        wrong["tokens that see the future"] = by_hand(state, IDS, seen=EVERYTHING)
        what = (
            f"the logits of two texts of five tokens, positions={config.positions!r}, tie_weights={config.tie_weights}"
        )
        check(what, out.tolist(), by_hand(state, IDS), wrong)
    model, _ = spoken()
    for shape in ((5,), (1, 2, 3)):
        said = oracles.refusal(lambda shape=shape: model(shared.zeros(*shape, dtype=shared.long)))
        require(
            str(shape[0]) in said and "ids" in said,
            f"ids of shape {shape} should be a RuntimeError that says what was expected, ids (B, T), and the shape "
            f"that came, but {f'it says: {said}' if said else 'there is none'}",
        )
    check_lengths(model)
    check_dropout()
    check_recomputation()


def check_lengths(model: GPT) -> None:
    """A text as long as block_size is read; a longer one is an error, and not cut."""
    with doing("model(ids) of six tokens, as many as block_size", HINTS):
        model(shared.tensor([[3, 1, 4, 1, 5, 2]]))
    came = None

    def longer() -> None:
        nonlocal came
        came = model(shared.tensor([[3, 1, 4, 1, 5, 2, 6]]))

    said = oracles.refusal(longer)
    cut = "; the text was cut to six tokens without a word" if came is not None and came.shape[1] == 6 else ""
    require(
        said,
        "seven tokens, with six places in the model, should be a RuntimeError, which `positions` raises if it gets "
        f"them all{cut}",
    )


def check_dropout() -> None:
    """In training `positions` drops out, once, and GPT.forward adds no dropout of its own."""
    model, state = spoken(replace(CONFIG, dropout=0.5))
    calls: list[int] = []
    model.positions.dropout.register_forward_hook(lambda *_: calls.append(1))
    model.train()
    for module in model.modules():  # all the parts' own dropout is off: what is dropped now, GPT.forward drops
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    with doing("model(ids) in training, with the dropout of all parts at 0", HINTS):
        out = model(shared.tensor(IDS))
    close = np.allclose(np.array(out.tolist()), by_hand(state, IDS), rtol=0, atol=1e-6)
    require(
        close,
        "in training, with the dropout of all parts turned off, the logits are not those of evaluation: a dropout too "
        "many. `positions` already drops out, and each block does inside: GPT.forward has none of its own",
    )
    require(
        len(calls) == 1,
        f"in one pass in training the dropout in `positions` ran {len(calls)} times, where it runs once: "
        f"{'`positions` already drops out' if calls else '`positions(x, start=…)` adds the vectors and drops out'}",
    )


def check_recomputation() -> None:
    """With gradient checkpointing each block runs once more in backward, and gradients are the same."""
    found: dict[tuple[bool, bool], tuple[int, np.ndarray]] = {}
    for kept in (False, True):
        for training in (True, False):
            model, _ = spoken()
            calls: list[int] = []
            for block in model.blocks:
                block.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            model.gradient_checkpointing = kept
            model.train(training)
            with doing(f"backward with gradient_checkpointing={kept}"):
                model(shared.tensor(IDS)).sum().backward()
            found[kept, training] = len(calls), model.positions.weight.grad.numpy()
            with shared.no_grad():
                model(shared.tensor(IDS))
    (plain, gradient), (again, other) = found[False, True], found[True, True]
    require(plain == 2, f"without gradient checkpointing two blocks ran {plain} times in a forward and a backward pass")
    require(
        again == 4,
        f"with gradient_checkpointing two blocks ran {again} times in forward and backward together, where each runs "
        "once more in backward: 4. `checkpoint(block, x)` keeps x alone",
    )
    check("the gradient with gradient_checkpointing", other, gradient)
    require(
        found[True, False][0] == 2,
        "in evaluation gradient_checkpointing has no effect: it is for training, where activations wait for backward",
    )


# ------------------------------------------------------------------------ from outside: causality, caches


def logits(model: GPT, ids: Sequence, caches: list | None = None) -> np.ndarray:
    with doing(f"model(ids{', caches' if caches else ''}) with ids {ids}", HINTS), shared.no_grad():
        return np.array((model(shared.tensor(ids), caches) if caches else model(shared.tensor(ids))).tolist())


def check_causality(model: GPT) -> None:
    text = [3, 1, 4, 1, 5]
    before = logits(model, [text])
    require(before.shape == (1, 5, 7), f"logits have shape {before.shape}, where (B, T, V) is (1, 5, 7)")
    for place in range(5):
        other = list(text)
        other[place] = (other[place] + 1) % 7
        moved = np.abs(logits(model, [other]) - before).max(-1)[0] > 1e-9
        early = np.nonzero(moved[:place])[0].tolist()
        require(
            not early,
            f"token {place} was replaced by another, and the scores after token {early[0] if early else 0}, which "
            "comes before it, changed: a token sees the future",
        )
        late = [t for t in range(place, 5) if not moved[t]]
        require(
            not late,
            f"token {place} was replaced by another, and the scores after token {late[0] if late else 0} stayed as "
            "they were: every token sees itself and all before it",
        )
    pair = logits(model, [text, [2, 6, 5, 3, 5]])
    check("the first text of a batch, and alone", pair[:1], before)


def in_pieces(model: GPT, text: list[int], cuts: list[int]) -> tuple[np.ndarray, list[Tensor]]:
    """The logits of a text that comes in pieces, with caches."""
    caches = [nn.KVCache() for _ in model.blocks]
    ends = [*cuts, len(text)]
    parts = [
        logits(model, [text[start:end]], caches) for start, end in zip([0, *cuts], ends, strict=True) if end > start
    ]
    return np.concatenate(parts, 1), caches


def pieces_mask(cuts: list[int], length: int, alone: bool) -> np.ndarray:
    """Tokens of one piece see each other; and what came before, unless `alone`."""
    piece = np.array([sum(t >= cut for cut in cuts) for t in range(length)])
    if alone:
        return (piece[:, None] == piece[None]) & np.tri(length, dtype=bool)
    return piece[:, None] >= piece[None]


def check_caches(model: GPT, state: State) -> None:
    text = [3, 1, 4, 1, 5, 2]
    whole = by_hand(state, [text])
    for cuts in ([4], [5], [2, 5], [1, 2, 3, 4, 5]):
        starts = [0, *cuts]
        found, caches = in_pieces(model, text, cuts)
        again = [t - max(start for start in starts if start <= t) for t in range(6)]
        alone = pieces_mask(cuts, 6, alone=True)
        blocks = [min(t + len(caches), 5) for t in again]
        check(
            f"the logits of six tokens that come in pieces, cut before {cuts}, with a cache for each block",
            found,
            whole,
            {
                "positions that start at 0 with each piece: what is cached comes before": by_hand(
                    state, [text], places=again
                ),
                "positions from len(caches) on, which is the number of blocks: how many tokens came, one cache knows": (
                    by_hand(state, [text], places=blocks)
                ),
                "caches that the blocks do not get, and positions from 0 on": by_hand(
                    state, [text], seen=alone, places=again
                ),
                "caches that the blocks do not get: no piece sees what came before": by_hand(state, [text], seen=alone),
                "tokens of one piece that see each other: with a cache, too, the block is causal": by_hand(
                    state, [text], seen=pieces_mask(cuts, 6, alone=False)
                ),
                "positions off by one: with n tokens cached the next one's place is n": by_hand(
                    state, [text], places=[t if t < cuts[0] else t - 1 for t in range(6)]
                ),
            },
            source="those of the whole text",
        )
        held = [len(cache) for cache in caches]
        require(held == [6, 6], f"after six tokens the two caches hold {held}: each block has a cache of its own")


def check_caches_while_recomputing() -> None:
    """In training, with gradient checkpointing: caches win."""
    model, state = spoken()
    model.gradient_checkpointing = True
    model.train()
    caches = [nn.KVCache() for _ in model.blocks]
    with doing("model(ids, caches) in training with gradient_checkpointing", HINTS):
        parts = [model(shared.tensor([part]), caches) for part in ([3, 1, 4], [1, 5])]
    held = [len(cache) for cache in caches]
    require(
        held == [5, 5],
        f"in training, with gradient_checkpointing and with caches, five tokens came and the caches hold {held}: with "
        "caches no block is recomputed, each is called with its cache",
    )
    check(
        "the logits of five tokens in two pieces, in training, with gradient_checkpointing and caches",
        np.concatenate([part.tolist() for part in parts], 1),
        by_hand(state, [[3, 1, 4, 1, 5]]),
    )


def test_no_token_sees_a_later_one_and_caches_change_nothing():
    model, state = spoken()
    check_causality(model)
    held: list[int] = []
    caches = [nn.KVCache() for _ in model.blocks]
    with doing("model(ids, caches) with four tokens", HINTS), shared.no_grad():
        model(shared.tensor([[3, 1, 4, 1]]), caches)
    held = [len(cache) for cache in caches]
    require(
        held == [4, 4],
        f"after four tokens the caches of the two blocks hold {held} tokens, where each block keeps four in a cache "
        f"of its own{': one cache was given to both' if 8 in held else ''}"
        f"{': the blocks did not get them' if held == [0, 0] else ''}",
    )
    check_caches(model, state)
    with shared.no_grad():
        said = oracles.refusal(lambda: model(shared.tensor([[1, 5, 2]]), caches))
    require(
        said,
        "four tokens are cached and three follow, with six places in the model: that should be a RuntimeError, which "
        "`positions` raises where it knows how many came before",
    )
    check_caches_while_recomputing()
