"""Near-duplicates are found, other images of the same kind are not, and what all images share makes no group."""

import itertools

import numpy as np
from scipy import ndimage

from autoseg.arrays.duplicates import find_duplicates, make_signature


def draw_field(seed: int, shape: tuple[int, int] = (96, 128), channels: int = 1) -> np.ndarray:
    """Bright discs at random places on a dim ground: (channel, y, x)."""
    generator = np.random.default_rng(seed)
    image = np.zeros(shape)
    image[tuple(generator.integers(0, size, 25) for size in shape)] = 1
    image = 100 * ndimage.gaussian_filter(image, 4) + generator.normal(5, 0.05, shape)
    return np.stack([image * (channel + 1) for channel in range(channels)])


def group(images: list[np.ndarray]) -> list[list[int]]:
    return find_duplicates([make_signature(image) for image in images], [image.shape[1:] for image in images])


def test_frames_of_one_field_are_grouped_and_other_fields_are_not():
    images = [draw_field(seed) for seed in range(12)]
    images[7] = 3 * np.roll(images[2], (1, 2), (1, 2)) + np.random.default_rng(9).normal(2, 0.2, images[2].shape)
    images[4] = np.roll(images[7], 1, 1)
    assert group(images) == [[2, 4, 7]]


def test_images_of_other_shapes_are_never_grouped():
    image = draw_field(0)
    assert group([image, image[:, :-1], draw_field(1), draw_field(2)]) == []
    assert group([image, image[:, :-1], image[:, :-1]]) == [[1, 2]]


def test_what_most_images_share_is_no_duplicate():
    light = 50 * np.linspace(0, 1, 128)[None, None]
    images = [draw_field(seed) + light for seed in range(12)]
    assert max(abs(float(make_signature(a) @ make_signature(b))) for a in images[:1] for b in images[1:]) > 0.9
    assert group(images) == []


def test_even_images_and_tiny_ones_have_signatures_too():
    assert not make_signature(np.full((1, 40, 40), 7.0)).any()
    assert group([np.full((1, 40, 40), 7.0)] * 3) == []
    assert make_signature(draw_field(0, (5, 7))).shape == (35,)
    assert make_signature(draw_field(0, channels=3)).shape == (256,)


def test_a_signature_is_the_means_of_cells():
    image = draw_field(3, (50, 33))
    rows, columns = (np.append(np.arange(16) * size // 16, size) for size in (50, 33))
    means = np.array([[image[0, a:b, c:d].mean() for c, d in itertools.pairwise(columns)] for a, b in itertools.pairwise(rows)]).ravel()
    expected = (means - means.mean()) / np.linalg.norm(means - means.mean())
    np.testing.assert_allclose(make_signature(image), expected, atol=1e-6)
