"""Sprint 09's milestones on windows of a text. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import shared
from course.oracles import check, doing, require
from shared.data.tokens import TokenStream, random_windows, sequential_windows, windows_at

IDS = [0, 1, 2, 0, 3]  # the dog bit the man
TEXT = np.arange(20, dtype=np.uint16)  # each token says where it stands
SHAPES = {
    "out of bounds": "A window of `length` tokens that begins at `start` ends at start + length − 1, and its last "
    "target stands one further: the last start is N − length − 1.",
    "broadcast": "starts (B,) as a column, (B, 1), beside arange (length + 1,), is a table of places (B, length + 1).",
    "inhomogeneous": "All windows of a batch have the same length: what is left behind them is a batch of its own.",
    "same shape": "All windows of a batch have the same length: what is left behind them is a batch of its own.",
    "slice indices": "A stream takes an int, a slice, or an array of places: stream[array] has the array's shape.",
    "must be integers": "A stream takes an int, a slice, or an array of places: stream[array] has the array's shape.",
    "only int": "A stream takes an int, a slice, or an array of places: stream[array] has the array's shape.",
    "has no attribute": "`tokens` may be a list, an array, a path or a TokenStream: as_stream(tokens) is a TokenStream "
    "of it, and Tensor(array) a Tensor of an array.",
    "unpack": "A batch is a pair, (inputs, targets).",
    "not iterable": "sequential_windows gives one batch after the other: a `yield` for each, or a list of them.",
}

SHORT = {
    "and the token after it take": "A text that is shorter than a window gives one window, as short as it is: two "
    "tokens are enough, so that require_length(stream, 1) is what is asked.",
}


def seeded(seed: int = 0) -> shared.Generator:
    return shared.Generator().manual_seed(seed)


def both(what: str, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets as arrays, after a look at what they are."""
    require(pair is not None, f"{what} gives None: is a `return` or a `yield` missing?")
    with doing(f"taking {what} for (inputs, targets)", SHAPES):
        inputs, targets = pair
    for name, part in (("inputs", inputs), ("targets", targets)):
        require(isinstance(part, shared.Tensor), f"{what}: {name} are a {type(part).__name__}, not a Tensor")
        require(
            part.dtype == shared.int64,
            f"{what}: {name} are {part.dtype}, as they lie on the disk; ids that a model looks up are int64",
        )
        require(
            part.ndim == 2,
            f"{what}: {name} have shape {tuple(part.shape)}; a batch is (windows, tokens), with one window too",
        )
    return inputs.numpy(), targets.numpy()


def check_shifted(what: str, inputs: np.ndarray, targets: np.ndarray, length: int) -> None:
    """In a text whose tokens are their places: each target is one more than the input above it."""
    require(
        inputs.shape[1] != length + 1,
        f"{what}: a window has {length + 1} inputs: of the {length + 1} tokens read, the last is a target only",
    )
    require(
        inputs.shape[1] != length - 1,
        f"{what}: a window has {length - 1} inputs, not {length}: the token after the window has to be read too",
    )
    require(inputs.shape[1] == length, f"{what}: a window has {inputs.shape[1]} inputs, not {length}")
    require(targets.shape == inputs.shape, f"{what}: inputs {inputs.shape}, but targets {targets.shape}")
    steps = np.unique(inputs[:, 1:] - inputs[:, :-1])
    require(
        (steps == 1).all(),
        f"{what}: the tokens of a window do not stand beside each other in the text: places {inputs[0].tolist()}",
    )
    shift = np.unique(targets - inputs)
    looks = {
        (0,): "the targets are the inputs: a model that sees a token is to name the one after it, not that one",
        (-1,): "each target is the token before: inputs and targets are exchanged, or shifted the wrong way",
        (2,): "targets are shifted by two: after the token comes the next one, not the one after that",
    }
    told = looks.get(tuple(shift.tolist()), f"the targets stand {shift.tolist()} places after their inputs, not one")
    require(shift.tolist() == [1], f"{what}: {told}\ninputs {inputs[0].tolist()}, targets {targets[0].tolist()}")


# ------------------------------------------------------------------------ at given places, at random ones


