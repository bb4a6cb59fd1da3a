"""How a U-Net pools, and which patch that allows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planning.topology import decide_topology, make_initial_patch, round_to_scan, shrink_patch


@st.composite
def grids(draw):
    dimension = draw(st.sampled_from((2, 3)))
    return tuple(draw(st.tuples(*[value] * dimension)) for value in (st.floats(0.2, 10), st.integers(1, 300)))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(grids())
def test_every_stride_divides_and_no_pooled_axis_gets_below_4_voxels(grid):
    spacing, patch = grid
    topology = decide_topology(spacing, patch)
    assert topology.strides[0] == (1,) * len(patch)
    assert len(topology.strides) == len(topology.kernel_sizes)
    for axis in range(len(patch)):
        divisor = int(np.prod([stride[axis] for stride in topology.strides]))
        assert topology.divisors[axis] == divisor
        assert topology.patch_size[axis] % divisor == 0
        assert patch[axis] <= topology.patch_size[axis] < patch[axis] + divisor
        assert divisor == 1 or topology.patch_size[axis] // divisor >= 4


@settings(deadline=None, derandomize=True, max_examples=50)
@given(grids())
def test_kernels_grow_to_3_once_and_stay_and_the_deepest_is_full(grid):
    kernels = decide_topology(*grid).kernel_sizes
    for before, after in pairwise(kernels):
        assert all(old <= new for old, new in zip(before, after))
    assert set(kernels[-1]) == {3}


@settings(deadline=None, derandomize=True, max_examples=50)
@given(grids())
def test_axes_pooled_together_have_spacings_within_a_factor_of_2(grid):
    spacing, patch = grid
    steps = np.array(spacing)
    for stride in decide_topology(spacing, patch).strides[1:]:
        pooled = steps[np.array(stride) == 2]
        assert pooled.max() / pooled.min() < 2
        steps = steps * np.array(stride)


@pytest.mark.parametrize(
    ("spacing", "patch", "rounded", "strides", "kernels"),
    [
        ((1.0, 1.0, 1.0), (36, 50, 35), (40, 56, 40), [(2, 2, 2)] * 3, [(3, 3, 3)] * 4),
        (
            (5.0, 1.5625, 1.5625),
            (18, 237, 208),
            (20, 256, 224),
            [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)],
            [(1, 3, 3)] + [(3, 3, 3)] * 5,
        ),
        ((1.0, 1.0), (400, 400), (448, 448), [(2, 2)] * 6, [(3, 3)] * 7),
        ((1.0, 1.0), (8, 8), (8, 8), [(2, 2)], [(3, 3)] * 2),
        ((2.0, 1.0), (16, 32), (16, 32), [(1, 2), (2, 2), (2, 2)], [(1, 3)] + [(3, 3)] * 3),  # twice as coarse waits
        ((1.0, 1.0), (7, 7), (7, 7), [], [(3, 3)]),  # too small to pool
        ((1.0, 1.0), (7, 11), (7, 11), [], [(3, 3)]),  # a single axis pools from 12 voxels on
        ((1.0, 1.0), (7, 12), (7, 12), [(1, 2)], [(3, 3)] * 2),
    ],
)
def test_known_grids_pool_as_the_reference_does(spacing, patch, rounded, strides, kernels):
    topology = decide_topology(spacing, patch)
    assert topology.patch_size == rounded
    assert list(topology.strides[1:]) == strides
    assert list(topology.kernel_sizes) == kernels


def test_the_first_patch_is_a_cube_in_mm_of_256_voxels_cubed_clipped_to_the_scan():
    assert make_initial_patch((1.0, 1.0, 1.0), (400, 300, 100)) == (256, 256, 100)
    assert make_initial_patch((8.0, 1.0, 1.0), (999, 999, 999)) == (64, 512, 512)
    assert make_initial_patch((1.0, 1.0), (4000, 1000)) == (2048, 1000)


def test_shrinking_takes_from_the_axis_that_covers_most_of_its_scan_and_from_the_last_on_ties():
    def shrink(patch, median_shape):
        spacing = (1.0,) * len(patch)
        return shrink_patch(spacing, decide_topology(spacing, patch), median_shape).patch_size

    assert shrink((160, 128, 128), (160, 256, 256)) == (128, 128, 128)
    assert shrink((256, 256), (256, 300)) == (224, 256)  # by 32, the divisor of 192, not by its own 64
    assert shrink((64, 64), (100, 100)) == (64, 56)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(grids(), st.integers(0, 9))
def test_shrinking_makes_exactly_one_axis_smaller(grid, more):
    spacing, shape = grid
    patch = decide_topology(spacing, shape).patch_size
    if max(patch) <= 8:
        return
    smaller = shrink_patch(spacing, decide_topology(spacing, patch), tuple(size + more for size in shape)).patch_size
    assert sum(after != before for after, before in zip(smaller, patch)) <= 1
    assert all(after <= before for after, before in zip(smaller, patch))


def test_half_voxels_of_a_median_count_as_the_next_whole_one_only_where_they_are_halved():
    assert decide_topology((1.0, 1.0), (40.5, 40.0)).patch_size == (48, 40)
    assert decide_topology((1.0, 1.0, 1.0), (7.5, 16.0, 16.0)).strides[1] == (1, 2, 2)  # 7.5 voxels are fewer than 8


def test_a_patch_is_rounded_down_where_the_network_stays_the_same():
    assert round_to_scan((1.0, 1.0, 1.0), (36.0, 50.0, 35.0)).patch_size == (32, 48, 32)
    assert round_to_scan((1.0, 1.0, 1.0), (40.0, 319.0, 319.0)).patch_size == (40, 320, 320)  # a voxel of padding is no waste
    assert round_to_scan((1.0, 1.0), (9.0, 64.0)).patch_size == decide_topology((1.0, 1.0), (8, 64)).patch_size


def test_shrinking_leaves_every_axis_a_voxel():
    spacing, shape = (1.0, 1.0, 1.0), (64.0, 1.0, 48.0)
    topology = decide_topology(spacing, shape)
    sizes = [topology.patch_size]
    while max(sizes[-1]) > 8:
        topology = shrink_patch(spacing, topology, shape)
        sizes.append(topology.patch_size)
    assert all(size[1] == 1 and min(size) == 1 for size in sizes)
    assert sizes == sorted(sizes, key=sum, reverse=True)
    single = decide_topology((1.0, 1.0), (1.0, 1.0))
    assert shrink_patch((1.0, 1.0), single, (1.0, 1.0)) == single
