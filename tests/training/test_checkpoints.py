"""The folder of a training's checkpoints: what is in them, which of them stay, which are refused."""

import dataclasses
import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import shared
from shared import nn
from shared.checkpoint import CheckpointError
from shared.data import DataLoader
from shared.training import (
    EarlyStopping,
    History,
    checkpoint_info,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

ROOT = Path(shared.__file__).resolve().parents[1]
FILES = ["manifest.json", "model.safetensors", "state.json", "training.safetensors"]


class Tied(nn.Module):
    """A table that is used at both ends, and a buffer."""

    def __init__(self, vocab=7, width=3):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.norm(self.embedding(ids)))


def made(seed=0):
    """A model and its optimizer after one step."""
    shared.manual_seed(seed)
    model = Tied()
    optimizer = shared.optim.AdamW(model.parameters(), lr=0.1)
    ids = shared.tensor([0, 1, 2, 3])
    nn.functional.cross_entropy(model(ids), ids).backward()
    optimizer.step()
    return model, optimizer


def numbers(state):
    """Nested state as nested lists, to compare."""
    if isinstance(state, dict):
        return {key: numbers(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [numbers(value) for value in state]
    return state.tolist() if hasattr(state, "tolist") else state


def steps(folder):
    return sorted(os.listdir(folder))


# ---------------------------------------------------------------- what is in it


def test_it_is_a_folder_of_files_that_others_can_read(tmp_path):
    model, optimizer = made()
    path = save_checkpoint(tmp_path / "new" / "run", model, optimizer, 1000, config={"width": 3}, value=1.5)
    assert path == tmp_path / "new" / "run" / "step-00001000" and steps(path) == FILES
    found = load_file(path / "model.safetensors")
    assert set(found) == {key for key in model.state_dict() if key != "head.weight"}, "tied weights are there once"
    assert (found["embedding.weight"] == model.embedding.weight.array).all()
    state = json.loads((path / "state.json").read_text())
    assert state["step"] == 1000 and state["value"] == 1.5 and state["config"] == {"width": 3}
    assert state["parts"] == {"optimizer": "AdamW", "scheduler": None, "scaler": None, "callbacks": []}
    assert state["versions"]["numpy"] == np.__version__ and set(state["versions"]) == {
        "shared",
        "numpy",
        "python",
        "device",
    }


def test_everything_comes_back_and_tied_weights_are_tied(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, optimizer, 3)
    other, its = made(seed=1)
    assert numbers(other.state_dict()) != numbers(model.state_dict())
    assert load_checkpoint(tmp_path, other, its) == 3
    assert numbers(other.state_dict()) == numbers(model.state_dict())
    assert numbers(its.state_dict()) == numbers(optimizer.state_dict())
    assert other.head.weight is other.embedding.weight
    assert not np.shares_memory(other.head.weight.array, model.head.weight.array)


class Scaler:
    """Has a state as shared.amp.GradScaler has."""

    def __init__(self, scale):
        self.scale = scale

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_the_scaler_the_schedule_the_history_and_what_data_has(tmp_path):
    def parts(scale, seed):
        model, optimizer = made()
        g = shared.Generator().manual_seed(seed)
        history, position = History(train_loss=[scale, scale / 3]), Scaler(scale + 1)
        return model, optimizer, {
            "scheduler": shared.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
            "scaler": Scaler(scale),
            "history": history,
            "data": [position, g, DataLoader(range(9), shuffle=True, generator=shared.Generator().manual_seed(seed))],
            "callbacks": [EarlyStopping(patience=3)],
        }  # fmt: skip

    model, optimizer, saved = parts(8.0, 1)
    optimizer.step()
    saved["scheduler"].step()
    save_checkpoint(tmp_path, model, optimizer, 1, **saved)
    draws = [saved["data"][1].rng.random(), [int(i) for i in saved["data"][2]]]
    other, its, given = parts(2.0, 2)
    load_checkpoint(tmp_path, other, its, **given)
    assert its.param_groups[0]["lr"] == 0.05 and given["scheduler"].last_epoch == 1
    assert given["scaler"].scale == 8.0 and given["history"] == {"train_loss": [8.0, 8.0 / 3]}
    assert given["data"][0].scale == 9.0
    assert [given["data"][1].rng.random(), [int(i) for i in given["data"][2]]] == draws
    assert checkpoint_info(tmp_path)["latest"] == {"train_loss": 8.0 / 3}


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 3
    betas: tuple = (0.9, 0.95)
    out: Path = Path("run")


def test_a_config_is_written_for_people_and_compared_when_given(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, optimizer, 1, config={"model": Config(), "steps": np.int64(5)})
    expected = {"model": {"width": 3, "betas": [0.9, 0.95], "out": "run"}, "steps": 5}
    assert checkpoint_info(tmp_path)["config"] == expected
    load_checkpoint(tmp_path, model, optimizer, config={"model": Config(), "steps": 5})
    with pytest.raises(ValueError, match="another config .steps: 5 there, 6 here"):
        load_checkpoint(tmp_path, model, optimizer, config={"model": Config(), "steps": 6})
    with pytest.raises(ValueError, match="config should have numbers, strings, lists"):
        save_checkpoint(tmp_path, model, optimizer, 2, config={"model": model})
    assert steps(tmp_path) == ["step-00000001"]


def test_without_an_optimizer_only_the_model_is_restored(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, optimizer, 4, callbacks=[EarlyStopping()])
    os.remove(tmp_path / "step-00000004" / "training.safetensors")  # not even looked at
    other, _ = made(seed=1)
    before = shared.get_rng_state().tolist()
    assert load_checkpoint(tmp_path, other) == 4
    assert numbers(other.state_dict()) == numbers(model.state_dict()) and shared.get_rng_state().tolist() == before


def test_a_model_alone_can_be_saved(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, None, 1)
    load_checkpoint(tmp_path, made(1)[0])
    with pytest.raises(ValueError, match="written with optimizer None, but this training has optimizer AdamW"):
        load_checkpoint(tmp_path, model, optimizer)


# ---------------------------------------------------------------- which stay, which is taken


def save_values(folder, values, **options):
    model, optimizer = made()
    for step, value in enumerate(values, start=1):
        save_checkpoint(folder, model, optimizer, step, value=value, **options)
    return model, optimizer


@pytest.mark.parametrize(
    ("values", "keep_last", "left", "best"),
    [
        ([4, 3, 2, 1], 2, [3, 4], 4),
        ([1, 2, 3, 4], 2, [1, 3, 4], 1),
        ([3, 1, 1, 2, 4], 1, [2, 5], 2),
        ([None, 2, math.nan, None, math.inf], 1, [2, 5], 2),
        ([None] * 3, 1, [3], None),
        ([3, 2, 1], None, [1, 2, 3], 3),
    ],
)
def test_the_last_and_the_best_stay(tmp_path, values, keep_last, left, best):
    save_values(tmp_path, values, keep_last=keep_last)
    assert steps(tmp_path) == [f"step-{step:08d}" for step in left]
    assert find_checkpoint(tmp_path).name == f"step-{len(values):08d}"
    if best is None:
        with pytest.raises(ValueError, match="saved with a value, so none is the best"):
            find_checkpoint(tmp_path, "best")
    else:
        assert load_checkpoint(tmp_path, made()[0], which="best") == best


def test_steps_of_more_digits_come_after_those_of_fewer(tmp_path):
    model, optimizer = made()
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, model, optimizer, step)
    assert load_checkpoint(tmp_path, model) == 100_000_000


def test_a_training_that_goes_back_counts_its_new_checkpoints_as_the_last(tmp_path):
    model, optimizer = save_values(tmp_path, [1, 2, 3])
    load_checkpoint(tmp_path, model, optimizer, which="best")
    save_checkpoint(tmp_path, model, optimizer, 2, value=0.5)
    assert load_checkpoint(tmp_path, model) == 2, "the one written last, though step 3 is there"
    assert steps(tmp_path) == ["step-00000002", "step-00000003"]


def test_the_same_step_again_takes_the_place_of_the_old(tmp_path):
    model, optimizer = save_values(tmp_path, [1, 2])
    save_checkpoint(tmp_path, model, optimizer, 2, value=7.0)
    assert steps(tmp_path) == ["step-00000001", "step-00000002"] and checkpoint_info(tmp_path)["value"] == 7.0


def test_a_checkpoints_own_folder_may_be_given(tmp_path):
    model, optimizer = save_values(tmp_path, [1, 2])
    assert load_checkpoint(tmp_path / "step-00000001", model, optimizer) == 1
    (tmp_path / "step-00000002").rename(tmp_path / "kept")
    assert load_checkpoint(tmp_path / "kept", model, optimizer) == 2
    for name in ("step-00000001", "kept"):
        with pytest.raises(FileExistsError, match="this is one checkpoint; give the folder around it"):
            save_checkpoint(tmp_path / name, model, optimizer, 3)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "step-00000007").mkdir()  # not one of ours: nothing in it
    (tmp_path / "notes.txt").write_text("mine")
    save_values(tmp_path, [1, 2, 3], keep_last=1)
    assert steps(tmp_path) == ["notes.txt", "step-00000001", "step-00000003", "step-00000007"]


