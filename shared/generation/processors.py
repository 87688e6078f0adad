"""Functions from logits to logits, put between a model and the draw: what each kind of sampling changes.

Each takes the scores of the next token, logits (B, V) in a floating dtype, and returns new ones of that shape and
dtype; the input stays as it is. A token that may not be drawn has the score −inf, of which softmax makes 0. They can
be put one after the other; `shared.generation.process` has them in the usual order.

`seen` is what each row holds so far, prompt and new tokens, and `new` only the new ones: lists of B lists of ids.
Each function looks at what it is given with `check_logits` first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from shared.arrays.dtypes import bool_, float64, int64
from shared.nn import functional as F
from shared.ops import bincount, tensor, where, zeros
from shared.tensor import Tensor

Rows = Sequence[Sequence[int]]


def check_logits(name: str, logits: Tensor, rows: Rows | None = None) -> None:
    """ValueError with `name`, the function's, where logits are not floating (B, V), or rows not B lists of ids below V.

    >>> check_logits("top_k", zeros(5))
    Traceback (most recent call last):
    ...
    ValueError: top_k: expected floating logits (B, V), but got shape (5,) of float32
    """
    if logits.ndim != 2 or not logits.is_floating_point():
        shape = tuple(logits.shape)
        raise ValueError(f"{name}: expected floating logits (B, V), but got shape {shape} of {logits.dtype.name}")
    if rows is not None and len(rows) != len(logits):
        raise ValueError(f"{name}: logits have {len(logits)} rows, but there are ids for {len(rows)}")
    for row, ids in enumerate(rows or ()):
        if len(ids) and not 0 <= min(ids) <= max(ids) < logits.shape[1]:
            wrong = next(i for i in ids if not 0 <= i < logits.shape[1])
            raise ValueError(f"{name}: row {row} has the id {wrong}, but there are {logits.shape[1]} tokens")


# ---------------------------------------------------------------- what may be drawn


def temperature(logits: Tensor, t: float) -> Tensor:
    """New logits, those given / t: below 1 the likely tokens become likelier, above 1 all become more alike.

    Probabilities become p^(1/t), renormalised. Towards 0 that is the likeliest token; `choose` takes it without a draw.
    ValueError unless t is finite and above 0: an infinite one would make all tokens alike, the forbidden ones NaN.
    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, equation 1.

    >>> temperature(tensor([[0.0, 1.0, -2.0]]), 0.5).tolist()
    [[0.0, 2.0, -4.0]]
    """
    check_logits("temperature", logits)
    if not 0 < t < math.inf:
        raise ValueError(f"temperature: expected a finite t > 0, but got {t}")
    return logits / t


def top_k(logits: Tensor, k: int) -> Tensor:
    """New logits: only the k largest scores of each row stay, and what ties with the k-th; the others become −inf.

    All stay where k ≥ V, in a copy. ValueError for k < 1.
    Source: Fan et al., "Hierarchical neural story generation", 2018, section 5.4.

    >>> top_k(tensor([[1.0, 4.0, 3.0, 3.0]]), 2).tolist()
    [[-inf, 4.0, 3.0, 3.0]]
    """
    check_logits("top_k", logits)
    if k < 1:
        raise ValueError(f"top_k: expected k ≥ 1, but got {k}")
    least = logits.topk(min(k, logits.shape[1]), dim=-1).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < least, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """New logits: only the nucleus stays, the fewest tokens, likeliest first, whose probabilities sum to at least p.

    The token with which the sum reaches p stays too, so there is always one. Of equally likely tokens at the edge,
    those with the lower ids stay. 1 keeps all, in a copy. ValueError unless 0 < p ≤ 1.
    Source: Holtzman et al., "The curious case of neural text degeneration", 2020, section 3.1.

    >>> top_p(tensor([[3.0, 1.0, 2.0]]), 0.8).tolist()  # probabilities 0.67, 0.09, 0.24
    [[3.0, -inf, 2.0]]
    """
    check_logits("top_p", logits)
    if not 0 < p <= 1:
        raise ValueError(f"top_p: expected 0 < p ≤ 1, but got {p}")
    if p == 1:
        return logits.clone()
    probabilities = F.softmax(logits, dim=-1)
    # A sort of all tokens does as well, and is slower. Those below (1 − p) / V sum to less than 1 − p, so none of them
    # is in the nucleus: they need not be sorted.
    count = int((probabilities > (1 - p) / logits.shape[1]).sum(-1).amax())
    order = logits.topk(max(count, 1), dim=-1).indices  # (B, count)
    falling = probabilities.gather(-1, order)
    before = falling.cumsum(-1, dtype=float64) - falling  # the probability of all that are likelier
    nucleus = zeros(logits.shape, dtype=bool_, device=logits.device).scatter(-1, order, before < p)
    return logits.masked_fill(~nucleus, -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """New logits: only tokens stay that are at least p times as probable as the row's likeliest.

    So more stay where the model is unsure, and few where it is sure. 0 keeps all, in a copy, 1 the likeliest and what
    ties. ValueError unless 0 ≤ p ≤ 1.
    Source: Nguyen et al., "Turning up the heat: min-p sampling for creative and coherent LLM outputs", 2024, section 3.

    >>> min_p(tensor([[3.0, 1.0, 2.0]]), 0.2).tolist()  # 1, 0.14 and 0.37 times as probable as the likeliest
    [[3.0, -inf, 2.0]]
    """
    check_logits("min_p", logits)
    if not 0 <= p <= 1:
        raise ValueError(f"min_p: expected 0 ≤ p ≤ 1, but got {p}")
    probabilities = F.softmax(logits, dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -math.inf)


# ---------------------------------------------------------------- what was there before


def token_counts(rows: Rows, logits: Tensor) -> Tensor:
    """How often each token occurs in each of B rows of ids: (B, V), of the dtype and on the device of `logits`.

    >>> token_counts([[2, 0, 2], []], zeros(2, 3)).tolist()
    [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
    """
    B, V = logits.shape
    places = [row * V + i for row, ids in enumerate(rows) for i in ids]
    counts = bincount(tensor(places, dtype=int64, device=logits.device), minlength=B * V)
    return counts.reshape(B, V).to(logits.dtype)


def repetition_penalty(logits: Tensor, seen: Rows, penalty: float) -> Tensor:
    """New logits: those of tokens in `seen` are divided by `penalty` where they are positive, else multiplied by it.

    Above 1 both make the token less likely, below 1 likelier; 1 changes nothing. How often it was seen does not matter.
    ValueError unless the penalty is finite and above 0. Source: Keskar et al., "CTRL", 2019, section 4.1 (there scores
    are only divided).

    >>> repetition_penalty(tensor([[2.0, -2.0, 1.0]]), [[0, 1, 1]], 2.0).tolist()
    [[1.0, -4.0, 1.0]]
    """
    check_logits("repetition_penalty", logits, seen)
    if not 0 < penalty < math.inf:
        raise ValueError(f"repetition_penalty: expected a finite penalty > 0, but got {penalty}")
    penalised = where(logits > 0, logits / penalty, logits * penalty)
    return where(token_counts(seen, logits) > 0, penalised, logits)


def presence_penalty(logits: Tensor, new: Rows, penalty: float) -> Tensor:
    """New logits: `penalty` is subtracted once from the score of each token that occurs in `new`, however often.

    Below 0 it is a reward. ValueError unless it is finite. Source: OpenAI's API reference, `presence_penalty`.

    >>> presence_penalty(tensor([[2.0, -2.0, 1.0]]), [[0, 1, 1]], 0.5).tolist()
    [[1.5, -2.5, 1.0]]
    """
    check_logits("presence_penalty", logits, new)
    if not math.isfinite(penalty):
        raise ValueError(f"presence_penalty: expected a finite penalty, but got {penalty}")
    return where(token_counts(new, logits) > 0, logits - penalty, logits)


def frequency_penalty(logits: Tensor, new: Rows, penalty: float) -> Tensor:
    """New logits: `penalty` is subtracted from the score of each token as often as the token occurs in `new`.

    Below 0 it is a reward. ValueError unless it is finite. Source: OpenAI's API reference, `frequency_penalty`.

    >>> frequency_penalty(tensor([[2.0, -2.0, 1.0]]), [[0, 1, 1]], 0.5).tolist()
    [[1.5, -3.0, 1.0]]
    """
    check_logits("frequency_penalty", logits, new)
    if not math.isfinite(penalty):
        raise ValueError(f"frequency_penalty: expected a finite penalty, but got {penalty}")
    return logits - penalty * token_counts(new, logits)


def no_repeat_ngrams(logits: Tensor, seen: Rows, n: int) -> Tensor:
    """New logits that forbid each token which would end a group of n tokens that the row has had: no n-gram twice.

    The last n − 1 tokens of a row are looked for in the whole row, and what followed them there becomes −inf. With
    n = 1 that is every token seen. ValueError for n < 1.
    Source: Paulus, Xiong and Socher, "A deep reinforced model for abstractive summarization", 2018, section 2.5.

    >>> no_repeat_ngrams(tensor([[1.0, 2.0, 3.0]]), [[0, 2, 1, 0]], 2).tolist()  # after 0 came 2
    [[1.0, 2.0, -inf]]
    """
    check_logits("no_repeat_ngrams", logits, seen)
    if n < 1:
        raise ValueError(f"no_repeat_ngrams: expected n ≥ 1, but got {n}")
    forbidden = zeros(logits.shape, dtype=bool_, device=logits.device)
    for row, ids in enumerate(seen):
        for end in range(n - 1, len(ids)):
            if ids[end - n + 1 : end] == ids[len(ids) - n + 1 :]:
                forbidden[row, ids[end]] = True
    return logits.masked_fill(forbidden, -math.inf)


def logit_bias(logits: Tensor, biases: Mapping[int, float]) -> Tensor:
    """Adds to the score of each token in `biases` what stands there, in every row; −inf forbids the token.

    A bias of ln 2 makes the token twice as likely in comparison with those that have none. ValueError for an id that is
    no token's, and a bias that is NaN or inf. Source: OpenAI's API reference, `logit_bias`.

    >>> logit_bias(tensor([[2.0, -2.0, 1.0]]), {1: 5.0, 0: -math.inf}).tolist()
    [[-inf, 3.0, 1.0]]
    """
    check_logits("logit_bias", logits, [list(biases)] * len(logits))
    for token, bias in biases.items():
        if not bias < math.inf:
            raise ValueError(f"logit_bias: expected finite numbers or -inf, but got {bias} for the id {token}")
    ids = tensor(list(biases), dtype=int64, device=logits.device)
    values = tensor(list(biases.values()), dtype=logits.dtype, device=logits.device)
    return logits + zeros(logits.shape[1], dtype=logits.dtype, device=logits.device).scatter(0, ids, values)
