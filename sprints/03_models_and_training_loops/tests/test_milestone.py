"""Sprint 03's milestones. A wrong answer that is a known mistake is named in the message.

Those on optimizers are in test_optimizers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import shared
from course.oracles import check, check_formula_runs, check_names, doing, refusal, require
from shared import nn, optim
from shared.arrays.kernels.softmax import reference
from shared.nn import functional as F
from shared.training import accuracy, evaluate, train_one_epoch

STROKES = [[1.0, 1, 0, 0], [0, 0, 1.0, 1], [1.0, 0, 1, 0], [0, 1.0, 0, 1], [1.0, 0, 0, 1], [0, 1.0, 1, 0]]
LABELS = [0, 0, 1, 1, 2, 2]
# The accuracy asked for on unseen digits, and the lowest of the reference over the seeds 0 to 19.
BOUND, LOWEST = 0.94, 0.963


def templates() -> nn.Linear:
    """The layer of note 01, with the weights drawn by hand."""
    layer = nn.Linear(4, 3)
    with shared.no_grad():
        layer.weight.copy_(shared.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1.0]]))
        layer.bias.copy_(shared.tensor([0, 1, 0.0]))
    return layer


# ------------------------------------------------------------------------ modules and losses


def test_a_linear_layer_and_its_three_gradients_match_the_hand_computation():
    layer = templates()
    require(
        {name for name, _ in layer.named_parameters()} == {"weight", "bias"},
        f"nn.Linear(4, 3) must register weight and bias, but has {[n for n, _ in layer.named_parameters()]}",
    )
    x = shared.tensor(STROKES[:2], requires_grad=True)
    with doing("the output of a linear layer for x (2, 4) and W (3, 4)", {"matmul": "W is (out, in): x Wᵀ, not x W."}):
        z = layer(x)
    check(
        "the output for the top and the bottom stroke",
        z.tolist(),
        [[2, 1, 0], [-2, 1, 0]],
        {
            "leaving out the bias": [[2, 0, 0], [-2, 0, 0]],
            "subtracting the bias": [[2, -1, 0], [-2, -1, 0]],
        },
    )
    # L = z₀ − z₁ of the top stroke, plus twice z₂ of the bottom stroke: G = [[1, −1, 0], [0, 0, 2]].
    with doing(
        "the backward pass of a linear layer",
        {
            "(4, 3)": "No array here has the shape (4, 3); W is (3, 4): is ∂L/∂W transposed? It is Gᵀx.",
            "fit an input of shape (2, 4)": "The gradients are returned in the order of forward's arguments: x, W, b.",
            "cannot reshape": "self.shape is the engine's, the shape of the output: keep that of x in self.size.",
            "expected 3": "One gradient is returned for each of x, W and b, in this order.",
        },
    ):
        (z[0, 0] - z[0, 1] + 2 * z[1, 2]).backward()
    check(
        "∂L/∂W = Gᵀx",
        layer.weight.grad.tolist(),
        [[1, 1, 0, 0], [-1, -1, 0, 0], [0, 0, 2, 2]],
        {"a mean over the batch instead of a sum": [[0.5, 0.5, 0, 0], [-0.5, -0.5, 0, 0], [0, 0, 1, 1]]},
    )
    check(
        "∂L/∂b, the sum of G over the batch",
        layer.bias.grad.tolist(),
        [1, -1, 2],
        {"a mean over the batch": [0.5, -0.5, 1], "the first image only": [1, -1, 0]},
    )
    check("∂L/∂x = G W", x.grad.tolist(), [[0, 2, -2, 0], [2, -2, -2, 2]])
    # Leading dimensions, and a layer without a bias: by three loops in NumPy.
    rng = np.random.default_rng(0)
    values, w, g = rng.normal(size=(2, 5, 4)), rng.normal(size=(3, 4)), rng.normal(size=(2, 5, 3))
    x, weight = shared.tensor(values, requires_grad=True), shared.tensor(w, requires_grad=True)
    with doing(
        "a linear layer without a bias on x (2, 5, 4)", {"": "All dimensions of x before the last are one batch."}
    ):
        z = F.linear(x, weight)
        z.backward(shared.tensor(g))
    require(z.shape == (2, 5, 3), f"leading dimensions are kept: (2, 5, 4) → (2, 5, 3), not {tuple(z.shape)}")
    pairs = [(i, t) for i in range(2) for t in range(5)]
    check("the output for x (2, 5, 4)", z.tolist(), [[w @ values[i, t] for t in range(5)] for i in range(2)])
    check(
        "∂L/∂W, the sum over both leading dimensions of x (2, 5, 4)",
        weight.grad.tolist(),
        sum(np.outer(g[i, t], values[i, t]) for i, t in pairs),
        {"the last of the leading dimensions only": sum(np.outer(g[-1, t], values[-1, t]) for t in range(5))},
    )
    check("∂L/∂x for x (2, 5, 4)", x.grad.tolist(), [[g[i, t] @ w for t in range(5)] for i in range(2)])
    # The gradient of a gradient: ∂L/∂x = G W, so the sum of its squares has the gradient 2 Gᵀ G W by W.
    z = F.linear(x, weight)
    with doing(
        "a gradient of the gradient", {"": "grad may be a Tensor: use operators and methods that arrays share."}
    ):
        (to_x,) = shared.autograd.grad(z, [x], shared.tensor(g), create_graph=True)
        (second,) = shared.autograd.grad((to_x**2).sum(), [weight])
    rows = g.reshape(-1, 3)
    check("the gradient by W of Σ (∂L/∂x)²", second.tolist(), 2 * rows.T @ rows @ w)
    message = refusal(lambda: layer(shared.zeros(6, 5)))
    require(
        "5" in message and "4" in message,
        f"an input of width 5 for a layer of width 4 must be refused, naming both: {message or 'it is not'}",
    )


def test_cross_entropy_has_the_value_and_the_gradient_p_minus_y_computed_by_hand():
    logits = np.array([[2, 1, 0], [-2, 1, 0.0]])
    e = np.exp(logits)
    p = e / e.sum(1, keepdims=True)
    target, one_hot = [0, 2], np.array([[1, 0, 0], [0, 0, 1.0]])
    for dim in (0, 1):
        with doing(
            f"log_softmax over dimension {dim}",
            {"broadcast": "A maximum or a sum with keepdims=True fits the rows again."},
        ):
            logs = check_formula_runs(
                "softmax", "log_softmax", lambda dim=dim: F.log_softmax(shared.tensor(logits), dim=dim)
            )
        check(
            f"log_softmax of the logits over dimension {dim}",
            logs.tolist(),
            np.log(e / e.sum(dim, keepdims=True)),
            {
                f"the sum over dimension {1 - dim} instead of {dim}": np.log(e / e.sum(1 - dim, keepdims=True)),
                "the sum over all entries": np.log(e / e.sum()),
                "the softmax without the logarithm": e / e.sum(dim, keepdims=True),
                "a sum without its logarithm": logits - e.sum(dim, keepdims=True),
            },
        )
    z = shared.tensor(logits.tolist(), requires_grad=True)
    with doing("the loss of logits (2, 3)"):
        loss = check_formula_runs("softmax", "cross_entropy", lambda: F.cross_entropy(z, shared.tensor(target)))
    check("the logits after the loss, which only reads them", z.tolist(), logits)
    per_row = [-math.log(p[0, 0]), -math.log(p[1, 2])]  # 0.4076 and 1.3490
    check(
        "the loss, a mean over the batch in nats",
        loss.item(),
        sum(per_row) / 2,
        {
            "a sum over the batch": sum(per_row),
            "a softmax over the batch (dim=0) instead of the classes": -np.log((e / e.sum(0))[[0, 1], target]).mean(),
            "taking a softmax before the loss takes its own": np.log(np.exp(p).sum(1)).mean()
            - p[[0, 1], target].mean(),
            "a logarithm to base 2": sum(per_row) / 2 / math.log(2),
            "the wrong sign": -sum(per_row) / 2,
            "a squared error of the probabilities": ((p - one_hot) ** 2).mean(),
            "every row read at every target, log_probs[:, target]: one entry of each row is wanted": -np.log(p)[
                :, target
            ].sum()
            / 2,
        },
    )
    with doing("the gradient of the loss"):
        check_formula_runs("softmax", "cross_entropy_gradient", lambda: loss.backward(retain_graph=True))
    check(
        "the gradient (p − y)/B",
        z.grad.tolist(),
        (p - one_hot) / 2,
        {
            "p − y alone: the argument grad was left out. Multiply by it; for a mean it carries the 1/B already": p
            - one_hot,
            "a division by the batch size as well: grad carries the 1/B of the mean already": (p - one_hot) / 4,
            "y − p: the sign is turned": (one_hot - p) / 2,
            "p alone: the one-hot target is not subtracted": p / 2,
            "a division by the number of elements instead of rows": (p - one_hot) / 6,
        },
    )
    check("the logits after the backward pass, which only reads them", z.tolist(), logits)
    check("the sum of the gradient over the classes", z.grad.sum(dim=1).tolist(), [0, 0], tolerance=1e-6)
    z.grad = None
    loss.backward()
    check("the gradient at a second backward pass through the same loss", z.grad.tolist(), (p - one_hot) / 2)
    with doing("one loss per row"):
        losses = F.cross_entropy(z, shared.tensor(target), reduction="none")
    check("the losses with reduction='none', one per row", losses.tolist(), per_row)
    z.grad = None
    with doing("the gradient of one loss per row"):
        (losses * shared.tensor([1.0, 10.0])).sum().backward()
    check(
        "the gradient of the first loss plus ten times the second",
        z.grad.tolist(),
        (p - one_hot) * [[1], [10]],
        {
            "a division by the batch size in the place of grad. Multiply by grad alone: it carries the 1/B of a mean, "
            "and here the factor of each row's loss": (p - one_hot) / 2,
            "a gradient that forgets its grad: each row counts as the loss does that is computed from it": p - one_hot,
            "grad added to p before y is subtracted": p * [[1], [10]] - one_hot,
        },
    )
    single = np.array([[2, 1, 0], [-2, 1, 0]], dtype="float32")
    ones = np.ones((2, 1), dtype="float32")
    with doing("cross_entropy and cross_entropy_gradient of float32 logits (2, 3)"):
        losses = reference.cross_entropy(single, np.array(target))
        gradient = reference.cross_entropy_gradient(single, np.array(target), ones)
    for name, result in (("losses", losses), ("gradient", gradient)):
        require(
            result.dtype == single.dtype,
            f"the {name} of float32 logits are {result.dtype}: the dtype stays that of the logits, or every array "
            "after them takes twice the memory. An array made without a dtype, and a cast, widen it",
        )
    # A coin with ten sides: ln 10, whatever the labels.
    check(
        "the loss of ten equal logits",
        F.cross_entropy(shared.zeros(5, 10), shared.arange(5)).item(),
        math.log(10),
    )


def test_cross_entropy_survives_logits_of_a_thousand():
    rows = shared.tensor([[1000.0, 999], [-1000, -1001]])
    with np.errstate(all="ignore"), doing("log_softmax of logits of ±1000"):
        pair = F.log_softmax(rows, dim=1).tolist()
        alone = F.log_softmax(rows[1:], dim=1).tolist()[0]
        far = F.log_softmax(shared.tensor([[1000, 0, -1000.0]]), dim=1).tolist()[0]
    require(
        np.isfinite(pair[0]).all(),
        f"log_softmax of (1000, 999) gives {pair[0]}: exp(1000) overflows. Subtract the row's maximum before exp.",
    )
    require(
        np.isfinite(alone).all(),
        f"log_softmax of (−1000, −1001) gives {alone}: every exp of the row is 0, and so is their sum. What is "
        "subtracted before exp is the row's largest number itself, −1000, not the largest |x|.",
    )
    require(
        np.isfinite(pair[1]).all(),
        f"log_softmax of (−1000, −1001), in a batch with a row of (1000, 999), gives {pair[1]}: with one "
        "maximum for all rows every exp of this row is 0. Each row needs its own.",
    )
    check("log_softmax of both rows: only differences count", pair, [[-0.3133, -1.3133]] * 2)
    require(
        np.isfinite(far).all(),
        f"log_softmax of (1000, 0, −1000) gives {far}: a probability was rounded to 0 before the log. Never compute "
        "softmax and log apart; the logarithm of a quotient is a difference, (x − m) − log Σ exp(x − m).",
    )
    check("log_softmax of (1000, 0, −1000)", far, [0, -1000, -2000], tolerance=1e-2)
    z = shared.tensor([[1000, 0, -1000], [1000, 0, -1000.0]], requires_grad=True)
    with np.errstate(all="ignore"), doing("one loss per row"):
        loss = F.cross_entropy(z, shared.tensor([2, 0]), reduction="none")
    overflow = not np.isfinite(loss.tolist()[1])  # of class 0, whose probability is 1
    require(
        np.isfinite(loss.tolist()).all(),
        f"logits of ±1000 give the losses {loss.tolist()}: "
        + (
            "exp(1000) overflows float32. Subtract the row's maximum before exp."
            if overflow
            else "a probability was rounded to 0 before the log. Never compute softmax and log apart."
        ),
    )
    check(
        "the losses for targets 2 and 0",
        loss.tolist(),
        [2000, 0],
        {"logits clipped before the loss": [200, 0], "log(p + ε) with ε = 1e-8": [-math.log(1e-8), 0]},
        tolerance=1e-2,
    )
    loss.sum().backward()
    require(np.isfinite(z.grad.tolist()).all(), f"the loss is finite but its gradient is not: {z.grad.tolist()}")
    check(
        "the gradient p − y of the sum of both losses",
        z.grad.tolist(),
        [[1, 0, -1], [0, 0, 0]],
        {"a division by the batch size, which only a mean asks for, and then by grad": [[0.5, 0, -0.5], [0, 0, 0]]},
    )
    shifted = [
        F.cross_entropy(shared.tensor([[2 + c, 1 + c, c]]), shared.tensor([0])).item() for c in (0.0, 80.0, -90.0)
    ]
    check(
        "the loss of (2, 1, 0), shifted by 0, 80 and −90",
        shifted,
        [0.4076] * 3,
        {"an exp that is not shifted by the maximum": [0.4076, 0.4076, math.inf]},
        tolerance=1e-3,
    )


# ------------------------------------------------------------------------ initialisation


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_kaiming_initialisation_keeps_the_signal_alive_through_twenty_layers(record_property):
    shared.manual_seed(0)
    with doing("kaiming_normal_ on a weight (200, 800)"):
        weight = nn.init.kaiming_normal_(shared.empty(200, 800), nonlinearity="relu")
    require(weight is not None, "kaiming_normal_ fills the tensor it is given and returns it, but it returned None")
    variance = weight.numpy().var()
    check(
        "800 · Var(W) of kaiming_normal_ on a weight (200, 800), that is fan_in · σ²",
        800 * variance,
        2.0,
        {
            "fan_out (weight.shape[0]) where fan_in (weight.shape[1]) is meant": 8.0,
            "a gain of 1: relu halves the mean square, so σ² must be 2/n": 1.0,
            "σ = 2/n instead of σ² = 2/n": 2 * 2 / 800,
            "the gain applied twice": 4.0,
            "a width of √fan / gain: the fraction is upside down": 800 * 800 / 2,
        },
        tolerance=0.05,
    )
    for what, shape, options, fan, gain, mistakes in (
        (
            "288 · Var(W) on a convolution's weight (64, 32, 3, 3), whose fan_in is 32 · 9",
            (64, 32, 3, 3),
            {"nonlinearity": "relu"},
            288,
            2.0,
            {"a fan_in of 32: the nine places of the kernel are not counted": 18.0, "fan_out": 1.0},
        ),
        (
            "200 · Var(W) with mode='fan_out' on a weight (200, 800)",
            (200, 800),
            {"mode": "fan_out", "nonlinearity": "relu"},
            200,
            2.0,
            {"fan_in, as if `mode` were not looked at": 0.5},
        ),
        (
            "800 · Var(W) for a leaky relu of slope a = 2, whose gain² is 2 / (1 + a²)",
            (200, 800),
            {"a": 2.0},
            800,
            0.4,
            {"a slope that is not looked at": 2.0, "a gain of 1": 1.0},
        ),
    ):
        for name in ("kaiming_normal_", "kaiming_uniform_"):
            weight = shared.empty(*shape)
            with doing(f"{name} on a weight {shape}"):
                returned = getattr(nn.init, name)(weight, **options)
            require(returned is weight, f"{name} fills the tensor it is given and returns it, but it returned another")
            uniform = (
                {"a bound of σ: a uniform distribution in ±r has variance r²/3": gain / 3} if "uni" in name else {}
            )
            check(f"{name}: {what}", fan * weight.numpy().var(), gain, mistakes | uniform, tolerance=0.1)
    for name in ("kaiming_normal_", "kaiming_uniform_"):
        empty = shared.empty(4, 0)
        with doing(f"{name} on an empty weight (4, 0)", {"division": "There is nothing to fill: ask _is_empty first."}):
            require(getattr(nn.init, name)(empty) is empty, f"{name} returns an empty tensor as it is")
    with doing("kaiming_normal_ on a bias"), pytest.raises(ValueError, match="dim"):
        nn.init._calculate_fan_in_and_fan_out(shared.empty(5))
    uniform = nn.init.kaiming_uniform_(shared.empty(200, 800), nonlinearity="relu").numpy()
    check(
        "the largest entry of kaiming_uniform_, √(6/n)",
        abs(uniform).max(),
        math.sqrt(6 / 800),
        {
            "a bound of σ: a uniform distribution in ±r has variance r²/3": math.sqrt(2 / 800),
            "a bound of σ / √3 instead of √3 σ": math.sqrt(2 / 2400),
            "a gain of 1": math.sqrt(3 / 800),
        },
        tolerance=1e-3,
    )
    # Twenty relu layers whose widths differ, as in a real network.
    widths = [300] + [500, 300] * 10
    x = shared.randn(256, 300)
    hidden = [x.requires_grad_()]
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layer = nn.Linear(n_in, n_out)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        hidden.append(layer(hidden[-1]).relu())
    loudness = [math.sqrt((h**2).mean().item()) for h in hidden]
    ratio = loudness[-1] / loudness[0]
    require(
        0.4 < ratio < 2.5,
        f"after twenty layers the activations are {ratio:.1e} times as loud as the input, not about once. "
        f"Per layer that is a factor of {ratio ** (1 / 20):.2f}: 0.71 is a forgotten √2 for relu, "
        "0.41 is the default of nn.Linear.",
    )
    hidden[-1].backward(shared.randn(*hidden[-1].shape))
    gradient = math.sqrt((x.grad**2).mean().item())
    record_property("loudness_after_twenty_layers", ratio)
    record_property("of_the_gradient_at_the_input", gradient)
    require(
        0.2 < gradient < 5,
        f"a gradient of loudness 1 arrives at the input with {gradient:.1e}; about 1 is expected. Per layer that is a "
        f"factor of {gradient ** (1 / 20):.2f}: 1.41 is a relu whose backward lets everything through.",
    )


# ------------------------------------------------------------------------ training


class Recorder(nn.Module):
    """A linear layer behind dropout that writes down what each call looked like."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.drop = nn.Dropout(p)
        self.linear = nn.Linear(4, 3)
        self.calls: list[dict] = []

    def forward(self, x):
        out = self.linear(self.drop(x))
        self.calls.append({"training": self.training, "graph": out.requires_grad, "rows": len(x)})
        return out


