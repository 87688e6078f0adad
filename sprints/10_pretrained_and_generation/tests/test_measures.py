"""Sprint 10's milestones on measuring: surprise and entropy in bits, repeated groups, and real text by the kept model.

A known mistake is named in the message.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from witness import check_refused

import shared
from course.oracles import check, doing, require
from shared import nn
from shared.generation.measures import distinct_n, entropy, entropy_of_logits, repetition, surprise
from shared.models import load_pretrained
from shared.text import load_tokenizer

LN2 = math.log(2)
# What comes after each of four words, so that −log₂ p are whole numbers for most.
P = np.array(
    [
        [1 / 4, 1 / 2, 1 / 8, 1 / 8],
        [1 / 16, 7 / 16, 1 / 4, 1 / 4],
        [1 / 2, 1 / 64, 15 / 64, 1 / 4],
        [1 / 8, 1 / 2, 1 / 8, 1 / 4],
    ]
)
TEXT = [0, 1, 0, 2, 1, 3, 3]
HINTS = {
    "size": "After the last token nothing is there to be surprised by: logits[:-1] beside ids[1:].",
    "shape": "After the last token nothing is there to be surprised by: logits[:-1] beside ids[1:].",
    "broadcast": "After the last token nothing is there to be surprised by: logits[:-1] beside ids[1:].",
    "not tuple": "logits_of returns two: the logits (T, V) and the ids (T,) as a Tensor.",
    "unpack": "logits_of returns two: the logits (T, V) and the ids (T,) as a Tensor.",
    "dimension": "logits_of gives logits (T, V), without a batch.",
    "unhashable": "A list cannot be in a set: ngrams gives tuples.",
}


def bigrams() -> nn.Embedding:
    """A table of what follows each word is a language model."""
    table = nn.Embedding(4, 4, dtype=shared.float64)
    with shared.no_grad():
        table.weight.copy_(shared.tensor(np.log(P) + np.array([[0.5], [-1.0], [2.0], [0.0]])))  # a sum leaves p
    return table


def numbers(what: str, call: Any) -> np.ndarray:
    with doing(what, HINTS):
        found = call()
    require(found is not None, f"{what} is None: is a `return` missing?")
    require(isinstance(found, shared.Tensor), f"{what} is a {type(found).__name__}, where a Tensor is expected")
    require(not found.requires_grad, f"{what} records a graph: logits_of has none")
    return found.numpy()


def check_surprise() -> None:
    x, y = np.array(TEXT[:-1]), np.array(TEXT[1:])
    bits = -np.log2(P[x, y])
    scores = np.log(P) + np.array([[0.5], [-1.0], [2.0], [0.0]])
    again = "how likely each token is to come again: row t of the scores is about token t + 1, logits[:-1] and ids[1:]"
    for ids in (TEXT, shared.tensor(TEXT)):
        what = f"surprise of {TEXT}" + ("" if isinstance(ids, list) else " as a Tensor")
        check(
            what,
            numbers(what, lambda ids=ids: surprise(bigrams(), ids)),
            bits,
            {
                "nats, a natural logarithm: bits have base 2, so divide by ln 2": bits * LN2,
                "nats multiplied by ln 2: a bit is ln 2 nats, so divide": bits * LN2**2,
                "log₂ p without the minus: the likelier the token, the smaller the surprise": -bits,
                "p itself: its −log₂ is asked for": P[x, y],
                "the probability of each token after itself: the scores at a place are for the token after "
                "it": -np.log2(P[np.array(TEXT), np.array(TEXT)]),
                f"{again}, in nats": -np.log(P[np.array(TEXT), np.array(TEXT)]),
                again: -np.log2(P[y, y]),
                f"{again}, and in nats": -np.log(P[y, y]),
                f"{again}; and the last token is left out": -np.log2(P[x, x]),
                f"{again}; and in nats, and the last token is left out": -np.log(P[x, x]),
                "the tokens exchanged: p of what comes next, not of what was before": -np.log2(P[y, x]),
                "the first token counted, as if something had been before it: T − 1 are asked for": np.concatenate(
                    [[0.0], bits]
                ),
                "the mean: one number for each token is asked for": bits.mean(),
                "the mean in nats: one number for each token, in bits": bits.mean() * LN2,
                "the sum over the text: one number for each token is asked for": bits.sum(),
                "the entropy after each token, which does not know what came": -(P[x] * np.log2(P[x])).sum(-1),
                "scores taken for logarithms of probabilities: log_softmax first": -scores[x, y] / LN2,
                "decimal digits, a logarithm of base 10": bits * LN2 / math.log(10),
                "the perplexity of each token": 2**bits,
                "the last token left out": bits[:-1],
                "the first prediction left out: the second token is the first to be predicted": bits[1:],
                "sums from the beginning on": np.cumsum(bits),
            },
            1e-5,
        )
    one = numbers("surprise of a text of one token", lambda: surprise(bigrams(), [2]))
    require(one.shape == (0,), f"surprise of a text of one token has shape {one.shape}: nothing is predicted, (0,)")
    check_unlikely()


def check_unlikely() -> None:
    """Scores so far apart that the smaller probability, e^-150 and less, is 0 in float32, and e^300 infinite."""
    table = nn.Embedding(3, 3)
    with shared.no_grad():
        table.weight.copy_(shared.tensor([[0.0, -150.0, 0.0], [300.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    what = "surprise in float32 of tokens with the scores −150 beside 0 and 0, and 0 beside 300 and 0"
    found = numbers(what, lambda: surprise(table, [0, 1, 2, 0]))
    require(
        found.shape != (3,) or np.isfinite(found).all(),
        f"{what} is {found.tolist()}: their probabilities are 0 in float32, and the logarithm of 0 is infinite; "
        "F.cross_entropy and F.log_softmax make ln p of the scores without p in between",
    )
    check(what, found, np.array([150 + LN2, 300, math.log(3)]) / LN2, tolerance=1e-2)


def check_entropy() -> None:
    scores = np.log(P)
    bits = -(P * np.log2(P)).sum(-1)
    with np.errstate(divide="ignore"):
        sure = np.log(np.array([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25] * 4]))
    mistakes = {
        "nats, a natural logarithm: bits have base 2, so divide by ln 2": bits * LN2,
        "nats multiplied by ln 2: a bit is ln 2 nats, so divide": bits * LN2**2,
        "Σ p · log₂ p without the minus": -bits,
        "the surprise of the likeliest token alone": -np.log2(P.max(-1)),
        "the mean of −log₂ p over the vocabulary: each counts with its probability": -np.log2(P).mean(-1),
        "the sum of −log₂ p, which does not count each with its probability": -np.log2(P).sum(-1),
        "the share of log₂ V: bits are asked for": bits / 2,
        "a mean over the vocabulary where a sum is asked for": bits / 4,
        "scores taken for logarithms of probabilities: log_softmax first": -(P * (scores + 1)).sum(-1) / LN2,
        "a softmax along the wrong dimension: over the vocabulary, dim=-1": wrong_axis(scores + 1),
        "the entropy of the whole table: one number for each row": bits.sum(),
        "the perplexity, 2 to the power of it": 2**bits,
    }
    what = "entropy_of_logits, (4, 4)"
    found = numbers(what, lambda: entropy_of_logits(shared.tensor(scores + 1)))
    check(what, found, bits, mistakes, 1e-5)
    found = numbers(
        "entropy_of_logits, (2, 2, 4)", lambda: entropy_of_logits(shared.tensor((scores + 1).reshape(2, 2, 4)))
    )
    check("entropy_of_logits, (2, 2, 4) → (2, 2)", found, bits.reshape(2, 2), tolerance=1e-5)
    found = numbers("entropy_of_logits where tokens are forbidden", lambda: entropy_of_logits(shared.tensor(sure)))
    require(
        not np.isnan(found).any(),
        f"entropy_of_logits where tokens are forbidden, −inf, is {found.tolist()}: 0 · −inf is NaN; what has no "
        "probability adds nothing",
    )
    check("entropy_of_logits of two, one and four possible tokens", found, [1.0, 0.0, 2.0], tolerance=1e-5)
    found = numbers("entropy of a text", lambda: entropy(bigrams(), TEXT))
    check("entropy of a text, (T,): after each token, the last one too", found, bits[TEXT], tolerance=1e-5)


def wrong_axis(scores: np.ndarray) -> np.ndarray:
    p = np.exp(scores) / np.exp(scores).sum(0)
    return -(p * np.log2(p)).sum(-1)


# ------------------------------------------------------------------------ groups


def windows(items: Any, n: int) -> list[tuple]:
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]


TEXTS = {
    "words": "the cat and the cat and the cat sat".split(),
    "a loop": [1, 2, 3] * 4,
    "no repetition": [5, 4, 3, 2, 1],
    "one token for ever": [7] * 6,
    "letters": list("to be or not to be"),
}


def check_groups(items: list, n: int, name: str) -> None:
    groups = windows(items, n)
    different, number = len(set(groups)), len(groups)
    apart = [tuple(items[i : i + n]) for i in range(0, len(items) - n + 1, n)]
    once = sum(groups.count(group) == 1 for group in groups)
    neighbours = sum(a == b for a, b in zip(groups, groups[1:], strict=False))
    common = {
        "a count, where a share of all is asked for": (different, number - different),
        "a share of the words: of the groups, which are fewer by n − 1": (
            different / len(items),
            (number - different) / len(items),
        ),
        "groups side by side: each place begins one": (len(set(apart)) / len(apart), 1 - len(set(apart)) / len(apart)),
        "single words: groups of n": (len(set(items)) / len(items), 1 - len(set(items)) / len(items)),
        "groups of another size": (
            len(set(windows(items, n + 1))) / max(1, number - 1),
            1 - len(set(windows(items, n + 1))) / max(1, number - 1),
        ),
        "sets of words: their order counts": (
            len({frozenset(g) for g in groups}) / number,
            1 - len({frozenset(g) for g in groups}) / number,
        ),
        "the other of the two: they are 1 together": (1 - different / number, different / number),
        "percent: a share from 0 to 1 is asked for": (100 * different / number, 100 - 100 * different / number),
        "the different groups over the words that differ": (
            different / len(set(items)),
            (number - different) / len(set(items)),
        ),
    }
    of_one = {
        "the groups that occur once: what occurs twice is one more that is different": once / number,
        "all over the different ones: the quotient is upside down": number / different,
    }
    of_other = {
        "all groups that occur more than once, the first occurrence too: that one was new": 1 - once / number,
        "different groups that occur more than once, over the different ones": (different - once) / different,
        "different groups that occur more than once: each repetition counts": (different - once) / number,
        "groups that are the same as the one before: anywhere before counts": neighbours / number,
        "repetitions over the different groups: over all": (number - different) / different,
    }
    for k, (function, right, more) in enumerate(
        ((distinct_n, different / number, of_one), (repetition, 1 - different / number, of_other))
    ):
        what = f"{function.__name__} of {name}, {items!r}, n={n}"
        with doing(what, HINTS):
            found = function(items, n)
        require(found is not None, f"{what} is None: is a `return` missing?")
        check(what, found, right, more | {text: pair[k] for text, pair in common.items()}, 1e-6)


def test_surprise_and_entropy_are_in_bits_and_repetition_is_a_share_of_all_groups():
    check_surprise()
    check_entropy()
    for name, items in TEXTS.items():
        for n in (1, 2, 3):
            check_groups(items, n, name)
    text = shared.tensor([1, 2, 3, 1, 2])
    with doing("distinct_n and repetition of a Tensor of ids", HINTS):
        found = [distinct_n(text, 2), repetition(text, 2)]
    check("distinct_n and repetition of ids [1, 2, 3, 1, 2] as a Tensor, n=2", found, [0.75, 0.25], tolerance=1e-6)
    with doing("distinct_n and repetition of a generator", HINTS):
        found = [distinct_n((c for c in "abab"), 2), repetition((c for c in "abab"), 2)]
    check(
        "distinct_n and repetition of a generator, which can be gone through once",
        found,
        [2 / 3, 1 / 3],
        tolerance=1e-6,
    )
    for function in (distinct_n, repetition):
        for n in (0, 4):
            check_refused(
                f"{function.__name__} of three words with n={n}", lambda f=function, n=n: f(["a", "b", "c"], n)
            )


# ------------------------------------------------------------------------ the kept model

FOLDER = Path(__file__).parents[2] / "09_train_gpt2" / "model"
CARD = 2.3947  # bits per character over the whole validation text, by its MODEL_CARD.md

# The beginning of the validation text, from "The Taming of the Shrew": the model was not trained on it.
PASSAGE = """GREMIO:
Good morrow, neighbour Baptista.

