"""Transforms: hand-made examples, PyTorch's sampler as oracle for the geometry, both image layouts, seeds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.data import transforms as T
from shared.data import warp

quick = settings(max_examples=50)

RAMP = np.arange(9, dtype=np.uint8).reshape(3, 3)
IMAGE = np.random.RandomState(0).randint(0, 256, (5, 7)).astype(np.uint8)
COLOUR = np.random.RandomState(1).randint(0, 256, (5, 7, 3)).astype(np.uint8)


def test_to_tensor_puts_channels_first_and_scales_uint8():
    tensor = T.ToTensor()(COLOUR)
    assert tensor.shape == (3, 5, 7) and tensor.dtype == shared.float32 and tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.numpy(), COLOUR.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert T.ToTensor()(IMAGE).shape == (1, 5, 7)


def test_to_tensor_leaves_other_dtypes_and_the_original_alone():
    image = np.array([[0.5, 300.0]])
    tensor = T.ToTensor()(image)
    assert tensor.dtype == shared.float64 and tensor.tolist() == [[[0.5, 300.0]]]
    tensor.array[...] = 0
    assert image[0, 1] == 300.0


def test_to_tensor_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"2 or 3 dimensions.*\(4,\)"):
        T.ToTensor()(np.zeros(4))


def test_normalize_by_hand():
    image = shared.tensor([[[1.0, 3.0]], [[10.0, 20.0]]])
    assert T.Normalize((1, 10), (2, 5))(image).tolist() == [[[0, 1]], [[0, 2]]]
    assert image.tolist() == [[[1, 3]], [[10, 20]]]
    batch = T.Normalize(0.5, 0.5)(shared.ones(4, 1, 2, 2))
    assert batch.shape == (4, 1, 2, 2) and batch.dtype == shared.float32 and batch.max().item() == 1


def test_normalize_in_place():
    image = shared.ones(1, 2, 2)
    assert T.Normalize((0.5,), (0.25,), inplace=True)(image) is image and image.tolist() == [[[2, 2], [2, 2]]]


@pytest.mark.parametrize(
    "image, mean, std, kind, message",
    [
        (IMAGE, (0.5,), (0.5,), TypeError, "Normalize takes a Tensor, but got ndarray: put ToTensor"),
        (shared.zeros(1, 2, 2, dtype=shared.uint8), (0.5,), (0.5,), TypeError, "float Tensor, but got uint8"),
        (shared.zeros(1, 2, 2), (0.5,), (0.0,), ValueError, "std has a zero"),
        (
            shared.zeros(3, 2, 2),
            (0.5, 0.5),
            (0.5, 0.5),
            ValueError,
            r"one mean and std for each channel.*\(3, 2, 2\)",
        ),
        (shared.zeros(2, 2), (0.5,), (0.5,), ValueError, "C, H, W"),
    ],
)
def test_normalize_says_what_is_wrong(image, mean, std, kind, message):
    with pytest.raises(kind, match=message):
        T.Normalize(mean, std)(image)


def test_compose_and_lambda():
    change = T.Compose([T.Lambda(lambda x: x + 1), T.Lambda(lambda x: x * 2)])
    assert change(3) == 8
    with pytest.raises(TypeError, match="should be callable"):
        T.Lambda(3)


def test_flip_mirrors_with_its_probability():
    assert T.RandomHorizontalFlip(1.0)(RAMP).tolist() == RAMP[:, ::-1].tolist()
    assert T.RandomHorizontalFlip(0.0)(RAMP) is RAMP
    shared.manual_seed(0)
    flip = T.RandomHorizontalFlip()
    flipped = sum(flip(RAMP)[0, 0] == 2 for _ in range(1000))
    assert 420 < flipped < 580  # 500 ± 5 standard deviations


def test_crop_is_a_window_of_the_padded_image_and_reaches_every_place():
    shared.manual_seed(0)
    crop = T.RandomCrop(2)
    corners = {int(crop(RAMP)[0, 0]) for _ in range(200)}
    assert corners == {0, 1, 3, 4}
    window = T.RandomCrop((2, 3))(RAMP)
    assert window.tolist() in [RAMP[:2].tolist(), RAMP[1:].tolist()]
    padded = T.RandomCrop(7, padding=2, fill=9)(RAMP)
    assert padded.tolist() == np.pad(RAMP, 2, constant_values=9).tolist()
    sides = T.RandomCrop((3 + 2 + 4, 3 + 1 + 3), padding=(1, 2, 3, 4))(RAMP)
    assert sides.tolist() == np.pad(RAMP, ((2, 4), (1, 3))).tolist()
    assert T.RandomCrop(5, padding=1, padding_mode="reflect")(RAMP).tolist() == np.pad(RAMP, 1, "reflect").tolist()


def test_crop_pads_only_if_asked():
    with pytest.raises(ValueError, match=r"Required crop size \(4, 4\) is larger than input image size \(3, 3\)"):
        T.RandomCrop(4)(RAMP)
    assert T.RandomCrop(4, pad_if_needed=True)(RAMP).shape == (4, 4)


@pytest.mark.parametrize("angle, turns", [(90, 1), (180, 2), (-90, -1), (0, 0)])
def test_rotation_is_counter_clockwise(angle, turns):
    assert T.RandomRotation((angle, angle))(RAMP).tolist() == np.rot90(RAMP, turns).tolist()


def test_rotation_can_expand():
    assert T.RandomRotation((90, 90), expand=True)(IMAGE).tolist() == np.rot90(IMAGE).tolist()
    height, width = T.RandomRotation((30, 30), expand=True)(np.zeros((10, 20), np.uint8)).shape
    radians = math.radians(30)
    assert width == math.ceil(20 * math.cos(radians) + 10 * math.sin(radians))
    assert height == math.ceil(10 * math.cos(radians) + 20 * math.sin(radians))


def test_translation_moves_by_whole_pixels_and_fills():
    shared.manual_seed(0)
    shift = T.RandomAffine(0, translate=(0.4, 0), fill=7)
    seen = {tuple(shift(RAMP)[0].tolist()) for _ in range(100)}
    assert seen == {(0, 1, 2), (7, 0, 1), (1, 2, 7)}


def test_scaling_by_two_shows_the_middle():
    image = np.zeros((4, 4), np.uint8)
    image[1:3, 1:3] = [[1, 2], [3, 4]]
    expected = np.kron([[1, 2], [3, 4]], np.ones((2, 2)))
    assert T.RandomAffine(0, scale=(2, 2))(image).tolist() == expected.tolist()


def torch_warp(planes, matrix, size, mode, fill=0.0):
    """The same reading by PyTorch's grid_sample."""
    torch = pytest.importorskip("torch")
    height, width = planes.shape[-2:]
    y, x = np.indices(size, dtype=float)
    here = np.stack([x - (size[1] - 1) / 2, y - (size[0] - 1) / 2, np.ones(size)])
    there = np.tensordot(matrix, here, axes=1) / np.array([width / 2, height / 2]).reshape(2, 1, 1)
    grid = torch.from_numpy(np.moveaxis(there, 0, -1))[None]
    image = torch.from_numpy(planes.astype(np.float64) - fill).reshape(1, -1, height, width)
    out = torch.nn.functional.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return (out.numpy() + fill).reshape(planes.shape[:-2] + tuple(size))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@quick