def test_evaluation_switches_dropout_off_counts_every_example_once_and_switches_back():
    shared.manual_seed(0)
    drop, x = nn.Dropout(0.25), shared.ones(200, 100, requires_grad=True)
    with doing("dropout of a (200, 100) input"):
        y = check_formula_runs("dropout", "dropout", lambda: drop(x))
    require((x == 1).all(), "dropout changed its input, which it only reads")
    require(
        y.dtype == shared.float32, f"dropout of float32 must stay float32, but is {y.dtype}: which factor widens it?"
    )
    values = sorted({round(v, 4) for v in y.flatten().tolist()})
    require(
        values == [0.0, round(4 / 3, 4)],
        f"Dropout(0.25) in training turns ones into 0 and 1/(1 − p) = 1.3333, but gave {values[:4]}"
        + (": the survivors are not rescaled" if 1.0 in values else "")
        + (": they are multiplied by 1 − p instead of divided" if 0.75 in values else "")
        + (": they are divided by p instead of 1 − p" if 4.0 in values else ""),
    )
    zeros = (y == 0).float().mean().item()
    check("the share of zeros for p = 0.25", zeros, 0.25, {"p as the share kept": 0.75}, tolerance=0.02)
    rows = (y == 0).float().mean(dim=1)
    require(
        rows.max().item() < 1 and rows.min().item() < rows.max().item(),
        "every row drops the same entries or whole rows vanish: the mask has one number for each element",
    )
    require((drop(x) != y).any(), "two calls dropped the same entries: the mask is drawn anew at every call")
    shared.manual_seed(1)
    first = drop(x)
    shared.manual_seed(1)
    require(
        (drop(x) == first).all(), "manual_seed(1) twice gave two masks: the numbers come from uniform(seed, …) alone"
    )
    with doing("the gradient of dropout"):
        check_formula_runs("dropout", "dropout_input", y.sum().backward)
    grad, out = x.grad.numpy(), y.detach().numpy()
    require(
        ((grad == 0) == (out == 0)).all(),
        "the gradient is 0 where the output is not, or the other way round: backward must use the mask of forward"
        + (", but every entry got a gradient" if (grad != 0).all() else ", but it used another mask"),
    )
    check("the largest gradient of Σ y, 1/(1 − p)", grad.max(), 4 / 3, {"a gradient that is not rescaled": 1.0})
    channels = F.dropout2d(shared.ones(50, 20, 3, 3), 0.5).numpy().reshape(50, 20, 9)
    require(
        (channels == channels[:, :, :1]).all(),
        "dropout2d drops whole channels: the mask has the shape mask_shape, which may be smaller than the input's",
    )
    require((F.dropout(shared.ones(9), 1.0) == 0).all(), "with p = 1 nothing survives: the result is 0, not NaN")
    require((drop.eval()(x) == x).all(), "in eval mode dropout returns its input: is `self.training` looked at?")

    model, loss_fn = Recorder(), nn.CrossEntropyLoss()
    with shared.no_grad():
        model.linear.weight.copy_(templates().weight)
        model.linear.bias.copy_(templates().bias)
    before = {name: p.tolist() for name, p in model.named_parameters()}
    strokes, labels = shared.tensor(STROKES), shared.tensor(LABELS)
    loader = [(strokes[:4], labels[:4]), (strokes[4:], labels[4:])]  # the last batch is shorter
    with doing("evaluate"):
        measured = evaluate(model, loader, loss_fn, {"accuracy": accuracy})
    require(
        isinstance(measured, dict) and set(measured) == {"loss", "accuracy"},
        f"evaluate returns a dict with the loss and every metric by name, not {measured}",
    )
    require(
        [call["rows"] for call in model.calls] == [4, 2],
        f"each batch passes through the model once, but batches of {[c['rows'] for c in model.calls]} rows did"
        + (": is `return` indented so far that it ends the loop?" if len(model.calls) == 1 else ""),
    )
    require(all(not call["training"] for call in model.calls), "evaluate ran the model in train mode, with dropout")
    require(all(not call["graph"] for call in model.calls), "evaluate recorded a graph: no_grad() is missing")
    require(
        model.training and model.drop.training, "evaluate left the model in eval mode: dropout stays off from now on"
    )
    after = {name: p.tolist() for name, p in model.named_parameters()}
    require(before == after, "evaluate changed the parameters")
    require(all(p.grad is None for p in model.parameters()), "evaluate left gradients behind")
    # By hand: the losses of the six strokes with the templates of note 01; right are strokes 0, 2 and 4.
    rows = np.array([0.4076, 3.3490, 0.0949, 1.8620, 0.4076, 3.3490])
    batch_means = [rows[:4].mean(), rows[4:].mean()]
    check(
        "the mean loss over six examples in batches of four and two",
        measured["loss"],
        rows.mean(),
        {
            "the mean of the batch means, in which the short batch counts double": np.mean(batch_means),
            "the sum over batches": np.sum(batch_means),
            "the loss of the last batch only": batch_means[1],
        },
        tolerance=1e-3,
    )
    check("the accuracy", measured["accuracy"], 0.5)
    check_pairs(lambda loader, loss_fn: evaluate(model, loader, loss_fn)["loss"], "evaluate", model)
    model.eval()
    evaluate(model, loader, loss_fn)
    require(not model.training, "evaluate was given a model in eval mode and handed it back in train mode")
    with doing("evaluate on a loader without a batch, which is a ValueError,"), pytest.raises(ValueError):
        evaluate(model, [], loss_fn)


