"""Byte-level BPE: each step by hand and against a slow twin, whole texts against the `tokenizers` library, files."""

import errno
import json
import os
import pickle
import random
import string
import sys
import time
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import shared
from shared.data import catalog, load
from shared.text import (
    ByteLevelBPE,
    CharVocabulary,
    WordVocabulary,
    apply_merges,
    byte_ids,
    bytes_to_unicode,
    count_pairs,
    load_tokenizer,
    merge_pair,
    most_frequent_pair,
    save_tokenizer,
    split_pieces,
    train_merges,
)
from shared.text.bpe import END_OF_TEXT
from shared.text.byte_pairs import apply_merges_to_long
from shared.text.pretokenize import pattern

LINES = [
    "We'll see: she'd've said it isn't 3,14 or Ⅻ ½ 10²!  \n\n\t(So?)",
    "Wo ist der Zug? Größe, Füße, naïve façade, Ærø — “quoted” … 100 €",
    "Съешь ещё этих мягких французских булок, да выпей чаю",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "いろはにほへと ちりぬるを　我が世誰ぞ 常ならむ",
    "视野无限广，窗外有蓝天。",
    "نص حكيم له سر قاطع وذو شأن عظيم ١٢٣",
    "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "👩🏽‍🚀 🏳️‍🌈 👨‍👩‍👧‍👦 🇩🇪 1️⃣ ☕️ e\u0301 a\u0308\u0323 \U0010ffff \x00\x1b",
    "def f(x):\n    return {'a': x ** 2}  # \\d+\r\n\r\n\tif x: pass\n",
    "\u00a0\u2003\u3000\u2028\u2029\x85\x1c\u200b\ufeff \x0b\x0c end  ",
    "<|endoftext|> <|endoftext|><pad>",
]
CORPUS = "\n".join(LINES * 3)
VALID = st.characters(exclude_categories=("Cs",))
SPACES = " \t\n\r\x0b\x0c\x1c\x1f\x85\u00a0\u1680\u2009\u2028\u202f\u3000\u200b\ufeff"
TEXT = st.one_of(
    st.text(VALID, max_size=60),
    st.text(st.sampled_from(SPACES + "a1!'"), max_size=30),
    st.text(st.sampled_from("'’stdmrevlLD aé1٣\u0301\u200d\ufe0f👩🏽🚀🇩🇪"), max_size=30),
    st.lists(st.sampled_from([*LINES, END_OF_TEXT, " ", "\n"]), max_size=4).map("".join),
)
IDS = st.lists(st.integers(0, 4), max_size=25)


@pytest.fixture(scope="module")
def small():
    """Trained on many scripts here: 600 tokens, two of them special."""
    return ByteLevelBPE.train(CORPUS, 600, ("<|endoftext|>", "<pad>"))


@pytest.fixture(scope="module")
def gpt2():
    """GPT-2's own."""
    if catalog.status("gpt2-bpe") not in ("course-data", "cached"):
        pytest.skip("$COURSE_DATA and the cache have no gpt2-bpe")
    return ByteLevelBPE.gpt2()


@pytest.fixture(scope="module")
def gpt2_reference(gpt2):
    """The library's own reading of the two files."""
    tokenizers = pytest.importorskip("tokenizers")
    paths = catalog.fetch("gpt2-bpe")
    return tokenizers.ByteLevelBPETokenizer(str(paths["encoder.json"]), str(paths["vocab.bpe"]))


@pytest.fixture(scope="module")
def shakespeare():
    """1.1 MB of plays where they are, else as much of Python's reference text."""
    if catalog.status("tinyshakespeare") in ("course-data", "cached"):
        return catalog.fetch("tinyshakespeare")["input.txt"].read_text(encoding="utf-8")
    train, test = load("python-reference")
    return train.text + test.text