@given(
    st.floats(-180, 180),
    st.floats(0.5, 2),
    st.floats(-30, 30),
    st.floats(-3, 3),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_reading_through_a_matrix_agrees_with_grid_sample(mode, angle, factor, shear, shift, height, width):
    matrix = warp.inverse_affine_matrix(angle, (shift, -shift), factor, (shear, -shear / 2), (0.5, -0.5))
    planes = np.random.RandomState(2).rand(2, height, width)
    y, x = np.indices((4, 5), dtype=float)
    there = np.tensordot(matrix, np.stack([x - 2, y - 1.5, np.ones((4, 5))]), axes=1)
    pixel = there + np.array([(width - 1) / 2, (height - 1) / 2]).reshape(2, 1, 1)
    tie = (np.abs(pixel - np.floor(pixel) - 0.5) < 1e-6).any(axis=0)  # where rounding decides, either may be right
    ours = warp.warp(planes, matrix, (4, 5), mode, fill=0.25)
    expected = torch_warp(planes, matrix, (4, 5), mode, fill=0.25)
    good = ~tie if mode == "nearest" else np.ones((4, 5), bool)
    np.testing.assert_allclose(ours[:, good], expected[:, good], atol=1e-9)


@quick
@given(st.floats(-360, 360), st.floats(-5, 5), st.floats(-5, 5))
def test_the_rotation_matrix_is_the_affine_one_turned_the_other_way(angle, x, y):
    expected = warp.inverse_affine_matrix(-angle, (0, 0), 1.0, (0.0, 0.0), (x, y))
    np.testing.assert_allclose(warp.inverse_rotation_matrix(angle, (x, y)), expected, atol=1e-12)


@quick
@given(st.floats(-180, 180), st.floats(0.5, 2), st.floats(-40, 40), st.floats(-40, 40), st.floats(-5, 5))
def test_the_matrix_undoes_shear_scale_rotation_and_shift(angle, factor, shear_x, shear_y, shift):
    center = np.array([1.5, -2.0])
    inverse = warp.inverse_affine_matrix(angle, (shift, 2.0), factor, (shear_x, shear_y), center)
    rot, tan_x, tan_y = math.radians(angle), math.tan(math.radians(shear_x)), math.tan(math.radians(shear_y))
    rotation = np.array([[math.cos(rot), -math.sin(rot)], [math.sin(rot), math.cos(rot)]])
    forward = factor * rotation @ np.array([[1, 0], [-tan_y, 1]]) @ np.array([[1, -tan_x], [0, 1]])
    point = np.array([3.0, 4.0])
    moved = forward @ (point - center) + center + [shift, 2.0]
    np.testing.assert_allclose(inverse @ [*moved, 1], point, atol=1e-9)


ALL = [
    T.RandomRotation(30, interpolation="bilinear"),
    T.RandomRotation(30, expand=True),
    T.RandomAffine(20, translate=(0.2, 0.2), scale=(0.8, 1.2), shear=10),
    T.RandomAffine(20, shear=(-5, 5, -5, 5), interpolation=T.InterpolationMode.BILINEAR, fill=3),
    T.RandomCrop(4, padding=1),
    T.RandomHorizontalFlip(),
]


@pytest.mark.parametrize("change", ALL, ids=repr)
def test_manual_seed_fixes_random_transforms_and_they_vary(change):
    def run(seed):
        shared.manual_seed(seed)
        return [change(IMAGE).tolist() for _ in range(6)]

    assert run(1) == run(1)
    assert len({str(image) for image in run(1)}) > 1


@pytest.mark.parametrize("change", ALL, ids=repr)
def test_grey_colour_and_tensor_images_change_alike(change):
    def run(image):
        shared.manual_seed(3)
        return change(image)

    colour = run(COLOUR)
    planes = run(shared.tensor(np.ascontiguousarray(COLOUR.transpose(2, 0, 1))))
    assert colour.dtype == np.uint8 and planes.dtype == shared.uint8 and colour.flags.c_contiguous
    for channel in range(3):
        grey = run(np.ascontiguousarray(COLOUR[:, :, channel]))
        assert colour[:, :, channel].tolist() == grey.tolist() == planes[channel].tolist()


@pytest.mark.parametrize("change", ALL, ids=repr)
def test_the_original_is_left_alone(change):
    before = IMAGE.copy()
    shared.manual_seed(0)
    for _ in range(3):
        change(IMAGE)
    assert (before == IMAGE).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: T.RandomRotation(-3), "must be positive"),
        (lambda: T.RandomRotation((1, 2, 3)), "a number or a pair"),
        (lambda: T.RandomAffine(0, translate=(2, 0)), "between 0 and 1"),
        (lambda: T.RandomAffine(0, scale=(0, 1)), "should be positive"),
        (lambda: T.RandomCrop(2, padding_mode="mirror"), "padding_mode"),
        (lambda: T.RandomCrop(2, padding=(1, 2, 3))(RAMP), "1, 2, or 4 element"),
        (lambda: T.RandomHorizontalFlip(1)(np.zeros(3)) is T.RandomCrop(1)(np.zeros(3)), "expected an image"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_transform_prints_what_it_is():
    change = T.Compose([T.RandomAffine(10, scale=(0.9, 1.1)), T.ToTensor(), T.Normalize((0.5,), (0.5,))])
    assert repr(change) == (
        "Compose(\n    RandomAffine(degrees=(-10.0, 10.0), scale=(0.9, 1.1))\n    ToTensor()\n"
        "    Normalize(mean=(0.5,), std=(0.5,))\n)"
    )
    assert repr(T.RandomRotation(5)) == (
        "RandomRotation(degrees=(-5.0, 5.0), interpolation=nearest, expand=False, fill=0)"
    )
    assert repr(T.RandomCrop(28, padding=2)) == "RandomCrop(size=(28, 28), padding=2)"
    assert repr(T.Lambda(abs)) == "Lambda()"
