"""Trains a GPT on Shakespeare, or on a text of one's own, with the settings of a preset.

    python sprints/09_train_gpt2/results/train_gpt2.py                       cpu-tiny: two layers, about a minute
    python sprints/09_train_gpt2/results/train_gpt2.py --preset cpu          nanoGPT's setting for a laptop
    python sprints/09_train_gpt2/results/train_gpt2.py --preset gpu          nanoGPT's setting for a GPU
    python sprints/09_train_gpt2/results/train_gpt2.py --text mine.txt --tokenizer bpe --folder runs/mine

The folder of a run (`--folder`, else runs/<preset>) has its tokens and what they were made from, tokenizer,
checkpoints, the log of every update and the loss curve; interrupt it when you like and go on with --resume and the same
options: a folder with a training on another text, tokenizer or model is refused. Where a preset was trained as it is to
its end, its numbers go to metrics.json and its curve to figures/; for a run that is done, --resume writes them again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import shared
from course.files import write_atomically
from course.plotting import COLORS, use_style
from course.results import Results
from shared.checkpoint import CheckpointError
from shared.data import DatasetUnavailable, TokenStream, catalog, sequential_windows, write_tokens
from shared.models import GPT, GPTConfig
from shared.text import ByteLevelBPE, CharVocabulary, load_tokenizer, save_tokenizer
from shared.training import (
    LMConfig,
    RunLog,
    Trainer,
    bits_per_character,
    evaluate_loss,
    find_checkpoint,
    perplexity,
    sample_text,
)

PRESETS = Path(__file__).resolve().parent / "presets"
RUNS = PRESETS.parents[3] / "runs"
NANOGPT = {"cpu": 1.88, "gpu": 1.4697}  # the validation losses that nanoGPT's README states for these settings
CHANGES = ("text", "tokenizer", "steps", "seed", "dtype", "time_budget", "sample_interval")


@dataclass(frozen=True)
class Run:
    """What one training is made from."""

    name: str
    settings: dict[str, Any]  # of the preset, with the changes of the command line
    changed: bool
    folder: Path

    @property
    def prefix(self) -> str:
        """What its metrics begin with."""
        return self.name.replace("-", "_")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    parser.add_argument("--preset", default="cpu-tiny", choices=names, help="default: cpu-tiny")
    parser.add_argument("--text", metavar="FILE", help="a text file of your own in place of TinyShakespeare")
    parser.add_argument("--tokenizer", choices=("char", "bpe", "gpt2"), help="characters, one's own BPE, or GPT-2's")
    parser.add_argument("--vocab-size", type=int, default=1000, help="of --tokenizer bpe (default: 1000)")
    parser.add_argument("--steps", type=int, help="updates, instead of the preset's; warm-up at most a tenth")
    parser.add_argument("--seed", type=int, help="of weights and windows, instead of the preset's")
    parser.add_argument("--time-budget", type=float, metavar="SECONDS", help="stop after so long, with a checkpoint")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the products")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is a GPU)")
    parser.add_argument("--folder", type=Path, help="of the run (default: runs/<preset>)")
    parser.add_argument("--resume", action="store_true", help="go on where the training in the folder is")
    parser.add_argument("--sample-interval", type=int, metavar="STEPS", help="write a sample every so often")
    parser.add_argument("--sample", type=int, default=400, metavar="TOKENS", help="length of the last one (400)")
    parser.add_argument("--prompt", help="what samples go on from (default: the end of a line)")
    parser.add_argument("--tensorboard", action="store_true", help="also write for TensorBoard, into the folder")
    args = parser.parse_args()
    if args.sample < 0:
        parser.error("--sample: a length of 0 (no sample) or more")
    return args


def planned(args: argparse.Namespace) -> Run:
    """The preset with what the command line changes."""
    settings = tomllib.loads((PRESETS / f"{args.preset}.toml").read_text(encoding="utf-8"))
    changes = {name: getattr(args, name) for name in CHANGES if getattr(args, name) is not None}
    for name in ("text", "tokenizer"):
        settings[name] = changes.get(name, settings[name])
    training = settings["training"] | {k: v for k, v in changes.items() if k not in ("text", "tokenizer")}
    training["warmup_steps"] = min(training["warmup_steps"], training["steps"] // 10)
    training["sample_tokens"] = max(1, args.sample)
    settings["training"] = training | ({} if args.prompt is None else {"prompt": args.prompt})
    changed = bool(changes.keys() - {"sample_interval"})
    return Run(args.preset, settings, changed, args.folder or RUNS / args.preset)


# ---------------------------------------------------------------- text and tokens


def texts(source: str) -> tuple[str, str]:
    """(training text, validation text): a data set of the catalog, or a file, of which the last tenth is held out."""
    if not is_file(source):
        try:
            kind = catalog.entry(source).kind
        except ValueError as error:
            raise ValueError(f"--text: there is no file {source!r}; and as a data set: {error}") from None
        if kind != "text":
            raise ValueError(f"--text: the data set {source} has no text to train on, it is of the kind {kind!r}")
        train, val = shared.data.load(source, fallback=True)
        return train.text, val.text
    try:
        text = Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--text: {source} is not a text in UTF-8: {error.reason} at byte {error.start}") from None
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def is_file(source: str) -> bool:
    """Whether --text names a file, or a pipe, and no data set."""
    return os.path.exists(source) and not os.path.isdir(source)


def new_tokenizer(kind: str, train: str, val: str, vocab_size: int) -> Any:
    """Characters of the whole text; or byte pairs learnt from the training text; or GPT-2's."""
    if kind == "char":
        return CharVocabulary.from_text(train + val)
    return ByteLevelBPE.gpt2() if kind == "gpt2" else ByteLevelBPE.train(train, vocab_size)


