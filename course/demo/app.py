"""The page: what stands where, and which function each button calls. What a request does is in `session`."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported: nothing is reported to anybody
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr  # noqa: E402

from . import attention, coloring, session  # noqa: E402
from .models import MOST, ModelError, Reader, Shelf, Source  # noqa: E402
from .strategies import AGAINST_REPETITION, BEAM_SEARCH, DEFAULT, PARAMETERS, STRATEGIES, Settings, whole  # noqa: E402
from .turns import Stops, Turns  # noqa: E402

STYLE = Path(__file__).with_name("style.css")
MOST_SEED, MOST_SHOWN = 2**32 - 1, 128
PAUSE = 0.08  # seconds between two updates of a text: a browser draws no faster than people read
FONTS: dict[str, Any] = {  # of the system: nothing is loaded from anywhere
    "font": ["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"],
    "font_mono": ["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"],
}
TOP = [name for name in PARAMETERS if name not in AGAINST_REPETITION]
TITLE = "Sprint to GPT: write with a model"


def theme() -> Any:
    """Gradio's plain theme with the system's fonts, and greys and blues that can be read on their grounds."""
    plain = gr.themes.Default(primary_hue="sky", neutral_hue="slate", **FONTS)
    return plain.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="#0072b2",
        button_primary_background_fill_hover="#005a8c",
        button_primary_background_fill_dark="#0072b2",
        button_primary_background_fill_hover_dark="#005a8c",
    )


class Handlers:
    """What the page's events call. One object serves all pages; what belongs to a request is on its own stack."""

    def __init__(self, shelf: Shelf):
        self.shelf, self.turns, self.stops = shelf, Turns(), Stops()

    # ---------------------------------------------------------------- writing

    def generate(
        self,
        request: gr.Request,
        model: str,
        prompt: str,
        strategy: str,
        max_new_tokens: float,
        seed: float,
        *values: float,
    ) -> Iterator[dict[int, Any] | tuple]:
        """Streams (note, coloured text, plain text, what the map needs, both buttons)."""
        stopped = self.stops.start(str(request.session_hash))
        try:
            yield coloring.note(f"Opening {model} …"), gr.skip(), gr.skip(), gr.skip(), *buttons(running=True)
            reader = self.shelf.get(model)
            settings = self._settings(reader.source, strategy, max_new_tokens, seed, values)
            ids = session.read_prompt(reader, prompt)
            run = self._beams if strategy == BEAM_SEARCH else self._tokens
            for note, page, text, written in run(reader, prompt, ids, settings, stopped):
                shown = note, page, text, {"model": model, "ids": [*ids, *written]}
                yield *shown, *buttons(running=True)
            yield *shown, *buttons(running=False)
        except Exception as error:
            yield explain(error), gr.skip(), gr.skip(), gr.skip(), *buttons(running=False)
        finally:
            self.stops.end(str(request.session_hash), stopped)

    def _settings(self, source: Source, strategy: str, most: Any, seed: Any, values: tuple) -> Settings:
        number = whole("Number of tokens", most, 1, source.most)
        seed = whole("Seed", 0 if seed is None else seed, 0, MOST_SEED)
        return Settings(strategy, dict(zip(PARAMETERS, values, strict=True)), number, seed)

    def _tokens(self, reader: Reader, prompt: str, ids: list[int], settings: Settings, stopped: Any) -> Iterator[tuple]:
        choices: list[session.Choice] = []
        began = drawn = time.perf_counter()
        yield coloring.note("Reading the prompt …"), coloring.page(prompt, [], running=True), prompt, []
        trouble = ""
        try:
            for choice in session.write(reader, ids, settings, stopped, self.turns):
                choices.append(choice)
                if time.perf_counter() - drawn >= PAUSE:
                    drawn = time.perf_counter()
                    note = coloring.note(f"Writing: {len(choices)} of {settings.max_new_tokens} tokens")
                    yield note, coloring.page(prompt, choices, running=True), *_plain(prompt, choices)
        except ValueError as error:
            trouble = f" It ended because no token was left to choose: {error}"
        ended = stopped.is_set() and len(choices) < settings.max_new_tokens
        note = summary(choices, time.perf_counter() - began, ended) + trouble
        yield coloring.note(note, "error" if trouble else ""), coloring.page(prompt, choices), *_plain(prompt, choices)

    def _beams(self, reader: Reader, prompt: str, ids: list[int], settings: Settings, stopped: Any) -> Iterator[tuple]:
        began = time.perf_counter()
        yield coloring.note("Reading the prompt …"), coloring.page(prompt, [], running=True), prompt, []
        for found in session.search(reader, ids, settings, stopped, self.turns):
            if isinstance(found, int):
                note = coloring.note(f"Searching: {found} of {settings.max_new_tokens} tokens")
                yield note, coloring.page(prompt, [], running=True), prompt, []
            else:
                note = summary(found[0].choices, time.perf_counter() - began, False)
                yield coloring.note(note), coloring.beams(prompt, found), *_plain(prompt, found[0].choices)
                return
        yield (
            coloring.note("Stopped before the search was done: it has no text yet."),
            coloring.page(prompt, []),
            "",
            [],
        )

    def stop(self, request: gr.Request) -> None:
        """Ends what this page is writing, before its next token."""
        self.stops.stop(str(request.session_hash))

    # ---------------------------------------------------------------- choosing

    def choose_model(self, model: str, prompt: str) -> tuple:
        """(about, prompt, number of tokens, layer, head) of a model; its example, unless somebody wrote a prompt."""
        source = self.shelf.sources.get(model)
        if source is None:
            return coloring.note(f"There is no model {model!r} here.", "error"), *[gr.skip()] * 4
        tokens = gr.Slider(maximum=source.most, value=source.usual)
        examples = {"", *(s.prompt for s in self.shelf.sources.values())}
        prompt = source.prompt if prompt in examples else prompt
        try:
            reader = self.shelf.get(model)
        except Exception as error:
            return explain(error), prompt, tokens, gr.skip(), gr.skip()
        config, about = reader.model.config, f"{source.about} {reader.summary}"
        layers = gr.Slider(maximum=config.n_layer, value=1, label=f"Layer, of {config.n_layer}")
        heads = gr.Slider(maximum=config.n_head, value=1, label=f"Head, of {config.n_head}")
        return coloring.note(about), prompt, tokens, layers, heads

    def choose_strategy(self, strategy: str) -> list:
        """The sentence, and the parameters of it; the others are put away."""
        chosen = STRATEGIES[strategy]
        return [coloring.note(chosen.sentence), *(gr.Slider(visible=name in chosen.parameters) for name in TOP)]

    def attention(self, written: dict | None, layer: Any, head: Any, shown: Any) -> str:
        """The map of a head, for the prompt and what was written after it."""
        if not written:
            return coloring.note("Write something first: the map is of the prompt and the text.")
        try:
            reader = self.shelf.get(written["model"])
            ids = written["ids"]
            config = reader.model.config
            layer, head = whole("Layer", layer, 1, config.n_layer), whole("Head", head, 1, config.n_head)
            shown = whole("Tokens shown", shown, 1, MOST_SHOWN)
            if len(ids) > reader.block_size:  # the last token was chosen, but never read
                ids = ids[:-1][-reader.block_size :]
            with self.turns:
                weights = attention.weights(reader.model, ids, layer - 1, head - 1)
            labels = [session.label(reader.tokenizer, i) for i in ids]
            return attention.draw(weights, labels, layer - 1, head - 1, shown)
        except Exception as error:
            return explain(error)

    def attention_if_open(self, is_open: bool, *values: Any) -> Any:
        """The map after a new text, where it is looked at."""
        return self.attention(*values) if is_open else gr.skip()


