"""Sprint 05's milestones on sinusoids and on adding positions. A known mistake is named in the message."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

import shared
from course.oracles import check, doing, require
from shared import nn
from shared.nn.positional import sinusoidal_encoding
from shared.ops.rotary import angular_frequencies, position_angles

ANGLES = "Angles are (length, ceil(d_model/2)), one for each sine; an odd width has one cosine less."
TENSORS = {
    "has no attribute": "The functions of shared work on Tensors: arange, cos and sin give and take them.",
    "could not broadcast": ANGLES,
    "does not fit": ANGLES,
    "shape": ANGLES,
    "unknown dtype None": "dtype=None stands for the default dtype, dtypes.get_default_dtype().",
    "Mul: shapes": "positions.unsqueeze(-1) is a column, and stands beside the row of frequencies.",
}


def slowly(length: int, d_model: int, base: float = 10000.0) -> np.ndarray:
    """The sinusoids number by number, as the paper writes them."""
    table = np.empty((length, d_model))
    for p in range(length):
        for i in range(d_model):
            angle = p * base ** (-2 * (i // 2) / d_model)
            table[p, i] = math.cos(angle) if i % 2 else math.sin(angle)
    return table


def is_tensor(what: str, value: object, dtype: object) -> None:
    require(isinstance(value, shared.Tensor), f"{what} has to be a Tensor, but is {type(value).__name__}")
    kept = "angles are computed in float64, and rounded at the end" if dtype == shared.float64 else "cast it at the end"
    require(value.dtype == dtype, f"{what} is {value.dtype}, and has to be {dtype}: {kept}")


def refused(call: Callable[[], object], kind: type[Exception], what: str) -> None:
    try:
        call()
    except NotImplementedError:
        raise
    except kind:
        return
    except Exception as error:
        require(False, f"{what} ends in {type(error).__name__} ({error}), where {kind.__name__} is expected")
    require(False, f"{what} should be refused with {kind.__name__}")


def check_frequencies() -> None:
    """How fast each clock goes."""
    for dim, base in ((6, 1000.0), (4, 10000.0), (8, 16.0), (5, 32.0)):
        k = np.arange((dim + 1) // 2)
        with doing(f"angular_frequencies({dim}, {base:g})", TENSORS):
            found = angular_frequencies(dim, base)
        is_tensor("angular_frequencies", found, shared.float64)
        check(
            f"the frequencies of dim={dim}, base={base:g}",
            found.tolist(),
            base ** (-2 * k / dim),
            {
                "exponents −k/dim: a pair takes two of the dim numbers, so it is −2k/dim": base ** (-k / dim),
                "frequencies that grow: the exponent is negative": base ** (2 * k / dim),
                "a frequency for each number: two numbers, a sine and a cosine, share one": base
                ** (-2 * np.arange(dim) / dim),
                "a frequency for each number, with exponents −i/dim": base ** (-np.arange(dim) / dim),
                "k from 1: the first clock turns by 1": base ** (-2 * (k + 1) / dim),
                "exponents −2k/dim rounded to whole numbers: / divides, // rounds down": base ** (-2 * k // dim),
                "frequencies that fall in equal steps: they fall by equal factors": 1 - 2 * k / dim,
                "a base of 10000, whatever `base` is": 10000.0 ** (-2 * k / dim),
                "exponents over the number of pairs: dim is the number of numbers": base ** (-2 * k / len(k)),
            },
            tolerance=1e-9,
        )
    refused(lambda: angular_frequencies(0), ValueError, "a width of 0")
    refused(lambda: angular_frequencies(4, -1.0), ValueError, "a base below 0")


def check_angles() -> None:
    """Where the hands stand at each position."""
    with doing("position_angles(3, 4)", TENSORS):
        found = position_angles(3, 4)
    is_tensor("position_angles", found, shared.float64)
    right = np.array([[0, 0], [1, 0.01], [2, 0.02]])
    check(
        "the angles of the positions 0, 1, 2 with dim=4",
        found.tolist(),
        right,
        {
            "positions from 1: they count from 0": right + [1, 0.01],
            "positions divided by the frequencies": [[0, 0], [1, 100], [2, 200]],
            "positions along the wrong axis: a row is a position": right.T,
            "sums of position and frequency": [[1, 0.01], [2, 1.01], [3, 2.01]],
            "positions one too many": [*right.tolist(), [3, 0.03]],
            "the frequencies of one position for all": [[1, 0.01]] * 3,
        },
        tolerance=1e-6,
    )
    positions = np.array([[5, 0], [2, 7], [1, 1]])
    with doing(
        "position_angles of a Tensor of positions",
        {"": "`positions` may be a Tensor of any shape: positions.unsqueeze(-1) stands beside the frequencies."},
    ):
        found = position_angles(shared.tensor(positions), 4)
    check(
        "the angles of the positions [[5, 0], [2, 7], [1, 1]], which a Tensor gives",
        found.tolist(),
        positions[..., None] * [1, 0.01],
        {"angles of 0, 1, … instead of those that were asked for": np.arange(3)[:, None, None] * [[1, 0.01]]},
        tolerance=1e-6,
    )
    far = shared.tensor([100_000.0], dtype=shared.float32) + shared.tensor([1.0], dtype=shared.float32)
    with doing("position_angles of a float32 Tensor"):
        found = position_angles(far, 6)
    is_tensor("position_angles of a float32 Tensor", found, shared.float64)
    right = 100_001.0 * 10000.0 ** (-np.arange(3) / 3)
    error = np.abs(found.numpy()[0] - right).max()
    require(
        error < 1e-9,
        f"the angles of position 100,001 are off by up to {error:.2g}: computed in float32 and made float64 later, "
        "where both factors have to be float64 before they are multiplied",
    )
    for bad, kind in ((-1, ValueError), ([0, 1], TypeError)):
        refused(lambda bad=bad: position_angles(bad, 4), kind, f"position_angles({bad}, 4)")


def check_encoding() -> None:
    """Sines and cosines, side by side."""
    for length, d_model in ((3, 4), (5, 6), (4, 5), (2, 1)):
        pairs = (d_model + 1) // 2
        angles = np.arange(length)[:, None] * 10000.0 ** (-2 * np.arange(pairs) / d_model)
        own = np.arange(length)[:, None] * 10000.0 ** (-np.arange(d_model) / d_model)
        each = np.where(np.arange(d_model) % 2, np.cos(own), np.sin(own))
        double = np.arange(length)[:, None] * 10000.0 ** (-2 * np.arange(d_model) / d_model)
        right = slowly(length, d_model).astype(np.float32)  # as the result is, so that equal ones print alike
        with doing(f"sinusoidal_encoding({length}, {d_model})", TENSORS):
            found = sinusoidal_encoding(length, d_model)
        is_tensor("sinusoidal_encoding", found, shared.float32)
        check(
            f"the sinusoids of {length} positions, d_model={d_model}",
            found.tolist(),
            right,
            {
                "all sines, then all cosines: they alternate, number 2k a sine, number 2k + 1 its cosine": np.hstack(
                    [np.sin(angles), np.cos(angles)]
                )[:, :d_model],
                "cosine before sine: even numbers are sines": np.stack([np.cos(angles), np.sin(angles)], -1).reshape(
                    length, -1
                )[:, :d_model],
                "a frequency of its own for each number: sine and cosine of a pair have the same": each,
                "a frequency of its own for each number, twice as far apart": np.where(
                    np.arange(d_model) % 2, np.cos(double), np.sin(double)
                ),
                "sines only": np.repeat(np.sin(angles), 2, axis=1)[:, :d_model],
                "angles in degrees: sin and cos take radians": np.where(
                    np.arange(d_model) % 2,
                    np.cos(np.radians(np.repeat(angles, 2, 1)[:, :d_model])),
                    np.sin(np.radians(np.repeat(angles, 2, 1)[:, :d_model])),
                ),
                "positions from 1": slowly(length + 1, d_model)[1:],
                "the angles themselves": np.repeat(angles, 2, axis=1)[:, :d_model],
            },
            tolerance=1e-6,
        )
    check(
        "the sinusoids with base=50",
        sinusoidal_encoding(4, 6, 50.0).tolist(),
        slowly(4, 6, 50.0),
        {"a base that is not looked at": slowly(4, 6)},
        tolerance=1e-6,
    )
    exact = sinusoidal_encoding(2001, 8, dtype=shared.float64)
    is_tensor("sinusoidal_encoding with dtype=float64", exact, shared.float64)
    error = np.abs(exact.numpy() - slowly(2001, 8)).max()
    require(
        error < 1e-10,
        f"in float64 the sinusoids of position 2,000 are off by {error:.2g}: something on the way was float32. The "
        "room for the result has to be angles.dtype as long as it is filled",
    )


def test_sinusoids_are_clocks_from_fast_to_slow():
    check_frequencies()
    check_angles()
    check_encoding()


# ------------------------------------------------------------------------ adding

D, MOST = 4, 7
ROWS = np.random.default_rng(0).normal(size=(MOST, D))  # what the learned positions hold in these tests
X = np.random.default_rng(1).normal(size=(3, 3, D))  # as many texts as steps: exchanged axes fit too
BESIDE = (
    "T rows from `start` on, (T, d_model), T being the length of the text (x.shape[-2], or x.shape[0] where the "
    "sequence comes first), stand beside (B, T, d_model) as they are; beside (T, B, d_model) they need an axis of "
    "length 1 in the middle, rows.unsqueeze(1)."
)
BROADCAST = {
    "broadcast": BESIDE,
    "must match": BESIDE,
    "leaf": "`x += rows` changes x, which belongs to somebody else: x + rows is a new Tensor.",
    "in-place": "`x += rows` changes x, which belongs to somebody else: x + rows is a new Tensor.",
    "unsqueeze": "`self.table()` is a Tensor, (max_len, d_model).",
    "no attribute 'pe'": "`self.table()` has the rows of either kind of positions.",
    "no attribute 'weight'": "`self.table()` has the rows of either kind of positions.",
    "'NoneType' object": "forward has to return x + rows after dropout: is a `return` missing?",
}


def made(kind: str, **options) -> tuple[nn.Module, np.ndarray]:
    """A module that adds positions, without dropout unless that is asked for, and the vectors that it should add."""
    options = {"dropout": 0.0, "max_len": MOST, **options}
    if kind == "sinusoids":
        return nn.PositionalEncoding(D, **options), slowly(MOST, D)
    module = nn.LearnedPositionalEncoding(D, **options)
    with shared.no_grad():
        module.weight.copy_(shared.tensor(ROWS.astype("float32")))
    return module, ROWS


def single(values: object) -> shared.Tensor:
    return shared.tensor(np.array(values, dtype=np.float32))


def check_tables() -> None:
    """The vectors of all positions, before anything is added."""
    for kind, d_model, max_len in (
        ("sinusoids", D, MOST),
        ("sinusoids", 1, MOST),
        ("sinusoids", D, 1),
        ("learned positions", D, MOST),
    ):
        module = {"sinusoids": nn.PositionalEncoding, "learned positions": nn.LearnedPositionalEncoding}[kind](
            d_model, dropout=0.0, max_len=max_len
        )
        table = slowly(max_len, d_model) if kind == "sinusoids" else module.weight.tolist()
        with doing(f"table() of {kind}"):
            found = module.table()
        require(isinstance(found, shared.Tensor), f"table() of {kind} gives {type(found).__name__}, and not a Tensor")
        check(
            f"table() of {kind}, (max_len, d_model), with max_len={max_len} and d_model={d_model}",
            found.tolist(),
            table,
            {
                "the buffer with its axis for the batch: pe is (max_len, 1, d_model)": np.expand_dims(table, 1),
                "all axes of length 1 taken away, as squeeze() does: only the middle one is to go": np.squeeze(table),
            },
            tolerance=1e-5,
        )
    module, table = made("sinusoids")
    module.load_state_dict({"pe": single(ROWS[:, None])})
    with doing("table() of sinusoids after a state dict was loaded"):
        found = module.table()
    check(
        "table() of sinusoids after a state dict with other numbers was loaded",
        found.tolist(),
        ROWS,
        {"sinusoids computed anew: the rows are those of the buffer `self.pe`, which was loaded": table},
        tolerance=1e-5,
        source="loaded",
    )


def check_sums() -> None:
    """What is added, in each layout."""
    for kind in ("sinusoids", "learned positions"):
        for batch_first in (True, False):
            module, table = made(kind, batch_first=batch_first)
            for start in (0, 2, 4):
                rows = table[start : start + 3]
                right = X + (rows if batch_first else rows[:, None])
                wrong = X + (rows[:, None] if batch_first else rows)
                first = table[:3] if batch_first else table[:3, None]
                layout = "(batch, seq, d_model)" if batch_first else "(seq, batch, d_model)"
                what = f"x {layout} plus {kind}, start={start}"
                with doing(what, BROADCAST):
                    given = single(X)
                    out = module(given, start) if start else module(given)
                    shape = tuple(out.shape)
                require(shape == X.shape, f"{what} has shape {shape}, and should keep that of x, {X.shape}")
                check(
                    what,
                    out.tolist(),
                    right,
                    {
                        "positions along the batch: every text got one position for all its words": wrong,
                        "a start that is not looked at: the text goes on where `start` words came before": X + first,
                        "positions that count from 1": X + (np.roll(table, -1, 0)[start : start + 3])
                        if batch_first
                        else X + np.roll(table, -1, 0)[start : start + 3][:, None],
                        "one position for all words: T rows are needed, those from `start` to start + T": X
                        + table[start],
                        "a product: positions are added": X * (rows if batch_first else rows[:, None]),
                        "x times √d_model, as the paper has it; this module only adds": X * 2
                        + (rows if batch_first else rows[:, None]),
                        "x alone": X,
                        "the positions alone": np.broadcast_to(rows if batch_first else rows[:, None], X.shape),
                        "positions added twice": 2 * right - X,
                    },
                    tolerance=1e-5,
                    source="row by row",
                )
                require(
                    (given.numpy() == single(X).numpy()).all(), f"{what} changes x itself: x + rows is a new Tensor"
                )
            what = f"a single text (seq, d_model) plus {kind}, batch_first={batch_first}"
            with doing(
                what, BROADCAST | {"shape": "x with two dimensions is one text, (T, d_model), in either layout."}
            ):
                out = module(single(X[0, :2]), 1)
            check(
                what,
                out.tolist(),
                X[0, :2] + table[1:3],
                {
                    "an axis in the middle, as for (seq, batch, d_model): a single text has no batch": X[0, :2]
                    + table[1:3, None]
                },
                tolerance=1e-5,
                source="row by row",
            )
            longer = np.arange(2 * MOST * D).reshape((2, MOST, D) if batch_first else (MOST, 2, D)) / 10
            with doing(f"{kind}, two texts of seven words", BROADCAST):
                out = module(single(longer))
            check(
                f"two texts of seven words plus {kind}, batch_first={batch_first}",
                out.tolist(),
                longer + (table if batch_first else table[:, None]),
                tolerance=1e-5,
                source="row by row",
            )


def check_limits() -> None:
    """What is refused."""
    for kind in ("sinusoids", "learned positions"):
        module, _ = made(kind)
        for x, start, what in (
            (shared.zeros(1, MOST + 1, D), 0, f"a text of {MOST + 1} words where there are {MOST} positions"),
            (shared.zeros(1, 3, D), MOST - 2, f"three words from position {MOST - 2} on, of {MOST}"),
            (shared.zeros(1, 1, D), MOST, f"a word at position {MOST}, where the last is {MOST - 1}"),
            (shared.zeros(1, 2, D), -2, "a start of −2"),
            (shared.zeros(1, 2, D + 1), 0, f"vectors of {D + 1} numbers where positions have {D}"),
            (shared.zeros(1, 2, 1), 0, f"vectors of 1 number where positions have {D}"),
        ):
            try:
                module(x, start)
                said = None
            except NotImplementedError:
                raise
            except RuntimeError as error:
                said = str(error)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            require(
                said is not None and ("expected" in said or "positions" in said),
                f"{what} should be refused by name ({kind}), but "
                + ("nothing is said" if said is None else f"there is only {said!r}")
                + ": call self._check(x, start) first",
            )


def check_dropout() -> None:
    """Dropout acts on the sum, in training only."""
    shared.manual_seed(0)
    for kind in ("sinusoids", "learned positions"):
        module, table = made(kind, dropout=0.5, max_len=MOST)
        x = np.random.default_rng(2).normal(size=(64, MOST, D)) + 10
        whole = x + table
        with doing(f"{kind} with dropout", BROADCAST):
            out = module(single(x)).detach().numpy()
        gone = np.mean(out == 0)
        require(
            gone > 0,
            "with dropout=0.5 no number of the result is 0 in training: "
            + ("self.dropout was not called" if np.allclose(out, whole, atol=1e-4) else "it acts on a part of the sum")
            + "; it comes last, on x + rows",
        )
        require(
            0.4 < gone < 0.6, f"with dropout=0.5 a share of {gone:.2f} of the sum is 0: dropout acts once, on all of it"
        )
        kept = out != 0
        check(
            f"what dropout=0.5 leaves of x plus {kind}, which is twice the sum",
            out[kept] / whole[kept],
            np.full(kept.sum(), 2.0),
            {"dropout of x before the positions are added": ((2 * x + table) / whole)[kept]},
            tolerance=1e-3,
        )
        module.eval()
        check(f"x plus {kind} in evaluation", module(single(x)).detach().numpy(), whole, tolerance=1e-4)


def check_learning() -> None:
    """The learned ones: gradients, the table, how they start."""
    module, _ = made("learned positions")
    x = single(X).requires_grad_()
    factors = np.random.default_rng(3).normal(size=X.shape)
    with doing("learned positions, forward and backward", BROADCAST):
        (module(x, 1) * single(factors)).sum().backward()
    require(
        module.weight.grad is not None,
        "the learned positions get no gradient: table() has to return the parameter itself, nothing detached from it",
    )
    right = np.zeros((MOST, D))
    right[1:4] = factors.sum(axis=0)
    check(
        "the gradient by the learned positions: each row's is the sum over the batch, from start = 1 on",
        module.weight.grad.tolist(),
        right,
        {
            "a sum over the steps: the batch is what a position's gradient is summed over": np.vstack(
                [np.zeros((1, D)), factors.sum(axis=1), np.zeros((MOST - 4, D))]
            )
        },
    )
    check("the gradient by x, which is what came from above", x.grad.tolist(), factors)
    shared.manual_seed(0)
    module = nn.LearnedPositionalEncoding(50, max_len=400)
    parameter = module.weight
    with shared.no_grad():
        parameter.fill_(5.0)
    with doing(
        "reset_parameters",
        {
            "leaf": "init.normal_ fills a parameter in place without recording it.",
            "in-place": "init.normal_ fills a parameter in place without recording it.",
        },
    ):
        module.reset_parameters()
    values = module.weight.detach().numpy()
    require(
        module.weight is parameter and module.weight.requires_grad,
        "reset_parameters makes another parameter, of which an optimizer that was made before knows nothing: fill the "
        "old one in place",
    )
    deviation = float(values.std())
    looks = {
        "5 everywhere: nothing was drawn": np.allclose(values, 5),
        "zeros: then all positions begin alike": deviation == 0,
        "standard normal numbers, as large as the words' vectors: std=0.02": abs(deviation - 1) < 0.05,
        "0.02 as the variance: it is the standard deviation": abs(deviation - 0.02**0.5) < 0.01,
        "numbers even between −0.02 and 0.02: draw from a normal distribution": abs(deviation - 0.02 / 3**0.5) < 5e-4,
    }
    named = next((name for name, so in looks.items() if so), "")
    require(
        abs(deviation - 0.02) < 1e-3 and abs(float(values.mean())) < 1e-3,
        f"the learned positions start with mean {values.mean():.3g} and standard deviation {deviation:.3g}, and should "
        f"with 0 and 0.02" + (f".\nThat is what one gets from: {named}" if named else ""),
    )
    with shared.no_grad():
        near = float(np.abs(values).max()) > 0.055
    require(near, "of 20,000 normal numbers none is beyond 2.75 standard deviations: draw from a normal distribution")


def test_each_word_gets_the_vector_of_its_position():
    check_tables()
    check_sums()
    check_limits()
    check_dropout()
    check_learning()
