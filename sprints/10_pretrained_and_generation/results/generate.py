"""Writes texts with a trained model: which model, which prompt, and how the next token is chosen.

    python sprints/10_pretrained_and_generation/results/generate.py --prompt "ROMEO:" --stream
    … --strategy greedy                                    the likeliest token each time
    … --strategy nucleus --top-p 0.9 --number 3 --seed 7   three texts, and the same three next time
    … --strategy beam --beams 4 --number 4                 the four best texts of a search, with their scores
    … --model gpt2 --prompt "Once upon a time"             a model of Hugging Face's hub, downloaded once
    … --strategy sample --draft ngrams --stream            speculative decoding: the same distribution, in fewer passes

Without --model it is the model of Sprint 09, Shakespeare by characters. `course demo` has the same in a browser.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drafts import NGrams, kept_draft
from kept import FOLDER

from shared.checkpoint import CheckpointError
from shared.generation import GenerationConfig, TextStream, generate_text, stream_text
from shared.generation.beam import beam_search
from shared.generation.speculative import speculative_stream
from shared.generation.text import prompt_ids
from shared.models import GPT, load_pretrained
from shared.models.pretrained import load_pretrained_tokenizer

STRATEGIES = {  # name: what it does, the options that belong to it
    "greedy": ("the likeliest token each time; ends in loops", ()),
    "sample": ("a draw from all tokens", ("temperature",)),
    "top-k": ("a draw from the k likeliest", ("temperature", "top_k")),
    "nucleus": ("a draw from the fewest tokens that together have probability p", ("temperature", "top_p")),
    "min-p": ("a draw from those not much less likely than the likeliest", ("temperature", "min_p")),
    "beam": ("a search for the likeliest text; draws nothing", ("beams", "length_penalty")),
}
USUAL = {"temperature": 1.0, "top_k": 10, "top_p": 0.9, "min_p": 0.1, "beams": 4, "length_penalty": 1.0}
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size")
DRAFTS = ("ngrams", "small")  # those of this sprint, for the kept model


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog=examples, formatter_class=form)
    parser.add_argument("--model", default=str(FOLDER), help="a folder, or a name: gpt2, distilgpt2, gpt2-medium, …")
    parser.add_argument(
        "--prompt", default="ROMEO:\n", help=r"what to go on from; \n is a new line (default: ROMEO:\n)"
    )
    listed = "; ".join(f"{name}: {what}" for name, (what, _) in STRATEGIES.items())
    parser.add_argument("--strategy", choices=STRATEGIES, default="nucleus", help=f"{listed} (default: nucleus)")

    own = parser.add_argument_group("numbers of the strategies")
    own.add_argument(
        "--temperature", type=float, metavar="T", help="scores are divided by it: below 1 likely ones gain"
    )
    own.add_argument("--top-k", type=int, metavar="K", help="how many tokens stay (10)")
    own.add_argument("--top-p", type=float, metavar="P", help="the probability that those who stay have together (0.9)")
    own.add_argument("--min-p", type=float, metavar="P", help="the least share of the likeliest's probability (0.1)")
    own.add_argument("--beams", type=int, metavar="N", help="texts that are followed at once (4)")
    own.add_argument("--length-penalty", type=float, metavar="A", help="ln p is divided by length ** A (1)")

    against = parser.add_argument_group("against repetition, with any strategy")
    against.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="scores of tokens seen are divided by it; 1 is off",
    )
    against.add_argument(
        "--presence-penalty", type=float, default=0.0, metavar="X", help="is taken off the score of what was written"
    )
    against.add_argument(
        "--frequency-penalty", type=float, default=0.0, metavar="X", help="is taken off for each time it was written"
    )
    against.add_argument("--no-repeat-ngram-size", type=int, default=0, metavar="N", help="no N tokens twice; 0 is off")

    parser.add_argument("--number", type=int, default=1, metavar="N", help="how many texts (default: 1)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=200, metavar="N", help="length of each text (default: 200)"
    )
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before it; may be given again")
    parser.add_argument("--seed", type=int, help="of the draws: the same seed, the same texts")
    parser.add_argument("--stream", action="store_true", help="show each text while it is written")
    parser.add_argument("--draft", help=f"speculative decoding with {' or '.join(DRAFTS)}, or a model's folder or name")
    parser.add_argument("--lookahead", type=int, default=4, metavar="N", help="tokens that the draft proposes (4)")
    args = parser.parse_args(argv)
    if problem := wrong(args):
        parser.error(problem)
    return args


def wrong(args: argparse.Namespace) -> str | None:
    """What does not fit together, in a sentence; None where all does. Fills in the strategy's usual numbers."""
    own = STRATEGIES[args.strategy][1]
    for name, usual in USUAL.items():
        option = "--" + name.replace("_", "-")
        if name not in own and getattr(args, name) is not None:
            takers = ", ".join(s for s, (_, names) in STRATEGIES.items() if name in names)
            return f"{option} has no effect with --strategy {args.strategy}; it belongs to {takers}"
        if name in own and getattr(args, name) is None:
            setattr(args, name, usual)
    for name in ("number", "max_new_tokens", "lookahead"):
        if getattr(args, name) < 1:
            return f"--{name.replace('_', '-')}: expected at least 1, but got {getattr(args, name)}"
    if args.temperature is not None and args.temperature <= 0:
        return f"--temperature: expected more than 0, but got {args.temperature}; --strategy greedy is its limit"
    if args.strategy == "beam":
        if args.number > args.beams:
            return f"--number {args.number}: {args.beams} beams find at most as many texts; raise --beams"
        for option in ("stream", "stop", "draft"):
            if getattr(args, option):
                return f"--{option} does not go with --strategy beam, which has no text before it is done"
    if args.strategy == "greedy" and args.number > 1:
        return "--number: greedy writes the same text each time; draw (--strategy nucleus), or search (beam)"
    return None


