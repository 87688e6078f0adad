"""The same training program, run with PyTorch and with shared from the same weights, gives the same losses."""

import importlib.util

import numpy as np
import pytest

import shared

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)


def classifier(T, nn):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 24), nn.GELU(), nn.Linear(24, 5))
    return model, nn.CrossEntropyLoss(label_smoothing=0.05), lambda rng: rng.integers(0, 5, 64)


def regression(T, nn):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
            self.head = nn.Linear(16, 3)
            self.register_buffer("shift", T.ones(16))

        def forward(self, x):
            x = x.flatten(1) + self.shift
            for layer in self.layers:
                x = x + nn.functional.silu(layer(x))
            return self.head(x)

    return Residual(), nn.SmoothL1Loss(), lambda rng: rng.normal(size=(64, 3)).astype("float32")


def tags(T, nn):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.Tanh(), nn.Linear(20, 4, bias=False))
    targets = lambda rng: (rng.random((64, 4)) > 0.7).astype("float32")  # noqa: E731
    return model, nn.BCEWithLogitsLoss(pos_weight=T.ones(4) * 2), targets


def train(T, program, state=None):
    rng = np.random.default_rng(0)
    model, criterion, targets = program(T, T.nn)
    start = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    if state is not None:
        model.load_state_dict(state)
    x = T.from_numpy(rng.normal(size=(64, 4, 4)).astype("float32"))
    y = T.from_numpy(targets(rng))
    optimizer = T.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        T.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return start, np.array(losses)


@pytest.mark.parametrize("program", [classifier, regression, tags])
def test_losses_over_thirty_steps_are_pytorchs(program):
    import torch

    state, theirs = train(torch, program)
    _, ours = train(shared, program, state)
    assert theirs[-1] < 0.8 * theirs[0], "the program learns something"
    np.testing.assert_allclose(ours, theirs, rtol=2e-4)
