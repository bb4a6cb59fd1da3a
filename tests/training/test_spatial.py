"""Cutting patches out of arrays, on voxels and between them, against numpy slicing and scipy."""

import numpy as np
import pytest
import torch
from builders import NOTHING
from scipy import ndimage

from autoseg.training.sampling import Sample, compute_touched_box
from autoseg.training.spatial import apply_warp, cut_on_voxels, make_warps

torch.set_num_threads(1)
BACKGROUND = (-1.5, 4.0)


def make_sample(centre, matrix, patch, shape, flips=(), displacements=None) -> Sample:
    reach = 0.0 if displacements is None else float(np.abs(displacements).max())
    box = compute_touched_box(centre, matrix, patch, shape, reach)
    on_voxels = displacements is None and np.array_equal(matrix, np.eye(len(shape)))
    return Sample("A", None, centre, matrix, displacements, on_voxels, flips, box, BACKGROUND, NOTHING, 0)


def cut_all(
    image: np.ndarray, label: np.ndarray, samples: list[Sample], patch: tuple[int, ...], most: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """A batch of patches of whole arrays, cut as the loader does it."""
    places = [tuple(slice(low, high) for low, high in sample.box) for sample in samples]
    parts = [(image[(slice(None), *place)], label[place]) for place in places]
    images = np.empty((len(samples), len(BACKGROUND), *patch), np.float32)
    images[:] = np.array(BACKGROUND).reshape(-1, *(1,) * len(patch))
    labels = np.zeros((len(samples), *patch), np.int16)
    for place, (sample, part) in enumerate(zip(samples, parts)):
        if sample.on_voxels:
            cut_on_voxels(part[0], sample, images[place])
            cut_on_voxels(part[1], sample, labels[place])
    for warp in make_warps(samples, parts, most):
        apply_warp(warp, torch.from_numpy(images), torch.from_numpy(labels))
    return images, labels


def cut(image: np.ndarray, label: np.ndarray, sample: Sample, patch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = cut_all(image, label, [sample], patch)
    return images[0], labels[0]


def make_arrays(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 3, (2, *shape)).astype(np.float32), generator.integers(-1, 4, shape).astype(np.int16)


@pytest.mark.parametrize("shape", [(12, 13, 14), (5, 13, 4), (9, 10), (3, 10)])
@pytest.mark.parametrize("start", [0, 2, -2])
def test_without_rotation_a_patch_is_a_slice_padded_with_the_images_background(shape, start):
    image, label = make_arrays(shape)
    patch = (6, 7, 8)[: len(shape)]
    centre = tuple(start + (edge - 1) / 2 for edge in patch)
    got, got_label = cut(image, label, make_sample(centre, np.eye(len(shape)), patch, shape), patch)
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


MATRICES = {
    "turned": lambda dimension: turn(20.0, dimension),
    "turned far": lambda dimension: turn(-75.0, dimension),
    "scaled": lambda dimension: np.diag([0.8, 1.3, 0.71][:dimension]),
}


def expect(image, label, sample, patch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image and label by scipy, and where the nearest voxel is beyond doubt."""
    shape = label.shape
    offsets = np.stack(np.meshgrid(*[np.arange(edge) - (edge - 1) / 2 for edge in patch], indexing="ij"))
    positions = np.tensordot(sample.matrix, offsets, axes=1) + np.array(sample.centre).reshape(-1, *(1,) * len(shape))
    if sample.displacements is not None:
        for axis, grid in enumerate(sample.displacements):
            points = np.stack(np.meshgrid(*[np.linspace(0, n - 1, edge) for n, edge in zip(grid.shape, patch)], indexing="ij"))
            positions[axis] += ndimage.map_coordinates(grid.astype(np.float64), points, order=1)
    pictures = [
        ndimage.map_coordinates(channel.astype(np.float64), positions, order=1, mode="grid-constant", cval=value)
        for channel, value in zip(image, BACKGROUND)
    ]
    nearest = np.rint(positions).astype(int)
    inside = np.all([(index >= 0) & (index < size) for index, size in zip(nearest, shape)], axis=0)
    labels = np.where(inside, label[tuple(np.clip(index, 0, size - 1) for index, size in zip(nearest, shape))], 0)
    certain = np.all(np.abs(positions - np.floor(positions) - 0.5) > 1e-3, axis=0)
    return np.stack(pictures), labels, certain


@pytest.mark.parametrize("shape", [(20, 21, 22), (6, 9, 8), (25, 24), (6, 7)])
@pytest.mark.parametrize("name", MATRICES)
def test_a_patch_between_voxels_equals_scipys_interpolation_with_the_background_around(shape, name):
    image, label = make_arrays(shape, 1)
    patch = (7, 8, 9)[: len(shape)]
    centre = tuple((size - 1) / 2 + 0.3 * (axis + 1) for axis, size in enumerate(shape))
    sample = make_sample(centre, MATRICES[name](len(shape)), patch, shape)
    got, got_label = cut(image, label, sample, patch)
    expected, expected_label, certain = expect(image, label, sample, patch)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.array_equal(got_label[certain], expected_label[certain])


@pytest.mark.parametrize("shape", [(16, 17, 18), (20, 21)])
@pytest.mark.parametrize("flips", [(), (1,)])
def test_a_bent_patch_equals_scipys_interpolation(shape, flips):
    image, label = make_arrays(shape, 1)
    patch = (7, 8, 9)[: len(shape)]
    grid = np.random.default_rng(3).normal(0, 1.5, (len(shape), *(2, 3, 4)[: len(shape)])).astype(np.float32)
    sample = make_sample(tuple((size - 1) / 2 for size in shape), turn(10, len(shape)), patch, shape, flips, grid)
    got, got_label = cut(image, label, sample, patch)
    expected, expected_label, certain = expect(image, label, sample, patch)
    np.testing.assert_allclose(got, np.flip(expected, [axis + 1 for axis in flips]), atol=2e-4)
    certain = np.flip(certain, flips)
    assert np.array_equal(got_label[certain], np.flip(expected_label, flips)[certain])


@pytest.mark.parametrize("most", [1, 2, 9])
def test_a_batch_is_its_samples_one_by_one(most):
    shape, patch = (16, 17, 18), (6, 7, 8)
    image, label = make_arrays(shape, 1)
    grid = np.random.default_rng(3).normal(0, 1.5, (3, 2, 2, 2)).astype(np.float32)
    samples = [
        make_sample((5.0, 6.0, 7.5), turn(20, 3), patch, shape, (0,)),
        make_sample((5.5, 6.0, 6.5), np.eye(3), patch, shape, (1,)),
        make_sample((1.0, 16.0, 7.5), np.diag([1.2, 1.2, 1.2]), patch, shape, (2,)),
        make_sample((8.0, 8.0, 9.5), np.eye(3), patch, shape, (), grid),
        make_sample((8.0, 3.0, 9.5), np.diag([0.8, 0.8, 0.8]), patch, shape),
    ]
    images, labels = cut_all(image, label, samples, patch, most)
    for place, sample in enumerate(samples):
        alone, alone_label = cut(image, label, sample, patch)
        np.testing.assert_allclose(images[place], alone, atol=1e-5)
        assert np.array_equal(labels[place], alone_label)


def test_the_ignored_value_stays_ignored_in_a_rotated_patch():
    image, label = np.zeros((2, 10, 10), np.float32), np.full((10, 10), -1, np.int16)
    _, got = cut(image, label, make_sample((4.5, 4.5), turn(10, 2), (4, 4), (10, 10)), (4, 4))
    assert (got == -1).all()


def test_labels_are_never_mixed():
    label = np.where(np.arange(20)[:, None] < 10, 1, 40).repeat(20, axis=1).astype(np.int16)
    _, got = cut(np.zeros((2, 20, 20), np.float32), label, make_sample((9.3, 9.7), turn(33, 2), (12, 12), (20, 20)), (12, 12))
    assert set(np.unique(got)) == {1, 40}


@pytest.mark.parametrize("matrix", [np.eye(3), turn(15, 3), np.diag([0.9, 1.1, 1.3])], ids=["on voxels", "turned", "scaled"])
@pytest.mark.parametrize("flips", [(0,), (2,), (0, 1, 2)])
def test_flips_turn_image_and_label_alike(matrix, flips):
    shape, patch = (12, 13, 14), (6, 6, 6)
    image, label = make_arrays(shape, 2)
    plain = cut(image, label, make_sample((5.5,) * 3, matrix, patch, shape), patch)
    flipped = cut(image, label, make_sample((5.5,) * 3, matrix, patch, shape, flips), patch)
    np.testing.assert_allclose(flipped[0], np.flip(plain[0], [axis + 1 for axis in flips]), atol=1e-5)
    assert np.array_equal(flipped[1], np.flip(plain[1], flips))
