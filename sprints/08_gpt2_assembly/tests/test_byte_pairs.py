"""Sprint 08's milestones on byte pairs: learning merges. A wrong answer that is a known mistake is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.oracles import doing, require
from shared.text.byte_pairs import count_pairs, merge_pair, most_frequent_pair, train_merges
from shared.text.pretokenize import byte_ids

PROPERTIES = settings(max_examples=25, deadline=None, derandomize=True, database=None)
LETTERS = {byte_ids(letter)[0]: letter for letter in "abdeghimnot "}
SENTENCES = "the dog bit the man", "the man bit the dog"
PIECES = {"the": 2, " dog": 2, " bit": 2, " the": 2, " man": 2}  # both sentences, cut in front of the spaces
# By hand: "h e" stands in "the" and " the", 4 times, as "t h" does, and h comes before t in the alphabet of ids. Then
# "t he", 4 times; then all pairs stand there twice, and the smallest ids win: a n, b i, d o, m an, and so on.
LEARNED = ["he", "the", "an", "bi", "do", "man", " the", " bi", " do", " man", " bit", " dog"]


def equal(what: str, actual: Any, expected: Any, mistakes: dict[str, Any] | None = None, source: str = "by hand"):
    """Fail with `what` and the mistake that `actual` comes from, unless it equals `expected`."""
    require(actual is not None or expected is None, f"{what} is None: is a `return` missing?")
    if type(actual) is type(expected) and actual == expected:
        return
    looks = next((name for name, value in (mistakes or {}).items() if value == actual), None)
    told = f"\nThat is what one gets from: {looks}." if looks else ""
    pytest.fail(f"{what}:{told}\n{actual!r}\n{source}:\n{expected!r}", pytrace=False)


def unharmed(what: str, call: Callable[..., Any], *given: Any, hints: dict[str, str] | None = None) -> Any:
    """What `call` returns; fails if it changes a list or dict that it was given."""
    before = [repr(value) for value in given]
    with doing(what, hints):
        found = call(*given)
    require(
        [repr(value) for value in given] == before,
        f"{what} changed what it was given: ids and counts are the caller's, make a list of your own",
    )
    return found


# ------------------------------------------------------------------------ counting


def slow_counts(words: Sequence[Sequence[int]], times: Sequence[int]) -> Counter:
    """How often each pair of neighbours occurs, by the definition."""
    counts: Counter = Counter()
    for ids, n in zip(words, times, strict=True):
        for i in range(len(ids) - 1):
            counts[ids[i], ids[i + 1]] += n
    return counts


def check_counts() -> None:
    words, times = [[1, 2, 3, 2, 3], [2, 3], [4], [], [7, 7, 7, 7, 7]], [10, 1, 5, 5, 2]
    right = {(1, 2): 10, (2, 3): 21, (3, 2): 10, (7, 7): 8}
    flat = [i for ids in words for i in ids]
    skipping = {(1, 2): 10, (2, 3): 21, (3, 2): 10, (7, 7): 4}
    with doing("count_pairs"):
        found = count_pairs(words, times)
        as_they_come = count_pairs((ids for ids in words), (n for n in times))
    equal(
        "count_pairs([[1, 2, 3, 2, 3], [2, 3], [4], [], [7, 7, 7, 7, 7]], times=[10, 1, 5, 5, 2])",
        dict(found),
        right,
        {
            "each list counted once: it comes `times` often": dict(slow_counts(words, [1] * 5)),
            "each pair counted once in a list, however often it stands there": {**right, (2, 3): 11, (7, 7): 2},
            "the last list that has a pair, alone: counts are added": {**right, (2, 3): 1, (7, 7): 2},
            "pairs sorted, as if (3, 2) were (2, 3): their order is part of them": {
                (1, 2): 10,
                (2, 3): 31,
                (7, 7): 8,
            },
            "pairs that do not overlap: 7, 7, 7 has (7, 7) twice, and five of them four times": skipping,
            "the last pair of each list left out: the last two ids are neighbours, too": {
                (1, 2): 10,
                (2, 3): 10,
                (3, 2): 10,
                (7, 7): 6,
            },
            "every second pair": {(1, 2): 10, (3, 2): 10, (2, 3): 1, (7, 7): 4},
            "all lists in one row: the last id of a list and the first of the next are no neighbours": dict(
                slow_counts([flat], [1])
            ),
            "pairs of different ids: (7, 7) is a pair, too": {p: n for p, n in right.items() if p != (7, 7)},
            "pairs of different ids only: (7, 7) is a pair, too": {**right, (7, 7): 0},
            "single ids and not pairs": dict(
                Counter({i: sum(n * ids.count(i) for ids, n in zip(words, times, strict=True)) for i in flat})
            ),
            "any two ids of a list: only neighbours are a pair": dict(
                sum(
                    (
                        Counter({(a, b): n})
                        for ids, n in zip(words, times, strict=True)
                        for i, a in enumerate(ids)
                        for b in ids[i + 1 :]
                    ),
                    Counter(),
                )
            ),
        },
    )
    require(isinstance(found, Counter), f"count_pairs returns a {type(found).__name__}, and not a Counter")
    equal("count_pairs of lists and times that come one by one, from generators", dict(as_they_come), right)


def test_neighbours_are_counted_and_the_most_frequent_pair_is_found():
    check_counts()

    def most(counts: dict) -> Any:
        return unharmed(f"most_frequent_pair({counts})", most_frequent_pair, counts)

    equal(
        "most_frequent_pair({(7, 7): 3, (4, 9): 3, (9, 5): 3, (6, 2): 3, (8, 8): 3, (1, 1): 2})",
        most({(7, 7): 3, (4, 9): 3, (9, 5): 3, (6, 2): 3, (8, 8): 3, (1, 1): 2}),
        (4, 9),
        {
            "the smallest pair, whatever its count": (1, 1),
            "the largest of the pairs that are equally frequent: the smallest is asked for": (9, 5),
            "the first that was counted: which came first is no rule, since dicts are filled in any order": (7, 7),
            "the last that was counted": (8, 8),
            "the smallest by the second id: the first decides": (6, 2),
            "the count, and not the pair": 3,
        },
    )
    equal(
        "most_frequent_pair({(4, 9): 3, (4, 5): 3, (9, 2): 5}): one pair is more frequent than all others",
        most({(4, 9): 3, (4, 5): 3, (9, 2): 5}),
        (9, 2),
        {"the smallest pair, whatever its count": (4, 5)},
    )
    equal(
        "most_frequent_pair({(4, 9): 3, (4, 5): 3}): the first ids are equal, the second decide",
        most({(4, 9): 3, (4, 5): 3}),
        (4, 5),
    )
    equal(
        "most_frequent_pair({}): there is none",
        most({}),
        None,
    )
    equal(
        "most_frequent_pair({(1, 2): 0, (3, 4): 0}): pairs that are gone from the text",
        most({(1, 2): 0, (3, 4): 0}),
        None,
        {"a pair that stands nowhere: a count of 0 is none": (1, 2)},
    )


def slow_merge(ids: Sequence[int], pair: tuple[int, int], new_id: int) -> list[int]:
    """The first place of the pair, then the same in what stands behind it."""
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], new_id, *slow_merge(ids[i + 2 :], pair, new_id)]
    return list(ids)


@PROPERTIES
@given(st.lists(st.integers(0, 3), max_size=12), st.tuples(st.integers(0, 3), st.integers(0, 3)))
def check_counting_and_merging_any_ids(ids: list[int], pair: tuple[int, int]) -> None:
    words, times = [ids, ids[::-1]], [2, 3]
    equal(f"count_pairs({words}, {times})", dict(count_pairs(words, times)), dict(slow_counts(words, times)))
    expected = slow_merge(ids, pair, 256)
    equal(f"merge_pair({ids}, {pair}, 256)", merge_pair(ids, pair, 256), expected, source="by slow merging")


def test_a_merge_replaces_all_places_from_left_to_right():
    def merge(ids: list[int], pair: tuple[int, int]) -> list[int]:
        ends = {"index out of range": "The last id has no neighbour: look whether there is one before you read it."}
        return unharmed(f"merge_pair({ids}, {pair}, 256)", merge_pair, ids, pair, 256, hints=ends)

    once = "the first place only: all places of the pair are merged"
    kept = "the pair kept behind the new id: it stands for both"
    dropped = "the merged pair dropped: the new id has to be put in its place"
    none = "no merge at all: is a list compared with the pair? [1, 2] == (1, 2) is False in Python"
    equal(
        "merge_pair([3, 2, 1, 4, 1, 2, 2], (1, 2), 256)",
        merge([3, 2, 1, 4, 1, 2, 2], (1, 2)),
        [3, 2, 1, 4, 256, 2],
        {
            "only the first id compared: both have to be the pair's": [3, 2, 256, 256, 2],
            "only the second id compared: both have to be the pair's": [256, 1, 4, 256, 2],
            "the last id lost: what is not merged is kept": [3, 2, 1, 4, 256],
            "both orders merged: (2, 1) is not (1, 2)": [3, 256, 4, 256, 2],
            kept: [3, 2, 1, 4, 256, 2, 2],
            none: [3, 2, 1, 4, 1, 2, 2],
            dropped: [3, 2, 1, 4, 2],
        },
    )
    equal(
        "merge_pair([1, 2, 3, 1, 2, 4, 1, 2], (1, 2), 256)",
        merge([1, 2, 3, 1, 2, 4, 1, 2], (1, 2)),
        [256, 3, 256, 4, 256],
        {
            once: [256, 3, 1, 2, 4, 1, 2],
            kept: [256, 2, 3, 256, 2, 4, 256, 2],
            "the last place left out: a pair may stand at the very end": [256, 3, 256, 4, 1, 2],
            dropped: [3, 4],
        },
    )
    equal(
        "merge_pair([7, 7, 7, 8, 7, 7], (7, 7), 256): 7, 7, 7 has room for one token and a 7",
        merge([7, 7, 7, 8, 7, 7], (7, 7)),
        [256, 7, 8, 256],
        {
            "places that overlap merged both: after a merge go on behind its two ids": [256, 256, 8, 256],
            "from right to left: of places that overlap the left one is merged": [7, 256, 8, 256],
            once: [256, 7, 8, 7, 7],
            "an id lost behind a merge": [256, 8, 256],
        },
    )
    equal(
        "merge_pair([2, 1, 2, 1], (1, 2), 256): 2, 1 is another pair",
        merge([2, 1, 2, 1], (1, 2)),
        [2, 256, 1],
        {"both orders merged: (2, 1) is not (1, 2)": [256, 256], "from the pair turned around": [256, 256]},
    )
    equal("merge_pair([1, 2, 1], (1, 2), 256): the last id stays", merge([1, 2, 1], (1, 2)), [256, 1])
    equal("merge_pair([], (1, 2), 256)", merge([], (1, 2)), [])
    with doing("count_pairs and merge_pair of random ids"):
        check_counting_and_merging_any_ids()


# ------------------------------------------------------------------------ learning


def slow_training(
    pieces: dict[str, int],
    num_merges: int,
    weigh: Callable[[int], int] = lambda n: n,
    first_id: int = 256,
    choose: Callable[[Counter], Any] | None = None,
    least: int = 1,
    lost: bool = False,
    start: Callable[[str], list[int]] = byte_ids,
) -> list[tuple[int, int]]:
    """Counts everything anew before each merge; the options are mistakes."""
    words, times = [start(piece) for piece in pieces], [weigh(n) for n in pieces.values()]
    merges: list[tuple[int, int]] = []
    while len(merges) < num_merges:
        counts = slow_counts([[] if merges and lost and max(ids) > 255 else ids for ids in words], times)
        top = max(counts.values(), default=0)
        if top < least:
            break
        pair = choose(counts) if choose else min(pair for pair, n in counts.items() if n == top)
        words = [slow_merge(ids, pair, first_id + len(merges)) for ids in words]
        merges.append(pair)
    return merges


def in_one_row(pieces: dict[str, int], num_merges: int) -> list[tuple[int, int]]:
    return slow_training({"".join(piece * n for piece, n in pieces.items()): 1}, num_merges)


def spelled(merges: Sequence[Any]) -> list[str]:
    """What each merge makes, in letters; "?" for an id that no merge has made."""
    made = dict(LETTERS)
    for i, pair in enumerate(merges):
        made[256 + i] = "".join(made.get(part, "?") for part in pair) if isinstance(pair, tuple) else "?"
    return [made[256 + i] for i in range(len(merges))]


def learn(pieces: dict[str, int], num_merges: int, expected: list[tuple[int, int]] | None = None) -> list:
    """train_merges, spelled out, beside the slow training's, with its known mistakes."""
    what = f"train_merges({pieces}, num_merges={num_merges})"
    found = unharmed(what, train_merges, pieces, num_merges)
    require(isinstance(found, list), f"{what} returns a {type(found).__name__}, and not a list of pairs")
    right = slow_training(pieces, num_merges) if expected is None else expected
    if found == right:
        return found
    once = sorted({pair for ids in map(byte_ids, pieces) for pair in zip(ids, ids[1:], strict=False)})
    by_count = slow_counts([byte_ids(piece) for piece in pieces], list(pieces.values()))
    wrong = {
        "each piece counted once: it occurs as often as `pieces` says": slow_training(pieces, num_merges, lambda n: 1),
        "counts made once and never again: after a merge there are other pairs": sorted(
            once, key=lambda pair: (-by_count[pair], pair)
        )[:num_merges],
        "ids from 257 on: the first merge makes 256": slow_training(pieces, num_merges, first_id=257),
        "the bytes' values: a piece starts as the ids of its bytes, which `byte_ids` has": slow_training(
            pieces, num_merges, start=lambda piece: list(piece.encode())
        ),
        "ids from 0 on, which are bytes: the first merge makes 256": slow_training(pieces, num_merges, first_id=0),
        "all pieces in one row: no merge crosses the end of a piece": in_one_row(pieces, num_merges),
        "no merge of pairs that stand there once: it ends when no pair is left": slow_training(
            pieces, num_merges, least=2
        ),
        "one merge too few": slow_training(pieces, num_merges - 1),
        "one merge too many": slow_training(pieces, num_merges + 1),
        "the largest of equally frequent pairs": slow_training(
            pieces, num_merges, choose=lambda counts: max((n, pair) for pair, n in counts.items())[1]
        ),
        "the pair that was counted first among equally frequent ones": slow_training(
            pieces, num_merges, choose=lambda counts: counts.most_common(1)[0][0]
        ),
        "pieces forgotten once something was merged in them: the pairs that they now have are to be counted": (
            slow_training(pieces, num_merges, lost=True)
        ),
        "the rarest pair": slow_training(
            pieces, num_merges, choose=lambda counts: min((n, pair) for pair, n in counts.items())[1]
        ),
    }
    require(
        not found or found[0] != 256,
        f"{what} returns the new ids: what is asked for are the pairs that were merged",
    )
    if found not in wrong.values():
        explain(what, found, right, pieces)
    equal(what, found, right, wrong, source="counted anew before each merge")
    return found


