"""Sprint 05's milestones on the lookup and its gradient. A known mistake is named in the message."""

from __future__ import annotations

import numpy as np

import shared
from course.oracles import check, check_formula_runs, doing, require
from shared import nn, optim
from shared.arrays.kernels.embedding.reference import embedding, embedding_weight
from shared.nn import functional as F
from shared.ops.sequence import pad_sequence

# the dog bit the man, and the table of the notes: the, dog, bit, man
IDS = np.array([0, 1, 2, 0, 3])
TABLE = np.array([[0, 1, 0, 1], [2, 0, 1, 0], [0, 2, 0, -1], [2, 0, -1, 0.0]])
GRAD = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [5, 0, 0, 1], [10, 20, 30, 40], [0, 0, 0, 7.0]])
SHAPES = {
    "not iterable": "Indices may have any shape, none at all included: weight[indices] takes them at once.",
    "too many indices": "weight[indices] has a row for each index, whatever the shape of the indices.",
    "out of bounds": "Indices name rows of the table; the result has num_embeddings of them.",
    "could not be broadcast": "grad is (*indices.shape, width): flatten both alike, to (places,) and (places, width).",
    "shape mismatch": "grad is (*indices.shape, width): flatten both alike, to (places,) and (places, width).",
    "non-broadcastable": "grad is (*indices.shape, width): flatten both alike, to (places,) and (places, width).",
    "does not fit": "The gradient has the table's shape, (num_embeddings, width).",
    "size 0": "There may be no indices at all; then the gradient is 0 everywhere.",
    "zero-size": "There may be no indices at all; then the gradient is 0 everywhere.",
    "index 0 is out of bounds": "There may be no indices at all; then the gradient is 0 everywhere.",
    "matmul": "One-hot rows are (places, num_embeddings): onehotᵀ · grad for grad flattened to (places, width).",
}


def single(values: object) -> shared.Tensor:
    """A float32 tensor of these numbers."""
    return shared.tensor(np.array(values, dtype=np.float32))


def leaf(values: object) -> shared.Tensor:
    """The same, collecting a gradient."""
    return single(values).requires_grad_()


def one_hot(indices: np.ndarray, count: int) -> np.ndarray:
    """A 1 where the index is, (places, count)."""
    return (np.asarray(indices).reshape(-1, 1) == np.arange(count)).astype(float)


def test_a_lookup_is_the_product_of_one_hot_rows_with_the_table():
    with doing("embedding of the sentence", SHAPES):
        found = embedding(TABLE, IDS)
    check(
        "the vectors of 'the dog bit the man', ids 0 1 2 0 3",
        found,
        one_hot(IDS, 4) @ TABLE,
        {
            "columns of the table: a row stands for a word": TABLE[:, IDS],
            "columns of the table, turned to rows": TABLE[:, IDS].T,
            "rows one too high: ids count from 0": TABLE[IDS - 1],
            "the rows sorted by id: they come in the order of the text": TABLE[np.sort(IDS)],
            "each row once, where 'the' stands twice in the text": TABLE[[0, 1, 2, 3]],
            "the one-hot rows themselves, which are still to be multiplied with the table": one_hot(IDS, 4),
        },
    )
    for shape in ((2, 3), (1,), (), (2, 1, 2), (0, 2)):
        indices = np.arange(int(np.prod(shape))).reshape(shape) % 4
        with doing(f"embedding of indices of shape {shape}", SHAPES):
            found = embedding(TABLE[:, :3], indices)
        check(
            f"the vectors of indices of shape {shape}",
            found,
            (one_hot(indices, 4) @ TABLE[:, :3]).reshape(*shape, 3),
            {
                "a flat list of rows: the result has the shape of the indices, and then the width": one_hot(indices, 4)
                @ TABLE[:, :3]
            },
        )
    table = TABLE.astype("float32")
    out = embedding(table, np.array([1]))
    require(out.dtype == np.float32, f"rows of a float32 table are {out.dtype}: they keep its dtype")
    out[:] = 0
    require((table == TABLE).all(), "changing the result changes the table: the rows have to be copies")
    # Through the layer, in which the learner's formula has to be what runs.
    layer = nn.Embedding.from_pretrained(single(TABLE))
    with doing("nn.Embedding", SHAPES):
        out = check_formula_runs("embedding", "embedding", lambda: layer(shared.tensor(IDS)))
    check("nn.Embedding of 'the dog bit the man'", out.tolist(), one_hot(IDS, 4) @ TABLE)