def origin(run: Run, parts: tuple[str, str], vocab_size: int) -> dict[str, Any]:
    """What tokens are made from, as the folder's text.json has it."""
    kind, digest = run.settings["tokenizer"], hashlib.sha256("".join(parts).encode()).hexdigest()
    made = {"text": run.settings["text"], "sha256": digest, "tokenizer": kind}
    return made | ({"vocab_size": vocab_size} if kind == "bpe" else {})


def begun(folder: Path) -> bool:
    """Whether there is a training in the folder."""
    return (folder / "history.jsonl").exists() or find_checkpoint(folder) is not None


def noted(path: Path) -> dict[str, Any] | None:
    """What a file of the folder says; None where there is none, or one that was cut off."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_origin(folder: Path, now: dict[str, Any]) -> bool:
    """Whether the folder's tokens are those of `now`; ValueError where they are not and a training stands on them.

    Without a training, a tokenizer that was made for another text goes.
    """
    before = noted(folder / "text.json")
    same = before is not None and all(before.get(k) == now.get(k) for k in ("sha256", "tokenizer", "vocab_size"))
    if not same and begun(folder):
        there = f"{before['text']} ({told(before)})" if before else "a text that it does not name"
        raise ValueError(
            f"the training in {folder} is on {there}, not on {now['text']} ({told(now)}) as it is now: name the same "
            "--text, --tokenizer and --vocab-size, or take another --folder"
        )
    if not same and before is not None:
        for name in ("vocabulary.json", "vocab.json", "merges.txt"):
            (folder / name).unlink(missing_ok=True)
    return same


def told(made: dict[str, Any]) -> str:
    """The tokenizer and the beginning of the text's hash, for a message: a file may keep its name and change."""
    size = f" of {made['vocab_size']}" if "vocab_size" in made else ""
    return f"tokenizer {made['tokenizer']}{size}, sha256 {made['sha256'][:8]}"


def check_lengths(run: Run, train: list[int], val: list[int]) -> None:
    """ValueError where one of the two parts has no window of the preset's length."""
    window = run.settings["model"]["block_size"]
    if min(len(train), len(val)) <= window:
        raise ValueError(
            f"{run.settings['text']} gives {len(train):,} tokens to train on and {len(val):,} to validate; a window "
            f"of preset {run.name} needs {window + 1}: take a longer text, or a smaller block_size in the preset's file"
        )


