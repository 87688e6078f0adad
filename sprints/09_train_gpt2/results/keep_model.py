"""The model that is kept in ../model: weights, configuration, tokenizer and card, from the run of the preset `kept`.

python sprints/09_train_gpt2/results/train_gpt2.py --preset kept     first: the training
python sprints/09_train_gpt2/results/keep_model.py --machine "…"     then: the folder, seconds

The same checkpoint gives the same files. The loss on the card is that over the whole validation text, in windows of
block_size that do not overlap.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from small import corpus, validation_loss
from train_gpt2 import RUNS

from course.results import Results
from shared.models import GPT, GPTConfig, load_pretrained, save_pretrained
from shared.text import load_tokenizer, save_tokenizer
from shared.training import (
    bits_per_character,
    checkpoint_info,
    find_checkpoint,
    load_checkpoint,
    perplexity,
    sample_text,
)

FOLDER = Path(__file__).resolve().parents[1] / "model"
PROMPTS = ("ROMEO:\n", "To be, or not to be")

CARD = """# Shakespeare by characters, a GPT of {parameters:,} parameters

The architecture of GPT-2 in small: {n_layer} blocks, {n_head} heads, {n_embd} wide, windows of {block_size} characters, learned positions, biases, tied output layer; {vocab_size} characters. Made in Sprint 09 of this course, for the sprints after it to start from. `config.json` and `model.safetensors` have Hugging Face's names, so that `transformers.GPT2LMHeadModel.from_pretrained` opens the folder as well.

```python
from shared.models import load_pretrained
from shared.text import load_tokenizer

folder = "sprints/09_train_gpt2/model"
model, tokenizer = load_pretrained(folder), load_tokenizer(folder)
```

| | |
|---|---|
| validation loss | {loss:.4f} nats per character |
| perplexity | {perplexity:.4f} |
| bits per character | {bits:.4f} |
| parameters | {parameters:,} |
| updates | {steps:,} of {batch_size} windows |
| seed | {seed} |
| sha256 of model.safetensors | {sha256} |

The loss is over the whole validation text, the last tenth, in windows of {block_size} characters that do not overlap.

**Data.** TinyShakespeare, 1,115,394 characters of Shakespeare's plays as Andrej Karpathy put them together; the plays are in the public domain. The first 90% were trained on, the rest never.

**Licence.** That of this repository (see `LICENSE` at its root).

**Command.** `python sprints/09_train_gpt2/results/train_gpt2.py --preset kept`, then `python sprints/09_train_gpt2/results/keep_model.py --machine …`. Settings: `results/presets/kept.toml`.

**Machine.** {machine}. Trained on {date}; {minutes:.0f} minutes by the clock.

**What it is not.** It knows one author's plays by their letters: it spells, it sets speeches, and means nothing. It has no idea of any other text, and the one it had was written by people of 1600: their views of women, Jews and Moors are in it too.

## Samples

At temperature 0.8, seed 0.
{samples}"""  # noqa: E501 (lines of Markdown)


def trained(run: Path) -> tuple[GPT, dict[str, Any]]:
    """The model of the last checkpoint in the folder of a run that is done, and what the checkpoint says of itself."""
    info = checkpoint_info(run)
    settings = info["config"]["training"]
    if info["step"] != settings["steps"]:
        raise SystemExit(f"keep_model.py: {run} is at update {info['step']} of {settings['steps']}: finish it first")
    model = GPT(GPTConfig(**info["config"]["model"])).eval()
    load_checkpoint(run, model)
    return model, info


def card(model: GPT, info: dict[str, Any], args: argparse.Namespace, loss: float, sha256: str, tokenizer: Any) -> str:
    """MODEL_CARD.md."""
    rows = [json.loads(line) for line in (args.run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    written = find_checkpoint(args.run) / "manifest.json"
    samples = [sample_text(model, tokenizer, prompt, 300, temperature=0.8, seed=0) for prompt in PROMPTS]
    return CARD.format(
        **{name: getattr(model.config, name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")},
        **{name: info["config"]["training"][name] for name in ("steps", "batch_size", "seed")},
        parameters=model.num_parameters(),
        loss=loss,
        perplexity=perplexity(loss),
        bits=bits_per_character(loss),
        sha256=sha256,
        machine=args.machine,
        date=datetime.datetime.fromtimestamp(written.stat().st_mtime, datetime.UTC).date().isoformat(),
        minutes=rows[-1]["seconds"] / 60,
        samples="".join(f"\n```text\n{sample.strip()}\n```\n" for sample in samples),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=RUNS / "kept", help="folder of the training (default: runs/kept)")
    parser.add_argument("--machine", required=True, help="what it was trained on, for the card")
    args = parser.parse_args()
    model, info = trained(args.run)
    tokenizer = load_tokenizer(args.run)
    shutil.rmtree(FOLDER, ignore_errors=True)
    save_pretrained(model, FOLDER)
    save_tokenizer(tokenizer, FOLDER)
    kept = load_pretrained(FOLDER)
    loss = validation_loss(kept, corpus().val, kept.config.block_size)
    sha256 = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    (FOLDER / "MODEL_CARD.md").write_text(card(kept, info, args, loss, sha256, tokenizer), encoding="utf-8")
    results = Results(__file__, seed=info["config"]["training"]["seed"])
    results.metric("model_parameters", kept.num_parameters())
    results.metric("model_updates", info["step"])
    results.metric("model_val_loss", round(loss, 4), unit="nats per token")
    results.metric("model_perplexity", round(perplexity(loss), 4))
    results.metric("model_bytes", sum(path.stat().st_size for path in FOLDER.iterdir()), unit="bytes")
    results.save()
    print((FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8"))
    print(f"in {os.path.relpath(FOLDER)}")


if __name__ == "__main__":
    main()
