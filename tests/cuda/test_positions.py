"""Positions, rotations and filled-up batches on the GPU, or on the stand-in of CuPy: as on the CPU."""

from contextlib import nullcontext

import numpy as np
import pytest

import shared
from shared import nn
from shared.nn import functional as F
from shared.text import CharVocabulary, PadCollate
from tests.cuda.stand_in import in_place_of_cupy
from tests.ops.running import numpy_of


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request):
    """The device "cuda", real or not."""
    with in_place_of_cupy() if request.param == "stand-in" else nullcontext():
        yield "cuda"


def same_on(device, call, *shapes):
    """Values and gradients of `call(device, *tensors)`, there and on the CPU."""
    arrays = [np.random.default_rng(i).standard_normal(shape).astype("float32") for i, shape in enumerate(shapes)]
    found = []
    for place in (device, "cpu"):
        shared.manual_seed(0)
        xs = [shared.from_numpy(a.copy()).to(place).requires_grad_() for a in arrays]
        y = call(place, *xs)
        assert y.device == place
        (y * y).sum().backward()
        assert all(x.grad.device == place for x in xs)
        found.append([numpy_of(a) for a in (y, *(x.grad for x in xs))])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotations(cuda, interleaved):
    def rotated(device, x):
        cos, sin = F.rotary_tables(5, 8, device=device)
        assert cos.device == device
        return F.apply_rotary(x, cos, sin, interleaved)

    same_on(cuda, rotated, (2, 5, 8))


def test_rotations_at_positions_of_ones_own(cuda):
    def rotated(device, x):
        positions = shared.tensor([3, 1, 4], device=device)
        return F.apply_rotary(x, *F.rotary_tables(positions, 4))

    same_on(cuda, rotated, (2, 3, 4))


@pytest.mark.parametrize("kind", [nn.PositionalEncoding, nn.LearnedPositionalEncoding])
def test_positions_are_added(cuda, kind):
    shared.manual_seed(0)
    layer = kind(6, 0.0, 9)
    same_on(cuda, lambda device, x: layer.to(device)(x), (2, 5, 6))
    assert kind(6, max_len=9, device=cuda).table().device == cuda


def test_sequences_are_filled_up(cuda):
    same_on(cuda, lambda _, *xs: nn.utils.rnn.pad_sequence(xs, True, 2.0, "left"), (2, 3), (4, 3), (0, 3))
    with pytest.raises(RuntimeError, match="pad_sequence: expected all tensors on the same device"):
        nn.utils.rnn.pad_sequence([shared.ones(1), shared.ones(1, device=cuda)])


def test_ids_from_the_gpu_become_text(cuda):
    vocabulary = CharVocabulary.from_text("abc")
    assert vocabulary.decode(shared.tensor([2, 0], device=cuda)) == "ca"
    ids = [shared.tensor(vocabulary.encode(t), device=cuda) for t in ("ab", "c")]
    assert PadCollate(2)(ids).tolist() == [[0, 1], [2, 2]]