def tokens(run: Run, vocab_size: int) -> tuple[TokenStream, TokenStream, Any]:
    """(training tokens, validation tokens, tokenizer), made at the first call and afterwards read from the folder."""
    paths = [run.folder / name for name in ("train.npy", "val.npy")]
    parts = texts(run.settings["text"])
    if not all(parts):
        raise ValueError(f"--text: {run.settings['text']} is empty, or so short that nothing is left to hold out")
    made = origin(run, parts, vocab_size)
    if not check_origin(run.folder, made) or not all(path.exists() for path in paths):
        tokenizer = new_tokenizer(run.settings["tokenizer"], *parts, vocab_size)
        ids = [tokenizer.encode(part) for part in parts]
        check_lengths(run, *ids)
        save_tokenizer(tokenizer, run.folder)
        for path, part in zip(paths, ids, strict=True):
            write_tokens(path, part, tokenizer.vocab_size)
        write_atomically(run.folder / "text.json", json.dumps(made, indent=2) + "\n")
    tokenizer = load_tokenizer(run.folder)
    train, val = (TokenStream(path, tokenizer.vocab_size) for path in paths)
    return train, val, tokenizer


# ---------------------------------------------------------------- the training


def main() -> None:
    try:
        train(arguments())
    except (OSError, ValueError, FloatingPointError, ImportError, CheckpointError, DatasetUnavailable) as error:
        raise SystemExit(f"train_gpt2.py: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted; --resume goes on from the last checkpoint") from None


def check_folder(run: Run, resume: bool) -> None:
    """FileExistsError for a folder with a training that is not to go on; says so where there is none to go on with."""
    there = begun(run.folder)
    if there and not resume:
        raise FileExistsError(f"there is a training in {run.folder}: go on with --resume, or take another --folder")
    if resume and not there:
        print(f"there is no training in {run.folder} yet: this one begins at update 0")


def check_model(run: Run, model: GPT) -> None:
    """ValueError where the folder's training has another model, with what is other."""
    before = (noted(run.folder / "config.json") or {}).get("model") or {}
    now = asdict(model.config)
    other = [f"{k} {before[k]} there, {v} here" for k, v in now.items() if k in before and before[k] != v]
    if other:
        what = f"the training in {run.folder} has another model than preset {run.name}: {', '.join(other)}"
        raise ValueError(f"{what}; name the --preset that it was begun with, or take another --folder")


def chosen_device(name: str | None) -> str:
    """What --device says, else the GPU where there is one; ValueError for what is not there."""
    device = name or ("cuda" if shared.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not shared.cuda.is_available():
        raise ValueError(f"--device {device}: there is no GPU that could be used; leave the option away for the CPU")
    try:
        return str(shared.device(device))
    except RuntimeError as error:
        raise ValueError(f"--device: {error}") from None


def prompt_for(tokenizer: Any, given: str | None, tokens: TokenStream) -> str:
    """What samples go on from: what is given, else the end of a line, in a text without lines its first token.

    ValueError that names the character, now and not after the training, where the tokenizer does not know one.
    """
    try:
        tokenizer.encode(given or "\n")
    except ValueError as error:
        if given is not None:
            raise ValueError(f"--prompt: {error}") from None
        return tokenizer.decode([tokens[0]])
    return given or "\n"


def train(args: argparse.Namespace) -> None:
    """Text, model, training, table; and what is kept of them."""
    run = planned(args)
    device = chosen_device(args.device)
    config = LMConfig.from_dict(run.settings["training"])
    check_folder(run, args.resume)
    train_tokens, val_tokens, tokenizer = tokens(run, args.vocab_size)
    prompt = prompt_for(tokenizer, args.prompt, train_tokens)
    config = replace(config, prompt=prompt)
    shared.manual_seed(config.seed)
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **run.settings["model"])).to(device)
    check_model(run, model)
    size = f"{model.num_parameters():,} parameters, {model.config.block_size} tokens in a window"
    print(f"{size}, {tokenizer.vocab_size:,} in the vocabulary; {device}, {config.dtype}")
    print(f"{len(train_tokens):,} tokens to train on, {len(val_tokens):,} to validate")

    board = run.folder / "tensorboard" if args.tensorboard else None
    options = {"folder": run.folder, "tokenizer": tokenizer, "tensorboard": board}
    trainer = Trainer(model, train_tokens, val_tokens, config, **options)
    trainer.train(resume=args.resume)

    whole = evaluate_loss(
        model, sequential_windows(val_tokens, config.batch_size, model.config.block_size), trainer.cast
    )
    report(run, trainer, whole)
    if args.sample:
        print("\n" + sample_text(model, tokenizer, prompt, args.sample, temperature=0.8, seed=config.seed))
    if trainer.stopped_by == "steps" and not run.changed and has_its_text(run) and trainer.log.last("val_loss"):
        record(run, trainer, whole, device)


