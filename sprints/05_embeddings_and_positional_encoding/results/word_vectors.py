"""What the scripts about word vectors share: the words of TinyShakespeare, a training, and fixed lists to judge by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import shared
from shared import Tensor, optim
from shared.optim.lr_scheduler import LambdaLR
from shared.text import (
    NegativeSampler,
    SkipGram,
    WordVectors,
    WordVocabulary,
    analogy,
    nearest,
    skip_gram_pairs,
    split_words,
    subsample,
)

# Both lists were written down before any vectors were judged by them; words that the vocabulary lacks are left out.
GROUPS = {
    "family": "father mother son daughter brother sister husband wife uncle aunt cousin child children",
    "body": "hand heart eye head tongue face lips arm foot knee ear cheek breast",
    "rank": "king queen prince duke earl lord lady knight emperor duchess princess",
    "numbers": "one two three four five six ten twenty hundred thousand",
    "time": "day night hour morning evening year month week minute",
    "people": "i you he she we they me him her us them thou thee",
    "may, must": "shall will can may must would should could might",
    "thou": "thou thee thy thine thyself hast dost art wilt shalt canst",
    "cities, lands": "rome england france london padua verona naples mantua pisa",
    "war": "sword war battle army soldier soldiers fight field drum enemy enemies",
    "Romeo": "romeo juliet tybalt mercutio benvolio capulet montague nurse paris",
}
RELATIONS = {
    "man, woman": "man woman, king queen, father mother, son daughter, brother sister, husband wife, lord lady, "
    "sir madam, prince princess, duke duchess, uncle aunt, boy girl, he she, his her",
    "one, many": "day days, eye eyes, hand hands, word words, tear tears, friend friends, enemy enemies, king kings, "
    "soldier soldiers, lord lords, heart hearts, hour hours, year years, arm arms, tongue tongues",
    "you, thou": "you thou, your thy, yourself thyself, have hast, do dost, are art, will wilt, shall shalt, "
    "can canst, did didst, would wouldst, should shouldst",
    "now, then": "come came, see saw, give gave, take took, make made, think thought, tell told, know knew, "
    "bring brought, stand stood, fall fell, speak spoke",
    "I, he": "have hath, do doth, come comes, speak speaks, make makes, say says, go goes, give gives, know knows, "
    "love loves, live lives, lie lies",
}


@dataclass
class Text:
    """Words as ids: `train` is what is learned from, `held_out` the last tenth of the play texts."""

    vocabulary: WordVocabulary
    train: Tensor
    held_out: Tensor


def shakespeare(min_freq: int = 5) -> Text:
    """The words of TinyShakespeare in lower case, without marks and without those rarer than `min_freq` in training."""
    parts = [split_words(part.text.lower()) for part in shared.data.load("tinyshakespeare")]
    parts = [[word for word in part if word[0].isalpha()] for part in parts]
    vocabulary = WordVocabulary.from_text([" ".join(parts[0])], min_freq=min_freq, specials=())
    ids = [shared.tensor([vocabulary[word] for word in part if word in vocabulary]) for part in parts]
    return Text(vocabulary, *ids)


@dataclass(frozen=True)
class Settings:
    """One training: `negatives` for each pair, `threshold` of subsampling (1: none), `power` of the noise."""

    width: int = 64
    window: int = 2
    negatives: int = 5
    epochs: int = 5
    batch: int = 4096
    lr: float = 0.02
    threshold: float = 1.0
    power: float = 0.75
    seed: int = 0


def train(text: Text, settings: Settings, each_epoch: Callable | None = None) -> tuple[SkipGram, list[float]]:
    """(model, mean training loss of each epoch); Adam, the rate lower by the same amount after each epoch."""
    s = settings
    shared.manual_seed(s.seed)
    size = len(text.vocabulary)
    noise = NegativeSampler(shared.bincount(text.train, minlength=size), s.power)
    model = SkipGram(size, s.width)
    optimizer = optim.Adam(model.parameters(), lr=s.lr)
    schedule = LambdaLR(optimizer, lambda epoch: 1 - epoch / s.epochs)
    history = []
    for _ in range(s.epochs):
        centers, contexts = skip_gram_pairs(subsample(text.train, s.threshold), s.window)
        total = 0.0
        for batch in shared.randperm(len(centers)).split(s.batch):
            optimizer.zero_grad()
            loss = model(centers[batch], contexts[batch], noise((len(batch), s.negatives)))
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        history.append(total / len(centers))
        if each_epoch is not None:
            each_epoch(model, history)
    return model, history


def held_out_loss(model: SkipGram, text: Text, settings: Settings) -> float:
    """The loss on the held-out text, subsampled like the other, always the same words against the same random ones."""
    generator = shared.Generator().manual_seed(1)
    centers, contexts = skip_gram_pairs(subsample(text.held_out, settings.threshold, generator), settings.window)
    counts = shared.bincount(text.train, minlength=len(text.vocabulary))
    noise = NegativeSampler(counts, settings.power, generator)
    total = 0.0
    with shared.no_grad():
        for batch in shared.arange(len(centers)).split(8192):
            loss = model(centers[batch], contexts[batch], noise((len(batch), settings.negatives)))
            total += loss.item() * len(batch)
    return total / len(centers)


def frequency_loss(text: Text, settings: Settings) -> tuple[float, float]:
    """(training, held-out) loss of scores that know the context's frequency alone, the best that such scores can be.

    With q the share of a context among the training pairs and p its probability as a random word, the best score that
    does not look at the center is log(q / K p). The random words are not drawn: their mean is taken.
    """
    size, k = len(text.vocabulary), settings.negatives
    p = NegativeSampler(shared.bincount(text.train, minlength=size), settings.power).probabilities.numpy()
    train, held_out = (
        np.bincount(skip_gram_pairs(part, settings.window)[1].numpy(), minlength=size)
        for part in (text.train, text.held_out)
    )
    scores = np.log(train / train.sum() / (k * p))
    if_random = k * (p * np.logaddexp(0, scores)).sum()
    return tuple(float((n / n.sum() * np.logaddexp(0, -scores)).sum() + if_random) for n in (train, held_out))


def associations(text: Text, window: int, power: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """(pair counts (V, V), log of how much more often a pair occurs than chance has it (V, V), −inf where never).

    Chance: the center by its share of the pairs, the context as the noise is drawn. It is what a score of the model
    would be, but for − log K, if every pair could have its own.
    """
    size = len(text.vocabulary)
    centers, contexts = skip_gram_pairs(text.train, window)
    pairs = np.bincount((centers * size + contexts).numpy(), minlength=size * size).reshape(size, size)
    noise = NegativeSampler(shared.bincount(text.train, minlength=size), power).probabilities.numpy()
    with np.errstate(divide="ignore"):
        return pairs, np.log(pairs / (pairs.sum(axis=1, keepdims=True) * noise))


def counted_vectors(text: Text, window: int, width: int, seed: int = 0) -> Tensor:
    """Vectors without training: `associations`, negative ones set to 0, and of that matrix the best of rank `width`.

    U S Vᵀ ≈ max(associations, 0), and a word's vector is its row of U √S (Levy, Goldberg and Dagan, 2015, section 3).
    """
    from sklearn.utils.extmath import randomized_svd

    positive = np.maximum(associations(text, window)[1], 0)
    u, s, _ = randomized_svd(positive, width, random_state=seed)
    return shared.from_numpy((u * np.sqrt(s)).astype(np.float32))


# ---------------------------------------------------------------- judged by the lists


def group_hits(vectors: Tensor, vocabulary: WordVocabulary, k: int = 10) -> dict[str, tuple[float, float]]:
    """{group: (share of the k nearest neighbours of its words that belong to it, the same by chance)}."""
    found = {}
    for name, words in GROUPS.items():
        ids = shared.tensor([vocabulary[word] for word in words.split() if word in vocabulary])
        others = nearest(vectors, vectors[ids], k, exclude=ids[:, None]).indices
        hits = shared.isin(others, ids).float().mean().item()
        found[name] = (hits, (len(ids) - 1) / (len(vocabulary) - 1))
    return found


def relation_questions(vocabulary: WordVocabulary, name: str) -> Tensor:
    """All questions of a relation, (Q, 4): a is to b as c is to d, from each two of its pairs in both orders."""
    pairs = [pair.split() for pair in RELATIONS[name].split(", ")]
    known = [[vocabulary[word] for word in pair] for pair in pairs if all(word in vocabulary for word in pair)]
    return shared.tensor([[*first, *second] for first in known for second in known if first is not second])


def relation_hits(vectors: Tensor, questions: Tensor, k: int = 1) -> dict[str, float]:
    """Share of the questions whose answer is among the k best: by "analogy", and "nearest" to c alone."""
    a, b, c, d = questions.T
    by_analogy = analogy(vectors, a, b, c, k).indices
    by_c = nearest(vectors, vectors[c], k, exclude=shared.stack([a, b, c], dim=1)).indices
    return {
        name: (found == d[:, None]).any(dim=1).float().mean().item()
        for name, found in (("analogy", by_analogy), ("nearest", by_c))
    }


def words_of(model: SkipGram, text: Text) -> WordVectors:
    """The trained center vectors, asked by word."""
    return WordVectors(text.vocabulary, model.center.weight)


def neighbours_kept(vectors: np.ndarray, others: np.ndarray, k: int = 10) -> float:
    """Mean share of each point's k nearest points (Euclidean) in `vectors` that are among its k nearest in `others`."""
    first, second = (nearest_points(points, k) for points in (vectors, others))
    return float(np.mean([len(set(a) & set(b)) for a, b in zip(first, second, strict=True)])) / k


def nearest_points(points: np.ndarray, k: int) -> np.ndarray:
    """(N, D) → (N, k): the k nearest other points of each, by Euclidean distance."""
    squares = (points**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * points @ points.T
    np.fill_diagonal(distances, np.inf)
    return np.argpartition(distances, k, axis=1)[:, :k]