def _plain(prompt: str, choices: list[session.Choice]) -> tuple[str, list[int]]:
    return prompt + "".join(c.text for c in choices), [c.token for c in choices]


def explain(error: Exception) -> str:
    """An error as a note; one that nobody thought of goes to the terminal too."""
    if isinstance(error, (ModelError, ValueError)):
        return coloring.note(str(error), "error")
    traceback.print_exception(error)
    mine = os.environ.get("SHARED_WORKSPACE") is not None  # the learner's framework, which may be at work
    whose = "one of your functions or of this program (the terminal says where)" if mine else "this program"
    text = f"Something went wrong, which is a mistake of {whose}: {type(error).__name__}: {error}"
    return coloring.note(text, "error")


def buttons(running: bool) -> tuple:
    """Generate and Stop, one of which can be pressed."""
    return gr.Button(interactive=not running), gr.Button(interactive=running)


def summary(choices: list[session.Choice], seconds: float, stopped: bool) -> str:
    """What is said when a text is done."""
    if not choices:
        return "Stopped before the first token." if stopped else "The model wrote nothing."
    count = f"{len(choices)} token{'s' if len(choices) > 1 else ''}"
    bits = sum(choice.bits for choice in choices) / len(choices)
    speed = f"{count} in {seconds:.2f} s, {len(choices) / seconds:.0f} per second"
    text = f"{speed}; {bits:.1f} bits of surprise each, on average."
    return f"Stopped by you after {text}" if stopped else text