def test_where_there_is_none(tmp_path):
    model, _ = made()
    for folder in (tmp_path, tmp_path / "nothing"):
        assert find_checkpoint(folder) is None
        with pytest.raises(FileNotFoundError, match="there is no checkpoint in this folder"):
            load_checkpoint(folder, model)


@pytest.mark.parametrize("step", [-1, 1.5, True, None])
def test_a_step_is_a_number(tmp_path, step):
    with pytest.raises(ValueError, match="step should be an int of at least 0"):
        save_checkpoint(tmp_path, *made(), step)
    with pytest.raises(ValueError, match="keep_last should be None or at least 1"):
        save_checkpoint(tmp_path, *made(), 1, keep_last=0)


# ---------------------------------------------------------------- damaged and foreign ones


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": (truncate, "is truncated: it has .* bytes, and .* were written|is damaged: it is not JSON"),
    "longer": (
        lambda path: path.write_bytes(path.read_bytes() + b" "),
        "is changed: it has .* bytes, and .* were written",
    ),
    "a bit": (flip, "is not the file that was written|not JSON|has no|lacks|truncated|changed"),
    "missing": (os.remove, "is missing"),
    "empty": (lambda path: path.write_bytes(b""), "is truncated: it has 0 bytes|not JSON"),
    "list": (lambda path: path.write_text("[]"), "was not written by save_checkpoint|is truncated"),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_with_the_intact_one_before(tmp_path, damage, file):
    save_values(tmp_path, [3, 2, 1], keep_last=3)
    spoil, message = DAMAGE[damage]
    if (damage, file) == ("longer", "manifest.json"):
        pytest.skip("a space at its end changes nothing")
    spoil(tmp_path / "step-00000003" / file)
    truncate(tmp_path / "step-00000002" / "training.safetensors")
    model, optimizer = made(seed=1)
    before = numbers([model.state_dict(), optimizer.state_dict()]), shared.get_rng_state().tolist()
    with pytest.raises(CheckpointError) as found:
        load_checkpoint(tmp_path, model, optimizer)
    text = str(found.value)
    assert str(tmp_path / "step-00000003") in text and file in text and re.search(message, text), text
    assert f"The newest intact checkpoint is {tmp_path / 'step-00000001'}: load it by this name" in text
    assert (numbers([model.state_dict(), optimizer.state_dict()]), shared.get_rng_state().tolist()) == before
    assert load_checkpoint(tmp_path / "step-00000001", model, optimizer) == 1


