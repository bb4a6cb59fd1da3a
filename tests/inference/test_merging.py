"""The simulation of instance.md, 6.10: an exact detector on every tile, its boxes off by a voxel; all objects come back, none twice."""

import numpy as np
import pytest
from made_up_objects import draw_ellipsoids

from autoseg.arrays.masks import FoundObject, paint_objects
from autoseg.arrays.tiles import choose_overlap
from autoseg.inference.merging import Candidate, merge_tiles, place_tiles


def look(ids, tile, number, jitter, generator, classes=None):
    """What an exact detector says of a tile: every object in it that shows at least 10 voxels, shifted by up to `jitter` voxels."""
    candidates = []
    inside = tuple(slice(low, high) for low, high in tile.box)
    view = ids[inside]
    for name in np.unique(view[view > 0]):
        shift = generator.integers(-jitter, jitter + 1, ids.ndim)
        moved = np.zeros(view.shape, bool)
        places = np.argwhere(view == name) + shift
        places = places[((places >= 0) & (places < view.shape)).all(axis=1)]
        if len(places) < 10:
            continue
        moved[tuple(places.T)] = True
        low, high = places.min(axis=0), places.max(axis=0) + 1
        start = np.array([edge for edge, _ in tile.box])
        box = tuple((int(a), int(b)) for a, b in zip(low + start, high + start))
        mask = moved[tuple(slice(a, b) for a, b in zip(low, high))]
        class_number = 1 if classes is None else classes[name]
        found = FoundObject(box, mask.astype(np.float16), float(generator.uniform(0.5, 1)), class_number)
        candidates.append(Candidate(found, mask, np.array([*low + start, *high + start], np.float32), number))
    return candidates


def detect_all(ids, patch, overlap, jitter, seed=0, classes=None):
    generator = np.random.default_rng(seed)
    tiles = place_tiles(ids.shape, patch, overlap)
    candidates = [c for number, tile in enumerate(tiles) for c in look(ids, tile, number, jitter, generator, classes)]
    return candidates, tiles


def count_errors(ids, found):
    """Objects without a partner of IoU ≥ .5, and found objects without one."""
    missed, extra = [], list(range(len(found)))
    whole = [np.zeros(ids.shape, bool) for _ in found]
    for mask, one in zip(whole, found):
        mask[tuple(slice(low, high) for low, high in one.box)] = one.select(0.5)
    for name in range(1, ids.max() + 1):
        own = ids == name
        best = [index for index in extra if (whole[index] & own).sum() >= 0.5 * (whole[index] | own).sum()]
        if best:
            extra.remove(best[0])
        else:
            missed.append(name)
    return missed, extra


@pytest.mark.parametrize("overlap", [32, 48, 64])
@pytest.mark.parametrize("jitter", [0, 1])
def test_all_objects_come_back_once(overlap, jitter):
    generator = np.random.default_rng(overlap)
    ids = draw_ellipsoids((400, 400), 3, (50, 90), generator)
    ids = draw_ellipsoids((400, 400), 150, (4, 20), generator, ids)
    assert ids.max() > 50
    candidates, tiles = detect_all(ids, (128, 128), (overlap, overlap), jitter)
    assert len(candidates) > 1.3 * ids.max()
    found = merge_tiles(candidates, tiles, ids.shape)
    assert count_errors(ids, found) == ([], [])
    assert sum(one.merged for one in found) >= 1


def test_the_same_in_three_dimensions():
    generator = np.random.default_rng(0)
    ids = draw_ellipsoids((56, 88, 88), 1, (24, 34), generator)
    ids = draw_ellipsoids((56, 88, 88), 40, (6, 8), generator, ids)
    assert ids.max() > 10
    candidates, tiles = detect_all(ids, (40, 48, 48), (20, 24, 24), 1)
    assert len(tiles) >= 12
    assert count_errors(ids, merge_tiles(candidates, tiles, ids.shape)) == ([], [])


def draw_ring(size, radius, width):
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    distance = np.hypot(y, x)
    return ((distance < radius) & (distance > radius - width)).astype(np.int32)


def test_a_ring_larger_than_a_tile_is_one_object():
    ids = draw_ring(640, 300, 24)
    candidates, tiles = detect_all(ids, (256, 256), (64, 64), 1)
    found = merge_tiles(candidates, tiles, ids.shape)
    assert len(found) == 1
    assert found[0].merged
    assert count_errors(ids, found) == ([], [])


