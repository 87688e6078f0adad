"""The language-model trainer: what an update is, what measuring leaves alone, when it stops, and that it resumes."""

import dataclasses
import json
import math
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

import shared
from shared import nn
from shared.data import random_windows, sequential_windows
from shared.models import GPT, GPTConfig
from shared.models import PRESETS as PRESETS_OF_MODELS
from shared.optim import SGD, AdamW
from shared.optim import lr_scheduler as schedules
from shared.training import (
    LMConfig,
    RunLog,
    Trainer,
    accumulate_gradients,
    batch_loss,
    bits_per_character,
    characters_per_token,
    evaluate_loss,
    find_checkpoint,
    find_learning_rate,
    load_checkpoint,
    perplexity,
    sample_text,
    train_step,
    warmup_cosine,
)
from shared.training import language_model as module

PRESETS = Path(__file__).resolve().parents[2] / "sprints" / "09_train_gpt2" / "results" / "presets"
TEXT = np.random.default_rng(0).choice(7, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05], size=3000).astype(np.uint16)
TRAIN, VAL = TEXT[:2500], TEXT[2500:]
SMALL = {"vocab_size": 7, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}


class Letters:
    """A tokenizer of seven tokens, "a" to "f" and a newline."""

    def encode(self, text):
        return ["\nabcdef".index(char) for char in text]

    def decode(self, ids):
        return "".join("\nabcdef"[i] for i in ids)


def gpt(seed=0, **changes):
    shared.manual_seed(seed)
    return GPT(GPTConfig(**{**SMALL, "dropout": 0.0, **changes}))


def config(**changes):
    small = {"steps": 12, "batch_size": 3, "warmup_steps": 2, "eval_interval": 4, "eval_batches": 2}
    return LMConfig(**{**small, "checkpoint_interval": 4, "max_lr": 0.01, "min_lr": 0.001, "seed": 5, **changes})


def trainer(model=None, train=TRAIN, val=VAL, folder=None, **changes):
    options = {name: changes.pop(name) for name in ("tokenizer", "optimizer", "tensorboard") if name in changes}
    model = model if model is not None else gpt()
    return Trainer(model, train, val, config(**changes), folder=folder, progress=False, **options)


def ids(batch=6, length=8, seed=1):
    return random_windows(TRAIN, batch, length, shared.Generator().manual_seed(seed))


def weights(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def gradients(model):
    return {name: p.grad.numpy().copy() for name, p in model.named_parameters()}


# ---------------------------------------------------------------- loss and gradients


def test_the_loss_is_the_mean_of_minus_ln_p_of_the_next_token():
    model, (inputs, targets) = gpt(), ids(batch=2)
    p = nn.functional.softmax(model(inputs), dim=-1).detach().numpy()
    by_hand = [-math.log(p[b, t, int(targets[b, t])]) for b in range(2) for t in range(8)]
    assert batch_loss(model, inputs, targets).item() == pytest.approx(np.mean(by_hand), rel=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 4, 5, 6], ids=lambda n: f"{n} pieces of 6 windows")
def test_accumulation_equals_the_larger_batch(parts):
    model, (inputs, targets) = gpt(), ids()
    whole = batch_loss(model, inputs, targets)
    whole.backward()
    expected = gradients(model)
    model.zero_grad()
    loss = accumulate_gradients(model, inputs, targets, parts)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6) and not loss.requires_grad
    for name, grad in gradients(model).items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-4, atol=1e-7, err_msg=name)


def test_accumulating_adds_to_what_is_there():
    model, batch = gpt(), ids()
    accumulate_gradients(model, *batch, parts=2)
    once = gradients(model)
    accumulate_gradients(model, *batch, parts=2)
    for name, grad in gradients(model).items():
        np.testing.assert_allclose(grad, 2 * once[name], rtol=1e-5, atol=1e-8)


def test_only_a_piece_of_the_batch_goes_through_the_model_at_a_time():
    sizes = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 7)

        def forward(self, x):
            sizes.append(len(x))
            return self.table(x)

    accumulate_gradients(Spy(), *ids(batch=7), parts=3)
    assert sizes == [3, 3, 1]


def test_a_training_with_accumulation_is_that_of_the_larger_batch():
    losses = []
    for batch_size, accumulation in ((6, 1), (3, 2), (1, 6)):
        log = trainer(batch_size=batch_size, accumulation=accumulation, steps=6, eval_interval=0).train()
        losses.append(log.column("loss")[1])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-4)


# ---------------------------------------------------------------- one update


