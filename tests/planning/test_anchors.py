"""Anchors by k-means of sizes: they find clusters that were made, get no worse on the way, and are the same every time."""

import numpy as np
import pytest

from autoseg.planning.anchors import (
    ENOUGH,
    choose_anchors,
    cluster,
    compute_overlaps,
    descend,
)

STRIDES = [(2, 2), (4, 4), (8, 8)]


def draw_sizes(shapes, count, spread=0.04, seed=0):
    """`count` sizes about each of the shapes."""
    generator = np.random.default_rng(seed)
    return np.concatenate([np.array(shape) * np.exp(generator.normal(0, spread, (count, len(shape)))) for shape in shapes])


def measure_slowly(sizes, shapes):
    """Best IoU of every size, one pair after another."""
    best = []
    for size in sizes:
        found = []
        for shape in shapes:
            common = np.prod([min(a, b) for a, b in zip(size, shape)])
            found.append(common / (np.prod(size) + np.prod(shape) - common))
        best.append(max(found))
    return np.array(best)


@pytest.mark.parametrize("dimension", [2, 3])
def test_overlaps_are_those_of_boxes_about_one_centre(dimension):
    generator = np.random.default_rng(1)
    sizes, shapes = generator.uniform(1, 30, (20, dimension)), generator.uniform(1, 30, (4, dimension))
    np.testing.assert_allclose(compute_overlaps(sizes, shapes).max(axis=1), measure_slowly(sizes, shapes))


@pytest.mark.parametrize("made", [[(8, 8), (6, 14), (14, 6)], [(4, 10, 10), (8, 8, 8), (9, 20, 9)]], ids=["2D", "3D"])
def test_clusters_that_were_made_are_found(made):
    sizes = draw_sizes(made, 200)
    found = descend(sizes, cluster(sizes, 3, np.random.default_rng(0)))
    for shape in made:
        assert np.abs(np.log(found / np.array(shape))).max(axis=1).min() < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_the_descent_is_never_worse_than_its_start(seed):
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.normal(2.5, 0.6, (300, 2)))
    start = sizes[:4].copy()
    end = descend(sizes, start)
    assert measure_slowly(sizes, end).mean() >= measure_slowly(sizes, start).mean() + 0.01
    assert (end >= 1).all()
    np.testing.assert_array_equal(start, sizes[:4])


def test_every_level_has_the_shapes_of_its_own_objects_and_the_figures_are_right():
    sizes = draw_sizes([(8, 8), (16, 16), (30, 34)], 200, spread=0.1)
    chosen = choose_anchors(sizes, STRIDES)
    assert [len(level) for level in chosen.shapes] == [3, 3, 3]
    sides = [np.sqrt(np.prod(level, axis=1)) for level in chosen.shapes]
    for side, middle in zip(sides, (8, 16, 32)):
        assert np.abs(np.log(side / middle)).max() < 0.3
    low, high = np.percentile(sizes, (0.5, 99.5), axis=0)
    kept = sizes[((sizes >= low) & (sizes <= high)).all(axis=1)]
    best = measure_slowly(kept, [shape for level in chosen.shapes for shape in level])
    assert chosen.overlap == pytest.approx(best.mean())
    assert (chosen.below_half, chosen.below_third) == ((best < 0.5).mean(), (best < 0.35).mean())
    assert chosen.own == (True, True, True)


def test_a_level_of_few_objects_takes_its_neighbours_shapes():
    chosen = choose_anchors(draw_sizes([(16, 20)], 300), STRIDES)
    assert chosen.own == (False, True, False)
    middle = np.array(chosen.shapes[1])
    np.testing.assert_allclose(chosen.shapes[0], middle / 2)
    np.testing.assert_allclose(chosen.shapes[2], middle * 2)


def test_the_same_sizes_give_the_same_anchors_and_stay_as_they_are():
    sizes = draw_sizes([(8, 8), (6, 14), (30, 30)], 100, spread=0.3)
    before = sizes.copy()
    assert choose_anchors(sizes, STRIDES) == choose_anchors(sizes, STRIDES)
    np.testing.assert_array_equal(sizes, before)


def test_more_shapes_are_there_where_three_meet_objects_badly():
    generator = np.random.default_rng(2)
    side, ratio = generator.normal(2.5, 0.05, 900), generator.uniform(-1.6, 1.6, 900)
    long = np.exp(np.stack([side + ratio, side - ratio], axis=1))
    chosen = choose_anchors(long, [(4, 4)])
    assert len(chosen.shapes[0]) > 3
    three = cluster(long, 3, np.random.default_rng(0))
    assert measure_slowly(long, descend(long, three)).mean() < ENOUGH[2] - 0.02 < chosen.overlap
    round_ones = choose_anchors(np.exp(generator.normal(2.7, 0.1, (300, 2))), [(4, 4)])
    assert len(round_ones.shapes[0]) == 3
    assert round_ones.overlap > ENOUGH[2]


def test_a_single_giant_changes_nothing():
    sizes = draw_sizes([(8, 8), (16, 16)], 300)
    giant = np.concatenate([sizes, [[400.0, 500.0]]])
    assert max(max(shape) for level in choose_anchors(giant, STRIDES[:2]).shapes for shape in level) < 25


def test_one_object_is_enough():
    chosen = choose_anchors(np.array([[8.0, 9.0]]), STRIDES)
    assert chosen.overlap == pytest.approx(1.0)
    assert [len(level) for level in chosen.shapes] == [3, 3, 3]


def test_no_more_objects_than_needed_are_looked_at():
    sizes = np.tile(draw_sizes([(8, 8)], 30), (1000, 1))  # 30,000
    assert choose_anchors(sizes, STRIDES).overlap > 0.9