def test_no_intact_one(tmp_path):
    model, optimizer = save_values(tmp_path, [1])
    flip(tmp_path / "step-00000001" / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"No other checkpoint in {tmp_path} is intact"):
        load_checkpoint(tmp_path / "step-00000001", model, optimizer)


@pytest.mark.parametrize("file", FILES[1:])
def test_a_file_of_another_checkpoint_is_noticed(tmp_path, file):
    save_checkpoint(tmp_path, *made(0), 1)
    model, optimizer = made(1)
    save_checkpoint(tmp_path, model, optimizer, 2)
    shutil.copy(tmp_path / "step-00000001" / file, tmp_path / "step-00000002" / file)
    with pytest.raises(CheckpointError, match=f"{tmp_path}/step-00000002/{file} is "):
        load_checkpoint(tmp_path, model, optimizer)


def test_a_number_that_was_edited_is_noticed(tmp_path):
    model, optimizer = save_values(tmp_path, [1.5])
    file = tmp_path / "step-00000001" / "state.json"
    file.write_text(file.read_text().replace('"value": 1.5', '"value": 0.5'))
    with pytest.raises(CheckpointError, match="state.json is not the file that was written: it is damaged, was edited"):
        load_checkpoint(tmp_path, model, optimizer)


@pytest.mark.parametrize("number", ["1", '"two"', "null", "[3]"])
def test_a_number_that_makes_an_older_one_seem_the_last_is_noticed(tmp_path, number):
    """Which comes last, state.json says; to go on from an older checkpoint is a decision, and not taken in silence."""
    save_values(tmp_path, [5, 4, 3], keep_last=3)
    state = tmp_path / "step-00000003" / "state.json"
    text = state.read_text()
    assert '"number": 3' in text
    state.write_text(text.replace('"number": 3', f'"number": {number}'))
    with pytest.raises(CheckpointError, match=r"step-00000003/state.json is (not the file|changed|truncated)"):
        load_checkpoint(tmp_path, *made())
    assert find_checkpoint(tmp_path, "best").name == "step-00000002"


