"""What a sample does to a patch, against numpy slicing, scipy and batchgenerators."""

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.color_augmentations import augment_contrast, augment_gamma
from scipy import ndimage

from autoseg.training.augmentation import apply_intensities, cut_patch
from autoseg.training.sampling import Intensity, Sample, compute_touched_box

torch.set_num_threads(1)
OFF = {"noise_std": None, "blur_sigma": None, "brightness": None, "contrast": None, "low_resolution": None}
NOTHING = Intensity(**OFF, inverted_gamma=None, gamma=None)
BACKGROUND = (-1.5, 4.0)


def make_sample(centre, matrix, identity, patch, shape, flips=(), intensity=NOTHING, seed=0) -> Sample:
    box = compute_touched_box(centre, matrix, patch, shape)
    return Sample("A", None, centre, matrix, identity, flips, box, BACKGROUND, intensity, seed)


def cut(image: np.ndarray, label: np.ndarray, sample: Sample, patch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """cut_patch on the part of whole arrays that the sample's box asks for."""
    place = tuple(slice(low, high) for low, high in sample.box)
    parts = cut_patch(torch.from_numpy(image[(slice(None), *place)]), torch.from_numpy(label[place]), sample, patch)
    return parts[0].numpy(), parts[1].numpy()


def make_arrays(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 3, (2, *shape)).astype(np.float32), generator.integers(-1, 4, shape).astype(np.int16)


@pytest.mark.parametrize("shape", [(12, 13, 14), (5, 13, 4), (9, 10), (3, 10)])
@pytest.mark.parametrize("start", [0, 2, -2])
def test_without_rotation_a_patch_is_a_slice_padded_with_the_images_background(shape, start):
    image, label = make_arrays(shape)
    patch = (6, 7, 8)[: len(shape)]
    centre = tuple(start + (edge - 1) / 2 for edge in patch)
    got, got_label = cut(image, label, make_sample(centre, np.eye(len(shape)), True, patch, shape), patch)
    for index in np.ndindex(patch):
        there = tuple(start + offset for offset in index)
        inside = all(0 <= position < size for position, size in zip(there, shape))
        expected = image[(slice(None), *there)] if inside else BACKGROUND
        np.testing.assert_allclose(got[(slice(None), *index)], expected, atol=2e-6)
        assert got_label[index] == (label[there] if inside else 0)


def turn(degrees: float, dimension: int) -> np.ndarray:
    """A rotation in every plane and a zoom."""
    angle, matrix = np.deg2rad(degrees), np.eye(dimension)
    for a, b in [(0, 1)] if dimension == 2 else [(0, 1), (1, 2), (0, 2)]:
        plane = np.eye(dimension)
        plane[a, a] = plane[b, b] = np.cos(angle)
        plane[a, b], plane[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ plane
    return matrix * 1.17


@pytest.mark.parametrize("shape", [(20, 21, 22), (6, 9, 8), (25, 24), (6, 7)])
@pytest.mark.parametrize("degrees", [20.0, -75.0])
def test_a_rotated_patch_equals_scipys_interpolation_with_the_background_around(shape, degrees):
    image, label = make_arrays(shape, 1)
    patch = (7, 8, 9)[: len(shape)]
    matrix = turn(degrees, len(shape))
    centre = tuple((size - 1) / 2 + 0.3 * (axis + 1) for axis, size in enumerate(shape))
    got, got_label = cut(image, label, make_sample(centre, matrix, False, patch, shape), patch)
    offsets = np.stack(np.meshgrid(*[np.arange(edge) - (edge - 1) / 2 for edge in patch], indexing="ij"))
    positions = np.tensordot(matrix, offsets, axes=1) + np.array(centre).reshape(-1, *(1,) * len(shape))
    for channel in range(2):
        expected = ndimage.map_coordinates(
            image[channel].astype(np.float64), positions, order=1, mode="grid-constant", cval=BACKGROUND[channel]
        )
        np.testing.assert_allclose(got[channel], expected, atol=1e-4)
    nearest = np.rint(positions).astype(int)
    inside = np.all([(index >= 0) & (index < size) for index, size in zip(nearest, shape)], axis=0)
    expected_label = np.where(inside, label[tuple(np.clip(index, 0, size - 1) for index, size in zip(nearest, shape))], 0)
    certain = np.all(np.abs(positions - np.floor(positions) - 0.5) > 1e-3, axis=0)
    assert np.array_equal(got_label[certain], expected_label[certain])


def test_the_ignored_value_stays_ignored_in_a_rotated_patch():
    image, label = np.zeros((2, 10, 10), np.float32), np.full((10, 10), -1, np.int16)
    _, got = cut(image, label, make_sample((4.5, 4.5), turn(10, 2), False, (4, 4), (10, 10)), (4, 4))
    assert (got == -1).all()


def test_labels_are_never_mixed():
    label = np.where(np.arange(20)[:, None] < 10, 1, 40).repeat(20, axis=1).astype(np.int16)
    _, got = cut(np.zeros((2, 20, 20), np.float32), label, make_sample((9.3, 9.7), turn(33, 2), False, (12, 12), (20, 20)), (12, 12))
    assert set(np.unique(got)) == {1, 40}


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("flips", [(0,), (2,), (0, 1, 2)])
def test_flips_turn_image_and_label_alike(identity, flips):
    shape, patch = (12, 13, 14), (6, 6, 6)
    image, label = make_arrays(shape, 2)
    matrix = np.eye(3) if identity else turn(15, 3)
    plain = cut(image, label, make_sample((5.5,) * 3, matrix, identity, patch, shape), patch)
    flipped = cut(image, label, make_sample((5.5,) * 3, matrix, identity, patch, shape, flips), patch)
    assert np.array_equal(flipped[0], np.flip(plain[0], [axis + 1 for axis in flips]))
    assert np.array_equal(flipped[1], np.flip(plain[1], flips))


def change(image: np.ndarray, seed: int = 0, **drawn: float) -> np.ndarray:
    """One image through apply_intensities."""
    intensity = Intensity(**{**OFF, "inverted_gamma": None, "gamma": None, **drawn})
    dimension = image.ndim - 1
    sample = make_sample((0.0,) * dimension, np.eye(dimension), True, image.shape[1:], image.shape[1:], (), intensity, seed)
    return apply_intensities(torch.from_numpy(image)[None], [sample])[0].numpy()


@pytest.fixture(params=[(2, 9, 10, 11), (2, 14, 15)], ids=["3d", "2d"])
def picture(request) -> np.ndarray:
    return np.random.default_rng(5).gamma(2.0, 1.5, request.param).astype(np.float32) - 2


def test_nothing_drawn_changes_nothing(picture):
    assert np.array_equal(change(picture), picture)


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_contrast_is_that_of_batchgenerators(picture, factor):
    expected = augment_contrast(picture.astype(np.float64), contrast_range=lambda: factor, preserve_range=True, per_channel=True)
    np.testing.assert_allclose(change(picture, contrast=factor), expected, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.7, 1.5])
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_is_that_of_batchgenerators(picture, gamma, inverted, monkeypatch):
    monkeypatch.setattr(np.random, "uniform", lambda *limits: gamma)
    expected = augment_gamma(picture.astype(np.float64), (gamma, gamma), invert_image=inverted, per_channel=True, retain_stats=True)
    got = change(picture, **{"inverted_gamma" if inverted else "gamma": gamma})
    np.testing.assert_allclose(got, expected, atol=2e-4)
    axes = tuple(range(1, picture.ndim))
    np.testing.assert_allclose(got.mean(axes), picture.mean(axes), atol=1e-4)
    np.testing.assert_allclose(got.std(axes), picture.std(axes), rtol=1e-4)


def test_a_constant_channel_survives_every_change():
    image = np.full((2, 6, 6), 3.0, np.float32)
    got = change(image, blur_sigma=0.8, brightness=1.0, contrast=1.2, low_resolution=0.6, inverted_gamma=0.7, gamma=1.4)
    np.testing.assert_allclose(got, image, rtol=1e-5)


def test_brightness_multiplies(picture):
    np.testing.assert_allclose(change(picture, brightness=1.2), picture * 1.2, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_blur_is_scipys_gaussian_with_edges_replicated(picture, sigma):
    expected = np.stack([ndimage.gaussian_filter(channel.astype(np.float64), sigma, mode="nearest", radius=3) for channel in picture])
    np.testing.assert_allclose(change(picture, blur_sigma=sigma), expected, atol=1e-5)


@pytest.mark.parametrize("zoom", [0.5, 0.77, 1.0])
def test_low_resolution_is_nearest_down_and_linear_up(picture, zoom):
    expected = picture.astype(np.float64)
    for axis in range(1, picture.ndim):
        size = picture.shape[axis]
        small = max(1, round(size * zoom))
        shrunk = expected.take(np.minimum(np.floor((np.arange(small) + 0.5) * size / small).astype(int), size - 1), axis=axis)
        positions = (np.arange(size) + 0.5) * small / size - 0.5
        expected = np.apply_along_axis(lambda line, at=positions, n=small: np.interp(at, np.arange(n), line), axis, shrunk)
    np.testing.assert_allclose(change(picture, low_resolution=zoom), expected, atol=1e-4)


def test_noise_has_its_deviation_and_depends_on_the_seed_alone():
    image = np.zeros((1, 40, 40, 40), np.float32)
    one = change(image, seed=1, noise_std=0.1)
    assert one.std() == pytest.approx(0.1, rel=0.02)
    assert one.mean() == pytest.approx(0, abs=0.002)
    assert np.array_equal(one, change(image, seed=1, noise_std=0.1))
    assert not np.array_equal(one, change(image, seed=2, noise_std=0.1))


def test_each_image_of_a_batch_gets_its_own_change(picture):
    samples = [
        make_sample((0.0,), np.eye(1), True, (1,), (1,), (), Intensity(**{**OFF, "brightness": factor}, inverted_gamma=None, gamma=None))
        for factor in (0.5, None)
    ]
    got = apply_intensities(torch.from_numpy(np.stack([picture, picture])), samples).numpy()
    np.testing.assert_allclose(got[0], picture * 0.5)
    assert np.array_equal(got[1], picture)
