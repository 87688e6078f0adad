"""Sprint 05's milestones on neighbours and analogies. A known mistake is named in the message."""

from __future__ import annotations

import numpy as np

import shared
from course.oracles import check, doing, require
from shared.text import analogy, cosine_similarities, nearest, unit_rows

SHAPES = {
    "shapes": "vectors (V, D) and queries (D,) or (Q, D): queries @ vectors.T is (V,) or (Q, V).",
    "broadcast": "Lengths need an axis of 1, (..., 1), to stand beside vectors (..., D).",
    "mismatch": "vectors (V, D) and queries (D,) or (Q, D): queries @ vectors.T is (V,) or (Q, V).",
    "has no attribute 'array'": "The functions take and give Tensors; `x.array` is the array in a Tensor x.",
    "has no attribute 'values'": "(values, indices) are returned as topk returns them: a TopK.",
    "has no attribute 'indices'": "(values, indices) are returned as topk returns them: a TopK.",
}


def unit(x: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)


def check_units() -> None:
    """Vectors of length 1."""
    x = np.array([[3.0, 4], [0, 0], [-5, 12]])
    given = shared.tensor(x)
    with doing("unit_rows", SHAPES), np.errstate(all="ignore"):
        found = unit_rows(given)
    require(isinstance(found, shared.Tensor), f"unit_rows gives a Tensor, not a {type(found).__name__}")
    values = found.numpy()
    if np.allclose(values[[0, 2]], unit(x)[[0, 2]]):
        require(
            np.allclose(values[1], 0),
            f"a vector of zeros becomes {values[1]}: it has no direction, and 0 / 0 is no number. It stays as it is",
        )
    check(
        "(3, 4), (0, 0) and (−5, 12), each divided by its length",
        values,
        unit(x),
        {
            "columns divided by their lengths: a row is a word": x / np.linalg.norm(x, axis=0),
            "everything divided by one length: each row has its own": x / np.linalg.norm(x),
            "the sum of the sizes for the length, which is the root of the sum of the squares": x
            / np.maximum(abs(x).sum(1, keepdims=True), 1),
            "the squared length: take its root": x / np.maximum((x**2).sum(1, keepdims=True), 1),
            "the largest number for the length": x / np.maximum(abs(x).max(1, keepdims=True), 1),
        },
    )
    require((given.numpy() == x).all(), "unit_rows changes the vectors themselves: the result has to be a new Tensor")
    with doing("unit_rows of one vector", SHAPES):
        check("one vector, (D,), divided by its length", unit_rows(shared.tensor([3.0, 4.0])).tolist(), [0.6, 0.8])


def check_cosines() -> None:
    """Angles, whatever the lengths."""
    vectors, queries = np.array([[2, 0], [0, 1], [-1, -1], [0, 0], [3, 3.0]]), np.array([[5, 0], [1, 1.0]])
    right = unit(queries) @ unit(vectors).T
    mistakes = {
        "dot products: long vectors are like everything": queries @ vectors.T,
        "queries that were not brought to length 1": queries @ unit(vectors).T,
        "vectors that were not brought to length 1: long ones are like everything": unit(queries) @ vectors.T,
        "distances, which are small where vectors are alike": np.linalg.norm(queries[:, None] - vectors, axis=2),
        "the size of the cosine: opposite vectors have −1": abs(right),
        "angles: the cosine is asked for": np.arccos(np.clip(right, -1, 1)),
        "a vector for each row: queries come first, (Q, V)": right.T,
    }
    with doing("cosine_similarities", SHAPES), np.errstate(all="ignore"):
        found = cosine_similarities(shared.tensor(vectors), shared.tensor(queries))
        one = cosine_similarities(shared.tensor(vectors), shared.tensor(queries[0]))
    check("the cosines of five vectors and two queries, (2, 5)", found.tolist(), right, mistakes)
    check(
        "the cosines of five vectors and one query, (5,)",
        one.tolist(),
        right[0],
        {"an axis too many: one query gives a row of numbers, (V,)": right[:1]},
    )


VECTORS = np.array([[1, -0.2], [4, 0.4], [0.7, 0.7], [-0.1, 1], [-1, 0.3], [9, 9.5]])
COSINES = unit(VECTORS) @ unit(VECTORS).T
ORDER = np.argsort(-COSINES, axis=1)  # each row: the most similar first, itself before all


