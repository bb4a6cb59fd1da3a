"""The spacing to work at, the order of axes, and the median shape there."""

from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planning.spacing import SpacingRule, compute_median_shape, decide_resolution

FINE = (1.5625, 1.5625)


def test_scans_alike_are_kept_at_their_median_per_axis(describe):
    _, fingerprint = describe([(2, (1.0, 0.8, 0.8), (50, 60, 70)), (1, (3.0, 0.6, 0.5), (20, 80, 80))])
    resolution = decide_resolution(fingerprint)
    assert resolution.spacing == (1.0, 0.8, 0.8)
    assert resolution.axes == (0, 1, 2)


def test_slices_far_apart_are_refined_to_the_10th_percentile(describe):
    _, fingerprint = describe([(160, (10.0, *FINE), (9, 237, 208)), (40, (5.0, *FINE), (18, 237, 208))])
    resolution = decide_resolution(fingerprint)
    assert resolution.spacing == (5.0, *FINE)
    assert resolution.median_shape == (18, 237, 208)
    assert "5 mm" in resolution.reason


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        ((4.5, 1.5, 1.5), (9, 237, 208)),  # exactly 3 times is not beyond
        ((10.0, *FINE), (70, 237, 208)),  # as many slices as a third of the pixels
    ],
)
def test_scans_that_are_not_anisotropic_in_both_ways_keep_their_median(describe, spacing, shape):
    _, fingerprint = describe([(8, spacing, shape), (2, (spacing[0] / 2, *spacing[1:]), shape)])
    assert decide_resolution(fingerprint).spacing == spacing


def test_refined_slices_are_never_finer_than_pixels(describe):
    _, fingerprint = describe([(8, (10.0, *FINE), (9, 237, 208)), (2, (1.0, *FINE), (90, 237, 208))])
    spacing = decide_resolution(fingerprint).spacing
    assert spacing[0] == pytest.approx(FINE[0] + 1e-5, abs=1e-7)
    assert spacing[0] > FINE[0]


def test_the_axis_of_largest_spacing_comes_first_and_the_others_keep_their_order(describe):
    _, fingerprint = describe([(3, (0.5, 0.7, 3.0), (200, 100, 40))])
    resolution = decide_resolution(fingerprint)
    assert (resolution.axes, resolution.spacing, resolution.median_shape) == ((2, 0, 1), (3.0, 0.5, 0.7), (40, 200, 100))


def test_images_are_not_transposed(describe):
    _, fingerprint = describe([(3, (1.0, 4.0), (40, 50))])
    assert decide_resolution(fingerprint).axes == (0, 1)


def test_a_spacing_given_overrides_the_rule_and_is_in_canonical_order(describe):
    _, fingerprint = describe([(3, (1.0, 1.0, 1.0), (40, 50, 60))])
    resolution = decide_resolution(fingerprint, (1.0, 4.0, 2.0))
    assert (resolution.axes, resolution.spacing, resolution.median_shape) == ((1, 0, 2), (4.0, 1.0, 2.0), (12, 40, 30))
    assert "--spacing" in resolution.reason


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.tuples(st.tuples(*[st.integers(1, 200)] * 3), st.tuples(*[st.floats(0.3, 5)] * 3)), min_size=1, max_size=5),
    st.permutations((0, 1, 2)),
)
def test_the_median_shape_is_the_median_of_rounded_resampled_shapes(describe, scans, axes):
    _, fingerprint = describe([(1, spacing, shape) for shape, spacing in scans])
    target = (1.5, 1.0, 2.0)
    found = compute_median_shape(fingerprint.cases, target, tuple(axes))
    for axis, size in zip(axes, found):
        assert size == max(1.0, float(median(round(spacing[axis] / target[axis] * shape[axis]) for shape, spacing in scans)))


def test_without_a_threshold_the_spacing_changes_gradually(describe):
    found = []
    for ratio in (1.9, 2.5, 2.99, 3.01, 3.5, 4.5):
        _, fingerprint = describe([(6, (ratio, 1.0, 1.0), (30, 300, 300)), (4, (ratio / 2, 1.0, 1.0), (60, 300, 300))])
        found.append(decide_resolution(fingerprint, rule=SpacingRule(gradual=True)).spacing[0] / ratio)
    assert found[0] == 1.0
    assert found[-1] == 0.5
    assert found == sorted(found, reverse=True)
    assert abs(found[2] - found[3]) < 0.05  # no cliff at 3


def test_slices_are_close_enough_for_small_objects(describe):
    _, fingerprint = describe([(8, (3.0, 1.0, 1.0), (60, 100, 100)), (2, (1.5, 1.0, 1.0), (120, 100, 100))])
    assert decide_resolution(fingerprint, rule=SpacingRule(gradual=True, smallest_object=60.0)).spacing[0] == 3.0
    small = decide_resolution(fingerprint, rule=SpacingRule(gradual=True, smallest_object=8.0))
    assert small.spacing[0] == 2.0
    assert "8 mm" in small.reason
