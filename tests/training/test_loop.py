"""The training loop: what each part changes and leaves, means over examples, and errors that name the place."""

import math

import matplotlib.pyplot as plt
import pytest

import shared
from shared import nn
from shared.data import DataLoader, TensorDataset
from shared.training import History, accuracy, evaluate, fit, train_one_epoch

plt.switch_backend("Agg")


def line(n=32):
    """y = 2x − 1 without noise."""
    x = shared.linspace(-1, 1, n).reshape(n, 1)
    return TensorDataset(x, 2 * x - 1)


def linear():
    shared.manual_seed(0)
    return nn.Linear(1, 1)


def fitted(model, epochs=1, **options):
    given = {
        "loss_fn": nn.MSELoss(),
        "optimizer": shared.optim.SGD(model.parameters(), lr=0.2),
        "progress": False,
        **options,
    }
    loader = given.pop("loader", DataLoader(line(), batch_size=8))
    return fit(model, loader, given.pop("val", None), epochs=epochs, **given)


class Spy(nn.Module):
    """Notes the mode and whether gradients are recorded, at every call."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(1, 1), []

    def forward(self, x):
        self.calls.append(("train" if self.training else "eval", shared.is_grad_enabled(), len(x)))
        return self.layer(x)


# ---------------------------------------------------------------- learning


def test_a_line_is_learned():
    model = linear()
    history = fitted(model, epochs=60)
    assert model.weight.item() == pytest.approx(2, abs=1e-2) and model.bias.item() == pytest.approx(-1, abs=1e-2)
    assert history["train_loss"][-1] < 1e-3 * history["train_loss"][0]


def test_it_is_the_five_lines_written_out():
    by_hand, by_fit = linear(), linear()
    optimizer, loss_fn = shared.optim.SGD(by_hand.parameters(), lr=0.2), nn.MSELoss()
    for _ in range(3):
        for x, y in DataLoader(line(), batch_size=8):
            optimizer.zero_grad()
            loss = loss_fn(by_hand(x), y)
            loss.backward()
            optimizer.step()
    fitted(by_fit, epochs=3)
    assert by_fit.weight.tolist() == by_hand.weight.tolist() and by_fit.bias.tolist() == by_hand.bias.tolist()


def test_gradients_of_one_batch_do_not_reach_the_next():
    model = linear()
    model.weight.grad = shared.full((1, 1), 1e6)
    fitted(model)
    assert abs(model.weight.item()) < 10


def test_training_is_in_train_mode_with_gradients_and_evaluation_in_neither():
    model = Spy()
    fitted(model, epochs=2, val=DataLoader(line(), batch_size=16))
    modes = [("train", True, 8)] * 4 + [("eval", False, 16)] * 2
    assert model.calls == modes * 2


def test_evaluation_changes_nothing():
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    before = {k: v.tolist() for k, v in model.state_dict().items()}
    loader = DataLoader(line(), batch_size=8)
    first, second = evaluate(model, loader, nn.MSELoss()), evaluate(model, loader, nn.MSELoss())
    assert first == second, "dropout was active"
    assert {k: v.tolist() for k, v in model.state_dict().items()} == before
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()
    evaluate(model, loader, nn.MSELoss())
    assert not model.training


# ---------------------------------------------------------------- numbers


def test_means_are_over_examples_not_over_batches():
    x = shared.tensor([[0.0], [0.0], [0.0], [8.0]])
    batches = DataLoader(TensorDataset(x, shared.zeros(4, 1)), batch_size=3)
    found = evaluate(nn.Identity(), batches, nn.MSELoss(), {"top": lambda outputs, targets: outputs.max().item()})
    assert found == {"loss": 16.0, "top": 2.0}


def test_the_training_loss_is_measured_before_each_step():
    model, x = linear(), shared.ones(4, 1)
    expected = ((model(x) - 5) ** 2).mean().item()
    found = train_one_epoch(model, [(x, x * 5)], nn.MSELoss(), shared.optim.SGD(model.parameters(), lr=0.1))
    assert found == {"loss": pytest.approx(expected)}


def test_the_history_has_one_number_per_epoch():
    model = linear()
    optimizer = shared.optim.SGD(model.parameters(), lr=0.2)
    history = fitted(
        model,
        epochs=3,
        val=DataLoader(line(), batch_size=8),
        optimizer=optimizer,
        scheduler=shared.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
        metrics={"mae": lambda outputs, targets: (outputs - targets).abs().mean()},
    )
    assert list(history) == ["train_loss", "train_mae", "val_loss", "val_mae", "lr"]
    assert history["lr"] == [0.2, 0.1, 0.05] and all(len(v) == 3 for v in history.values())
    assert all(type(v) is float for values in history.values() for v in values)


def test_metrics_do_not_keep_the_graph():
    seen = []
    fitted(linear(), metrics={"m": lambda outputs, targets: seen.append(outputs.requires_grad) or 0.0})
    assert seen == [False] * 4


def test_accuracy_by_hand():
    logits = shared.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 5.0, 2.0], [9.0, 1.0, 1.0]])
    assert accuracy(logits, shared.tensor([0, 2, 2, 1])) == 0.5
    assert accuracy(logits.T.reshape(1, 3, 4), shared.tensor([[0, 2, 2, 1]])) == 0.5


@pytest.mark.parametrize(("outputs", "targets"), [((4, 3), (3,)), ((4,), (4,)), ((4, 3), (4, 3)), ((4, 3), (4, 1))])
def test_accuracy_names_shapes_that_do_not_fit(outputs, targets):
    with pytest.raises(ValueError, match=r"accuracy expects .* but got shapes \(4,?.*\) and \("):
        accuracy(shared.zeros(*outputs), shared.zeros(*targets, dtype=shared.long))


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_place(value):
    model, x = linear(), line().tensors[0].clone()
    x[20] = value
    before = None

    def loss_fn(outputs, targets):
        nonlocal before
        before = model.weight.tolist()
        return nn.functional.mse_loss(outputs, targets)

    with pytest.raises(FloatingPointError, match=f"the loss is {value} in epoch 1, batch 3"):
        fitted(model, loader=DataLoader(TensorDataset(x, shared.zeros(32, 1)), batch_size=8), loss_fn=loss_fn)
    assert model.weight.tolist() == before


def test_a_rate_that_is_too_large_is_reported_with_its_epoch():
    model = linear()
    with pytest.raises(FloatingPointError, match=r"in epoch \d+, batch \d+. Lower the learning rate"):
        fitted(model, epochs=200, optimizer=shared.optim.SGD(model.parameters(), lr=50.0))


@pytest.mark.parametrize("loader", [[], DataLoader(line(4), batch_size=8, drop_last=True)], ids=["empty", "drop_last"])
def test_a_loader_without_batches_is_an_error(loader):
    with pytest.raises(ValueError, match="the loader gave no batch"):
        fitted(linear(), loader=loader)


# ---------------------------------------------------------------- progress and plots


def test_the_bar_counts_every_batch_and_shows_the_numbers(capsys):
    fitted(linear(), epochs=2, progress=True, val=DataLoader(line(), batch_size=8))
    last = capsys.readouterr().err.split("\r")[-1]
    assert "epoch 2/2" in last and "8/8" in last and "train_loss" in last and "val_loss" in last


def test_without_progress_nothing_is_printed(capsys):
    fitted(linear())
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_an_iterator_without_length_works():
    class Stream:
        def __iter__(self):
            return iter(DataLoader(line(), batch_size=8))

    assert len(fitted(linear(), epochs=2, loader=Stream(), progress=True)["train_loss"]) == 2


def test_the_plot_has_a_panel_per_quantity_with_labels():
    history = History()
    history.add({"loss": 2.0, "accuracy": 0.5}, {"loss": 2.5, "accuracy": 0.4}, lr=0.1)
    history.add({"loss": 1.0, "accuracy": 0.7}, {"loss": 2.0, "accuracy": 0.6}, lr=0.1)
    figure = history.plot("A run")
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy"]
    assert {axis.get_xlabel() for axis in figure.axes} == {"epoch"}
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines == {"training": [2.0, 1.0], "validation": [2.5, 2.0]}
    assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2]
    assert figure.get_suptitle() == "A run"
    assert not plt.get_fignums(), "pyplot would show the figure a second time"


def test_a_plot_without_validation_and_of_nothing():
    history = History()
    history.add({"loss": 2.0}, {}, lr=0.1)
    assert [line.get_label() for line in history.plot().axes[0].lines] == ["training"]
    with pytest.raises(ValueError, match="the history is empty"):
        History().plot()