def check_nearest() -> None:
    """Which vectors point the same way."""
    vectors = shared.tensor(VECTORS)
    with doing("nearest of one query", SHAPES):
        found = nearest(vectors, vectors[2], 3)
        indices, values = found.indices.tolist(), found.values.tolist()
    cosines = unit(VECTORS) @ unit(VECTORS)[2]
    check(
        "the three vectors nearest to the third of six, itself included",
        indices,
        ORDER[2, :3],
        {
            "the least similar: a large cosine is a small angle": ORDER[2, ::-1][:3],
            "the three most similar, the least similar of them first": ORDER[2, :3][::-1],
            "the largest dot products: long vectors are like everything": np.argsort(-(VECTORS @ VECTORS[2]))[:3],
            "the smallest distances: vectors that point the same way may be far apart": np.argsort(
                np.linalg.norm(VECTORS - VECTORS[2], axis=1)
            )[:3],
            "the nearest one left out, though nothing is excluded: only the ids in `exclude` are no answers": ORDER[
                2, 1:4
            ],
        },
    )
    check("their cosines", values, cosines[ORDER[2, :3]])
    queries = [0, 4, 3]
    right = np.array([[i for i in ORDER[q] if i != q][:2] for q in queries])
    with doing("nearest of three queries with exclude", SHAPES):
        found = nearest(vectors, vectors[queries], 2, exclude=[[q] for q in queries])
    removed = np.array([[i - (i > q) for i in row] for q, row in zip(queries, right, strict=True)])
    check(
        "the two vectors nearest to the numbers 0, 4 and 3, without themselves",
        found.indices.tolist(),
        right,
        {
            "a word as its own neighbour: the ids in `exclude` are no answers": [ORDER[q][:2] for q in queries],
            "places among the vectors that are left: an answer is an id, so leave the rows where they are": removed,
            "the excluded ids of all queries left out for each: every query has a row of its own": [
                [i for i in ORDER[q] if i not in queries][:2] for q in queries
            ],
            "the first query's ids left out for all: every query has a row of its own": [
                [i for i in ORDER[q] if i != queries[0]][:2] for q in queries
            ],
            "an excluded vector that comes back: its similarity was made 0 or −1, and others are below; −∞ is": [
                np.argsort(-np.where(np.arange(6) == q, 0, COSINES[q]), kind="stable")[:2] for q in queries
            ],
            "the nearest one left out, whatever `exclude` holds": [ORDER[q][1:3] for q in queries],
        },
    )
    check(
        "their cosines",
        found.values.tolist(),
        [(unit(VECTORS) @ unit(VECTORS)[q])[row] for q, row in zip(queries, right, strict=True)],
    )
    # Where all others point away, an excluded vector must not come back with a similarity of 0.
    away = shared.tensor([[1.0, 0.0], [-1.0, 0.2], [-1.0, -0.1]])
    with doing("nearest where all others point away", SHAPES):
        found = nearest(away, away[0], 2, exclude=[0]).indices.tolist()
    check(
        "the two vectors nearest to one from which all others point away",
        found,
        [1, 2],
        {
            "an excluded vector that comes back: its similarity was made 0 or −1, and others are below; −∞ is": [0, 1],
            "an excluded vector that comes back": [1, 0],
        },
    )
    with doing("nearest with two ids to exclude", SHAPES):
        found = nearest(vectors, vectors[0], 2, exclude=[0, int(ORDER[0, 2])]).indices.tolist()
    check(
        "the two nearest to the first vector, without it and the second of its neighbours",
        found,
        ORDER[0, [1, 3]],
        {
            "the nearest one left out, whatever `exclude` holds: all its ids are no answers, and nothing else": ORDER[
                0, 1:3
            ],
            "as many of the nearest left out as `exclude` has ids, whatever they are": ORDER[0, 2:4],
            "the last of the ids in `exclude` left out alone": [0, int(ORDER[0, 1])],
        },
    )
    require(vectors.numpy().tolist() == VECTORS.tolist(), "nearest changes the vectors themselves")
    try:
        with doing("nearest where fewer than k are left", SHAPES):
            got = nearest(away, away[0], 3, exclude=[0]).indices.tolist()
        said = None
    except AssertionError as error:
        said = str(error)
    require(
        said is not None and "RuntimeError" in said,
        "three of three vectors are wanted and one is excluded: that should be refused with a RuntimeError, but "
        + (said or f"{got} comes back, the excluded one among them"),
    )


