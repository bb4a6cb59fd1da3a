"""Measurements of objects against slow and obvious ones, on random small maps in 2D and 3D."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from autoseg.arrays.objects import (
    count_lost_to_nms,
    draw_ids,
    look_up_classes,
    measure_class,
    measure_map,
    number_objects,
    paint_masks,
    unpack_objects,
)
from autoseg.records.fingerprint import NMS_LEVELS

SHAPES = [(13, 17), (6, 9, 11)]


def draw_map(shape: tuple[int, ...], seed: int, count: int = 12) -> tuple[np.ndarray, tuple[int, ...]]:
    """Boxes painted over each other: some touch, some fall into parts, some vanish; a few voxels are to be ignored."""
    generator = np.random.default_rng(seed)
    values = np.zeros(shape, dtype=np.int32)
    for number in range(1, count + 1):
        low = generator.integers(0, np.array(shape) - 1)
        values[tuple(slice(start, start + edge) for start, edge in zip(low, generator.integers(1, 6, len(shape))))] = number
    ids, found = number_objects(values)
    ids[generator.random(shape) < 0.02] = -1
    present = [number for number in range(1, len(found) + 1) if (ids == number).any()]
    ids = np.select([ids == number for number in present], range(1, len(present) + 1), np.minimum(ids, 0)).astype(np.int32)
    return ids, tuple(int(number) for number in generator.integers(1, 3, len(present)))


def list_neighbours(place: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    found = []
    for axis, step in itertools.product(range(len(shape)), (-1, 1)):
        other = tuple(value + step * (own == axis) for own, value in enumerate(place))
        if all(0 <= value < size for value, size in zip(other, shape)):
            found.append(other)
    return found


def box_of(mask: np.ndarray) -> list[int]:
    where = np.argwhere(mask)
    return [*where.min(axis=0), *(where.max(axis=0) + 1)]


def overlap(one: list[int], other: list[int]) -> float:
    """IoU of two boxes by counting voxels."""
    dimension = len(one) // 2
    sets = [set(itertools.product(*(range(box[axis], box[axis + dimension]) for axis in range(dimension)))) for box in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def lose_to_nms(boxes: list[list[int]], classes: tuple[int, ...], level: float) -> int:
    dimension = len(boxes[0]) // 2
    size = [np.prod([box[axis + dimension] - box[axis] for axis in range(dimension)]) for box in boxes]
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda k: (-size[k], k)):
        if all(classes[index] != classes[other] or overlap(boxes[index], boxes[other]) <= level for other in kept):
            kept.append(index)
    return len(boxes) - len(kept)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_a_map_is_measured_as_an_object_at_a_time_would_be(shape, seed):
    ids, classes = draw_map(shape, seed)
    masks = [ids == number for number in range(1, len(classes) + 1)]
    measured = measure_map(ids, classes)
    boxes, voxels, numbers = unpack_objects(measured, len(shape))
    assert boxes.tolist() == [box_of(mask) for mask in masks]
    assert voxels.tolist() == [int(mask.sum()) for mask in masks]
    assert tuple(numbers) == classes
    touching = {
        int(ids[place])
        for place in itertools.product(*map(range, shape))
        for other in list_neighbours(place, shape)
        if ids[place] > 0 and ids[other] > 0 and ids[other] != ids[place]
    }
    assert measured.touching == len(touching)
    faces = {int(v) for axis in range(len(shape)) for end in (0, -1) for v in np.unique(np.take(ids, end, axis)) if v > 0}
    assert measured.on_border == len(faces)
    assert measured.in_parts == sum(ndimage.label(mask, np.ones((3,) * len(shape)))[1] > 1 for mask in masks)
    assert measured.tiny == sum(mask.sum() < 4 for mask in masks)
    assert measured.lost_to_nms == tuple(lose_to_nms([box_of(mask) for mask in masks], classes, level) for level in NMS_LEVELS)
    assert (measured.overlapping, measured.lost) == (0, 0)


def test_the_random_maps_show_what_they_are_to_show():
    found = [measure_map(*draw_map(shape, seed)) for shape in SHAPES for seed in range(6)]
    for name in ("touching", "on_border", "in_parts", "tiny"):
        assert any(getattr(measured, name) for measured in found), name
    assert any(measured.lost_to_nms[0] for measured in found)


@pytest.mark.parametrize("dimension", [2, 3])
def test_nms_deletes_what_it_deletes_among_the_boxes_of_one_class(dimension, monkeypatch):
    monkeypatch.setattr("autoseg.arrays.objects.PAIRS_AT_ONCE", 50)  # several rounds
    generator = np.random.default_rng(dimension)
    low = generator.integers(0, 5, (60, dimension))
    boxes = np.concatenate([low, low + generator.integers(2, 7, (60, dimension))], axis=1)
    classes = generator.integers(1, 3, 60)
    expected = [lose_to_nms(boxes.tolist(), tuple(classes), level) for level in NMS_LEVELS]
    assert list(count_lost_to_nms(boxes, classes)) == expected
    assert expected[0] > expected[2] > 0


def test_a_map_without_objects_measures_as_nothing():
    measured = measure_map(np.zeros((5, 6), np.int32), ())
    assert [part.shape for part in unpack_objects(measured, 2)] == [(0, 4), (0,), (0,)]
    assert (measured.touching, measured.on_border, measured.in_parts, measured.tiny, measured.lost_to_nms) == (0, 0, 0, 0, (0,) * 5)


def test_ten_thousand_objects_are_measured():
    """A grid of touching squares: every one is found, and only the one box that repeats another would be deleted."""
    ids = (np.arange(400)[:, None] // 4 * 100 + np.arange(400)[None] // 4 + 1).astype(np.int32)
    measured = measure_map(ids, (1,) * 10_000)
    assert measured.touching == 10_000
    assert measured.on_border == 4 * 100 - 4
    boxes = unpack_objects(measured, 2)[0]
    assert count_lost_to_nms(np.concatenate([boxes, boxes[:1]]), np.ones(10_001, int)) == (1,) * 5


def test_a_contested_voxel_goes_to_the_smallest_of_its_objects_in_whatever_order_they_come():
    shape = (6, 6)
    masks = [np.zeros(shape, bool) for _ in range(4)]
    masks[0][:4, :4] = True
    masks[1][3:, 3:5] = True
    masks[2][3, 2:5] = True
    masks[3][1:3, 1:3] = True  # inside the first
    places = [np.flatnonzero(mask) for mask in masks]
    sizes = [own.size for own in places]
    for order in itertools.permutations(range(4)):
        ids, contested = paint_masks([places[k] for k in order], shape)
        assert contested == int((np.sum(masks, axis=0) > 1).sum())
        for place in itertools.product(*map(range, shape)):
            own = [k for k in range(4) if masks[k][place]]
            expected = min(own, key=lambda k: sizes[k]) if own else None
            assert ids[place] == (0 if expected is None else order.index(expected) + 1)


def test_equal_sizes_are_settled_by_place_not_by_order():
    places = [np.array([0, 1, 2]), np.array([2, 3, 4]), np.array([2, 5, 6])]
    winners = set()
    for order in itertools.permutations(range(3)):
        ids, contested = paint_masks([places[k] for k in order], (8,))
        assert contested == 1
        winners.add(order[ids[2] - 1])
    assert len(winners) == 1


def test_an_object_covered_by_smaller_ones_has_no_voxel_left():
    ids, contested = paint_masks([np.array([0, 1]), np.array([0]), np.array([1]), np.array([], int)], (3,))
    assert (ids.tolist(), contested) == ([2, 3, 0], 2)
    assert number_objects(ids)[1] == (2, 3)


def test_numbers_are_made_contiguous_and_all_that_is_not_positive_background():
    ids, found = number_objects(np.array([[70_000, 3], [-1, 0], [3, 9]]))
    assert (ids.tolist(), found, ids.dtype) == ([[3, 1], [0, 0], [1, 2]], (3, 9, 70_000), np.int32)


@pytest.mark.parametrize("shape", SHAPES)
def test_classes_are_summed_over_their_objects(shape):
    ids, classes = draw_map(shape, 3)
    spacing = (0.5, 2.0, 3.0)[: len(shape)]
    measured = measure_map(ids, classes)
    for number in (1, 2):
        own = [ids == place + 1 for place, value in enumerate(classes) if value == number]
        found = measure_class(ids, measured, number, "name", spacing)
        volumes = [mask.sum() * np.prod(spacing) for mask in own]
        edges = [max((box_of(m)[len(shape) + a] - box_of(m)[a]) * spacing[a] for a in range(len(shape))) for m in own]
        assert (found.objects, found.voxels, found.name) == (len(own), sum(int(mask.sum()) for mask in own), "name")
        np.testing.assert_allclose(found.object_volumes, np.quantile(volumes, (0, 0.25, 0.5, 0.75, 1)))
        np.testing.assert_allclose(found.object_extents, np.quantile(edges, (0, 0.25, 0.5, 0.75, 1)))
        np.testing.assert_allclose(found.centre, (np.argwhere(np.logical_or.reduce(own)).mean(axis=0) + 0.5) / shape)
    assert measure_class(ids, measured, 3, "none", spacing).objects == 0


def test_voxels_are_drawn_from_every_object_and_only_from_it():
    ids, classes = draw_map((13, 17), 1)
    drawn = draw_ids(ids, 100, 5, np.random.default_rng(0))
    assert list(drawn) == list(range(1, len(classes) + 1))
    for number, voxels in drawn.items():
        assert len(voxels) == min(5, (ids == number).sum()) == len(set(map(tuple, voxels)))
        assert (ids[tuple(voxels.T)] == number).all()
    few = draw_ids(ids, 3, 5, np.random.default_rng(0))
    assert len(few) == 3
    assert set(few) < set(drawn)
    assert draw_ids(np.zeros((4, 4), np.int32), 3, 5, np.random.default_rng(0)) == {}


def test_ids_become_classes_and_what_is_ignored_stays_so():
    numbers = look_up_classes(np.array([[0, 3], [-1, 1]]), (2, 1, 5))
    assert (numbers.tolist(), numbers.dtype) == ([[0, 5], [-1, 2]], np.int16)