# ------------------------------------------------------------------------ the gradient


def last_only(grad: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """What `out[ids] = grad` and `out[ids] += grad` leave: of equal indices the last."""
    out = np.zeros((count, grad.shape[-1]))
    out[ids.reshape(-1)] = grad.reshape(-1, grad.shape[-1])
    return out


def first_only(grad: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    return last_only(grad.reshape(-1, grad.shape[-1])[::-1], ids.reshape(-1)[::-1], count)


def counted(ids: np.ndarray, count: int) -> np.ndarray:
    """How often each index occurs, at least 1, (count, 1)."""
    return np.maximum(np.bincount(ids.reshape(-1), minlength=count), 1)[:, None]


def check_sums() -> None:
    """The sentence, with a gradient at each of its five places."""
    right = one_hot(IDS, 4).T @ GRAD
    with doing("embedding_weight of the sentence", SHAPES):
        found = embedding_weight(GRAD, IDS, 4)
    mistakes = {
        "one place instead of all: 'the' stands twice, and its row gets the sum of both. `out[ids] += grad` reads each "
        "row once, adds, and writes the last result": last_only(GRAD, IDS, 4),
        "the first place of each word instead of all": first_only(GRAD, IDS, 4),
        "a mean over the places of a word: its gradient is the sum": right / counted(IDS, 4),
        "gradients that were not sorted together with their indices": np.add.reduceat(GRAD, [0, 2, 3, 4], axis=0),
        "a gradient divided by the number of places": right / 5,
        "the gradient times the vectors": one_hot(IDS, 4).T @ (GRAD * TABLE[IDS]),
        "rows one too high": np.roll(right, 1, axis=0),
        "ones: what comes from above is lost": one_hot(IDS, 4).T @ np.ones((5, 4)),
    }
    check(
        "the gradient by the table, of 'the dog bit the man': 'the' gets that of both its places",
        found,
        right,
        mistakes,
    )
    with doing("embedding_weight with more words than the sentence has", SHAPES):
        found = embedding_weight(GRAD, IDS, 6)
    check(
        "the same with a vocabulary of six words",
        found,
        one_hot(IDS, 6).T @ GRAD,
        {
            "a row for each word of the sentence only: the table has num_embeddings rows, the unused ones 0": right,
            "rows of words that do not occur, which are not 0": np.vstack([right, np.ones((2, 4))]),
        },
    )
    unsorted = np.array([3, 0, 3, 1, 0])
    with doing("embedding_weight of indices in no order", SHAPES):
        found = embedding_weight(GRAD, unsorted, 6)
    runs = last_only(GRAD, unsorted, 6)
    check(
        "the gradient by a table of six rows for the indices 3 0 3 1 0",
        found,
        one_hot(unsorted, 6).T @ GRAD,
        {
            "one place instead of all": runs,
            "rows in the order of their first use: row i belongs to index i": np.vstack(
                [GRAD[0] + GRAD[2], GRAD[1] + GRAD[4], GRAD[3], np.zeros((3, 4))]
            ),
            "used rows side by side: row i belongs to index i, unused rows stay 0": np.vstack(
                [GRAD[1] + GRAD[4], GRAD[3], GRAD[0] + GRAD[2], np.zeros((3, 4))]
            ),
        },
    )


def check_shapes() -> None:
    """Batches, nothing at all, dtypes, and inputs that stay."""
    ids = np.array([[0, 1, 2], [0, 3, 0]])
    grad = np.arange(1.0, 13.0).reshape(2, 3, 2)
    flat = grad.reshape(6, 2)
    with doing("embedding_weight of a batch of two texts", SHAPES):
        found = embedding_weight(grad, ids, 4)
    check(
        "the gradient for indices (2, 3), a batch of two texts",
        found,
        one_hot(ids, 4).T @ flat,
        {
            "one place instead of all": last_only(grad, ids, 4),
            "indices and gradients flattened in different orders": one_hot(ids.T, 4).T @ flat,
            "the first text only": one_hot(ids[0], 4).T @ grad[0],
            "the last text only: gradients of all texts add up": one_hot(ids[1], 4).T @ grad[1],
        },
    )
    with doing("embedding_weight of a single index", SHAPES):
        found = embedding_weight(np.array([2.0, 3.0]), np.array(1), 3)
    check("the gradient of one index without an axis, ()", found, [[0, 0], [2, 3], [0, 0]])
    with doing("embedding_weight of no indices", SHAPES):
        found = embedding_weight(np.zeros((0, 2)), np.zeros(0, int), 3)
    check("the gradient of an empty text", found, np.zeros((3, 2)))
    before = GRAD.astype("float32")
    given = before.copy()
    found = embedding_weight(given, IDS, 4, 0)
    require(found.dtype == np.float32, f"the gradient of float32 is {found.dtype}: zeros without a dtype are float64")
    require((given == before).all(), "embedding_weight changes `grad`, which others may still need: it is not its own")


def check_padding_row() -> None:
    """The padding's row gets nothing."""
    for row, word in ((0, "the"), (3, "man")):
        right = one_hot(IDS, 4).T @ GRAD
        plain = right.copy()
        right[row] = 0
        wrong = GRAD.copy()
        wrong[row] = 0
        with doing(f"embedding_weight with padding_idx={row}", SHAPES):
            found = embedding_weight(GRAD, IDS, 4, row)
        check(
            f"the gradient with padding_idx={row}, as if '{word}' were the padding: its row is 0, the others as before",
            found,
            right,
            {
                "a padding_idx of 0 taken for none: `if padding_idx` is False for 0 as for None"
                if row == 0
                else "a padding_idx that is not looked at": plain,
                f"place {row} of the text taken for the word {row}": one_hot(IDS, 4).T @ wrong,
                "a column instead of a row": plain * (np.arange(4) != row),
                "nothing but the padding": plain - right,
            },
        )


def check_layer() -> None:
    """Through the layer, and against finite differences."""
    rng = np.random.default_rng(0)
    table, ids = rng.normal(size=(5, 3)), np.array([[1, 4, 1], [0, 1, 1]])
    factors = rng.normal(size=(2, 3, 3))

    def loss(weight: np.ndarray) -> float:
        return float((np.tanh(weight[ids]) * factors).sum())

    weight = shared.tensor(table).requires_grad_()
    with doing("F.embedding", SHAPES):
        out = (F.embedding(shared.tensor(ids), weight).tanh() * shared.tensor(factors)).sum()
    with doing("its backward pass", SHAPES):
        check_formula_runs("embedding", "embedding_weight", out.backward)
    slopes = np.zeros_like(table)
    for at in np.ndindex(*table.shape):
        step = np.zeros_like(table)
        step[at] = 1e-6
        slopes[at] = (loss(table + step) - loss(table - step)) / 2e-6
    check(
        "the gradient of Σ cᵢ tanh(rowᵢ) by a table, of which row 1 is used four times, against finite differences",
        weight.grad.tolist(),
        slopes,
        {"one place instead of all": last_only((1 - np.tanh(table[ids]) ** 2) * factors, ids, 5)},
    )


def test_the_gradient_of_a_lookup_sums_over_the_places_of_each_word():
    check_sums()
    check_shapes()
    check_padding_row()
    check_layer()


def test_the_row_of_the_padding_never_learns():
    """Texts of different lengths, filled up, with a loss that would move the padding's row if anything could."""
    texts = [[1, 2, 3, 4], [2], [5, 1]]
    for optimizer_of in (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.1)):
        shared.manual_seed(0)
        layer = nn.Embedding(7, 3, padding_idx=0)
        optimizer, start = optimizer_of(layer.parameters()), layer.weight.detach().numpy().copy()
        with doing("padding a batch", {"": "pad_sequence is exercise 2: see what its own milestone says."}):
            ids = pad_sequence([shared.tensor(text) for text in texts], batch_first=True)
        require(
            ids.tolist() == [[1, 2, 3, 4], [2, 0, 0, 0], [5, 1, 0, 0]],
            f"the batch of {texts}, filled up with 0, is {ids.tolist()}",
        )
        for _ in range(5):
            optimizer.zero_grad()
            with doing("a step of training an embedding", SHAPES):
                loss = ((layer(ids) - 1) ** 2).sum()
                loss.backward()
            optimizer.step()
        moved = np.abs(layer.weight.detach().numpy() - start).max(axis=1)
        name = type(optimizer).__name__
        require(
            moved[0] == 0,
            f"the row of the padding has moved by up to {moved[0]:.3g} in five steps of {name}: with padding_idx=0 its "
            "gradient is 0, and it stays a vector of zeros",
        )
        still = [i for i in range(1, 6) if moved[i] < 1e-3]
        require(not still, f"the rows {still} of words that occur have not moved in five steps of {name}")
        require(moved[6] == 0, f"the row of a word that does not occur has moved by {moved[6]:.3g} with {name}")
