"""Vocabularies: exact round trips, what is counted and kept, special tokens, files."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import shared
from shared.text import PAD, UNK, CharVocabulary, Vocabulary, WordVocabulary, keep_frequent, split_words

ANY_TEXT = st.text(st.characters(), max_size=60)  # all of Unicode, halves of surrogate pairs included


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n ", []),
        ("To be, or not to be.", ["To", "be", ",", "or", "not", "to", "be", "."]),
        ("don't 'quote' dogs' o’er", ["don't", "'", "quote", "'", "dogs", "'", "o’er"]),
        ("3.14 a_b x-y", ["3", ".", "14", "a_b", "x", "-", "y"]),
        ("Größe naïve\u00a0été", ["Größe", "naïve", "été"]),
        ("wait...!?", ["wait", ".", ".", ".", "!", "?"]),
        ("<unk>", ["<", "unk", ">"]),
    ],
)
def test_words_by_the_rule(text, words):
    assert split_words(text) == words


@given(ANY_TEXT)
def test_splitting_loses_white_space_only(text):
    assert "".join(split_words(text)) == "".join(text.split())


# ---------------------------------------------------------------- which tokens are kept


def test_the_most_frequent_are_kept_and_ties_are_sorted():
    counts = {"c": 3, "b": 1, "a": 1, "d": 7, "e": 3}
    assert keep_frequent(counts) == ["d", "c", "e", "a", "b"]
    assert keep_frequent(counts, min_freq=3) == ["d", "c", "e"]
    assert keep_frequent(counts, max_size=2) == ["d", "c"]
    assert keep_frequent(counts, max_size=0) == []
    for wrong in ({"min_freq": 0}, {"max_size": -1}):
        with pytest.raises(ValueError, match="expected min_freq of at least 1 and max_size of at least 0"):
            keep_frequent(counts, **wrong)


@given(st.lists(st.sampled_from("abcdefg")), st.integers(1, 4), st.none() | st.integers(0, 8))
def test_what_is_kept_is_more_frequent_than_what_is_not(tokens, min_freq, max_size):
    counts = Counter(tokens)
    kept = keep_frequent(counts, min_freq, max_size)
    assert len(set(kept)) == len(kept) <= (8 if max_size is None else max_size)
    assert all(counts[t] >= min_freq for t in kept)
    left = [t for t in counts if t not in kept and counts[t] >= min_freq]
    assert not left or max_size == len(kept)
    assert all(counts[k] > counts[t] or (counts[k] == counts[t] and k < t) for k in kept for t in left)


def test_characters_are_in_the_order_of_code_points():
    vocabulary = CharVocabulary.from_text("hello, Wörld\n")
    assert vocabulary.itos == sorted(set("hello, Wörld\n"))
    assert vocabulary.stoi == {c: i for i, c in enumerate(vocabulary.itos)}
    few = CharVocabulary.from_text("aaabbc", max_size=3, specials=(UNK,))
    assert few.itos == [UNK, "a", "b"], "the specials count"
    assert CharVocabulary.from_text("zzzaab", min_freq=2).itos == ["a", "z"]


def test_characters_have_the_ids_that_the_dataset_gives_them():
    text = "To be, or not to be"
    dataset = shared.data.CharDataset(text, block_size=4)
    vocabulary = CharVocabulary.from_text(text)
    assert vocabulary.itos == dataset.chars and vocabulary.encode(text) == dataset.encode(text)


def test_words_are_in_the_order_of_frequency():
    vocabulary = WordVocabulary.from_text("b a c c. c a", specials=("<pad>", "<unk>"))
    assert vocabulary.itos == ["<pad>", "<unk>", "c", "a", ".", "b"]
    assert WordVocabulary.from_text("b a c c. c a", min_freq=2).itos == ["<unk>", "c", "a"]
    assert WordVocabulary.from_text("b a c c. c a", max_size=2).itos == ["<unk>", "c"]


def test_several_texts_are_counted_together():
    assert WordVocabulary.from_text(["b a", "b"], specials=()).itos == ["b", "a"]
    assert CharVocabulary.from_text(iter(["xy", "yz"])).itos == ["x", "y", "z"]
    with pytest.raises(TypeError, match="expected a string, or several of them, .* but got bytes"):
        CharVocabulary.from_text([b"ab"])


def test_case_and_splitter():
    assert WordVocabulary.from_text("A a b's", lower=True, specials=()).itos == ["a", "b's"]
    spaces = WordVocabulary.from_text("x@-@y <unk> . x@-@y", splitter="spaces")
    assert spaces.itos == ["<unk>", "x@-@y", "."]
    assert spaces.encode("<unk> x@-@y X") == [0, 1, 0]
    assert spaces.decode([1, 2]) == "x@-@y ."
    with pytest.raises(ValueError, match="splitter to be 'words' or 'spaces', but got 'bpe'"):
        WordVocabulary([], splitter="bpe")


# ---------------------------------------------------------------- there and back


@settings(max_examples=200)
@given(ANY_TEXT, ANY_TEXT)
@example("e\u0301 é \ud800 \U0001f600\r\n\x00", "")
def test_characters_come_back_exactly(text, more):
    vocabulary = CharVocabulary.from_text([text, more], specials=(PAD, UNK))
    ids = vocabulary.encode(text)
    assert len(ids) == len(text) and all(2 <= i < len(vocabulary) for i in ids)
    assert vocabulary.decode(ids) == text


@given(st.lists(st.sampled_from(["to", "be", "or", "not", "don't", ","])))
def test_words_come_back_with_single_spaces(words):
    vocabulary = WordVocabulary.from_text("to be or not don't ,")
    assert vocabulary.decode(vocabulary.encode("  ".join(words))) == " ".join(words)
    assert vocabulary.encode(words) == vocabulary.encode(" ".join(words)), "a list is of tokens already"


def test_ids_come_as_lists_arrays_and_tensors():
    vocabulary = CharVocabulary.from_text("abc")
    for ids in ([2, 0], (2, 0), np.array([2, 0], np.int32), shared.tensor([2, 0]), [np.int64(2), 0], iter([2, 0])):
        assert vocabulary.decode(ids) == "ca"
    assert vocabulary.decode([]) == vocabulary.decode(shared.tensor([], dtype=shared.long)) == ""


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (shared.zeros(2), r"Tensor of shape \(2,\)"),
        (np.zeros((2, 2), int), r"ndarray of shape \(2, 2\)"),
        ([0.5], "list"),
        (["a"], "list"),
        (3, "int"),
        (shared.tensor(3), r"Tensor of shape \(\)"),
    ],
)
def test_what_is_no_row_of_integers_is_refused(wrong, named):
    with pytest.raises(TypeError, match=f"CharVocabulary: expected a row of integers to decode, but got {named}"):
        CharVocabulary.from_text("abcd").decode(wrong)


@pytest.mark.parametrize("wrong", [-1, 3, 2**70])
def test_an_id_that_names_no_token_is_an_error(wrong):
    with pytest.raises(IndexError, match=f"id {wrong} is not in 0 … 2"):
        CharVocabulary.from_text("abc").decode([0, wrong])


# ---------------------------------------------------------------- unknown and special tokens


def test_unknown_tokens_become_unk_or_are_an_error():
    assert CharVocabulary.from_text("abc", specials=(UNK,)).encode("axb") == [1, 0, 2]
    assert WordVocabulary.from_text("the cat").encode("the dog") == [2, 0]
    with pytest.raises(ValueError, match=r"CharVocabulary: token 'x', number 1 of this text, is not among the 3 that"):
        CharVocabulary.from_text("abc").encode("axb")
    with pytest.raises(ValueError, match="token 'dog', number 1 .* with '<unk>' among its specials takes unknown"):
        WordVocabulary.from_text("the cat", specials=("<pad>",)).encode("the dog")
    assert CharVocabulary.from_text("abc").unk_id is None, "and id 0 is an ordinary character"


def test_special_tokens_never_come_out_of_text():
    names = ("<pad>", "<unk>", "<bos>", "<eos>", ".")
    characters = CharVocabulary.from_text("a <pad>.", specials=names)
    assert not set(characters.encode("<pad> <eos>.")) & {0, 2, 3, 4}
    words = WordVocabulary.from_text("a <pad> .", specials=names, splitter="spaces")
    assert words.itos == [*names, "a"]
    assert words.encode("<pad> a <eos> .") == [1, 5, 1, 1]
    with pytest.raises(ValueError, match=r"token '\.', number 1"):
        CharVocabulary.from_text("a.", specials=(".",)).encode("a.")


def test_ids_of_special_tokens():
    vocabulary = WordVocabulary.from_text("a b", specials=("<unk>", "<pad>", "<eos>", "<mask>"))
    assert (vocabulary.unk_id, vocabulary.pad_id, vocabulary.eos_id, vocabulary.bos_id) == (0, 1, 2, None)
    assert vocabulary["<mask>"] == 3 and vocabulary.itos[3] == "<mask>"
    assert vocabulary.decode([4, 2, 1]) == "a <eos> <pad>"
    assert vocabulary.decode([4, 2, 1, 5], skip_specials=True) == "a b"
    assert WordVocabulary(["<pad>"], specials=()).pad_id is None, "a word like any other"


def test_it_is_a_container_of_tokens():
    vocabulary = WordVocabulary.from_text("the cat", specials=())
    assert len(vocabulary) == 2 and "cat" in vocabulary and "dog" not in vocabulary and vocabulary["the"] == 1
    assert repr(vocabulary) == "WordVocabulary(2 tokens)"
    assert repr(CharVocabulary("ab", (PAD,))) == "CharVocabulary(3 tokens, 1 of them special)"
    with pytest.raises(KeyError, match="'dog' is not among the 2 tokens of this WordVocabulary"):
        vocabulary["dog"]


def test_equality_is_of_kind_tokens_and_options():
    one = WordVocabulary(["a", "b"], ())
    assert one == WordVocabulary(["a", "b"], ())
    assert one != WordVocabulary(["b", "a"], ()) and one != WordVocabulary(["b"], ("a",))
    assert one != WordVocabulary(["a", "b"], (), lower=True) and one != CharVocabulary(["a", "b"]) and one != ["a", "b"]


def test_tokens_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"every token must be there once, but these come more often: \['a'\]"):
        CharVocabulary(["a", "b", "a"])
    with pytest.raises(ValueError, match=r"come more often: \['<pad>'\]"):
        WordVocabulary(["x"], ("<pad>", "<pad>"))
    with pytest.raises(ValueError, match="expected single characters, but got 'ab'"):
        CharVocabulary(["ab"])
    with pytest.raises(ValueError, match="strings, not empty, but number 1 is ''"):
        WordVocabulary([""])
    with pytest.raises(ValueError, match="strings, not empty, but number 0 is 7"):
        CharVocabulary([7])
    with pytest.raises(ValueError, match=r"max_size=1 leaves no room for the 2 special tokens \['<pad>', '<unk>'\]"):
        CharVocabulary.from_text("abc", max_size=1, specials=(PAD, UNK))


# ---------------------------------------------------------------- files


@settings(max_examples=50)
@given(st.lists(ANY_TEXT.filter(bool), unique=True), st.booleans())
@example(["\ud83d\ude00", "\U0001f600"], True)
def test_files_give_the_same_vocabulary_back(tmp_path_factory, words, lower):
    path = tmp_path_factory.mktemp("vocabulary") / "v.json"
    specials = [name for name in (PAD, UNK) if name not in words]
    for vocabulary in (
        WordVocabulary(words, specials, "spaces", lower),
        CharVocabulary(sorted(set("".join(words))), specials),
    ):
        vocabulary.save(path)
        for found in (Vocabulary.load(path), type(vocabulary).load(str(path))):
            assert found == vocabulary and type(found) is type(vocabulary)
            assert found.itos == vocabulary.itos and found.unk_id == vocabulary.unk_id


def test_the_file_can_be_read(tmp_path):
    WordVocabulary(["Größe", "a"]).save(tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8")) == {
        "format": "shared.text vocabulary",
        "version": 1,
        "kind": "WordVocabulary",
        "options": {"splitter": "words", "lower": False},
        "specials": ["<unk>"],
        "tokens": ["Größe", "a"],
    }
    assert "Größe" in (tmp_path / "v.json").read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["v.json"], "nothing else is left behind"


def written(path, **changes):
    CharVocabulary.from_text("abc").save(path)
    contents = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in contents.items() if value != "gone"}))
    return path


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "safetensors"}, "is JSON, but no vocabulary: it has no entry 'format'"),
        ({"version": 2}, "has version 2 of the format; this program reads version 1"),
        ({"kind": "BytePairVocabulary"}, "holds a 'BytePairVocabulary', but a Vocabulary was expected"),
        ({"kind": ["CharVocabulary"]}, "but a Vocabulary was expected"),
        ({"tokens": "abc"}, "is a damaged vocabulary: TypeError: expected a list of tokens, but got str"),
        ({"tokens": "gone"}, "is a damaged vocabulary: KeyError: 'tokens'"),
        ({"tokens": ["a", "a"]}, "is a damaged vocabulary: ValueError: .* come more often"),
        ({"tokens": ["a", 3]}, "is a damaged vocabulary: ValueError: .* number 1 is 3"),
        ({"tokens": ["ab"]}, "is a damaged vocabulary: ValueError: .* single characters"),
        ({"specials": None}, "expected a list of specials, but got NoneType"),
        ({"options": {"lower": True}}, "is a damaged vocabulary: TypeError"),
        ({"options": 3}, "is a damaged vocabulary: TypeError"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, changes, named):
    path = written(tmp_path / "v.json", **changes)
    with pytest.raises(ValueError, match=f"v.json .*{named}"):
        Vocabulary.load(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    CharVocabulary.from_text("abc").save(tmp_path / "v.json")
    with pytest.raises(ValueError, match="v.json holds a 'CharVocabulary', but a WordVocabulary was expected"):
        WordVocabulary.load(tmp_path / "v.json")


def test_a_truncated_or_foreign_file_never_loads(tmp_path):
    path = tmp_path / "v.json"
    WordVocabulary.from_text("to be or not to be, that is the question", specials=(PAD, UNK)).save(path)
    whole = path.read_bytes()
    for end in range(len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="v.json is not a vocabulary: not valid JSON"):
            Vocabulary.load(path)
    for foreign in (b"\x80\x04\x95", b"\xff\xfe[]", b"[" * 100_000):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match="v.json is not a vocabulary"):
            Vocabulary.load(path)
    path.write_bytes(b"[1, 2]")
    with pytest.raises(ValueError, match="v.json is JSON, but no vocabulary"):
        Vocabulary.load(path)
    with pytest.raises(FileNotFoundError):
        Vocabulary.load(tmp_path / "other.json")


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "v.json"
    old = CharVocabulary.from_text("abc")
    old.save(path)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        CharVocabulary.from_text("xyz").save(path)
    assert CharVocabulary.load(path) == old and os.listdir(tmp_path) == ["v.json"]
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere; make it first"):
        old.save(tmp_path / "nowhere" / "v.json")


def test_a_class_of_ones_own_can_be_saved_and_loaded(tmp_path):
    class Lines(Vocabulary):
        def split(self, text):
            return text.splitlines()

        def join(self, tokens):
            return "\n".join(tokens)

    lines = Lines(["a b", "c"])
    lines.save(tmp_path / "v.json")
    found = Lines.load(tmp_path / "v.json")
    assert found == lines and found.decode(found.encode("c\na b")) == "c\na b"
    with pytest.raises(NotImplementedError, match="Vocabulary must write split"):
        Vocabulary(["a"]).encode("a")
