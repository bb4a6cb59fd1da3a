"""What is told of found objects, counted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.arrays.listing import decode_runs, encode_runs, find_world, list_objects, turn_objects
from autoseg.arrays.masks import FoundObject, paint_objects
from autoseg.records.grid import Grid


@settings(deadline=None, derandomize=True, max_examples=60)
@given(arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))))
def test_runs_come_back(mask):
    runs = encode_runs(mask)
    assert sum(runs) == mask.size
    assert all(run > 0 for run in runs[1:])
    np.testing.assert_array_equal(decode_runs(runs, mask.shape), mask)


def make_painted():
    block = FoundObject(((1, 3), (2, 6)), np.ones((2, 4), bool), 0.9, 2)
    corner = FoundObject(((2, 4), (0, 3)), np.ones((2, 3), bool), 0.25, 1, merged=True)
    return paint_objects([corner, block], (4, 8))


def test_numbers_are_those_of_the_label_map():
    grid = Grid(shape=(4, 8), spacing=(2.0, 0.5), origin=(10.0, 20.0), direction=(1.0, 0.0, 0.0, 1.0))
    block, corner = list_objects(make_painted(), ("cell", "gland"), grid)
    assert (block.id, block.class_name, block.score, block.merged) == (1, "gland", 0.9, False)
    assert block.box == (1, 2, 3, 6)
    assert block.box_mm == (2.0, 1.0, 6.0, 3.0)
    assert block.centroid == (2.0, 4.0)
    assert block.world == (10 + 3.5 * 0.5, 20 + 1.5 * 2)
    assert (block.voxels, block.size) == (8, 8.0)
    assert block.diameter == pytest.approx(2 * np.sqrt(8 / np.pi), abs=1e-3)
    assert (block.touches_border, corner.touches_border) == (False, True)
    assert block.rle == ()
    assert corner.merged
    assert corner.voxels == 6
    np.testing.assert_array_equal(decode_runs(corner.rle, (2, 3)), np.ones((2, 3), bool))


def test_a_volume_is_measured_in_mm3():
    ball = paint_objects([FoundObject(((1, 2), (1, 3), (1, 4)), np.ones((1, 2, 3), bool), 1.0, 1)], (4, 5, 6))
    grid = Grid(shape=(4, 5, 6), spacing=(3.0, 1.0, 0.5), origin=(0.0,) * 3, direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    (one,) = list_objects(ball, ("nodule",), grid)
    assert one.size == 9.0
    assert one.diameter == pytest.approx((6 * 9 / np.pi) ** (1 / 3), abs=1e-3)
    assert not one.touches_border


def test_directions_turn_the_world():
    grid = Grid(shape=(4, 5, 6), spacing=(3.0, 2.0, 1.0), origin=(1.0, 2.0, 3.0), direction=(0.0, 1.0, 0, -1.0, 0, 0, 0, 0, 1.0))
    np.testing.assert_allclose(find_world(np.array([1.5, 1.5, 2.5]), grid), [1 + 1 * 2, 2 - 2 * 1, 3 + 1 * 3])


@pytest.mark.parametrize(("order", "backwards"), [((0, 1), (True, False)), ((1, 0), (False, True)), ((1, 0), (True, True))])
def test_turned_objects_lie_where_the_turned_map_has_them(order, backwards):
    painted = make_painted()
    turned = turn_objects(painted, order, backwards)
    expected = np.flip(painted.ids.transpose(order), [axis for axis in (0, 1) if backwards[axis]])
    np.testing.assert_array_equal(turned.ids, expected)
    for number, found in enumerate(turned.objects, 1):
        own = np.zeros(turned.ids.shape, bool)
        own[tuple(slice(*edge) for edge in found.box)] = found.select(0.5)
        assert own[turned.ids == number].all()
        assert own.sum() == painted.objects[number - 1].select(0.5).sum()


def test_overlapping_masks_come_whole_from_their_runs():
    bars = [FoundObject(((4, 7), (0, 20)), np.ones((3, 20), bool), 0.9, 1), FoundObject(((0, 20), (5, 9)), np.ones((20, 4), bool), 0.8, 1)]
    grid = Grid(shape=(20, 20), spacing=(1.0, 1.0), origin=(0.0, 0.0), direction=(1.0, 0.0, 0.0, 1.0))
    first, second = list_objects(paint_objects(bars, (20, 20)), ("bar",), grid)
    assert first.rle == ()
    low, high = second.box[:2], second.box[2:]
    assert decode_runs(second.rle, tuple(b - a for a, b in zip(low, high))).all()
    assert second.voxels == 80
