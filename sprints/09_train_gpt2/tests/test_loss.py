"""Sprint 09's milestone on the loss of the next token and its other units. A known mistake is named in the message."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import shared
from course.oracles import check, differences, doing, require
from shared.training.next_token import bits_per_character, characters_per_token, next_token_loss, perplexity

# The probabilities of the, dog, bit, man after each word of two windows: the targets' are 1/2, 1/4 … 1/64.
P = np.array(
    [
        [[1 / 4, 1 / 2, 1 / 8, 1 / 8], [1 / 2, 1 / 8, 1 / 4, 1 / 8], [1 / 8, 1 / 4, 1 / 16, 9 / 16]],
        [[1 / 16, 1 / 16, 3 / 8, 1 / 2], [1 / 32, 7 / 32, 1 / 4, 1 / 2], [1 / 2, 1 / 4, 15 / 64, 1 / 64]],
    ]
)
TARGETS = np.array([[1, 2, 0], [0, 0, 3]])
BITS = np.array([[1, 2, 3], [4, 5, 6.0]])  # −log2 of the targets' probabilities: 21 in all
LOGITS = np.log(P) + np.array([[[0.3], [1], [-2]], [[3], [0.7], [0.5]]])  # a softmax does not see what is added
ROWS = "F.cross_entropy takes one row of scores for each target, (N, V) and (N,): B and T become one axis."
SHAPES = {
    "cross_entropy": ROWS,
    "Expected": ROWS,
    "shape": ROWS,
    "out of range": "A target of −100 is no token: it is left out before anything is looked up with it.",
}


def softmax(scores: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def picked(table: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The targets' numbers out of a table (B, T, V), as (B, T)."""
    return np.take_along_axis(table, targets[..., None], -1)[..., 0]


def mean_of(scores: np.ndarray, targets: np.ndarray) -> float:
    return float(-np.log(picked(softmax(scores), targets)).mean())


def mistakes() -> dict[str, Any]:
    """What the loss of LOGITS and TARGETS would be by one wrong turn."""
    p, nats, ln2 = picked(P, TARGETS), BITS * math.log(2), math.log(2)
    rows, shuffled = LOGITS.reshape(6, 4), LOGITS.swapaxes(0, 1).reshape(6, 4)
    flat = TARGETS.reshape(-1)
    twice = softmax(P)
    return {
        "targets that are shifted once more: targets[b, t] belongs to logits[b, t] already": (
            mean_of(LOGITS[:, :-1], TARGETS[:, 1:])
        ),
        "targets shifted back: targets[b, t] belongs to logits[b, t], and windows_at has shifted them already": mean_of(
            LOGITS[:, 1:], TARGETS[:, :-1]
        ),
        "the last place of each window alone: every place predicts its next token": nats[:, -1].mean(),
        "the first place of each window alone": nats[:, 0].mean(),
        "the first window alone": nats[0].mean(),
        "a sum over all tokens: a batch of another size would have another loss": nats.sum(),
        "a sum over the places, a mean over the windows: longer windows would have a larger loss": nats.sum(1).mean(),
        "a sum over the windows, a mean over the places": nats.sum(0).mean(),
        "a mean over the vocabulary too: only the target's −ln p counts": nats.mean() / 4,
        "one loss for each token: their mean is asked for": nats,
        "one loss for each window: the mean over all tokens is asked for": nats.mean(1),
        "bits, a logarithm of base 2: a loss in nats is asked for": BITS.mean(),
        "ln p without the minus: the more likely the target, the smaller the loss": -nats.mean(),
        "the mean of p itself, without a logarithm": p.mean(),
        "−p, without a logarithm": -p.mean(),
        "1 − p, without a logarithm": 1 - p.mean(),
        "the perplexity, exp of the loss": math.exp(nats.mean()),
        "−ln of the mean probability: first the logarithm, then the mean": -math.log(p.mean()),
        "scores taken for logarithms of probabilities: without the softmax they do not sum to 1": -picked(
            LOGITS, TARGETS
        ).mean(),
        "a softmax in front of cross_entropy, which has one of its own: probabilities are taken for scores": -np.log(
            picked(twice, TARGETS)
        ).mean(),
        "a softmax over the places of a window: it is over the vocabulary": -np.log(
            picked(softmax(LOGITS, 1), TARGETS)
        ).mean(),
        "a softmax over the windows of a batch: it is over the vocabulary": -np.log(
            picked(softmax(LOGITS, 0), TARGETS)
        ).mean(),
        "a softmax over everything at once": -np.log(picked(softmax(LOGITS, (0, 1, 2)), TARGETS)).mean(),
        "scores in the order (T, B) with targets in the order (B, T): the rows do not belong to their targets": -np.log(
            softmax(shuffled)[np.arange(6), flat]
        ).mean(),
        "scores cut up anew into (B · T, V) across the vocabulary: transpose is not reshape": -np.log(
            softmax(LOGITS.transpose(2, 0, 1).reshape(6, 4))[np.arange(6), flat]
        ).mean(),
        "scores reshaped to (B, V, T), which cuts the rows up anew: reshape does not swap axes, transpose(1, 2) does": (
            -np.log(np.take_along_axis(softmax(LOGITS.reshape(2, 4, 3), 1), TARGETS[:, None], 1)).mean()
        ),
        "the likeliest token in the target's place": float(-np.log(P.max(-1)).mean()),
        "the entropy of the predictions: the target's −ln p counts alone, whatever the others have": float(
            -(P * np.log(P)).sum(-1).mean()
        ),
        "squared differences from one-hot targets": float(((P - np.eye(4)[TARGETS]) ** 2).sum(-1).mean()),
        "a loss without the last place: all T places of a window predict, the target of the last is in the batch": nats[
            :, :-1
        ].mean(),
        "a loss without the first place": nats[:, 1:].mean(),
        "a factor ln 2 too many": nats.mean() * ln2,
        "rows in which the largest score is 0 are no logarithms of probabilities: Σ exp is missing": -np.mean(
            picked(rows.reshape(2, 3, 4) - LOGITS.max(-1, keepdims=True), TARGETS)
        ),
    }


