"""Word vectors from text: the skip-gram model with negative sampling, and what it is trained on.

ids = shared.tensor(vocabulary.encode(text))          # of a large text: subsample(ids), too
centers, contexts = skip_gram_pairs(ids, window=2)
noise = NegativeSampler(shared.bincount(ids, minlength=len(vocabulary)))
model = SkipGram(len(vocabulary), 64)
loss = model(centers[batch], contexts[batch], noise((len(batch), 5)))

Source: Mikolov et al., "Distributed representations of words and phrases and their compositionality", 2013, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.arrays import dtypes
from shared.arrays.device import device_of, xp
from shared.arrays.random import Generator, default_generator
from shared.autograd import Function, no_grad
from shared.nn import Embedding, Module, init
from shared.ops import as_tensor, join
from shared.tensor import Tensor

# ---------------------------------------------------------------- what it is trained on


def _ids(name: str, ids: Any) -> Any:
    """A row of integers as an int64 array (T,)."""
    array = as_tensor(ids, dtype=dtypes.int64 if isinstance(ids, list) else None).array
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: expected a row of integer ids, (T,), but got {array.dtype.name} of shape {tuple(array.shape)}"
        )
    return array.astype(dtypes.int64, copy=False)


def skip_gram_pairs(ids: Any, window: int) -> tuple[Tensor, Tensor]:
    """All pairs of words that stand at most `window` places apart: centers (P,) and contexts (P,), int64.

    `ids` is a text (T,), a list, array or Tensor of integers. Each place is the center of up to 2 · window pairs, one
    with each neighbour to its left and to its right that the text has; so each pair of places comes twice, once from
    either side. The pairs may come in any order. ValueError for a window below 1. `_ids("skip_gram_pairs", ids)` is the
    text as an array, `Tensor(array)` makes a Tensor of one.

    >>> centers, contexts = skip_gram_pairs([0, 1, 2, 0, 3], window=1)      # the dog bit the man
    >>> sorted(zip(centers.tolist(), contexts.tolist()))
    [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (2, 0), (2, 1), (3, 0)]
    """
    text = _ids("skip_gram_pairs", ids)
    if window < 1:
        raise ValueError(f"skip_gram_pairs: expected a window of at least 1, but got {window}")
    centers, contexts = [text[:0]], [text[:0]]
    for distance in range(1, min(window, len(text) - 1) + 1):
        before, after = text[:-distance], text[distance:]
        centers += [before, after]
        contexts += [after, before]
    module = xp(text)
    return Tensor(module.concatenate(centers)), Tensor(module.concatenate(contexts))


def keep_probability(counts: Any, threshold: float) -> Tensor:
    """How likely each word is kept by `subsample`: min(1, √(threshold / f)), f its share of the text; float32 (V,).

    `counts` (V,) says how often each word occurs (`as_tensor(counts).array`: as an array); one that never does gets 1.
    Source: Mikolov et al., 2013, equation 5 (which gives the probability to be left out).

    >>> keep_probability([90, 9, 1], threshold=0.1)
    tensor([0.3333, 1.0000, 1.0000])
    """
    counts = as_tensor(counts).array.astype(dtypes.float64)
    module = xp(counts)
    share = counts / max(float(counts.sum()), 1.0)
    rare = share <= threshold
    return Tensor(module.where(rare, 1.0, threshold / module.where(rare, 1.0, share)) ** 0.5).float()


def subsample(ids: Any, threshold: float = 1e-3, generator: Generator | None = None) -> Tensor:
    """The text `ids` (T,) without many of its frequent words: each place stays with its word's `keep_probability`.

    Random numbers come from `generator` or the default one. The order is kept, and what is left moves together: a
    window over it reaches further in the text.
    """
    text = _ids("subsample", ids)
    kept = keep_probability(xp(text).bincount(text), threshold).array[text]
    rng = (generator or default_generator(device_of(text))).rng
    return Tensor(text[rng.random(len(text)) < kept])


class NegativeSampler:
    """Draws words at random, word w with probability proportional to counts[w] ** power.

    `counts` (V,) are numbers of at least 0, not all 0; `probabilities` (V,), float64, sum to 1. A call with a shape
    gives an int64 Tensor of ids of that shape, drawn independently, from `generator` or the default one. A word with
    count 0 is never drawn.

    >>> NegativeSampler([16, 1, 0]).probabilities
    tensor([0.8889, 0.1111, 0.0000], dtype=shared.float64)
    """

    def __init__(self, counts: Any, power: float = 0.75, generator: Generator | None = None):
        counts = as_tensor(counts).array.astype(dtypes.float64)
        if counts.ndim != 1 or not counts.size or float(counts.min()) < 0 or not 0 < float(counts.sum()) < float("inf"):
            raise ValueError(
                f"NegativeSampler: expected one count of at least 0 for each word, one of them above 0, but got shape "
                f"{tuple(counts.shape)}"
            )
        self.generator = generator
        self.probabilities = noise_probabilities(Tensor(counts), power)
        self._upper_ends = self.probabilities.array.cumsum()

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Ids of the shape: where uniform numbers fall among the words, laid end to end with their probabilities."""
        ends = self._upper_ends
        rng = (self.generator or default_generator(device_of(ends))).rng
        wanted = rng.random(tuple(shape)) * ends[-1]
        return Tensor(xp(ends).searchsorted(ends, wanted, side="right").astype(dtypes.int64))


