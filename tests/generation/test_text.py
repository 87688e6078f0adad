"""Text as it is written: whole characters only, nothing of a stop string, the same text however it arrives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.generation import GenerationConfig, TextStream, generate_text, stream_text
from shared.generation.text import overlap, prompt_ids
from shared.models import GPT, GPTConfig
from shared.text import ByteLevelBPE, CharVocabulary, WordVocabulary

BYTES = ByteLevelBPE([])  # every token one byte, then <|endoftext|>
LETTERS = CharVocabulary.from_text("ab.!")


def written(tokenizer, ids, stops=()):
    text = TextStream(tokenizer, stops)
    pieces = [text.add(i) for i in ids]
    return pieces, text.end(), text.stopped


def cut(text, stops):
    """The text before the stop string that is complete first."""
    for end in range(len(text) + 1):
        if places := [end - len(stop) for stop in stops if text[:end].endswith(stop)]:
            return text[: min(places)]
    return text


@settings(deadline=None)
@given(st.text(), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_the_pieces_make_the_text_and_hold_no_half_characters(text, stops):
    text = text.replace("\ufffd", "?")
    pieces, rest, stopped = written(BYTES, BYTES.encode(text), stops)
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + rest == cut(text, stops)
    assert stopped == any(stop in text for stop in stops)


@settings(deadline=None)
@given(st.text("ab.!", max_size=30), st.lists(st.text("ab.!", min_size=1, max_size=5), max_size=3))
def test_no_piece_goes_into_a_stop_string_and_as_much_as_possible_comes_at_once(text, stops):
    pieces, rest, _ = written(LETTERS, LETTERS.encode(text), stops)
    whole, given = cut(text, stops), 0
    assert "".join(pieces) + rest == whole
    for n, piece in enumerate(pieces, start=1):
        given += len(piece)
        if given < len(whole):  # what is held back could begin a stop string
            held = text[given:n]
            assert held == "" or any(stop.startswith(held) for stop in stops)


def test_words_keep_the_spaces_between_them():
    words = WordVocabulary.from_text("the dog bit the man")
    pieces, rest, _ = written(words, words.encode("the dog bit the man"))
    assert "".join(pieces) + rest == "the dog bit the man" and pieces[0] == "the"


def test_bytes_that_are_no_text_come_out_as_the_replacement_character():
    pieces, rest, _ = written(BYTES, [BYTES.encode("é")[0], *BYTES.encode("x")])
    assert "".join(pieces) + rest == "\ufffdx"
    assert written(BYTES, BYTES.encode("é")[:1])[:2] == ([""], "\ufffd")


def test_special_tokens_are_no_text():
    end = BYTES.special_tokens["<|endoftext|>"]
    pieces, rest, _ = written(BYTES, [*BYTES.encode("a"), end, *BYTES.encode("b")])
    assert "".join(pieces) + rest == "ab"


def test_the_longest_beginning_is_held():
    assert overlap("a..", "..!") == 2 and overlap("aab", "aabaabc") == 3 and overlap("", "x") == 0
    assert overlap("aaa", "aa") == 1  # the whole stop string is none of its beginnings


def test_one_stop_string_may_be_given_as_it_is_and_an_empty_one_is_refused():
    assert written(LETTERS, LETTERS.encode("a.!b.a!"), "b.")[0] == ["a", ".", "!", "", "", "", ""]
    for wrong in ("", ["a", ""], [1]):
        with pytest.raises(ValueError, match="stop_strings should be strings that are not empty"):
            TextStream(LETTERS, wrong)


def test_an_empty_prompt_is_the_token_between_texts():
    assert prompt_ids(BYTES, "") == [BYTES.special_tokens["<|endoftext|>"]]
    assert (
        prompt_ids(BYTES, "<|endoftext|>") == BYTES.encode("<|endoftext|>") and len(BYTES.encode("<|endoftext|>")) == 13
    )
    assert prompt_ids(LETTERS, "") == []
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        stream_text(model_of(LETTERS), LETTERS, "")


def model_of(tokenizer):
    shared.manual_seed(3)
    return GPT(GPTConfig(tokenizer.vocab_size, block_size=16, n_layer=1, n_head=2, n_embd=8)).eval()


def test_streamed_and_whole_texts_are_the_same_text():
    model, prompts = model_of(LETTERS), ["ab", "!"]
    config = GenerationConfig(max_new_tokens=30, seed=5)
    for prompt in prompts:
        pieces = list(stream_text(model, LETTERS, prompt, config))
        assert len("".join(pieces)) == 30 and len(pieces) > 1
        assert generate_text(model, LETTERS, [prompt], config) == ["".join(pieces)]
    assert [len(text) for text in generate_text(model, LETTERS, prompts, config)] == [30, 30]


def test_a_text_ends_before_its_stop_string_and_its_stop_token():
    model, free = model_of(LETTERS), GenerationConfig(max_new_tokens=60, seed=1)
    whole = generate_text(model, LETTERS, ["ab"], free)[0]
    stop = whole[20:22]
    expected = whole[: whole.find(stop)]
    config = GenerationConfig(max_new_tokens=60, seed=1, stop_strings=(stop,))
    assert generate_text(model, LETTERS, ["ab"], config) == [expected]
    assert "".join(stream_text(model, LETTERS, "ab", config)) == expected
    token = LETTERS.encode(whole[20])[0]
    config = GenerationConfig(max_new_tokens=60, seed=1, stop_tokens=(token,))
    expected = whole[: whole.find(whole[20])]
    assert generate_text(model, LETTERS, ["ab"], config) == [expected]
    assert "".join(stream_text(model, LETTERS, "ab", config)) == expected


def test_one_text_that_stops_does_not_stop_the_other():
    model = model_of(LETTERS)
    both = generate_text(model, LETTERS, ["ab", "!"], GenerationConfig(max_new_tokens=40, seed=2))
    stop = both[0][5:8]
    found = generate_text(
        model, LETTERS, ["ab", "!"], GenerationConfig(max_new_tokens=40, seed=2, stop_strings=(stop,))
    )
    assert found == [cut(both[0], [stop]), cut(both[1], [stop])]
    assert len(found[0]) < len(both[0])


def test_what_the_tokenizer_cannot_read_is_named_and_one_string_is_no_list():
    model = model_of(LETTERS)
    with pytest.raises(ValueError, match="'z'"):
        stream_text(model, LETTERS, "abz")
    with pytest.raises(TypeError, match=r"write \[prompt\]"):
        generate_text(model, LETTERS, "ab")
