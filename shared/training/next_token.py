"""One update of a language model, and what is measured of it: functions of any model that makes logits of ids.

The model is a module (B, T) → (B, T, V). `cast()` gives the context that its forward pass runs in, for instance
`lambda: shared.amp.autocast("cuda", shared.bfloat16)`; without one the products are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from shared.autograd import no_grad
from shared.nn import Module
from shared.nn import functional as F
from shared.nn.utils import clip_grad_norm_
from shared.optim import Optimizer
from shared.tensor import Tensor
from shared.training.loop import to_device_of

Cast = Callable[[], AbstractContextManager]


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of −ln p(target) in nats over all targets (B, T), by the scores logits (B, T, V); a scalar.

    `targets[b, t]` is the token that follows the one that logits[b, t] were computed at; −100 is left out of the mean.

    >>> import shared
    >>> next_token_loss(shared.zeros(1, 2, 5), shared.tensor([[3, 1]])).item()      # all five alike: ln 5
    1.6094379425048828
    """
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def batch_loss(model: Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of −ln p(target) in nats over all B · T tokens, a scalar; inputs and targets are ids (B, T).

    >>> import shared
    >>> model = shared.nn.Embedding(5, 5)            # a table of bigrams is a language model
    >>> _ = shared.nn.init.zeros_(model.weight)      # to which every token is as likely: ln 5
    >>> batch_loss(model, shared.tensor([[1, 2]]), shared.tensor([[2, 3]])).item()
    1.6094379425048828
    """
    return next_token_loss(model(inputs), targets)


# ---------------------------------------------------------------- one update


def accumulate_gradients(
    model: Module, inputs: Tensor, targets: Tensor, parts: int = 1, cast: Cast = nullcontext, scaler: Any = None
) -> Tensor:
    """Adds to `.grad` the gradient of the mean loss over the whole batch, in `parts` pieces; returns that loss.

    inputs, targets: ids (B, T). The pieces are those of `chunk(parts)`; each goes forward and backward by itself, so
    only one piece's activations are in memory at a time. Each counts by its share of the windows: the sum is the
    gradient of the whole batch, also where `parts` does not divide B. The loss is a scalar without a graph. Forward
    passes run in the context that `cast()` makes. With a `scaler` (`shared.amp.GradScaler`) the gradients are those of
    `scaler.scale(loss)`, but the loss returned is not scaled.

    >>> import shared
    >>> model, ids = shared.nn.Embedding(5, 5), shared.tensor([[0, 1], [2, 3], [4, 0]])
    >>> whole = accumulate_gradients(model, ids, ids); expected = model.weight.grad
    >>> model.weight.grad = None
    >>> pieces = accumulate_gradients(model, ids, ids, parts=2)
    >>> shared.allclose(pieces, whole), shared.allclose(model.weight.grad, expected, atol=1e-6)
    (True, True)
    """
    total: Any = 0.0
    for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
        with cast():
            loss = batch_loss(model, x, y) * (len(x) / len(inputs))
        (loss if scaler is None else scaler.scale(loss)).backward()
        total = total + loss.detach()
    return total


def train_step(
    model: Module,
    optimizer: Optimizer,
    inputs: Tensor,
    targets: Tensor,
    *,
    accumulation: int = 1,
    clip: float = 1.0,
    cast: Cast = nullcontext,
    scaler: Any = None,
) -> tuple[float, float]:
    """One update from a batch of ids (B, T), in train mode; returns its loss and the norm of all gradients together.

    The batch goes to the device that the model is on (`to_device_of`). The gradient is that of this batch alone,
    whatever was in `.grad` before, and is computed in `accumulation` pieces (`accumulate_gradients`). All gradients are
    scaled together so that their norm is at most `clip` (0: left as they are); the norm returned is the one before
    that. A loss or norm that is not finite is a FloatingPointError, before it reaches the parameters (`check_finite`).
    A `scaler` expects infinite norms and leaves such an update out: its `unscale_(optimizer)` comes before clipping,
    its `step(optimizer)` in place of the optimizer's, and then `update()`.

    >>> import shared
    >>> model = shared.nn.Embedding(5, 5)
    >>> _ = shared.nn.init.zeros_(model.weight)
    >>> optimizer, ids = shared.optim.SGD(model.parameters(), lr=1.0), shared.tensor([[1, 1, 1]])
    >>> [round(train_step(model, optimizer, ids, ids)[0], 3) for _ in range(3)]
    [1.609, 0.905, 0.53]
    """
    model.train()
    inputs, targets = to_device_of(model, inputs, targets)
    optimizer.zero_grad()
    loss = accumulate_gradients(model, inputs, targets, accumulation, cast, scaler)
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = clip_grad_norm_(model.parameters(), clip or math.inf)
    values = loss.item(), norm.item()
    check_finite(*values, scaled=scaler is not None)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return values


def check_finite(loss: float, norm: float, scaled: bool = False) -> None:
    """FloatingPointError where the loss, or the norm of its gradient, is NaN or infinite.

    A norm that is not finite is allowed where gradients are `scaled`: the scaler lowers its factor and tries again.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}")
    if not math.isfinite(norm) and not scaled:
        raise FloatingPointError(f"the loss is {loss:.4g}, but the norm of its gradient is {norm}")