def settings(args: argparse.Namespace, seed: int | None, tokenizer: Any = None) -> GenerationConfig:
    """The GenerationConfig of the options; ValueError that names a number that makes no sense."""
    stop_tokens = tuple(getattr(tokenizer, "special_tokens", {}).values())  # GPT-2's <|endoftext|>
    drawn = {name: getattr(args, name) for name in ("top_k", "top_p", "min_p") if getattr(args, name) is not None}
    temperature = 0.0 if args.strategy in ("greedy", "beam") else args.temperature
    return GenerationConfig(
        max_new_tokens=args.max_new_tokens,
        temperature=temperature,
        stop_tokens=stop_tokens,
        stop_strings=tuple(unescaped(stop) for stop in args.stop),
        seed=seed,
        **drawn,
        **{name: getattr(args, name) for name in PENALTIES},
    )


def unescaped(text: str) -> str:
    r"""A text of the command line with \n and \t as new line and tabulator.

    >>> unescaped(r"ROMEO:\n") == "ROMEO:" + chr(10)
    True
    """
    return text.replace("\\n", "\n").replace("\\t", "\t")


def opened(name: str) -> tuple[GPT, Any]:
    """Model and tokenizer of a folder, or of a name on the hub. ValueError for a model without a tokenizer."""
    model = load_pretrained(name).eval()
    try:
        return model, load_pretrained_tokenizer(name)
    except FileNotFoundError as error:
        raise ValueError(f"--model {name} has weights, but no tokenizer that could read the prompt: {error}") from None


def draft_of(name: str, tokenizer: Any, model_name: str) -> Any:
    """A draft by its name; ValueError where one of this sprint's is asked to help a model it was not made for."""
    if name not in DRAFTS:
        return load_pretrained(name).eval()
    if Path(model_name).resolve() != FOLDER.resolve():
        raise ValueError(f"--draft {name} guesses characters of Shakespeare; give a draft with the model's vocabulary")
    return NGrams.of_shakespeare(tokenizer, 5) if name == "ngrams" else kept_draft()


def speculated(
    model: GPT, tokenizer: Any, draft: Any, prompt: str, config: GenerationConfig, lookahead: int
) -> Iterator[str]:
    """Pieces of text as `stream_text` gives them, some tokens at a time; at the end a line on how it went."""
    text, rounds = TextStream(tokenizer, config.stop_strings), []
    for turn in speculative_stream(model, draft, prompt_ids(tokenizer, prompt), config, lookahead):
        rounds.append(turn)
        for token in turn.tokens:
            if piece := text.add(token):
                yield piece
        if text.stopped:
            break
    yield text.end()
    tokens, proposed = sum(len(r.tokens) for r in rounds), max(1, sum(r.proposed for r in rounds))
    accepted = sum(r.accepted for r in rounds) / proposed
    print(
        f"\n[{tokens} tokens in {len(rounds)} passes of the model, {accepted:.0%} of the proposals accepted]",
        file=sys.stderr,
    )


def texts(args: argparse.Namespace, model: GPT, tokenizer: Any) -> Iterator[tuple[str, Iterator[str]]]:
    """For each text to be written its heading, and its pieces."""
    prompt = unescaped(args.prompt)
    if args.strategy == "beam":
        ids = prompt_ids(tokenizer, prompt)
        options = {
            "length_penalty": args.length_penalty,
            "num_return": args.number,
            "config": settings(args, None, tokenizer),
        }
        for i, beam in enumerate(beam_search(model, ids, args.beams, args.max_new_tokens, **options), start=1):
            heading = f"{i}: score {beam.score:.4f}, ln p {beam.log_prob:.2f}"
            yield heading, iter([tokenizer.decode(beam.ids)])
    elif args.draft or args.stream:
        draft = draft_of(args.draft, tokenizer, args.model) if args.draft else None
        for i in range(args.number):
            config = settings(args, None if args.seed is None else args.seed + i, tokenizer)
            pieces = speculated(model, tokenizer, draft, prompt, config, args.lookahead) if draft else None
            yield f"{i + 1}", pieces or stream_text(model, tokenizer, prompt, config)
    else:
        found = generate_text(model, tokenizer, [prompt] * args.number, settings(args, args.seed, tokenizer))
        for i, text in enumerate(found, start=1):
            yield f"{i}", iter([text])


def write(args: argparse.Namespace) -> None:
    """Opens the model and prints what it writes, each text after its prompt."""
    settings(args, args.seed)  # a wrong number is told before a large model is opened
    model, tokenizer = opened(args.model)
    start, pieces_written = time.perf_counter(), 0
    for heading, pieces in texts(args, model, tokenizer):
        if args.number > 1 or args.strategy == "beam":
            print(f"--- {heading}")
        print(unescaped(args.prompt), end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
            pieces_written += len(piece)
        print()
    print(f"[{pieces_written} characters in {time.perf_counter() - start:.2f} s]", file=sys.stderr)


def main() -> None:
    args = arguments()
    try:
        write(args)
    except (OSError, ValueError, RuntimeError, ImportError, CheckpointError) as error:
        raise SystemExit(f"generate.py: {error}") from None
    except KeyboardInterrupt:
        print("\n[interrupted]", file=sys.stderr)
    except BrokenPipeError:  # the reader has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