def test_neighbours_are_the_vectors_that_point_the_same_way():
    check_units()
    check_cosines()
    check_nearest()


# Made-up vectors, each times another length: lengths mislead, and directions do not.
MEANINGS = {
    "man": ([0.9, 0.2, -0.2, 0.1], 1.0), "woman": ([-0.6, 0.7, -0.4, 0.3], 2.0), "king": ([0.6, 0.7, 0.6, 0.6], 3.0),
    "queen": ([-0.1, 0.8, 0.6, 0.7], 1.5), "prince": ([0.4, -0.3, 0.8, -0.8], 2.5),
    "princess": ([-0.3, 0.4, 1.0, -0.9], 1.0), "apple": ([-0.5, -0.8, -1.1, 0.6], 4.0),
    "crown": ([0.4, 1.0, 1.8, 0.6], 5.0),
}  # fmt: skip
NAMES = list(MEANINGS)
MEANT = np.array([np.array(meaning) * length for meaning, length in MEANINGS.values()])
# Questions that every known mistake answers in another way.
ASKED = (
    "man king woman", "woman man queen", "man woman prince", "king queen prince", "crown princess man",
    "crown woman prince", "king crown queen",
)  # fmt: skip


def answers(queries: np.ndarray, without: list[tuple[int, ...]]) -> np.ndarray:
    """The word nearest to each query in direction, of those that are not left out."""
    cosines = unit(queries) @ unit(MEANT).T
    for row, ids in zip(cosines, without, strict=True):
        row[list(ids)] = -np.inf
    return cosines.argmax(axis=1)


def test_a_is_to_b_as_c_is_to_the_answer():
    asked = [question.split() for question in ASKED]
    a, b, c = (np.array([NAMES.index(question[i]) for question in asked]) for i in range(3))
    u, triples, none = unit(MEANT), list(zip(a, b, c, strict=True)), [()] * len(asked)
    with doing("analogy", SHAPES):
        found = analogy(shared.tensor(MEANT), a, b, c)
        shape = tuple(found.indices.shape)
    require(shape == (7, 1), f"indices of shape {shape}, where (Q, k) is (7, 1)")
    right = answers(u[b] - u[a] + u[c], triples)
    mistakes = {
        "one of the three words asked about: they are no answers": answers(u[b] - u[a] + u[c], none),
        "c left in as an answer": answers(u[b] - u[a] + u[c], list(zip(a, b, strict=True))),
        "b left in as an answer": answers(u[b] - u[a] + u[c], list(zip(a, c, strict=True))),
        "a − b + c, the way back: from a to b it is b − a": answers(u[a] - u[b] + u[c], triples),
        "vectors of different lengths: the long ones outweigh the others, so bring all to length 1 first": answers(
            MEANT[b] - MEANT[a] + MEANT[c], triples
        ),
        "a sum of all three": answers(u[a] + u[b] + u[c], triples),
        "b + c without taking a away": answers(u[b] + u[c], triples),
        "the words nearest to b − a: c is left out": answers(u[b] - u[a], triples),
        "the words nearest to c alone": answers(u[c], triples),
    }
    got = found.indices.numpy()[:, 0]
    if got.tolist() != right.tolist():
        named = next((name for name, value in mistakes.items() if value.tolist() == got.tolist()), "")
        looks = f"\nThat is what one gets from: {named}." if named else ""
        lines = [
            f"{x} is to {y} as {z} is to {NAMES[mine]}, where {NAMES[best]} is nearest"
            for (x, y, z), mine, best in zip(asked, got, right, strict=True)
            if mine != best
        ]
        require(False, f"analogies of eight made-up vectors:{looks}\n" + "\n".join(lines))
    check(
        "the cosines of the answers to b − a + c",
        found.values.numpy()[:, 0],
        (unit(u[b] - u[a] + u[c]) * u[right]).sum(axis=1),
    )
    with doing("analogy of one question, with k=3", SHAPES):
        one = analogy(shared.tensor(MEANT), int(a[0]), int(b[0]), int(c[0]), k=3)
    query = unit(u[b[0]] - u[a[0]] + u[c[0]])
    order = [i for i in np.argsort(-(u @ query)) if i not in triples[0]]
    check("the three best answers to one question, (k,)", one.indices.tolist(), order[:3])