BAPTISTA:
Good morrow, neighbour Gremio.
God save you, gentlemen!

PETRUCHIO:
And you, good sir! Pray, have you not a daughter
Call'd Katharina, fair and virtuous?

BAPTISTA:
I have a daughter, sir, called Katharina.

GREMIO:
You are too blunt: go to it orderly.

PETRUCHIO:
You wrong me, Signior Gremio: give me leave.
I am a gentleman of Verona, sir,
That, hearing of her beauty and her wit,
Her affability and bashful modesty,
Her wondrous qualities and mild behavior,
Am bold to show myself a forward guest
Within your house, to make mine eye the witness
Of that report which I so oft have heard.
"""


def tensors_of(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """{name: dtype, shape, bytes} of a safetensors file, read by hand: 8 bytes of length, JSON, then the numbers."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        place, size = file.tell(), path.stat().st_size
    found = {
        name: (entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
    }
    require(sum(entry[2] for entry in found.values()) == size - place, "the file's tensors do not fill it")
    return found


def test_the_kept_model_is_complete_and_finds_real_text_as_surprising_as_its_card_says():
    model, tokenizer = load_pretrained(FOLDER), load_tokenizer(FOLDER)
    ids = tokenizer.encode(PASSAGE)
    length = model.config.block_size
    bits, expected = [], []
    for start in range(0, len(ids) - 1, length):
        window = ids[start : start + length]
        bits += numbers("surprise of Shakespeare", lambda w=window: surprise(model, w)).tolist()
        with shared.no_grad():
            scores = model(shared.tensor([window]))[0].numpy().astype(np.float64)
        logs = (
            scores
            - np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True))
            - scores.max(-1, keepdims=True)
        )
        expected += (-logs[np.arange(len(window) - 1), window[1:]] / LN2).tolist()
    check("the surprise of each letter of Shakespeare", bits, expected, tolerance=1e-3, source="NumPy")
    mean = float(np.mean(bits))
    require(
        abs(mean - CARD) < 0.35,
        f"the letters of a page that the model was not trained on surprise it by {mean:.2f} bits on average; its card "
        f"says {CARD} of the whole validation text, and one page is within 0.35 of it",
    )
    shuffled = np.random.default_rng(0).permutation(ids[:length]).tolist()
    noise = numbers("surprise of shuffled letters", lambda: surprise(model, shuffled)).mean()
    require(
        noise > mean + 2,
        f"the same letters shuffled surprise the model by {noise:.2f} bits, hardly more than {mean:.2f}",
    )
    found = tensors_of(FOLDER / "model.safetensors")
    require({entry[0] for entry in found.values()} == {"F32"}, "the kept model's numbers are float32")
    numbers_in_file = sum(math.prod(shape) for _, shape, _ in found.values())
    require(
        numbers_in_file == model.num_parameters() == model.config.num_parameters(),
        f"the file has {numbers_in_file:,} numbers, the model {model.num_parameters():,}: each of its tensors has a "
        "place",
    )
