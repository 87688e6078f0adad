"""Which vectors point the same way: cosine similarity, nearest neighbours, and analogies.

vectors = WordVectors(vocabulary, model.center.weight)
vectors.neighbours("king", 3)              # [(word, cosine), …], the most similar first
vectors.analogy("man", "woman", "king")    # man is to woman as king is to …
"""

from __future__ import annotations

from typing import Any

from shared.arrays.device import xp
from shared.ops import as_tensor
from shared.ops.index import TopK, topk
from shared.tensor import Tensor
from shared.text.vocabulary import Vocabulary


def unit_rows(vectors: Tensor) -> Tensor:
    """Each vector (..., D) divided by its length, a new Tensor; one of zeros stays as it is.

    `vectors.array` is the array in a Tensor, `Tensor(array)` the way back. Nothing is recorded for gradients.

    >>> import shared
    >>> unit_rows(shared.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    array = vectors.array
    lengths = (array * array).sum(axis=-1, keepdims=True) ** 0.5
    return Tensor(array / xp(array).where(lengths > 0, lengths, 1))


def cosine_similarities(vectors: Tensor, queries: Tensor) -> Tensor:
    """The cosine of the angle between each query and each vector, from −1 to 1; 0 where one of the two is zero.

    `vectors` (V, D), `queries` (D,) or (Q, D) → (V,) or (Q, V). The cosine does not depend on how long they are.
    Nothing is recorded for gradients. RuntimeError where the widths differ.

    >>> import shared
    >>> cosine_similarities(shared.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), shared.tensor([5.0, 0.0]))
    tensor([ 1.0000,  0.0000, -0.7071])
    """
    if vectors.ndim != 2 or queries.ndim not in (1, 2) or vectors.shape[-1] != queries.shape[-1]:
        raise RuntimeError(
            f"cosine_similarities: expected vectors (V, D) and queries (D,) or (Q, D), but got "
            f"{tuple(vectors.shape)} and {tuple(queries.shape)}"
        )
    return Tensor(unit_rows(queries).array @ unit_rows(vectors).array.T)


def nearest(vectors: Tensor, queries: Tensor, k: int, exclude: Any = None) -> TopK:
    """The k vectors with the largest cosine to each query, the most similar first: (values, indices).

    `vectors` (V, D), `queries` (D,) or (Q, D) → both (k,) or (Q, k). `exclude` holds ids that must not be answers, as
    the word asked about, which is always nearest to itself: (E,) for one query, (Q, E) for several. RuntimeError
    where fewer than k are left. `topk(similarities, k)` finds the k largest of each row, as values and indices.

    >>> import shared
    >>> vectors = shared.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    >>> nearest(vectors, vectors[0], k=2).indices.tolist()
    [0, 1]
    >>> nearest(vectors, vectors[:2], k=2, exclude=[[0], [1]]).indices.tolist()
    [[1, 2], [0, 2]]
    """
    similarities = cosine_similarities(vectors, queries)
    if exclude is not None:
        exclude = as_tensor(exclude).array
        if exclude.shape[:-1] != queries.shape[:-1]:
            raise RuntimeError(
                f"nearest: expected ids to exclude of shape {(*queries.shape[:-1], 'E')}, a row for each query, but "
                f"got {tuple(exclude.shape)}"
            )
        xp(exclude).put_along_axis(similarities.array, exclude, -float("inf"), axis=-1)
    found = topk(similarities, k)
    if not bool((found.values.array > -float("inf")).all()):
        raise RuntimeError(f"nearest: k={k} of {len(vectors)} vectors are wanted, but fewer are left without `exclude`")
    return found


def analogy(vectors: Tensor, a: Any, b: Any, c: Any, k: int = 1) -> TopK:
    """a is to b as c is to what? The k vectors nearest to b − a + c, all three of length 1 before: (values, indices).

    `vectors` (V, D); a, b and c are ids, or Q ids each → (k,) or (Q, k). The three words asked about are no answers.
    Source: Mikolov, Yih and Zweig, "Linguistic regularities in continuous space word representations", 2013; scaled
    to length 1 and without the three, as in Levy and Goldberg, 2014.

    >>> import shared
    >>> vectors = shared.tensor([[1.0, 0.0, 0.1], [1.0, 1.0, 0.1], [0.1, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.2, 0.0]])
    >>> analogy(vectors, 0, 1, 2).indices.tolist()
    [3]
    """
    a, b, c = (as_tensor(ids).array for ids in (a, b, c))
    unit = unit_rows(vectors)
    queries = Tensor(unit.array[b] - unit.array[a] + unit.array[c])
    return nearest(unit, queries, k, exclude=Tensor(xp(unit.array).stack([a, b, c], axis=-1)))


class WordVectors:
    """The vectors of a vocabulary, asked by word: `vectors` (len(vocabulary), D) has a row for each id.

    >>> import shared
    >>> from shared.text import WordVocabulary
    >>> animals = WordVocabulary(["cat", "dog", "car"], specials=())
    >>> words = WordVectors(animals, shared.tensor([[1.0, 0.2], [1.0, 0.3], [0.1, 1.0]]))
    >>> words.neighbours("cat", 1)
    [('dog', 0.9956)]
    >>> words["dog"].tolist()[0], words.similarity("cat", "dog")
    (1.0, 0.9956)
    """

    def __init__(self, vocabulary: Vocabulary, vectors: Tensor):
        if vectors.ndim != 2 or len(vectors) != len(vocabulary):
            raise RuntimeError(
                f"WordVectors: expected a row for each of {len(vocabulary)} tokens, but got shape "
                f"{tuple(vectors.shape)}"
            )
        self.vocabulary, self.vectors = vocabulary, vectors.detach()

    def __getitem__(self, word: str) -> Tensor:
        """The vector of a word; KeyError for one that the vocabulary has not."""
        return self.vectors[self.vocabulary[word]]

    def similarity(self, word: str, other: str) -> float:
        """The cosine of two words, rounded to four places."""
        return round(cosine_similarities(self[other][None], self[word]).item(), 4)

    def neighbours(self, word: str, k: int = 5) -> list[tuple[str, float]]:
        """The k words most similar to `word`, with their cosines, rounded to four places."""
        return self._words(nearest(self.vectors, self[word], k, exclude=[self.vocabulary[word]]))

    def analogy(self, a: str, b: str, c: str, k: int = 1) -> list[tuple[str, float]]:
        """a is to b as c is to …: the k best answers, with their cosines to b − a + c."""
        first, second, third = (self.vocabulary[word] for word in (a, b, c))
        return self._words(analogy(self.vectors, first, second, third, k))

    def _words(self, found: TopK) -> list[tuple[str, float]]:
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [(self.vocabulary.itos[i], round(value, 4)) for i, value in pairs]