# ---------------------------------------------------------------- what is measured


def evaluate_loss(model: Module, batches: Iterable[tuple[Tensor, Tensor]], cast: Cast = nullcontext) -> float:
    """The mean of −ln p(target) in nats over all tokens of `batches`, in eval mode and without recording.

    `batches` gives (inputs, targets), ids (B, T), of whatever sizes, which are moved to the model's device: each token
    counts once (targets of −100, which `next_token_loss` leaves out, are not for this function). Changes nothing: no
    gradient, no random number, and the model is afterwards in the mode in which it came, also where an error or a
    KeyboardInterrupt ends the measurement. `batches` is gone through once. ValueError without a batch.

    >>> import shared
    >>> model = shared.nn.Embedding(5, 5)
    >>> _ = shared.nn.init.zeros_(model.weight)
    >>> round(evaluate_loss(model, shared.data.sequential_windows([0, 1, 2, 3, 4], batch=2, length=3)), 4)
    1.6094
    """
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        with no_grad():
            for inputs, targets in batches:
                inputs, targets = to_device_of(model, inputs, targets)
                with cast():
                    loss = batch_loss(model, inputs, targets)
                total += loss.item() * targets.numel()
                tokens += targets.numel()
    finally:
        model.train(was_training)
    if tokens == 0:
        raise ValueError("there was no batch to measure the loss on")
    return total / tokens


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token: among so many tokens, all as likely, the model is as unsure. inf beyond 1e308.

    >>> round(perplexity(math.log(65)), 6)
    65.0
    """
    return math.inf if loss > 709 else math.exp(loss)


def bits_per_character(loss: float, characters_per_token: float = 1.0) -> float:
    """A loss in nats per token, in bits for each character of the text: comparable between tokenizers.

    >>> bits_per_character(math.log(2)), bits_per_character(math.log(2), characters_per_token=4.0)
    (1.0, 0.25)
    """
    return loss / math.log(2) / characters_per_token


def characters_per_token(tokenizer: Any, ids: Any) -> float:
    """How many characters one of these ids stands for in the mean.

    `tokenizer.decode`, which expects a list of ints, makes text of all of them together: a token may be half a letter.
    `ids` are any integers, as a Tensor or a TokenStream gives them too.

    >>> class Words:
    ...     def decode(self, ids): return "".join(("the ", "dog ")[i] for i in ids)
    >>> characters_per_token(Words(), [0, 1, 0])
    4.0
    """
    ids = [int(i) for i in ids]
    return len(tokenizer.decode(ids)) / len(ids)


def sample_text(
    model: Any,
    tokenizer: Any,
    prompt: str = "\n",
    tokens: int = 200,
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """`prompt` and `tokens` more tokens of text, each drawn from what the model expects; the seed decides the draws.

    The model has `generate` as `shared.models.GPT` has it, the tokenizer `encode` and `decode`. No generator but its
    own is used, so a training in which samples are drawn has the losses of one in which they are not.
    """
    from shared.arrays.random import Generator
    from shared.ops import tensor

    device = next(iter(model.parameters())).device
    ids = tensor([list(tokenizer.encode(prompt))], device=device)  # (1, T)
    generator = Generator(device).manual_seed(seed)
    written = model.generate(ids, tokens, temperature=temperature, top_k=top_k, generator=generator)
    return tokenizer.decode([int(i) for i in written[0].tolist()])
