"""The trainer of language models: a loop of updates, with measuring, saving and sampling at intervals.

Read `Trainer.train` first, then what it calls, in order. The arithmetic is in `next_token`, the settings are in
`lm_config`, the schedule is in `schedule`, the rows of numbers are in `run_log`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, is_dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

from shared.arrays.dtypes import as_dtype
from shared.arrays.random import Generator
from shared.data.tokens import RandomWindows, as_stream, random_windows, sequential_windows
from shared.nn import Module
from shared.optim import Optimizer
from shared.optim.lr_scheduler import LambdaLR
from shared.tensor import Tensor
from shared.training.checkpoints import checkpoint_info, find_checkpoint
from shared.training.early_stopping import EarlyStopping
from shared.training.history import History
from shared.training.lm_config import LMConfig, block_size_of, device_of, optimizer_of, scaler_of
from shared.training.next_token import (
    bits_per_character,
    characters_per_token,
    evaluate_loss,
    perplexity,
    sample_text,
    train_step,
)
from shared.training.resume import load_checkpoint, save_checkpoint
from shared.training.run_log import RunLog
from shared.training.schedule import warmup_cosine
from shared.training.step_bar import StepBar
from shared.training.tensorboard import TensorBoard

SMALLEST_SCALE = 1e-4  # of the loss in float16: where this is still too much, the gradient itself is not finite


class Trainer:
    """Trains a language model, a module ids (B, T) → logits (B, T, V), on a row of tokens, and watches it on another.

    `train_tokens` and `val_tokens` are whatever `TokenStream` takes: paths of `.npy` files, arrays, lists. Every number
    of the training is in `config`. The optimizer is `model.configure_optimizers(lr, weight_decay, betas)` unless one
    is given, whose rates then follow the shape of the schedule. With a `folder` there are:

        history.jsonl    a line for each update ("loss", "lr", "norm", "tokens", "seconds"), each measurement
                         ("val_loss", "train_loss", "perplexity", "bits_per_token", "bits_per_character", "seconds")
                         and each "sample"
        config.json      the settings
        step-00001000/   checkpoints: the last `keep_last`, and that of the lowest validation loss
        loss.png         the curve, at the end

    A `tokenizer` (encode, decode) is needed for samples, which also need `model.generate`, and tells the characters
    that a token has. `tensorboard` is a folder or a `TensorBoard`. `log` has all rows, `stopped_by` says why it ended.

    >>> import shared
    >>> _ = shared.manual_seed(0)
    >>> config = LMConfig(steps=60, batch_size=4, block_size=8, max_lr=0.3, warmup_steps=5, eval_interval=30)
    >>> model, text = shared.nn.Embedding(5, 5), [0, 1, 2, 3, 4] * 40        # a table of bigrams learns to count
    >>> optimizer = shared.optim.AdamW(model.parameters(), lr=0.3)
    >>> trainer = Trainer(model, text, text, config, optimizer=optimizer, progress=False)
    >>> log = trainer.train()
    >>> log.last("val_loss") < 0.01, trainer.stopped_by
    (True, 'steps')
    """

    def __init__(
        self,
        model: Module,
        train_tokens: Any,
        val_tokens: Any,
        config: LMConfig,
        *,
        folder: str | os.PathLike | None = None,
        tokenizer: Any = None,
        optimizer: Optimizer | None = None,
        tensorboard: TensorBoard | str | os.PathLike | None = None,
        progress: bool = True,
    ):
        self.model, self.config, self.tokenizer, self.progress = model, config, tokenizer, progress
        self.folder = os.fspath(folder) if folder is not None else None
        self.train_tokens, self.val_tokens = as_stream(train_tokens), as_stream(val_tokens)
        self.block_size = block_size_of(model, config)
        self.windows = RandomWindows(self.train_tokens, config.windows_per_step, self.block_size, config.seed)
        self.tokens_per_step = config.windows_per_step * self.block_size
        self.steps = config.planned_steps(self.tokens_per_step)
        self.optimizer = optimizer if optimizer is not None else optimizer_of(model, config)
        self._own_optimizer = optimizer is None
        self.scheduler = LambdaLR(self.optimizer, self.rate_factor)
        self.scaler = scaler_of(model, config)
        self.stopping = EarlyStopping(config.patience, restore_best=False) if config.patience else None
        self.board = TensorBoard(tensorboard) if isinstance(tensorboard, (str, os.PathLike)) else tensorboard
        self.log = RunLog()
        self.step, self.seconds, self.best, self.stopped_by = 0, 0.0, math.inf, ""
        self._characters: float | None = None
        self._begun = False
        self._check()

    # ------------------------------------------------------------ the loop

    def train(self, resume: bool = False) -> RunLog:
        """Trains until a budget is used up; returns the log. The model is left with its last weights.

        With `resume`, goes on from the last checkpoint in the folder, if there is one, with the losses that the
        unbroken training would have had, bit for bit; settings that were changed since hold from there on, with a
        warning. Without it, a folder that has a training in it is a FileExistsError. FloatingPointError, which names
        the step, where a loss is no longer finite: the model is as before that step, and the checkpoints are those
        from before.
        """
        self._begin(resume)
        config, self.stopped_by = self.config, self.used_up()
        board = closing(self.board) if self.board is not None else nullcontext()
        with StepBar(self.step, self.steps, self.progress) as bar, self.log, board:
            if self.step == 0 and config.eval_interval:
                self.evaluate()  # before anything is learnt: about ln V
            while not self.stopped_by:
                bar.show(self.advance(), self.log)
                self.stopped_by = self.used_up()
                improved = self.due(config.eval_interval) and self.evaluate()
                if self.due(config.sample_interval):
                    bar.write(self.sample())
                if self.due(config.checkpoint_interval) or (improved and config.checkpoint_interval):
                    self.save()
        self._finish()
        return self.log

    def due(self, interval: int) -> bool:
        """Whether something that happens every `interval` updates happens now; at the end it does, 0 is never."""
        return interval > 0 and (self.step % interval == 0 or bool(self.stopped_by))

    def used_up(self) -> str:
        """Which budget is used up: "steps", "token budget", "time budget", "patience"; "" while there is some left."""
        if self.stopping is not None and self.stopping.stop:
            return "patience"
        if self.step >= self.steps:
            return "steps" if self.steps == self.config.steps else "token budget"
        if self.config.time_budget is not None and self.seconds >= self.config.time_budget:
            return "time budget"
        return ""

    # ------------------------------------------------------------ what it is made of

    def advance(self) -> dict[str, Any]:
        """One update of the model, and its row in the log."""
        start, config = perf_counter(), self.config
        inputs, targets = next(self.windows)  # (accumulation · batch_size, block_size) each
        rate = self.scheduler.get_last_lr()[0]
        try:
            loss, norm = train_step(
                self.model,
                self.optimizer,
                inputs,
                targets,
                accumulation=config.accumulation,
                clip=config.clip,
                cast=self.cast,
                scaler=self.scaler,
            )
            if self.scaler is not None and not math.isfinite(norm) and self.scaler.get_scale() < SMALLEST_SCALE:
                raise FloatingPointError(f"the norm of the gradient is {norm}, however little the loss is scaled")
        except FloatingPointError as error:
            raise self._diagnosis(f"in step {self.step + 1} {error}, at a learning rate of {rate:.3g}") from error
        self.scheduler.step()
        self.step += 1
        taken = perf_counter() - start
        self.seconds += taken
        row = {
            "step": self.step,
            "loss": loss,
            "lr": rate,
            "norm": norm if math.isfinite(norm) else None,
            "tokens": self.step * self.tokens_per_step,
            "seconds": round(self.seconds, 6),
        }
        self.log.add(**row)
        self._to_board(
            {"loss/batch": loss, "lr": rate, "norm": norm, "tokens_per_second": self.tokens_per_step / taken}
        )
        return row

    def evaluate(self) -> bool:
        """Measures the loss on both texts, in eval mode and always on the same windows; whether it is the best yet.

        On the validation text that is the mean over `eval_batches` batches of random windows, or over all of it; on the
        training text over as many batches. Changes nothing that the training depends on but the count of patience.
        """
        start = perf_counter()
        val = evaluate_loss(self.model, self.validation_batches(), self.cast)
        train = evaluate_loss(self.model, self._fixed(self.train_tokens, self.config.eval_batches or 20), self.cast)
        if not math.isfinite(val):
            raise self._diagnosis(f"after step {self.step} the validation loss is {val}")
        row = {"train_loss": train, "val_loss": val, "perplexity": perplexity(val), "bits_per_token": val / math.log(2)}
        if self.tokenizer is not None:
            row["bits_per_character"] = bits_per_character(val, self.characters_per_token())
        self.seconds += perf_counter() - start
        self.log.add(step=self.step, **row, seconds=round(self.seconds, 4))
        self._to_board({"loss/train": train, "loss/val": val, "perplexity": row["perplexity"]}, flush=True)
        improved, self.best = val < self.best, min(val, self.best)
        if self.stopping is not None and self.step % self.config.eval_interval == 0:
            if self.stopping.step(val, self.model):
                self.stopped_by = self.stopped_by or "patience"
        return improved

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches that the validation loss is measured on."""
        if self.config.eval_batches is None:
            return sequential_windows(self.val_tokens, self.config.batch_size, self.block_size)
        return self._fixed(self.val_tokens, self.config.eval_batches)

    def _fixed(self, tokens: Any, batches: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Random windows, the same ones at every call, and not the ones that the training begins with."""
        generator = Generator().manual_seed(self.config.seed + 1)
        for _ in range(batches):
            yield random_windows(tokens, self.config.batch_size, self.block_size, generator)

    def characters_per_token(self) -> float:
        """How many characters a token of the validation text has, in the mean over its first 100,000."""
        if self._characters is None:
            self._characters = characters_per_token(self.tokenizer, self.val_tokens[:100_000])
        return self._characters

    def sample(self) -> str:
        """A text by the model as it is now; the seed and the step decide the draws."""
        start, config = perf_counter(), self.config
        text = sample_text(
            self.model,
            self.tokenizer,
            config.prompt,
            config.sample_tokens,
            temperature=config.temperature,
            top_k=config.top_k,
            seed=config.seed + self.step,
        )
        self.seconds += perf_counter() - start
        self.log.add(step=self.step, sample=text)
        return f"--- after {self.step} updates\n{text}\n---"

    def save(self) -> None:
        """Writes a checkpoint, if there is a folder; first of all what the log and TensorBoard have until here."""
        if self.folder is None:
            return
        start = perf_counter()
        self.log.flush()
        if self.board is not None:
            self.board.flush()
        measured = self.log.measured()
        save_checkpoint(
            self.folder,
            self.model,
            self.optimizer,
            self.step,
            **self._parts(),
            history=History(measured),
            config=self._description(),
            value=measured["val_loss"][-1] if measured["step"][-1:] == [self.step] else None,
            keep_last=self.config.keep_last,
        )
        self.seconds += perf_counter() - start

    def rate_factor(self, step: int) -> float:
        """What the optimizer's own rates are multiplied with in update number `step`, counted from 0."""
        c = self.config
        return warmup_cosine(step, c.max_lr, c.min_lr, c.warmup_steps, self.steps) / c.max_lr

    def cast(self) -> AbstractContextManager:
        """The context of a forward pass, by `config.dtype`."""
        if self.config.dtype == "float32":
            return nullcontext()
        from shared.amp import autocast

        return autocast(device_of(self.model).type, as_dtype(self.config.dtype))

    # ------------------------------------------------------------ speed

    def tokens_per_second(self) -> float:
        """At the median time from one update to the next, by the log; 0 before the second update."""
        updates = [row for row in self.log.rows if "tokens" in row]
        taken = [b["seconds"] - a["seconds"] for a, b in pairwise(updates) if b["step"] == a["step"] + 1]
        return self.tokens_per_step / median(taken) if taken else 0.0

    def flops_per_second(self) -> float:
        """Floating-point operations of the matrix products per second, by `model.flops_per_token`."""
        return self.tokens_per_second() * self.model.flops_per_token(self.block_size)

    # ------------------------------------------------------------ saved and found again

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside model, optimizer, schedule and windows."""
        stopping = self.stopping.state_dict() if self.stopping is not None else None
        return {"seconds": self.seconds, "best": self.best, "stopping": stopping}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where the trainer that returned `state_dict` was."""
        self.seconds, self.best = state_dict["seconds"], state_dict["best"]
        if self.stopping is not None and state_dict["stopping"] is not None:
            self.stopping.load_state_dict(state_dict["stopping"])

    def _parts(self) -> dict[str, Any]:
        """What a checkpoint has beside model and optimizer."""
        return {"scheduler": self.scheduler, "scaler": self.scaler, "data": [self.windows, self]}

    def _description(self) -> dict[str, Any]:
        """The settings of training and model, as JSON has them."""
        config = getattr(self.model, "config", None)
        return {
            "training": self.config.to_dict(),
            "model": asdict(config) if is_dataclass(config) and not isinstance(config, type) else None,
        }

    def _begin(self, resume: bool) -> None:
        """Opens the folder: an error where it has a training already, or with `resume` the state of its checkpoint."""
        if self.folder is None:
            if resume:
                raise ValueError("resume=True needs the folder of the training: Trainer(..., folder=...)")
            return
        history = os.path.join(self.folder, "history.jsonl")
        found = find_checkpoint(self.folder)
        if not resume and (found is not None or os.path.exists(history)):
            raise FileExistsError(
                errno.EEXIST, "there is a training in this folder: go on with resume=True, or take another", self.folder
            )
        if self._begun and found is None:
            raise ValueError(
                f"there is no checkpoint in {self.folder} to go on from, and this Trainer has been at work: make model "
                f"and Trainer anew to begin again"
            )
        try:
            os.makedirs(self.folder, exist_ok=True)
            self.log = RunLog(history)
            if found is not None:
                self._go_on()
            self.log.truncate(self.step if found else -1)
            self._note_settings(os.path.join(self.folder, "config.json"))
        except OSError as error:
            raise type(error)(
                error.errno, f"the training cannot use its folder: {error.strerror}", error.filename or self.folder
            ) from error
        self._begun = True

    def _go_on(self) -> None:
        """Loads the last checkpoint; settings that are not those it was written with take the place of those."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.step = load_checkpoint(self.folder, self.model, self.optimizer, **self._parts())
        before = checkpoint_info(self.folder)["config"]["training"]
        now = json.loads(json.dumps(self.config.to_dict()))
        changed = [f"{k} {before.get(k)!r} → {v!r}" for k, v in now.items() if before.get(k) != v]
        if not changed:
            return
        warnings.warn(f"resumed with other settings: {', '.join(changed)}", stacklevel=4)
        if self._own_optimizer:  # the checkpoint has its old rates, betas and weight decay
            for group, settings in zip(self.optimizer.param_groups, groups, strict=True):
                group.update(settings)
        self.scheduler = LambdaLR(self.optimizer, self.rate_factor, last_epoch=self.step - 1)

    def _note_settings(self, path: str) -> None:
        """Writes the settings; what was there before stays until they are complete."""
        with open(f"{path}.tmp", "w", encoding="utf-8") as file:
            file.write(json.dumps(self._description(), indent=2) + "\n")
        os.replace(f"{path}.tmp", path)

    def _finish(self) -> None:
        if self.folder is not None and self.log.rows:
            self.log.plot().savefig(os.path.join(self.folder, "loss.png"), dpi=120)

    # ------------------------------------------------------------ helpers

    def _to_board(self, numbers: dict[str, float], flush: bool = False) -> None:
        if self.board is not None:
            self.board.numbers(self.step, numbers, flush)

    def _diagnosis(self, what: str) -> FloatingPointError:
        """The error of a training that cannot go on: where it was, what is kept, what to do."""
        found = find_checkpoint(self.folder) if self.folder is not None else None
        kept = f"the last checkpoint, from before, is {found}" if found else "there is no checkpoint from before"
        return FloatingPointError(
            f"{what}; {kept}. Lower max_lr, clip the gradients (clip = 1.0) or warm up for longer; "
            f"shared.autograd.detect_anomaly() names the operation that makes the first NaN"
        )

    def _check(self) -> None:
        """Errors that would otherwise come after hours."""
        config = self.config
        if self.steps <= config.warmup_steps:
            raise ValueError(
                f"token_budget={config.token_budget} allows {self.steps} updates of {self.tokens_per_step} tokens, no "
                f"more than the warm-up has ({config.warmup_steps}): lower warmup_steps"
            )
        if config.sample_interval:
            if self.tokenizer is None or not hasattr(self.model, "generate"):
                raise ValueError("sample_interval: samples need a tokenizer and a model that has generate()")
            self.tokenizer.encode(config.prompt)  # an error that names the character where it cannot
