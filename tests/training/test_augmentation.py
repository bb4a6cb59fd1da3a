"""What drawn intensity changes do to a batch, against scipy and batchgenerators."""

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.color_augmentations import augment_contrast, augment_gamma
from builders import NOTHING
from scipy import ndimage

from autoseg.training.augmentation import apply_changes, collect_changes
from autoseg.training.recipe import Intensity, Streaks
from autoseg.training.sampling import Sample

torch.set_num_threads(1)
BACKGROUND = (-1.5, 4.0)


def make_sample(intensity: Intensity, dimension: int, channels: int = 2, seed: int = 0) -> Sample:
    still = np.eye(dimension)
    return Sample("A", None, (0.0,) * dimension, still, None, True, (), ((0, 1),) * dimension, BACKGROUND[:channels], intensity, seed)


def draw(channels: int = 2, **drawn) -> Intensity:
    """NOTHING but what is given: a number serves for all channels."""
    values = {}
    for name, value in drawn.items():
        before = getattr(NOTHING, name)
        values[name] = (
            np.broadcast_to(np.asarray(value, float).reshape(-1, *(1,) * (before.ndim - 1)), (channels, *before.shape[1:]))
            if isinstance(before, np.ndarray)
            else value
        )
    whole = {
        name: getattr(NOTHING, name)[:channels] if isinstance(getattr(NOTHING, name), np.ndarray) else getattr(NOTHING, name)
        for name in vars(NOTHING)
    }
    return Intensity(**{**whole, **values})


def change(image: np.ndarray, seed: int = 0, **drawn) -> np.ndarray:
    """One image (channel, …) through all that changes a batch."""
    sample = make_sample(draw(len(image), **drawn), image.ndim - 1, len(image), seed)
    return apply_changes(torch.from_numpy(image.copy())[None], collect_changes([sample], image.shape[1:]))[0].numpy()


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
    got = change(image, blur=0.8, contrast=1.2, zoom=0.6, inverted_gamma=0.7, gamma=1.4)
    np.testing.assert_allclose(got, image, rtol=1e-5)


def test_brightness_multiplies(picture):
    np.testing.assert_allclose(change(picture, brightness=1.2), picture * 1.2, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_blur_is_scipys_gaussian_with_edges_replicated(picture, sigma):
    expected = np.stack(
        [ndimage.gaussian_filter(c.astype(np.float64), sigma, mode="nearest", radius=round(3 * sigma + 0.4)) for c in picture]
    )
    np.testing.assert_allclose(change(picture, blur=sigma), expected, atol=1e-5)


@pytest.mark.parametrize("zoom", [0.5, 0.77, 1.0])
def test_low_resolution_is_nearest_down_and_linear_up(picture, zoom):
    expected = picture.astype(np.float64)
    for axis in range(1, picture.ndim):
        size = picture.shape[axis]
        small = max(1, round(size * zoom))
        shrunk = expected.take(np.minimum(np.floor((np.arange(small) + 0.5) * size / small).astype(int), size - 1), axis=axis)
        positions = (np.arange(size) + 0.5) * small / size - 0.5
        expected = np.apply_along_axis(lambda line, at=positions, n=small: np.interp(at, np.arange(n), line), axis, shrunk)
    np.testing.assert_allclose(change(picture, zoom=zoom), expected, atol=1e-4)


def test_noise_has_its_deviation_and_depends_on_the_seed_alone():
    image = np.zeros((1, 40, 40, 40), np.float32)
    one = change(image, seed=1, noise_std=0.1)
    assert one.std() == pytest.approx(0.1, rel=0.02)
    assert one.mean() == pytest.approx(0, abs=0.002)
    assert np.array_equal(one, change(image, seed=1, noise_std=0.1))
    assert not np.array_equal(one, change(image, seed=2, noise_std=0.1))


def test_noise_of_a_sample_does_not_depend_on_its_neighbours_and_differs_between_channels():
    images = np.zeros((2, 2, 9, 9), np.float32)
    samples = [make_sample(draw(noise_std=0.1), 2, seed=seed) for seed in (7, 8)]
    got = apply_changes(torch.from_numpy(images), collect_changes(samples, (9, 9))).numpy()
    assert np.array_equal(got[1], change(np.zeros((2, 9, 9), np.float32), seed=8, noise_std=0.1))
    assert not np.array_equal(got[0, 0], got[0, 1])


def test_each_image_and_channel_of_a_batch_gets_its_own_change(picture):
    dimension = picture.ndim - 1
    samples = [make_sample(draw(brightness=factor), dimension) for factor in ((0.5, 1.0), (1.0, 1.0), (0.8, 1.2))]
    got = apply_changes(torch.from_numpy(np.stack([picture] * 3)), collect_changes(samples, picture.shape[1:])).numpy()
    for image, factors in zip(got, ((0.5, 1.0), (1.0, 1.0), (0.8, 1.2))):
        for channel, before, factor in zip(image, picture, factors):
            np.testing.assert_allclose(channel, before * np.float32(factor), rtol=1e-6)


def test_an_occluded_box_shows_the_background_and_nothing_else_changes(picture):
    box = ((0.2, 0.5), (0.4, 0.9), (0.0, 0.3))[: picture.ndim - 1]
    got = change(picture, occlusion=box)
    for index in np.ndindex(picture.shape[1:]):
        inside = all(low * size <= i + 0.5 < high * size for i, size, (low, high) in zip(index, picture.shape[1:], box))
        for channel in range(2):
            assert got[(channel, *index)] == (np.float32(BACKGROUND[channel]) if inside else picture[(channel, *index)])


def test_streaks_are_rays_around_their_centre_that_fade(picture):
    streaks = Streaks(strength=2.0, centre=(0.5, 0.25), rays=5, phase=0.4, reach=0.3)
    got = change(picture, streaks=streaks)
    edges = picture.shape[-2:]
    for channel in range(2):
        std = picture[channel].std(ddof=1)
        for y, x in np.ndindex(edges):
            dy, dx = y - 0.5 * edges[0], x - 0.25 * edges[1]
            added = np.cos(5 * np.arctan2(dy, dx) + 0.4) * np.exp(-np.hypot(dy, dx) / (0.3 * max(edges))) * 2 * std
            np.testing.assert_allclose(got[channel, ..., y, x] - picture[channel, ..., y, x], added, atol=1e-4)


def test_changes_follow_one_another_in_the_recipes_order(picture):
    together = change(picture, blur=0.8, brightness=0.8, contrast=1.2, zoom=0.6, inverted_gamma=0.7, gamma=1.4)
    one_by_one = picture
    for name, value in (("blur", 0.8), ("brightness", 0.8), ("contrast", 1.2), ("zoom", 0.6), ("inverted_gamma", 0.7), ("gamma", 1.4)):
        one_by_one = change(one_by_one, **{name: value})
    np.testing.assert_allclose(together, one_by_one, atol=1e-6)