def check_given_starts() -> None:
    with doing("windows_at two places", SHAPES):
        pair = windows_at(TEXT, np.array([3, 0]), 4)
    inputs, targets = both("windows_at(text, [3, 0], 4)", pair)
    check_shifted("windows_at(text, [3, 0], 4)", inputs, targets, 4)
    check(
        "the inputs of the windows at 3 and 0",
        inputs,
        [[3, 4, 5, 6], [0, 1, 2, 3]],
        {
            "windows in the order of the text: row b is the window that starts[b] begins": [[0, 1, 2, 3], [3, 4, 5, 6]],
            "the first start for all rows": [[3, 4, 5, 6]] * 2,
            "starts counted in windows: they are places in the text": [[12, 13, 14, 15], [0, 1, 2, 3]],
            "windows that begin one token late": [[4, 5, 6, 7], [1, 2, 3, 4]],
        },
    )
    with doing("windows_at the end of the text", SHAPES):
        at_end = both("windows_at(text, [15], 4)", windows_at(TEXT, np.array([15]), 4))
    check("the targets of the last window", at_end[1], [[16, 17, 18, 19]])
    with doing("windows_at one place of the sentence", SHAPES):
        inputs, targets = both("the sentence's window", windows_at(IDS, np.array([0]), 4))
    check('the inputs of "the dog bit the man"', inputs, [[0, 1, 2, 0]])
    check('its targets, "dog bit the man"', targets, [[1, 2, 0, 3]], {"not shifted": [[0, 1, 2, 0]]})


def check_evenly(starts: np.ndarray, last: int) -> None:
    """Every start from 0 to `last` about as often."""
    beyond = starts[(starts < 0) | (starts > last)]
    require(not len(beyond), f"windows begin at {sorted(set(beyond.tolist()))}, where the last has its end at {last}")
    found = Counter(starts.tolist())
    require(len(found) > 1, f"all {len(starts)} windows of a batch begin at {starts[0]}: each row draws its own start")
    missing = [start for start in range(last + 1) if start not in found]
    looks = {
        (last,): f"the last possible window, from {last}, is never drawn: the upper bound of integers(…) is not among "
        "what is drawn, and N − length of them are possible",
        (0,): "no window begins at 0, though the first token can be where one begins",
    }
    multiples = all(start % 5 == 0 for start in found)
    told = looks.get(tuple(missing), "windows begin at multiples of their length only" if multiples else "")
    require(
        not missing,
        f"of 3,000 windows of 5 tokens none begins at {missing}, where each of 0 … {last} is as likely. {told}",
    )
    expected = len(starts) / (last + 1)
    counts = np.array([found[start] for start in range(last + 1)])
    chi = float(((counts - expected) ** 2 / expected).sum())
    require(
        chi < 60,  # 14 degrees of freedom: beyond 60 once in ten million
        f"the starts 0 … {last} are drawn {counts.tolist()} times, where each is as likely",
    )


def test_random_windows_lie_anywhere_and_never_cross_the_end():
    check_given_starts()
    for tokens in (TEXT, TokenStream(TEXT), TEXT.tolist()):
        with doing(f"random_windows of a {type(tokens).__name__}", SHAPES):
            inputs, targets = both("random_windows", random_windows(tokens, 3000, 5, seeded(1)))
        require(len(inputs) == 3000, f"random_windows of a batch of 3,000 has {len(inputs)} windows")
        check_shifted("random_windows", inputs, targets, 5)
        check_evenly(inputs[:, 0], last=14)
    with doing("random_windows of four tokens from a text of five, which has one such window", SHAPES):
        one = both("the only window of five tokens", random_windows(IDS, 2, 4, seeded()))
    check("inputs of the only window, twice", one[0], [[0, 1, 2, 0]] * 2)
    check("its targets", one[1], [[1, 2, 0, 3]] * 2)
    check_generator()
    for length in (20, 25):
        try:
            random_windows(TEXT, 2, length, seeded())
        except ValueError:
            continue
        except NotImplementedError:
            raise
        except Exception as error:
            pytest.fail(f"windows of {length} out of 20 tokens end in {type(error).__name__}: {error}", pytrace=False)
        pytest.fail(
            f"random_windows takes windows of {length} out of a text of 20 tokens, though the last target is not in "
            "it: a ValueError is expected (require_length)",
            pytrace=False,
        )


def check_generator() -> None:
    def starts(generator: shared.Generator | None) -> list[int]:
        with doing("random_windows", SHAPES):
            return random_windows(TEXT, 40, 5, generator)[0].numpy()[:, 0].tolist()

    shared.manual_seed(0)
    generator, before = seeded(3), np.asarray(shared.get_rng_state()).tolist()
    first, second = starts(generator), starts(generator)
    require(
        first != second,
        "two calls with one generator give the same windows: a training would see one batch for ever. The generator "
        "goes on from call to call; nothing is seeded in random_windows",
    )
    require(
        np.asarray(shared.get_rng_state()).tolist() == before,
        "random_windows was given a generator, and drew from the default one",
    )
    require(
        starts(seeded(3)) == first,
        "two generators of the same seed give different windows: a training could not be repeated",
    )
    one, other = starts(None), starts(None)
    shared.manual_seed(0)
    require(one != other, "without a generator every call gives the same windows")
    require(
        starts(None) == one,
        "shared.manual_seed does not decide the windows: without a generator default_generator('cpu') is drawn from",
    )