def make_bars(size):
    """Two bars that cross: candidates of one tile that sees all, and the voxels of both."""
    bars = np.zeros((2, size, size), bool)
    bars[0, size // 2 - 6 : size // 2 + 6, 10 : size - 10] = True
    bars[1, 10 : size - 10, size // 2 - 6 : size // 2 + 6] = True
    return bars


@pytest.mark.parametrize(("size", "patch"), [(120, 128), (300, 128)])
def test_two_crossing_bars_are_two(size, patch):
    bars = make_bars(size)
    tiles = place_tiles((size, size), (patch, patch), (48, 48))
    generator = np.random.default_rng(0)
    candidates = [c for bar in bars for number, tile in enumerate(tiles) for c in look(bar.astype(int), tile, number, 1, generator)]
    found = merge_tiles(candidates, tiles, (size, size))
    assert len(found) == 2
    shares = sorted(one.select(0.5).sum() / bars[0].sum() for one in found)
    assert 0.9 < shares[0] <= shares[1] < 1.15
    assert paint_objects(found, (size, size)).ids.max() == 2


def test_tiles_find_what_one_view_of_all_finds():
    ids = draw_ellipsoids((224, 224), 60, (4, 24), np.random.default_rng(3))
    candidates, tiles = detect_all(ids, (128, 128), (32, 32), 0)
    assert len(tiles) == 4
    whole, one = detect_all(ids, (224, 224), (64, 64), 0)
    assert len(one) == 1
    tiled = paint_objects(merge_tiles(candidates, tiles, ids.shape), ids.shape).ids
    alone = paint_objects(merge_tiles(whole, one, ids.shape), ids.shape).ids
    assert tiled.max() == alone.max() == ids.max()
    np.testing.assert_array_equal(tiled > 0, alone > 0)


def make_candidate(tile, rows, columns, score=0.9):
    """A full box of 1 in the image."""
    mask = np.ones((rows[1] - rows[0], columns[1] - columns[0]), bool)
    found = FoundObject((rows, columns), mask.astype(np.float16), score, 1)
    return Candidate(found, mask, np.array([rows[0], columns[0], rows[1], columns[1]], np.float32), tile)


TWO = (64, 208)  # an image of two tiles, columns 0 … 128 and 80 … 208; the cores meet at 104


def merge_two(*candidates):
    tiles = place_tiles(TWO, (64, 128), (32, 32))
    assert [tile.box[1] for tile in tiles] == [(0, 128), (80, 208)]
    return merge_tiles(list(candidates), tiles, TWO)


def test_a_tile_is_not_believed_beyond_its_core():
    """What a tile sees whole in the other's core, the other sees too, or it is not there."""
    assert merge_two(make_candidate(0, (5, 15), (110, 120))) == []
    assert len(merge_two(make_candidate(0, (5, 15), (98, 110)))) == 1
    assert len(merge_two(make_candidate(0, (5, 15), (98, 110)), make_candidate(1, (5, 15), (98, 110)))) == 1


def test_a_fragment_of_a_whole_object_joins_no_other():
    whole, fragment, other = (
        make_candidate(1, (0, 20), (82, 126)),
        make_candidate(0, (0, 20), (84, 128)),
        make_candidate(1, (0, 20), (80, 200)),
    )
    found = merge_two(whole, fragment, other)
    assert [one.box[1] for one in found] == [(82, 126), (80, 200)]
    assert not found[1].merged


def test_a_fragment_within_a_larger_one_is_dropped():
    large, small = make_candidate(1, (0, 40), (80, 200)), make_candidate(0, (10, 20), (70, 128), 0.95)
    assert [one.box[1] for one in merge_two(large, small)] == [(80, 200)]


def test_objects_of_two_classes_are_not_joined():
    ids = np.zeros((128, 300), np.int32)
    ids[20:40, 5:295], ids[60:80, 5:295] = 1, 2
    candidates, tiles = detect_all(ids, (128, 128), (48, 48), 1, classes={1: 2, 2: 1})
    found = merge_tiles(candidates, tiles, ids.shape)
    assert sorted(one.class_number for one in found) == [1, 2]


def test_the_order_of_the_candidates_does_not_matter():
    ids = draw_ellipsoids((300, 300), 80, (4, 60), np.random.default_rng(5))
    candidates, tiles = detect_all(ids, (128, 128), (48, 48), 1)
    first = paint_objects(merge_tiles(candidates, tiles, ids.shape), ids.shape).ids
    for seed in range(3):
        shuffled = [candidates[i] for i in np.random.default_rng(seed).permutation(len(candidates))]
        np.testing.assert_array_equal(paint_objects(merge_tiles(shuffled, tiles, ids.shape), ids.shape).ids, first)


def test_no_tile_answers_for_more_than_its_part():
    for shape, patch in (((100, 37), (64, 64)), ((7, 129, 130), (16, 64, 48))):
        counts = np.zeros(shape, int)
        for tile in place_tiles(shape, patch, choose_overlap(patch, (10.0,) * len(patch))):
            counts[tuple(slice(low, high) for low, high in tile.core)] += 1
            assert all(a >= c and b <= d for (a, b), (c, d) in zip(tile.core, tile.box))
        assert (counts == 1).all()


def test_nothing_found_is_nothing():
    tiles = place_tiles((300, 300), (128, 128), (48, 48))
    assert merge_tiles([], tiles, (300, 300)) == []
    assert paint_objects([], (300, 300)).ids.max() == 0