class Tree(nn.Module):
    """A tree with all that a walk may stumble over."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(shared.ones(1))
        self.inner = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())  # its bias is None
        self.again = self.inner[0]  # one layer under two names
        self.nothing = self.inner
        self.nothing = None  # a place that is kept
        self.output = nn.Linear(4, 4)
        self.output.weight = self.inner[0].weight  # one parameter in two layers
        self.register_buffer("count", shared.zeros(1))


def test_a_state_dict_carries_a_network_over_and_refuses_what_does_not_fit():
    tree = Tree()
    with doing(
        "named_modules()", {"NoneType": "None in _modules or _parameters is a place that is kept: pass over it."}
    ):
        paths = [path for path, _ in tree.named_modules()]
    check_names(
        "the paths of all modules (`again` is a second name of the layer inner.0, and a module comes once)",
        paths,
        ["", "inner", "inner.0", "inner.1", "output"],
        {
            "paths that lack the parent's: a child's is its parent's, a dot and its own name": [
                *("", "inner", "0", "1", "output")
            ],
            "the children only: each of them has to walk on": ["", "inner", "again", "output"],
            "the children only, each once: each of them has to walk on": ["", "inner", "output"],
            "a module that comes once for each of its two paths": [
                "",
                "inner",
                "inner.0",
                "inner.1",
                "again",
                "output",
            ],
            "a dot after an empty path": ["", ".inner", ".inner.0", ".inner.1", ".output"],
            "a dot after an empty path, and a module that comes once for each of its two paths": [
                *("", ".inner", ".inner.0", ".inner.1", ".again", ".output")
            ],
            "paths that lack the parent's, and a module that comes once for each of its two paths": [
                *("", "inner", "0", "1", "again", "output")
            ],
            "children before their parents": ["inner.0", "inner.1", "inner", "output", ""],
            "the module itself left out": ["inner", "inner.0", "inner.1", "output"],
        },
    )
    with doing(
        "named_parameters()",
        {
            "NoneType": "None in _parameters is a place that is kept: pass over it.",
            "ambiguous": "Tensors are told apart by `is` or id(): == and `in` compare their elements.",
        },
    ):
        names = [name for name, _ in tree.named_parameters()]
    check_names(
        "the names of all parameters (output.weight is inner.0.weight, and a parameter comes once)",
        names,
        ["scale", "inner.0.weight", "output.bias"],
        {
            "a tied parameter that comes twice: an optimizer would move it twice": [
                *("scale", "inner.0.weight", "output.weight", "output.bias")
            ],
            "None taken for a parameter: it is a place that is kept": [
                "scale",
                "inner.0.weight",
                "inner.0.bias",
                "output.bias",
            ],
            "the module's own parameters only": ["scale"],
            "names without their paths": ["scale", "weight", "bias"],
            "a dot after an empty path": [".scale", "inner.0.weight", "output.bias"],
        },
    )
    for what, actual, expected, mistakes in (
        ("recurse=False", tree.named_parameters(recurse=False), ["scale"], {}),
        ("prefix='net'", tree.named_parameters("net"), ["net.scale", "net.inner.0.weight", "net.output.bias"], {}),
        (
            "prefix='net' and recurse=False",
            tree.named_parameters("net", recurse=False),
            ["net.scale"],
            {"a prefix that only the recursion puts in front": ["scale"]},
        ),
        (
            "remove_duplicate=False",
            tree.named_parameters(remove_duplicate=False),
            ["scale", "inner.0.weight", "again.weight", "output.weight", "output.bias"],
            {},
        ),
    ):
        check_names(f"the names with {what}", [name for name, _ in actual], expected, mistakes)
    memo: set[nn.Module] = set()
    visited = {module for _, module in tree.named_modules(memo)}
    require(
        memo == visited,
        f"a memo that the caller hands in holds afterwards the {len(visited)} modules that came, but this one holds "
        f"{len(memo)}: `memo or set()` takes an empty set for None and fills another one",
    )
    for what, options in (("", {}), (" and remove_duplicate=False", {"remove_duplicate": False})):
        check_names(
            f"the paths with a memo that holds `inner`{what}: it is passed over, with all below it",
            [path for path, _ in tree.named_modules({tree.inner}, **options)],
            ["", "again", "output"],
            {
                "a memo that is not looked at": ["", "inner", "inner.0", "inner.1", "output"],
                "a memo that is not looked at unless duplicates are removed": [
                    *("", "inner", "inner.0", "inner.1", "again", "output")
                ],
                "the children of a module that is passed over": ["", "inner.0", "inner.1", "output"],
            },
        )
    check_names("the names of the buffers", [name for name, _ in tree.named_buffers()], ["count"], {})
    require(dict(tree.named_parameters())["output.bias"] is tree.output.bias, "a name must come with its own parameter")

    def network(hidden: int = 6) -> nn.Sequential:
        output = nn.Sequential(nn.Dropout(0.5), nn.Linear(hidden, 3))
        return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), output).eval()

    shared.manual_seed(0)
    old, new = network(), network()
    strokes = shared.tensor(STROKES)
    expected = old(strokes).tolist()
    require(new(strokes).tolist() != expected, "two fresh networks give the same output: are their weights random?")
    state = old.state_dict()
    names = ["0.weight", "0.bias", "2.1.weight", "2.1.bias"]
    require(list(state) == names, f"the keys are the paths in the tree, {names}, not {list(state)}")
    with doing("load_state_dict", {"requires grad": "Copying is no part of a computation: do it under no_grad()."}):
        fresh = new(strokes).tolist()
        new.load_state_dict(state)
    check(
        "the output of the loaded network",
        new(strokes).tolist(),
        expected,
        {"nothing loaded at all: the copies have to be called": fresh},
        tolerance=0,
    )
    require(
        all(p.is_leaf for p in new.parameters()),
        "a loaded parameter has become the result of a recorded computation: copy under no_grad()",
    )
    with shared.no_grad():
        old[0].weight.zero_()
    check("the output of the copy after the original was changed", new(strokes).tolist(), expected, tolerance=0)

    other = network().state_dict()  # other values: a copy of any of them would show
    for what, wrong, named in (
        ("without two of its keys", {k: v for k, v in other.items() if "bias" not in k}, ["0.bias", "2.1.bias"]),
        (
            "with two keys too many",
            {**other, "3.weight": shared.ones(1), "9.bias": shared.ones(1)},
            ["3.weight", "9.bias"],
        ),
        ("of a wider network", network(hidden=7).state_dict(), ["0.weight", "0.bias", "2.1.weight"]),
    ):
        with doing(
            f"loading a state dict {what}",
            {"": "copy_or_refuse refuses what does not fit with a RuntimeError, and with no other exception."},
        ):
            message = refusal(lambda wrong=wrong: new.load_state_dict(wrong))
        require(message, f"a state dict {what} was accepted: it has to be refused with a RuntimeError")
        require(
            new(strokes).tolist() == expected,
            f"a state dict {what} was refused, and yet loaded in part: copy nothing before all complaints are known",
        )
        missed = [name for name in named if name not in message]
        errors = " Every sentence in `errors` belongs in the message." if "wider" in what else ""
        require(
            not missed,
            f"the refusal of a state dict {what} does not name {' and '.join(missed)}, though every key counts."
            f"{errors} It says:\n{message}",
        )
        require("Sequential" in message, f"the refusal does not name the class, Sequential. It says:\n{message}")
    with doing("loading a state dict without two of its keys, strict=False"):
        new.load_state_dict({k: v for k, v in other.items() if "bias" not in k}, strict=False)
    require((new[0].weight == other["0.weight"]).all(), "with strict=False the keys that fit have to be copied")


def test_an_epoch_starts_every_step_from_fresh_gradients():
    strokes, labels = shared.tensor(STROKES), shared.tensor(LABELS)
    loader = [(strokes[:4], labels[:4]), (strokes[4:], labels[4:])]
    # Descent by hand, in NumPy: two steps with the gradient of each batch alone, or piling up.
    x, one_hot = np.array(STROKES), np.eye(3)[LABELS]

    def by_hand(piling_up: bool = False, stale: float = 0.0, steps: int = 2):
        weight, bias = templates().weight.detach().numpy().astype(float), np.array([0, 1, 0.0])
        total_w, total_b, losses = np.tile(x.sum(0) * stale, (3, 1)), np.full(3, 6.0 * stale), []
        for rows in (slice(0, 4), slice(4, 6))[:steps]:
            z = x[rows] @ weight.T + bias
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            losses += list(-np.log((p * one_hot[rows]).sum(1)))
            g = (p - one_hot[rows]) / len(z)
            keep = piling_up or (stale and rows.start == 0)
            total_w, total_b = total_w * keep + g.T @ x[rows], total_b * keep + g.sum(0)
            weight, bias = weight - 0.5 * total_w, bias - 0.5 * total_b
        return weight, losses

    model = Recorder(p=0.0)
    with shared.no_grad():
        model.linear.weight.copy_(templates().weight)
        model.linear.bias.copy_(templates().bias)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    (model(strokes).sum() * 100).backward()  # leftovers of an earlier computation, as after a look at the gradients
    model.calls.clear()
    model.eval()
    ticks = []
    with doing("train_one_epoch", {"'tqdm'": "The bar is drawn by `fit`, through after_batch: this loop has none."}):
        measured = train_one_epoch(
            model,
            loader,
            nn.CrossEntropyLoss(),
            optimizer,
            {"accuracy": accuracy},
            after_batch=lambda: ticks.append(model.linear.weight.tolist()),
        )
    require(
        isinstance(measured, dict) and set(measured) == {"loss", "accuracy"},
        f"train_one_epoch returns a dict with the loss and every metric by name, not {measured}",
    )
    passed = [call["rows"] for call in model.calls]
    require(
        passed == [4, 2],
        f"each batch passes through the model once, in order, but batches of {passed} rows did"
        + (": is `return` indented so far that it ends the loop?" if passed == [4] else ""),
    )
    require(
        all(call["training"] for call in model.calls),
        "the model came in eval mode, and train_one_epoch left it there, without dropout. Call model.train().",
    )
    weight, losses = by_hand()
    leftover = [by_hand(piling_up, stale=100.0)[0] for piling_up in (False, True)]
    check(
        "the weight after an epoch of two steps",
        model.linear.weight.tolist(),
        weight,
        {
            "leftovers from before the epoch in the first step: zero_grad() comes too late": leftover[0],
            "gradients that pile up from step to step: zero_grad() is missing": leftover[1],
            "gradients that pile up within the epoch: zero_grad() is outside the loop": by_hand(True)[0],
            "no step at all: step() is missing, or the gradients are gone or not there yet when it comes "
            "(zero_grad() after backward(), or step() before it)": templates().weight.tolist(),
        },
        tolerance=1e-3,
    )
    check(
        "the mean training loss over examples",
        measured["loss"],
        np.mean(losses),
        {"the mean of the batch means": (np.mean(losses[:4]) + np.mean(losses[4:])) / 2},
        tolerance=1e-3,
    )
    # A loss that is not finite, in the second batch of two, must not reach the weights.
    optimizer.param_groups[0]["lr"] = 0.0
    told = ""
    try:
        train_one_epoch(
            model,
            loader,
            lambda z, y: nn.CrossEntropyLoss()(z, y) * (math.nan if len(y) == 2 else 1.0),
            optimizer,
            epoch=3,
        )
    except FloatingPointError as error:
        told = str(error)
    require(told, "a loss that is NaN was trained on: check_finite() raises a FloatingPointError")
    require(
        np.isfinite(model.linear.weight.tolist()).all(),
        "a loss that is NaN reached the weights before it was found: check_finite() belongs before the step",
    )
    require(
        "epoch 3" in told and "batch 2" in told,
        "the loss of the second batch was NaN, in an epoch that the caller numbers 3, but the error speaks of another: "
        + ("batches are counted from 1, not from 0. " if "batch 1" in told else "")
        + ("`epoch` is handed on to check_finite. " if "epoch 3" not in told else "")
        + f"It says:\n{told}",
    )
    check_pairs(
        lambda loader, loss_fn: train_one_epoch(model, loader, loss_fn, optimizer)["loss"], "train_one_epoch", model
    )
    # What is called after a batch: once, and when the step is done.
    require(len(ticks) == 2, f"after_batch is called once after each of the two batches, not {len(ticks)} times")
    check(
        "the weight at the first call of after_batch",
        ticks[0],
        by_hand(steps=1)[0],
        {
            "a call before the step, where a schedule would set the rate of this batch: after_batch comes last": (
                templates().weight.tolist()
            )
        },
        tolerance=1e-3,
    )


def check_pairs(mean_loss: Callable[..., float], name: str, model: nn.Module) -> None:
    """Each batch has two tensors of targets, as for a network with two outputs: examples are counted all the same."""
    x, y = shared.tensor(STROKES), shared.tensor(LABELS)
    loader = [(x[:4], (y[:4], y[:4])), (x[4:], (y[4:], y[4:]))]

    def loss_fn(z, targets):
        return F.cross_entropy(z, targets[0])

    with shared.no_grad():
        each = F.cross_entropy(model.linear(x), y, reduction="none").tolist()
    with doing(f"{name} on batches whose targets are a pair of tensors"):
        mean = mean_loss(loader, loss_fn)
    check(
        f"the mean loss that {name} returns for batches of 4 and 2 whose targets are a pair of tensors",
        mean,
        np.mean(each),
        {
            "len(targets), which is 2 for each of these batches: batch_size(targets) counts the examples": (
                np.mean(each[:4]) + np.mean(each[4:])
            )
            / 2
        },
    )


def test_a_hidden_layer_breaks_the_wall_and_reads_real_digits(record_property):
    strokes, labels = shared.tensor(STROKES), shared.tensor(LABELS)
    shared.manual_seed(0)
    line, network = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    for model in (line, network):
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        for _ in range(500):
            train_one_epoch(model, [(strokes, labels)], nn.CrossEntropyLoss(), optimizer)
    final = [evaluate(model, [(strokes, labels)], nn.CrossEntropyLoss())["loss"] for model in (line, network)]
    require(
        abs(final[0] - math.log(3)) < 0.01,
        f"a linear classifier ends at {final[0]:.4f} on the strokes; note 02 proves ln 3 = 1.0986",
    )
    require(
        final[1] < 0.1,
        f"the network with a hidden layer ends at {final[1]:.4f} nats on the strokes, above 0.1. At ln 3 = 1.0986 it "
        "is no better than a line: its hidden units are all equal (note 05), or nothing bends between its layers "
        "(note 02)",
    )

    train, test = shared.data.load("digits")
    data = [(s.data.reshape(len(s), -1).float() / 255 * 2 - 1, s.targets) for s in (train, test)]
    loader = shared.data.DataLoader(shared.data.TensorDataset(*data[0]), batch_size=64, shuffle=True)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = optim.Adam(network.parameters(), lr=3e-3)
    losses = [train_one_epoch(network, loader, nn.CrossEntropyLoss(), optimizer)["loss"] for _ in range(10)]
    measured = evaluate(network, [data[1]], nn.CrossEntropyLoss(), {"accuracy": accuracy})
    record_property("test_accuracy", measured["accuracy"])
    record_property("test_loss_in_nats", measured["loss"])
    require(losses[0] < 2.1, f"the first epoch's mean loss is {losses[0]:.2f}; a blind network has ln 10 = 2.30")
    require(
        measured["accuracy"] > BOUND,
        f"after ten epochs the network reads {measured['accuracy']:.1%} of unseen digits; over 20 seeds "
        f"the reference never read less than {LOWEST:.1%}, and {BOUND:.0%} is asked for. Training losses by "
        f"epoch: {[round(loss, 3) for loss in losses]}",
    )