def test_an_update_is_the_lines_written_out():
    by_hand, model, (inputs, targets) = gpt(), gpt(), ids()
    optimizers = [m.configure_optimizers(lr=0.01) for m in (by_hand, model)]
    for _ in range(3):
        optimizers[0].zero_grad()
        loss = batch_loss(by_hand, inputs, targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        optimizers[0].step()
        assert train_step(model, optimizers[1], inputs, targets, clip=0.5) == (loss.item(), norm.item())
    assert same(weights(by_hand), weights(model))


@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e9])
def test_gradients_are_scaled_together_to_the_norm_allowed(clip):
    model, batch = gpt(), ids()
    accumulate_gradients(model, *batch)
    full = gradients(model)
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in full.values()))
    _, told = train_step(model, SGD(model.parameters(), lr=0.0), *batch, clip=clip)
    assert told == pytest.approx(norm, rel=1e-5), "the norm told is the one before clipping"
    scale = clip / norm if 0 < clip < norm else 1.0
    for name, grad in gradients(model).items():
        np.testing.assert_allclose(grad, full[name] * scale, rtol=1e-3, atol=1e-9, err_msg=name)


def test_gradients_of_before_do_not_count_and_the_mode_is_train():
    model, batch = gpt(), ids()
    model.eval()
    model.lm_head.weight.grad = shared.full((7, 8), 1e6)
    _, norm = train_step(model, SGD(model.parameters(), lr=0.0), *batch)
    assert norm < 100 and model.training


def test_matrices_decay_and_biases_and_norms_do_not():
    model = gpt()
    by_name = dict(model.named_parameters())
    groups = trainer(model, weight_decay=0.3).optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay.keys() == {id(p) for p in by_name.values()}
    for name, parameter in by_name.items():
        matrix = name.endswith(("embedding.weight", "positions.weight", "proj.weight", "1.weight", "2.weight"))
        matrix = matrix and "norm" not in name
        assert decay[id(parameter)] == (0.3 if matrix else 0.0), name


# ---------------------------------------------------------------- schedule


