"""Cropping to what an image shows, and pasting back."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.arrays.cropping import compute_bounding_box, compute_nonzero_mask, crop, paste

shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


@st.composite
def masks(draw):
    shape = draw(shapes)
    return np.random.default_rng(draw(st.integers(0, 999))).random(shape) < draw(st.sampled_from((0.02, 0.2, 0.8)))


@st.composite
def arrays_with_boxes(draw):
    """An array with zero to two leading axes, the shape of its last axes, and a nonempty box in them."""
    shape, leading = draw(shapes), draw(st.lists(st.integers(1, 3), max_size=2).map(tuple))
    box = []
    for size in shape:
        low = draw(st.integers(0, size - 1))
        box.append((low, draw(st.integers(low + 1, size))))
    array = np.random.default_rng(draw(st.integers(0, 999))).integers(1, 100, (*leading, *shape))
    return array, shape, tuple(box)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(masks())
def test_the_box_is_the_tight_range_of_the_true_voxels(mask):
    found = [position for position in product(*map(range, mask.shape)) if mask[position]]
    expected = tuple((0, size) for size in mask.shape)
    if found:
        expected = tuple((min(axis), max(axis) + 1) for axis in zip(*found))
    assert compute_bounding_box(mask) == expected


def test_an_empty_mask_keeps_the_whole_array():
    assert compute_bounding_box(np.zeros((3, 4), bool)) == ((0, 3), (0, 4))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(arrays_with_boxes())
def test_a_pasted_part_is_cropped_to_itself_and_all_else_is_filled(case):
    array, shape, box = case
    part = crop(array, box)
    whole = paste(part, shape, box, fill=-7)
    assert whole.shape == array.shape
    assert whole.dtype == array.dtype
    np.testing.assert_array_equal(crop(whole, box), part)
    assert (whole == -7).sum() == array.size - part.size  # the array itself holds no -7


@settings(deadline=None, derandomize=True, max_examples=50)
@given(masks())
def test_cropping_to_the_mask_and_pasting_back_loses_nothing(mask):
    box = compute_bounding_box(mask)
    np.testing.assert_array_equal(paste(crop(mask, box), mask.shape, box), mask)


def test_cropping_cuts_the_last_axes_and_keeps_the_leading_ones():
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    np.testing.assert_array_equal(crop(array, ((1, 3), (0, 2))), [[[4, 5], [8, 9]], [[16, 17], [20, 21]]])


def test_the_mask_joins_all_channels_and_fills_enclosed_holes():
    first, second = np.zeros((7, 7)), np.zeros((7, 7))
    first[1:4, 1:4] = 5
    first[2, 2] = 0  # a hole, enclosed by face neighbours
    second[5, 5] = -1  # negative values count too
    expected = np.zeros((7, 7), bool)
    expected[1:4, 1:4] = True
    expected[5, 5] = True
    np.testing.assert_array_equal(compute_nonzero_mask(np.stack([first, second])), expected)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_image_is_kept_whole(value):
    image = np.full((1, 3, 4), value)
    assert compute_bounding_box(compute_nonzero_mask(image)) == ((0, 3), (0, 4))
