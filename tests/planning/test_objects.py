"""Objects pooled over a data set: sizes at the spacing planned for, and how many a tile holds, against counting one by one."""

import itertools

import msgspec
import numpy as np
import pytest
from instances_for_tests import make_instances, make_measured, spread_boxes, with_objects

from autoseg.errors import InputError
from autoseg.planning.objects import TILE_STEPS, compute_percentiles, count_per_tile, pool_objects
from autoseg.records.fingerprint import Fingerprint


def test_boxes_are_brought_to_the_spacing_and_axes_of_the_plan():
    boxes = [np.array([[0, 2, 4, 10, 6, 20]]), np.array([[1, 1, 1, 2, 3, 5], [0, 0, 0, 4, 4, 4]])]
    _, fingerprint = make_instances(boxes, (20, 20, 20), (1.0, 2.0, 4.0), fill=0.5)
    objects = pool_objects(fingerprint, (2, 0, 1), (2.0, 1.0, 0.5))
    np.testing.assert_allclose(objects.boxes[0], [8, 0, 8, 40, 10, 24])  # x at 4 → 2 mm, z at 1 → 1, y at 2 → .5
    np.testing.assert_allclose(objects.sizes[1], [8, 1, 8])
    np.testing.assert_allclose(objects.voxels, [0.5 * 640 * 8, 0.5 * 8 * 8, 0.5 * 64 * 8])
    np.testing.assert_allclose(objects.fill, 0.5)
    np.testing.assert_allclose(objects.sides[1], 4.0)
    assert objects.cases.tolist() == [0, 1, 1]
    assert objects.per_case.tolist() == [1, 2]


def test_coarse_axes_are_left_out_of_fine_sides():
    _, fingerprint = make_instances([np.array([[0, 0, 0, 2, 16, 4]])], (20, 20, 20), (3.0, 1.0, 1.0))
    assert pool_objects(fingerprint, (0, 1, 2), (3.0, 1.0, 1.0)).fine_sides.tolist() == pytest.approx([8.0])
    assert pool_objects(fingerprint, (0, 1, 2), (1.5, 1.0, 1.0)).fine_sides.tolist() == pytest.approx([(4 * 16 * 4) ** (1 / 3)])


def test_shares_are_those_of_all_objects():
    _, fingerprint = make_instances([np.array([[0, 0, 4, 4]] * 3), np.array([[0, 0, 2, 2]])], (9, 9), (1.0, 1.0), fill=1.0)
    objects = pool_objects(with_objects(fingerprint, touching=1, overlapping=2, lost_to_nms=(2, 1, 1, 0, 0)), (0, 1), (1.0, 1.0))
    assert objects.touching == 2 / 4
    assert objects.overlapping == 4 / 52
    assert objects.lost_to_nms == (1.0, 0.5, 0.5, 0.0, 0.0)


def test_cases_without_objects_count_and_data_without_any_are_refused():
    empty = np.zeros((0, 4), dtype=int)
    _, fingerprint = make_instances([empty, np.array([[0, 0, 4, 4]]), empty], (9, 9), (1.0, 1.0))
    objects = pool_objects(fingerprint, (0, 1), (1.0, 1.0))
    assert objects.per_case.tolist() == [0, 1, 0]
    assert (count_per_tile(objects, (4, 4)).median, count_per_tile(objects, (4, 4)).largest) == (0, 1)
    with pytest.raises(InputError, match="No label holds an object"):
        pool_objects(make_instances([empty, empty], (9, 9), (1.0, 1.0))[1], (0, 1), (1.0, 1.0))
    unmeasured = Fingerprint(cases=tuple(msgspec.structs.replace(case, objects=None) for case in fingerprint.cases))
    with pytest.raises(InputError, match="case 0000 were not measured"):
        pool_objects(unmeasured, (0, 1), (1.0, 1.0))


def count_slowly(centres, tile):
    """The most centres in a tile that begins at any quarter of itself."""
    step = np.array(tile) / TILE_STEPS
    first, last = np.floor(centres.min(axis=0) / step) - TILE_STEPS, np.ceil(centres.max(axis=0) / step)
    places = itertools.product(*(range(int(low), int(high) + 1) for low, high in zip(first, last)))
    starts = (np.array(place) * step for place in places)
    return max(int(((centres >= start) & (centres < start + tile)).all(axis=1).sum()) for start in starts)


@pytest.mark.parametrize(("shape", "tile"), [((90, 70), (24, 32)), ((90, 70), (200, 200)), ((30, 40, 50), (8, 16, 24))])
def test_the_densest_tile_of_every_case_is_found(shape, tile):
    generator = np.random.default_rng(3)
    boxes = []
    for count in (1, 7, 40):
        low = generator.integers(0, np.array(shape) - 5, (count, len(shape)))
        boxes.append(np.concatenate([low, low + generator.integers(1, 5, low.shape)], axis=1))
    _, fingerprint = make_instances(boxes, shape, (1.0,) * len(shape))
    counts = count_per_tile(pool_objects(fingerprint, tuple(range(len(shape))), (1.0,) * len(shape)), tile)
    slow = [count_slowly((own[:, : len(shape)] + own[:, len(shape) :]) / 2, tile) for own in boxes]
    assert counts.largest == max(slow)
    assert (counts.median, counts.p95) == (np.median(slow), pytest.approx(np.percentile(slow, 95), abs=0.01))


def test_percentiles_are_per_axis_where_there_are_axes():
    sizes = np.stack([np.arange(101), 2 * np.arange(101)], axis=1)
    assert compute_percentiles(sizes)[99.0].tolist() == [99.0, 198.0]


def test_spread_boxes_lie_inside_and_have_the_sizes_asked_for():
    boxes = spread_boxes((64, 128, 128), 200, (12, 30), (3.0, 1.0, 1.0))
    assert (boxes[:, :3] >= 0).all()
    assert (boxes[:, 3:] <= (64, 128, 128)).all()
    edges = (boxes[:, 3:] - boxes[:, :3]) * (3, 1, 1)
    assert edges.min() >= 9
    assert edges.max() <= 39
    assert make_measured(boxes).boxes
