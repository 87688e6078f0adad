"""Cosine similarity, nearest neighbours and analogies, against loops and geometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.testing import assert_close
from shared.text import WordVectors, WordVocabulary, analogy, cosine_similarities, nearest, unit_rows

SIZES = {
    "rows": st.integers(1, 8),
    "width": st.integers(1, 5),
    "queries": st.integers(1, 4),
    "seed": st.integers(0, 99),
}


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@settings(deadline=None)
@given(**SIZES)
def test_cosines_are_those_of_the_definition(rows, width, queries, seed):
    vectors, asked = drawn(seed, rows, width), drawn(seed + 1, queries, width)
    expected = [[v @ q / np.sqrt((v @ v) * (q @ q)) for v in vectors] for q in asked]
    assert_close(cosine_similarities(shared.tensor(vectors), shared.tensor(asked)), shared.tensor(np.array(expected)))
    assert_close(cosine_similarities(shared.tensor(vectors), shared.tensor(asked[0])), shared.tensor(expected[0]))


def test_lengths_do_not_matter_and_zero_is_like_nothing():
    vectors = shared.tensor([[1.0, 1.0], [0.0, 0.0], [-3.0, 3.0]])
    for length in (1e-3, 1.0, 1e3):
        assert_close(cosine_similarities(vectors, shared.tensor([length, length])), shared.tensor([1.0, 0.0, 0.0]))
    assert cosine_similarities(vectors, shared.zeros(2)).tolist() == [0.0, 0.0, 0.0]
    assert unit_rows(shared.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_nothing_is_recorded():
    vectors = shared.randn(3, 2, requires_grad=True)
    assert not cosine_similarities(vectors, vectors[0]).requires_grad
    assert not nearest(vectors, vectors[0], 1).values.requires_grad


@settings(deadline=None)
@given(**SIZES)
def test_the_nearest_are_the_most_similar_in_order(rows, width, queries, seed):
    vectors, asked = shared.tensor(drawn(seed, rows, width)), shared.tensor(drawn(seed + 1, queries, width))
    for k in range(1, rows + 1):
        values, indices = nearest(vectors, asked, k)
        cosines = cosine_similarities(vectors, asked).numpy()
        assert (np.diff(values.numpy(), axis=1) <= 0).all()
        for row, found, value in zip(cosines, indices.numpy(), values.numpy(), strict=True):
            assert len(set(found.tolist())) == k and np.array_equal(row[found], value)
            assert np.delete(row, found).max(initial=-2) <= value[-1]


def test_excluded_ids_are_no_answers_and_stay_in_place():
    vectors = shared.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3], [0.0, 1.0]])
    before = vectors.tolist()
    assert nearest(vectors, vectors[0], 2, exclude=[0]).indices.tolist() == [1, 2]
    assert nearest(vectors, vectors[:2], 1, exclude=[[0, 1], [1, 2]]).indices.tolist() == [[2], [0]]
    assert vectors.tolist() == before
    with pytest.raises(RuntimeError, match="k=3 of 4 vectors are wanted, but fewer are left"):
        nearest(vectors, vectors[0], 3, exclude=[0, 1])
    with pytest.raises(RuntimeError, match="a row for each query"):
        nearest(vectors, vectors[:2], 1, exclude=[0])


def test_an_analogy_is_a_parallelogram_of_unit_vectors():
    """Royal and female are directions of their own; lengths are all different, so they must not count."""
    man, royal, female = np.eye(3)
    rows = {"man": man, "king": man + royal, "woman": man + female, "queen": man + royal + female, "cat": -man}
    lengths = np.array([5.0, 0.1, 2.0, 7.0, 1.0])[:, None]
    vectors = shared.tensor(np.array([v / np.linalg.norm(v) for v in rows.values()]) * lengths)
    assert analogy(vectors, 0, 1, 2).indices.tolist() == [3]
    assert analogy(vectors, 2, 3, 0).indices.tolist() == [1]
    many = analogy(vectors, shared.tensor([0, 2]), shared.tensor([1, 3]), shared.tensor([2, 0]), k=2)
    assert many.indices.tolist() == [[3, 4], [1, 4]]


def test_the_words_asked_about_are_no_answers():
    vectors = shared.tensor([[1.0, 0.0], [1.0, 0.01], [0.9, 0.1], [-1.0, 0.2]])
    assert analogy(vectors, 0, 1, 2).indices.tolist() == [3]


def test_words_are_asked_by_name():
    words = WordVectors(
        WordVocabulary(["a", "b", "c"], specials=()), shared.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    )
    assert words["c"].tolist() == [0.0, 1.0]
    assert words.neighbours("a", 2) == [("b", 0.7071), ("c", 0.0)]
    assert words.similarity("b", "c") == 0.7071
    assert [word for word, _ in words.analogy("a", "b", "b")] == ["c"]
    with pytest.raises(KeyError, match="'d' is not among the 3 tokens"):
        words.neighbours("d")


def test_a_table_of_another_size_is_refused():
    with pytest.raises(RuntimeError, match="expected a row for each of 2 tokens"):
        WordVectors(WordVocabulary(["a", "b"], specials=()), shared.zeros(3, 2))


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (4,)), ((2, 3), (1, 2, 3))])
def test_widths_that_differ_are_named(shapes):
    with pytest.raises(RuntimeError, match=r"expected vectors \(V, D\) and queries \(D,\) or \(Q, D\), but got"):
        cosine_similarities(*(shared.zeros(*shape) for shape in shapes))
