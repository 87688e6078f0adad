"""Sprint 08's milestones on encoding and decoding. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import shared
from course.oracles import doing, require
from shared.text.bpe import ByteLevelBPE
from shared.text.byte_pairs import apply_merges
from shared.text.pretokenize import byte_ids, bytes_to_unicode, split_pieces

PROPERTIES = settings(max_examples=25, deadline=None, derandomize=True, database=None)
# What "the dog bit the man" teaches, in the order of learning, each as the two tokens that are merged.
LEARNED = "h e, t he, a n, b i, d o, m an, ␣ the, ␣ bi, ␣ do, ␣ man, ␣bi t, ␣do g"
Merges = dict[tuple[int, int], int]


def merges_of(text: str) -> Merges:
    """{pair: id} of merges that are spelled as in LEARNED."""
    made = {chr(byte): i for i, byte in enumerate(bytes_to_unicode())}
    merges: Merges = {}
    for pair in text.replace("␣", " ").split(", "):
        first, second = pair[0 : pair.index(" ", 1)], pair[pair.index(" ", 1) + 1 :]
        merges[made[first], made[second]] = made[first + second] = 256 + len(merges)
    return merges


SENTENCE = merges_of(LEARNED)


def tokenizer(special: Sequence[str] = ("<|endoftext|>",)) -> ByteLevelBPE:
    return ByteLevelBPE(SENTENCE, special)


def equal(what: str, actual: Any, expected: Any, mistakes: dict[str, Any] | None = None, source: str = "by hand"):
    """Fail with `what` and the mistake that `actual` comes from, unless it equals `expected`."""
    require(actual is not None, f"{what} is None: is a `return` missing?")
    if type(actual) is type(expected) and actual == expected:
        return
    looks = [name for name, value in (mistakes or {}).items() if value == actual]
    told = "\nThat is what one gets from: " + ".\nOr from: ".join(looks) + "." if looks else ""
    pytest.fail(f"{what}:{told}\n{actual!r}\n{source}:\n{expected!r}", pytrace=False)


# ------------------------------------------------------------------------ merging by rank


def merged(ids: Sequence[int], pair: tuple[int, int], new_id: int, places: int = 99) -> list[int]:
    """The first `places` places of a pair replaced, one after the other."""
    ids = list(ids)
    for _ in range(places):
        i = next((i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair), None)
        if i is None:
            return ids
        ids[i : i + 2] = [new_id]
    return ids


def replayed(
    ids: Sequence[int], merges: Merges, choose: Callable = min, times: int = 999, places: int = 99
) -> list[int]:
    """Of the pairs that can be merged the one that `choose` takes, up to `times` times; by default the right way."""
    for _ in range(times):
        known = [(merges[pair], i, pair) for i, pair in enumerate(zip(ids, ids[1:], strict=False)) if pair in merges]
        if not known:
            break
        new_id, _, pair = choose(known)
        ids = merged(ids, pair, new_id, places)
    return list(ids)


def longest(ids: Sequence[int], merges: Merges) -> list[int]:
    """From the left, each time the longest token that fits."""
    spelling: dict[int, tuple[int, ...]] = {i: (i,) for i in range(256)}
    for (first, second), made in merges.items():
        spelling[made] = spelling[first] + spelling[second]
    found: list[int] = []
    while ids:
        fits = [i for i, parts in spelling.items() if tuple(ids[: len(parts)]) == parts] or [ids[0]]
        found.append(max(fits, key=lambda i: len(spelling.get(i, (i,)))))
        ids = ids[len(spelling.get(found[-1], (0,))) :]
    return found


def once_through(ids: Sequence[int], merges: Merges) -> list[int]:
    """Each merge made once, in the order in which the dict has them."""
    for pair, new_id in merges.items():
        ids = merged(ids, pair, new_id)
    return list(ids)


def most_often(known: list) -> Any:
    """The pair that stands there most often, of several the leftmost."""
    return max(known, key=lambda entry: (sum(other[0] == entry[0] for other in known), -entry[1]))


def most_often_and_first(known: list) -> Any:
    """The pair that stands there most often, of several the one learned first."""
    return max(known, key=lambda entry: (sum(other[0] == entry[0] for other in known), -entry[0]))


def in_order(known: list) -> Any:
    """The leftmost pair."""
    return min(known, key=lambda entry: entry[1])


def check_rank(ids: list[int], merges: Merges, name: str, expected: list[int] | None = None) -> None:
    """apply_merges, or what it looks like instead."""
    given_ids, given_merges = list(ids), dict(merges)
    with doing(f"apply_merges of {name}"):
        found = apply_merges(given_ids, given_merges)
    require(given_ids == ids and given_merges == merges, f"apply_merges of {name} changed what it was given")
    right = replayed(ids, merges) if expected is None else expected
    if found == right:
        return
    equal(
        f"apply_merges of {name}",
        found,
        right,
        {
            "the longest token that fits, from the left: merges are replayed in the order of learning": longest(
                ids, merges
            ),
            "one merge and no more: others are possible after it": replayed(ids, merges, times=1),
            "one place merged, and then no more: all places are": replayed(ids, merges, times=1, places=1),
            "the pair learned last before the others: the first comes first": replayed(ids, merges, max),
            "the leftmost pair that can be merged: the pair that was learned first comes first": replayed(
                ids, merges, in_order
            ),
            "the rightmost pair that can be merged: the pair that was learned first comes first": replayed(
                ids, merges, lambda known: max(known, key=lambda entry: entry[1])
            ),
            "the smallest pair of ids first: what counts is the id that the merge makes": replayed(
                ids, merges, lambda known: min(known, key=lambda entry: entry[2])
            ),
            "the most frequent pair first, as in training: here what counts is which was learned first": replayed(
                ids, merges, most_often
            ),
            "the most frequent of the pairs first: here what counts is which was learned first": replayed(
                ids, merges, most_often_and_first
            ),
            "the merges gone through once, in the order of the dict: what counts is the id that each makes": (
                once_through(ids, merges)
            ),
            "the leftmost pair, at that one place, and again": replayed(ids, merges, in_order, places=1),
            "no merges at all": list(ids),
            "as many merges as the first look finds: each merge may make others possible": replayed(
                ids, merges, times=sum(pair in merges for pair in zip(ids, ids[1:], strict=False))
            ),
        },
        source="by hand" if expected else "replayed one by one",
    )


@PROPERTIES
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8),
    st.lists(st.integers(0, 3), max_size=14),
)
def check_any_merges(pairs: list[tuple[int, int]], ids: list[int]) -> None:
    merges: Merges = {}
    for pair in pairs:  # of the ids 0 … 3 and of what was made before
        known = [part % (4 + len(merges)) for part in pair]
        first, second = (part if part < 4 else 252 + part for part in known)
        merges.setdefault((first, second), 256 + len(merges))
    check_rank(ids, merges, f"{ids} with {merges}")


def test_merges_are_replayed_in_the_order_in_which_they_were_learned():
    several = {(1, 2): 256, (2, 2): 257, (3, 3): 258, (256, 258): 259, (3, 2): 260}
    check_rank(
        [3, 2, 2, 3, 3, 2, 1, 2, 2], several, f"[3, 2, 2, 3, 3, 2, 1, 2, 2] with {several}", [3, 257, 258, 2, 256, 2]
    )
    few = {(2, 3): 256, (1, 2): 257, (256, 256): 258}
    check_rank([1, 2, 3, 2, 3], few, "[1, 2, 3, 2, 3], where (2, 3) was learned before (1, 2)", [1, 258])
    check_rank([3, 1, 2], {(1, 2): 257, (3, 1): 256}, "[3, 1, 2], merges not in order", [256, 2])
    check_rank(byte_ids(" bithe"), SENTENCE, "“␣bithe”", [263, 257])
    check_rank(byte_ids(" the"), SENTENCE, "“␣the”, where one merge makes the next possible", [262])
    check_rank([1, 2, 0, 1, 2], few, "a pair in two places", [257, 0, 257])
    check_rank([5], few, "one id", [5])
    check_rank([], few, "nothing", [])
    check_rank([4, 5, 6], few, "ids that no merge knows", [4, 5, 6])
    with doing("apply_merges of random ids"):
        check_any_merges()


# ------------------------------------------------------------------------ any text


def bytes_of(made: ByteLevelBPE, ids: Any, *options: bool) -> Any:
    with doing(f"decode_bytes({ids!r})"):
        return made.decode_bytes(ids, *options)


def raised(kind: type[Exception], call: Callable[[], Any]) -> str:
    """The text of an exception of this kind, "" where none comes."""
    try:
        call()
    except NotImplementedError:
        raise
    except kind as error:
        return str(error) or "it"
    except Exception as error:
        pytest.fail(f"{kind.__name__} was expected, and {type(error).__name__} came: {error}", pytrace=False)
    return ""


def check_pieces() -> None:
    made = tokenizer()
    for piece, expected, wrong in (
        ("cat", [66, 64, 83], {"the bytes' values: the id of a byte is its place in the table": [99, 97, 116]}),
        (
            "né",
            [77, 127, 102],
            {
                "code points: a character above 127 is several bytes": [77, 233],
                "one byte for each character (Latin-1): UTF-8 writes é with two": [77, 165],
                "the bytes' values: the id of a byte is its place in the table": [110, 195, 169],
                "a character that UTF-8 writes with several bytes dropped": [77],
            },
        ),
        (" dog", [267], {"bytes that are not merged": byte_ids(" dog")}),
        ("thethe", [257, 257], {"bytes that are not merged": byte_ids("thethe")}),
        ("", [], {}),
    ):
        with doing(f"encode_piece({piece!r})"):
            found = made.encode_piece(piece)
        equal(f"encode_piece({piece!r})", found, expected, wrong)
    with doing("encode_piece of a piece of 1,200 letters"):
        found = made.encode_piece("the" * 400)
    equal("encode_piece of “the”, 400 times in a row", found, [257] * 400)


def check_bytes() -> None:
    made = tokenizer(("<|endoftext|>", "<pad>"))
    coffee = byte_ids("☕")
    found = bytes_of(made, [257, 267, 268, 0])
    require(
        isinstance(found, bytes),
        f"decode_bytes returns a {type(found).__name__}, and not bytes: whether they are a text `decode` finds out",
    )
    equal(
        "decode_bytes of “the”, “␣dog”, <|endoftext|> and “!”",
        found,
        b"the dog<|endoftext|>!",
        {
            "special tokens left out, though skip_specials is False": b"the dog!",
            "spaces between the tokens: their own spaces are in them": b"the  dog <|endoftext|> !",
            "the last token lost": b"the dog<|endoftext|>",
        },
    )
    equal(
        "the same with skip_specials=True, and <pad> at the end",
        bytes_of(made, [257, 267, 268, 0, 269], True),
        b"the dog!",
        {
            "special tokens kept": b"the dog<|endoftext|>!<pad>",
            "the last special token alone left out": b"the dog<|endoftext|>!",
            "the first special token alone left out": b"the dog!<pad>",
            "merges left out with the special tokens: only the last ids are special": b"!",
            "all behind a special token left out": b"the dog",
        },
    )
    equal(
        "decode_bytes of the first two bytes of “☕”, half a character",
        bytes_of(made, coffee[:2]),
        "☕".encode()[:2],
        {"bytes made a text on the way, where two of three are none": b"\xef\xbf\xbd" * 2},
    )
    equal("decode_bytes of an empty row", bytes_of(made, []), b"")
    equal("decode_bytes of a Tensor", bytes_of(made, shared.tensor([257, 0])), b"the!")
    for wrong in (-1, 270):
        said = raised(IndexError, lambda wrong=wrong: made.decode_bytes([0, wrong]))
        looks = "a negative index counts from the end, and is no token" if wrong < 0 else "there is no such token"
        require(
            said, f"decode_bytes([0, {wrong}]) raises no IndexError: {looks}, and the docstring of decode promises one"
        )
        require(str(wrong) in said, f"the IndexError for id {wrong} does not name the id, but says: {said}")
    for wrong in (-1, 300):
        said = raised(IndexError, lambda wrong=wrong: made.decode_bytes([0, wrong], skip_specials=True))
        require(
            said,
            f"decode_bytes([0, {wrong}], skip_specials=True) raises no IndexError: whether there is such a token comes "
            "before whether it is special",
        )
    for name, ids in (("a Tensor", shared.tensor([[257, 0]])), ("an array", shared.tensor([[257, 0]]).numpy())):
        what = f"decode_bytes of {name} of shape (1, 2), a batch"
        row = "ids are one row, and `_integers(ids)` tells what is none"
        try:
            found = made.decode_bytes(ids)
        except NotImplementedError:
            raise
        except TypeError as error:
            require("row" in str(error), f"{what} says: {error}; {row}")
        except Exception as error:
            pytest.fail(f"{what} ends in {type(error).__name__}: {error}, and not in a TypeError: {row}", pytrace=False)
        else:
            pytest.fail(f"{what} gives {found!r}, and no TypeError: {row}", pytrace=False)


@PROPERTIES
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
@example("👩‍🚀 é e\u0301 ☕\x00\n\t  the dog 10²")
@example("<|endoftext|> <pad>")
def check_any_text(text: str) -> None:
    made = tokenizer()
    ids = made.encode(text)
    equal(f"decode_bytes(encode({text!r}))", made.decode_bytes(ids), text.encode("utf-8"), source="the text's bytes")
    equal(f"decode(encode({text!r}))", made.decode(ids), text, source="the text")
    require(all(type(i) is int for i in ids), f"encode({text!r}) is {ids}, which are not all of type int")


def test_any_text_is_encoded_and_comes_back():
    check_pieces()
    check_bytes()
    with doing("encode and decode of any Unicode text"):
        check_any_text()


# ------------------------------------------------------------------------ special tokens


def ordinary(made: ByteLevelBPE, text: str) -> list[int]:
    """Piece by piece, replayed."""
    return [i for piece in split_pieces(text) for i in replayed(byte_ids(piece), made.merges)]


def check_encode(made: ByteLevelBPE, text: str, allowed: Any, expected: list[int], mistakes: dict[str, Any]) -> None:
    what = f"encode({text!r}{f', {allowed!r}' if allowed else ''})"
    escape = "A special token has marks in it that mean something in a regular expression, | and [: re.escape."
    with doing(what, {"'<'": escape, "'|'": escape, "'endoftext'": escape, "KeyError": "", "None": escape}):
        found = made.encode(text, allowed) if allowed else made.encode(text)
    if isinstance(found, list) and None in found:
        pytest.fail(f"{what} has a None in it: {found}. {escape}", pytrace=False)
    equal(what, found, expected, mistakes, source="piece by piece")


def test_special_tokens_come_only_where_they_are_allowed():
    made = tokenizer(("<a>", "<a><b>", "<|endoftext|>"))
    short, long, end = (made.special_tokens[name] for name in ("<a>", "<a><b>", "<|endoftext|>"))
    the, dog, man = 257, 267, 265
    check_encode(
        made,
        "the dog<|endoftext|>",
        None,
        [the, dog, *ordinary(made, "<|endoftext|>")],
        {
            "a special token made of what a user wrote: text gives one only where it is allowed": [the, dog, end],
            "what looks like a special token removed from the text": [the, dog],
            "bytes that are not cut into pieces first": replayed(byte_ids("the dog<|endoftext|>"), made.merges),
            "every character by itself: where no name is allowed there is nothing to cut at, and a pattern without "
            "names fits between all characters": byte_ids("the dog<|endoftext|>"),
        },
    )
    # "thedog" is one piece, "the dog" two
    check_encode(made, "the dog", None, [the, dog], {})
    text = "the<|endoftext|> dog<|endoftext|>"
    check_encode(
        made,
        text,
        {"<|endoftext|>"},
        [the, end, dog, end],
        {
            "the first special token alone: all of them count": [the, end, *ordinary(made, " dog<|endoftext|>")],
            "a special token that is allowed, encoded as text": ordinary(made, text),
            "special tokens dropped: they have ids of their own": [the, dog],
            "the special tokens alone, without the text between": [end, end],
            "the last part alone": [end],
            "what stands before the first special token lost": [end, dog, end],
            "all special tokens at the end": [the, dog, end, end],
            "blanks around special tokens stripped: every character counts": [the, end, *ordinary(made, "dog"), end],
        },
    )
    check_encode(
        made,
        "<a> man<|endoftext|>",
        {"<a>"},
        [short, man, *ordinary(made, "<|endoftext|>")],
        {
            "all special tokens, where one is allowed": [short, man, end],
            "special tokens encoded as text": ordinary(made, "<a> man<|endoftext|>"),
        },
    )
    check_encode(
        made,
        "<a><b><a> dog",
        "all",
        [long, short, dog],
        {
            "the shorter of two special tokens that begin alike": [short, *ordinary(made, "<b>"), short, dog],
            "special tokens encoded as text": ordinary(made, "<a><b><a> dog"),
        },
    )
    both = tokenizer(("<a><b>", "<b><c><d>"))
    begun, longer = both.special_tokens.values()
    check_encode(
        both,
        "<a><b><c><d>",
        "all",
        [begun, *ordinary(both, "<c><d>")],
        {
            "one name after the other, the longest first: names are found from left to right, and here <a><b> begins "
            "before <b><c><d> does": [*ordinary(both, "<a>"), longer],
        },
    )
    cut = tokenizer(("<a>",))
    # "␣bit" would be one token; with a special token in the middle it is two texts
    check_encode(cut, " bi<a>t", "all", [263, 268, *byte_ids("t")], {"the text around it joined": [266, 268]})
    across = ByteLevelBPE({**SENTENCE, (256, 220): 268}, ("<a>",))
    for allowed in (None, {"<a>"}):
        check_encode(
            across,
            "he he" if not allowed else "he he<a>",
            allowed,
            [256, 220, 256] if not allowed else [256, 220, 256, 269],
            {"a merge across a cut": replayed(byte_ids("he he"), across.merges) + ([269] if allowed else [])},
        )
    said = raised(ValueError, lambda: made.encode("the", {"<c>"}))
    require(said, "encode with allowed_special={'<c>'}, which is no special token here, raises no ValueError")
