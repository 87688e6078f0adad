"""What TensorBoard reads back: curves, histograms, images, hyper-parameters; and a training that is resumed."""

import builtins
import io
import math
import os
import sys

import numpy as np
import pytest

import shared
from shared import nn
from shared.training import Callback, LMConfig, TensorBoard, Trainer, fit

HAS_TENSORBOARD = True
try:
    import tensorboardX  # noqa: F401
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    HAS_TENSORBOARD = False
needs_tensorboard = pytest.mark.skipif(not HAS_TENSORBOARD, reason="tensorboardX or tensorboard is not installed")


def trained(board, epochs=3, **options):
    shared.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    x = shared.randn(8, 2)
    history = fit(
        model,
        [(x, x.sum(dim=1, keepdim=True))],
        [(x, x.sum(dim=1, keepdim=True))],
        loss_fn=nn.MSELoss(),
        optimizer=shared.optim.SGD(model.parameters(), lr=0.1),
        epochs=epochs,
        progress=False,
        **{"callbacks": [board], **options},
    )
    return model, history


def read(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    found.Reload()
    return found


def curve(events, tag):
    return [(point.step, point.value) for point in events.Scalars(tag)]


@needs_tensorboard
def test_every_number_of_the_history_is_a_curve(tmp_path):
    _, history = trained(TensorBoard(tmp_path))
    events = read(tmp_path)
    names = {"loss/train": "train_loss", "loss/val": "val_loss", "lr": "lr"}
    assert sorted(events.Tags()["scalars"]) == sorted(names)
    for tag, name in names.items():
        assert curve(events, tag) == [(i, pytest.approx(v, rel=1e-6)) for i, v in enumerate(history[name], start=1)]


@needs_tensorboard
def test_an_epoch_can_be_seen_as_soon_as_it_is_over(tmp_path):
    class Look(Callback):
        seen = ()

        def after_epoch(self, model, history):
            self.seen += (len(curve(read(tmp_path), "loss/val")),)

    look = Look()
    trained(None, callbacks=[TensorBoard(tmp_path), look])
    assert look.seen == (1, 2, 3)


@needs_tensorboard
def test_what_is_flushed_is_in_the_file_however_much_it_is(tmp_path):
    board = TensorBoard(tmp_path)
    for step in range(1, 2001):
        board.numbers(step, {"loss/val": 1 / step}, flush=step % 500 == 0)
        if step % 500 == 0:
            assert len(curve(read(tmp_path), "loss/val")) == step


@needs_tensorboard
def test_parameters_and_gradients_are_histograms(tmp_path):
    model, _ = trained(TensorBoard(tmp_path))
    events = read(tmp_path)
    names = [f"{kind}/{name}" for kind in ("parameters", "gradients") for name, _ in model.named_parameters()]
    assert sorted(events.Tags()["histograms"]) == sorted(names)
    for kind, array in (("parameters", model[0].weight), ("gradients", model[0].weight.grad)):
        points = events.Histograms(f"{kind}/0.weight")
        assert [p.step for p in points] == [1, 2, 3]
        last, values = points[-1].histogram_value, array.numpy(force=True)
        assert last.num == 6 and sum(last.bucket) == 6
        assert (last.min, last.max) == (pytest.approx(values.min()), pytest.approx(values.max()))
        assert last.sum == pytest.approx(values.sum(), rel=1e-5)


@needs_tensorboard
def test_histograms_can_be_left_out_and_infinities_are(tmp_path):
    board = TensorBoard(tmp_path, histograms=False)
    trained(board)
    board.histogram("some", shared.tensor([1.0, math.inf, math.nan, 2.0]), step=1)
    board.histogram("none", shared.tensor([math.nan]), step=1)
    board.close()
    events = read(tmp_path)
    assert events.Tags()["histograms"] == ["some"]
    assert events.Histograms("some")[0].histogram_value.num == 2


@needs_tensorboard
@pytest.mark.parametrize("channels", [1, 3])
def test_images_arrive_as_they_are(tmp_path, channels):
    from PIL import Image

    board, rng = TensorBoard(tmp_path), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, channels, 4, 5)).astype(np.uint8)
    board.images("bytes", shared.tensor(pixels), step=1)
    board.images("floats", shared.tensor(pixels[0] / np.float32(255)), step=2)
    board.close()
    events = read(tmp_path)
    for tag, expected in (("bytes", np.concatenate(list(pixels), axis=2)), ("floats", pixels[0])):
        (event,) = events.Images(tag)
        found = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
        np.testing.assert_allclose(found.transpose(2, 0, 1)[:channels].astype(int), expected.astype(int), atol=1)


