"""Sprint 08's milestones on counting. A wrong count that is a known mistake is named in the message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from course.oracles import doing, require
from shared.models.gpt import GPT, GPTConfig

PUBLISHED = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}
SMALL = GPTConfig(vocab_size=17, block_size=11, n_layer=3, n_head=4, n_embd=12, dropout=0.0)
GRID = [
    replace(SMALL, bias=False),
    SMALL,
    replace(SMALL, positions="sinusoidal"),
    replace(SMALL, tie_weights=False),
    replace(SMALL, tie_weights=False, bias=False, positions="sinusoidal", n_layer=1),
]


def whole(what: str, actual: object, expected: int, mistakes: dict[str, int]) -> None:
    """Fail with the mistake that gives `actual`, unless it is `expected`: counts are exact."""
    require(actual is not None, f"{what} is None: is a `return` missing?")
    if type(actual) is int and actual == expected:
        return
    looks = next((told for told, value in mistakes.items() if value == actual and actual != expected), None)
    if looks is None and type(actual) is not int:
        looks = f"a {type(actual).__name__}: a count is an int, and // divides ints"
    told = f"\nThat is what one gets from: {looks}." if looks else ""
    pytest.fail(f"{what}:{told}\n{actual:,}\nexpected:\n{expected:,}", pytrace=False)


def alike(named: list[str], actual: list, expected: list[int], mistakes: list[dict[str, int]]) -> None:
    """Several counts at once: the mistake that is named explains them all, since one alone may have two causes."""
    wrong = [i for i, count in enumerate(actual) if type(count) is not int or count != expected[i]]
    if not wrong:
        return
    names = [told for told in mistakes[0] if all(m[told] == count for m, count in zip(mistakes, actual, strict=True))]
    first = wrong[0]
    if not names:  # two mistakes at once: the first wrong count may still have one cause only
        names = [told for told, count in mistakes[first].items() if count == actual[first]]
        names = names if len(names) == 1 else []
    whole(named[first], actual[first], expected[first], {told: mistakes[first][told] for told in names})


# ------------------------------------------------------------------------ parameters


def parts(c: GPTConfig) -> dict[str, int]:
    """How many numbers each part of a GPT has, in all blocks together."""
    d, layers, bias = c.n_embd, c.n_layer, int(c.bias)
    return {
        "tokens": c.vocab_size * d,
        "places": c.block_size * d if c.positions == "learned" else 0,
        "in": layers * 3 * d * d,
        "out": layers * d * d,
        "wide": layers * 4 * d * d,
        "narrow": layers * 4 * d * d,
        "in bias": layers * 3 * d * bias,
        "out bias": layers * d * bias,
        "wide bias": layers * 4 * d * bias,
        "narrow bias": layers * d * bias,
        "norms": layers * 2 * d,
        "norms bias": layers * 2 * d * bias,
        "last": d,
        "last bias": d * bias,
        "head": 0 if c.tie_weights else c.vocab_size * d,
    }


def miscounted(c: GPTConfig) -> dict[str, int]:
    """What forgetting something gives."""
    p, d = parts(c), c.n_embd
    right = sum(p.values())
    biases = sum(n for name, n in p.items() if "bias" in name)
    linear = biases - p["norms bias"] - p["last bias"]
    without = parts(replace(c, bias=True))
    forced = sum(without.values())
    return {
        "the tied table counted twice: head and embedding are one Parameter": right + p["tokens"] * c.tie_weights,
        "the head not counted: without tying it has a table of its own": right - p["head"],
        "no table of positions": right - p["places"],
        "a table of positions, where sinusoidal ones are not learned": right + c.block_size * d - p["places"],
        "no tables of tokens": right - p["tokens"],
        "a bias of d for the network's wide layer, which has 4d": right - p["wide bias"] * 3 // 4,
        "a bias of 4d for both layers of the network: the second has d": right + p["narrow bias"] * 3,
        "the wide layer's biases alone: the second layer has d of them": right - p["narrow bias"],
        "a bias of d for queries, keys and values together: they have 3d": right - p["in bias"] * 2 // 3,
        "no biases of linear layers": right - linear,
        "no biases at all": right - biases,
        "biases, though config.bias is False": forced,
        "a bias of the norms, though config.bias is False": right
        if c.bias
        else right + without["norms bias"] + without["last bias"],
        "biases of the linear layers, though config.bias is False": right
        if c.bias
        else forced - without["norms bias"] - without["last bias"],
        "biases in the last norm and nowhere else left out": right - p["last bias"],
        "the formula for biases, learned positions and tied weights, whatever config says": sum(
            parts(replace(c, bias=True, positions="learned", tie_weights=True)).values()
        ),
        "the norms' scales left out with the biases: a norm without a bias keeps its d scales": right
        if c.bias
        else right - p["norms"] - p["last"],
        "the scales of the blocks' norms left out with the biases: a norm without a bias keeps its d scales": right
        if c.bias
        else right - p["norms"],
        "one position too many: there are block_size of them": right + d * (c.positions == "learned"),
        "the last norm forgotten": right - p["last"] - p["last bias"],
        "one norm in each block: there are two": right - (p["norms"] + p["norms bias"]) // 2,
        "no norms in the blocks": right - p["norms"] - p["norms bias"],
        "no norms at all": right - p["norms"] - p["norms bias"] - p["last"] - p["last bias"],
        "norms without a bias": right - p["norms bias"] - p["last bias"],
        "the last norm counted in each block": right + (c.n_layer - 1) * (p["last"] + p["last bias"]),
        "no output projection behind the heads": right - p["out"] - p["out bias"],
        "the projection to queries alone, and not to keys and values": right - 2 * (p["in"] + p["in bias"]) // 3,
        "three projections of attention: queries, keys, values, and the output's": right - p["out"],
        "attention forgotten": right - p["in"] - p["out"] - p["in bias"] - p["out bias"],
        "feed-forward networks forgotten": right - p["wide"] - p["narrow"] - p["wide bias"] - p["narrow bias"],
        "one of the network's two matrices": right - p["narrow"],
        "a network as wide as d: it is four times as wide": right - (p["wide"] + p["narrow"]) * 3 // 4,
        "the attention's matrices for each head: heads cut the width, they do not multiply it": right
        + (c.n_head - 1) * (p["in"] + p["out"]),
        "attention's matrices per head, d · d/H: all heads together have d · d": right
        - (p["in"] + p["out"]) * (c.n_head - 1) // c.n_head,
        "one block: there are n_layer of them": right
        - (c.n_layer - 1) * (right - p["tokens"] - p["places"] - p["last"] - p["last bias"] - p["head"]) // c.n_layer,
        "a bias for each token in the head: it has none": right + c.vocab_size,
        "a bias for each token in the head, where config.bias is True: it has none": right + c.vocab_size * c.bias,
        "tables of vocab_size · block_size": right
        + (c.vocab_size * c.block_size - p["tokens"]) * (1 if c.tie_weights else 2),
    }


def numbers_of(model: GPT) -> dict[str, int]:
    """How many numbers each Parameter has, each once."""
    return {name: parameter.array.size for name, parameter in model.named_parameters()}


def check_model_count(model: GPT, config: GPTConfig) -> None:
    """GPT.num_parameters, with and without the two tables."""
    numbers = numbers_of(model)
    right = sum(numbers.values())
    tokens, places = model.token_embedding.weight.array.size, numbers.get("positions.weight", 0)
    head = 0 if config.tie_weights else tokens
    buffers = sum(x.array.size for _, x in model.named_buffers())
    what = f"of a GPT with {config}"
    whole(
        f"num_parameters() {what}",
        model.num_parameters(),
        right,
        {
            "the tied table counted twice, under both of its names": right + tokens,
            "buffers counted: what is not a Parameter is not learned": right + buffers,
            "the tables left out, which is for embeddings=False": right - tokens - places,
            "Parameters and not their numbers": len(numbers),
            "rows and not numbers: numel() counts all": sum(p.shape[0] for p in model.parameters()),
        },
    )
    whole(
        f"num_parameters(embeddings=False) {what}",
        model.num_parameters(embeddings=False),
        right - tokens - places,
        {
            "nothing left out": right,
            "the table of positions alone left out": right - places,
            "the table of tokens alone left out": right - tokens,
            "the head left out as well: without tying it is no embedding": right - tokens - places - head,
            "all matrices left out": sum(p.array.size for p in model.parameters() if p.ndim < 2),
            "the table of tokens left out twice": right - 2 * tokens - places,
            "a table of positions left out that is not learned": right - tokens - buffers,
        },
    )
    model.token_embedding.weight.requires_grad_(False)
    with doing("num_parameters of a model whose table is frozen"):
        frozen = model.num_parameters()
    whole(f"num_parameters() {what}, its table frozen", frozen, right, {"frozen numbers left out": right - tokens})


def test_gpt2s_124_439_808_parameters_by_formula_and_by_counting():
    found, made = [], GPT.__init__

    def refused(*_: object, **__: object) -> None:
        pytest.fail(
            "GPTConfig.num_parameters makes a GPT in order to count it: of the largest that would be gigabytes. The "
            "config counts by formula, from its sizes alone",
            pytrace=False,
        )

    for config in GRID:
        GPT.__init__ = refused
        try:
            with doing(f"{config}.num_parameters()"):
                found.append(config.num_parameters())
        finally:
            GPT.__init__ = made
    named = [f"num_parameters() of {config}" for config in GRID]
    alike(named, found, [sum(parts(c).values()) for c in GRID], [miscounted(c) for c in GRID])
    for config, count in zip(GRID, found, strict=True):
        model = GPT(config)
        real = sum(numbers_of(model).values())
        require(
            count == real, f"{config}.num_parameters() is {count:,}, and a model of that config has {real:,} numbers"
        )
        with doing(f"num_parameters of a GPT with {config}"):
            check_model_count(model, config)
    for name, expected in PUBLISHED.items():
        config = GPTConfig.preset(name)
        whole(f"num_parameters() of {name}, as published", config.num_parameters(), expected, miscounted(config))


# ------------------------------------------------------------------------ operations


def operations(config: GPTConfig, length: int | None, training: bool) -> tuple[int, dict[str, int]]:
    """How many they are, and what forgetting something gives."""
    d, layers, n = config.n_embd, config.n_layer, config.block_size if length is None else length
    blocks, head, heads = 12 * layers * d * d, config.vocab_size * d, config.n_head
    scores = 2 * layers * n * d  # multiplications: a product with each key, and one with each value
    times = 6 if training else 2
    places, part, table = config.block_size * d, parts(config), head * (not config.tie_weights)
    numbers = sum(part.values())
    vectors = sum(x for name, x in part.items() if "bias" in name or "norm" in name) + part["last"]
    return times * (blocks + head + scores), {
        "no operations of attention itself: the products with all keys and values": times * (blocks + head),
        "attention's products without multiplying by the length": times * (blocks + head + 2 * layers * d),
        "attention without multiplying by the number of blocks": times * (blocks + head + 2 * n * d),
        "half of attention: the products with the keys and those with the values count, masked or not": times
        * (blocks + head + scores // 2),
        "attention of each head as wide as d: the heads share the width": times * (blocks + head + heads * scores),
        "one head alone, d / H wide: all heads together are as wide as d": times * (blocks + head + scores // heads),
        "multiplications alone: each comes with an addition, a factor of 2": times // 2 * (blocks + head + scores),
        "a multiplication and no addition in attention": times * (blocks + head) + times // 2 * scores,
        "the square of the length: that is for all tokens of a text, here it is one": times
        * (blocks + head + scores * n),
        "block_size, whatever length is given": times * (blocks + head + 2 * layers * config.block_size * d),
        "the head left out: it is a matrix as others are": times * (blocks + scores),
        "the head left out where it is tied: as a matrix it works, whether its numbers are also a table or not": times
        * (blocks + table + scores),
        "half of the scores, with the diagonal: by convention all count, masked or not": times
        * (blocks + head + layers * (n + 1) * d),
        "num_parameters(embeddings=False) and the head: biases and norms are in no matrix product": times
        * (blocks + vectors + head + scores),
        "num_parameters(embeddings=False): it has biases and norms, and no head that is tied": times
        * (blocks + vectors + table + scores),
        "num_parameters(embeddings=False) and V · d: it has biases and norms, and a head that is not tied": times
        * (blocks + vectors + table + head + scores),
        "everything of two dimensions counted: the positions are added, and multiply nothing": times
        * (blocks + part["tokens"] + part["head"] + part["places"] + scores),
        "the input's table counted where the head is another one: a lookup multiplies nothing": times
        * (blocks + head + table + scores),
        "a length cut to block_size: a formula counts longer texts too": times
        * (blocks + head + 2 * layers * min(n, config.block_size) * d),
        "the table of tokens counted: a lookup multiplies nothing": times * (blocks + 2 * head + scores),
        "the table of positions counted: adding a row multiplies nothing": times * (blocks + head + places + scores),
        "both tables counted: a lookup multiplies nothing": times * (blocks + 2 * head + places + scores),
        "all parameters counted, as in 6N: biases, norms and positions are in no matrix product": times
        * (numbers + scores),
        "all parameters counted, and no attention: 6N": times * numbers,
        "one block: there are n_layer of them": times * (blocks // layers + head + scores // layers),
        "attention's four matrices alone: the network has eight": times * (blocks // 3 + head + scores),
        "the network's matrices alone": times * (blocks * 2 // 3 + head + scores),
        "the forward pass alone: the backward pass takes twice as many again": 2 * (blocks + head + scores),
        "a backward pass that costs as much as the forward pass: there are two products in it": (4 if training else 2)
        * (blocks + head + scores),
        "the training's operations, where training is False": 6 * (blocks + head + scores),
        "the backward pass alone": (4 if training else 2) * (blocks + head + scores),
        "backward's factor for the matrices and not for attention": times * (blocks + head) + 2 * scores,
        "the operations of the whole text, and not of one token": times * (blocks + head + scores) * n,
    }


def counted(config: GPTConfig, length: int | None, training: bool) -> tuple[str, int]:
    """What is asked, and the model's answer."""
    model, options = GPT(config), {} if training else {"training": False}
    given = ", ".join(([] if length is None else [str(length)]) + ([] if training else ["training=False"]))
    what = f"flops_per_token({given}) of a GPT with {config}"
    with doing(what):
        return what, model.flops_per_token(*([] if length is None else [length]), **options)


def test_operations_per_token_grow_with_the_length():
    untied = replace(SMALL, tie_weights=False, bias=False, positions="sinusoidal")
    asked = [
        (config, length, training)
        for config in (SMALL, untied)
        for length, training in ((None, True), (None, False), (5, True), (10, False), (1, False), (30, True))
    ]
    answers = [counted(*case) for case in asked]
    right = [operations(*case) for case in asked]
    alike(
        [what for what, _ in answers],
        [count for _, count in answers],
        [count for count, _ in right],
        [mistakes for _, mistakes in right],
    )
    model = GPT(replace(SMALL, n_layer=1))
    with doing("flops_per_token(0)"):
        nothing = model.flops_per_token(0, training=False)
    whole(
        "flops_per_token(0, training=False), where there is nothing to attend to",
        nothing,
        2 * (12 * 144 + 17 * 12),
        {"block_size in place of 0, which is not None": 2 * (12 * 144 + 17 * 12 + 2 * 11 * 12)},
    )
