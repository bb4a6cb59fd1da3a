"""Where a sliding window stands, and its weights."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.arrays.tiles import choose_overlap, choose_tile, compute_padding, make_cores, make_gaussian, make_positions, make_tiles


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 300), st.integers(1, 100), st.sampled_from((0.25, 0.5, 1.0)))
def test_tiles_reach_from_border_to_border_in_the_fewest_even_steps(size, patch, step):
    positions = make_positions(size, patch, step)
    if size <= patch:
        assert positions == [0]
        return
    assert (positions[0], positions[-1]) == (0, size - patch)
    gaps = np.diff(positions)
    assert (gaps >= 0).all()
    assert gaps.max() <= math.ceil(step * patch)
    assert gaps.max() - gaps.min() <= 1 + (gaps.max() < 2)
    fewer = len(positions) - 2
    assert fewer == 0 or (size - patch) / fewer > step * patch


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=2, max_size=3))
def test_every_voxel_lies_in_a_tile_and_no_tile_beyond_the_border(axes):
    patch = tuple(min(pair) for pair in axes)
    shape = tuple(max(pair) for pair in axes)
    seen = np.zeros(shape, int)
    for tile in make_tiles(shape, patch):
        assert all(0 <= start <= size - edge for start, size, edge in zip(tile, shape, patch))
        seen[tuple(slice(start, start + edge) for start, edge in zip(tile, patch))] += 1
    assert seen.min() > 0


def test_tiles_come_in_array_order():
    assert make_tiles((6, 4), (4, 4)) == [(0, 0), (2, 0)]
    assert make_tiles((6, 6), (4, 4)) == [(0, 0), (0, 2), (2, 0), (2, 2)]


@pytest.mark.parametrize("patch", [(8,), (7, 12), (6, 9, 16), (1, 4, 4)])
def test_weights_are_a_gaussian_of_an_eighth_of_the_patch_around_its_centre(patch):
    weights = make_gaussian(patch)
    assert (weights.dtype, weights.shape) == (np.float32, patch)
    for position in np.ndindex(patch):
        exponent = sum(((at - edge // 2) / (edge / 8)) ** 2 for at, edge in zip(position, patch))
        assert weights[position] == pytest.approx(max(math.exp(-exponent / 2), 1e-4), rel=1e-5)
    assert weights[tuple(edge // 2 for edge in patch)] == weights.max() == 1


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=3))
def test_padding_makes_the_patch_fit_exactly_and_the_odd_voxel_goes_behind(axes):
    shape, patch = zip(*axes)
    for size, edge, (before, after) in zip(shape, patch, compute_padding(shape, patch)):
        assert size + before + after == max(size, edge)
        assert after - before in (0, 1)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 400), st.integers(8, 128), st.floats(0, 200))
def test_cores_part_an_axis_and_objects_within_the_overlap_lie_whole_in_their_tile(size, patch, largest):
    (overlap,) = choose_overlap((patch,), (largest,))
    starts = make_positions(size, patch, 1 - overlap / patch)
    cores = make_cores(size, patch, starts)
    assert [low for low, _ in cores] == [0, *(high for _, high in cores[:-1])]
    assert cores[-1][1] == size
    for start, (low, high) in zip(starts, cores):
        assert start <= low < high <= max(start + patch, size)
        for centre in (low + 0.5, high - 0.5):
            reach = (overlap - 1) / 2 - 1
            inside = (max(centre - reach, 0), min(centre + reach, size))
            assert start <= inside[0]
            assert inside[1] <= max(start + patch, size)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.data(), st.integers(2, 3))
def test_a_detectors_tiles_cover_the_image_with_their_overlap_and_are_few_patches_large(data, dimension):
    axes = [data.draw(st.tuples(st.integers(1, 400), st.integers(2, 8), st.sampled_from([1, 2, 4, 16]))) for _ in range(dimension)]
    shape, divisors = tuple(size for size, _, _ in axes), tuple(divisor for _, _, divisor in axes)
    patch = tuple(times * divisor for _, times, divisor in axes)
    overlap = tuple(edge // 3 for edge in patch)
    tile = choose_tile(shape, patch, overlap, divisors)
    assert all(edge % divisor == 0 for edge, divisor in zip(tile, divisors))
    growth = 2 if dimension == 2 else 1
    for size, edge, own, common in zip(shape, tile, patch, overlap):
        assert edge <= growth * own
        starts = make_positions(size, edge, 1 - common / edge)
        assert starts[-1] + edge >= size
        assert all(b - a <= edge - common + 1 for a, b in pairwise(starts))
        assert len(starts) == 1 or (len(starts) - 1) * (growth * own - common) + common < size  # not one tile fewer would do