def noise_probabilities(counts: Tensor, power: float) -> Tensor:
    """counts ** power, scaled to sum to 1: (V,) → (V,), float64; a word with count 0 gets 0, for power 0 too.

    >>> import shared
    >>> noise_probabilities(shared.tensor([81, 16, 0]), 0.5)
    tensor([0.6923, 0.3077, 0.0000], dtype=shared.float64)
    """
    counts = counts.array.astype(dtypes.float64)
    weights = xp(counts).where(counts > 0, counts**power, 0.0)
    return Tensor(weights / weights.sum())


# ---------------------------------------------------------------- the model and its loss


class NegativeSamplingLoss(Function):
    """Tell the word that stood there from words drawn at random: a yes-or-no question for each, averaged over pairs"""

    def forward(self, centers, candidates):
        """centers (B, D), candidates (B, 1 + K, D) → one number.

        candidates[:, 0] are the vectors of the words that stood there, the others of K drawn at random. With the
        scores sₖ = candidateₖ · center, the loss of a pair is −log σ(s₀) − Σ log σ(−sₖ) over k = 1 … K, in nats;
        the result is the mean over the B pairs. −log σ(s) = log(1 + e⁻ˢ) must not overflow for s far below 0. What
        `backward` needs is noted in `self.saved`; `xp(centers)` is the library of the arrays, NumPy or CuPy.
        """
        module = xp(centers)
        scores = module.matmul(candidates, centers[:, :, None])[:, :, 0]
        self.saved = (centers, candidates, scores)
        wanted = -scores
        wanted[:, 0] *= -1  # the one that stood there should score high, the others low
        losses = module.maximum(-wanted, 0) + module.log1p(module.exp(-abs(wanted)))
        return losses.sum() / len(centers)

    def backward(self, grad):
        """One number → the gradients by centers (B, D) and by candidates (B, 1 + K, D).

        The loss of a pair changes with sₖ by σ(sₖ) − yₖ, yₖ being 1 for k = 0 and else 0; sₖ changes with the center
        by candidateₖ, and with candidateₖ by the center. Do not forget the mean over the pairs, nor `grad`.
        """
        centers, candidates, scores = self.saved
        module = xp(centers)
        slopes = 0.5 * module.tanh(0.5 * scores) + 0.5  # σ(s), without overflow
        slopes[:, 0] -= 1
        slopes *= grad / len(centers)
        to_centers = module.matmul(slopes[:, None, :], candidates)[:, 0] if self.needs[0] else None
        to_candidates = slopes[:, :, None] * centers[:, None, :] if self.needs[1] else None
        return to_centers, to_candidates


def negative_sampling_loss(centers: Tensor, candidates: Tensor) -> Tensor:
    """−log σ(s₀) − Σ log σ(−sₖ), the mean over B pairs, in nats; sₖ = candidates[:, k] · centers.

    `centers` (B, D) are vectors of words, `candidates` (B, 1 + K, D) those of a word that stood beside each, then of
    K words drawn at random. Source: Mikolov et al., 2013, equation 4.

    >>> import shared
    >>> negative_sampling_loss(shared.zeros(2, 3), shared.zeros(2, 1 + 5, 3))     # (1 + 5) · log 2
    tensor(4.1589)
    """
    if centers.ndim != 2 or candidates.ndim != 3 or centers.shape != (candidates.shape[0], candidates.shape[2]):
        raise RuntimeError(
            f"negative_sampling_loss: expected centers (B, D) and candidates (B, 1 + K, D), but got "
            f"{tuple(centers.shape)} and {tuple(candidates.shape)}"
        )
    return NegativeSamplingLoss()(centers, candidates)


class SkipGram(Module):
    """Two vectors for each word: one for when it is the center (`center.weight`), one for when it stands around it.

    `center` and `context` are `nn.Embedding(num_embeddings, embedding_dim)`. The center vectors, which are what is
    kept in the end, start uniform in ±0.5 / embedding_dim, the context vectors at 0: so the first loss is
    (1 + K) log 2, whatever the text.

    >>> import shared
    >>> model = SkipGram(4, 8)
    >>> loss = model(shared.tensor([1, 2]), shared.tensor([2, 0]), negatives=shared.tensor([[3, 0], [1, 1]]))
    >>> loss                                                                      # 3 log 2
    tensor(2.0794, grad_fn=<NegativeSamplingLossBackward0>)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, device: Any = None, dtype: Any = None):
        super().__init__()
        self.center = Embedding(num_embeddings, embedding_dim, device=device, dtype=dtype)
        self.context = Embedding(num_embeddings, embedding_dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small center vectors, context vectors of zeros."""
        bound = 0.5 / self.center.embedding_dim
        with no_grad():
            init.uniform_(self.center.weight, -bound, bound)
            init.zeros_(self.context.weight)

    def forward(self, centers: Tensor, contexts: Tensor, negatives: Tensor) -> Tensor:
        """The loss of B pairs, centers (B,) and contexts (B,), against words drawn at random, negatives (B, K)."""
        words = join.cat([contexts[:, None], negatives], dim=1)
        return negative_sampling_loss(self.center(centers), self.context(words))