def loss_of(logits: np.ndarray, targets: np.ndarray, what: str) -> shared.Tensor:
    scores = shared.tensor(logits).requires_grad_()
    with doing(what, SHAPES):
        loss = next_token_loss(scores, shared.tensor(targets))
    require(loss is not None, f"{what} is None: is a `return` missing?")
    require(
        isinstance(loss, shared.Tensor),
        f"{what} is a {type(loss).__name__}: a Tensor is asked for, from which backward() can go",
    )
    require(
        loss.requires_grad,
        f"{what} has lost the graph: the scores collect a gradient, and no array or float may be made of them",
    )
    return loss


def check_loss() -> None:
    what = "the loss of six targets with probabilities of 1/2, 1/4, 1/8, 1/16, 1/32 and 1/64: 3.5 · ln 2"
    loss = loss_of(LOGITS, TARGETS, "next_token_loss of two windows of three words")
    check(what, loss.tolist(), 3.5 * math.log(2), mistakes(), 1e-6)
    one = loss_of(LOGITS[:1, :1], TARGETS[:1, :1], "next_token_loss of one word")
    check("the loss of one word with probability 1/2", one.tolist(), math.log(2))
    far = np.array([[[1000.0, 0, 0, 0]]])
    with np.errstate(all="ignore"):
        loss = loss_of(far, np.array([[2]]), "next_token_loss of scores 1000, 0, 0, 0")
    require(
        abs(loss.item() - 1000) < 1e-6,
        f"the loss is {loss.item()} where the scores are 1000, 0, 0, 0 and the target is the third, of probability "
        "e^−1000: it is 1000. A softmax first and its logarithm afterwards has lost the digits: F.cross_entropy and "
        "F.log_softmax subtract the largest score and take no logarithm of 0",
    )


def check_left_out() -> None:
    """−100 marks what does not count: two of the six here, one window keeps a single target and one all three."""
    targets, keep = TARGETS.copy(), np.array([[True, False, False], [True, True, True]])
    targets[~keep] = -100
    ln2 = math.log(2)
    loss = loss_of(LOGITS, targets, "next_token_loss with two targets of −100")
    check(
        "the loss where two of six targets are −100, which do not count: (1 + 4 + 5 + 6)/4 · ln 2",
        loss.tolist(),
        16 / 4 * ln2,
        {
            "a mean over all six: what is left out is not counted either": 16 / 6 * ln2,
            "the mean of the windows' means, where each token should count the same": (1 + 5) / 2 * ln2,
            "−100 taken for token 0": (16 + 1 + 3) / 6 * ln2,
            "no target left out": 3.5 * ln2,
        },
        1e-6,
    )


def check_gradient() -> None:
    scores = shared.tensor(LOGITS).requires_grad_()
    with doing("the gradient of next_token_loss", SHAPES):
        next_token_loss(scores, shared.tensor(TARGETS)).backward()
    require(scores.grad is not None, "no gradient arrives at the scores")
    wanted = (P - np.eye(4)[TARGETS]) / 6
    check(
        "the gradient by the scores, (p − y) over the six tokens",
        scores.grad.tolist(),
        wanted,
        {"p − y of each token, not of their mean": wanted * 6, "y − p": -wanted},
        1e-6,
    )
    measured = differences(lambda a: mean_of(a, TARGETS), LOGITS)
    check("the same by finite differences", scores.grad.tolist(), measured, tolerance=1e-5)