def test_a_renamed_one_is_noticed(tmp_path):
    model, optimizer = save_values(tmp_path, [1])
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000009")
    with pytest.raises(CheckpointError, match="has the checkpoint of step 1: it was renamed, call it step-00000001"):
        load_checkpoint(tmp_path, model, optimizer)


def test_a_newer_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.training.resume.VERSION", 99)
    model, optimizer = save_values(tmp_path, [1])
    with pytest.raises(CheckpointError, match="written by a newer version of this library"):
        load_checkpoint(tmp_path, model, optimizer)


def test_a_single_file_is_named_for_what_it_is(tmp_path):
    model, optimizer = made()
    old = {"training": 1, "epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    shared.checkpoint.save(old, tmp_path / "old")
    (tmp_path / "text").write_text("some text")
    for name, message in (
        ("old", "is a checkpoint of an earlier version, in a single file"),
        ("text", "is a file, but a checkpoint is a folder"),
    ):
        with pytest.raises(CheckpointError, match=f"{tmp_path / name} {message}"):
            load_checkpoint(tmp_path / name, model, optimizer)
        with pytest.raises(NotADirectoryError, match="this is a file, and checkpoints need a folder"):
            save_checkpoint(tmp_path / name, model, optimizer, 1)
    assert (tmp_path / "text").read_text() == "some text"


class Spoilt:
    """Its state cannot be loaded again."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        raise KeyError("spoilt")


@pytest.mark.parametrize("last", ["data", "model"])
def test_a_load_that_fails_leaves_everything_as_it_was(tmp_path, last):
    def parts(seed):
        model, optimizer = made(seed)
        scheduler = shared.optim.lr_scheduler.StepLR(optimizer, 1, gamma=1 / (seed + 2))
        g = shared.Generator().manual_seed(seed)
        return model, optimizer, scheduler, History(lr=[seed]), Scaler(seed), g

    def state(model, optimizer, scheduler, history, scaler, g):
        states = [part.state_dict() for part in (model, optimizer, scheduler, scaler)]
        return numbers([*states, dict(history), g.get_state(), shared.get_rng_state()])

    def options(parts):
        data = [parts[5], Spoilt()] if last == "data" else [parts[5]]
        return {"scheduler": parts[2], "history": parts[3], "scaler": parts[4], "data": data}

    saved, given = parts(0), parts(1)
    save_checkpoint(tmp_path, saved[0], saved[1], 1, **options(saved))
    model = given[0] if last == "data" else nn.Linear(2, 2)
    given = (model, *given[1:])
    before = state(*given)
    with pytest.raises(KeyError if last == "data" else RuntimeError, match="spoilt|Missing key"):
        load_checkpoint(tmp_path, model, given[1], **options(given))
    after = state(*given)
    for name, a, b in zip(
        "model optimizer scheduler scaler history generator random".split(), after, before, strict=True
    ):
        assert a == b, name


@pytest.mark.stress
@pytest.mark.parametrize("file", FILES)
def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path, file):
    model, optimizer = save_values(tmp_path, [1])
    path, rng = tmp_path / "step-00000001" / file, np.random.default_rng(0)
    whole, noticed, expected = path.read_bytes(), 0, numbers([model.state_dict(), optimizer.state_dict()])
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            load_checkpoint(tmp_path, model, optimizer)
        except CheckpointError as error:
            assert file in str(error) and str(tmp_path) in str(error)
            noticed += 1
        assert numbers([model.state_dict(), optimizer.state_dict()]) == expected
    assert noticed == len(whole) or file == "manifest.json" and noticed > len(whole) / 2, "spaces may become tabs there"