def has_its_text(run: Run) -> bool:
    """False where the preset's data set could not be had, and another text stood in for it."""
    source = run.settings["text"]
    return is_file(source) or catalog.status(source) not in ("missing", "incomplete")


def nats(loss: float | None) -> str:
    """A loss with its unit; of a run that is done, whose log is gone, nothing is known."""
    return "not in the log" if loss is None else f"{loss:.4f} nats per token"


def report(run: Run, trainer: Trainer, whole: float) -> None:
    """A short table of what came out."""
    log, tokens_per_second = trainer.log, trainer.tokens_per_second()
    characters = trainer.characters_per_token()
    rows = [
        ("updates", f"{trainer.step:,} ({trainer.stopped_by})"),
        ("training loss", nats(log.last("train_loss"))),
        ("validation loss", nats(log.last("val_loss"))),
        ("  over the whole text", f"{whole:.4f}, perplexity {perplexity(whole):.2f}"),
        ("  bits per character", f"{bits_per_character(whole, characters):.3f}"),
        ("time", f"{trainer.seconds:.1f} s"),
    ]
    if run.name in NANOGPT and not run.changed:
        rows.insert(3, ("  nanoGPT states", f"{NANOGPT[run.name]:.2f}"))
    if tokens_per_second:
        speed = f"{tokens_per_second:,.0f} tokens, {trainer.flops_per_second() / 1e9:.1f} GFLOP in products"
        rows.append(("per second", speed))
    print()
    for name, value in rows:
        print(f"{name:24}{value}")


def record(run: Run, trainer: Trainer, whole: float, device: str) -> None:
    """Numbers and curve of a preset that was trained as it is; those of other presets stay."""
    log = trainer.log
    results = Results(__file__, seed=trainer.config.seed, device=device)
    values = [
        ("parameters", trainer.model.num_parameters(), ""),
        ("untrained_loss", log.column("val_loss")[1][0], "nats per token"),
        ("train_loss", log.last("train_loss"), "nats per token"),
        ("val_loss", log.last("val_loss"), "nats per token"),
        ("val_loss_whole", whole, "nats per token"),
        ("bits_per_character", bits_per_character(whole, trainer.characters_per_token()), "bits"),
        ("seconds", round(trainer.seconds, 1), "s"),
        ("tokens_per_second", round(trainer.tokens_per_second()), "tokens/s"),
        ("gflops", round(trainer.flops_per_second() / 1e9, 1), "GFLOP/s"),
    ]
    for name, value, unit in values:
        results.metric(f"{run.prefix}_{name}", value, unit=unit)
    text = f"The training loss of preset {run.name} falls to {log.last('train_loss'):.2f} nats per token, the "
    text += f"validation loss to {log.last('val_loss'):.2f}, within {trainer.step:,} updates."
    results.figure(curve(run, log), f"loss_{run.prefix}", alt=text)
    path = results.save(keep=lambda name: preset_of(name) != run.prefix)
    print(f"\nwritten to {os.path.relpath(path)}")


def preset_of(metric: str) -> str:
    """The preset that a metric belongs to, by its name: cpu_tiny, not cpu, for cpu_tiny_val_loss."""
    prefixes = [path.stem.replace("-", "_") for path in PRESETS.glob("*.toml")]
    return max((p for p in prefixes if metric.startswith(f"{p}_")), key=len, default="")


def curve(run: Run, log: RunLog) -> Any:
    """Losses over updates, with the one that nanoGPT states where there is one."""
    import matplotlib.pyplot as plt

    use_style()
    figure, axis = plt.subplots()
    axis.plot(*log.column("loss"), color="0.75", linewidth=0.6, label="each update's batch")
    axis.plot(*log.column("train_loss"), marker="o", color=COLORS["blue"], label="training text")
    axis.plot(*log.column("val_loss"), marker="o", color=COLORS["vermillion"], label="validation text")
    if run.name in NANOGPT:
        stated = NANOGPT[run.name]
        axis.axhline(stated, color="black", linestyle=":", linewidth=1, label=f"nanoGPT states {stated:.2f}")
    axis.set(xlabel="updates", ylabel="loss (nats per token)", title=f"Training with preset {run.name}")
    axis.legend()
    return figure


if __name__ == "__main__":
    main()
