"""Sprint 05's milestones on rotations. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

import numpy as np

import shared
from course.oracles import check, doing, require
from shared.nn.positional import sinusoidal_encoding
from shared.ops.rotary import Rotary, apply_rotary, pairs_of, position_angles, rotary_tables, rotate

SHAPES = {
    "broadcast": "cos and sin are (…, D/2), as a and b are: the first and the second numbers of the pairs.",
    "does not fit": "The gradient by x is (…, D); those by cos and sin are (…, D/2), a number for each pair.",
    "gradients, expected 3": "Three gradients are returned: by x, by cos and by sin.",
    "expected 3, got 0": "`forward` notes self.saved = (x, cos, sin) for backward.",
    "to unpack (expected 2": "pairs_of gives two indices: of the first and of the second numbers of the pairs.",
    "indices must be": "An index of the last dimension begins with `...`: (..., slice(0, None, 2)).",
    "NoneType": "saved x is None where neither cos nor sin needs a gradient: look at self.needs first.",
}
TENSORS = {"": "Then grad is a Tensor: self.turned(grad, cos, sin) turns either; else use indices and operators only."}


def turned(x: np.ndarray, angles: np.ndarray, interleaved: bool, by: float = 1.0) -> np.ndarray:
    """Pair by pair, as numbers of the complex plane."""
    half = x.shape[-1] // 2
    out = np.empty(np.broadcast_shapes(x.shape, (*angles.shape[:-1], x.shape[-1])))
    for k in range(half):
        first, second = (2 * k, 2 * k + 1) if interleaved else (k, k + half)
        number = (x[..., first] + 1j * x[..., second]) * np.exp(1j * by * angles[..., k])
        out[..., first], out[..., second] = number.real, number.imag
    return out


def check_pairs() -> None:
    """Which numbers belong together."""
    found = {}
    for interleaved in (True, False):
        numbers = np.stack([np.arange(6)] * 2)
        with doing(f"pairs_of(6, interleaved={interleaved})", SHAPES):
            first, second = pairs_of(6, interleaved)
            found[interleaved] = [numbers[first].tolist(), numbers[second].tolist()]
    require(
        found[True] != found[False],
        f"pairs_of(6, …) finds the pairs at {found[True]} with interleaved=True and with False: `interleaved` is not "
        "looked at",
    )
    for interleaved, right in ((True, [[0, 2, 4], [1, 3, 5]]), (False, [[0, 1, 2], [3, 4, 5]])):
        check(
            f"where the first and the second numbers of the pairs are among six, interleaved={interleaved}",
            found[interleaved],
            [[row, row] for row in right],
            {
                "the two ways exchanged: interleaved pairs are neighbours, 2k and 2k + 1": [
                    [row, row] for row in ([[0, 1, 2], [3, 4, 5]] if interleaved else [[0, 2, 4], [1, 3, 5]])
                ],
                "first and second exchanged: then they turn the other way": [[row, row] for row in right[::-1]],
                "the second numbers from the end: xₖ belongs to xₖ₊D/₂": [[row, row] for row in ([0, 1, 2], [5, 4, 3])],
            },
        )


def check_rotation() -> None:
    """rotate, by hand and pair by pair."""
    quarter = np.array([[0.0, 1.0, 0.6]])  # cosines and sines of 90°, 0° and 53.13°
    sines = np.array([[1.0, 0.0, 0.8]])
    x = np.array([[1.0, 2, 3, 4, 5, 10]])
    for interleaved, right, wrong in (
        (
            True,
            [-2, 1, 3, 4, -5, 10],
            {
                "pairs made of halves: interleaved pairs are neighbours": [-4, 2, -5, 1, 5, 8.4],
                "a rotation to the other side: (a, b) → (a cos − b sin, b cos + a sin)": [2, -1, 3, 4, 11, 2],
                "a that was changed before b was computed from it": [-2, -2, 3, 4, -5, 2],
                "turned pairs put side by side, all first numbers and then all second: each stays at its place": [
                    *(-2, 3, -5, 1, 4, 10)
                ],
                "a plus where a minus belongs, so that lengths change": [2, 1, 3, 4, 11, 10],
                "cosine and sine exchanged": [1, 2, -4, 3, -2, 11],
            },
        ),
        (
            False,
            [-4, 2, -5, 1, 5, 8.4],
            {
                "pairs made of neighbours: half-split pairs are xₖ and xₖ₊D/₂": [-2, 1, 3, 4, -5, 10],
                "a rotation to the other side: (a, b) → (a cos − b sin, b cos + a sin)": [4, 2, 9.8, -1, 5, 3.6],
                "a that was changed before b was computed from it": [-4, 2, -5.0, -4, 5, 2.0],
                "turned pairs side by side, as if they were interleaved: each number stays at its place": [
                    *(-4, 1, 2, 5, -6.2, 8.4)
                ],
                "a plus where a minus belongs, so that lengths change": [4, 2, 9.8, 1, 5, 8.4],
            },
        ),
    ):
        given = x.copy()
        with doing(f"rotate with interleaved={interleaved}", SHAPES):
            found = rotate(given, quarter, sines, interleaved)
        own = turned(x, np.array([[np.pi / 2, 0, np.arctan2(0.8, 0.6)]]), interleaved)
        check(
            f"[1, 2, 3, 4, 5, 10] with pairs turned by 90°, 0° and 53.1°, interleaved={interleaved}",
            found,
            own,
            {name: [value] for name, value in wrong.items()},
            source="as a product of complex numbers",
        )
        if not interleaved:
            right[2], right[5] = 3 * 0.6 - 10 * 0.8, 10 * 0.6 + 3 * 0.8
        check("the same by hand", found, [right])
        require(
            given is not found and (given == x).all(),
            "rotate changes x itself: the result has to be a new array, for others still use the old one",
        )
    rng = np.random.default_rng(0)
    values, angles = rng.normal(size=(2, 3, 5, 8)), rng.normal(size=(5, 4))
    for interleaved in (True, False):
        with doing("rotate of (2, 3, 5, 8)", SHAPES):
            found = rotate(
                values.astype("float32"), *(f(angles).astype("float32") for f in (np.cos, np.sin)), interleaved
            )
        check(
            f"(2, 3, 5, 8) with pairs turned by angles (5, 4), interleaved={interleaved}",
            found,
            turned(values, angles, interleaved),
            {
                "a rotation to the other side": turned(values, -angles, interleaved),
                "the other kind of pairs": turned(values, angles, not interleaved),
            },
            source="pair by pair",
        )
        require(found.dtype == np.float32, f"float32 turned is {found.dtype}: make room in x's dtype")


def check_gradients() -> None:
    """By x, by cos, by sin: on the tape, by finite differences, and once more."""
    rng = np.random.default_rng(1)
    for interleaved in (True, False):
        values = {"x": rng.normal(size=(2, 3, 4)), "cos": rng.normal(size=(3, 2)), "sin": rng.normal(size=(3, 2))}
        factors = rng.normal(size=(2, 3, 4))

        def loss(values=values, factors=factors, interleaved=interleaved) -> float:
            x, cos, sin = values["x"], values["cos"], values["sin"]
            first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :2], x[..., 2:])
            g, h = (factors[..., 0::2], factors[..., 1::2]) if interleaved else (factors[..., :2], factors[..., 2:])
            return float((g * (first * cos - second * sin) + h * (second * cos + first * sin)).sum())

        leaves = {name: shared.tensor(value).requires_grad_() for name, value in values.items()}
        with doing("Rotary's forward pass", SHAPES):
            out = Rotary(interleaved)(*leaves.values())
        with doing("Rotary's backward pass", SHAPES):
            (out * shared.tensor(factors)).sum().backward()
        slopes = {}
        for name, value in values.items():
            slopes[name] = np.zeros_like(value)
            for at in np.ndindex(*value.shape):
                old, difference = value[at], 0.0
                for sign in (1, -1):
                    value[at] = old + sign * 1e-6
                    difference += sign * loss()
                value[at], slopes[name][at] = old, difference / 2e-6
        cos, sin = values["cos"], values["sin"]
        first, second = pairs(factors, interleaved)
        forth = np.empty_like(factors)
        put(forth, first * cos - second * sin, second * cos + first * sin, interleaved)
        a, b = pairs(values["x"], interleaved)
        wrong = {
            "x": {
                "the gradient turned on instead of back: backward turns by the opposite angle, −sin": forth,
                "the gradient as it came": factors,
            },
            "cos": {
                "the gradient by sin": slopes["sin"],
                "the sign of the second part wrong": (first * a - second * b).sum(0),
                "the gradient of the first numbers only: cos is in both": (first * a).sum(0),
            },
            "sin": {
                "the gradient by cos": slopes["cos"],
                "the opposite sign: sin is in −b sin for the first number, in + a sin for the second": -slopes["sin"],
                "a plus between the two parts: sin is in −b sin for the first number": (second * a + first * b).sum(0),
            },
        }
        for name, leaf in leaves.items():
            require(leaf.grad is not None, f"{name} gets no gradient from Rotary: self.needs asks for it")
            check(
                f"the gradient by {name}, interleaved={interleaved}, against finite differences",
                leaf.grad.tolist(),
                slopes[name],
                wrong[name],
                source="by finite differences",
            )
        alone = shared.tensor(values["x"]).requires_grad_()
        rotary = Rotary(interleaved)
        with doing("Rotary's backward pass where cos and sin need no gradient", SHAPES):
            out = rotary(alone, shared.tensor(cos), shared.tensor(sin))
            kept = rotary.saved[0]
            (out * shared.tensor(factors)).sum().backward()
        require(alone.grad is not None, "x gets no gradient where it alone needs one: self.needs[0] is what counts")
        check("the gradient by x alone", alone.grad.tolist(), slopes["x"], wrong["x"], source="by finite differences")
        alone = shared.tensor(cos).requires_grad_()
        with doing("Rotary's backward pass where only cos needs a gradient", SHAPES):
            out = Rotary(interleaved)(shared.tensor(values["x"]), alone, shared.tensor(sin))
            (out * shared.tensor(factors)).sum().backward()
        require(
            alone.grad is not None,
            "cos gets no gradient where it alone needs one: x has to be kept for it, if self.needs[1] or self.needs[2]",
        )
        check(
            "the gradient by cos alone",
            alone.grad.tolist(),
            slopes["cos"],
            wrong["cos"],
            source="by finite differences",
        )
        require(
            kept is None,
            "x is kept where neither cos nor sin needs a gradient: the one by x does without it, and x is memory that "
            "is held until backward, in each layer; self.saved[0] is None then",
        )
        x = shared.tensor(values["x"]).requires_grad_()
        with doing("the gradient of a rotation differentiated once more", TENSORS):
            out = Rotary(interleaved)(x, shared.tensor(np.cos(cos)), shared.tensor(np.sin(cos)))
            (once,) = shared.autograd.grad((out**3).sum() / 3, [x], create_graph=True)
            (once**2).sum().backward()
        # Turned back, the squares keep their length: Σ once² is Σ y⁴, whose gradient is 4y³ turned back.
        check(
            "the gradient of Σ (∂/∂x Σ y³/3)² by x, for pairs turned by angles",
            x.grad.tolist(),
            turned(4 * turned(values["x"], cos, interleaved) ** 3, cos, interleaved, -1),
            {
                "a gradient turned on instead of back": turned(
                    4 * turned(values["x"], cos, interleaved) ** 3, cos, interleaved
                )
            },
        )


def pairs(x: np.ndarray, interleaved: bool) -> tuple[np.ndarray, np.ndarray]:
    half = x.shape[-1] // 2
    return (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])


def put(out: np.ndarray, a: np.ndarray, b: np.ndarray, interleaved: bool) -> None:
    first, second = pairs(out, interleaved)
    first[...], second[...] = a, b


def test_pairs_are_turned_by_the_angle_of_their_position_and_gradients_back():
    check_pairs()
    check_rotation()
    check_gradients()


def test_a_shift_is_a_rotation_and_products_depend_on_the_distance_only():
    rng = np.random.default_rng(2)
    # Sinusoids: number 2k is a sine, 2k + 1 its cosine; as a pair (cosine, sine) it is a point on a circle.
    for d_model in (2, 8):
        with doing("sinusoidal_encoding"):
            table = sinusoidal_encoding(60, d_model, dtype=shared.float64).numpy()
        circle = table.reshape(60, -1, 2)[:, :, ::-1].reshape(60, d_model)
        for p, k in ((0, 1), (3, 5), (17, 40), (50, 9)):
            with doing("rotary_tables and apply_rotary"):
                cos, sin = rotary_tables(shared.tensor(k), d_model, dtype=shared.float64)
                moved = apply_rotary(shared.tensor(circle[p].copy()), cos, sin, interleaved=True).numpy()
            check(
                f"the sinusoids of position {p}, turned by {k} steps, which are those of position {p + k}",
                moved,
                circle[p + k],
                {f"a turn to the other side, to position {p - k}": circle[p - k] if p >= k else circle[p + k] + 1},
                tolerance=1e-9,
            )
        products = table @ table.T
        for distance in (1, 7, 30):
            spread = float(np.ptp(np.diagonal(products, distance)))
            require(
                spread < 1e-9,
                f"dot products of sinusoids {distance} positions apart differ by up to {spread:.3g} along the text: "
                "they depend on the distance only, if sine and cosine of a pair have one frequency",
            )
    # Rotary: the product of a query and a key, wherever in the text they stand.
    for interleaved in (True, False):
        q, k = rng.normal(size=(2, 8))
        where = np.array([[0, 4], [1, 5], [30, 34], [500, 504], [4, 0]])
        with doing("position_angles"):
            angles = position_angles(shared.tensor(where), 8)
        cos, sin = (shared.tensor(f(angles.numpy())) for f in (np.cos, np.sin))
        with doing("apply_rotary"):
            both = apply_rotary(shared.tensor(np.stack([np.stack([q, k])] * 5)), cos, sin, interleaved).numpy()
        lengths = np.linalg.norm(both, axis=-1)
        require(
            np.allclose(lengths, np.linalg.norm([q, k], axis=-1)),
            f"vectors of the lengths {np.linalg.norm([q, k], axis=-1).round(3).tolist()} have the lengths "
            f"{lengths[1].round(3).tolist()} after turning: a rotation keeps them",
        )
        products = (both[:, 0] * both[:, 1]).sum(axis=-1)
        require(
            np.ptp(products[:4]) < 1e-9,
            f"q·k for positions 4 apart is {products[:4].round(4).tolist()}, and should be the same wherever they "
            "stand: both are turned the same way, by their own position",
        )
        require(
            abs(products[4] - products[0]) > 1e-3,
            "q·k is the same for a key 4 places after the query and 4 before: the direction is lost",
        )