def library_trained(texts, vocab_size):
    """The merges that `tokenizers` learns, as pairs of spellings."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, trainers

    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    return [tuple(pair) for pair in json.loads(library.to_str())["model"]["merges"]]


# ---------------------------------------------------------------- bytes


def test_every_byte_has_a_visible_character_of_its_own():
    table = bytes_to_unicode()
    assert sorted(table) == list(range(256)) and len(set(table.values())) == 256
    assert all(len(c) == 1 and c.isprintable() and not c.isspace() for c in table.values())


def test_the_characters_and_their_order_are_those_of_gpt2():
    table = bytes_to_unicode()
    order = list(table)
    assert [order[i] for i in (0, 93, 94, 105, 106, 187, 188, 255)] == [33, 126, 161, 172, 174, 255, 0, 173]
    assert [table[b] for b in (32, 10, 13, 9, 0, 127, 160, 173)] == ["Ġ", "Ċ", "č", "ĉ", "Ā", "ġ", "ł", "Ń"]
    assert all(table[byte] == chr(byte) for byte in order[:188])
    assert "".join(table[byte] for byte in order[188:]) == "".join(chr(256 + n) for n in range(68))


@given(st.text(VALID, max_size=20))
def test_ids_of_bytes_say_where_in_the_table_a_byte_is(text):
    order = list(bytes_to_unicode())
    assert bytes(order[i] for i in byte_ids(text)) == text.encode("utf-8")


# ---------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("Hello world", ["Hello", " world"]),
        ("I'm you've HE'S", ["I", "'m", " you", "'ve", " HE", "'", "S"]),
        ("don’t", ["don", "’", "t"]),
        ("x2 = 10.5%", ["x", "2", " =", " 10", ".", "5", "%"]),
        ("a   b", ["a", "  ", " b"]),
        ("a\n\n b\n", ["a", "\n\n", " b", "\n"]),
        ("a \n b  ", ["a", " \n", " b", "  "]),
        ("a\tb", ["a", "\t", "b"]),
        ("Füße ٣٤ Ⅻ²", ["Füße", " ٣٤", " Ⅻ²"]),
        ("e\u0301 हिन्दी", ["e", "\u0301", " ह", "ि", "न", "्", "द", "ी"]),
        ("我是。☕️!", ["我是", "。☕️!"]),
        ("a\u00a0b\u3000c", ["a", "\u00a0", "b", "\u3000", "c"]),
        ("<|endoftext|>", ["<|", "endoftext", "|>"]),
    ],
)
def test_pieces_by_the_rule(text, pieces):
    assert split_pieces(text) == pieces


@given(TEXT)
def test_splitting_loses_nothing(text):
    pieces = split_pieces(text)
    assert "".join(pieces) == text and all(pieces)


def test_what_is_no_text_is_refused():
    with pytest.raises(TypeError, match="expected a text, but got bytes"):
        split_pieces(b"ab")
    with pytest.raises(ValueError, match=r"character 2 of this text is '\\ud83d', half of a surrogate pair"):
        split_pieces("ab\ud83d")


def kind(pieces_of, character):
    """L, N, S or O: with which neighbour a character shares a piece."""
    if character.isspace() and len(pieces_of("!" + character)) == 2:
        return "S"
    return next((name for name, other in (("L", "a"), ("N", "1")) if len(pieces_of(other + character)) == 1), "O")


def test_letters_numbers_and_spaces_are_those_of_the_library_but_for_new_characters():
    """Each package has one version of Unicode: they may differ only in what one of them does not know yet."""
    pre_tokenizers = pytest.importorskip("tokenizers").pre_tokenizers
    library = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    ours = pattern().findall
    points = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 97)]
    differ = []
    for character in map(chr, points):
        probe = f"a{character}1{character}!{character}"
        if [end - start for _, (start, end) in library(probe)] != [len(piece) for piece in ours(probe)]:
            differ.append(character)
    kinds = {(kind(ours, c), kind(library, c)) for c in differ}
    assert kinds <= {("L", "O"), ("N", "O"), ("O", "L"), ("O", "N")}, (
        "one of the two takes a known character for another"
    )
    if tuple(map(int, unicodedata.unidata_version.split("."))) < (17,):
        assert {unicodedata.category(c) for c in differ} <= {"Cn"}, "they differ in a character that even Python knows"


# ---------------------------------------------------------------- counting, choosing, merging


def test_pairs_are_counted_as_often_as_their_words_come():
    assert count_pairs([[1, 2, 1, 2], [2, 1], [5], []], [3, 10, 7, 7]) == {(1, 2): 6, (2, 1): 13}
    assert count_pairs([[7, 7, 7]], [2]) == {(7, 7): 4}, "places that overlap count each"


def test_the_most_frequent_pair_and_how_ties_are_settled():
    assert most_frequent_pair({(9, 9): 5, (1, 1): 4}) == (9, 9)
    assert most_frequent_pair({(3, 1): 4, (2, 300): 4, (2, 299): 4, (1, 1): 3}) == (2, 299)
    assert most_frequent_pair({(3, 1): 4, (10, 0): 4}) == (3, 1), "numbers, not their digits, are compared"
    assert most_frequent_pair({}) is None and most_frequent_pair({(1, 2): 0}) is None


@pytest.mark.parametrize(
    ("ids", "pair", "merged"),
    [
        ([], (1, 2), []),
        ([1], (1, 1), [1]),
        ([1, 2], (1, 2), [9]),
        ([1, 2, 1, 2, 1], (1, 2), [9, 9, 1]),
        ([2, 1, 2], (1, 2), [2, 9]),
        ([1, 1, 1, 1, 1], (1, 1), [9, 9, 1]),
        ([1, 1, 2], (1, 2), [1, 9]),
        ([2, 1], (1, 2), [2, 1]),
    ],
)
def test_merging_one_pair(ids, pair, merged):
    before = list(ids)
    assert merge_pair(ids, pair, 9) == merged
    assert ids == before, "the list that is handed in stays as it is"


@given(IDS, st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_merging_leaves_no_pair_and_loses_nothing(ids, pair):
    merged = merge_pair(ids, pair, 9)
    assert [i for token in merged for i in (pair if token == 9 else [token])] == ids
    assert pair not in zip(merged, merged[1:], strict=False)


# ---------------------------------------------------------------- learning


def recounted(pieces, num_merges):
    """The merges learned the slow way: everything is counted anew each time."""
    words, times, merges = [byte_ids(p) for p in pieces], list(pieces.values()), []
    for new_id in range(256, 256 + num_merges):
        counts = Counter()
        for ids, n in zip(words, times, strict=True):
            counts.update({pair: 0 for pair in zip(ids, ids[1:], strict=False)})
            for pair in zip(ids, ids[1:], strict=False):
                counts[pair] += n
        if not counts:
            break
        best = sorted(counts, key=lambda pair: (-counts[pair], pair))[0]
        merges.append(best)
        words = [merge_pair(ids, best, new_id) for ids in words]
    return merges


def test_merges_of_a_sentence_by_hand():
    """hug 10, pug 5, pun 12, bun 4, hugs 5: u+g 20 times, u+n 16, h+ug 15."""
    b, g, h, n, p, s, u = byte_ids("bghnpsu")
    pieces = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
    assert train_merges(pieces, 3) == [(u, g), (u, n), (h, 256)]
    assert train_merges(pieces, 7) == [(u, g), (u, n), (h, 256), (p, 257), (p, 256), (258, s), (b, 257)]
    assert len(train_merges(pieces, 100)) == 7, "then no pair is left"
    assert train_merges(pieces, 0) == [] and train_merges({}, 5) == []


@given(st.dictionaries(st.text("ab", max_size=9), st.integers(1, 4), max_size=8), st.integers(0, 12))
@example({"aaaa": 1, "aaa": 1, "aa": 2}, 6)
def test_keeping_counts_gives_what_counting_anew_gives(pieces, num_merges):
    assert train_merges(pieces, num_merges) == recounted(pieces, num_merges)


@settings(max_examples=60)
@given(st.lists(st.text("ab é👩", max_size=25), min_size=1, max_size=6), st.integers(0, 25))
@example(["aaaaaaa aaaa aaa", "abab baba aabb"], 20)
def test_small_texts_give_the_merges_of_the_library(texts, num_merges):
    ours = ByteLevelBPE.train(texts, 257 + num_merges)
    assert ours.spelled_merges() == library_trained(texts, 257 + num_merges)


def test_texts_in_many_scripts_give_the_merges_of_the_library(small):
    assert small.spelled_merges() == library_trained([CORPUS], 599)
    assert small.vocab_size == 600 and len(small.spelled_merges()) == 342
    assert ByteLevelBPE.train(CORPUS, 600, ("<|endoftext|>", "<pad>"), fast=True) == small


def test_shakespeare_in_seconds_gives_the_merges_of_the_library(shakespeare):
    start = time.process_time()
    ours = ByteLevelBPE.train(shakespeare, 1000)
    seconds = time.process_time() - start
    assert ours.spelled_merges() == library_trained([shakespeare], 1000)
    assert ours.vocab_size == 1000 and ours.special_tokens == {END_OF_TEXT: 999}
    assert seconds < 10, f"{seconds:.1f} s; 2.6 s where this was written"


def test_several_texts_are_learned_from_together():
    assert ByteLevelBPE.train(iter(["ab ab", "ab cd"]), 258) == ByteLevelBPE.train("ab ab\nab cd", 258)
    assert ByteLevelBPE.train(["xa", "bx"], 300).merges.keys().isdisjoint({tuple(byte_ids("ab"))})


def test_a_short_text_gives_fewer_tokens():
    tokenizer = ByteLevelBPE.train("abc", 1000)
    assert tokenizer.vocab_size == len(tokenizer) == 259
    assert tokenizer.encode("abc") == [257] and tokenizer.special_tokens == {END_OF_TEXT: 258}


def test_no_room_and_no_text():
    assert ByteLevelBPE.train("ab", 257).vocab_size == 257
    with pytest.raises(ValueError, match="vocab_size=256 leaves no room for 256 bytes and 1 special tokens"):
        ByteLevelBPE.train("ab", 256)
    with pytest.raises(TypeError, match="expected a text, but got bytes"):
        ByteLevelBPE.train([b"ab"], 300)


# ---------------------------------------------------------------- applying


def one_by_one(ids, merges):
    """The leftmost place of the earliest merge, again and again."""
    ids = list(ids)
    while True:
        places = [(merges[pair], i) for i, pair in enumerate(zip(ids, ids[1:], strict=False)) if pair in merges]
        if not places:
            return ids
        new_id, i = min(places)
        ids[i : i + 2] = [new_id]


@st.composite
def some_merges(draw):
    """Merges as a training could have learned them: each of two ids that were there before."""
    merges = {}
    for new_id in range(5, 5 + draw(st.integers(0, 10))):
        merges.setdefault(draw(st.tuples(st.integers(0, new_id - 1), st.integers(0, new_id - 1))), new_id)
    return merges


def test_merges_are_made_in_the_order_in_which_they_were_learned():
    merges = {(1, 2): 10, (2, 3): 11, (10, 3): 12}
    assert apply_merges([1, 2, 3], merges) == [12]
    assert apply_merges([2, 3, 1, 2], merges) == [11, 10]
    assert apply_merges([1, 2, 3], {(2, 3): 10, (1, 2): 11}) == [1, 10], "not from left to right"
    assert apply_merges([1, 2, 2, 3], {(2, 2): 30, (1, 2): 10, (2, 3): 20}) == [10, 20]
    assert apply_merges([], merges) == [] and apply_merges([7], merges) == [7]


@settings(max_examples=300)
@given(IDS, some_merges())
@example([0] * 7, {(0, 0): 5, (5, 0): 6, (5, 5): 7})
def test_all_ways_of_applying_merges_agree(ids, merges):
    before = list(ids)
    expected = one_by_one(ids, merges)
    assert apply_merges(ids, merges) == expected
    assert apply_merges_to_long(ids, merges) == expected
    assert ids == before


def test_a_long_piece_takes_no_longer_per_letter(gpt2, gpt2_reference):
    text = "".join(random.Random(0).choices(string.ascii_letters, k=50_000))
    assert split_pieces(text) == [text]
    start = time.process_time()
    ids = gpt2.encode(text)
    assert time.process_time() - start < 10, "0.3 s where this was written; minutes if each merge looks at all letters"
    assert ids == gpt2_reference.encode(text).ids


# ---------------------------------------------------------------- whole texts


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("Hello, I'm a language model,", [15496, 11, 314, 1101, 257, 3303, 2746, 11]),
        (" \n\n  x", [220, 628, 220, 2124]),
        ("Größe", [8642, 9101, 39683, 68]),
        ("☕", [24583, 243]),
        ("我", [22755, 239]),
        ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),
        ("", []),
    ],
)
def test_ids_of_gpt2(gpt2, text, ids):
    assert gpt2.encode(text) == ids and gpt2.decode(ids) == text


def test_gpt2_has_its_50257_tokens(gpt2):
    assert gpt2.vocab_size == 50257 and len(gpt2.merges) == 50000
    assert gpt2.special_tokens == {"<|endoftext|>": 50256}
    assert gpt2.tokens[262] == b" the" and gpt2.tokens[220] == b" "
    assert gpt2.vocabulary() == json.loads(catalog.fetch("gpt2-bpe")["encoder.json"].read_text("utf-8"))


def test_the_catalogs_loader_says_that_a_vocabulary_is_no_data_set():
    with pytest.raises(ValueError, match="'gpt2-bpe' is a tokenizer, no data set: shared.data.catalog.fetch"):
        load("gpt2-bpe")


def test_shakespeare_has_as_many_of_gpt2s_tokens_as_nanogpt_states(gpt2):
    """nanoGPT, data/shakespeare/readme.md: train.bin has 301,966 tokens, val.bin has 36,059."""
    if catalog.status("tinyshakespeare") not in ("course-data", "cached"):
        pytest.skip("$COURSE_DATA and the cache have no tinyshakespeare")
    text = catalog.fetch("tinyshakespeare")["input.txt"].read_text(encoding="utf-8")
    cut = int(len(text) * 0.9)
    assert (len(gpt2.encode(text[:cut])), len(gpt2.encode(text[cut:]))) == (301966, 36059)


@settings(max_examples=300)
@given(TEXT)
@example("\U0010ffff\x00\ufffd\ufffe")
@example("".join(LINES))
def test_any_text_comes_back_exactly_and_has_the_ids_of_the_library(small, small_fast, text):
    ids = small.encode(text)
    assert small.decode(ids) == text
    assert not set(ids) & set(small.special_tokens.values())
    assert ids == small_fast.encode(text).ids


@pytest.fixture(scope="module")
def small_fast(small):
    pytest.importorskip("tokenizers")
    return small.fast()


@settings(max_examples=300)
@given(TEXT)
@example("".join(LINES))
def test_gpt2_gives_the_ids_of_the_library(gpt2, gpt2_reference, gpt2_fast, text):
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == text
    assert ids == gpt2_reference.encode(text).ids == gpt2_fast.encode(text).ids


@pytest.fixture(scope="module")
def gpt2_fast(gpt2):
    pytest.importorskip("tokenizers")
    return gpt2.fast()


def long_texts():
    """Names of long texts that are on this machine: $COURSE_DATA's and Python's own source."""
    here = {"python source": json.__file__}
    for folder in catalog.data_folders():
        for name in ("tinyshakespeare/input.txt", "xquad/xquad.de.json"):
            if (folder / name).is_file():
                here[name] = str(folder / name)
    return here


@pytest.mark.parametrize("name", sorted(long_texts()))
def test_long_texts_have_the_ids_of_the_library(gpt2, gpt2_reference, name):
    with open(long_texts()[name], encoding="utf-8", newline="") as file:
        text = file.read()
    if name.endswith(".json"):
        text = "\n".join(p["context"] for article in json.loads(text)["data"] for p in article["paragraphs"])
    ids = gpt2.encode(text)
    assert ids == gpt2_reference.encode(text).ids
    assert gpt2.decode(ids) == text


def test_the_cache_of_pieces_is_limited(small, monkeypatch):
    monkeypatch.setattr("shared.text.bpe._CACHE", 50)
    text = " ".join(f"{word}{number}" for number, word in enumerate(LINES[0].split() * 30))
    again = ByteLevelBPE(small.merges, tuple(small.special_tokens))
    assert again.encode(text) == small.encode(text)
    assert len(again._cache) <= 50


# ---------------------------------------------------------------- special tokens


def test_special_tokens_come_out_of_text_only_where_they_are_allowed(small):
    end, pad = 598, 599
    text = "a<|endoftext|>b<pad>"
    assert not {end, pad} & set(small.encode(text)) and small.decode(small.encode(text)) == text
    a, b = small.encode("a"), small.encode("b")
    assert small.encode(text, allowed_special="all") == [*a, end, *b, pad]
    assert small.encode(text, allowed_special={"<pad>"}) == [*small.encode("a<|endoftext|>b"), pad]
    assert small.encode("<pad><pad>", allowed_special=["<pad>"]) == [pad, pad]
    assert small.decode([*a, end, *b, pad]) == text
    assert small.decode([*a, end, *b, pad], skip_specials=True) == "ab"


def test_special_tokens_stay_text_in_the_library_too(small, small_fast):
    text = "a<|endoftext|>b<pad>"
    assert small_fast.encode(text).ids == small.encode(text)
    small_fast.encode_special_tokens = False
    assert small_fast.encode(text).ids == small.encode(text, allowed_special="all")
    small_fast.encode_special_tokens = True


def test_of_two_special_tokens_that_begin_alike_the_longer_is_taken():
    tokenizer = ByteLevelBPE([], ("<a>", "<a><b>"))
    assert tokenizer.encode("<a><b><a>", allowed_special="all") == [257, 256]


def test_a_name_that_is_no_special_token_is_an_error(small):
    with pytest.raises(ValueError, match=r"'<eos>' is no special token; there are \['<\|endoftext\|>', '<pad>'\]"):
        small.encode("a", allowed_special={"<eos>"})
    with pytest.raises(TypeError, match="allowed_special should be 'all' or a set of names, but got '<pad>'"):
        small.encode("a", allowed_special="<pad>")


@pytest.mark.parametrize("name", ["pad", "<|>", "", " x", "Ġ10", "Ġ!", "é<x>", "<|☕|>"])
def test_what_merges_could_make_is_no_special_token(name):
    with pytest.raises(ValueError, match="cannot be a special token, since merges could make"):
        ByteLevelBPE([], (name,))
    with pytest.raises(ValueError, match="cannot be a special token"):
        ByteLevelBPE.train("text", 300, (name,))


def test_special_tokens_with_spaces_and_other_scripts(tmp_path):
    tokenizer = ByteLevelBPE([], ("<my token>", "[конец]", "<☕b>"))
    tokenizer.save(tmp_path)
    again = ByteLevelBPE.load(tmp_path)
    assert again == tokenizer and again.decode([256, 257, 258]) == "<my token>[конец]<☕b>"
    assert (
        tokenizer.fast().decode([256, 257, 258], skip_special_tokens=False).replace(" ", "") == "<mytoken>[конец]<☕b>"
    )


@pytest.mark.parametrize(
    ("merges", "special", "message"),
    [
        ([(0, 256)], (), r"merge number 0 is \(0, 256\): expected two ids in 0 … 255, and no pair twice"),
        ([(0, 1), (0, 1)], (), r"merge number 1 is \(0, 1\)"),
        ([(-1, 1)], (), r"merge number 0 is \(-1, 1\)"),
        ([(0, 0), (0, 256), (256, 0)], (), r"every token must be there once, .*b'!!!'"),
        ([], ("<a>", "<a>"), "every token must be there once, .*b'<a>'"),
    ],
)
def test_a_vocabulary_that_cannot_be(merges, special, message):
    with pytest.raises(ValueError, match=message):
        ByteLevelBPE(merges, special)


# ---------------------------------------------------------------- ids to text


def test_ids_in_any_form_are_decoded(small):
    ids = small.encode("so it is")
    for form in (ids, tuple(ids), np.array(ids), np.array(ids, np.uint16), shared.tensor(ids), iter(ids)):
        assert small.decode(form) == "so it is"


@given(st.lists(st.integers(0, 599), max_size=20) | st.lists(st.integers(94, 255), max_size=12))
def test_any_ids_can_be_decoded_as_the_library_decodes_them(small, small_fast, ids):
    text = small.decode(ids)
    assert text == small_fast.decode(ids, skip_special_tokens=False)
    assert small.decode_bytes(ids).decode("utf-8", "replace") == text


def test_half_a_character_becomes_a_mark():
    tokenizer = ByteLevelBPE([])
    ids = tokenizer.encode("é☕")
    assert [tokenizer.decode(ids[:n]) for n in range(6)] == ["", "\ufffd", "é", "é\ufffd", "é\ufffd", "é☕"]


@pytest.mark.parametrize("bad", [-1, 600, 10**12])
def test_an_id_that_is_not_there_is_named(small, bad):
    with pytest.raises(IndexError, match=f"id {bad} is not in 0 … 599"):
        small.decode([5, bad])


@pytest.mark.parametrize("bad", [3, [1.5], ["a"], [[1, 2]], np.zeros((2, 2), int), np.array(3)])
def test_what_is_no_row_of_integers_is_refused(small, bad):
    with pytest.raises(TypeError, match="expected a row of integers to decode"):
        small.decode(bad)


# ---------------------------------------------------------------- files


def test_what_is_saved_comes_back(small, tmp_path):
    folder = tmp_path / "new" / "tokenizer"
    small.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["merges.txt", "vocab.json"]
    again = ByteLevelBPE.load(folder)
    assert again == small and again.special_tokens == small.special_tokens
    assert again.encode(CORPUS) == small.encode(CORPUS)
    small.save(folder)
    assert repr(again) == "ByteLevelBPE(600 tokens: 256 bytes, 342 merges, 2 special)"


def test_the_library_reads_what_is_saved(small, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    small.save(tmp_path)
    library = tokenizers.ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    assert library.encode(CORPUS).ids == small.encode(CORPUS)


def test_transformers_reads_what_is_saved(small, tmp_path):
    transformers = pytest.importorskip("transformers")
    small.save(tmp_path)
    theirs = transformers.GPT2TokenizerFast.from_pretrained(str(tmp_path))
    assert theirs("Größe, so it is").input_ids == small.encode("Größe, so it is")
    assert theirs.eos_token_id == small.special_tokens[END_OF_TEXT] and len(theirs) == 600


def test_gpt2s_files_are_written_as_they_were(gpt2, tmp_path):
    gpt2.save(tmp_path)
    assert (tmp_path / "merges.txt").read_bytes() == catalog.fetch("gpt2-bpe")["vocab.bpe"].read_bytes()
    assert ByteLevelBPE.load(tmp_path) == gpt2


@pytest.fixture
def saved(tmp_path):
    """A folder with a small tokenizer, and the tokenizer."""
    tokenizer = ByteLevelBPE.train("10 £ 20 £ 10 £ — 20 — the theme", 275)
    tokenizer.save(tmp_path)
    return tmp_path, tokenizer


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_file_cut_off_anywhere_is_an_error_that_names_it(saved, name):
    folder, tokenizer = saved
    whole = (folder / name).read_bytes()
    loaded = 0
    for size in range(0, len(whole), 1 if name == "merges.txt" else 13):
        (folder / name).write_bytes(whole[:size])
        try:
            assert ByteLevelBPE.load(folder) == tokenizer, f"{size} of {len(whole)} bytes made another tokenizer"
            loaded += 1
        except ValueError as error:
            assert str(folder / name) in str(error)
    assert loaded <= 1, "only the last line break may be missing"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", b"\xff\xfe\x00", "vocab.json is damaged, or no text"),
        ("vocab.json", b"[1, 2]", "vocab.json is JSON, but no vocabulary"),
        ("vocab.json", b'{"a": "b"}', "vocab.json is JSON, but no vocabulary"),
        ("vocab.json", b'{"a": 0, "b": 2}', "the ids of its 2 tokens are not 0 … 1"),
        ("vocab.json", b"[" * 100_000, "vocab.json is no vocabulary: not valid JSON"),
        ("merges.txt", b"#version: 0.2\nnot a merge\n", "line 2, 'not a merge', should have two tokens"),
        ("merges.txt", b"\x89PNG\r\n", "merges.txt is damaged, or no text"),
        ("merges.txt", b"#version: 0.2\na b\n", "does not belong to"),
        ("merges.txt", b"", "merges.txt is damaged, or no list of merges: line 1, ''"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(saved, name, content, message):
    folder, _ = saved
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ByteLevelBPE.load(folder)


def test_ids_in_another_order_are_refused(saved):
    folder, tokenizer = saved
    swapped = {token: i for i, token in enumerate([END_OF_TEXT, *list(tokenizer.vocabulary())[:-1]])}
    (folder / "vocab.json").write_text(json.dumps(swapped), encoding="utf-8")
    with pytest.raises(ValueError, match=r"id 0 is '<\|endoftext\|>' in the first, but '!' by the second"):
        ByteLevelBPE.load(folder)


def test_line_ends_of_windows_do_no_harm(saved):
    folder, tokenizer = saved
    merges = (folder / "merges.txt").read_bytes()
    (folder / "merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    assert ByteLevelBPE.load(folder) == tokenizer


def test_missing_files_are_named(saved):
    folder, _ = saved
    (folder / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match="has no merges.txt: ByteLevelBPE.save writes both"):
        ByteLevelBPE.load(folder)
    with pytest.raises(FileNotFoundError, match="has no vocab.json and no merges.txt"):
        ByteLevelBPE.load(folder / "nowhere")


def test_another_tokenizer_is_not_overwritten(saved):
    folder, tokenizer = saved
    with pytest.raises(FileExistsError, match="holds another tokenizer: its merges.txt differs"):
        ByteLevelBPE.train("something else", 270).save(folder)
    assert ByteLevelBPE.load(folder) == tokenizer


def test_saving_on_a_full_disk_leaves_nothing_behind(small, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        small.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_that_was_killed_half_way_can_be_done_again(small, tmp_path, monkeypatch):
    """Between the two renames only the merges are there."""
    replace, done = os.replace, []

    def killed(source, target):
        if done:
            os._exit(9)
        done.append(replace(source, target))

    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.replace = killed
            small.save(tmp_path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with pytest.raises(FileNotFoundError, match="has no vocab.json"):
        load_tokenizer(tmp_path)
    save_tokenizer(small, tmp_path)
    assert load_tokenizer(tmp_path) == small


# ---------------------------------------------------------------- every tokenizer


@pytest.fixture(params=["bpe", "characters", "words"])
def any_tokenizer(request, small):
    if request.param == "bpe":
        return small
    return (CharVocabulary if request.param == "characters" else WordVocabulary).from_text(CORPUS)


def test_tokenizers_have_one_face(any_tokenizer):
    ids = any_tokenizer.encode("it isn't")
    assert all(type(i) is int and 0 <= i < any_tokenizer.vocab_size for i in ids)
    assert any_tokenizer.decode(shared.tensor(ids), skip_specials=True) == any_tokenizer.decode(ids)
    with pytest.raises(IndexError):
        any_tokenizer.decode([any_tokenizer.vocab_size])
    assert len(any_tokenizer) == any_tokenizer.vocab_size
    assert pickle.loads(pickle.dumps(any_tokenizer)) == any_tokenizer


def test_a_folder_gives_the_tokenizer_back_whichever_it_is(any_tokenizer, tmp_path):
    folder = tmp_path / "model"
    save_tokenizer(any_tokenizer, folder)
    (folder / "weights.bin").write_bytes(b"beside it")
    again = load_tokenizer(folder)
    assert type(again) is type(any_tokenizer) and again == any_tokenizer
    save_tokenizer(any_tokenizer, folder)


def test_a_folder_keeps_its_tokenizer(any_tokenizer, tmp_path):
    save_tokenizer(any_tokenizer, tmp_path)
    for other in (ByteLevelBPE([]), CharVocabulary.from_text("xyz"), WordVocabulary.from_text("x y z")):
        with pytest.raises(FileExistsError, match="holds another tokenizer"):
            save_tokenizer(other, tmp_path)
    assert load_tokenizer(tmp_path) == any_tokenizer


def test_folders_without_a_tokenizer_or_with_two(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no tokenizer in .*neither vocab.json and merges.txt nor"):
        load_tokenizer(tmp_path)
    small.save(tmp_path)
    CharVocabulary.from_text("ab").save(tmp_path / "vocabulary.json")
    with pytest.raises(ValueError, match="holds two tokenizers"):
        load_tokenizer(tmp_path)
    with pytest.raises(TypeError, match="expected a ByteLevelBPE or a vocabulary to save, but got str"):
        save_tokenizer("abc", tmp_path)