def explain(what: str, found: list, right: list[tuple[int, int]], pieces: dict[str, int]) -> None:
    """Fail with how often the first wrong pair stands in the pieces when it is merged, and the right one."""
    first = next((i for i, (a, b) in enumerate(zip(found, right, strict=False)) if a != b), None)
    if first is None:
        return
    words = [byte_ids(piece) for piece in pieces]
    for i, pair in enumerate(right[:first]):
        words = [slow_merge(ids, pair, 256 + i) for ids in words]
    counts = slow_counts(words, list(pieces.values()))
    yours, ours = (counts.get(pairs[first], 0) for pairs in (found, right))
    looks = "another of the pairs that are equally frequent: the smallest comes first" if yours == ours else ""
    if yours < ours:
        looks = "counts that were not made anew where something was merged: old pairs are gone, and new ones are there"
    require(
        False,
        f"{what}: merge number {first} is {found[first]}, which stands there {yours} times then, where {right[first]} "
        f"stands there {ours} times.\nThat is what one gets from: {looks}.\n{found}",
    )


@PROPERTIES
@given(st.dictionaries(st.text("abé ", min_size=1, max_size=7), st.integers(1, 3), max_size=5), st.integers(0, 8))
def check_learning_from_any_pieces(pieces: dict[str, int], num_merges: int) -> None:
    learn(pieces, num_merges)


def test_merges_are_learned_in_order_from_two_sentences():
    found = learn(PIECES, 12)
    equal("what the twelve merges of the two sentences make", spelled(found), LEARNED)
    equal("the first two merges alone", spelled(learn(PIECES, 2)), LEARNED[:2])
    require(
        len(learn(PIECES, 50)) == 12,
        "after twelve merges each piece is one token, and no pair is left: fewer merges than were asked for",
    )
    equal("no merges", learn(PIECES, 0), [])
    equal("no text", learn({}, 3), [])
    learn({"aab": 2, "ab": 1, "b": 9}, 2)
    learn({"ab": 1, "bc": 3, "cd": 2}, 3)
    learn({"aaaa": 3, "aaab": 1, "é": 5}, 4)
    learn({"abab": 1, " ab": 3, "b a": 2}, 3)
    with doing("train_merges of random pieces"):
        check_learning_from_any_pieces()