def nanogpt(it, learning_rate, min_lr, warmup_iters, lr_decay_iters):
    """get_lr of nanoGPT's train.py, in other words."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)


def test_the_schedule_by_hand():
    rates = [warmup_cosine(step, 1.0, 0.2, warmup_steps=1, decay_steps=5) for step in range(8)]
    half = math.sqrt(0.5)  # the cosine of 45 degrees
    expected = [0.5, 1.0, 0.2 + 0.4 * (1 + half), 0.6, 0.2 + 0.4 * (1 - half), 0.2, 0.2, 0.2]
    assert rates == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("warmup", "decay"), [(100, 2000), (0, 10), (1, 2), (7, 8)])
def test_the_schedule_is_nanogpts(warmup, decay):
    for step in range(decay + 3):
        assert warmup_cosine(step, 1e-3, 1e-4, warmup, decay) == nanogpt(step, 1e-3, 1e-4, warmup, decay)


@pytest.mark.parametrize("library", ["shared", "torch"])
def test_the_schedule_is_the_composition_of_two(library):
    if library == "shared":
        optimizer = SGD([shared.zeros(1, requires_grad=True)], lr=1e-3)
        scheduler = schedules.warmup_cosine(optimizer, 10, 60, eta_min=1e-4)
    else:
        torch = pytest.importorskip("torch")
        lrs = torch.optim.lr_scheduler
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
        parts = [lrs.LinearLR(optimizer, 1 / 11, total_iters=10), lrs.CosineAnnealingLR(optimizer, 50, 1e-4)]
        scheduler = lrs.SequentialLR(optimizer, parts, [10])
    for step in range(60):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(warmup_cosine(step, 1e-3, 1e-4, 10, 60), rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_the_trainer_follows_the_schedule_from_the_first_update():
    log = trainer().train()
    assert log.column("lr")[1] == pytest.approx([warmup_cosine(s, 0.01, 0.001, 2, 12) for s in range(12)], rel=1e-12)


def test_groups_with_rates_of_their_own_keep_their_ratio():
    model = gpt()
    head, rest = [model.norm.weight], [p for p in model.parameters() if p is not model.norm.weight]
    optimizer = AdamW([{"params": head, "lr": 0.1}, {"params": rest, "lr": 0.01}])
    run = trainer(model, optimizer=optimizer, steps=5)
    run.train()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01, 0.001])  # a tenth, as min_lr / max_lr


# ---------------------------------------------------------------- measuring


def test_each_token_counts_once_however_long_its_window_is():
    model, tokens = gpt(), VAL[:100]  # 99 predictions: twelve windows of 8 and one of 3
    total = 0.0
    for start in range(0, 99, 8):
        piece = tokens[start : start + 9].astype(np.int64)
        x, y = shared.tensor(piece[None, :-1]), shared.tensor(piece[None, 1:])
        total += batch_loss(model, x, y).item() * y.numel()
    assert evaluate_loss(model, sequential_windows(tokens, 5, 8)) == pytest.approx(total / 99, rel=1e-6)


def test_measuring_changes_nothing():
    model = gpt(dropout=0.5)
    model.train()
    accumulate_gradients(model, *ids())
    before, grads, random = weights(model), gradients(model), np.asarray(shared.get_rng_state())
    first = evaluate_loss(model, sequential_windows(VAL, 4, 8))
    assert evaluate_loss(model, sequential_windows(VAL, 4, 8)) == first, "dropout was active"
    assert model.training and same(weights(model), before) and same(gradients(model), grads)
    assert np.array_equal(np.asarray(shared.get_rng_state()), random)
    model.eval()
    evaluate_loss(model, sequential_windows(VAL, 4, 8))
    assert not model.training


def test_the_mode_comes_back_after_an_error_and_no_batch_is_one():
    model = gpt()
    with pytest.raises(ValueError, match="there was no batch"):
        evaluate_loss(model, [])
    with pytest.raises((IndexError, RuntimeError)):
        evaluate_loss(model, [(shared.tensor([[99]]), shared.tensor([[1]]))])
    assert model.training


def test_how_often_a_training_is_measured_does_not_change_it():
    runs = [trainer(gpt(dropout=0.3), eval_interval=every).train().column("loss")[1] for every in (0, 1, 5)]
    assert runs[0] == runs[1] == runs[2]


def test_the_windows_that_are_measured_stay_the_same():
    run = trainer()
    first, again = ([x.tolist() for x, _ in run.validation_batches()] for _ in range(2))
    assert first == again and len(first) == 2 and len(first[0]) == 3
    same_text = trainer(val=TRAIN)
    seen = [x.tolist() for x, _ in (next(same_text.windows) for _ in range(3))]
    assert not any(x.tolist() in seen for x, _ in same_text.validation_batches()), "the batches trained on first"
    whole = trainer(eval_batches=None)
    assert sum(y.numel() for _, y in whole.validation_batches()) == len(VAL) - 1


def test_measurements_are_what_they_are_called():
    run = trainer(tokenizer=Letters())
    run.train()
    row = {name: values[-1] for name, values in run.log.measured().items()}
    assert row["step"] == 12 and run.log.measured()["step"] == [0, 4, 8, 12]
    assert row["val_loss"] == evaluate_loss(run.model, run.validation_batches())
    assert row["perplexity"] == math.exp(row["val_loss"])
    assert row["bits_per_token"] == pytest.approx(row["val_loss"] / math.log(2))
    assert row["bits_per_character"] == pytest.approx(row["bits_per_token"]), "a letter is a token here"


def test_perplexity_and_bits():
    assert perplexity(0.0) == 1.0 and perplexity(math.log(65)) == pytest.approx(65) and perplexity(1e6) == math.inf
    assert bits_per_character(math.log(8)) == pytest.approx(3) and bits_per_character(math.log(8), 2.0) == 1.5

    class Pairs:
        def decode(self, ids):
            return "ab" * len(ids)

    assert characters_per_token(Pairs(), np.array([1, 2, 3], np.uint16)) == 2.0


# ---------------------------------------------------------------- finding a rate


def test_a_sweep_of_rates_leaves_everything_as_it_was():
    model = gpt(dropout=0.2)
    optimizer = model.configure_optimizers(lr=0.01)
    train_step(model, optimizer, *ids())
    model.eval()
    model.blocks[0].train()  # a mode that is not the same everywhere
    before, grads, random = weights(model), gradients(model), np.asarray(shared.get_rng_state())
    state = json.dumps(optimizer.state_dict(), default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))
    modes = [m.training for m in model.modules()]
    windows = shared.data.RandomWindows(TRAIN, 4, 8)
    rates, losses = find_learning_rate(model, lambda: batch_loss(model, *next(windows)), optimizer, steps=12, highest=3)
    assert len(losses) >= 5 and same(weights(model), before) and same(gradients(model), grads)
    assert np.array_equal(np.asarray(shared.get_rng_state()), random) and [m.training for m in model.modules()] == modes
    after = json.dumps(optimizer.state_dict(), default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x))
    assert after == state
    ratios = [b / a for a, b in zip(rates, rates[1:], strict=False)]
    assert rates[0] == 1e-6 and ratios == pytest.approx([3e6 ** (1 / 11)] * len(ratios))


def test_a_sweep_ends_where_the_loss_explodes_and_undoes_that_too():
    model = nn.Linear(1, 1, bias=False)
    optimizer, x = SGD(model.parameters(), lr=0.5), shared.ones(1, 1)
    before, seen = model.weight.item(), []

    def loss_of_batch():
        seen.append(1)
        return (model(x) - 3).square().mean() * (math.inf if len(seen) == 4 else 1.0)

    rates, losses = find_learning_rate(model, loss_of_batch, optimizer, lowest=1e-3, highest=1.0, steps=10)
    assert len(seen) == 4 and len(rates) == len(losses) == 3 and np.isfinite(losses).all()
    assert (model.weight.item(), model.weight.grad, optimizer.param_groups[0]["lr"]) == (before, None, 0.5)
    _, losses = find_learning_rate(model, lambda: (model(x) - 3).square().mean(), optimizer, highest=1e3, stop_at=2.0)
    assert losses[-1] > 2 * min(losses) and all(loss <= 2 * min(losses[: i + 1]) for i, loss in enumerate(losses[:-1]))
    for wrong in ({"lowest": 0.0}, {"lowest": 2.0}, {"steps": 1}):
        with pytest.raises(ValueError, match="find_learning_rate: expected 0 < lowest < highest"):
            find_learning_rate(model, loss_of_batch, optimizer, **wrong)


# ---------------------------------------------------------------- a training


def test_a_training_learns_and_begins_at_ln_v():
    cycle = np.arange(400) % 7
    run = trainer(train=cycle, val=cycle, steps=60, max_lr=0.03, eval_interval=30)
    log = run.train()
    assert log.column("val_loss")[1][0] == pytest.approx(math.log(7), abs=0.1)
    assert log.last("val_loss") < 0.3 and run.stopped_by == "steps" and run.tokens_per_second() > 0
    assert log.column("loss")[0] == list(range(1, 61)) and log.last("tokens") == 60 * 3 * 8
    assert run.flops_per_second() == pytest.approx(run.tokens_per_second() * run.model.flops_per_token(8))


def test_budgets(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(clock)))  # whatever is timed takes a second
    run = trainer(steps=100, time_budget=7.0, eval_interval=0)
    run.train()
    assert (run.step, run.stopped_by) == (7, "time budget")
    run = trainer(steps=100, time_budget=7.0, eval_interval=3)  # measured before, and after updates 3 and 5
    run.train()
    assert (run.step, run.stopped_by) == (5, "time budget")
    assert run.log.measured()["step"] == [0, 3, 5], "measured at the end, whatever the interval"
    assert run.tokens_per_second() == 24 / 1.0, "measuring is not counted"
    run = trainer(steps=100, time_budget=0.5, eval_interval=3, patience=2)
    run.train()
    assert (run.step, run.stopped_by) == (1, "time budget"), "whatever is measured before, there is an update"
    run = trainer(steps=100, token_budget=24 * 9 + 5)
    log = run.train()
    assert (run.step, run.stopped_by, log.last("tokens")) == (9, "token budget", 24 * 9)
    assert log.column("lr")[1] == pytest.approx([warmup_cosine(s, 0.01, 0.001, 2, 9) for s in range(9)]), (
        "the schedule falls to its end within the budget"
    )


def test_it_stops_when_patience_is_used_up_and_the_best_is_kept(tmp_path):
    few = TEXT[:40]  # soon known by heart, which does not help elsewhere
    run = trainer(train=few, folder=tmp_path, steps=300, patience=3, max_lr=0.03, eval_batches=None, eval_interval=5)
    steps, losses = run.train().column("val_loss")
    best = steps[int(np.argmin(losses))]
    assert run.stopped_by == "patience" and 0 < best and run.step == best + 3 * 5
    model = gpt(seed=9)
    assert load_checkpoint(tmp_path, model, which="best") == best
    assert evaluate_loss(model, sequential_windows(VAL, 3, 8)) == min(losses)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_checkpoint(tmp_path):
    class Breaks(nn.Module):
        """A table of bigrams that gives NaN in its sixth forward pass in training."""

        def __init__(self):
            super().__init__()
            self.table, self.calls = nn.Embedding(7, 7), 0

        def forward(self, x):
            self.calls += self.training
            return self.table(x) * (math.nan if self.calls == 6 and self.training else 1.0)

    model = Breaks()
    optimizer = AdamW(model.parameters(), lr=0.01)
    run = trainer(model, optimizer=optimizer, folder=tmp_path, block_size=8)
    with pytest.raises(
        FloatingPointError, match=r"in step 6 the loss is nan, at a learning rate of 0.00.*step-00000004"
    ):
        run.train()
    assert model.table.weight.isfinite().all(), "the update was not made"
    assert RunLog(tmp_path / "history.jsonl").column("loss")[0] == [1, 2, 3, 4, 5]
    other = Breaks()
    assert load_checkpoint(tmp_path, other) == 4 and other.table.weight.isfinite().all()


def test_a_gradient_that_is_not_finite_is_named_too():
    model, batch = gpt(), ids()
    before = weights(model)
    model.norm.bias.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(FloatingPointError, match="the loss is 1.9.*but the norm of its gradient is (inf|nan)"):
        train_step(model, SGD(model.parameters(), lr=0.1), *batch)
    assert same(weights(model), before)


def test_weights_that_are_no_longer_finite_are_not_saved(tmp_path):
    run = trainer(folder=tmp_path)
    steps = iter(range(1, 100))

    def after(optimizer, *rest):
        if next(steps) == 8:
            with shared.no_grad():
                run.model.norm.weight.fill_(math.nan)

    run.optimizer.register_step_post_hook(after)
    with pytest.raises(FloatingPointError, match="after step 8 the validation loss is nan"):
        run.train()
    assert find_checkpoint(tmp_path).name == "step-00000004"


# ---------------------------------------------------------------- resuming


def curve(log):
    return [(row["step"], row["loss"], row["lr"], row["norm"]) for row in log.rows if "loss" in row]


def measured(log):
    names = ("step", "train_loss", "val_loss")
    return [tuple(row[name] for name in names) for row in log.rows if "val_loss" in row]


SETTINGS = {
    "plain": {},
    "dropout, accumulation, samples": {"accumulation": 2, "sample_interval": 3, "sample_tokens": 5},
    "whole validation text, patience": {"eval_batches": None, "patience": 50},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_that_is_interrupted_and_resumed_is_the_unbroken_one_bit_for_bit(name, tmp_path):
    dropout, settings = 0.2 if "dropout" in name else 0.0, SETTINGS[name]

    def fresh(folder, seed=0):
        return trainer(gpt(seed, dropout=dropout), folder=folder, tokenizer=Letters(), **settings)

    unbroken = fresh(tmp_path / "unbroken")
    whole = unbroken.train()
    for stop in (5, 7):  # twice, each time somewhere behind a checkpoint, with another model and another seed
        run = fresh(tmp_path / "broken", seed=stop)
        advance = run.advance

        def stops(run=run, stop=stop, advance=advance):
            if run.step == stop:
                raise KeyboardInterrupt
            return advance()

        run.advance = stops
        with pytest.raises(KeyboardInterrupt):
            run.train(resume=True) if stop > 5 else fresh_start(run, tmp_path / "broken")
        shared.manual_seed(99)
    last = fresh(tmp_path / "broken", seed=3)
    resumed = last.train(resume=True)
    assert curve(resumed) == curve(whole) and measured(resumed) == measured(whole)
    assert resumed.column("sample") == whole.column("sample")
    assert same(weights(last.model), weights(unbroken.model))
    assert curve(RunLog(tmp_path / "broken" / "history.jsonl")) == curve(whole), "in the file as well"


def fresh_start(run, folder):
    """The first of the interrupted trainings begins as the unbroken one did."""
    model = gpt(0, dropout=run.model.config.dropout)
    run.model.load_state_dict(model.state_dict())
    run.train()


def test_a_training_that_is_done_stays_as_it_is(tmp_path):
    first = trainer(folder=tmp_path)
    log = first.train()
    again = trainer(gpt(7), folder=tmp_path)
    assert again.train(resume=True).rows == log.rows
    assert again.stopped_by == "steps" and same(weights(again.model), weights(first.model))


def test_a_budget_that_grows_goes_on_with_the_same_losses(tmp_path, monkeypatch):
    whole = trainer().train()
    clock = iter(range(10_000))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(clock)))
    assert trainer(folder=tmp_path, time_budget=5.0, eval_interval=0).train().last("step") == 5
    with pytest.warns(UserWarning, match="resumed with other settings: .*time_budget 5.0 → None"):
        log = trainer(gpt(3), folder=tmp_path).train(resume=True)
    assert curve(log) == curve(whole)


@pytest.mark.parametrize("name", ["its own optimizer", "one that was given"])
def test_settings_that_were_changed_hold_from_the_checkpoint_on(name, tmp_path):
    def fresh(seed=0, **changes):
        model = gpt(seed)
        optimizer = None if name == "its own optimizer" else AdamW(model.parameters(), lr=0.02)
        return trainer(model, folder=tmp_path, optimizer=optimizer, **changes)

    first = fresh()
    first.used_up = lambda: "time budget" if first.step == 4 else ""
    first.train()
    with pytest.warns(UserWarning, match="resumed with other settings: .*max_lr 0.01 → 0.005") as caught:
        run = fresh(1, max_lr=0.005, min_lr=0.0005, weight_decay=0.3, betas=(0.8, 0.9))
        log = run.train(resume=True)
    assert [w.filename for w in caught] == [__file__], "the warning points at the line that resumes"
    highest = 0.005 if name == "its own optimizer" else 0.02
    shape = [warmup_cosine(s, 1.0, 0.1, 2, 12) for s in range(12)]
    rates = [0.01 if name == "its own optimizer" else 0.02] * 4 + [highest] * 8
    assert log.column("lr")[1] == pytest.approx([rate * factor for rate, factor in zip(rates, shape, strict=True)])
    decays = {group["weight_decay"] for group in run.optimizer.param_groups}
    assert decays == ({0.3, 0.0} if name == "its own optimizer" else {0.01}), "what was given is what was saved"
    assert run.optimizer.param_groups[0]["betas"] == ((0.8, 0.9) if name == "its own optimizer" else (0.9, 0.999))
    assert run.optimizer.state_dict()["state"][0]["step"] == 12, "its moments go on"


def test_a_trainer_that_has_been_at_work_does_not_begin_again_with_its_weights(tmp_path):
    run = trainer(folder=tmp_path, checkpoint_interval=0)
    run.train()
    lines = (tmp_path / "history.jsonl").read_text()
    with pytest.raises(ValueError, match="no checkpoint in .* make model and Trainer anew to begin again"):
        run.train(resume=True)
    assert (tmp_path / "history.jsonl").read_text() == lines, "nothing is forgotten"
    again = trainer(folder=tmp_path, checkpoint_interval=0)
    assert curve(again.train(resume=True)) == curve(run.log)


def test_a_trainer_that_was_interrupted_goes_on_from_its_checkpoint(tmp_path):
    whole = trainer(folder=tmp_path / "whole").train()
    run = trainer(folder=tmp_path / "broken")
    advance = run.advance

    def interrupted():
        if run.step == 6:
            run.advance = advance
            next(run.windows)  # an interrupt may come between a batch and its update
            raise KeyboardInterrupt
        return advance()

    run.advance = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert curve(run.train(resume=True)) == curve(whole) and measured(run.log) == measured(whole)


def test_a_log_that_ends_in_the_middle_of_a_character_is_resumed(tmp_path):
    class Greek(Letters):
        def encode(self, text):
            return ["\nαβγδεζ".index(char) for char in text]

        def decode(self, ids):
            return "".join("\nαβγδεζ"[i] for i in ids)

    settings = {"tokenizer": Greek(), "sample_interval": 3, "sample_tokens": 5}
    log = trainer(folder=tmp_path, **settings).train()
    path = tmp_path / "history.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + '{"step": 12, "sample": "γ'.encode()[:-1])
    assert trainer(gpt(2), folder=tmp_path, **settings).train(resume=True).rows == log.rows
    assert path.read_bytes() == whole


def test_a_log_takes_half_of_a_surrogate_pair(tmp_path):
    with RunLog(tmp_path / "history.jsonl") as log:
        log.add(step=1, sample="\ud800")
    assert RunLog(tmp_path / "history.jsonl").rows == log.rows


def test_measurements_with_and_without_characters_can_be_saved_together(tmp_path):
    """The first begins with a tokenizer, the one that goes on has none."""
    first = trainer(folder=tmp_path, tokenizer=Letters())
    first.used_up = lambda: "time budget" if first.step == 4 else ""
    first.train()
    log = trainer(gpt(1), folder=tmp_path).train(resume=True)
    assert curve(log) == curve(trainer().train())
    assert set(log.measured()) == {"step", "train_loss", "val_loss", "perplexity", "bits_per_token", "seconds"}


def test_a_line_that_was_cut_off_by_a_kill_is_dropped(tmp_path):
    log = trainer(folder=tmp_path, steps=12).train()
    path = tmp_path / "history.jsonl"
    whole = path.read_text()
    with open(path, "a") as file:
        file.write('{"step": 13, "loss": 1.9}\n{"step": 14, "lo')
    assert trainer(gpt(2), folder=tmp_path).train(resume=True).rows == log.rows
    assert path.read_text() == whole


def test_a_folder_is_not_used_twice_by_mistake(tmp_path):
    trainer(folder=tmp_path).train()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError, match="there is a training in this folder: go on with resume=True"):
        trainer(folder=tmp_path).train()
    assert sorted(os.listdir(tmp_path)) == before
    with pytest.raises(ValueError, match="resume=True needs the folder"):
        trainer().train(resume=True)


def test_resume_begins_where_there_is_nothing_yet(tmp_path):
    assert curve(trainer(folder=tmp_path / "new" / "run").train(resume=True)) == curve(trainer().train())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in read-only folders")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="the training cannot use its folder"):
            trainer(folder=tmp_path / "run").train()
    finally:
        tmp_path.chmod(0o700)


def test_settings_that_were_cut_off_by_a_kill_are_written_again(tmp_path):
    trainer(folder=tmp_path, steps=12).train()
    path = tmp_path / "config.json"
    whole = path.read_text()
    path.write_text("")
    trainer(gpt(2), folder=tmp_path, steps=12).train(resume=True)
    assert path.read_text() == whole


def test_settings_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    trainer(folder=tmp_path, steps=12).train()
    whole = (tmp_path / "config.json").read_text()

    def killed(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="steps 12 → 13"):
            trainer(gpt(2), folder=tmp_path, steps=13).train(resume=True)
    assert (tmp_path / "config.json").read_text() == whole
    with pytest.warns(UserWarning, match="steps 12 → 13"):
        trainer(gpt(2), folder=tmp_path, steps=13).train(resume=True)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["steps"] == 13
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_update(tmp_path):
    (tmp_path / "file").write_text("")
    run = trainer(folder=tmp_path / "file" / "run")
    with pytest.raises(OSError, match="the training cannot use its folder"):
        run.train()
    assert run.step == 0


def test_what_a_folder_has_in_the_end(tmp_path):
    trainer(folder=tmp_path, keep_last=1, steps=13).train()
    names = sorted(os.listdir(tmp_path))
    assert {"config.json", "history.jsonl", "loss.png", "step-00000013"} <= set(names)
    steps = [name for name in names if name.startswith("step")]
    assert len(steps) <= 2, "the last one and the best"
    settings = json.loads((tmp_path / "config.json").read_text())
    assert LMConfig.from_dict(settings["training"]) == config(keep_last=1, steps=13)
    assert GPTConfig(**settings["model"]) == gpt().config


def test_intervals_of_zero_are_never(tmp_path):
    trainer(folder=tmp_path, eval_interval=0, checkpoint_interval=0).train()
    assert find_checkpoint(tmp_path) is None
    assert "val_loss" not in (tmp_path / "history.jsonl").read_text()


# ---------------------------------------------------------------- samples


def test_samples_are_decided_by_the_seed_alone():
    model = gpt(dropout=0.5)
    shared.manual_seed(1)
    first = sample_text(model, Letters(), "ab", 20, seed=4)
    random = np.asarray(shared.get_rng_state())
    assert sample_text(model, Letters(), "ab", 20, seed=4) == first and first.startswith("ab") and len(first) == 22
    assert np.array_equal(np.asarray(shared.get_rng_state()), random) and model.training
    assert sample_text(model, Letters(), "ab", 20, seed=5) != first


def test_samples_of_a_training():
    run = trainer(tokenizer=Letters(), sample_interval=5, sample_tokens=6, prompt="a")
    steps, samples = run.train().column("sample")
    assert steps == [5, 10, 12] and all(s.startswith("a") and len(s) == 7 for s in samples)


def test_what_samples_need_is_said_before_the_training():
    with pytest.raises(ValueError, match="samples need a tokenizer and a model"):
        trainer(sample_interval=5)
    with pytest.raises(ValueError, match="samples need a tokenizer and a model"):
        table = nn.Embedding(7, 7)
        options = {"optimizer": SGD(table.parameters(), lr=0.1), "tokenizer": Letters(), "block_size": 8}
        trainer(table, sample_interval=5, **options)
    with pytest.raises(ValueError, match="substring not found"):
        trainer(tokenizer=Letters(), sample_interval=5, prompt="z")


# ---------------------------------------------------------------- settings and what does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps should be an int of at least 1, but got 0"),
        ({"batch_size": 1.5}, "batch_size should be an int of at least 1, but got 1.5"),
        ({"accumulation": True}, "accumulation should be an int"),
        ({"eval_batches": 0}, "eval_batches should be None or an int of at least 1"),
        ({"checkpoint_interval": -1}, "checkpoint_interval should be an int of at least 0"),
        ({"max_lr": 1e-5, "min_lr": 1e-4}, "max_lr should be a number of at least min_lr"),
        ({"max_lr": math.nan}, "max_lr should be a number"),
        ({"max_lr": 0.0, "min_lr": 0.0}, "max_lr should be a number above 0"),
        ({"betas": (0.9, 1.0)}, "betas should be two numbers from 0 to below 1"),
        ({"betas": (0.9,)}, "betas should be two numbers"),
        ({"betas": 0.9}, "betas should be two numbers"),
        ({"betas": None}, "betas should be two numbers"),
        ({"clip": -1}, "clip should be a number of at least 0"),
        ({"dtype": "int8"}, "dtype should be one of float32, bfloat16, float16, but got 'int8'"),
        ({"time_budget": 0}, "time_budget should be None or seconds above 0"),
        ({"patience": 0}, "patience should be None or an int of at least 1"),
        (
            {"patience": 3, "eval_interval": 0},
            "patience=3 counts measurements, but with eval_interval=0 there are none",
        ),
        ({"warmup_steps": 12}, "warmup_steps should be below steps, but got warmup_steps=12 and steps=12"),
        ({"prompt": ""}, "prompt should be a string with something in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_make_no_training_are_named(changes, message):
    with pytest.raises(ValueError, match=f"LMConfig: {message}"):
        config(**changes)


def test_settings_come_from_toml(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[training]\nsteps = 300\nbetas = [0.8, 0.9]\nmax_lr = 3e-3\n")
    assert LMConfig.from_toml(path, seed=3) == LMConfig(steps=300, betas=(0.8, 0.9), max_lr=3e-3, seed=3)
    assert LMConfig.from_dict(json.loads(json.dumps(LMConfig().to_dict()))) == LMConfig()
    path.write_text("[training]\nlearning_rat = 1\nmax_lrs = 2\n")
    with pytest.raises(ValueError, match="there is no setting 'learning_rat'"):
        LMConfig.from_toml(path)
    with pytest.raises(ValueError, match="there is no setting 'max_lrs'; did you mean 'max_lr'"):
        LMConfig.from_dict({"max_lrs": 2})
    with pytest.raises(ValueError, match=r"has no table \[training\]"):
        path.write_text("steps = 300\n")
        LMConfig.from_toml(path)
    with pytest.raises(ValueError, match="x.toml is not valid TOML"):
        path.write_text("steps =\n")
        LMConfig.from_toml(path)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_presets_of_sprint_09_are_settings_of_a_training_and_a_model(path):
    training = LMConfig.from_toml(path)
    model = GPTConfig(vocab_size=65, **tomllib.loads(path.read_text())["model"])
    assert training.warmup_steps < training.steps and model.block_size >= 64
    if path.stem in PRESETS_OF_MODELS:
        known = GPTConfig.preset(path.stem, vocab_size=65)
        assert dataclasses.replace(known, dropout=model.dropout, bias=model.bias) == model


def test_what_does_not_fit_the_model_is_named():
    with pytest.raises(ValueError, match="block_size=9, but the model sees no more than 8"):
        trainer(block_size=9)
    with pytest.raises(ValueError, match="Embedding has no configure_optimizers"):
        trainer(nn.Embedding(7, 7), block_size=8)
    with pytest.raises(ValueError, match="block_size should say how long windows are"):
        trainer(nn.Embedding(7, 7))
    with pytest.raises(ValueError, match="allows 2 updates of 24 tokens, no more than the warm-up has"):
        trainer(token_budget=50)
    with pytest.raises(ValueError, match="a window of 8 tokens and the token after it take 9, but there are 5"):
        trainer(train=TRAIN[:5])


# ---------------------------------------------------------------- half the precision


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_close_to_the_whole_with_float32_weights(dtype):
    whole = trainer(steps=10).train()
    run = trainer(steps=10, dtype=dtype)
    log = run.train()
    np.testing.assert_allclose(log.column("loss")[1], whole.column("loss")[1], rtol=0.02)
    assert log.column("loss")[1] != whole.column("loss")[1], "the products were float32"
    assert all(p.dtype == p.grad.dtype == shared.float32 for p in run.model.parameters())
    assert (run.scaler is None) == (dtype == "bfloat16")


def test_a_scaler_is_resumed_too(tmp_path):
    whole = trainer(dtype="float16").train()
    run = trainer(dtype="float16", folder=tmp_path)
    run.used_up = lambda: "steps" if run.step == 6 else ""
    run.train()
    assert curve(trainer(gpt(4), dtype="float16", folder=tmp_path).train(resume=True)) == curve(whole)


def test_gradients_that_no_scale_makes_finite_end_a_training_in_float16():
    run = trainer(dtype="float16", steps=100)
    run.model.norm.bias.register_hook(lambda grad: grad * math.nan)
    before = weights(run.model)
    with pytest.raises(FloatingPointError, match="in step 30 the norm of the gradient is nan, however little"):
        run.train()
    assert same(weights(run.model), before) and run.log.column("norm") == ([], [])


# ---------------------------------------------------------------- the log


def test_a_log_draws_its_losses():
    log = trainer().train()
    axis = log.plot("A title").axes[0]
    assert [line.get_label() for line in axis.lines] == ["each update's batch", "training text", "validation text"]
    assert axis.lines[2].get_ydata().tolist() == log.column("val_loss")[1]
    titles = {axis.get_title(loc) for loc in ("left", "center")}  # where matplotlib's settings want it
    assert "A title" in titles and "nats" in axis.get_ylabel()
    with pytest.raises(ValueError, match="nothing to plot"):
        RunLog().plot()


def test_a_file_that_is_no_log_is_named(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\nnot json\n')
    with pytest.raises(ValueError, match="history.jsonl, line 2, is not a row"):
        RunLog(path)