# ------------------------------------------------------------------------ other units


class Words:
    """Three tokens of 4, 1 and 7 characters."""

    def decode(self, ids: Any) -> str:
        return "".join(("the ", "a", "dog bit")[i] for i in ids)


class Bytes:
    """A token for each byte, as a byte-level tokenizer has them before it has learnt to merge."""

    def decode(self, ids: Any) -> str:
        what = "characters_per_token: decode was given"
        require(
            isinstance(ids, (list, tuple, range)),
            f"{what} ids as they lie on the disk, {type(ids).__name__}; tokenizers expect a list of ints",
        )
        strange = next((type(i).__name__ for i in ids if type(i) is not int), None)
        require(strange is None, f"{what} a list of {strange}: tokenizers expect ints, by int(i) or .tolist()")
        return bytes(ids).decode("utf-8", errors="replace")


def check_perplexity() -> None:
    with doing("perplexity(loss)", {"range": "exp of a loss above 709 is beyond what a float holds: it is inf."}):
        found = [perplexity(loss) for loss in (0.0, 1.0, math.log(65), 3.0, 1000.0)]
    values = np.array([0.0, 1.0, math.log(65), 3.0])
    check(
        "the perplexities of losses of 0, 1, ln 65 and 3 nats",
        found[:4],
        np.exp(values),
        {
            "2 to the power of the loss, which is right for bits: the loss is in nats": 2**values,
            "10 to the power of the loss": 10**values,
            "the loss itself": values,
            "exp(−loss), the mean probability: the perplexity is its inverse": np.exp(-values),
            "the loss in bits": values / math.log(2),
            "1 + loss": 1 + values,
            "exp of the loss in bits: either 2 and bits, or e and nats": np.exp(values / math.log(2)),
        },
    )
    require(found[4] == math.inf, f"the perplexity of a loss of 1,000 nats is {found[4]}, where inf is expected")
    require(isinstance(found[1], float), f"perplexity returns a {type(found[1]).__name__}, where a float is expected")


def check_bits() -> None:
    given = [(math.log(2), 1.0), (math.log(2), 4.0), (math.log(8), 2.0), (1.0, 1.0), (6.0, 3.0)]
    with doing("bits_per_character(loss, characters_per_token)"):
        found = [bits_per_character(*pair) for pair in given]
        alone = bits_per_character(math.log(16))
    loss, per = np.array(given).T
    check(
        "bits per character of (loss, characters per token) = (ln 2, 1), (ln 2, 4), (ln 8, 2), (1, 1) and (6, 3)",
        found,
        loss / math.log(2) / per,
        {
            "nats: a bit is ln 2 nats": loss / per,
            "a product with ln 2: a bit is smaller than a nat, so that there are more of them": loss
            * math.log(2)
            / per,
            "a product with the characters per token: a token's loss is shared among its characters": loss
            / math.log(2)
            * per,
            "bits per token: its characters share them": loss / math.log(2),
            "log2 of the loss, which is in nats already": np.log2(loss) / per,
            "the logarithm of base 10": loss / math.log(10) / per,
            "the perplexity per character": np.exp(loss) / per,
        },
    )
    check("bits per character where each is a token", alone, 4.0)


def check_characters() -> None:
    ids = [0, 1, 1, 2, 0, 1]  # 4 + 1 + 1 + 7 + 4 + 1 = 18 characters in 6 tokens
    with doing("characters_per_token(tokenizer, ids)"):
        found = characters_per_token(Words(), ids)
    check(
        "the characters per token of six tokens with 18 characters",
        found,
        3.0,
        {
            "tokens per character": 6 / 18,
            "each different token counted once, in the mean: it counts as often as it occurs": 4.0,
            "all characters, undivided": 18,
            "the characters of the different tokens: each counts as often as it occurs": 2.0,
            "a division by the number of different tokens": 6.0,
        },
    )
    text = "fünf Männer grüßen"  # 18 characters, 22 bytes
    with doing("characters_per_token(tokenizer, ids)"):
        of_bytes = characters_per_token(Bytes(), np.frombuffer(text.encode(), np.uint8).astype(np.uint16))
    check(
        "the characters per token where each byte is one, of a text of 18 characters and 22 bytes",
        of_bytes,
        18 / 22,
        {
            "each token decoded by itself, where half a letter is shown as a character, or bytes counted instead": 1.0,
            "tokens per character": 22 / 18,
        },
    )


def test_the_loss_of_the_next_token_by_hand_and_in_other_units():
    check_loss()
    check_left_out()
    check_gradient()
    check_perplexity()
    check_bits()
    check_characters()