# ------------------------------------------------------------------------ in order


def by_hand(n: int, batch: int, length: int) -> list[list[list[int]]]:
    """The inputs of all batches for a text of n tokens, slowly."""
    rows = [list(range(start, start + length)) for start in range(0, n - length, length)]
    batches = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    left = list(range(len(rows) * length, n - 1))
    return batches + ([[left]] if left else [])


def told_by_counts(targets: list[int], n: int, length: int) -> str:
    """What is wrong with a set of targets, each of 1 … n − 1 wanted once."""
    found = Counter(targets)
    twice = sorted(token for token, count in found.items() if count > 1)
    missing = sorted(set(range(1, n)) - found.keys())
    if twice:
        every = max(found.values()) > 2 or len(twice) > length
        how = (
            "windows begin at every place: they should not overlap"
            if every
            else "the last window overlaps the one before it: what is left is a window of its own, as short as it is"
        )
        return f"tokens {twice[:6]} are predicted more than once: {how}"
    if not missing:
        return "each token is predicted once, but not in the order of the text: a batch takes up where the last ended"
    if missing == list(range(missing[0], n)):
        left = (n - 1) % length
        if left and len(missing) == left:
            return f"the tokens from {missing[0]} on are never predicted: what is left behind whole windows is a window"
        if len(missing) == 1:
            return f"the last token, {missing[0]}, is never predicted: N tokens make N − 1 predictions"
        return f"the tokens from {missing[0]} on are never predicted: is the last batch, which is smaller, left out?"
    if missing[0] == length + 1 or all(token % (length + 1) == 0 for token in missing):
        return (
            f"tokens {missing[:6]} are never predicted: windows begin `length` tokens after each other, so that the "
            "last target of one is the first input of the next"
        )
    return f"tokens {missing[:6]} are never predicted"


def check_in_order(n: int, batch: int, length: int) -> None:
    what = f"sequential_windows of {n} tokens, batch {batch}, length {length}"
    with doing(what, SHAPES | SHORT):
        given = sequential_windows(np.arange(n, dtype=np.uint16), batch, length)
    require(given is not None, f"{what} gives None: is a `yield` missing?")
    with doing(what, SHAPES | SHORT):
        pairs = list(given)
    arrays = [both(what, pair) for pair in pairs]
    empty = [i for i, (inputs, _) in enumerate(arrays) if inputs.size == 0]
    require(not empty, f"{what}: batch {empty} has no token in it: where nothing is left, nothing follows")
    wanted = by_hand(n, batch, length)
    for inputs, targets in arrays:
        check_shifted(what, inputs, targets, inputs.shape[1])
    if [inputs.tolist() for inputs, _ in arrays] == wanted:
        return
    told = told_by_counts([token for _, targets in arrays for token in targets.reshape(-1).tolist()], n, length)
    shapes = [inputs.shape for inputs, _ in arrays]
    expected = [np.shape(rows) for rows in wanted]
    if told.startswith("each token") and sorted(shapes) != sorted(expected):
        told = f"each token is predicted once, but in batches of shapes {shapes}, where {expected} is expected"
    pytest.fail(f"{what}: {told}", pytrace=False)


def test_sequential_windows_predict_each_token_once():
    for n, batch, length in (
        (9, 2, 2),
        (6, 2, 2),
        (11, 2, 2),
        (13, 2, 3),
        (18, 2, 4),
        (4, 3, 8),
        (2, 1, 1),
        (41, 4, 5),
    ):
        check_in_order(n, batch, length)
    with doing("sequential_windows of a list", SHAPES):
        batches = list(sequential_windows(IDS, 2, 4))
    require(
        len(batches) == 1, f'"the dog bit the man" in windows of four gives {len(batches)} batches, where it is one'
    )
    targets = both("sequential_windows", batches[0])[1]
    check('the targets of "the dog bit the man"', targets, [[1, 2, 0, 3]])
    try:
        found = list(sequential_windows([7], 2, 4))
    except ValueError:
        return
    except NotImplementedError:
        raise
    except Exception as error:
        pytest.fail(f"a text of one token ends in {type(error).__name__}: {error}", pytrace=False)
    pytest.fail(
        f"sequential_windows of one token gives {len(found)} batches, where nothing can be predicted: a ValueError is "
        "expected (require_length)",
        pytrace=False,
    )
