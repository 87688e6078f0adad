"""Sprint 08's milestones on a GPT that has not been trained. A wrong answer that is a known mistake is named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import shared
from course.oracles import doing, require
from shared.models.gpt import GPT, GPTConfig
from shared.nn import functional as F

# One residual layer of a block has 32 · 32 numbers or more, and there are six of each; the fewest numbers are those of
# the positions, 1,600. Their standard deviation is within SPREAD of the true one in 99.9 of 100 draws. With six blocks
# what known mistakes give lies far enough apart to tell one from the other.
CONFIG = GPTConfig(vocab_size=100, block_size=50, n_layer=6, n_head=4, n_embd=32, dropout=0.0)
RESIDUAL = "self_attention.out_proj.weight", "feed_forward.linear2.weight"
SPREAD = 0.06


def made(config: GPTConfig = CONFIG, seed: int = 0) -> GPT:
    shared.manual_seed(seed)
    with doing("GPT(config), whose last step is initialize_weights()"):
        return GPT(config)


def gathered(model: GPT) -> dict[str, np.ndarray]:
    """All numbers of each kind of parameter, a row for each block: {name with #: (L, …), or as it is}."""
    kinds: dict[str, list[np.ndarray]] = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        kind = ".".join("#" if part.isdigit() else part for part in parts)
        kinds.setdefault(kind, []).append(parameter.detach().numpy())
    return {kind: np.stack(found) if "#" in kind else found[0] for kind, found in kinds.items()}


def near(value: float, wanted: float, spread: float = SPREAD) -> bool:
    return abs(value - wanted) <= spread * wanted


def looks_like(std: float, name: str, config: GPTConfig, sides: int) -> str:
    """What a standard deviation comes from, where it is that of a known mistake."""
    layers, fan_in = config.n_layer, 4 * config.n_embd if "linear2" in name else config.n_embd
    wrong = {
        "the scaled deviation, which is for out_proj and linear2, what is added to the residual path": 0.02
        / math.sqrt(2 * layers),
        "no scaling with the depth: 0.02 / √(2L) is for what is added to the residual path": 0.02,
        "0.02 / √L: each block adds twice, so that there are 2L sums": 0.02 / math.sqrt(layers),
        "0.02 / (2L): variances add up, so that the standard deviation falls with the root": 0.02 / (2 * layers),
        "0.02 / L: variances add up, and each block adds twice": 0.02 / layers,
        "0.02 / √2: the depth is missing": 0.02 / math.sqrt(2),
        "0.02 / √24, which is right for 12 blocks alone: L is config.n_layer": 0.02 / math.sqrt(24),
        "0.02 / √(2H) with the number of heads: L is the number of blocks": 0.02 / math.sqrt(2 * config.n_head),
        "0.02 taken for the variance: it is the standard deviation": math.sqrt(0.02),
        "the variance, 0.02²: 0.02 is the standard deviation": 0.02**2,
        "a standard deviation of 1": 1.0,
        "0.01, as positions have it in OpenAI's first code; here all tables have 0.02": 0.01,
        "numbers between −0.02 and 0.02, all alike likely: normal ones with a standard deviation of 0.02": 0.02
        / math.sqrt(3),
        "PyTorch's default for a linear layer, which knows no 0.02": 1 / math.sqrt(3 * fan_in),
        "1/√d, which depends on the width": 1 / math.sqrt(fan_in),
        "Xavier's, √(2 / (in + out)), with which attention's layers are made": math.sqrt(2 / sides),
        "0.02 · √(2L): a division": 0.02 * math.sqrt(2 * layers),
    }
    told = min(wrong, key=lambda told: abs(math.log(max(std, 1e-9) / wrong[told])))
    return told if near(std, wrong[told]) else ""


def check_matrix(name: str, numbers: np.ndarray, config: GPTConfig) -> None:
    residual = name.endswith(RESIDUAL)
    wanted = 0.02 / math.sqrt(2 * config.n_layer) if residual else 0.02
    std, mean = float(numbers.std()), float(numbers.mean())
    told = f"the numbers of {name}" + (f" (# stands for all {config.n_layer} blocks)" if "#" in name else "")
    if not near(std, wanted):
        looks = "numbers that are all 0" if std == 0 else looks_like(std, name, config, sum(numbers.shape[-2:]))
        pytest.fail(
            f"{told} have a standard deviation of {std:.5f}, where it is {wanted:.5f}."
            + (f"\nThat is what one gets from: {looks}." if looks else ""),
            pytrace=False,
        )
    require(
        abs(mean) < 5 * wanted / math.sqrt(numbers.size),
        f"{told} have a mean of {mean:.5f}, where it is 0{': they are all positive' if numbers.min() >= 0 else ''}",
    )
    far = float((np.abs(numbers) > 2 * wanted).mean())
    require(
        0.03 < far < 0.065,
        f"{told}: {far:.1%} of them are further from 0 than two standard deviations, where it is 4.6 % of normal "
        f"numbers{'. That is what one gets from: uniform numbers, all alike likely' if far == 0 else ''}",
    )


def check_vector(name: str, numbers: np.ndarray) -> None:
    wanted = 0.0 if name.endswith("bias") else 1.0
    if (numbers == wanted).all():
        return
    kind = "the biases" if wanted == 0 else "the scales of a norm"
    looks = "drawn at random" if len(np.unique(numbers)) > 3 else f"all {numbers.flat[0]:g}"
    more = ": a norm whose scale is 0 lets nothing through" if wanted and (numbers == 0).all() else ""
    pytest.fail(f"{kind}, {name}, start as {wanted:g}, but yours are {looks}{more}", pytrace=False)


def check_weights(model: GPT, config: GPTConfig) -> None:
    kinds = gathered(model)
    for name, numbers in kinds.items():
        if numbers.ndim - ("#" in name) >= 2:
            check_matrix(name, numbers, config)
        else:
            check_vector(name, numbers)


def test_the_weights_start_as_gpt2s_did():
    for config in (CONFIG, replace(CONFIG, n_layer=8, vocab_size=90, tie_weights=False)):
        model = made(config)
        require(
            not config.tie_weights or model.lm_head.weight is model.token_embedding.weight,
            "initialize_weights replaced the embedding's table by another Parameter, and the head has the old one: "
            "numbers are written into a Parameter",
        )
        check_weights(model, config)
    before, again = (gathered(made(seed=seed)) for seed in (1, 2))
    same = [name for name in before if before[name].std() > 0 and (before[name] == again[name]).any()]
    require(not same, f"two seeds give the same {', '.join(same)}: numbers are drawn from shared's generator")
    model = made()
    kept = {name: (p, p.detach().numpy().copy()) for name, p in model.named_parameters()}
    with shared.no_grad():
        for p, _ in kept.values():
            p.copy_(p + 1)
    other = {name: p.detach().numpy().copy() for name, (p, _) in kept.items()}
    with doing("initialize_weights() of a model whose weights are other ones"):
        model.initialize_weights()
    for name, p in model.named_parameters():
        sets = "draws" if p.ndim >= 2 else "sets"
        require(
            p is not kept[name][0] or not np.array_equal(p.detach().numpy(), other[name]),
            f"initialize_weights() of a model that has other weights leaves {name} as it was: it {sets} all of them "
            "anew, and relies on nothing that a module did when it was made. named_parameters() has them all; a table "
            "of positions is neither a Linear nor an Embedding",
        )
        require(
            p is kept[name][0],
            f"initialize_weights replaced {name} by another Parameter: an optimizer, and the other end of a tied "
            "table, would still hold the old one. Numbers are written into it",
        )
        if kept[name][1].std() > 0:
            require(
                not np.array_equal(p.detach().numpy(), kept[name][1]),
                f"initialize_weights() drew the same {name} twice: a seed is set in it, which is the caller's to set",
            )
    check_weights(model, CONFIG)
    deep = made(replace(CONFIG, n_layer=24))
    with shared.no_grad():
        x = deep.positions(deep.token_embedding(shared.arange(40).reshape(1, 40)))
        sizes = [float((x * x).mean())]
        for block in deep.blocks:
            x = block(x)
            sizes.append(float((x * x).mean()))
    # over twelve seeds the mean square grows by 0.07 to 0.16 of what it was, and by 4.9 to 7.8 without scaling
    growth = (sizes[-1] - sizes[0]) / sizes[0]
    require(
        growth < 2.0,
        f"from the bottom of 24 blocks to the top the mean square grows by {growth:.2f} times what it was, where it "
        "is less than 2 if each of the 48 sums is scaled",
    )


def test_an_untrained_models_loss_is_the_logarithm_of_the_vocabulary():
    for vocab, tied in ((65, True), (1000, True), (65, False)):
        config = GPTConfig.preset("toy", vocab_size=vocab, tie_weights=tied)
        model = made(config)
        rng = np.random.default_rng(0)
        ids, targets = (shared.tensor(rng.integers(0, vocab, (8, 32))) for _ in range(2))
        with doing(f"the loss of an untrained GPT with {vocab} tokens"), shared.no_grad():
            scores = model(ids)
            loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten()).item()
        variance = float(scores.numpy().var())
        # The last norm's vectors have d = 64 numbers of mean square 1, the head's rows numbers of variance 0.02². Over
        # twenty seeds the loss is 0.013 below to 0.037 above ln V, and the variance 0.92 to 1.36 times 64 · 0.02² (the
        # largest with 65 tokens and a tied table: a token's own score is high).
        wanted = 64 * 0.02**2
        require(
            abs(loss - math.log(vocab)) < 0.06,
            f"the loss of an untrained GPT with {vocab} tokens is {loss:.3f}, where ln {vocab} = {math.log(vocab):.3f} "
            f"is that of a model to which all tokens are alike. Its logits have a variance of {variance:.3g}, where "
            f"64 · 0.02² = {wanted:.3g} is expected: "
            + ("are they scores that the head makes?" if variance < wanted else "a fresh model is too sure of itself"),
        )
        require(
            near(variance, wanted, 0.5),
            f"the logits of an untrained GPT have a variance of {variance:.3g}, where 64 · 0.02² = {wanted:.3g} is "
            "expected: what arrives at the head has numbers of mean square 1 (the last norm), the head's have 0.02²",
        )
