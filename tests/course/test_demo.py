"""`course demo` without Gradio: prompts, tokens and their alternatives, several people at once, models, the address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import shared
from course import sources as texts
from course.demo import coloring, server
from course.demo.models import KEPT, ModelError, Reader, Shelf, Source, in_cache, sources
from course.demo.session import Choice, PromptError, Speller, read_prompt, reread, search, write
from course.demo.strategies import BEAM_SEARCH, PARAMETERS, STRATEGIES, Settings
from course.demo.turns import Stops, Turns
from course.sprints import ROOT, CourseError, find_folder, load_sprint
from course.workspace import Workspace
from shared.generation import GenerationConfig, beam_search, generate
from shared.models import GPT, GPTConfig, load_pretrained
from shared.models.hub import KNOWN
from shared.text import ByteLevelBPE, CharVocabulary, WordVocabulary, load_tokenizer


def reader(tokenizer, block_size: int = 32) -> Reader:
    shared.manual_seed(0)
    model = GPT(GPTConfig.preset("toy", vocab_size=tokenizer.vocab_size, block_size=block_size)).eval()
    for parameter in model.parameters():  # far from uniform, so that probabilities differ
        parameter.data.mul_(6.0)
    return Reader(Source("toy", "", "", lambda: (None, None)), model, tokenizer)


@pytest.fixture(scope="module")
def letters() -> Reader:
    return reader(CharVocabulary.from_text("abcdefgh \n"))


@pytest.fixture(scope="module")
def characters() -> Reader:
    return reader(ByteLevelBPE([]))


@pytest.fixture(scope="module")
def kept() -> Reader:
    return Reader(Source("kept", "", "", lambda: (None, None)), load_pretrained(KEPT), load_tokenizer(KEPT))


def run(reader: Reader, ids: list[int], settings: Settings, stopped=None, turns=None) -> list[Choice]:
    return list(write(reader, ids, settings, stopped or threading.Event(), turns or Turns()))


# ---------------------------------------------------------------- prompts


def test_an_empty_prompt_is_explained(letters: Reader) -> None:
    with pytest.raises(PromptError, match="empty.*write a few characters"):
        read_prompt(letters, "")


def test_unknown_characters_are_named_with_their_code_points(kept: Reader) -> None:
    with pytest.raises(PromptError) as error:
        read_prompt(kept, "Café\0 & ñandú 9")
    assert "é (U+00E9), U+0000, ñ (U+00F1), ú (U+00FA), 9 (U+0039)." in str(error.value)
    assert "65 characters" in str(error.value)


def test_many_unknown_characters_are_counted(kept: Reader) -> None:
    with pytest.raises(PromptError, match=r"and 12 more"):
        read_prompt(kept, "".join(map(chr, range(0x4E00, 0x4E14))))


def test_too_many_tokens_are_counted(letters: Reader) -> None:
    assert len(read_prompt(letters, "a" * 32)) == 32
    with pytest.raises(PromptError, match="33 tokens.*at most: shorten it by 1"):
        read_prompt(letters, "a" * 33)


def test_megabytes_are_refused_before_they_are_read(characters: Reader) -> None:
    began = time.process_time()
    with pytest.raises(PromptError, match="5,000,000 characters"):
        read_prompt(characters, "a" * 5_000_000)
    assert time.process_time() - began < 0.5


def test_half_a_surrogate_pair_is_refused(characters: Reader, letters: Reader) -> None:
    for each in (characters, letters):
        with pytest.raises(PromptError, match=r"U\+D800"):
            read_prompt(each, "a\ud800")


def test_special_tokens_in_a_prompt_stay_text(characters: Reader) -> None:
    special = characters.tokenizer.special_tokens["<|endoftext|>"]
    ids = read_prompt(characters, "<|endoftext|>")
    assert special not in ids and len(ids) == 13
    assert characters.stop_tokens == (special,)


def test_a_prompt_of_white_space_has_no_words() -> None:
    with pytest.raises(PromptError, match="write a word"):
        read_prompt(reader(WordVocabulary(["to", "be"])), "  \n")


def test_unknown_words_are_named_unless_the_vocabulary_takes_them() -> None:
    with pytest.raises(PromptError, match="“not”"):
        read_prompt(reader(WordVocabulary(["to", "be"], specials=())), "to be or not to be")
    assert read_prompt(reader(WordVocabulary(["to", "be"], specials=["<unk>"])), "to hesitate") == [1, 0]


# ---------------------------------------------------------------- tokens and what else could have come


def test_the_text_is_that_of_generate(letters: Reader) -> None:
    ids = read_prompt(letters, "abc")
    settings = Settings("Nucleus", {"temperature": 0.9, "top_p": 0.8}, 40, seed=3)
    choices = run(letters, ids, settings)
    expected = generate(letters.model, [ids], GenerationConfig(40, temperature=0.9, top_p=0.8, seed=3))[0]
    assert [c.token for c in choices] == expected
    assert "".join(c.text for c in choices) == letters.tokenizer.decode(expected)


def test_probabilities_are_the_models_own_and_those_of_the_draw(letters: Reader) -> None:
    ids = read_prompt(letters, "abc")
    choices = run(letters, ids, Settings("Top-k", {"temperature": 0.5, "top_k": 2}, 12, seed=1))
    text = [*ids, *(c.token for c in choices)]
    with shared.no_grad():
        logits = letters.model(shared.tensor([text])).numpy()[0]
    for place, choice in enumerate(choices, len(ids) - 1):
        p = np.exp(logits[place] - logits[place].max())
        p /= p.sum()
        assert choice.probability == pytest.approx(p[choice.token], rel=1e-3)
        assert choice.rank == 1 + (p > p[choice.token]).sum()
        assert choice.bits == pytest.approx(-np.log2(p[choice.token]), abs=1e-2)
        best = np.argsort(-p)[:5]
        assert [a.label for a in choice.alternatives] == [letters.tokenizer.decode([i]) for i in best]
        assert [a.probability for a in choice.alternatives] == pytest.approx(p[best].tolist(), rel=1e-3)
        two = p[best[:2]] ** 2 / (p[best[:2]] ** 2).sum()  # temperature 0.5 squares them
        assert [a.drawn for a in choice.alternatives] == pytest.approx([*two, 0, 0, 0], rel=1e-3)


def test_a_card_has_each_token_once_however_it_is_spelled_in_the_text() -> None:
    """A word behind another begins with a space there, and not among the alternatives."""
    words = reader(WordVocabulary(["to", "be", "or"], specials=()))
    for choice in run(words, [0], Settings("Greedy", {}, 5)):
        assert choice.token in [a.token for a in choice.alternatives]
        card = coloring.card(choice)
        assert card.count('<span class="name">') == 3 and card.count("row chosen") == 1, card


def test_greedy_gives_all_to_one(letters: Reader) -> None:
    for choice in run(letters, [1, 2], Settings("Greedy", {}, 10)):
        assert choice.rank == 1 and choice.drawn == 1.0
        assert [a.drawn for a in choice.alternatives[1:]] == [0.0] * 4


def test_numbers_of_another_strategy_have_no_effect(letters: Reader) -> None:
    values = {"temperature": 1.0, "top_k": 1, "top_p": 0.05, "min_p": 1.0}
    assert run(letters, [1], Settings("Sampling", values, 20)) == run(
        letters, [1], Settings("Sampling", {"temperature": 1.0}, 20)
    )
    assert Settings("Min-p", values).config() == GenerationConfig(100, temperature=1.0, min_p=1.0, seed=0)


def test_half_characters_are_shown_as_bytes_and_are_no_text(characters: Reader) -> None:
    speller = Speller(characters.tokenizer)
    assert [speller.add(i) for i in characters.tokenizer.encode("a☕")] == [
        ("a", "a"),
        ("", "⟨e2⟩"),
        ("", "⟨98⟩"),
        ("☕", "☕"),
    ]
    special = characters.tokenizer.special_tokens["<|endoftext|>"]
    assert speller.add(special) == ("", "<|endoftext|>")
    assert speller.add(special + 40) == ("", f"⟨{special + 40}⟩")


def test_words_are_set_apart() -> None:
    speller = Speller(WordVocabulary(["to", "be", "or"], specials=()))
    assert [speller.add(i)[0] for i in (0, 1, 2)] == ["to", " be", " or"]


def test_the_end_of_text_token_ends_it(characters: Reader) -> None:
    special = characters.stop_tokens[0]
    characters.model.lm_head.weight.data[special] += 50.0
    try:
        choices = run(characters, [5], Settings("Greedy", {}, 30))
        last = choices[-1]
        assert (last.token, last.text, last.label) == (special, "", "<|endoftext|>") and len(choices) < 30
    finally:
        characters.model.lm_head.weight.data[special] -= 50.0


# ---------------------------------------------------------------- stopping, and several at once


class Counting:
    """A model that counts how often it is read."""

    def __init__(self, model):
        self.model, self.reads = model, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def extend(self, *args, **kwargs):
        self.reads += 1
        return self.model.extend(*args, **kwargs)


def test_stop_ends_the_computation(letters: Reader) -> None:
    counting, stopped, seen = Counting(letters.model), threading.Event(), []
    watched = Reader(letters.source, counting, letters.tokenizer)
    for choice in write(watched, [1], Settings("Sampling", {}, 500), stopped, Turns()):
        seen.append(choice)
        if len(seen) == 3:
            stopped.set()
    assert len(seen) == 3 and counting.reads == 3


def test_what_nobody_listens_to_is_not_computed(letters: Reader) -> None:
    counting, turns = Counting(letters.model), Turns()
    steps = write(Reader(letters.source, counting, letters.tokenizer), [1], Settings(), threading.Event(), turns)
    next(steps)
    steps.close()
    assert counting.reads == 1
    with turns:  # and the turn is free again
        pass


def test_two_at_once_write_what_each_writes_alone(letters: Reader) -> None:
    tasks = [([1, 2, 3], Settings("Sampling", {"temperature": 1.2}, 60, seed)) for seed in range(4)]
    tasks += [([4], Settings("Nucleus", {"top_p": 0.9}, 60, seed)) for seed in range(4)]
    alone = [[c.token for c in run(letters, *task)] for task in tasks]
    assert len({tuple(text) for text in alone}) == len(tasks)
    turns = Turns()
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = [pool.submit(run, letters, *task, turns=turns) for task in tasks]
        assert [[c.token for c in future.result(60)] for future in futures] == alone


def test_turns_go_round(letters: Reader) -> None:
    """Who has just computed waits for those who asked meanwhile."""
    turns, order = Turns(), []

    def work(name: str) -> None:
        for _ in range(20):
            with turns:
                end = time.monotonic() + 60
                while turns._next_ticket < turns._served + 2 and len(order) < 39:  # until the other has asked, too
                    assert time.monotonic() < end, "the other does not ask"
                    time.sleep(0.0005)
                order.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(order) in ("ab" * 20, "ba" * 20)


def test_stop_is_for_the_page_that_asks() -> None:
    stops = Stops()
    mine, other = stops.start("me"), stops.start("somebody else")
    stops.stop("me")
    stops.stop("nobody")
    assert mine.is_set() and not other.is_set()
    stops.end("me", mine)
    stops.end("me", mine)
    assert not stops.start("me").is_set()


def test_a_model_is_loaded_once_however_many_ask() -> None:
    loaded = []

    def load():
        time.sleep(0.05)
        loaded.append(1)
        return "model", "tokenizer"

    shelf = Shelf([Source("a", "", "", load)])
    with ThreadPoolExecutor(8) as pool:
        readers = list(pool.map(lambda _: shelf.get("a"), range(8)))
    assert len(loaded) == 1 and all(each is readers[0] for each in readers)


# ---------------------------------------------------------------- beam search


def test_the_search_gives_the_beams(letters: Reader) -> None:
    settings = Settings(BEAM_SEARCH, {"num_beams": 3, "length_penalty": 0.5}, 12)
    *progress, texts = search(letters, [1, 2], settings, threading.Event(), Turns())
    expected = beam_search(letters.model, [1, 2], 3, 12, 0.5, num_return=3)
    assert [[c.token for c in text.choices] for text in texts] == [beam.ids for beam in expected]
    assert [text.score for text in texts] == pytest.approx([beam.score for beam in expected])
    total = sum(np.log(c.probability) for c in texts[0].choices)
    assert total == pytest.approx(expected[0].log_prob, abs=1e-3)
    assert all(isinstance(number, int) for number in progress)


def test_a_search_can_be_stopped_and_frees_its_turn(letters: Reader) -> None:
    class Slow(Counting):
        def extend(self, *args, **kwargs):
            time.sleep(0.02)
            return super().extend(*args, **kwargs)

    slow, stopped, turns = Slow(letters.model), threading.Event(), Turns()
    found = search(Reader(letters.source, slow, letters.tokenizer), [1], Settings(BEAM_SEARCH, {}, 500), stopped, turns)
    assert isinstance(next(found), int)
    stopped.set()
    assert not [each for each in found if not isinstance(each, int)]
    assert slow.reads < 400
    with turns:
        pass


def test_a_search_that_nobody_waits_for_ends(letters: Reader) -> None:
    class Slow(Counting):
        def extend(self, *args, **kwargs):
            time.sleep(0.02)
            return super().extend(*args, **kwargs)

    slow = Slow(letters.model)
    watched = Reader(letters.source, slow, letters.tokenizer)
    found = search(watched, [1], Settings(BEAM_SEARCH, {}, 500), threading.Event(), Turns())
    next(found)
    found.close()
    reads = slow.reads
    time.sleep(0.1)
    assert slow.reads == reads < 400


def test_a_text_is_reread_as_it_was_written_beyond_the_context() -> None:
    small = reader(CharVocabulary.from_text("abcdefgh"), block_size=8)
    ids = [1, 2, 3]
    choices = run(small, ids, Settings("Sampling", {}, 30))
    again = reread(small, ids, [c.token for c in choices])
    assert [c.token for c in again] == [c.token for c in choices]
    assert [c.probability for c in again] == pytest.approx([c.probability for c in choices], rel=1e-3)


# ---------------------------------------------------------------- models, settings, the address


def test_the_courses_model_and_the_sorter_are_offered() -> None:
    names = [source.name for source in sources()]
    assert names[:2] == ["Shakespeare by characters", "Sorter"]
    shelf = Shelf(sources())
    kept = shelf.get(names[0])
    assert kept.summary.startswith("1,816,896 parameters: 4 layers, 6 heads")
    assert read_prompt(kept, kept.source.prompt)


def test_a_folder_is_offered_first(tmp_path) -> None:
    from shared.models import save_pretrained
    from shared.text import save_tokenizer

    folder = tmp_path / "mine"
    tokenizer = CharVocabulary.from_text("abc")
    save_pretrained(reader(tokenizer).model, folder)
    save_tokenizer(tokenizer, folder)
    shelf = Shelf(sources([str(folder)]))
    assert next(iter(shelf.sources)) == "mine"
    assert shelf.get("mine").tokenizer == tokenizer


def test_folders_that_have_the_name_of_another_model_are_offered_by_their_paths(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("course.demo.models.in_cache", lambda name: name == "gpt2")
    folders = [tmp_path / "a" / "mine", tmp_path / "b" / "mine", tmp_path / "gpt2", tmp_path / "Sorter"]
    for folder in folders:
        folder.mkdir(parents=True)
    found = sources([str(folder) for folder in folders] + ["gpt2", str(folders[0])])
    assert [source.name for source in found[:5]] == ["mine", *map(str, folders[1:]), "gpt2"]
    assert [source.name for source in found[5:]] == ["Shakespeare by characters", "Sorter"]
    assert "OpenAI" in found[4].about and "folder gpt2" in found[2].about


def test_a_folder_without_a_model_is_explained(tmp_path) -> None:
    with pytest.raises(ModelError, match="config.json"):
        Shelf(sources([str(tmp_path)])).get(tmp_path.name)
    with pytest.raises(ModelError, match="neither a folder"):
        sources([str(tmp_path / "nothing")])
    with pytest.raises(ModelError, match="no model 'x' here"):
        Shelf(sources()).get("x")


def test_what_is_in_the_cache_is_offered(monkeypatch, tmp_path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert not in_cache("gpt2") and len(sources()) == 2
    snapshot = tmp_path / "models--openai-community--gpt2" / "snapshots" / KNOWN["gpt2"].revision
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert in_cache("gpt2") and [source.name for source in sources()][2:] == ["gpt2"]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"top_k": 0}, "k: expected 1 to 100"),
        ({"top_k": 2.5}, "k: expected a whole number"),
        ({"temperature": float("nan")}, "Temperature: expected 0.1 to 2"),
        ({"temperature": "hot"}, "Temperature: expected a number, but got 'hot'"),
        ({"temperature": None}, "Temperature: expected a number"),
    ],
)
def test_wrong_numbers_are_named(values: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Settings("Top-k", values).config()
    with pytest.raises(ValueError, match="no strategy 'Luck'"):
        Settings("Luck").config()


def test_every_strategy_makes_a_config_from_its_defaults() -> None:
    for name in STRATEGIES:
        config = Settings(name, {n: p.default for n, p in PARAMETERS.items()}).config()
        assert (config.temperature == 0) == (name == "Greedy")


def test_a_taken_port_is_explained_and_the_next_one_is_found(monkeypatch) -> None:
    with socket.socket() as taken:
        taken.bind((server.HOME, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CourseError, match=f"port {port} cannot be used.*--port"):
            server.free_port(server.HOME, port)
        monkeypatch.setattr(server, "PORT", port)
        assert port < server.free_port(server.HOME, None) < port + server.TRIES
        monkeypatch.setattr(server, "TRIES", 1)
        with pytest.raises(CourseError, match="name one with --port"):
            server.free_port(server.HOME, None)


def test_without_gradio_one_sentence_says_what_to_do(monkeypatch) -> None:
    found = server.importlib.util.find_spec
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name))
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(CourseError, match="needs Gradio.*course setup --extra demo"):
        server.launch(Shelf(sources()))


@pytest.mark.parametrize("public", [False, True])
def test_it_is_public_only_when_asked_and_says_so(monkeypatch, capsys, public: bool) -> None:
    asked, closed, opened = [], [], []

    class App:
        local_url = "http://127.0.0.1:1/"

        def close(self, verbose: bool) -> None:
            closed.append(True)

    monkeypatch.setattr(server, "launch", lambda shelf, port, public: asked.append(public) or App())
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(server.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        server.serve(public=public)
    said = capsys.readouterr()
    assert asked == [public] and closed == [True]
    assert "The demo is at http://127.0.0.1:1/" in said.out
    assert ("without a password" in said.err) == public
    assert opened == ([] if public else ["http://127.0.0.1:1/"])


# ---------------------------------------------------------------- whose code

PROGRAM = """
import sys, threading
from course.extension import activate_for_program
print(*activate_for_program(sys.argv[1:] == ["--reference"]), sep="\\n")
from course.demo.models import Shelf, sources
from course.demo.session import read_prompt, write
from course.demo.strategies import Settings
from course.demo.turns import Turns
reader = Shelf(sources()).get("Sorter")
settings = Settings("Greedy", None, 6, 0)
print([c.text for c in write(reader, read_prompt(reader, "CBABBC"), settings, threading.Event(), Turns())])
"""


def written(workspace: Path | None, *arguments: str) -> list[str]:
    """The lines that a program says, the last of them what the sorter writes."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_")}
    if workspace is not None:
        variables["SHARED_WORKSPACE"] = str(workspace)
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_writes_with_the_learners_functions_and_the_reference_where_these_cannot_be_used(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    workspace.start([load_sprint(find_folder("10"))])
    path = workspace.file("shared.generation.config")
    choose = texts.functions(workspace.reference("shared.generation.config"))["choose"].text
    first = choose.replace("return logits.argmax(-1).tolist()", "return [0] * len(logits)")
    assert first != choose
    path.write_text(texts.put(path.read_text(encoding="utf-8"), "choose", first), encoding="utf-8")
    broken = workspace.file("shared.generation.beam")
    broken.write_text("def beam_search(\n", encoding="utf-8")
    *said, text = written(workspace.folder)
    assert text == str(["A"] * 6)
    assert said[0].startswith("framework: yours: generation.config (1 of ") and "everything else: reference" in said[0]
    assert any(line.startswith("your generation.beam cannot be used, the reference stands in for it") for line in said)
    said, text = written(workspace.folder, "--reference")
    assert said == "framework: the reference (without --reference: yours)" and text == str([*"ABBBCC"])


def test_a_workspace_that_is_not_there_is_told(tmp_path: Path) -> None:
    variables = {**os.environ, "SHARED_WORKSPACE": str(tmp_path / "none")}
    command = [sys.executable, "-m", "course", "demo", "--no-browser"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stdout == "Starting …\n"
    assert "names no workspace" in done.stderr and "Traceback" not in done.stderr