@needs_tensorboard
def test_images_of_a_wrong_shape_or_range_are_named(tmp_path):
    board = TensorBoard(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\) .* but got \(4, 5\)"):
        board.images("x", shared.zeros(4, 5), step=1)
    with pytest.raises(ValueError, match=r"values from 0 to 1, or be uint8, but got -0.42…2.8"):
        board.images("x", shared.tensor([[[-0.42, 2.8]]]), step=1)
    with pytest.raises(ValueError, match="values from 0 to 1"):
        board.images("x", shared.tensor([[[math.nan, 0.5]]]), step=1)


@needs_tensorboard
def test_hyper_parameters_are_in_the_runs_own_file(tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    given = {"lr": 0.1, "optimizer": "SGD", "nesterov": False, "layers": 2}
    trained(TensorBoard(tmp_path, hparams=given))
    assert len(os.listdir(tmp_path)) == 1, "one run, one file"
    content = read(tmp_path).PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    found = {k: getattr(v, v.WhichOneof("kind")) for k, v in start.hparams.items()}
    assert found == given
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    assert [m.name.tag for m in experiment.metric_infos] == ["loss/val", "loss/train"], "validation first"


class Failing(Callback):
    """Ends the process, in place of a kill, between the log and the checkpoint of an epoch."""

    def after_epoch(self, model, history):
        if history.epochs == 3:
            raise KeyboardInterrupt


@needs_tensorboard
def test_a_resumed_training_leaves_no_point_twice(tmp_path):
    class Passing(Failing):
        def after_epoch(self, model, history):
            pass

    Passing.__name__ = "Failing"  # the same kind of callback, which does not fail this time
    logs, path = tmp_path / "logs", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        trained(TensorBoard(logs), 5, resume=path, callbacks=[TensorBoard(logs), Failing()])
    assert [step for step, _ in curve(read(logs), "loss/val")] == [1, 2, 3]
    _, history = trained(None, 5, resume=path, callbacks=[TensorBoard(logs), Passing()])
    found = curve(read(logs), "loss/val")
    assert found == [(i, pytest.approx(v, rel=1e-6)) for i, v in enumerate(history["val_loss"], start=1)]


@needs_tensorboard
def test_the_writer_takes_everything_else(tmp_path):
    board = TensorBoard(tmp_path)
    board.scalar("a", shared.tensor(2.0), step=7)
    board.writer.add_text("note", "hello", 1)
    board.close()
    board.scalar("a", 3.0, step=8)
    board.close()
    assert curve(read(tmp_path), "a") == [(7, 2.0), (8, 3.0)]


def test_without_tensorboardx_the_remedy_is_named_before_the_training(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **options):
        if name.partition(".")[0] == "tensorboardX":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **options)

    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboardX tensorboard"):
        TensorBoard(tmp_path)


@needs_tensorboard
def test_what_a_checkpoint_has_behind_it_is_in_the_file(tmp_path):
    """A training that is killed goes on from there, and writes none of it again."""
    shared.manual_seed(0)
    config = LMConfig(
        steps=7, batch_size=2, block_size=4, warmup_steps=2, eval_interval=0, eval_batches=2, checkpoint_interval=3
    )
    model = nn.Embedding(5, 5)
    options = {"optimizer": shared.optim.AdamW(model.parameters()), "progress": False}
    run = Trainer(model, list(range(5)) * 20, [], config, folder=tmp_path / "a", tensorboard=tmp_path / "b", **options)
    save, seen = run.save, []

    def saved():
        save()
        seen.append(len(curve(read(tmp_path / "b"), "lr")))

    run.save = saved
    run.train()
    assert seen == [3, 6, 7]


@needs_tensorboard
def test_a_language_models_updates_and_measurements_and_those_of_a_resumed_training(tmp_path):
    def training(**changes):
        shared.manual_seed(0)
        model = nn.Embedding(5, 5)
        options = {"steps": 9, "batch_size": 2, "block_size": 4, "warmup_steps": 2, "eval_interval": 3}
        config = LMConfig(**{**options, "checkpoint_interval": 3, "eval_batches": 2, **changes})
        optimizer = shared.optim.AdamW(model.parameters(), lr=config.max_lr)
        options = {"optimizer": optimizer, "folder": tmp_path / "run", "tensorboard": tmp_path / "board"}
        return Trainer(model, list(range(5)) * 20, list(range(5)) * 9, config, progress=False, **options)

    first = training()
    first.used_up = lambda: "steps" if first.step == 5 else ""
    first.train()
    run = training()
    advance = run.advance

    def interrupted():
        if run.step == 8:
            run.advance = advance
            raise KeyboardInterrupt
        return advance()

    run.advance = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.train(resume=True)
    log = run.train(resume=True)  # as in a notebook, with the same objects
    events = read(tmp_path / "board")
    for tag, name in {"loss/batch": "loss", "lr": "lr", "loss/val": "val_loss", "loss/train": "train_loss"}.items():
        steps, values = log.column(name)
        assert curve(events, tag) == [(s, pytest.approx(v, rel=1e-5)) for s, v in zip(steps, values, strict=True)]
    assert len(curve(events, "tokens_per_second")) == 9