def build(shelf: Shelf) -> gr.Blocks:
    """The page for these models, not yet launched; the first of them is chosen."""
    on = Handlers(shelf)
    first = next(iter(shelf.sources.values()))
    with gr.Blocks(title=TITLE, analytics_enabled=False) as app:
        gr.HTML(
            "<h1>Write with a model</h1><p>A language model gives every token a probability of coming next; a strategy "
            "chooses one. Here you see both, token by token.</p>",
            elem_classes="head",
        )
        written, map_is_open = gr.State(None), gr.State(False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                prompt = gr.Textbox(
                    first.prompt,
                    label="Prompt",
                    info="The model continues it. Shift+Enter is Generate.",
                    lines=3,
                    max_lines=10,
                    elem_id="prompt",
                )
                with gr.Row(elem_classes="actions"):
                    generate = gr.Button("Generate", variant="primary", elem_id="generate", min_width=110)
                    stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", min_width=110)
                note = gr.HTML(coloring.note("Ready."), elem_id="note")
                with gr.Tabs():
                    with gr.Tab("Text", id="text") as text_tab:
                        page = gr.HTML(coloring.empty(), elem_id="page")
                    with gr.Tab("Attention", id="attention") as map_tab:
                        with gr.Row():
                            layer = gr.Slider(1, 64, 1, step=1, label="Layer", elem_id="layer", min_width=140)
                            head = gr.Slider(1, 64, 1, step=1, label="Head", elem_id="head", min_width=140)
                            shown = gr.Slider(8, MOST_SHOWN, 32, step=8, label="Tokens shown", min_width=140)
                        picture = gr.HTML(elem_id="attention")
                    with gr.Tab("Plain text", id="plain"):
                        plain = gr.Textbox(
                            label="Prompt and text",
                            lines=12,
                            max_lines=30,
                            interactive=False,
                            buttons=["copy"],
                            elem_id="plain",
                        )
            with gr.Column(scale=2, min_width=320):
                model = gr.Dropdown(list(shelf.sources), value=first.name, label="Model", elem_id="model")
                about = gr.HTML(coloring.note(first.about), elem_id="about")
                strategy = gr.Radio(list(STRATEGIES), value=DEFAULT, label="Strategy", elem_id="strategy")
                sentence = gr.HTML(coloring.note(STRATEGIES[DEFAULT].sentence), elem_id="sentence")
                sliders = {name: slider(name, name in STRATEGIES[DEFAULT].parameters) for name in TOP}
                tokens = gr.Slider(1, MOST, first.usual, step=1, label="Number of tokens", elem_id="tokens")
                with gr.Row(elem_classes="seed"):
                    seed = gr.Number(
                        0,
                        label="Seed",
                        info="The same seed draws the same text.",
                        precision=0,
                        minimum=0,
                        maximum=MOST_SEED,
                        elem_id="seed",
                        min_width=120,
                    )
                    new_seed = gr.Button("New seed", size="sm", min_width=80, scale=0)
                with gr.Accordion("Against repetition", open=False):
                    sliders |= {name: slider(name, True) for name in AGAINST_REPETITION}

        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        quick = hidden | {"queue": False}
        ordered = [sliders[name] for name in PARAMETERS]
        drawing = gr.on(
            [generate.click, prompt.submit],
            on.generate,
            [model, prompt, strategy, tokens, seed, *ordered],
            [note, page, plain, written, generate, stop],
            api_name="generate",
            show_progress="hidden",
            concurrency_limit=None,
        )
        map_inputs = [written, layer, head, shown]
        drawing.then(on.attention_if_open, [map_is_open, *map_inputs], picture, **hidden)
        stop.click(on.stop, None, None, **quick)
        app.unload(on.stop)
        gr.on(
            [model.change, app.load], on.choose_model, [model, prompt], [about, prompt, tokens, layer, head], **hidden
        )
        strategy.change(on.choose_strategy, strategy, [sentence, *(sliders[name] for name in TOP)], **quick)
        new_seed.click(lambda: random.randrange(2**32), None, seed, **quick)
        map_tab.select(lambda: True, None, map_is_open, **quick).then(on.attention, map_inputs, picture, **hidden)
        text_tab.select(lambda: False, None, map_is_open, **quick)
        gr.on([layer.change, head.change, shown.change], on.attention, map_inputs, picture, **hidden)
    return app


def slider(name: str, visible: bool) -> gr.Slider:
    """The slider of a parameter, with what it does."""
    p = PARAMETERS[name]
    return gr.Slider(
        p.minimum, p.maximum, p.default, step=p.step, label=p.label, info=p.info, visible=visible, elem_id=f"p-{name}"
    )
