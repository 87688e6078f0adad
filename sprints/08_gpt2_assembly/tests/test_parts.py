"""Sprint 08's milestones on a GPT's parts and its tied table. A wrong answer that is a known mistake is named."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import shared
from course import oracles
from course.oracles import differences, doing, require
from shared import nn
from shared.models.gpt import GPT, GPTConfig, GPTDecoderBlock
from shared.nn import functional as F

check = partial(oracles.check, source="expected")
CONFIG = GPTConfig(vocab_size=7, block_size=6, n_layer=3, n_head=2, n_embd=8, dropout=0.25)
ARGUMENTS = {
    "index": "Embedding(vocab_size, n_embd), an encoding(n_embd, dropout, block_size), Linear(n_embd, vocab_size).",
    "has no attribute": "The parts are attributes of the model: self.token_embedding, self.positions, self.blocks, "
    "self.norm, self.lm_head.",
}


def built(config: GPTConfig, **place: Any) -> GPT:
    with doing(f"GPT({config})", ARGUMENTS):
        model = GPT(config, **place)
    require(
        not isinstance(getattr(model, "lm_head", None), nn.Embedding),
        "lm_head is an Embedding: tied is the weight, not the module. The head is a Linear layer, which scores, and "
        "its `weight` is the embedding's Parameter",
    )
    return model


def shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """What a state dict of such a GPT has outside the blocks."""
    d = config.n_embd
    table = {"positions.weight": (config.block_size, d)}
    if config.positions == "sinusoidal":
        table = {"positions.pe": (config.block_size, 1, d)}
    norm = {"norm.weight": (d,)} | ({"norm.bias": (d,)} if config.bias else {})
    tables = {"token_embedding.weight": (config.vocab_size, d), "lm_head.weight": (config.vocab_size, d)}
    return tables | table | norm


def check_shapes(config: GPTConfig) -> GPT:
    """The names and shapes of everything that a GPT of this config saves."""
    model = built(config)
    found = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    outside = {name: shape for name, shape in found.items() if not name.startswith("blocks.")}
    expected, told = shapes(config), f"A GPT with {config}"
    looks = ""
    attributes, found_ones = ({name.split(".")[0] for name in names} for names in (expected, outside))
    if attributes - found_ones and found_ones - attributes:
        missing, other = (
            ", ".join(f"`{name}`" for name in sorted(a - b))
            for a, b in ((attributes, found_ones), (found_ones, attributes))
        )
        looks = f"there is no {missing}, but {other}"
    elif "lm_head.bias" in outside:
        looks = "GPT-2's head has no bias"
    elif ("norm.bias" in outside) is not config.bias:
        looks = f"config.bias is {config.bias}, and the last norm has {'none' if config.bias else 'one'}"
    elif ("positions.pe" in outside) is not (config.positions == "sinusoidal"):
        looks = f"config.positions is {config.positions!r}, and the model has the other kind"
    elif outside.get("positions.weight") == (8, 6) or outside.get("positions.weight") == (config.vocab_size, 8):
        looks = "there is a vector for each of the block_size places"
    elif outside.get("token_embedding.weight") == (config.block_size, 8):
        looks = "there is a vector for each of the vocab_size tokens"
    elif outside.get("lm_head.weight") == (8, 8) and outside.get("token_embedding.weight") == (7, 8):
        looks = "the head has a row for each of the vocab_size tokens"
    elif outside.get("lm_head.weight") == (8, config.vocab_size):
        looks = "the head is turned around: Linear(n_embd, vocab_size) has a weight of shape (vocab_size, n_embd)"
    elif outside.get("lm_head.weight") == (config.block_size, 8):
        looks = "the head has a row for each of the vocab_size tokens, not for each place"
    require(
        outside == expected,
        f"{told} saves other tensors than it should{f': {looks}' if looks else ''}\n{outside}\nexpected:\n{expected}",
    )
    blocks = {name.split(".")[1] for name in found if name.startswith("blocks.")}
    require(
        blocks,
        f"{told} saves no block: is `blocks` a Python list? The parameters of its modules would not be the model's: "
        "an nn.ModuleList registers them",
    )
    require(
        len(blocks) == config.n_layer,
        f"{told} has {len(blocks)} blocks; n_layer is {config.n_layer}, and n_head is {config.n_head}",
    )
    require(
        isinstance(model.blocks, nn.ModuleList) and all(isinstance(block, GPTDecoderBlock) for block in model.blocks),
        f"{told}: its blocks are {type(model.blocks).__name__} of {type(model.blocks[0]).__name__}, where a ModuleList "
        "of GPTDecoderBlocks is asked for",
    )
    return model


def check_tie(model: GPT, config: GPTConfig) -> None:
    """One Parameter with tied weights, two without."""
    head, table = model.lm_head.weight, model.token_embedding.weight
    require(isinstance(head, nn.Parameter), "lm_head.weight is no Parameter: an optimizer will not find it")
    if config.tie_weights and head is not table:
        looks = "a table of its own"
        if np.shares_memory(head.detach().numpy(), table.detach().numpy()):
            looks = (
                "the same memory, but another Parameter: each has a gradient of its own, and each is counted, saved "
                "and moved to a GPU by itself"
            )
        pytest.fail(f"with tie_weights the head's weight is the embedding's Parameter itself; yours has {looks}")
    require(
        config.tie_weights
        or (head is not table and not np.shares_memory(head.detach().numpy(), table.detach().numpy())),
        "tie_weights is False, and head and embedding share one table all the same",
    )


def test_a_gpt_has_the_parts_that_its_config_names_and_one_table_at_both_ends():
    for config in (
        CONFIG,
        replace(CONFIG, tie_weights=False),
        replace(CONFIG, bias=False, n_layer=1),
        replace(CONFIG, positions="sinusoidal"),
    ):
        model = check_shapes(config)
        check_tie(model, config)
    model = built(CONFIG)
    distinct = {id(block) for block in model.blocks}
    require(
        len(distinct) == CONFIG.n_layer,
        "one block, three times: [block] * n_layer repeats the same object, so that all layers share their weights",
    )
    drops = model.positions.dropout.p
    check(
        "the dropout after positions are added",
        drops,
        CONFIG.dropout,
        {"no dropout, or not the config's": 0.0, "the encoding's default, not the config's dropout": 0.1},
    )
    drops = [block.dropout.p for block in model.blocks]
    require(drops == [CONFIG.dropout] * 3, f"the blocks' dropout is {drops}: they are made of the whole config")
    model = built(CONFIG, dtype=shared.float64)
    wrong = [name for name, x in model.state_dict().items() if x.dtype != shared.float64]
    require(
        not wrong,
        f"GPT(config, dtype=shared.float64) has parts in float32: {', '.join(wrong[:4])}. device and dtype are for "
        "each part",
    )


# ------------------------------------------------------------------------ one table, two gradients

# "the dog bit the man" with the table of Sprints 05 to 07; the block adds nothing
TABLE = np.array([[0, 1, 0, 1], [2, 0, 1, 0], [0, 2, 0, -1], [2, 0, -1, 0.0]])
IDS, TARGETS = [0, 1, 2, 0], [1, 2, 0, 3]  # the dog bit the → dog bit the man
LITTLE = GPTConfig(vocab_size=4, block_size=5, n_layer=1, n_head=1, n_embd=4, dropout=0.0)


def loss_of(below: np.ndarray, above: np.ndarray) -> float:
    """The loss of the sentence, for one table at the bottom and one at the top."""
    x = below[IDS] - below[IDS].mean(1, keepdims=True)
    scores = x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) @ above.T
    return float(np.mean(np.log(np.exp(scores).sum(1)) - scores[range(4), TARGETS]))


def sentence_model(config: GPTConfig = LITTLE) -> GPT:
    """A GPT in float64 whose positions and block add nothing."""
    model = built(config).double()
    with shared.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("positions", "blocks")) and "norm" not in name:
                parameter.zero_()
        for table in (model.token_embedding.weight, model.lm_head.weight):
            table.copy_(shared.tensor(TABLE))
    return model


def test_the_table_receives_its_gradient_from_both_ends():
    model = sentence_model()
    with doing("the loss of “the dog bit the man”, and its gradient"):
        loss = F.cross_entropy(model(shared.tensor([IDS]))[0], shared.tensor(TARGETS))
        loss.backward()
    check("the loss of the sentence, with the table of Sprint 05 at both ends", loss.item(), loss_of(TABLE, TABLE))
    below = differences(lambda table: loss_of(table, TABLE), TABLE)
    above = differences(lambda table: loss_of(TABLE, table), TABLE)
    grad = model.token_embedding.weight.grad
    require(grad is not None, "after backward the embedding's table has no gradient at all")
    check(
        "the gradient of the one table: what comes through the lookup and what comes through the head, added",
        grad.tolist(),
        below + above,
        {
            "the lookup's part alone: the head has a table of its own, or none that is trained": below,
            "the head's part alone": above,
            "twice the lookup's part": 2 * below,
        },
        source="by finite differences",
    )
    man = grad[3].tolist()
    check(
        "the gradient of “man”, which is no input here: it comes through the head alone",
        man,
        above[3],
        {"nothing: “man” was never looked up, but it was scored": [0.0] * 4},
        source="by finite differences",
    )
    model = sentence_model(replace(LITTLE, tie_weights=False))
    F.cross_entropy(model(shared.tensor([IDS]))[0], shared.tensor(TARGETS)).backward()
    check(
        "without tying: the gradient of the embedding's table",
        model.token_embedding.weight.grad.tolist(),
        below,
        {"both parts: the tables are tied, though tie_weights is False": below + above},
        source="by finite differences",
    )
    check("without tying: the gradient of the head's", model.lm_head.weight.grad.tolist(), above)
