"""Separable resampling against scipy's zoom in three axes, and its borders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.arrays.resampling import (
    apply_matrices,
    compute_resampled_shape,
    find_coarse_axis,
    make_probability_matrices,
    make_resampling_matrix,
    resample_ids,
    resample_image,
    resample_label,
)

edges = st.integers(1, 9)
triples = st.tuples(edges, edges, edges)
seeds = st.integers(0, 9999)


def zoom(volume, new_shape, order):
    factors = [new / old for new, old in zip(new_shape, volume.shape)]
    return ndimage.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(triples, triples, st.sampled_from((1, 3)), seeds)
def test_one_matrix_per_axis_equals_the_zoom_of_the_volume(shape, new_shape, order, seed):
    volume = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    matrices = [make_resampling_matrix(old, new, order) for old, new in zip(shape, new_shape)]
    resampled = apply_matrices(volume, matrices)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, zoom(volume, new_shape, order), atol=2e-5)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(triples, triples, seeds)
def test_leading_axes_are_resampled_one_by_one(shape, new_shape, seed):
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    matrices = [make_resampling_matrix(old, new, 1) for old, new in zip(shape, new_shape)]
    expected = np.stack([apply_matrices(channel, matrices) for channel in image])
    np.testing.assert_allclose(apply_matrices(image, matrices), expected, atol=1e-5)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 30), st.integers(1, 30))
def test_nearest_takes_the_voxel_that_holds_the_new_centre(size, new_size):
    matrix = make_resampling_matrix(size, new_size, 0)
    chosen = [(2 * index + 1) * size // (2 * new_size) for index in range(new_size)]  # whole numbers: no rounding
    np.testing.assert_array_equal(matrix.argmax(axis=1), chosen)
    np.testing.assert_array_equal(np.sort(matrix, axis=1)[:, -1], 1)
    np.testing.assert_array_equal(matrix.sum(axis=1), 1)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from((0, 1, 3)), st.booleans())
def test_a_constant_stays_constant_at_every_order(size, new_size, order, antialias):
    np.testing.assert_allclose(make_resampling_matrix(size, new_size, order, antialias).sum(axis=1), 1, atol=1e-5)


def test_shrinking_with_antialias_smooths_by_a_gaussian_first():
    line = np.random.default_rng(0).normal(size=24)
    smooth = ndimage.gaussian_filter1d(line, (24 / 8 - 1) / 2, mode="nearest")
    np.testing.assert_allclose(make_resampling_matrix(24, 8, 3, antialias=True) @ line, zoom(smooth, (8,), 3), atol=1e-5)
    np.testing.assert_array_equal(make_resampling_matrix(8, 24, 3, antialias=True), make_resampling_matrix(8, 24, 3))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(triples, triples, st.sampled_from((None, 0, 2)), seeds)
def test_images_and_labels_land_on_the_same_shape_and_back(shape, new_shape, coarse, seed):
    generator = np.random.default_rng(seed)
    image, label = generator.normal(size=(2, *shape)).astype(np.float32), generator.integers(0, 3, shape).astype(np.int16)
    there = resample_image(image, new_shape, coarse), resample_label(label, new_shape, coarse)
    assert (there[0].shape, there[1].shape) == ((2, *new_shape), new_shape)
    assert (resample_image(there[0], shape, coarse).shape, resample_label(there[1], shape, coarse).shape) == (image.shape, shape)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(triples, seeds)
def test_the_same_shape_changes_no_value(shape, seed):
    generator = np.random.default_rng(seed)
    image, label = generator.normal(size=(1, *shape)).astype(np.float32), generator.integers(-1, 3, shape)
    np.testing.assert_array_equal(resample_image(image, shape, None), image)
    np.testing.assert_array_equal(resample_label(label, shape, 0), label)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(triples, st.tuples(*[st.integers(1, 3)] * 3), st.sampled_from((None, 1)), seeds)
def test_a_label_enlarged_by_odd_factors_and_shrunk_again_is_unchanged(shape, half, coarse, seed):
    label = np.random.default_rng(seed).integers(0, 4, shape)
    large = tuple(size * (2 * step - 1) for size, step in zip(shape, half))
    np.testing.assert_array_equal(resample_label(resample_label(label, large, coarse), shape, coarse), label)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(triples, triples, seeds)
def test_images_keep_within_the_range_of_their_channel(shape, new_shape, seed):
    image = np.random.default_rng(seed).integers(0, 2, (2, *shape)).astype(np.float32) * np.float32([1, 50])[:, None, None, None]
    resampled = resample_image(image, new_shape, None)
    for before, after in zip(image, resampled):
        assert before.min() <= after.min()
        assert after.max() <= before.max()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(triples, triples, seeds)
def test_labels_take_the_value_of_the_largest_linear_share(shape, new_shape, seed):
    label = np.random.default_rng(seed).integers(0, 3, shape)
    shares = np.stack([zoom((label == value).astype(float), new_shape, 1) for value in range(3)])
    resampled = resample_label(label, new_shape, None)
    won = np.take_along_axis(shares, resampled[None], axis=0)[0]
    assert (won >= shares.max(axis=0) - 1e-5).all()
    clear = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-5
    np.testing.assert_array_equal(resampled[clear], shares.argmax(axis=0)[clear])


def test_ties_go_to_the_lower_value_and_no_value_is_invented():
    assert resample_label(np.array([3, 7]), (1,), None).tolist() == [3]
    assert set(np.unique(resample_label(np.array([[0, 9], [9, 0]]), (7, 7), None))) == {0, 9}


def test_the_coarse_axis_is_copied_slice_by_slice():
    image = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    resampled = resample_image(image, (9, 8, 8), 0)
    np.testing.assert_array_equal(resampled, np.repeat(image, 3, axis=1))


@pytest.mark.parametrize(
    ("current", "target", "expected"),
    [
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),
        ((5.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 4.0), 2),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), None),  # the threshold itself is not beyond 3
        ((4.0, 4.0, 1.0), (9.0, 1.0, 1.0), None),  # two axes share the largest spacing
        ((9.0, 1.0), (9.0, 1.0), None),
    ],
)
def test_the_coarse_axis_is_the_only_one_beyond_three_times_the_finest(current, target, expected):
    assert find_coarse_axis(current, target) == expected


def test_resampled_shapes_round_half_to_even_and_keep_at_least_one_voxel():
    assert compute_resampled_shape((5, 7, 1), (1.0, 1.0, 1.0), (2.0, 2.0, 9.0)) == (2, 4, 1)


def test_probabilities_return_linearly_in_plane_and_by_nearest_along_coarse_slices():
    matrices = make_probability_matrices((4, 6, 6), (8, 12, 12), (4.0, 1.0, 1.0), (8.0, 2.0, 2.0))
    assert [matrix.shape for matrix in matrices] == [(8, 4), (12, 6), (12, 6)]
    np.testing.assert_array_equal(matrices[0], make_resampling_matrix(4, 8, 0))
    np.testing.assert_array_equal(matrices[1], make_resampling_matrix(6, 12, 1))


def test_probabilities_treat_the_axis_as_coarse_that_the_network_saw_as_coarse():
    matrices = make_probability_matrices((4, 6, 6), (8, 12, 12), (4.0, 4.0, 1.0), (9.0, 1.0, 1.0))
    np.testing.assert_array_equal(matrices[0], make_resampling_matrix(4, 8, 0))


@pytest.mark.parametrize(
    ("shape", "new_shape", "coarse"),
    [((20, 23), (31, 40), None), ((20, 23), (13, 12), None), ((6, 12, 13), (9, 17, 20), None), ((6, 12, 13), (10, 9, 8), 0)],
)
def test_each_object_is_resampled_as_if_it_were_a_class(shape, new_shape, coarse):
    generator = np.random.default_rng(len(new_shape))
    ids = np.zeros(shape, np.int32)
    for number in range(1, 9):
        low = generator.integers(0, np.array(shape) - 4)
        ids[tuple(slice(start, start + edge) for start, edge in zip(low, generator.integers(3, 7, len(shape))))] = number
    ids[ids == 8] = -1
    found = resample_ids(ids, new_shape, coarse)
    np.testing.assert_array_equal(found, resample_label(ids, new_shape, coarse))
    assert set(np.unique(found)) == set(np.unique(ids))
    assert found.dtype == np.int32


def test_objects_that_shrinking_would_hide_keep_a_voxel():
    ids = np.zeros((40, 40), np.int32)
    ids[2:12, 2:12] = 1
    for number, place in enumerate([(5, 30), (20, 20), (33, 8), (36, 36)], 2):
        ids[place] = number
    assert set(np.unique(resample_label(ids, (10, 10), None))) == {0, 1}
    found = resample_ids(ids, (10, 10), None)
    assert {number: tuple(map(int, np.argwhere(found == number)[0])) for number in range(2, 6)} == {
        2: (1, 7),
        3: (5, 5),
        4: (8, 2),
        5: (9, 9),
    }
    assert (found == 1).sum() == 4


def test_the_last_voxel_of_one_object_is_not_taken_for_another():
    ids = np.arange(1, 17, dtype=np.int32).reshape(4, 4)
    found = resample_ids(ids, (2, 2), None)
    np.testing.assert_array_equal(found, resample_label(ids, (2, 2), None))


def test_large_numbers_of_many_objects_are_kept():
    ids = np.zeros((60, 60), np.int32)
    ids[::2, ::2] = np.arange(70_000, 70_900).reshape(30, 30)
    found = resample_ids(ids, (70, 70), None)
    np.testing.assert_array_equal(np.unique(found), np.unique(ids))
