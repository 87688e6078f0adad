"""Sprint 05's milestone on vocabularies. A wrong answer that is a known mistake is named in the message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import shared
from course.oracles import check_names, doing, require
from shared.text import PAD, UNK, CharVocabulary, WordVocabulary, keep_frequent

DOG = "the dog bit the man"
COUNTS = {"dog": 1, "ant": 2, "man": 1, "the": 2, "bit": 1, "cat": 3}  # ties, and not in the order of the alphabet
RIGHT = ["cat", "ant", "the", "bit", "dog", "man"]
BACK = {
    "expected str instance": "`join` joins tokens: decode looks up `self.itos[i]` for each id first.",
    "list indices must be": "`self._integers(ids)` makes plain integers of a list, an array or a Tensor.",
    "unhashable": "`self._integers(ids)` makes plain integers of a list, an array or a Tensor.",
}


def same(what: str, actual: Any, expected: list, mistakes: dict[str, list]) -> None:
    """A list as it has to be, or what it looks like."""
    require(isinstance(actual, list), f"{what}: a list is wanted, but it is {type(actual).__name__}: {actual!r}")
    check_names(what, actual, expected, mistakes)


def refused(call: Callable[[], object], kind: type[Exception], what: str, why: str) -> str:
    """The text of the error of that kind which `call` has to end in."""
    try:
        got = call()
    except NotImplementedError:
        raise
    except kind as error:
        return str(error)
    except Exception as error:
        require(False, f"{what} ends in {type(error).__name__}, where {kind.__name__} is expected: {why}")
    require(False, f"{what} should be refused with {kind.__name__}, but gives {got!r}: {why}")
    return ""


def check_kept() -> None:
    """Which tokens are kept, and in which order."""
    with doing("keep_frequent"):
        found = keep_frequent(COUNTS)
    same(
        f"keep_frequent({COUNTS})",
        found,
        RIGHT,
        {
            "equally frequent tokens in the order in which they came: another text would give other ids": [
                token for token, _ in Counter(COUNTS).most_common()
            ],
            "the rarest first": sorted(COUNTS, key=lambda token: (COUNTS[token], token)),
            "equally frequent tokens from z to a: reverse=True turns both keys round": sorted(
                COUNTS, key=lambda token: (COUNTS[token], token), reverse=True
            ),
            "the order of the alphabet, whatever the counts": sorted(COUNTS),
            "`>` for `>=`: a token that occurs exactly min_freq times is kept, and min_freq is 1": RIGHT[:3],
        },
    )
    same(
        "keep_frequent of the same with min_freq=2",
        keep_frequent(COUNTS, min_freq=2),
        RIGHT[:3],
        {
            "`>` for `>=`: a token that occurs exactly min_freq times is kept": RIGHT[:1],
            "a min_freq that is not looked at": RIGHT,
            "the tokens that are too rare": RIGHT[3:],
        },
    )
    same(
        "keep_frequent of the same with max_size=4",
        keep_frequent(COUNTS, max_size=4),
        RIGHT[:4],
        {
            "a max_size that is not looked at": RIGHT,
            "the rarest ones: the most frequent are kept": RIGHT[-4:],
            "one token too many": RIGHT[:5],
            "one token too few": RIGHT[:3],
            "the first ones of the counts, sorted afterwards: sort first, then cut": ["ant", "the", "dog", "man"],
        },
    )
    same(
        "keep_frequent of the same with max_size=0",
        keep_frequent(COUNTS, max_size=0),
        [],
        {"0 taken for None: `if max_size` is False for both, and None alone means that there is no limit": RIGHT},
    )
    for options in ({"min_freq": 0}, {"max_size": -1}):
        refused(
            lambda options=options: keep_frequent(COUNTS, **options),
            ValueError,
            f"keep_frequent with {options}",
            "a count is at least 1, and a size at least 0",
        )


def check_ids() -> None:
    """Text to ids."""
    words = WordVocabulary(("the", "dog", "bit", "man"), specials=())
    with doing(
        "encode of the sentence",
        {"token 'the', number 0": "its id 0 counts as False: `get(token) or …` takes it for missing."},
    ):
        found = words.encode(DOG)
    same(
        f"the ids of {DOG!r}, with the = 0, dog = 1, bit = 2, man = 3",
        found,
        [0, 1, 2, 0, 3],
        {
            "an id of 0 taken for no id: `0 or unk_id` is unk_id, since 0 counts as False": [None, 1, 2, None, 3],
            "each word once: a text has as many ids as it has tokens": [0, 1, 2, 3],
            "one more: ids count from 0": [1, 2, 3, 1, 4],
        },
    )
    with doing("encode of a list of tokens", {"": "A list holds the tokens already; only a string is split."}):
        found = words.encode(["man", "dog"])
    same("the ids of the tokens ['man', 'dog']", found, [3, 1], {})
    unknown = WordVocabulary(("the", "dog", "bit", "man"), specials=(PAD, UNK))
    with doing("encode with an unknown word"):
        found = unknown.encode("the cat bit the man")
    same(
        "the ids of 'the cat bit the man', with <pad> = 0, <unk> = 1, the = 2, dog = 3, bit = 4, man = 5",
        found,
        [2, 1, 4, 2, 5],
        {
            "an unknown word left out: the text becomes shorter, and nobody knows where a word was": [2, 4, 2, 5],
            "an unknown word as padding: it has the id of <unk>": [2, 0, 4, 2, 5],
            "ids without the special tokens, which come first": [0, 1, 2, 0, 3],
        },
    )
    marked = WordVocabulary(("the", "dog"), specials=(PAD, UNK), splitter="spaces")
    same(
        "the ids of 'the <pad> dog', a text in which somebody wrote <pad>",
        marked.encode("the <pad> dog"),
        [2, 1, 3],
        {"a special token out of text: whoever writes <pad> hides what follows. `text_ids` lacks them": [2, 0, 3]},
    )
    why = "without <unk> an unknown token cannot be encoded"
    text = refused(lambda: words.encode("the cat and the dog"), ValueError, "encode of an unknown word", why)
    require(
        "'cat'" in text and "1" in text,
        "the error names the first unknown token and its place, 'cat', number 1: self._refuse(tokens, 1); it says "
        f"{text!r}",
    )


def check_text() -> None:
    """Ids to text."""
    vocabulary = WordVocabulary(("the", "dog", "bit", "man"), specials=(PAD, UNK))
    ids = [2, 3, 4, 2, 5]
    for kind, given in (("a list", ids), ("an array", np.array(ids)), ("a Tensor", shared.tensor(ids))):
        with doing(f"decode of {kind}", BACK):
            found = vocabulary.decode(given)
        check_names(
            f"the text of {ids} as {kind}",
            [found],
            [DOG],
            {
                "tokens joined without a space: `self.join` knows how a text is put together": [DOG.replace(" ", "")],
                "a list of tokens: join makes a text of them": [DOG.split()],  # type: ignore[list-item]
                "special tokens that were not counted: itos has them first": ["bit man"],
            },
        )
    padded = [*ids, 1, 0, 0]
    for skip, right, wrong in (
        (False, f"{DOG} <unk> <pad> <pad>", {"special tokens left out, though skip_specials is False": [DOG]}),
        (
            True,
            DOG,
            {
                "special tokens that stay, though skip_specials is True": [f"{DOG} <unk> <pad> <pad>"],
                "only <pad> left out: <unk> is special too": [f"{DOG} <unk>"],
                "the first word taken for a special one: specials have the ids 0 … len(specials) − 1": ["dog bit man"],
                "an end at the first special token": [" ".join(DOG.split()[:5])],
            },
        ),
    ):
        with doing(f"decode with skip_specials={skip}", BACK):
            found = vocabulary.decode(padded, skip_specials=skip)
        check_names(f"the text of {padded} with skip_specials={skip}", [found], [right], wrong)
    check_names(
        "the text of [2, 0, 3] with skip_specials=True",
        [vocabulary.decode([2, 0, 3], skip_specials=True)],
        ["the dog"],
        {"an end at the first special token": ["the"]},
    )
    for bad, why in (
        ([2, -1], "Python counts −1 from the end, and the last word comes out of a mistake"),
        ([2, 6], "there are the ids 0 … 5"),
    ):
        refused(lambda bad=bad: vocabulary.decode(bad), IndexError, f"decode of {bad}", why)
        refused(
            lambda bad=bad: vocabulary.decode(bad, skip_specials=True),
            IndexError,
            f"decode of {bad} with skip_specials=True",
            why,
        )
    refused(lambda: vocabulary.decode([1.0]), TypeError, "decode of 1.0", "`self._integers(ids)` takes integers only")


def test_text_becomes_ids_and_comes_back():
    check_kept()
    check_ids()
    check_text()
    text = "To be, or not to be: that is the question.\n"
    with doing("a vocabulary of characters"):
        letters = CharVocabulary.from_text(text)
        ids = letters.encode(text)
        back = letters.decode(shared.tensor(ids))
    require(
        letters.itos == sorted(set(text)) and ids == [sorted(set(text)).index(letter) for letter in text],
        "the ids of characters are not their places in the order of code points",
    )
    require(back == text, f"decode(encode(text)) is {back!r}, and should be the text as it was, {text!r}")
    with doing("a vocabulary of words, of which rare ones are left out"):
        words = WordVocabulary.from_text(text.lower(), min_freq=2, specials=(UNK,))
        back = words.decode(words.encode("to be or to do"))
    check_names("the words that occur at least twice", words.itos, [UNK, "be", "to"], {"all words": []})
    check_names("'to be or to do' there and back, of which two words are unknown", [back], ["to be <unk> to <unk>"], {})
